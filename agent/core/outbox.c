/* SPDX-License-Identifier: Apache-2.0 */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "agent/confirm/confirm.h"
#include "agent/core/flow_internal.h"
#include "agent/seal/spool.h"
#include "base/check.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/hex.h"
#include "base/log.h"
#include "formats/checkpoint.h"
#include "formats/detail.h"

struct parcel *outbox_find(struct flow *flow, const struct id *bundle) {
	for (size_t d = 0; d < flow->policy->destination_count; d++)
		for (struct parcel *p = flow->destinations[d].parcels; p != NULL; p = p->next)
			if (id_equal(&p->id, bundle))
				return p;
	return NULL;
}

static bool is_open(const struct parcel *p) {
	return p->state != PARCEL_WAITING || p->fd >= 0;
}

void outbox_add(struct flow *flow, struct parcel *p) {
	struct flow_destination *d = &flow->destinations[p->destination];
	struct parcel **at = &d->parcels;

	/* the oldest goes first; what has its captures in the clear still, before what is in the spool */
	while (*at != NULL && (p->spooled || !(*at)->spooled))
		at = &(*at)->next;
	p->next = *at;
	*at = p;
	d->open += is_open(p);
	flow->spool_bytes += p->spooled ? p->size : 0;
	flow->missing += p->missing;
}

void outbox_drop(struct flow *flow, struct parcel *p) {
	struct flow_destination *d = &flow->destinations[p->destination];
	struct parcel **at = &d->parcels;

	while (*at != p)
		at = &(*at)->next;
	*at = p->next;
	d->open -= is_open(p);
	flow->spool_bytes -= p->spooled ? p->size : 0;
	flow->missing -= p->missing;
	flow->giving_up -= p->absent;
	if (p->fd >= 0)
		(void)close(p->fd);
	free(p);
}

void outbox_wait(struct flow *flow, struct parcel *p) {
	struct flow_destination *d = &flow->destinations[p->destination];
	bool was_open = is_open(p);

	p->state = PARCEL_WAITING;
	d->open -= (size_t)(was_open - is_open(p));
}

bool outbox_has_room(const struct flow *flow, size_t destination) {
	const struct flow_destination *d = &flow->destinations[destination];

	return link_answers(flow->link, destination) && d->open + d->sealing < PUSHES_OPEN;
}

/* ---- pushing */

static int push_parcel(struct flow *flow, struct parcel *p, struct cede_error *reterr) {
	if (p->lost)
		return link_ask(flow->link, p->destination, &p->id, reterr);
	if (p->fd < 0 && spool_fetch(flow->setup.spool_fd, &p->id, &p->fd, reterr) < 0) {
		if (reterr->sys != ENOENT)
			return CEDE_ERR_IO;
		outbox_set_missing(flow, p);
		return link_ask(flow->link, p->destination, &p->id, reterr);
	}
	return link_push(flow->link, p->destination, &p->id, p->fd, p->size, p->sha256,
		p->recovered, reterr);
}

void outbox_push(struct flow *flow, size_t destination) {
	struct flow_destination *d = &flow->destinations[destination];
	int64_t unknown = anew_unknown(d);
	size_t pushing = 0, spooled = 0;

	for (struct parcel *p = d->parcels; p != NULL; p = p->next) {
		pushing += p->state != PARCEL_WAITING;
		spooled += p->state != PARCEL_WAITING && p->spooled;
	}
	if (flow->stopping || flow_expired(flow))
		return;
	link_rate(flow->link, destination,
		destination_rate(&flow->policy->destinations[destination], clock_wall_ns()));
	for (struct parcel *p = d->parcels; p != NULL && pushing < PUSHES_OPEN; p = p->next) {
		struct cede_error err = {0};
		bool was_open = is_open(p);
		if (p->state != PARCEL_WAITING || (p->spooled && spooled >= SPOOLED_OPEN) ||
			anew_holds_back(flow, p, unknown))
			continue;
		if (push_parcel(flow, p, &err) < 0) {
			char id[ID_TEXT_SIZE];
			id_print(&p->id, id);
			log_event(LOG_LEVEL_ERROR, "bundle.unpushed", "bundle=%s error=\"%s\"", id,
				err.text);
			if (!was_open) /* opened for this try */
				fd_closep(&p->fd);
			continue; /* the tick tries again */
		}
		p->state = PARCEL_PUSHING;
		if (p->pushed_boot_ns == 0)
			p->pushed_boot_ns = clock_boot_ns();
		d->open += !was_open;
		pushing++;
		spooled += p->spooled;
	}
}

