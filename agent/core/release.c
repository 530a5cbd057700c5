/* SPDX-License-Identifier: Apache-2.0 */
/* Captures that are wiped for another reason than a receipt of this moment: a hold ended, their age
 * is up, or what kept them did. */
#include <stdio.h>
#include <stdlib.h>

#include "agent/core/epochs.h"
#include "agent/core/flow_internal.h"
#include "agent/ledger/epoch.h"
#include "agent/wipe/storage.h"
#include "base/clock.h"
#include "base/log.h"

struct release_place { /* copied: a vault's places come and go */
	char key[EPOCH_SOURCE_SIZE];
	const struct policy_source *source;
	bool there;       /* and what was kept there is to be looked at */
	bool stays_below; /* what was kept for its storage would be kept again */
};

struct release { /* captures on their way to WIPING */
	struct flow *flow;
	struct release_place *places;
	size_t place_count;
	struct capture_list list;
	bool expire;
	int64_t asked_ns; /* wall time; the clock may have been set ahead before the ledger's turn */
	int64_t now_ns;   /* that ages count to */
	size_t kept;      /* the first so many were kept for their storage */
};

static const struct release_place *place_of(const struct release *r, struct slice key) {
	for (size_t i = 0; i < r->place_count; i++)
		if (slice_is(key, r->places[i].key))
			return &r->places[i];
	return NULL;
}

/* One that no hold covers; a source that the policy no longer has keeps what it has. */
static int release_one(void *ctx, const struct ledger_capture *c, struct cede_error *reterr) {
	struct release *r = ctx;

	if (r->list.count == WIPE_BATCH)
		return 1; /* enough: the rest next time */
	if (place_of(r, c->source) == NULL ||
		hold_of(r->flow->policy, epoch_source_name(c->source), c->path, c->born_ns,
			clock_wall_ns()) != NULL)
		return CEDE_OK;
	return capture_list_add(&r->list, c, reterr);
}

/* What was kept is tried again when the policy or, as far as the directory tells, the storage has
 * changed so that it may come to another end. */
static int release_kept(void *ctx, const struct ledger_capture *c, struct cede_error *reterr) {
	struct release *r = ctx;
	const struct release_place *p = place_of(r, c->source);

	if (r->list.count == WIPE_BATCH)
		return 1;
	if (p == NULL || !p->there || p->stays_below)
		return CEDE_OK;
	return release_one(ctx, c, reterr);
}

/* The policy in force says so, not the one under which it was found. */
static int release_expired(void *ctx, const struct ledger_capture *c, struct cede_error *reterr) {
	struct release *r = ctx;

	if (r->list.count == WIPE_BATCH)
		return 1;
	return destroy_due(r->flow->policy, place_of(r, c->source)->source, c->path,
		       c->identity.size, c->born_ns, r->now_ns)
		? capture_list_add(&r->list, c, reterr)
		: CEDE_OK;
}

static int expired_captures(struct ledger *ledger, struct release *r, struct cede_error *reterr) {
	for (size_t i = 0; i < r->place_count; i++) {
		const struct policy_source *s = r->places[i].source;
		if (s->at_max_age == AT_MAX_AGE_DESTROY)
			CEDE_TRY(ledger_born_by(ledger, slice_str(r->places[i].key),
				r->now_ns - s->max_age_ns, release_expired, r, reterr));
	}
	return CEDE_OK;
}

static int release_work(struct ledger *ledger, void *ctx, struct cede_error *reterr) {
	struct release *r = ctx;
	int64_t now = clock_wall_ns();

	capture_list_done(&r->list); /* of a first try */
	r->now_ns = now < r->asked_ns ? now : r->asked_ns;
	if (r->expire)
		CEDE_TRY(expired_captures(ledger, r, reterr));
	else if (r->flow->keeping)
		CEDE_TRY(ledger_kept(ledger, r->flow->kept_row, release_kept, r, reterr));
	r->kept = r->expire ? 0 : r->list.count;
	if (!r->expire)
		CEDE_TRY(ledger_captures(ledger, CAPTURE_HELD, release_one, r, reterr));
	for (size_t i = 0; i < r->list.count; i++) {
		int64_t row = r->list.items[i].row;
		CEDE_TRY(r->expire ? ledger_capture_destroying(ledger, row, "max-age", now, reterr)
				: i < r->kept ? ledger_keep_ended(ledger, row, now, reterr)
					      : ledger_hold_lifted(ledger, row, now, reterr));
	}
	return CEDE_OK;
}

/* Everything that was kept in the places that were there was looked at. */
static void looked(struct flow *flow) {
	flow->keeping = false;
	for (size_t i = 0; i < flow->policy->source_count; i++)
		if (flow->sources[i].kept_look == KEPT_LOOKING)
			flow->sources[i].kept_look = KEPT_LOOKED;
}

/* What is kept in a place that was not there waits until it is. */
static bool is_due_in(const struct flow *flow, size_t source) {
	return flow->sources[source].kept_look == KEPT_DUE && !flow->sources[source].idle &&
		flow_source_there(flow, source);
}

