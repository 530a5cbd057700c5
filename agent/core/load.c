/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/core/load.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "agent/seal/spool.h"
#include "base/check.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/log.h"

static void load_free(struct load *l) {
	for (size_t i = 0; i < l->source_count; i++)
		l->flow->sources[l->sources[i]].looks--;
	seal_items_free(l->items, l->count);
	if (l->job.fd >= 0)
		(void)close(l->job.fd);
	free(l->sources);
	free(l->captures);
	free(l->parcel);
	capture_list_done(&l->to_wipe);
	buf_done(&l->checkpoint);
	buf_done(&l->field);
	free(l);
}

struct load *load_new(struct flow *flow, size_t destination) {
	const struct policy *policy = flow->policy;
	struct load *l = calloc(1, sizeof *l);

	if (l == NULL)
		return NULL;
	l->flow = flow;
	l->destination = destination;
	l->into_memory = outbox_has_room(flow, destination);
	l->spool_room = spooling_has_room(flow);
	l->job.fd = -1;
	l->checkpoint = BUF_INIT(CHECKPOINT_MAX);
	l->field = BUF_INIT(CHECKPOINT_FIELD_MAX);
	l->parcel = calloc(1, sizeof *l->parcel);
	l->sources = calloc(policy->source_count, sizeof *l->sources);
	if (l->parcel == NULL || l->sources == NULL) {
		load_free(l);
		return NULL;
	}
	for (size_t i = 0; i < policy->source_count; i++)
		if (policy->sources[i].destination == destination && flow_source_there(flow, i)) {
			l->sources[l->source_count++] = i;
			flow->sources[i].looks++;
		}
	return l;
}

int load_add(struct load *l, const struct ledger_capture *c, size_t source, struct seal_item **ret,
	struct cede_error *reterr) {
	if (l->count == l->room) {
		size_t room = l->room == 0 ? 64 : l->room * 2;
		struct seal_item *items = reallocarray(l->items, room, sizeof *items);
		if (items == NULL)
			return CEDE_FAIL_MEMORY(reterr);
		l->items = items;
		l->room = room;
	}
	struct seal_item item = {.row = c->row,
		.id = c->id,
		.source = source,
		.source_fd = l->flow->sources[source].fd,
		.identity = c->identity,
		.again = c->not_before_ns != 0,
		.length = c->identity.size,
		.segment_count = 1};
	item.path = strndup((const char *)c->path.data, c->path.len);
	item.group = strndup(c->group.len > 0 ? (const char *)c->group.data : "", c->group.len);
	if (item.path == NULL || item.group == NULL) {
		free(item.path);
		free(item.group);
		return CEDE_FAIL_MEMORY(reterr);
	}
	*ret = &l->items[l->count++];
	**ret = item;
	return CEDE_OK;
}

static void record_load(struct load *l);

void load_release(void *ctx) {
	struct load *l = ctx;
	struct flow *flow = l->flow;
	struct load *next = l->next;

	load_free(l);
	if (next != NULL) {
		next->waits = false;
		if (next->is_sealed)
			record_load(next);
	}
	flow_settled(flow);
}

/* What became of the captures that are not in the bundle. */
static int record_left(struct ledger *ledger, const struct seal_item *item, int64_t now,
	struct cede_error *reterr) {
	static const struct {
		enum capture_state to;
		const char *detail;
	} moves[] = {
		[SEAL_CHANGED] = {CAPTURE_SETTLING, "reason=changed"},
		[SEAL_BUSY] = {CAPTURE_SETTLING, "reason=open-for-writing"},
		[SEAL_GONE] = {CAPTURE_GONE, "reason=removed-by-another-program"},
		[SEAL_FAILED] = {CAPTURE_READY, "reason=unreadable"},
		[SEAL_RESIZED] = {CAPTURE_REPLACED, "reason=begins-again-in-smaller-segments"},
		[SEAL_LEFT] = {CAPTURE_READY, NULL},
	};

	if (item->outcome == SEAL_DONE)
		return CEDE_OK;
	bool failed = item->outcome == SEAL_FAILED;
	/* a file that can't be read for a year must not fill the ledger: it is said once */
	const char *detail = failed && item->again ? NULL : moves[item->outcome].detail;
	if (detail != NULL && failed && item->sys == 0)
		detail = "reason=not-sealed"; /* it could be read; the bundle could not be made */
	return ledger_capture_move(ledger, item->row, moves[item->outcome].to,
		failed ? now + UNREAD_AGAIN_NS : 0, now, detail, reterr);
}

