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

static struct parcel *parcel_find(struct flow *flow, const struct id *bundle) {
	for (size_t d = 0; d < flow->policy->destination_count; d++)
		for (struct parcel *p = flow->destinations[d].parcels; p != NULL; p = p->next)
			if (id_equal(&p->id, bundle))
				return p;
	return NULL;
}

static bool is_open(const struct parcel *p) {
	return p->state != PARCEL_WAITING || p->fd >= 0;
}

static void parcel_add(struct flow *flow, struct parcel *p) {
	struct flow_destination *d = &flow->destinations[p->destination];
	struct parcel **at = &d->parcels;

	while (*at != NULL) /* in order: the oldest goes first */
		at = &(*at)->next;
	*at = p;
	d->open += is_open(p);
}

static void parcel_drop(struct flow *flow, struct parcel *p) {
	struct flow_destination *d = &flow->destinations[p->destination];
	struct parcel **at = &d->parcels;

	while (*at != p)
		at = &(*at)->next;
	*at = p->next;
	d->open -= is_open(p);
	if (p->fd >= 0)
		(void)close(p->fd);
	free(p);
}

/* ---- pushing */

static int push_parcel(struct flow *flow, struct parcel *p, struct cede_error *reterr) {
	if (p->lost)
		return link_ask(flow->link, p->destination, &p->id, reterr);
	if (p->fd < 0)
		CEDE_TRY(spool_fetch(flow->setup.spool_fd, &p->id, &p->fd, reterr));
	return link_push(flow->link, p->destination, &p->id, p->fd, p->size, p->sha256,
		p->recovered, reterr);
}

static void push_waiting(struct flow *flow, size_t destination) {
	struct flow_destination *d = &flow->destinations[destination];
	size_t pushing = 0;

	for (struct parcel *p = d->parcels; p != NULL; p = p->next)
		pushing += p->state != PARCEL_WAITING;
	if (flow->stopping || flow_expired(flow))
		return;
	link_rate(flow->link, destination,
		destination_rate(&flow->policy->destinations[destination], clock_wall_ns()));
	for (struct parcel *p = d->parcels; p != NULL && pushing < PUSHES_OPEN; p = p->next) {
		struct cede_error err = {0};
		bool was_open = is_open(p);
		if (p->state != PARCEL_WAITING)
			continue;
		if (push_parcel(flow, p, &err) < 0) {
			char id[ID_TEXT_SIZE];
			id_print(&p->id, id);
			log_event(LOG_LEVEL_ERROR, "bundle.unpushed", "bundle=%s error=\"%s\"", id,
				err.text);
			return; /* the tick tries again */
		}
		p->state = PARCEL_PUSHING;
		d->open += !was_open;
		pushing++;
	}
}

/* ---- recording what was sealed */

struct load { /* captures on their way through take, seal and record */
	struct flow *flow;
	size_t destination;
	/* plan */
	bool link_up;
	size_t *sources; /* that go to this destination, nearest deadline first once taken */
	size_t source_count;
	/* take */
	struct seal_item *items;
	size_t count;
	size_t room;
	bool spool;
	bool wipe_now; /* wipe after seal, or max_age near: the spooled bundle is the proof */
	bool may_spool;
	bool segments;
	int64_t urgent_ns; /* when it must be sealed to the disk if there is no receipt */
	int64_t again_ns;  /* wall time at which something becomes ready; INT64_MAX: unknown */
	/* seal */
	struct seal_job job;
	struct parcel *parcel;
	/* record */
	int64_t bundle_row;
	struct ledger_sealed *captures;
	struct ledger_capture *to_wipe; /* owned copies */
	size_t to_wipe_count;
};

static void free_captures(struct ledger_capture *list, size_t n) {
	for (size_t i = 0; i < n; i++)
		free((void *)(uintptr_t)list[i].path.data);
	free(list);
}

struct collect {
	struct ledger_capture *list;
	size_t count;
	size_t room;
};

