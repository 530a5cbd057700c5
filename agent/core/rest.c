/* SPDX-License-Identifier: Apache-2.0 */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent/core/epochs.h"
#include "agent/core/flow_internal.h"
#include "base/check.h"

/* ---- what is left, in words */

#define LEFT_SIZE 1024

struct left {
	char text[LEFT_SIZE]; /* what has no room in it is not said */
};

__attribute__((format(printf, 2, 3))) static void add(struct left *l, const char *format, ...) {
	char part[128];
	va_list arguments;

	va_start(arguments, format);
	(void)vsnprintf(part, sizeof part, format, arguments);
	va_end(arguments);
	size_t used = strlen(l->text);
	if (used + strlen(part) + 3 <= sizeof l->text)
		(void)snprintf(
			l->text + used, sizeof l->text - used, "%s%s", used == 0 ? "" : ", ", part);
}

static void add_count(struct left *l, uint64_t count, const char *what) {
	if (count > 0)
		add(l, "%llu %s", (unsigned long long)count, what);
}

static bool is_away(const struct flow *flow, size_t place) {
	const struct flow_source *s = &flow->sources[place];

	return !s->idle && !epochs_is_closed(flow, place) &&
		(s->fd < 0 || s->missing || s->elsewhere);
}

/* captures: in each state. bundles: sealed, and without a receipt. */
static void describe(
	struct left *l, const struct flow *flow, const uint64_t *captures, uint64_t bundles) {
	static const enum capture_state live[] = {CAPTURE_SETTLING, CAPTURE_READY, CAPTURE_BUNDLED,
		CAPTURE_SEALED, CAPTURE_WIPING, CAPTURE_HELD, CAPTURE_KEPT};
	struct flow_figures f = {0};

	for (size_t i = 0; i < ARRAY_LENGTH(live); i++)
		add_count(l, captures[live[i]], capture_state_name(live[i]));
	add_count(l, bundles, "bundles without a receipt");
	for (int r = 0; r < REASON_COUNT; r++) {
		uint64_t count = 0;
		for (size_t i = 0; i < flow->policy->source_count; i++)
			if (!flow->sources[i].idle)
				count += flow->sources[i].figures.left[r];
		add_count(l, count, reason_name((enum reason)r));
	}
	epochs_figures(flow, &f);
	add_count(l, f.vault_unavailable, "vaults unavailable");
	add_count(l, flow->figures.lost,
		"wiped and lost with a bundle that was taken out of the spool");
	add_count(l, flow->figures.vault_lost, "lost with the key of their vault");
	if (flow->figures.unwritten_ns != 0)
		add(l, "what came since the ledger can't be written");
	for (size_t i = 0; i < flow->policy->source_count; i++)
		if (is_away(flow, i))
			add(l, "what is in source %s, which is not there",
				flow->policy->sources[i].name);
}

/* ---- is anything left to do? */

struct question {
	struct flow *flow;
	flow_rest_fn *answer;
	void *ctx;
	struct ledger_counts counts;
};

static bool looked_at(const struct flow_source *s) {
	return s->fd < 0 || (s->scan == NULL && !s->scan_wanted && s->next_scan_boot_ns != INT64_MAX);
}

/* As far as memory tells; what waits in the ledger alone is asked for there. */
static bool seems_at_rest(const struct flow *flow) {
	if (!flow->running || flow->stopping || flow->failed || flow->jobs.running > 0 ||
		flow->recording > 0 || flow->disposals != NULL || settle_count(flow->settle) > 0)
		return false;
	for (size_t i = 0; i < flow->policy->source_count; i++)
		if (!looked_at(&flow->sources[i]))
			return false;
	for (size_t i = 0; i < flow->policy->destination_count; i++)
		if (flow->destinations[i].parcels != NULL || flow->destinations[i].taking > 0)
			return false;
	return true;
}

/* What stays is known from a whole scan: is one due before it can be said? */
static bool look_once_more(struct flow *flow) {
	bool due = false;

	for (size_t i = 0; i < flow->policy->source_count; i++) {
		struct flow_source *s = &flow->sources[i];
		if (s->idle || !s->unlisted || !flow_source_there(flow, i))
			continue;
		s->scan_wanted = true;
		due = true;
	}
	return due;
}

static int rest_work(struct ledger *ledger, void *ctx, struct cede_error *reterr) {
	struct question *q = ctx;

	return ledger_count(ledger, &q->counts, reterr);
}

static void rest_done(struct flow *flow, void *ctx) {
	const struct question *q = ctx;
	const uint64_t *n = q->counts.captures;
	struct left left = {0};

	describe(&left, flow, n, q->counts.bundles[BUNDLE_SEALED]);
	q->answer(q->ctx,
		n[CAPTURE_READY] + n[CAPTURE_BUNDLED] + n[CAPTURE_SEALED] + n[CAPTURE_WIPING] +
				n[CAPTURE_SETTLING] + q->counts.bundles[BUNDLE_SEALED] ==
			0,
		left.text);
}

/* Nothing is asked for: as of the last second. */
static void answer_busy(const struct flow *flow, flow_rest_fn *answer, void *ctx) {
	uint64_t captures[CAPTURE_STATE_COUNT] = {0};
	struct left left = {0};
	uint64_t bundles = 0;

	for (size_t i = 0; i < flow->policy->destination_count; i++)
		for (const struct parcel *p = flow->destinations[i].parcels; p != NULL; p = p->next)
			bundles++;
	for (size_t i = 0; i < flow->policy->source_count; i++)
		for (size_t state = 0; state < CAPTURE_STATE_COUNT; state++)
			captures[state] += flow->sources[i].figures.tally.files[state];
	describe(&left, flow, captures, bundles);
	if (left.text[0] == 0)
		add(&left, "what has just been found, or is not looked at yet");
	answer(ctx, false, left.text);
}

void flow_ask_rest(struct flow *flow, flow_rest_fn *answer, void *ctx) {
	struct question *q = NULL;

	if (seems_at_rest(flow) && !look_once_more(flow))
		q = calloc(1, sizeof *q);
	if (q == NULL) { /* without memory: asked again later */
		answer_busy(flow, answer, ctx);
		return;
	}
	*q = (struct question){.flow = flow, .answer = answer, .ctx = ctx};
	flow_record(flow, rest_work, rest_done, free, q);
}
