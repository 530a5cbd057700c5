/* SPDX-License-Identifier: Apache-2.0
 * The files that a policy names: are they there, and can they do what they are named for?
 *
 * Thread  any. */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "policy/policy.h"

struct policy_files_report {
	void *ctx;
	void (*mistake)(void *ctx, struct policy_where where, const char *text);
	/* works, and probably should not be so; may be NULL */
	void (*warning)(void *ctx, struct policy_where where, const char *text);
};

/* Loads each CA, sealing certificate and receipt key, relative to the policy's directory, and calls
 * mistake() for each that cannot be used, with the place of its destination. *ret_bad counts them. */
CEDE_MUST_USE int policy_files_check(const struct policy *policy, const char *policy_path,
	int64_t now_ns, const struct policy_files_report *report, size_t *ret_bad,
	struct cede_error *reterr);