/* Copies a row with its path; the source's name is that of the policy or none. */
static int collect_capture(void *ctx, const struct ledger_capture *c, struct cede_error *reterr) {
	struct collect *to = ctx;

	if (to->count == to->room) {
		size_t room = to->room == 0 ? 64 : to->room * 2;
		struct ledger_capture *list = reallocarray(to->list, room, sizeof *list);
		if (list == NULL)
			return CEDE_FAIL_MEMORY(reterr);
		to->list = list;
		to->room = room;
	}
	/* one block: path NUL source NUL */
	char *block = malloc(c->path.len + c->source.len + 2);
	if (block == NULL)
		return CEDE_FAIL_MEMORY(reterr);
	memcpy(block, c->path.data, c->path.len);
	block[c->path.len] = 0;
	memcpy(block + c->path.len + 1, c->source.data, c->source.len);
	block[c->path.len + 1 + c->source.len] = 0;
	to->list[to->count] = *c;
	to->list[to->count].path = slice_of(block, c->path.len);
	to->list[to->count].source = slice_of(block + c->path.len + 1, c->source.len);
	to->list[to->count].group = SLICE_NONE;
	to->count++;
	return CEDE_OK;
}

static void add_disposals(struct flow *flow, const struct ledger_capture *list, size_t n) {
	for (size_t i = 0; i < n; i++) {
		struct cede_error err = {0};
		if (disposal_add(flow, &list[i], false, false, &err) < 0)
			/* stays in state wiping: the next start wipes it */
			log_event(LOG_LEVEL_ERROR, "wipe.deferred", "error=\"%s\"", err.text);
	}
	disposal_run(flow);
}

static void load_free(struct load *l) {
	seal_items_free(l->items, l->count);
	if (l->job.fd >= 0)
		(void)close(l->job.fd);
	free(l->sources);
	free(l->captures);
	free(l->parcel);
	free_captures(l->to_wipe, l->to_wipe_count);
	free(l);
}

static void load_release(void *ctx) {
	struct load *l = ctx;
	struct flow *flow = l->flow;

	load_free(l);
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
		[SEAL_LEFT] = {CAPTURE_READY, NULL},
	};

	if (item->outcome == SEAL_DONE)
		return CEDE_OK;
	int64_t again = item->outcome == SEAL_FAILED ? now + 5 * NS_PER_SECOND : 0;
	return ledger_capture_move(ledger, item->row, moves[item->outcome].to, again, now,
		moves[item->outcome].detail, reterr);
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
		if (item->outcome != SEAL_DONE || l->segments)
			continue;
		l->captures[n] = (struct ledger_sealed){.row = item->row, .identity = item->identity};
		memcpy(l->captures[n++].sha256, item->sha256, 32);
	}
	CEDE_TRY(ledger_bundle_sealed(ledger, &b, l->captures, n, now, &l->bundle_row, reterr));
	if (l->segments) {
		const struct seal_item *item = &job->items[0];
		CEDE_TRY(ledger_segment_sealed(ledger, item->row, l->bundle_row, item->segment_index,
			item->segment_count, item->offset, item->length, item->sha256, reterr));
	}
	if (!l->wipe_now)
		return CEDE_OK;
	struct collect all = {0};
	int r = ledger_bundle_wiping(ledger, l->bundle_row, now, reterr);
	if (r == CEDE_OK)
		r = ledger_bundle_captures(
			ledger, l->bundle_row, CAPTURE_WIPING, collect_capture, &all, reterr);
	free_captures(l->to_wipe, l->to_wipe_count);
	l->to_wipe = all.list;
	l->to_wipe_count = all.count;
	return r;
}

static int sealed_work(struct ledger *ledger, void *ctx, struct cede_error *reterr) {
	struct load *l = ctx;
	int64_t now = clock_wall_ns();

	for (size_t i = 0; i < l->job.count; i++)
		CEDE_TRY(record_left(ledger, &l->job.items[i], now, reterr));
	return l->job.sealed > 0 ? record_bundle(ledger, l, now, reterr) : CEDE_OK;
}