/* ---- checkpoints of the ledger */

void outbox_checkpoint(struct flow *flow, size_t destination, struct buf *field) {
	struct buf before = flow->destinations[destination].checkpoint;

	flow->destinations[destination].checkpoint = *field;
	*field = before;
}

struct slice outbox_take_checkpoint(void *ctx, size_t destination) {
	struct flow *flow = ctx;

	return destination < flow->policy->destination_count
		? buf_slice(&flow->destinations[destination].checkpoint)
		: SLICE_NONE;
}

/* ---- receipts */

struct proof { /* a verified receipt on its way into the ledger */
	struct flow *flow;
	struct id bundle;
	int64_t row;
	uint8_t *note;
	size_t size;
	bool wiped_already;    /* the spooled bundle was the proof */
	bool missing;          /* that one is gone: its captures wait to be wiped already */
	bool heirs;            /* its captures may have been sealed anew */
	struct id *duplicates; /* bundles that the agency need not get any more */
	size_t duplicate_count;
	struct capture_list before, to_wipe;
	const char *destination; /* of the policy */
	uint64_t known_size; /* events of this ledger that the agency knows; 0: it does not say */
	uint8_t known_root[32];
	bool not_ours; /* it knows what this ledger does not begin with */
	struct buf checkpoint, field;
};

/* The agency has seen more of this ledger than there is of it, or something else: it was rolled
 * back or rewritten. Nothing is proven by it any more. */
static int record_rollback(
	struct ledger *ledger, const struct proof *p, int64_t now, struct cede_error *reterr) {
	char detail[96];

	(void)snprintf(detail, sizeof detail,
		"reason=ledger-is-not-what-the-agency-has-seen events=%llu",
		(unsigned long long)p->known_size);
	return ledger_event(ledger, LEDGER_VIOLATION, &p->bundle, now, detail, reterr);
}

static int acknowledge(
	struct ledger *ledger, struct proof *p, int64_t now, struct cede_error *reterr) {
	bool ours = true;

	p->not_ours = false;
	if (p->known_size > 0)
		CEDE_TRY(ledger_acknowledged(ledger, slice_str(p->destination), p->known_size,
			p->known_root, now, &ours, reterr));
	p->not_ours = !ours;
	return ours ? CEDE_OK : record_rollback(ledger, p, now, reterr);
}

static int list_news(void *ctx, const struct ledger_capture *c, struct cede_error *reterr) {
	struct proof *p = ctx;

	for (size_t i = 0; i < p->before.count; i++)
		if (p->before.items[i].row == c->row)
			return CEDE_OK;
	return capture_list_add(&p->to_wipe, c, reterr);
}

struct duplicates {
	struct proof *proof;
	struct ledger_bundle *list;
	size_t count;
};

static int list_duplicate(void *ctx, const struct ledger_bundle *b, struct cede_error *reterr) {
	struct duplicates *d = ctx;
	struct proof *p = d->proof;
	struct id *ids = reallocarray(p->duplicates, p->duplicate_count + 1, sizeof *ids);

	if (ids == NULL)
		return CEDE_FAIL_MEMORY(reterr);
	p->duplicates = ids;
	struct ledger_bundle *list = reallocarray(d->list, d->count + 1, sizeof *list);
	if (list == NULL)
		return CEDE_FAIL_MEMORY(reterr);
	d->list = list;
	list[d->count++] = *b;
	ids[p->duplicate_count++] = b->id;
	return CEDE_OK;
}

static int record_duplicates(
	struct ledger *ledger, struct proof *p, int64_t now, struct cede_error *reterr) {
	struct duplicates d = {.proof = p};
	bool done;

	p->duplicate_count = 0; /* of a first try */
	int r = ledger_bundle_duplicates(ledger, p->row, list_duplicate, &d, reterr);
	for (size_t i = 0; i < d.count && r == CEDE_OK; i++) {
		r = ledger_bundle_duplicate(
			ledger, d.list[i].row, &p->bundle, slice_of(p->note, p->size), now, reterr);
		if (r == CEDE_OK)
			r = ledger_bundle_done(ledger, d.list[i].row, now, &done, reterr);
	}
	free(d.list);
	return r;
}