static bool is_due(const struct flow *flow) {
	for (size_t i = 0; i < flow->policy->source_count; i++)
		if (is_due_in(flow, i))
			return true;
	return false;
}

static void look_at_kept(struct flow *flow) {
	if (flow->keeping || !is_due(flow))
		return;
	flow->keeping = true;
	flow->kept_row = 0;
	for (size_t i = 0; i < flow->policy->source_count; i++)
		if (is_due_in(flow, i))
			flow->sources[i].kept_look = KEPT_LOOKING;
}

static void release_done(struct flow *flow, void *ctx) {
	struct release *r = ctx;

	if (r->expire)
		flow->figures.destroyed += r->list.count;
	for (size_t i = 0; i < r->list.count; i++) {
		if (r->expire) /* as its row says now */
			r->list.items[i].not_before_ns = INT64_MAX;
		disposal_add(flow, &r->list.items[i], false, true);
	}
	if (r->kept > 0) /* those behind it are looked at next, and none of them twice */
		flow->kept_row = r->list.items[r->kept - 1].row;
	if (!r->expire && flow->keeping && r->kept < WIPE_BATCH)
		looked(flow);
	if (r->list.count == WIPE_BATCH && r->expire)
		flow->expire_boot_ns = 0;
	else if (r->list.count == WIPE_BATCH)
		flow->lift_ns = 0;
	disposal_run(flow);
}

static void release_release(void *ctx) {
	struct release *r = ctx;
	struct flow *flow = r->flow;

	if (r->expire)
		flow->expiring = false;
	else
		flow->lifting = false;
	capture_list_done(&r->list);
	free(r->places);
	free(r);
	flow_settled(flow);
}

static bool note_places(struct release *r) {
	const struct policy *policy = r->flow->policy;

	r->places = calloc(policy->source_count, sizeof *r->places);
	for (size_t i = 0; r->places != NULL && i < policy->source_count; i++) {
		const struct policy_source *s = &policy->sources[i];
		wipe_reasons reasons;
		if (r->flow->sources[i].idle)
			continue;
		struct release_place *p = &r->places[r->place_count++];
		/* of the policy itself: a place is given to another epoch while this is on its way */
		p->source = &r->flow->setup.policy->sources[r->flow->sources[i].of];
		bool there = flow_source_there(r->flow, i);
		p->there = there && r->flow->sources[i].kept_look == KEPT_LOOKING;
		if (!there && r->flow->sources[i].kept_look == KEPT_LOOKING)
			r->flow->sources[i].kept_look = KEPT_DUE; /* when it is back */
		p->stays_below = p->there && s->wipe_keep_below && !epochs_has_key(r->flow, i) &&
			storage_directory(r->flow->sources[i].fd, s->wipe_scrub_ns != 0, &reasons) <
				wipe_required(s->wipe_require);
		(void)snprintf(p->key, sizeof p->key, "%s", r->flow->sources[i].key);
	}
	return r->places != NULL;
}

static bool release_start(struct flow *flow, bool expire) {
	struct release *r = calloc(1, sizeof *r);

	if (r == NULL)
		return false; /* the tick tries again */
	r->flow = flow;
	r->expire = expire;
	r->asked_ns = clock_wall_ns();
	if (!note_places(r)) {
		free(r);
		return false;
	}
	flow_record(flow, release_work, release_done, release_release, r);
	return true;
}

/* The earliest end of a hold that has not ended yet. */
static int64_t next_end(const struct policy *policy, int64_t now) {
	int64_t next = INT64_MAX;

	for (size_t i = 0; i < policy->hold_count; i++)
		if (policy->holds[i].until_ns > now && policy->holds[i].until_ns < next)
			next = policy->holds[i].until_ns;
	return next;
}

void release_lift(struct flow *flow) {
	if (flow->lifting || flow->stopping || flow->failed || flow_expired(flow))
		return;
	flow->lift_ns = next_end(flow->policy, clock_wall_ns());
	look_at_kept(flow);
	flow->lifting = release_start(flow, false);
	if (!flow->lifting)
		flow->lift_ns = 0;
}

void release_expire(struct flow *flow) {
	bool wanted = false;

	for (size_t i = 0; i < flow->policy->source_count; i++)
		wanted = wanted || flow->policy->sources[i].at_max_age == AT_MAX_AGE_DESTROY;
	if (!wanted || flow->expiring || flow->stopping || flow->failed || flow_expired(flow))
		return;
	flow->expire_boot_ns = clock_boot_ns() + EXPIRE_NS;
	flow_watch_clock(flow);
	if (clock_boot_ns() < flow->destroy_boot_ns)
		return;
	flow->expiring = release_start(flow, true);
}

void release_tick(struct flow *flow) {
	if (clock_wall_ns() >= flow->lift_ns || (!flow->keeping && is_due(flow)))
		release_lift(flow);
	if (clock_boot_ns() >= flow->expire_boot_ns)
		release_expire(flow);
}