/* The next segment of a large capture, or its end. */
static void advance_large(struct flow_destination *d, const struct load *l) {
	struct seal_item *large = d->large;
	const struct seal_item *item = &l->job.items[0];

	if (item->outcome != SEAL_DONE) {
		/* changed or unreadable in the midst: what was sent of it stays at the agency as an
		 * unfinished capture; the file is looked at again and goes as a new one */
		seal_items_free(large, 1);
		d->large = NULL;
		return;
	}
	large->segment_index++;
	large->offset += large->length;
	uint64_t rest = large->identity.size - large->offset;
	large->length = rest < d->segment_size ? rest : d->segment_size;
	if (large->segment_index == large->segment_count) {
		seal_items_free(large, 1);
		d->large = NULL;
	}
}

static void look_again(struct flow *flow, const struct load *l) {
	for (size_t i = 0; i < l->job.count; i++) {
		const struct seal_item *item = &l->job.items[i];
		if (item->outcome == SEAL_CHANGED || item->outcome == SEAL_BUSY)
			intake_look(flow, item->source, item->path, BUSY_AGAIN_NS);
		if (item->outcome == SEAL_GONE)
			flow->figures.gone++;
		if (item->outcome == SEAL_FAILED)
			log_event(LOG_LEVEL_WARNING, "capture.unreadable", "source=%s error=\"%s\"",
				flow->policy->sources[item->source].name, strerror(item->sys));
	}
}

static void sealed_done(struct flow *flow, void *ctx) {
	struct load *l = ctx;
	struct flow_destination *d = &flow->destinations[l->destination];

	d->sealing--;
	look_again(flow, l);
	if (l->segments)
		advance_large(d, l);
	if (l->job.sealed > 0) {
		struct parcel *p = CEDE_TAKE(l->parcel);
		flow->figures.sealed_bundles++;
		flow->figures.sealed_captures += l->job.sealed;
		p->row = l->bundle_row;
		p->id = l->job.bundle;
		p->size = l->job.size;
		memcpy(p->sha256, l->job.sha256, sizeof p->sha256);
		p->spooled = l->job.spool_fd >= 0;
		p->fd = p->spooled ? -1 : CEDE_TAKE_FD(l->job.fd);
		parcel_add(flow, p);
		push_waiting(flow, l->destination);
		if (l->to_wipe_count > 0)
			add_disposals(flow, l->to_wipe, l->to_wipe_count);
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

static uint8_t *lend_buffer(struct flow *flow) {
	for (size_t i = 0; i < SEAL_JOBS; i++)
		if (flow->buffers[i] != NULL)
			return CEDE_TAKE(flow->buffers[i]);
	require(false); /* the plan counts the jobs */
	return NULL;
}

static void seal_done(void *ctx) {
	struct load *l = ctx;
	struct flow *flow = l->flow;

	flow->seal_jobs--;
	give_back(flow, l->job.buffer);
	if (l->job.result < 0) {
		if (!flow->stop) /* else it was told to end */
			log_event(LOG_LEVEL_ERROR, "seal.failed", "error=\"%s\"", l->job.err.text);
		for (size_t i = 0; i < l->job.count; i++)
			if (l->job.items[i].outcome == SEAL_DONE)
				l->job.items[i].outcome = SEAL_FAILED;
	}
	flow_record(flow, sealed_work, sealed_done, load_release, l);
}

/* Reads and seals what the load holds. A seal job's place and buffer are kept for it since the plan. */
static void seal_start(struct load *l) {
	struct flow *flow = l->flow;

	l->parcel->destination = l->destination;
	l->parcel->fd = -1;
	l->parcel->may_spool = l->may_spool;
	l->parcel->urgent_ns = l->urgent_ns;
	l->job.policy = flow->policy;
	l->job.keys = flow->destinations[l->destination].seal;
	l->job.host = flow->setup.host;
	l->job.now_ns = clock_wall_ns();
	l->job.items = l->items;
	l->job.count = l->count;
	l->job.buffer = lend_buffer(flow);
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
	struct load *load;
	size_t source;
	uint64_t bytes;
};

/* How long before its deadline a capture is sealed to the disk when the link is down. */
static int64_t margin_of(const struct policy_source *source) {
	return source->max_age_ns / 10 + 5 * NS_PER_SECOND;
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
		.path = strndup((const char *)c->path.data, c->path.len),
		.group = strndup(c->group.len > 0 ? (const char *)c->group.data : "", c->group.len),
		.identity = c->identity,
		.length = c->identity.size,
		.segment_count = 1};
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
		CEDE_TRY(ledger_next(
			ledger, slice_str(source->name), now, &deadline, &not_before, reterr));
		if (not_before < l->again_ns)
			l->again_ns = not_before;
		if (deadline == INT64_MAX)
			continue;
		bool urgent = source->at_max_age == AT_MAX_AGE_SEAL &&
			deadline - margin_of(source) <= now;
		if (l->link_up || urgent || source->wipe_after_seal)
			ret[n++] = (struct next){l->sources[i], deadline};
	}
	qsort(ret, n, sizeof *ret, by_deadline);
	*ret_count = n;
	return CEDE_OK;
}