static int record_bundle(
	struct ledger *ledger, struct load *l, int64_t now, struct cede_error *reterr) {
	const struct seal_job *job = &l->job;
	struct ledger_bundle b = {.id = job->bundle,
		.state = BUNDLE_SEALED,
		.destination = slice_str(l->flow->policy->destinations[l->destination].name),
		.size = job->size,
		.spooled = job->spool_fd >= 0,
		.captures = job->sealed,
		.sealed_ns = now};
	size_t n = 0;

	if (l->captures == NULL && (l->captures = calloc(job->count, sizeof *l->captures)) == NULL)
		return CEDE_FAIL_MEMORY(reterr);
	memcpy(b.sha256, job->sha256, sizeof b.sha256);
	for (size_t i = 0; i < job->count; i++) {
		const struct seal_item *item = &job->items[i];
		if (item->outcome != SEAL_DONE || l->segment)
			continue;
		l->captures[n] = (struct ledger_sealed){.row = item->row, .identity = item->identity};
		memcpy(l->captures[n++].sha256, item->sha256, 32);
	}
	CEDE_TRY(ledger_bundle_sealed(ledger, &b, l->captures, n, now, &l->bundle_row, reterr));
	if (l->segment) {
		const struct seal_item *item = &job->items[0];
		struct ledger_segment segment = {.index = item->segment_index,
			.count = item->segment_count,
			.offset = item->offset,
			.size = item->length,
			.more = l->next != NULL};
		memcpy(segment.sha256, item->sha256, sizeof segment.sha256);
		CEDE_TRY(ledger_segment_sealed(ledger, item->row, l->bundle_row, &segment, reterr));
	}
	if (!l->wipe_now)
		return CEDE_OK;
	capture_list_done(&l->to_wipe); /* of a first try */
	CEDE_TRY(ledger_bundle_wiping(ledger, l->bundle_row, now, reterr));
	return ledger_bundle_captures(
		ledger, l->bundle_row, CAPTURE_WIPING, capture_list_add, &l->to_wipe, reterr);
}

void load_large_begins(struct load *l) {
	l->flow->sources[l->items[0].source].large = l->holds = true;
}

void load_large_pauses(struct load *l) {
	if (l->holds)
		l->flow->sources[l->items[0].source].large = l->holds = false;
}

static int sealed_work(struct ledger *ledger, void *ctx, struct cede_error *reterr) {
	struct load *l = ctx;
	int64_t now = clock_wall_ns();

	load_large_pauses(l);
	if (l->anew)
		CEDE_TRY(anew_record(ledger, l, now, reterr));
	for (size_t i = 0; i < l->job.count && !l->anew; i++)
		CEDE_TRY(record_left(ledger, &l->job.items[i], now, reterr));
	return l->job.sealed > 0 ? record_bundle(ledger, l, now, reterr) : CEDE_OK;
}

static void look_again(struct flow *flow, const struct load *l) {
	for (size_t i = 0; i < l->job.count; i++) {
		const struct seal_item *item = &l->job.items[i];
		if (item->outcome == SEAL_CHANGED || item->outcome == SEAL_BUSY ||
			item->outcome == SEAL_RESIZED)
			intake_look(flow, item->source, item->path, BUSY_AGAIN_NS);
		if (item->outcome == SEAL_GONE)
			flow->figures.gone++;
		if (item->outcome != SEAL_FAILED || item->sys == 0)
			continue;
		flow->figures.read_failures++;
		log_event(LOG_LEVEL_WARNING, "capture.unreadable", "source=%s error=\"%s\"",
			flow->policy->sources[item->source].name, strerror(item->sys));
	}
}