static int record_proof(
	struct ledger *ledger, struct proof *p, int64_t now, struct cede_error *reterr) {
	bool done;

	capture_list_done(&p->before); /* of a first try */
	capture_list_done(&p->to_wipe);
	if (p->missing)
		CEDE_TRY(ledger_bundle_captures(
			ledger, p->row, CAPTURE_WIPING, capture_list_add, &p->before, reterr));
	CEDE_TRY(ledger_bundle_receipted(ledger, p->row, slice_of(p->note, p->size), now, reterr));
	if (p->heirs)
		CEDE_TRY(record_duplicates(ledger, p, now, reterr));
	if (!p->wiped_already)
		CEDE_TRY(ledger_bundle_captures(ledger, p->row, CAPTURE_WIPING, list_news, p, reterr));
	if (p->to_wipe.count == 0) /* wiped after sealing, or a segment that is not the last */
		return ledger_bundle_done(ledger, p->row, now, &done, reterr);
	return CEDE_OK;
}

static int proof_work(struct ledger *ledger, void *ctx, struct cede_error *reterr) {
	struct proof *p = ctx;
	int64_t now = clock_wall_ns();

	CEDE_TRY(acknowledge(ledger, p, now, reterr));
	if (p->not_ours)
		return CEDE_OK;
	CEDE_TRY(record_proof(ledger, p, now, reterr));
	return ledger_checkpoint(
		ledger, slice_str(p->destination), now, &p->checkpoint, &p->field, reterr);
}

static void stop_for_rollback(struct flow *flow, const struct proof *p) {
	char text[320];

	flow->figures.violations[VIOLATION_LEDGER_FOREIGN]++;
	(void)snprintf(text, sizeof text,
		"the agency has seen %llu events of this host's ledger that it does not begin with: it was rolled back or changed; restore the newest ledger.db, or ask the agency to let this host begin anew (docs/ledger.md)",
		(unsigned long long)p->known_size);
	flow_fail(flow, text);
}

/* In the spool, not sent, and proven by the receipt of the bundle before. */
static void drop_duplicates(struct flow *flow, const struct proof *p) {
	for (size_t i = 0; i < p->duplicate_count; i++) {
		struct parcel *parcel = outbox_find(flow, &p->duplicates[i]);
		if (parcel == NULL)
			continue;
		if (parcel->state == PARCEL_PUSHING)
			link_forget(flow->link, &parcel->id);
		if (parcel->spooled)
			spooling_remove(flow, &parcel->id, parcel->size);
		outbox_drop(flow, parcel);
	}
}

static void proof_done(struct flow *flow, void *ctx) {
	struct proof *p = ctx;
	struct parcel *parcel = outbox_find(flow, &p->bundle);

	require(parcel != NULL);
	if (p->not_ours) {
		stop_for_rollback(flow, p);
		return;
	}
	outbox_checkpoint(flow, parcel->destination, &p->field);
	struct destination_figures *figures = &flow->destinations[parcel->destination].figures;
	figures->receipts++;
	figures->receipt_ns = clock_wall_ns();
	figures->pushed_bytes += parcel->size;
	if (parcel->pushed_boot_ns != 0)
		histogram_add(&figures->push, clock_boot_ns() - parcel->pushed_boot_ns);
	if (parcel->spooled)
		spooling_remove(flow, &parcel->id, parcel->size);
	size_t destination = parcel->destination;
	outbox_drop(flow, parcel);
	drop_duplicates(flow, p);
	disposal_add_all(flow, &p->to_wipe);
	outbox_push(flow, destination);
	handover_plan(flow);
}

static void proof_release(void *ctx) {
	struct proof *p = ctx;
	struct flow *flow = p->flow;

	capture_list_done(&p->before);
	capture_list_done(&p->to_wipe);
	buf_done(&p->checkpoint);
	buf_done(&p->field);
	free(p->duplicates);
	free(p->note);
	free(p);
	flow_settled(flow);
}

