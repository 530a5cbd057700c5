/* SPDX-License-Identifier: Apache-2.0 */
#include <stdlib.h>

#include "agent/core/flow_internal.h"

struct question {
	struct flow *flow;
	flow_rest_fn *answer;
	void *ctx;
	bool at_rest;
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

static int rest_work(struct ledger *ledger, void *ctx, struct cede_error *reterr) {
	struct question *q = ctx;
	struct ledger_counts n;

	CEDE_TRY(ledger_count(ledger, &n, reterr));
	q->at_rest = n.captures[CAPTURE_READY] + n.captures[CAPTURE_BUNDLED] +
			n.captures[CAPTURE_SEALED] + n.captures[CAPTURE_WIPING] +
			n.captures[CAPTURE_SETTLING] + n.bundles[BUNDLE_SEALED] ==
		0;
	return CEDE_OK;
}

static void rest_done(struct flow *flow, void *ctx) {
	const struct question *q = ctx;

	(void)flow;
	q->answer(q->ctx, q->at_rest);
}

void flow_ask_rest(struct flow *flow, flow_rest_fn *answer, void *ctx) {
	struct question *q = seems_at_rest(flow) ? calloc(1, sizeof *q) : NULL;

	if (q == NULL) { /* without memory: asked again later */
		answer(ctx, false);
		return;
	}
	*q = (struct question){.flow = flow, .answer = answer, .ctx = ctx};
	flow_record(flow, rest_work, rest_done, free, q);
}