static bool is_last(const struct seal_item *item) {
	return item->segment_index + 1 == item->segment_count;
}

/* The capture is ready again for its next segment, if none is under way. */
static void expect_rest(struct flow *flow, const struct load *l) {
	const struct seal_item *item = &l->job.items[0];
	struct flow_source *source = &flow->sources[item->source];

	if (item->outcome == SEAL_DONE && !is_last(item)) {
		source->ready_bytes += item->identity.size - item->offset - item->length;
		source->ready_files++;
	}
	flow->destinations[l->destination].nothing = false;
}

static void sealed_done(struct flow *flow, void *ctx) {
	struct load *l = ctx;
	struct flow_destination *d = &flow->destinations[l->destination];

	d->sealing--;
	if (l->anew)
		anew_ended(flow, l);
	look_again(flow, l);
	if (l->job.sealed > 0) {
		struct parcel *p = CEDE_TAKE(l->parcel);
		flow->figures.sealed_bundles++;
		flow->figures.sealed_captures +=
			l->segment ? is_last(&l->job.items[0]) : l->job.sealed;
		p->row = l->bundle_row;
		p->id = l->job.bundle;
		p->size = l->job.size;
		memcpy(p->sha256, l->job.sha256, sizeof p->sha256);
		p->spooled = l->job.spool_fd >= 0;
		p->segment_of = l->segment ? l->job.items[0].row : 0;
		p->instead_of = l->anew ? l->lost_row : 0;
		p->heirs_known = p->looked = true;
		p->fd = p->spooled ? -1 : CEDE_TAKE_FD(l->job.fd);
		outbox_add(flow, p);
		outbox_push(flow, l->destination);
		spooling_keep(flow, l->destination);
		disposal_add_all(flow, &l->to_wipe);
	}
	handover_plan(flow);
}

/* ---- sealing */

static void seal_work(void *ctx) {
	struct load *l = ctx;

	seal_run(&l->job);
}

static void give_back(struct flow *flow, uint8_t *buffer) {
	for (size_t i = 0; i < SEAL_JOBS; i++)
		if (flow->buffers[i] == NULL) {
			flow->buffers[i] = buffer;
			return;
		}
	require(false);
}

/* NULL: all are lent out. */
static uint8_t *lend_buffer(struct flow *flow) {
	for (size_t i = 0; i < SEAL_JOBS; i++)
		if (flow->buffers[i] != NULL)
			return CEDE_TAKE(flow->buffers[i]);
	return NULL;
}

static void seal_next(struct flow *flow) {
	struct load *l = flow->waiting[0];

	if (flow->waiting_count == 0)
		return;
	flow->waiting_count--;
	memmove(&flow->waiting[0], &flow->waiting[1], flow->waiting_count * sizeof(struct load *));
	load_seal(l);
}

/* ---- the next segment of a large capture, while the one before is recorded */

static bool has_next(const struct load *l) {
	const struct flow *flow = l->flow;
	const struct flow_destination *d = &flow->destinations[l->destination];

	return l->segment && l->in_order && l->job.result == CEDE_OK && l->job.sealed > 0 &&
		!is_last(&l->items[0]) && l->run + 1 < SEGMENT_RUN && handover_goes_on(flow) &&
		flow->again == NULL && flow_source_there(flow, l->items[0].source) &&
		link_answers(flow->link, l->destination) &&
		d->open + d->sealing + d->taking < PUSHES_OPEN &&
		flow->seal_jobs < SEAL_JOBS + LOADS_AHEAD && flow->wipes_ahead <= WIPES_AHEAD &&
		(!l->spool || spooling_has_room(flow));
}

