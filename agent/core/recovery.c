/* SPDX-License-Identifier: Apache-2.0 */
/* What an earlier process, or the flow of the policy before, had begun. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent/core/flow_internal.h"
#include "agent/seal/spool.h"
#include "base/clock.h"
#include "base/log.h"
#include "version.h"

struct recovery {
	struct flow *flow;
	struct ledger *ledger;         /* while its work is done */
	struct ledger_bundle *bundles; /* SEALED; destination points into one block each */
	size_t bundle_count;
	struct capture_list captures; /* WIPING */
	bool untouched;               /* some of them, as the one before said when it stopped */
};

static void recovery_clear(struct recovery *r) {
	for (size_t i = 0; i < r->bundle_count; i++)
		free((void *)(uintptr_t)r->bundles[i].destination.data);
	free(r->bundles);
	r->bundles = NULL;
	r->bundle_count = 0;
	capture_list_done(&r->captures);
}

static void recovery_release(void *ctx) {
	struct recovery *r = ctx;

	recovery_clear(r);
	free(r);
}

static int copy_slice(struct slice *s, struct cede_error *reterr) {
	uint8_t *copy = malloc(s->len + 1);

	if (copy == NULL)
		return CEDE_FAIL_MEMORY(reterr);
	if (s->len > 0)
		memcpy(copy, s->data, s->len);
	copy[s->len] = 0;
	*s = slice_of(copy, s->len);
	return CEDE_OK;
}

static int recover_bundle(void *ctx, const struct ledger_bundle *b, struct cede_error *reterr) {
	struct recovery *r = ctx;
	struct ledger_bundle *list = reallocarray(r->bundles, r->bundle_count + 1, sizeof *list);

	if (list == NULL)
		return CEDE_FAIL_MEMORY(reterr);
	r->bundles = list;
	list[r->bundle_count] = *b;
	CEDE_TRY(copy_slice(&list[r->bundle_count].destination, reterr));
	r->bundle_count++;
	return CEDE_OK;
}

struct rows {
	int64_t *row;
	size_t count;
};

static int collect_row(void *ctx, const struct ledger_bundle *b, struct cede_error *reterr) {
	struct rows *r = ctx;
	int64_t *list = reallocarray(r->row, r->count + 1, sizeof *list);

	if (list == NULL)
		return CEDE_FAIL_MEMORY(reterr);
	r->row = list;
	list[r->count++] = b->row;
	return CEDE_OK;
}

/* Receipted bundles whose last capture was wiped just before the end. */
static int finish_receipted(struct ledger *ledger, int64_t now, struct cede_error *reterr) {
	struct rows rows = {0};
	int r = ledger_bundles(ledger, BUNDLE_RECEIPTED, collect_row, &rows, reterr);

	for (size_t i = 0; r == CEDE_OK && i < rows.count; i++) {
		bool done;
		r = ledger_bundle_done(ledger, rows.row[i], now, &done, reterr);
	}
	free(rows.row);
	return r;
}

/* Each policy that comes into force, once. */
static int record_policy(
	struct ledger *ledger, const struct flow *flow, int64_t now, struct cede_error *reterr) {
	const struct policy *policy = flow->policy;
	struct ledger_policy last;
	struct ledger_policy p = {.id = slice_str(policy->id),
		.serial = policy->serial,
		.is_signed = flow->setup.is_signed};
	bool there;

	memcpy(p.sha256, policy->sha256, sizeof p.sha256);
	memcpy(p.signer, flow->setup.signer, sizeof p.signer);
	CEDE_TRY(ledger_policy_last(ledger, &last, &there, reterr));
	if (there && last.is_signed == p.is_signed && memcmp(last.sha256, p.sha256, 32) == 0)
		return CEDE_OK;
	return ledger_policy_loaded(ledger, &p, now, reterr);
}

/* Before anything is compared with what the ledger knows of it. */
static int opened_sources(
	struct ledger *ledger, const struct flow *flow, int64_t now, struct cede_error *reterr) {
	for (size_t i = 0; i < flow->policy->source_count; i++) {
		struct file_place place;
		if (flow->sources[i].fd < 0)
			continue; /* when it comes */
		CEDE_TRY(file_place_of(flow->sources[i].fd, &place, reterr));
		CEDE_TRY(ledger_source_opened(
			ledger, slice_str(flow->sources[i].key), &place, now, reterr));
	}
	(void)ledger_take_remount(ledger); /* what is to be wiped is read after this */
	return CEDE_OK;
}

/* Keys that are others than when the ledger last heard of them. */
static int record_keys(
	struct ledger *ledger, const struct flow *flow, int64_t now, struct cede_error *reterr) {
	CEDE_TRY(ledger_key_seen(ledger, "identity", flow->setup.identity, now, reterr));
	for (size_t i = 0; i < flow->policy->destination_count; i++) {
		const struct flow_destination_keys *keys = &flow->setup.keys[i];
		char role[320];
		(void)snprintf(role, sizeof role, "seal:%s", flow->policy->destinations[i].name);
		CEDE_TRY(ledger_key_seen(ledger, role, keys->seal_digest, now, reterr));
		(void)snprintf(role, sizeof role, "receipts:%s", flow->policy->destinations[i].name);
		CEDE_TRY(ledger_key_seen(ledger, role, keys->receipts_digest, now, reterr));
	}
	return CEDE_OK;
}

