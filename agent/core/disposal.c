/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent/core/flow_internal.h"
#include "base/check.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/log.h"

/* One batch: its captures, its job, its way into the ledger. */
struct batch {
	struct flow *flow;
	struct disposal **captures; /* owned */
	struct wipe_item *items;
	size_t count;
	int result;
	struct cede_error err;
};

static void disposal_drop(struct disposal *d) {
	free(d->path);
	free(d);
}

static void append(struct flow *flow, struct disposal *d) {
	d->next = NULL;
	*flow->disposals_end = d;
	flow->disposals_end = &d->next;
	flow->disposal_count++;
}

int disposal_add(struct flow *flow, const struct ledger_capture *c, bool begun, bool alone,
	struct cede_error *reterr) {
	size_t source;

	if (!flow_source_named(flow, c->source, &source))
		return CEDE_FAIL(reterr, CEDE_ERR_REFUSED,
			"the policy no longer has the source of a capture that is to be wiped");
	struct disposal *d = calloc(1, sizeof *d);
	char *path = strndup((const char *)c->path.data, c->path.len);
	if (d == NULL || path == NULL) {
		free(d);
		free(path);
		return CEDE_FAIL_MEMORY(reterr);
	}
	*d = (struct disposal){.row = c->row,
		.bundle_row = c->bundle_row,
		.id = c->id,
		.source = source,
		.path = path,
		.identity = c->identity,
		.born_ns = c->born_ns,
		.begun = begun,
		.alone = alone};
	memcpy(d->sha256, c->sha256, sizeof d->sha256);
	append(flow, d);
	return CEDE_OK;
}

static void batch_release(void *ctx) {
	struct batch *b = ctx;
	struct flow *flow = b->flow;

	for (size_t i = 0; i < b->count; i++)
		if (b->captures[i] != NULL)
			disposal_drop(b->captures[i]);
	free(b->captures);
	free(b->items);
	free(b);
	flow_settled(flow);
}

static int record_wiped(struct ledger *ledger, const struct disposal *d,
	const struct wipe_item *item, int64_t now, struct cede_error *reterr) {
	switch (item->outcome) {
	case WIPE_DONE:
		return ledger_capture_wiped(ledger, d->row, wipe_level_name(item->level),
			item->reason, now, d->alone, reterr);
	case WIPE_ABSENT:
		if (d->begun) /* unlinked before the crash; the blocks were overwritten before that */
			return ledger_capture_wiped(ledger, d->row, wipe_level_name(WIPE_UNPROVEN),
				"interrupted", now, d->alone, reterr);
		return ledger_capture_move(ledger, d->row, CAPTURE_GONE, 0, now,
			"reason=removed-by-another-program", reterr);
	case WIPE_REPLACED:
		return ledger_capture_move(ledger, d->row, CAPTURE_REPLACED, 0, now,
			"reason=changed-since-sealed", reterr);
	case WIPE_FAILED:
		if (d->tries > 0)
			return CEDE_OK; /* said once */
		return ledger_event(
			ledger, LEDGER_WIPE_FAILED, &d->id, now, "reason=system-error", reterr);
	case WIPE_HELD:
		return ledger_capture_held(ledger, d->row, now, d->hold, reterr);
	case WIPE_BUSY:
		break;
	}
	return CEDE_OK;
}

static int wiped_work(struct ledger *ledger, void *ctx, struct cede_error *reterr) {
	struct batch *b = ctx;
	int64_t now = clock_wall_ns();
	int64_t last = 0;

	for (size_t i = 0; i < b->count; i++)
		CEDE_TRY(record_wiped(ledger, b->captures[i], &b->items[i], now, reterr));
	for (size_t i = 0; i < b->count; i++) {
		bool done;
		if (b->captures[i]->bundle_row == last || b->captures[i]->bundle_row == 0)
			continue; /* captures of a bundle stand together */
		last = b->captures[i]->bundle_row;
		CEDE_TRY(ledger_bundle_done(ledger, last, now, &done, reterr));
	}
	return CEDE_OK;
}

static void try_again(struct flow *flow, struct disposal **capture) {
	struct disposal *d = CEDE_TAKE(*capture);

	d->tries++;
	d->due_boot_ns = clock_boot_ns() + WIPE_AGAIN_NS;
	append(flow, d);
}

