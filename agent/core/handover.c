/* SPDX-License-Identifier: Apache-2.0
 * Which captures form the next bundle, and when. */
#include <stdlib.h>
#include <string.h>

#include "agent/core/load.h"
#include "base/cleanup.h"
#include "base/clock.h"

/* ---- taking what is ready */

struct taking {
	struct ledger *ledger;
	struct load *load;
	size_t source;
	uint64_t bytes;
	uint64_t bundle_size;
};

int64_t handover_margin_ns(const struct policy_source *source) {
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

	struct seal_item *item;
	CEDE_TRY(load_add(l, c, t->source, &item, reterr));
	CEDE_TRY(cut(t, c, item, reterr));
	t->bytes += item->length;
	int64_t urgent = c->deadline_ns - handover_margin_ns(&l->flow->policy->sources[t->source]);
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
			deadline - handover_margin_ns(source) <= now;
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

/* What is wiped the same way, with the receipt or before it. */
static bool may_share(const struct policy_source *a, const struct policy_source *b) {
	return a->wipe_after_seal == b->wipe_after_seal &&
		(a->at_max_age == AT_MAX_AGE_SEAL) == (b->at_max_age == AT_MAX_AGE_SEAL);
}

/* One bundle's worth: from the most urgent source, then from others that may share it. */
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
		if (first != NULL && !may_share(source, first))
			continue;
		t.source = ranked[i].source;
		CEDE_TRY(ledger_take(ledger, slice_str(place->key), BUNDLE_CAPTURES - l->count,
			size - t.bytes, large_of(l, place), now, take_capture, &t, reterr));
		if (l->count == before)
			continue; /* only large ones, behind one that is under way */
		l->may_spool = l->may_spool && source->at_max_age == AT_MAX_AGE_SEAL;
		first = first == NULL ? source : first;
		if (l->segment)
			load_large_begins(l);
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
	load_large_pauses(l); /* of a first try */
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
		/* of a large one all that is left: what does not follow is ready again later */
		uint64_t bytes = l->segment ? l->items[i].identity.size - l->items[i].offset
					    : l->items[i].length;
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
	load_seal(l);
	handover_plan(flow);
}

/* A load that was taken lives on in its seal job; one that found nothing ends here. */
static void take_release(void *ctx) {
	struct load *l = ctx;

	if (l->count == 0)
		load_release(l);
}

/* ---- the plan */

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

bool handover_may_seal(struct flow *flow, size_t destination) {
	struct flow_destination *d = &flow->destinations[destination];
	bool may = clock_wall_ns() < d->seal_until_ns;

	if (d->figures.seal_over == may)
		log_event(may ? LOG_LEVEL_INFO : LOG_LEVEL_ERROR, may ? "seal.valid" : "seal.expired",
			"destination=%s%s", flow->policy->destinations[destination].name,
			may ? ""
			    : " effect=\"nothing is sealed to it: captures stay\" mend=\"get a policy with the next sealing certificate from the agency\"");
	d->figures.seal_over = !may;
	return may;
}

static void plan_destination(struct flow *flow, size_t destination) {
	struct flow_destination *d = &flow->destinations[destination];

	if (!handover_may_seal(flow, destination))
		return;
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

bool handover_goes_on(const struct flow *flow) {
	return flow->running && !flow->draining && !flow->stopping && !flow->failed &&
		!flow_expired(flow);
}

void handover_plan(struct flow *flow) {
	if (!handover_goes_on(flow))
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
