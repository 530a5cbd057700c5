/* SPDX-License-Identifier: Apache-2.0
 * A policy from anybody: either a whole struct that can be decided with, or mistakes with places. */
#include <stdlib.h>

#include "base/check.h"
#include "base/cleanup.h"
#include "policy/decide.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void use(const struct policy *policy) {
	struct decide_facts facts = {.path = SLICE_LIT("lane/a.jpg"), .links = 1, .mtime_ns = 5};
	struct decide_known known = {0};

	for (size_t i = 0; i < policy->source_count; i++) {
		const struct policy_source *s = &policy->sources[i];
		struct decision d = decide(policy, s, &facts, &known, INT64_C(1800000000000000000));

		require(s->destination < policy->destination_count);
		require(s->match_count > 0 && s->max_age_ns > s->quiet_ns);
		require(d.reason < REASON_COUNT && d.rule.line > 0);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
	CLEANUP(policy_freep) struct policy *policy = NULL;
	struct policy_mistakes mistakes;
	struct cede_error err;

	int r = policy_parse(slice_of(data, size), "p", &policy, &mistakes, &err);
	require((r == CEDE_OK) == (policy != NULL));
	require(r != CEDE_ERR_INPUT || mistakes.count > 0);
	for (size_t i = 0; i < mistakes.count; i++)
		require(mistakes.lines[i][0] == 'p' && mistakes.lines[i][1] == ':');
	if (policy != NULL)
		use(policy);
	policy_mistakes_done(&mistakes);
	return 0;
}