static int fill_next(struct load *l, const struct load *before, struct cede_error *reterr) {
	const struct seal_item *item = &before->items[0];
	uint64_t end = item->offset + item->length;
	uint64_t rest = item->identity.size - end;

	l->items = calloc(1, sizeof *l->items);
	if (l->items == NULL)
		return CEDE_FAIL_MEMORY(reterr);
	l->items[0] = *item;
	l->items[0].path = strdup(item->path);
	l->items[0].group = strdup(item->group);
	l->items[0].again = false;
	l->items[0].segment_index++;
	l->items[0].offset = end;
	l->items[0].length = rest < item->length ? rest : item->length;
	l->count = 1;
	if (l->items[0].path == NULL || l->items[0].group == NULL)
		return CEDE_FAIL_MEMORY(reterr);
	l->spool = before->spool;
	l->wipe_now = before->wipe_now;
	l->may_spool = before->may_spool;
	l->urgent_ns = before->urgent_ns;
	l->segment = l->in_order = true;
	l->run = before->run + 1;
	l->job.ledger_sequence = before->job.ledger_sequence;
	memcpy(l->job.ledger_hash, before->job.ledger_hash, sizeof l->job.ledger_hash);
	return buf_add(&l->checkpoint, before->checkpoint.data, before->checkpoint.len, reterr);
}

/* NULL: it is taken from the ledger when this one is recorded. */
static struct load *next_of(struct load *l) {
	struct flow *flow = l->flow;
	struct load *next = has_next(l) ? load_new(flow, l->destination) : NULL;

	if (next == NULL)
		return NULL;
	if (fill_next(next, l, NULL) < 0) {
		load_free(next);
		return NULL;
	}
	next->holds = l->holds;
	l->holds = false;
	next->waits = true;
	flow->destinations[l->destination].sealing++;
	flow->seal_jobs++;
	return next;
}

static void record_load(struct load *l) {
	struct flow *flow = l->flow;

	/* where a run of segments ends, what goes next is taken in the same transaction */
	bool run_ends = l->segment && l->next == NULL;
	if (run_ends)
		expect_rest(flow, l);
	flow_record(flow, sealed_work, sealed_done, load_release, l);
	if (run_ends)
		handover_plan(flow);
}

static void seal_done(void *ctx) {
	struct load *l = ctx;
	struct flow *flow = l->flow;

	flow->seal_jobs--;
	give_back(flow, l->job.buffer);
	seal_next(flow);
	if (l->job.result < 0) {
		if (!flow->stop) /* else it was told to end */
			log_event(LOG_LEVEL_ERROR, "seal.failed", "error=\"%s\"", l->job.err.text);
		for (size_t i = 0; i < l->job.count; i++)
			if (l->job.items[i].outcome == SEAL_DONE)
				l->job.items[i].outcome = SEAL_FAILED;
	}
	l->is_sealed = true;
	struct load *next = l->next = next_of(l);
	if (!l->waits)
		record_load(l);
	if (next != NULL)
		load_seal(next);
}

void load_seal(struct load *l) {
	struct flow *flow = l->flow;

	l->job.buffer = lend_buffer(flow);
	if (l->job.buffer == NULL) {
		require(flow->waiting_count < LOADS_AHEAD); /* the plan counts the loads */
		flow->waiting[flow->waiting_count++] = l;
		return;
	}

	l->parcel->destination = l->destination;
	l->parcel->fd = -1;
	l->parcel->may_spool = l->may_spool;
	l->parcel->urgent_ns = l->urgent_ns;
	l->job.policy = flow->policy;
	l->job.keys = flow->destinations[l->destination].seal;
	l->job.host = flow->setup.host;
	l->job.checkpoint = buf_slice(&l->checkpoint);
	l->job.now_ns = clock_wall_ns();
	l->job.items = l->items;
	l->job.count = l->count;
	l->job.buffer_size = flow->buffer_size;
	l->job.spool_fd = l->spool ? flow->setup.spool_fd : -1;
	l->job.stop = &flow->stop;
	if (id_make(l->job.now_ns, &l->job.bundle, &l->job.err) == CEDE_OK &&
		jobs_start(&flow->jobs, seal_work, seal_done, l, &l->job.err) == CEDE_OK)
		return;
	l->job.result = CEDE_ERR_IO;
	for (size_t i = 0; i < l->count; i++)
		l->items[i].outcome = SEAL_FAILED;
	seal_done(l);
}
