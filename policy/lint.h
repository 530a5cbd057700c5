/* SPDX-License-Identifier: Apache-2.0
 * What a policy may say and probably should not: warnings with their reasons, in order of place.
 * Only what is certain is said.
 *
 * Thread  pure. */
#pragma once

#include "policy/policy.h"

typedef void policy_warning_fn(void *ctx, struct policy_where where, const char *text);

void policy_lint(const struct policy *policy, int64_t now_ns, policy_warning_fn *warn, void *ctx);
/* Whether every path that b matches is matched by a as well. False: not known. */
bool pattern_covers(struct slice a, struct slice b);