struct refusal {
	struct id bundle;
	char detail[2048];
};

static int refusal_work(struct ledger *ledger, void *ctx, struct cede_error *reterr) {
	struct refusal *r = ctx;

	return ledger_event(
		ledger, LEDGER_RECEIPT_REFUSED, &r->bundle, clock_wall_ns(), r->detail, reterr);
}

static void refuse(
	struct flow *flow, const struct parcel *p, enum confirm_refusal why, const char *text) {
	struct refusal *r = calloc(1, sizeof *r);
	char id[ID_TEXT_SIZE];

	id_print(&p->id, id);
	flow->destinations[p->destination].figures.receipts_refused[why]++;
	log_event(LOG_LEVEL_ERROR, "receipt.refused",
		"bundle=%s destination=%s reason=%s error=\"%s\" effect=\"nothing is wiped\"", id,
		flow->policy->destinations[p->destination].name, confirm_refusal_name(why), text);
	if (r == NULL)
		return;
	CLEANUP(buf_done) struct buf detail = BUF_INIT(sizeof r->detail - 1);
	const char *coded;
	r->bundle = p->id;
	if (detail_add(&detail, "reason", slice_str(text), NULL) == CEDE_OK &&
		buf_string(&detail, &coded, NULL) == CEDE_OK)
		(void)snprintf(r->detail, sizeof r->detail, "%s", coded);
	flow_record(flow, refusal_work, NULL, free, r);
}

static bool has_heirs(const struct flow *flow, const struct parcel *p) {
	if (!p->lost || p->missing)
		return false;
	if (!p->heirs_known)
		return true;
	for (const struct parcel *q = flow->destinations[p->destination].parcels; q != NULL;
		q = q->next)
		if (q->instead_of == p->row)
			return true;
	return false;
}

bool outbox_receipt(void *ctx, const struct id *bundle, struct slice note) {
	struct flow *flow = ctx;
	struct parcel *p = outbox_find(flow, bundle);
	struct cede_error err = {0};
	enum confirm_refusal why;

	if (p == NULL || p->state == PARCEL_CONFIRMED)
		return true; /* known already */
	if (p->spooling || p->anew)
		return false; /* asked for again when that is over */
	struct confirm_want want = {.bundle = p->id, .host = flow->setup.host, .size = p->size};
	memcpy(want.sha256, p->sha256, sizeof want.sha256);
	struct receipt receipt;
	if (confirm_receipt(flow->destinations[p->destination].receipts, &want, note, &receipt,
		    &why, &err) < 0) {
		refuse(flow, p, why, err.text);
		return false;
	}
	struct proof *proof = calloc(1, sizeof *proof);
	uint8_t *copy = malloc(note.len);
	if (proof == NULL || copy == NULL) {
		free(proof);
		free(copy);
		return false; /* asked for again */
	}
	memcpy(copy, note.data, note.len);
	*proof = (struct proof){.flow = flow,
		.bundle = p->id,
		.row = p->row,
		.note = copy,
		.size = note.len,
		.wiped_already = p->spooled,
		.missing = p->missing,
		.heirs = has_heirs(flow, p),
		.destination = flow->policy->destinations[p->destination].name,
		.known_size = receipt.checkpoint_size,
		.checkpoint = BUF_INIT(CHECKPOINT_MAX),
		.field = BUF_INIT(CHECKPOINT_FIELD_MAX)};
	memcpy(proof->known_root, receipt.checkpoint_root, sizeof proof->known_root);
	p->state = PARCEL_CONFIRMED;
	/* what the next proof is to begin with is on its way into the ledger */
	buf_clear(&flow->destinations[p->destination].checkpoint);
	flow_record(flow, proof_work, proof_done, proof_release, proof);
	return true;
}

void outbox_failed(void *ctx, const struct id *bundle, size_t destination, const char *kind,
	const char *text) {
	struct flow *flow = ctx;
	char id[ID_TEXT_SIZE];

	id_print(bundle, id);
	if (destination < flow->policy->destination_count)
		flow->destinations[destination].figures.push_failures[push_failure_of(kind)]++;
	log_event(LOG_LEVEL_WARNING, "push.failed",
		"bundle=%s destination=%s reason=%s error=\"%s\" effect=\"nothing is wiped\"", id,
		destination < flow->policy->destination_count
			? flow->policy->destinations[destination].name
			: "?",
		kind, text);
}

