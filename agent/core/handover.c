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

/* ---- recording what was sealed */

struct load { /* captures on their way through take, seal and record */
	struct flow *flow;
	size_t destination;
	/* plan */
	bool into_memory; /* the link takes it; else only what must be sealed to the disk is taken */
	size_t *sources;  /* that go to this destination, nearest deadline first once taken */
	size_t source_count;
	/* take */
	struct seal_item *items;
	size_t count;
	size_t room;
	bool spool;
	bool wipe_now; /* wipe after seal, or max_age near: the spooled bundle is the proof */
	bool may_spool;
	bool spool_room;   /* the spool takes one more */
	bool spool_wanted; /* and was not asked in vain */
	bool segment;      /* of a large capture, which is items[0] */
	bool in_order;     /* all segments before it are sealed, and none behind it */
	bool holds;        /* its source's place for a large capture; for the ledger's thread */
	int64_t urgent_ns; /* when it must be sealed to the disk if there is no receipt */
	int64_t again_ns;  /* wall time at which something becomes ready; INT64_MAX: unknown */
	struct buf checkpoint, field; /* of all that came before */
	/* seal */
	struct seal_job job;
	struct parcel *parcel;
	/* record */
	struct load *next; /* its next segment, sealed meanwhile and recorded after it */
	unsigned run;      /* segments before it in one go */
	bool waits;        /* for the record of the one before */
	bool is_sealed;
	int64_t bundle_row;
	struct ledger_sealed *captures;
	struct capture_list to_wipe;
};

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

static void record_load(struct load *l);

