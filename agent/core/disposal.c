/* SPDX-License-Identifier: Apache-2.0 */
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

int disposal_add(
	struct flow *flow, const struct ledger_capture *c, bool begun, struct cede_error *reterr) {
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
		.begun = begun};
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
		return ledger_capture_wiped(
			ledger, d->row, wipe_level_name(item->level), item->reason, now, reterr);
	case WIPE_ABSENT:
		if (d->begun) /* unlinked before the crash; the blocks were overwritten before that */
			return ledger_capture_wiped(ledger, d->row, wipe_level_name(WIPE_UNPROVEN),
				"interrupted", now, reterr);
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
		if (b->captures[i]->bundle_row == last)
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
			.begun = d->begun};
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
