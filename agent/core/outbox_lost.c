/* SPDX-License-Identifier: Apache-2.0
 * Bundles whose ciphertext is lost: with the process that had it in memory, or out of the spool by another
 * program. The agency is asked for them; what it does not have is given up, and sealed again. */
#include <stdlib.h>

#include "agent/core/flow_internal.h"
#include "agent/seal/spool.h"
#include "base/check.h"
#include "base/clock.h"
#include "base/log.h"

bool outbox_is_missing(const struct flow *flow, int64_t row, int64_t bundle_row) {
	for (size_t d = 0; flow->missing > 0 && d < flow->policy->destination_count; d++)
		for (const struct parcel *p = flow->destinations[d].parcels; p != NULL; p = p->next)
			if (p->missing && (p->row == bundle_row || p->segment_of == row))
				return true;
	return false;
}

struct missing {
	struct id bundle;
};

static int missing_work(struct ledger *ledger, void *ctx, struct cede_error *reterr) {
	struct missing *m = ctx;

	return ledger_event(ledger, LEDGER_VIOLATION, &m->bundle, clock_wall_ns(),
		"reason=spooled-bundle-missing", reterr);
}

/* Another program took it out of the spool. */
static void report_missing(struct flow *flow, const struct parcel *p) {
	struct missing *m = malloc(sizeof *m);
	char id[ID_TEXT_SIZE];

	id_print(&p->id, id);
	flow->figures.violations[VIOLATION_BUNDLE_MISSING]++;
	log_event(LOG_LEVEL_ERROR, "spool.missing",
		"bundle=%s text=\"another program removed it; lost, if the agency does not have it\"",
		id);
	if (m == NULL)
		return;
	m->bundle = p->id;
	flow_record(flow, missing_work, NULL, free, m);
}

void outbox_set_missing(struct flow *flow, struct parcel *p) {
	report_missing(flow, p);
	flow->spool_bytes -= p->spooled ? p->size : 0;
	p->spooled = false;
	p->lost = p->missing = true;
	flow->missing++;
}

void outbox_look_for_segments(struct flow *flow, const struct ledger_capture *c) {
	for (size_t d = 0; c->segment_count > 1 && d < flow->policy->destination_count; d++)
		for (struct parcel *p = flow->destinations[d].parcels; p != NULL; p = p->next)
			if (p->segment_of == c->row && p->spooled && p->fd < 0 &&
				!spool_has(flow->setup.spool_fd, &p->id))
				outbox_set_missing(flow, p);
}

/* ---- a bundle whose ciphertext was lost, and which the agency never got and never will take */

struct abandon {
	struct flow *flow;
	struct id bundle;
	int64_t row;
	int64_t *touched; /* captures whose wipe was begun while they were proven: it goes on */
	size_t touched_count;
	struct capture_list wiping;
	uint64_t wiped; /* captures that are nowhere any more */
	bool open;      /* no receipt proved it meanwhile */
	bool undecided; /* its captures are to be decided anew */
};

static int keep(struct ledger *ledger, struct abandon *a, int64_t row, int64_t now,
	struct cede_error *reterr) {
	for (size_t i = 0; i < a->touched_count; i++)
		if (a->touched[i] == row) {
			a->wiped++;
			return CEDE_OK;
		}
	return ledger_capture_kept(
		ledger, row, now, "reason=spooled-bundle-missing effect=kept", reterr);
}

static int count_one(void *ctx, const struct ledger_capture *c, struct cede_error *reterr) {
	uint64_t *count = ctx;

	(void)c;
	(void)reterr;
	++*count;
	return CEDE_OK;
}

static int still_open(struct ledger *ledger, struct abandon *a, struct cede_error *reterr) {
	enum bundle_state state;

	CEDE_TRY(ledger_bundle_state(ledger, a->row, &state, reterr));
	a->open = state == BUNDLE_SEALED;
	return CEDE_OK;
}

static int abandon_work(struct ledger *ledger, void *ctx, struct cede_error *reterr) {
	struct abandon *a = ctx;
	int64_t now = clock_wall_ns();

	capture_list_done(&a->wiping); /* of a first try */
	a->undecided = false;
	a->wiped = 0;
	CEDE_TRY(still_open(ledger, a, reterr));
	if (!a->open) /* the receipt of another one proved it meanwhile */
		return CEDE_OK;
	CEDE_TRY(ledger_bundle_captures(
		ledger, a->row, CAPTURE_WIPING, capture_list_add, &a->wiping, reterr));
	CEDE_TRY(ledger_bundle_captures(ledger, a->row, CAPTURE_WIPED, count_one, &a->wiped, reterr));
	/* kept, and with the bundle's end ready again */
	for (size_t i = 0; i < a->wiping.count; i++)
		CEDE_TRY(keep(ledger, a, a->wiping.items[i].row, now, reterr));
	return ledger_bundle_abandoned(ledger, a->row, now, &a->undecided, reterr);
}

static void abandon_done(struct flow *flow, void *ctx) {
	struct abandon *a = ctx;
	struct parcel *p = outbox_find(flow, &a->bundle);

	if (p == NULL && !a->open)
		return; /* it went with that */
	require(p != NULL);
	size_t destination = p->destination;
	flow->figures.lost += a->wiped;
	disposal_give_up(flow, p);
	outbox_drop(flow, p);
	flow->destinations[destination].nothing = false;
	disposal_run(flow);
	outbox_push(flow, destination);
	handover_plan(flow);
	for (size_t i = 0; a->undecided && i < flow->policy->source_count; i++)
		intake_scan(flow, i, "");
}

static void abandon_release(void *ctx) {
	struct abandon *a = ctx;
	struct flow *flow = a->flow;

	capture_list_done(&a->wiping);
	free(a->touched);
	free(a);
	flow_settled(flow);
}

/* false: no memory, the tick tries again. */
static bool abandon(struct flow *flow, struct parcel *p) {
	struct abandon *a = calloc(1, sizeof *a);

	if (a == NULL || !disposal_touched(flow, &a->touched, &a->touched_count)) {
		free(a);
		return false;
	}
	a->flow = flow;
	a->bundle = p->id;
	a->row = p->row;
	p->state = PARCEL_CONFIRMED;
	p->given_up = true;
	flow_record(flow, abandon_work, abandon_done, abandon_release, a);
	return true;
}

/* No wipe is under way and none begins: what waits to be wiped for it is whole, and known. */
void outbox_give_up(struct flow *flow) {
	if (flow->giving_up == 0 || flow->wipe_jobs > 0 || !flow->running)
		return;
	for (size_t i = 0; i < flow->policy->destination_count; i++)
		for (struct parcel *p = flow->destinations[i].parcels; p != NULL; p = p->next)
			if (p->absent && !p->given_up && !abandon(flow, p))
				return;
}

void outbox_absent(void *ctx, const struct id *bundle) {
	struct flow *flow = ctx;
	struct parcel *p = outbox_find(flow, bundle);

	if (p == NULL || p->state != PARCEL_PUSHING)
		return;
	/* asked again when that is over, or the one instead of which it was sealed is answered */
	if (p->anew || anew_holds_back(flow, p, anew_unknown(&flow->destinations[p->destination]))) {
		outbox_wait(flow, p);
		return;
	}
	if (p->lost && p->missing && flow->running) {
		p->state = PARCEL_CONFIRMED;
		p->absent = true;
		flow->giving_up++;
		outbox_give_up(flow);
		return;
	}
	if (!p->lost || p->missing || !abandon(flow, p))
		outbox_wait(flow, p); /* asked again at the next occasion */
}