/* One bundle's worth: from the most urgent source, then from others that are wiped the same way. */
static int take_some(struct ledger *ledger, struct load *l, const struct next *ranked, size_t n,
	int64_t now, struct cede_error *reterr) {
	const struct policy *policy = l->flow->policy;
	uint64_t size = policy->destinations[l->destination].bundle_size;
	const struct policy_source *first = &policy->sources[ranked[0].source];
	struct taking t = {.load = l};

	l->may_spool = true;
	l->wipe_now = first->wipe_after_seal || !l->link_up;
	l->spool = l->wipe_now;
	for (size_t i = 0; i < n; i++) {
		const struct policy_source *source = &policy->sources[ranked[i].source];
		if (l->count >= BUNDLE_CAPTURES || t.bytes + size / 4 > size)
			break;
		if (source->wipe_after_seal != first->wipe_after_seal)
			continue;
		t.source = ranked[i].source;
		l->may_spool = l->may_spool && source->at_max_age == AT_MAX_AGE_SEAL;
		CEDE_TRY(ledger_take(ledger, slice_str(source->name), BUNDLE_CAPTURES - l->count,
			size - t.bytes, now, take_capture, &t, reterr));
		if (t.bytes > size) /* a large one: goes in segments, alone */
			break;
	}
	return CEDE_OK;
}

static int take_work(struct ledger *ledger, void *ctx, struct cede_error *reterr) {
	struct load *l = ctx;
	int64_t now = clock_wall_ns();
	CLEANUP(freep) struct next *ranked = calloc(l->source_count, sizeof *ranked);
	size_t n;

	if (ranked == NULL)
		return CEDE_FAIL_MEMORY(reterr);
	seal_items_free(l->items, l->count); /* of a first try */
	l->items = NULL;
	l->count = l->room = 0;
	l->urgent_ns = INT64_MAX;
	CEDE_TRY(rank_sources(ledger, l, now, ranked, &n, reterr));
	if (n > 0)
		CEDE_TRY(take_some(ledger, l, ranked, n, now, reterr));
	ledger_head(ledger, &l->job.ledger_sequence, l->job.ledger_hash);
	return CEDE_OK;
}

/* A capture larger than a bundle is remembered, and goes on segment by segment. */
static bool begin_large(struct flow_destination *d, struct load *l, uint64_t size) {
	struct seal_item *item = &l->items[0];

	if (l->count != 1 || item->length <= size)
		return true;
	uint64_t count = (item->length + size - 1) / size;
	require(d->large == NULL && count <= UINT32_MAX);
	d->large = calloc(1, sizeof *d->large);
	if (d->large == NULL)
		return false;
	*d->large = *item;
	d->large->path = strdup(item->path);
	d->large->group = strdup(item->group);
	if (d->large->path == NULL || d->large->group == NULL) {
		seal_items_free(CEDE_TAKE(d->large), 1);
		return false;
	}
	item->segment_count = d->large->segment_count = (uint32_t)count;
	item->length = d->large->length = size;
	d->segment_size = size;
	l->segments = true;
	return true;
}