static void wiped_done(struct flow *flow, void *ctx) {
	struct batch *b = ctx;

	flow->wipe_jobs--;
	for (size_t i = 0; i < b->count; i++) {
		const struct wipe_item *item = &b->items[i];
		struct disposal *d = b->captures[i];
		char id[ID_TEXT_SIZE];
		id_print(&d->id, id);
		switch (item->outcome) {
		case WIPE_DONE:
			flow->figures.wiped++;
			flow->figures.wiped_below += item->level < WIPE_OVERWRITTEN_CURRENT &&
				flow->policy->sources[d->source].wipe_require ==
					WIPE_REQUIRE_OVERWRITTEN;
			break;
		case WIPE_ABSENT:
			flow->figures.wiped += d->begun;
			flow->figures.gone += !d->begun;
			break;
		case WIPE_REPLACED:
			flow->figures.replaced++;
			log_event(LOG_LEVEL_WARNING, "capture.replaced",
				"capture=%s reason=changed-since-sealed effect=\"not wiped; handed over again as a new capture\"",
				id);
			intake_look(flow, d->source, d->path, 0);
			break;
		case WIPE_FAILED:
			flow->figures.wipe_failures++;
			log_event(LOG_LEVEL_ERROR, "wipe.failed", "capture=%s error=\"%s\"", id,
				item->err.text);
			d->begun = true; /* what is there may be overwritten in part */
			try_again(flow, &b->captures[i]);
			break;
		case WIPE_HELD:
			flow->figures.kept++;
			break;
		case WIPE_BUSY:
			try_again(flow, &b->captures[i]);
			break;
		}
	}
	disposal_run(flow);
}

static void wipe_work(void *ctx) {
	struct batch *b = ctx;

	b->result = wipe_batch(b->items, b->count, &b->err);
}

static void wipe_done(void *ctx) {
	struct batch *b = ctx;
	struct flow *flow = b->flow;

	if (b->result < 0) { /* nothing was touched */
		log_event(LOG_LEVEL_ERROR, "wipe.failed", "error=\"%s\"", b->err.text);
		for (size_t i = 0; i < b->count; i++)
			b->items[i].outcome = WIPE_BUSY;
	}
	flow_record(flow, wiped_work, wiped_done, batch_release, b);
}

static struct batch *batch_new(struct flow *flow) {
	struct batch *b = calloc(1, sizeof *b);

	if (b == NULL)
		return NULL;
	b->flow = flow;
	b->captures = calloc(WIPE_BATCH, sizeof(struct disposal *));
	b->items = calloc(WIPE_BATCH, sizeof *b->items);
	if (b->captures == NULL || b->items == NULL) {
		free(b->captures);
		free(b->items);
		free(b);
		return NULL;
	}
	return b;
}

/* The hold that covers it now; the name is copied, the wipe outlives no policy but its own. */
static bool is_held(const struct flow *flow, struct disposal *d) {
	const struct policy_hold *hold =
		hold_of(flow->policy, slice_str(flow->policy->sources[d->source].name),
			slice_str(d->path), d->born_ns, clock_wall_ns());

	(void)snprintf(d->hold, sizeof d->hold, "%s", hold == NULL ? "" : hold->id);
	return hold != NULL;
}

/* Moves what is due from the waiting list into the batch. */
static void fill(struct flow *flow, struct batch *b) {
	struct disposal **at = &flow->disposals;
	int64_t now = clock_boot_ns();

	while (*at != NULL && b->count < WIPE_BATCH) {
		struct disposal *d = *at;
		if (d->due_boot_ns > now || flow->sources[d->source].fd < 0) {
			at = &d->next;
			continue;
		}
		*at = d->next;
		flow->disposal_count--;
		b->items[b->count] = (struct wipe_item){.source_fd = flow->sources[d->source].fd,
			.path = d->path,
			.want = d->identity,
			.begun = d->begun,
			.held = is_held(flow, d)};
		memcpy(b->items[b->count].sha256, d->sha256, sizeof d->sha256);
		b->captures[b->count++] = d;
	}
	while (*at != NULL) /* to the end: where the next is appended */
		at = &(*at)->next;
	flow->disposals_end = at;
}

/* false: nothing is due, or no memory: the tick tries again. */
static bool start_batch(struct flow *flow) {
	struct batch *b = batch_new(flow);

	if (b == NULL)
		return false;
	fill(flow, b);
	if (b->count == 0) {
		batch_release(b);
		return false;
	}
	flow->wipe_jobs++;
	if (jobs_start(&flow->jobs, wipe_work, wipe_done, b, &b->err) < 0) {
		b->result = CEDE_ERR_IO;
		wipe_done(b);
	}
	return true;
}

void disposal_run(struct flow *flow) {
	if (flow->stopping || flow->failed || flow_expired(flow))
		return;
	while (flow->disposals != NULL && flow->wipe_jobs < WIPE_JOBS && start_batch(flow))
		;
}

void disposal_free(struct flow *flow) {
	while (flow->disposals != NULL) {
		struct disposal *d = flow->disposals;
		flow->disposals = d->next;
		disposal_drop(d);
	}
}

/* ---- captures that are wiped for another reason than a receipt of this moment */