void outbox_link(void *ctx, size_t destination, bool up) {
	struct flow *flow = ctx;

	if (destination >= flow->policy->destination_count)
		return;
	log_event(up ? LOG_LEVEL_INFO : LOG_LEVEL_WARNING, up ? "link.up" : "link.down",
		"destination=%s", flow->policy->destinations[destination].name);
	flow->destinations[destination].nothing = false;
	handover_plan(flow);
}

void outbox_tick(struct flow *flow) {
	spooling_tick(flow);
	outbox_give_up(flow);
	for (size_t i = 0; i < flow->policy->destination_count; i++) {
		spooling_keep(flow, i);
		anew_tick(flow, i);
		outbox_push(flow, i);
	}
}

static void log_homeless(void) {
	log_event(LOG_LEVEL_ERROR, "bundle.homeless",
		"mend=\"the policy no longer has the destination of a sealed bundle; add it again\"");
}

/* What another key was used for, and is not in the spool, is not sent: the agency is asked for it,
 * and if it does not have it its captures are sealed anew. */
static void inherit(struct flow *flow, struct parcel *p, size_t destination) {
	const struct flow_setup *setup = &flow->setup;
	bool in_link = p->state == PARCEL_PUSHING && setup->same_link;
	bool stays = in_link && !setup->keys[destination].changed;

	p->destination = destination;
	p->spooling = false; /* that job has ended; its record may have gone with the flow before */
	p->absent = p->given_up = false;          /* asked again */
	p->looking = p->looked = p->anew = false; /* by this policy */
	p->heirs_known = false; /* the record of one may have gone with the flow before */
	p->recovered = p->recovered || p->state != PARCEL_WAITING;
	if (in_link && !stays)
		link_forget(setup->link, &p->id);
	if (!stays)
		p->state = PARCEL_WAITING;
	if (!p->spooled && p->fd >= 0)
		p->may_spool = false; /* until this one was asked */
	if (setup->keys[destination].changed && !p->spooled && p->fd >= 0) {
		fd_closep(&p->fd);
		p->lost = true;
	}
	outbox_add(flow, p);
}

void outbox_inherit(struct flow *flow, struct flow *from) {
	for (size_t i = 0; i < from->policy->destination_count; i++) {
		struct flow_destination *d = &from->destinations[i];
		while (d->parcels != NULL) {
			struct parcel *p = d->parcels;
			size_t destination;
			d->parcels = p->next;
			p->next = NULL;
			if (flow_destination_named(flow,
				    slice_str(from->policy->destinations[i].name), &destination)) {
				inherit(flow, p, destination);
				continue;
			}
			log_homeless();
			fd_closep(&p->fd);
			free(p);
		}
	}
}

void outbox_adopt(struct flow *flow, const struct ledger_bundle *b) {
	struct parcel *p;
	size_t destination;

	p = outbox_find(flow, &b->id);
	if (p != NULL)
		return; /* inherited */
	if (!flow_destination_named(flow, b->destination, &destination)) {
		log_homeless();
		return;
	}
	p = calloc(1, sizeof *p);
	if (p == NULL) {
		flow_fail(flow, "out of memory");
		return;
	}
	*p = (struct parcel){.row = b->row,
		.id = b->id,
		.destination = destination,
		.fd = -1,
		.size = b->size,
		.spooled = b->spooled,
		.lost = !b->spooled,
		.recovered = true,
		.segment_of = b->segment_of,
		.urgent_ns = INT64_MAX};
	memcpy(p->sha256, b->sha256, sizeof p->sha256);
	outbox_add(flow, p);
	if (p->spooled && !spool_has(flow->setup.spool_fd, &p->id))
		outbox_set_missing(flow, p);
}

void outbox_free(struct flow *flow) {
	for (size_t i = 0; i < flow->policy->destination_count; i++) {
		struct flow_destination *d = &flow->destinations[i];
		while (d->parcels != NULL)
			outbox_drop(flow, d->parcels);
	}
}