static void taken(struct flow *flow, void *ctx) {
	struct load *l = ctx;
	struct flow_destination *d = &flow->destinations[l->destination];
	uint64_t size = flow->policy->destinations[l->destination].bundle_size;

	d->taking = false;
	for (size_t i = 0; i < l->count; i++) {
		struct flow_source *s = &flow->sources[l->items[i].source];
		uint64_t bytes = l->items[i].length;
		s->ready_bytes -= bytes < s->ready_bytes ? bytes : s->ready_bytes;
		s->ready_files -= s->ready_files > 0;
	}
	if (l->count == 0) {
		flow->seal_jobs--;
		d->nothing = true;
		for (size_t i = 0; i < l->source_count; i++)
			flow->sources[l->sources[i]].ready_bytes =
				flow->sources[l->sources[i]].ready_files = 0;
		return;
	}
	d->sealing++;
	if (begin_large(d, l, size)) {
		seal_start(l);
		handover_plan(flow);
		return;
	}
	flow->seal_jobs--; /* no memory: back into the ledger as ready */
	for (size_t i = 0; i < l->count; i++)
		l->items[i].outcome = SEAL_FAILED;
	l->job.items = l->items;
	l->job.count = l->count;
	flow_record(flow, sealed_work, sealed_done, load_release, l);
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
	l->link_up = link_up(flow->link, destination);
	l->job.fd = -1;
	l->parcel = calloc(1, sizeof *l->parcel);
	l->sources = calloc(policy->source_count, sizeof *l->sources);
	if (l->parcel == NULL || l->sources == NULL) {
		load_free(l);
		return NULL;
	}
	for (size_t i = 0; i < policy->source_count; i++)
		if (policy->sources[i].destination == destination && flow->sources[i].fd >= 0)
			l->sources[l->source_count++] = i;
	return l;
}

static bool next_segment(struct flow *flow, struct load *l) {
	struct flow_destination *d = &flow->destinations[l->destination];

	l->items = calloc(1, sizeof *l->items);
	if (l->items == NULL)
		return false;
	l->items[0] = *d->large;
	l->items[0].path = strdup(d->large->path);
	l->items[0].group = strdup(d->large->group);
	l->count = 1;
	l->segments = true;
	l->urgent_ns = INT64_MAX;
	return l->items[0].path != NULL && l->items[0].group != NULL;
}

/* A small bundle waits a moment for company while others are under way. */
static bool lingers(struct flow *flow, size_t destination) {
	struct flow_destination *d = &flow->destinations[destination];
	uint64_t bytes = 0;
	uint64_t files = 0;

	if (d->open + d->sealing == 0 || flow->lingered)
		return false;
	for (size_t i = 0; i < flow->policy->source_count; i++)
		if (flow->policy->sources[i].destination == destination) {
			bytes += flow->sources[i].ready_bytes;
			files += flow->sources[i].ready_files;
		}
	if (bytes >= flow->policy->destinations[destination].bundle_size || files >= BUNDLE_CAPTURES)
		return false;
	if (!uv_is_active((uv_handle_t *)&flow->linger))
		(void)uv_timer_start(&flow->linger, flow->on_linger, LINGER_MS, 0);
	return true;
}

static bool has_room(struct flow *flow, size_t destination) {
	struct flow_destination *d = &flow->destinations[destination];

	if (flow->seal_jobs >= SEAL_JOBS || d->taking)
		return false;
	if (d->large != NULL && d->sealing > 0)
		return false; /* segment after segment */
	/* without a link only what must be sealed to the disk is taken: that does not stay in memory */
	return !link_up(flow->link, destination) || d->open + d->sealing < PUSHES_OPEN;
}

static void plan_destination(struct flow *flow, size_t destination) {
	struct flow_destination *d = &flow->destinations[destination];

	while (has_room(flow, destination)) {
		if (d->large == NULL && (d->nothing || lingers(flow, destination)))
			return;
		if (d->large != NULL && !link_up(flow->link, destination))
			return;
		struct load *l = load_new(flow, destination);
		if (l == NULL)
			return; /* no memory: the tick tries again */
		if (d->large != NULL && !next_segment(flow, l)) {
			load_free(l);
			return;
		}
		flow->seal_jobs++;
		if (d->large != NULL) {
			d->sealing++;
			seal_start(l);
			return;
		}
		d->taking = true;
		flow_record(flow, take_work, taken, take_release, l);
	}
}