struct release { /* captures on their way to WIPING */
	struct flow *flow;
	struct ledger_capture *list; /* path and source in one block each */
	size_t count;
	bool expire;
};

static void release_clear(struct release *r) {
	for (size_t i = 0; i < r->count; i++)
		free((void *)(uintptr_t)r->list[i].path.data);
	r->count = 0;
}

static int release_keep(struct release *r, const struct ledger_capture *c, struct cede_error *reterr) {
	char *block = malloc(c->path.len + c->source.len + 2);

	if (block == NULL)
		return CEDE_FAIL_MEMORY(reterr);
	memcpy(block, c->path.data, c->path.len);
	block[c->path.len] = 0;
	memcpy(block + c->path.len + 1, c->source.data, c->source.len);
	block[c->path.len + 1 + c->source.len] = 0;
	r->list[r->count] = *c;
	r->list[r->count].path = slice_of(block, c->path.len);
	r->list[r->count].source = slice_of(block + c->path.len + 1, c->source.len);
	r->list[r->count].group = SLICE_NONE;
	r->count++;
	return CEDE_OK;
}

/* One that no hold covers; a source that the policy no longer has keeps what it has. */
static int release_one(void *ctx, const struct ledger_capture *c, struct cede_error *reterr) {
	struct release *r = ctx;
	size_t source;

	if (r->count == WIPE_BATCH)
		return 1; /* enough: the rest next time */
	if (!flow_source_named(r->flow, c->source, &source) ||
		hold_of(r->flow->policy, c->source, c->path, c->born_ns, clock_wall_ns()) != NULL)
		return CEDE_OK;
	return release_keep(r, c, reterr);
}

static int expired_captures(
	struct ledger *ledger, struct release *r, int64_t now, struct cede_error *reterr) {
	const struct policy *policy = r->flow->policy;

	for (size_t i = 0; i < policy->source_count; i++)
		if (policy->sources[i].at_max_age == AT_MAX_AGE_DESTROY)
			CEDE_TRY(ledger_past_deadline(ledger, slice_str(policy->sources[i].name),
				now, release_one, r, reterr));
	return CEDE_OK;
}

static int release_work(struct ledger *ledger, void *ctx, struct cede_error *reterr) {
	struct release *r = ctx;
	int64_t now = clock_wall_ns();

	release_clear(r); /* of a first try */
	if (r->expire)
		CEDE_TRY(expired_captures(ledger, r, now, reterr));
	else
		CEDE_TRY(ledger_captures(ledger, CAPTURE_HELD, release_one, r, reterr));
	for (size_t i = 0; i < r->count; i++)
		CEDE_TRY(r->expire ? ledger_capture_destroying(ledger, r->list[i].row, now, reterr)
				   : ledger_hold_lifted(ledger, r->list[i].row, now, reterr));
	return CEDE_OK;
}

static void release_done(struct flow *flow, void *ctx) {
	struct release *r = ctx;
	struct cede_error err = {0};

	if (r->expire)
		flow->figures.destroyed += r->count;
	for (size_t i = 0; i < r->count; i++) {
		if (disposal_add(flow, &r->list[i], false, true, &err) < 0)
			log_event(LOG_LEVEL_ERROR, "wipe.deferred", "error=\"%s\"", err.text);
	}
	if (r->count == WIPE_BATCH && r->expire)
		flow->expire_boot_ns = 0;
	else if (r->count == WIPE_BATCH)
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
	release_clear(r);
	free(r->list);
	free(r);
	flow_settled(flow);
}

static bool release_start(struct flow *flow, bool expire) {
	struct release *r = calloc(1, sizeof *r);

	if (r == NULL || (r->list = calloc(WIPE_BATCH, sizeof *r->list)) == NULL) {
		free(r);
		return false; /* the tick tries again */
	}
	r->flow = flow;
	r->expire = expire;
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

void disposal_lift(struct flow *flow) {
	if (flow->lifting || flow->stopping || flow->failed || flow_expired(flow))
		return;
	flow->lift_ns = next_end(flow->policy, clock_wall_ns());
	flow->lifting = release_start(flow, false);
}

void disposal_expire(struct flow *flow) {
	bool wanted = false;

	for (size_t i = 0; i < flow->policy->source_count; i++)
		wanted = wanted || flow->policy->sources[i].at_max_age == AT_MAX_AGE_DESTROY;
	if (!wanted || flow->expiring || flow->stopping || flow->failed || flow_expired(flow))
		return;
	flow->expire_boot_ns = clock_boot_ns() + EXPIRE_NS;
	flow->expiring = release_start(flow, true);
}

void disposal_tick(struct flow *flow) {
	if (clock_wall_ns() >= flow->lift_ns)
		disposal_lift(flow);
	if (clock_boot_ns() >= flow->expire_boot_ns)
		disposal_expire(flow);
	disposal_run(flow);
}