/* What an earlier process was to wipe. */
static int recover_wiping(void *ctx, const struct ledger_capture *c, struct cede_error *reterr) {
	struct recovery *r = ctx;

	CEDE_TRY(ledger_must_be_proven(r->ledger, c->row, reterr));
	r->untouched = r->untouched || ledger_is_untouched(c);
	return capture_list_add(&r->captures, c, reterr);
}

static int begin_work(struct ledger *ledger, void *ctx, struct cede_error *reterr) {
	const struct flow *flow = ctx;
	bool succeeds = flow->setup.predecessor != NULL;
	int64_t now = clock_wall_ns();
	char detail[300];

	(void)snprintf(detail, sizeof detail, "version=%s host=%s policy=%s serial=%llu",
		CEDE_VERSION, flow->setup.host, flow->policy->id,
		(unsigned long long)flow->policy->serial);
	if (!succeeds)
		CEDE_TRY(ledger_gap(ledger, now, reterr));
	if (!succeeds)
		CEDE_TRY(ledger_event(ledger, LEDGER_AGENT_STARTED, NULL, now, detail, reterr));
	CEDE_TRY(ledger_recover(ledger, reterr)); /* what was being read is decided anew as well */
	CEDE_TRY(record_policy(ledger, flow, now, reterr));
	return record_keys(ledger, flow, now, reterr);
}

void recovery_begin(struct flow *flow) {
	flow_record(flow, begin_work, NULL, NULL, flow);
}

static int recover_work(struct ledger *ledger, void *ctx, struct cede_error *reterr) {
	struct recovery *r = ctx;
	int64_t now = clock_wall_ns();

	recovery_clear(r); /* of a first try */
	CEDE_TRY(opened_sources(ledger, r->flow, now, reterr));
	CEDE_TRY(finish_receipted(ledger, now, reterr));
	CEDE_TRY(ledger_bundles(ledger, BUNDLE_SEALED, recover_bundle, r, reterr));
	r->ledger = ledger;
	CEDE_TRY(ledger_captures(ledger, CAPTURE_WIPING, recover_wiping, r, reterr));
	return r->untouched ? ledger_wipes_begin(ledger, reterr) : CEDE_OK;
}

static bool is_wanted(void *ctx, const struct id *bundle) {
	const struct recovery *r = ctx;

	for (size_t i = 0; i < r->bundle_count; i++)
		if (r->bundles[i].spooled && id_equal(&r->bundles[i].id, bundle))
			return true;
	return false;
}

static int by_row(const void *a, const void *b) {
	int64_t x = *(const int64_t *)a;
	int64_t y = *(const int64_t *)b;

	return (x > y) - (x < y);
}

static void recover_wipe(struct flow *flow, const struct ledger_capture *c) {
	bool begun = !ledger_is_untouched(c) &&
		(flow->unbegun_count == 0 ||
			bsearch(&c->row, flow->unbegun, flow->unbegun_count, sizeof c->row,
				by_row) == NULL);

	disposal_add(flow, c, begun, begun);
}

/* What the predecessor was to wipe and had not touched. */
int recovery_inherit(struct flow *flow, struct flow *from, struct cede_error *reterr) {
	flow->unbegun = disposal_untouched(from, &flow->unbegun_count);
	return flow->unbegun != NULL ? CEDE_OK : CEDE_FAIL_MEMORY(reterr);
}

static void recovered(struct flow *flow, void *ctx) {
	struct recovery *r = ctx;
	struct cede_error err = {0};
	size_t removed = 0;

	if (spool_sweep(flow->setup.spool_fd, is_wanted, r, &removed, &err) < 0)
		log_event(LOG_LEVEL_WARNING, "spool.sweep", "error=\"%s\"", err.text);
	for (size_t i = 0; i < r->bundle_count; i++)
		outbox_adopt(flow, &r->bundles[i]);
	if (flow->unbegun_count > 0)
		qsort(flow->unbegun, flow->unbegun_count, sizeof *flow->unbegun, by_row);
	for (size_t i = 0; i < r->captures.count; i++)
		recover_wipe(flow, &r->captures.items[i]);
	if (r->bundle_count + r->captures.count + removed > 0)
		log_event(LOG_LEVEL_INFO, "agent.recovered",
			"bundles=%zu wipes=%zu spool_leftovers=%zu", r->bundle_count,
			r->captures.count, removed);
	flow->running = true;
	flow->unbegun_count = 0;
	if (flow->stopping)
		return;
	release_lift(flow);
	names_start(flow);
	for (size_t i = 0; i < flow->policy->source_count; i++)
		intake_scan(flow, i, "");
	outbox_tick(flow);
	handover_tick(flow);
	flow->setup.recovered(flow->setup.ctx);
}

void recovery_start(struct flow *flow) {
	struct recovery *r = calloc(1, sizeof *r);

	if (r == NULL) {
		flow_fail(flow, "out of memory");
		return;
	}
	r->flow = flow;
	flow_record(flow, recover_work, recovered, recovery_release, r);
}