void handover_plan(struct flow *flow) {
	if (!flow->running || flow->draining || flow->stopping || flow->failed || flow_expired(flow))
		return;
	for (size_t i = 0; i < flow->policy->destination_count; i++)
		plan_destination(flow, i);
}

/* ---- receipts */

struct proof { /* a verified receipt on its way into the ledger */
	struct flow *flow;
	struct id bundle;
	int64_t row;
	uint8_t *note;
	size_t size;
	bool wiped_already; /* the spooled bundle was the proof */
	struct collect to_wipe;
};

static int proof_work(struct ledger *ledger, void *ctx, struct cede_error *reterr) {
	struct proof *p = ctx;
	int64_t now = clock_wall_ns();
	bool done;

	free_captures(p->to_wipe.list, p->to_wipe.count);
	p->to_wipe = (struct collect){0};
	CEDE_TRY(ledger_bundle_receipted(ledger, p->row, slice_of(p->note, p->size), now, reterr));
	if (!p->wiped_already)
		CEDE_TRY(ledger_bundle_captures(
			ledger, p->row, CAPTURE_WIPING, collect_capture, &p->to_wipe, reterr));
	if (p->to_wipe.count == 0) /* wiped after sealing, or a segment that is not the last */
		return ledger_bundle_done(ledger, p->row, now, &done, reterr);
	return CEDE_OK;
}

static void proof_done(struct flow *flow, void *ctx) {
	struct proof *p = ctx;
	struct parcel *parcel = parcel_find(flow, &p->bundle);
	struct cede_error err = {0};

	require(parcel != NULL);
	flow->figures.receipts++;
	flow->figures.pushed_bytes += parcel->size;
	if (parcel->spooled && spool_remove(flow->setup.spool_fd, &parcel->id, &err) < 0)
		log_event(LOG_LEVEL_WARNING, "spool.leftover", "error=\"%s\"",
			err.text); /* swept at start */
	size_t destination = parcel->destination;
	parcel_drop(flow, parcel);
	add_disposals(flow, p->to_wipe.list, p->to_wipe.count);
	push_waiting(flow, destination);
	handover_plan(flow);
}

static void proof_release(void *ctx) {
	struct proof *p = ctx;
	struct flow *flow = p->flow;

	free_captures(p->to_wipe.list, p->to_wipe.count);
	free(p->note);
	free(p);
	flow_settled(flow);
}

struct refusal {
	struct id bundle;
	char detail[600];
};

static int refusal_work(struct ledger *ledger, void *ctx, struct cede_error *reterr) {
	struct refusal *r = ctx;

	return ledger_event(
		ledger, LEDGER_RECEIPT_REFUSED, &r->bundle, clock_wall_ns(), r->detail, reterr);
}

static void refuse(struct flow *flow, const struct parcel *p, const char *text) {
	struct refusal *r = calloc(1, sizeof *r);
	char id[ID_TEXT_SIZE];

	id_print(&p->id, id);
	flow->figures.receipts_refused++;
	log_event(LOG_LEVEL_ERROR, "receipt.refused",
		"bundle=%s destination=%s error=\"%s\" effect=\"nothing is wiped\"", id,
		flow->policy->destinations[p->destination].name, text);
	if (r == NULL)
		return;
	r->bundle = p->id;
	(void)snprintf(r->detail, sizeof r->detail, "reason=%s", text);
	flow_record(flow, refusal_work, NULL, free, r);
}

bool handover_receipt(void *ctx, const struct id *bundle, struct slice note) {
	struct flow *flow = ctx;
	struct parcel *p = parcel_find(flow, bundle);
	struct cede_error err = {0};

	if (p == NULL || p->state == PARCEL_CONFIRMED)
		return true; /* known already */
	if (p->spooling)
		return false; /* asked for again when that is over */
	struct confirm_want want = {.bundle = p->id, .host = flow->setup.host, .size = p->size};
	memcpy(want.sha256, p->sha256, sizeof want.sha256);
	if (confirm_receipt(flow->destinations[p->destination].receipts, &want, note, &err) < 0) {
		refuse(flow, p, err.text);
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
		.wiped_already = p->spooled};
	p->state = PARCEL_CONFIRMED;
	flow_record(flow, proof_work, proof_done, proof_release, proof);
	return true;
}