/* Recorded, or never to be. */
static void load_release(void *ctx) {
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

/* Large captures of a source go one after the other: in turns they would all have to be wiped when
 * the last one ends. */
static void large_begins(struct load *l) {
	l->flow->sources[l->items[0].source].large = l->holds = true;
}

static void large_pauses(struct load *l) {
	if (l->holds)
		l->flow->sources[l->items[0].source].large = l->holds = false;
}

static int sealed_work(struct ledger *ledger, void *ctx, struct cede_error *reterr) {
	struct load *l = ctx;
	int64_t now = clock_wall_ns();

	large_pauses(l);
	for (size_t i = 0; i < l->job.count; i++)
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

	source->ready_bytes += item->identity.size - item->offset - item->length;
	source->ready_files++;
	flow->destinations[l->destination].nothing = false;
}

static void sealed_done(struct flow *flow, void *ctx) {
	struct load *l = ctx;
	struct flow_destination *d = &flow->destinations[l->destination];

	d->sealing--;
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
		p->fd = p->spooled ? -1 : CEDE_TAKE_FD(l->job.fd);
		outbox_add(flow, p);
		outbox_push(flow, l->destination);
		disposal_add_all(flow, &l->to_wipe, false);
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

static struct load *load_new(struct flow *flow, size_t destination);
static void seal_start(struct load *l);

static void seal_next(struct flow *flow) {
	struct load *l = flow->waiting[0];

	if (flow->waiting_count == 0)
		return;
	flow->waiting_count--;
	memmove(&flow->waiting[0], &flow->waiting[1], flow->waiting_count * sizeof(struct load *));
	seal_start(l);
}

static bool goes_on(const struct flow *flow) {
	return flow->running && !flow->draining && !flow->stopping && !flow->failed &&
		!flow_expired(flow);
}

/* ---- the next segment of a large capture, while the one before is recorded */

static bool has_next(const struct load *l) {
	const struct flow *flow = l->flow;
	const struct flow_destination *d = &flow->destinations[l->destination];

	return l->segment && l->in_order && l->job.result == CEDE_OK && l->job.sealed > 0 &&
		!is_last(&l->items[0]) && l->run + 1 < SEGMENT_RUN && goes_on(flow) &&
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

	/* what is not sealed yet is taken in the same transaction */
	bool taken_next = l->segment && l->next == NULL;
	if (taken_next)
		expect_rest(flow, l);
	flow_record(flow, sealed_work, sealed_done, load_release, l);
	if (taken_next)
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
		seal_start(next);
}

/* Reads and seals what the load holds; if both buffers are in use, as soon as one is free: the
 * ledger took it while the loads before it were sealed. */
static void seal_start(struct load *l) {
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

/* ---- taking what is ready */

struct taking {
	struct ledger *ledger;
	struct load *load;
	size_t source;
	uint64_t bytes;
	uint64_t bundle_size;
};

/* How long before its deadline a capture is sealed to the disk when the link is down. */
static int64_t margin_of(const struct policy_source *source) {
	return source->max_age_ns / 10 + 5 * NS_PER_SECOND;
}

/* A capture larger than a bundle goes segment by segment, also over restarts: which one is next? */
static int cut(struct taking *t, const struct ledger_capture *c, struct seal_item *item,
	struct cede_error *reterr) {
	uint64_t total = c->identity.size;
	uint64_t size = t->bundle_size;
	struct ledger_segments sealed = {0};

	if (c->segment_count > 1)
		CEDE_TRY(ledger_segments_of(t->ledger, c->row, &sealed, reterr));
	if (sealed.size > 0)
		size = sealed.size;
	if (total <= size)
		return CEDE_OK;
	uint64_t count = (total + size - 1) / size;
	if (sealed.next >= count || count > UINT32_MAX)
		return CEDE_FAIL(reterr, CEDE_ERR_BUG, "segments of a capture do not add up");
	item->segment_index = (uint32_t)sealed.next;
	item->segment_count = (uint32_t)count;
	item->offset = sealed.next * size;
	item->length = total - item->offset < size ? total - item->offset : size;
	t->load->segment = true;
	t->load->in_order = sealed.next == sealed.count;
	return CEDE_OK;
}

static int take_capture(void *ctx, const struct ledger_capture *c, struct cede_error *reterr) {
	struct taking *t = ctx;
	struct load *l = t->load;

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
		.source = t->source,
		.source_fd = l->flow->sources[t->source].fd,
		.identity = c->identity,
		.again = c->not_before_ns != 0,
		.length = c->identity.size,
		.segment_count = 1};
	CEDE_TRY(cut(t, c, &item, reterr));
	item.path = strndup((const char *)c->path.data, c->path.len);
	item.group = strndup(c->group.len > 0 ? (const char *)c->group.data : "", c->group.len);
	if (item.path == NULL || item.group == NULL) {
		free(item.path);
		free(item.group);
		return CEDE_FAIL_MEMORY(reterr);
	}
	l->items[l->count++] = item;
	t->bytes += item.length;
	int64_t urgent = c->deadline_ns - margin_of(&l->flow->policy->sources[t->source]);
	if (urgent < l->urgent_ns)
		l->urgent_ns = urgent;
	return CEDE_OK;
}

struct next {
	size_t source;
	int64_t deadline_ns;
};

static int by_deadline(const void *a, const void *b) {
	const struct next *x = a;
	const struct next *y = b;

	return (x->deadline_ns > y->deadline_ns) - (x->deadline_ns < y->deadline_ns);
}

/* The sources that have something to take now, the nearest deadline first. */
static int rank_sources(struct ledger *ledger, struct load *l, int64_t now, struct next *ret,
	size_t *ret_count, struct cede_error *reterr) {
	const struct policy *policy = l->flow->policy;
	size_t n = 0;

	l->again_ns = INT64_MAX;
	for (size_t i = 0; i < l->source_count; i++) {
		const struct policy_source *source = &policy->sources[l->sources[i]];
		int64_t deadline, not_before;
		const char *key = l->flow->sources[l->sources[i]].key;
		CEDE_TRY(ledger_next(ledger, slice_str(key), now, &deadline, &not_before, reterr));
		if (not_before < l->again_ns)
			l->again_ns = not_before;
		if (deadline == INT64_MAX)
			continue;
		bool urgent = source->at_max_age == AT_MAX_AGE_SEAL &&
			deadline - margin_of(source) <= now;
		bool to_spool = !l->into_memory && (urgent || source->wipe_after_seal);
		if (l->into_memory || (to_spool && l->spool_room))
			ret[n++] = (struct next){l->sources[i], deadline};
		l->spool_wanted = l->spool_wanted ||
			((to_spool || source->wipe_after_seal) && !l->spool_room);
	}
	if (n > 1)
		qsort(ret, n, sizeof *ret, by_deadline);
	*ret_count = n;
	return CEDE_OK;
}

/* A segment goes alone in its bundle, and one after the other. */
static enum ledger_large large_of(const struct load *l, const struct flow_source *place) {
	if (l->count > 0)
		return LARGE_ENDS;
	return place->large ? LARGE_PASSED : LARGE_FIRST;
}

/* One bundle's worth: from the most urgent source, then from others that are wiped the same way. */
static int take_some(struct ledger *ledger, struct load *l, const struct next *ranked, size_t n,
	int64_t now, struct cede_error *reterr) {
	const struct policy *policy = l->flow->policy;
	uint64_t size = policy->destinations[l->destination].bundle_size;
	const struct policy_source *first = NULL;
	struct taking t = {.ledger = ledger, .load = l, .bundle_size = size};

	l->may_spool = true;
	for (size_t i = 0; i < n && !l->segment; i++) {
		const struct policy_source *source = &policy->sources[ranked[i].source];
		struct flow_source *place = &l->flow->sources[ranked[i].source];
		size_t before = l->count;
		if (l->count >= BUNDLE_CAPTURES || t.bytes + size / 4 > size)
			break;
		if (first != NULL && source->wipe_after_seal != first->wipe_after_seal)
			continue;
		t.source = ranked[i].source;
		CEDE_TRY(ledger_take(ledger, slice_str(place->key), BUNDLE_CAPTURES - l->count,
			size - t.bytes, large_of(l, place), now, take_capture, &t, reterr));
		if (l->count == before)
			continue; /* only large ones, behind one that is under way */
		l->may_spool = l->may_spool && source->at_max_age == AT_MAX_AGE_SEAL;
		first = first == NULL ? source : first;
		if (l->segment)
			large_begins(l);
	}
	/* no room there: into memory, and wiped by its receipt */
	l->wipe_now = first != NULL && ((first->wipe_after_seal && l->spool_room) || !l->into_memory);
	l->spool = l->wipe_now;
	return CEDE_OK;
}

static int take_work(struct ledger *ledger, void *ctx, struct cede_error *reterr) {
	struct load *l = ctx;
	const struct policy *policy = l->flow->policy;
	int64_t now = clock_wall_ns();
	CLEANUP(freep) struct next *ranked = calloc(l->source_count, sizeof *ranked);
	size_t n;

	if (ranked == NULL)
		return CEDE_FAIL_MEMORY(reterr);
	large_pauses(l); /* of a first try */
	seal_items_free(l->items, l->count);
	l->items = NULL;
	l->count = l->room = 0;
	l->segment = false;
	l->urgent_ns = INT64_MAX;
	CEDE_TRY(rank_sources(ledger, l, now, ranked, &n, reterr));
	if (n > 0)
		CEDE_TRY(take_some(ledger, l, ranked, n, now, reterr));
	ledger_head(ledger, &l->job.ledger_sequence, l->job.ledger_hash);
	return l->count == 0
		? CEDE_OK
		: ledger_checkpoint(ledger, slice_str(policy->destinations[l->destination].name),
			  now, &l->checkpoint, &l->field, reterr);
}

static void taken(struct flow *flow, void *ctx) {
	struct load *l = ctx;
	struct flow_destination *d = &flow->destinations[l->destination];

	d->taking--;
	if (l->spool_wanted)
		spooling_full(flow);
	for (size_t i = 0; i < l->count; i++) {
		struct flow_source *s = &flow->sources[l->items[i].source];
		uint64_t bytes = l->items[i].length;
		s->ready_bytes -= bytes < s->ready_bytes ? bytes : s->ready_bytes;
		s->ready_files -= s->ready_files > 0;
	}
	if (l->count == 0) {
		flow->seal_jobs--;
		if (!l->into_memory && outbox_has_room(flow, l->destination)) {
			handover_plan(flow); /* it has become better meanwhile */
			return;
		}
		d->nothing = l->into_memory || !link_up(flow->link, l->destination);
		if (!d->nothing)
			return; /* there may be much that can wait */
		for (size_t i = 0; i < l->source_count; i++)
			flow->sources[l->sources[i]].ready_bytes =
				flow->sources[l->sources[i]].ready_files = 0;
		return;
	}
	outbox_checkpoint(flow, l->destination, &l->field);
	d->sealing++;
	d->overdue = !l->into_memory; /* there may be more */
	seal_start(l);
	handover_plan(flow);
}

/* A load that was taken lives on in its seal job; one that found nothing ends here. */
static void take_release(void *ctx) {
	struct load *l = ctx;

	if (l->count == 0)
		load_release(l);
}

/* ---- the plan */

static struct load *load_new(struct flow *flow, size_t destination) {
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

/* Whether what is ready fills so many bundles. */
static bool fills(const struct flow *flow, size_t destination, size_t bundles) {
	uint64_t bytes = 0;
	uint64_t files = 0;

	for (size_t i = 0; i < flow->policy->source_count; i++)
		if (flow->policy->sources[i].destination == destination) {
			bytes += flow->sources[i].ready_bytes;
			files += flow->sources[i].ready_files;
		}
	return bytes / bundles >= flow->policy->destinations[destination].bundle_size ||
		files / bundles >= BUNDLE_CAPTURES;
}

/* A small bundle waits a moment for company while others are under way. */
static bool lingers(struct flow *flow, size_t destination) {
	struct flow_destination *d = &flow->destinations[destination];

	if (d->open + d->sealing == 0 || flow->lingered || fills(flow, destination, 1))
		return false;
	if (!uv_is_active((uv_handle_t *)&flow->linger))
		(void)uv_timer_start(&flow->linger, flow->on_linger, LINGER_MS, 0);
	return true;
}

static bool has_room(struct flow *flow, size_t destination) {
	struct flow_destination *d = &flow->destinations[destination];

	if (flow->seal_jobs >= SEAL_JOBS + LOADS_AHEAD || flow->wipes_ahead > WIPES_AHEAD)
		return false;
	/* beside a take that is under way only what surely fills another bundle: both become
	 * durable with one flush */
	if (d->taking > 0)
		return outbox_has_room(flow, destination) &&
			d->open + d->sealing + d->taking < PUSHES_OPEN &&
			fills(flow, destination, d->taking + 1);
	/* without a link only what must be sealed to the disk is taken: that does not stay in
	 * memory. With one that is too slow the same, each second */
	return !link_up(flow->link, destination) || outbox_has_room(flow, destination) || d->overdue;
}

static void plan_destination(struct flow *flow, size_t destination) {
	struct flow_destination *d = &flow->destinations[destination];

	while (has_room(flow, destination)) {
		if (d->nothing || lingers(flow, destination))
			return;
		struct load *l = load_new(flow, destination);
		if (l == NULL)
			return; /* no memory: the tick tries again */
		flow->seal_jobs++;
		d->taking++;
		d->overdue = false;
		flow_record(flow, take_work, taken, take_release, l);
	}
}

void handover_plan(struct flow *flow) {
	if (!goes_on(flow))
		return;
	for (size_t i = 0; i < flow->policy->destination_count; i++)
		plan_destination(flow, i);
}

void handover_tick(struct flow *flow) {
	for (size_t i = 0; i < flow->policy->destination_count; i++) {
		flow->destinations[i].nothing = false; /* not_before times come, deadlines near */
		flow->destinations[i].overdue = true;
	}
	handover_plan(flow);
}
