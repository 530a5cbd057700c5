/* SPDX-License-Identifier: Apache-2.0
 * Sealed bundles that were in memory only and were lost there, where every source of their captures
 * says at_max_age: seal. Whether the agency has such a bundle only the agency can tell. If it can't
 * be asked when max_age nears, the captures are sealed anew, in a bundle of their own, into the
 * spool, and wiped. They leave the lost bundle in the transaction that records the new one: a crash
 * or a failure before that changes nothing. Where another policy is in force since and does not
 * want all of them, none is sealed: only the agency's answer frees them.
 *
 * Once (I11): the new bundle is not sent before the agency said whether it has the lost one. If it
 * has, the new one goes from the spool unsent: the receipt proves it, too. After a start the ledger
 * is asked which bundles are such; until then none of the spool that was sealed later is sent. */
#include <stdlib.h>
#include <string.h>

#include "agent/core/load.h"
#include "base/check.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/log.h"
#include "policy/decide.h"

#define ANSWER_NS (2 * NS_PER_SECOND) /* with a link that works the agency has so long to say */

/* Large captures are left out: what else was sealed of them hangs on the same rows. */
static bool is_of_memory(const struct parcel *p) {
	return p->lost && !p->missing && p->segment_of == 0;
}

/* In memory since a policy before, which decided for it: the one in force decides again. */
static bool is_inherited(const struct parcel *p) {
	return !p->spooled && p->fd >= 0;
}

int64_t anew_unknown(const struct flow_destination *d) {
	int64_t row = INT64_MAX;

	for (const struct parcel *p = d->parcels; p != NULL; p = p->next)
		if (is_of_memory(p) && !p->heirs_known && p->row < row)
			row = p->row;
	return row;
}

static struct parcel *find_row(const struct flow_destination *d, int64_t row) {
	for (struct parcel *p = d->parcels; p != NULL; p = p->next)
		if (p->row == row)
			return p;
	return NULL;
}

static void say_waits(const struct flow *flow, struct parcel *lost) {
	char id[ID_TEXT_SIZE];

	if (lost->waited_for)
		return;
	lost->waited_for = true;
	id_print(&lost->id, id);
	log_event(LOG_LEVEL_INFO, "push.waits",
		"destination=%s bundle=%s text=\"what was sealed anew waits until the agency says whether it has this one\"",
		flow->policy->destinations[lost->destination].name, id);
}

bool anew_holds_back(struct flow *flow, const struct parcel *p, int64_t unknown) {
	if ((p->spooled || p->missing) && p->row > unknown)
		return true;
	struct parcel *lost = p->instead_of == 0
		? NULL
		: find_row(&flow->destinations[p->destination], p->instead_of);
	if (lost != NULL)
		say_waits(flow, lost);
	return lost != NULL;
}

/* ---- when is it urgent? */

struct look {
	struct flow *flow;
	struct id bundle;
	int64_t row;
	struct capture_list list;
	bool segment;
	bool heirs_wanted;
	struct id *heirs; /* bundles that have captures of it */
	size_t heir_count;
};

static int add_heir(void *ctx, const struct ledger_bundle *b, struct cede_error *reterr) {
	struct look *k = ctx;
	struct id *ids = reallocarray(k->heirs, k->heir_count + 1, sizeof *ids);

	if (ids == NULL)
		return CEDE_FAIL_MEMORY(reterr);
	k->heirs = ids;
	ids[k->heir_count++] = b->id;
	return CEDE_OK;
}

static int look_work(struct ledger *ledger, void *ctx, struct cede_error *reterr) {
	struct look *k = ctx;

	capture_list_done(&k->list); /* of a first try */
	k->heir_count = 0;
	if (k->heirs_wanted)
		CEDE_TRY(ledger_bundle_duplicates(ledger, k->row, add_heir, k, reterr));
	/* while other segments of a capture wait it is not SEALED */
	return ledger_bundle_captures(ledger, k->row,
		k->segment ? CAPTURE_STATE_COUNT : CAPTURE_SEALED, capture_list_add, &k->list,
		reterr);
}

/* By the policy in force; not later than it was said before. */
static int64_t deadline_of(const struct ledger_capture *c, const struct policy_source *source) {
	int64_t deadline;

	if (__builtin_add_overflow(c->born_ns, source->max_age_ns, &deadline) ||
		deadline > c->deadline_ns)
		return c->deadline_ns;
	return deadline;
}