void handover_failed(void *ctx, const struct id *bundle, size_t destination, const char *kind,
	const char *text) {
	struct flow *flow = ctx;
	char id[ID_TEXT_SIZE];

	id_print(bundle, id);
	flow->figures.push_failures++;
	log_event(LOG_LEVEL_WARNING, "push.failed",
		"bundle=%s destination=%s reason=%s error=\"%s\" effect=\"nothing is wiped\"", id,
		destination < flow->policy->destination_count
			? flow->policy->destinations[destination].name
			: "?",
		kind, text);
}

void handover_link(void *ctx, size_t destination, bool up) {
	struct flow *flow = ctx;

	if (destination >= flow->policy->destination_count)
		return;
	log_event(up ? LOG_LEVEL_INFO : LOG_LEVEL_WARNING, up ? "link.up" : "link.down",
		"destination=%s", flow->policy->destinations[destination].name);
	flow->destinations[destination].nothing = false;
	handover_plan(flow);
}

/* ---- a bundle whose ciphertext was lost, and which the agency never got and never will take */

struct abandon {
	struct flow *flow;
	struct id bundle;
	int64_t row;
};

static int abandon_work(struct ledger *ledger, void *ctx, struct cede_error *reterr) {
	struct abandon *a = ctx;

	return ledger_bundle_abandoned(ledger, a->row, clock_wall_ns(), reterr);
}

static void abandon_done(struct flow *flow, void *ctx) {
	struct abandon *a = ctx;
	struct parcel *p = parcel_find(flow, &a->bundle);

	require(p != NULL);
	size_t destination = p->destination;
	parcel_drop(flow, p);
	flow->destinations[destination].nothing = false;
	push_waiting(flow, destination);
	handover_plan(flow);
}

static void abandon_release(void *ctx) {
	struct abandon *a = ctx;
	struct flow *flow = a->flow;

	free(a);
	flow_settled(flow);
}

void handover_absent(void *ctx, const struct id *bundle) {
	struct flow *flow = ctx;
	struct parcel *p = parcel_find(flow, bundle);
	struct abandon *a = calloc(1, sizeof *a);

	if (p == NULL || !p->lost || p->state != PARCEL_PUSHING || a == NULL) {
		free(a);
		if (p != NULL && p->state == PARCEL_PUSHING)
			p->state = PARCEL_WAITING; /* asked again at the next occasion */
		return;
	}
	*a = (struct abandon){.flow = flow, .bundle = *bundle, .row = p->row};
	p->state = PARCEL_CONFIRMED;
	flow_record(flow, abandon_work, abandon_done, abandon_release, a);
}

/* ---- max_age near and no receipt: the sealed bundle goes to the disk, then the plaintext goes */

struct spooling {
	struct flow *flow;
	struct id bundle;
	int64_t row;
	int fd; /* the parcel's own copy, kept open until the job is done */
	uint64_t size;
	int result;
	struct cede_error err;
	struct collect to_wipe;
};

static void spool_work(void *ctx) {
	struct spooling *s = ctx;

	s->result = spool_copy(s->flow->setup.spool_fd, &s->bundle, s->fd, s->size, &s->err);
}

static int spooled_work(struct ledger *ledger, void *ctx, struct cede_error *reterr) {
	struct spooling *s = ctx;
	int64_t now = clock_wall_ns();

	free_captures(s->to_wipe.list, s->to_wipe.count);
	s->to_wipe = (struct collect){0};
	CEDE_TRY(ledger_bundle_spooled(ledger, s->row, now, reterr));
	CEDE_TRY(ledger_bundle_wiping(ledger, s->row, now, reterr));
	return ledger_bundle_captures(
		ledger, s->row, CAPTURE_WIPING, collect_capture, &s->to_wipe, reterr);
}

static void spooled_done(struct flow *flow, void *ctx) {
	struct spooling *s = ctx;
	struct parcel *p = parcel_find(flow, &s->bundle);

	if (p != NULL) {
		p->spooling = false;
		p->spooled = true;
	}
	add_disposals(flow, s->to_wipe.list, s->to_wipe.count);
}