static void judge(const struct flow *flow, struct parcel *p, const struct capture_list *list) {
	const struct policy *policy = flow->policy;

	p->may_spool = list->count > 0;
	p->urgent_ns = INT64_MAX;
	for (size_t i = 0; i < list->count; i++) {
		const struct ledger_capture *c = &list->items[i];
		size_t source;
		if (!flow_source_named(flow, c->source, &source) ||
			policy->sources[source].at_max_age != AT_MAX_AGE_SEAL ||
			policy->sources[source].destination != p->destination) {
			p->may_spool = false;
			return;
		}
		int64_t urgent = deadline_of(c, &policy->sources[source]) -
			handover_margin_ns(&policy->sources[source]);
		p->urgent_ns = urgent < p->urgent_ns ? urgent : p->urgent_ns;
	}
}

static void look_done(struct flow *flow, void *ctx) {
	const struct look *k = ctx;
	struct parcel *p = outbox_find(flow, &k->bundle);

	if (p == NULL)
		return;
	p->looking = false;
	p->looked = true;
	for (size_t i = 0; i < k->heir_count; i++) {
		struct parcel *heir = outbox_find(flow, &k->heirs[i]);
		if (heir != NULL)
			heir->instead_of = p->row;
	}
	p->heirs_known = p->heirs_known || k->heirs_wanted;
	judge(flow, p, &k->list);
	outbox_push(flow, p->destination);
}

static void look_release(void *ctx) {
	struct look *k = ctx;
	struct flow *flow = k->flow;

	capture_list_done(&k->list);
	free(k->heirs);
	free(k);
	flow_settled(flow);
}

static void look(struct flow *flow, struct parcel *p) {
	struct look *k = calloc(1, sizeof *k);

	if (k == NULL)
		return; /* the tick tries again */
	*k = (struct look){.flow = flow,
		.bundle = p->id,
		.row = p->row,
		.segment = p->segment_of != 0,
		.heirs_wanted = is_of_memory(p) && !p->heirs_known};
	p->looking = true;
	flow_record(flow, look_work, look_done, look_release, k);
}

void anew_found(struct flow *flow) {
	for (size_t i = 0; i < flow->policy->destination_count; i++)
		for (struct parcel *p = flow->destinations[i].parcels; p != NULL; p = p->next)
			if ((is_of_memory(p) || is_inherited(p)) && !p->anew && !p->may_spool)
				p->looked = false;
}

/* ---- sealed anew */

struct again {
	struct load *load;
	int64_t row;
	bool out_of_reach; /* a source of it is not there now */
	bool unwanted;     /* the policy in force does not want all of them */
};

static int take_one(void *ctx, const struct ledger_capture *c, struct cede_error *reterr) {
	struct again *a = ctx;
	struct load *l = a->load;
	struct seal_item *item;

	for (size_t i = 0; i < l->source_count; i++) {
		size_t source = l->sources[i];
		if (!slice_is(c->source, l->flow->sources[source].key))
			continue;
		a->unwanted =
			!still_wanted(&l->flow->policy->sources[source], c->path, c->identity.size);
		if (a->unwanted)
			return 1;
		CEDE_TRY(load_add(l, c, source, &item, reterr));
		item->anew = true;
		memcpy(item->sealed_sha256, c->sha256, sizeof item->sealed_sha256);
		return CEDE_OK;
	}
	a->out_of_reach = true;
	return 1;
}

static int again_work(struct ledger *ledger, void *ctx, struct cede_error *reterr) {
	struct again *a = ctx;
	struct load *l = a->load;
	int64_t now = clock_wall_ns();

	seal_items_free(l->items, l->count); /* of a first try */
	l->items = NULL;
	l->count = l->room = 0;
	a->out_of_reach = a->unwanted = false;
	CEDE_TRY(ledger_bundle_captures(ledger, a->row, CAPTURE_SEALED, take_one, a, reterr));
	if (a->out_of_reach || a->unwanted || l->count == 0)
		return CEDE_OK;
	ledger_head(ledger, &l->job.ledger_sequence, l->job.ledger_hash);
	return ledger_checkpoint(ledger,
		slice_str(l->flow->policy->destinations[l->destination].name), now, &l->checkpoint,
		&l->field, reterr);
}

static void say_anew(const struct flow *flow, const struct load *l) {
	char id[ID_TEXT_SIZE];

	id_print(&l->lost, id);
	log_event(LOG_LEVEL_WARNING, "bundle.anew",
		"bundle=%s destination=%s captures=%zu text=\"lost with the memory it was in, and the agency can't be asked: sealed anew before max_age\"",
		id, flow->policy->destinations[l->destination].name, l->job.sealed);
}

/* Nothing of it is sealed here. */
static void leave(struct flow *flow, const struct again *a, struct parcel *p) {
	const struct load *l = a->load;

	flow->seal_jobs--;
	flow->destinations[l->destination].sealing--;
	p->anew = false;
	p->looked = a->unwanted; /* else looked at again */
	p->may_spool = false;
}

static void again_done(struct flow *flow, void *ctx) {
	struct again *a = ctx;
	struct load *l = a->load;
	struct parcel *p = outbox_find(flow, &l->lost);

	require(p != NULL); /* no answer ends it meanwhile */
	if (a->out_of_reach || a->unwanted || l->count == 0) {
		leave(flow, a, p);
		return;
	}
	outbox_checkpoint(flow, l->destination, &l->field);
	load_seal(CEDE_TAKE(a->load));
}

static void again_release(void *ctx) {
	struct again *a = ctx;

	if (a->load != NULL)
		load_release(a->load);
	free(a);
}

/* What is another file now, or none, is no capture of the lost bundle any more. */
static int record_left(
	struct ledger *ledger, const struct load *l, int64_t now, struct cede_error *reterr) {
	for (size_t i = 0; i < l->job.count; i++) {
		const struct seal_item *item = &l->job.items[i];
		if (item->outcome == SEAL_CHANGED)
			CEDE_TRY(ledger_capture_move(ledger, item->row, CAPTURE_REPLACED, 0, now,
				"reason=changed", reterr));
		if (item->outcome == SEAL_GONE)
			CEDE_TRY(ledger_capture_move(ledger, item->row, CAPTURE_GONE, 0, now,
				"reason=removed-by-another-program", reterr));
	}
	return CEDE_OK;
}

int anew_record(struct ledger *ledger, struct load *l, int64_t now_ns, struct cede_error *reterr) {
	CLEANUP(freep) int64_t *rows = calloc(l->job.count, sizeof *rows);
	size_t n = 0;
	bool freed;

	if (rows == NULL)
		return CEDE_FAIL_MEMORY(reterr);
	CEDE_TRY(record_left(ledger, l, now_ns, reterr));
	if (l->job.sealed == 0)
		return CEDE_OK;
	for (size_t i = 0; i < l->job.count; i++)
		if (l->job.items[i].outcome == SEAL_DONE)
			rows[n++] = l->job.items[i].row;
	CEDE_TRY(ledger_bundle_freed(ledger, l->lost_row, rows, n, now_ns, &freed, reterr));
	if (!freed) /* one was found gone or changed meanwhile */
		l->job.sealed = 0;
	return CEDE_OK;
}

void anew_ended(struct flow *flow, const struct load *l) {
	struct parcel *p = outbox_find(flow, &l->lost);
	bool some = l->job.sealed > 0;

	if (some)
		say_anew(flow, l);
	else if (l->job.fd >= 0)
		spooling_remove(flow, &l->job.bundle, l->job.size);
	if (p == NULL)
		return;
	p->anew = false;
	p->looked = false; /* what is left of it is looked at again */
	p->anew_boot_ns = some ? 0 : clock_boot_ns() + UNREAD_AGAIN_NS;
}

static void seal_anew(struct flow *flow, struct parcel *p) {
	if (flow->seal_jobs >= SEAL_JOBS + LOADS_AHEAD || !handover_goes_on(flow) ||
		!handover_may_seal(flow, p->destination))
		return;
	if (!spooling_has_room(flow)) {
		spooling_full(flow);
		return;
	}
	struct again *a = calloc(1, sizeof *a);
	struct load *l = a == NULL ? NULL : load_new(flow, p->destination);

	if (l == NULL) {
		free(a);
		return; /* the tick tries again */
	}
	*a = (struct again){.load = l, .row = p->row};
	l->spool = l->wipe_now = l->may_spool = l->anew = true;
	l->lost = p->id;
	l->lost_row = p->row;
	p->anew = true;
	flow->seal_jobs++;
	flow->destinations[p->destination].sealing++;
	flow_record(flow, again_work, again_done, again_release, a);
}

static bool is_due(const struct flow *flow, const struct parcel *p, int64_t now) {
	int64_t wait = link_up(flow->link, p->destination) ? ANSWER_NS : 0;

	return p->looked && !p->anew && p->may_spool && clock_boot_ns() >= p->anew_boot_ns &&
		p->state != PARCEL_CONFIRMED && p->urgent_ns <= now - wait;
}

void anew_tick(struct flow *flow, size_t destination) {
	int64_t now = clock_wall_ns();

	if (!flow->running || flow->stopping)
		return;
	for (struct parcel *p = flow->destinations[destination].parcels; p != NULL; p = p->next) {
		if (!is_of_memory(p) && !is_inherited(p))
			continue;
		if (!p->looked && !p->looking)
			look(flow, p);
		if (is_of_memory(p) && is_due(flow, p, now))
			seal_anew(flow, p);
	}
}