static void spooled_release(void *ctx) {
	struct spooling *s = ctx;
	struct flow *flow = s->flow;

	(void)close(s->fd);
	free_captures(s->to_wipe.list, s->to_wipe.count);
	free(s);
	flow_settled(flow);
}

static void spool_done(void *ctx) {
	struct spooling *s = ctx;
	struct flow *flow = s->flow;
	struct parcel *p = parcel_find(flow, &s->bundle);

	if (s->result == CEDE_OK && p != NULL && p->state != PARCEL_CONFIRMED) {
		flow_record(flow, spooled_work, spooled_done, spooled_release, s);
		return;
	}
	if (s->result < 0)
		log_event(LOG_LEVEL_ERROR, "spool.failed", "error=\"%s\"", s->err.text);
	else /* the receipt came meanwhile */
		(void)!spool_remove(flow->setup.spool_fd, &s->bundle, NULL); /* else swept at start */
	if (p != NULL)
		p->spooling = false;
	spooled_release(s);
}

static void spool_parcel(struct flow *flow, struct parcel *p) {
	struct spooling *s = calloc(1, sizeof *s);
	int fd = s == NULL ? -1 : dup(p->fd);

	if (fd < 0) {
		free(s);
		return; /* the tick tries again */
	}
	*s = (struct spooling){
		.flow = flow, .bundle = p->id, .row = p->row, .fd = fd, .size = p->size};
	p->spooling = true;
	if (jobs_start(&flow->jobs, spool_work, spool_done, s, &s->err) < 0) {
		s->result = CEDE_ERR_IO;
		spool_done(s);
	}
}

void handover_tick(struct flow *flow) {
	int64_t now = clock_wall_ns();

	for (size_t i = 0; i < flow->policy->destination_count; i++) {
		struct flow_destination *d = &flow->destinations[i];
		for (struct parcel *p = d->parcels; p != NULL; p = p->next)
			if (p->fd >= 0 && !p->spooled && !p->spooling && p->may_spool &&
				p->state != PARCEL_CONFIRMED && p->urgent_ns <= now)
				spool_parcel(flow, p);
		d->nothing = false; /* not_before times come, deadlines near */
		push_waiting(flow, i);
	}
	handover_plan(flow);
}

static void log_homeless(void) {
	log_event(LOG_LEVEL_ERROR, "bundle.homeless",
		"mend=\"the policy no longer has the destination of a sealed bundle; add it again\"");
}

/* What another key was used for, or what goes to a place that is no longer approved, is not sent:
 * the agency is asked for it, and if it does not have it its captures are sealed anew. */
static void inherit(struct flow *flow, struct parcel *p, size_t destination) {
	const struct flow_setup *setup = &flow->setup;
	bool in_link = p->state == PARCEL_PUSHING && setup->same_link;
	bool stays = in_link && !setup->keys[destination].changed;

	p->destination = destination;
	p->recovered = p->recovered || p->state != PARCEL_WAITING;
	if (in_link && !stays)
		link_forget(setup->link, &p->id);
	if (!stays)
		p->state = PARCEL_WAITING;
	if (setup->keys[destination].changed && !p->spooled && p->fd >= 0) {
		fd_closep(&p->fd);
		p->lost = true;
	}
	parcel_add(flow, p);
}

void handover_inherit(struct flow *flow, struct flow *from) {
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

void handover_adopt(struct flow *flow, const struct ledger_bundle *b) {
	struct parcel *p;
	size_t destination;

	p = parcel_find(flow, &b->id);
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
		.urgent_ns = INT64_MAX};
	memcpy(p->sha256, b->sha256, sizeof p->sha256);
	parcel_add(flow, p);
}

void handover_free(struct flow *flow) {
	for (size_t i = 0; i < flow->policy->destination_count; i++) {
		struct flow_destination *d = &flow->destinations[i];
		while (d->parcels != NULL)
			parcel_drop(flow, d->parcels);
		if (d->large != NULL)
			seal_items_free(d->large, 1);
	}
}
