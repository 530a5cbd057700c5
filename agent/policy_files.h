/* SPDX-License-Identifier: Apache-2.0
 * The files that a policy names: are they there, can they do what they are named for, and are they
 * the same as another policy's?
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

/* Either may end it with a negative return. key: "destinations.agency.seal_to[0].sha256", in the
 * manner of policy_keys(). */
struct policy_files_digests {
	void *ctx;
	int (*digest)(void *ctx, const char *key, const char *hex, struct cede_error *reterr);
	int (*unread)(void *ctx, const char *key, const struct cede_error *why,
		struct cede_error *reterr);
};

/* The SHA-256 of each file, in the order in which the policy names them; what they are good for is
 * not looked at. A file that can't be read goes to unread(). */
CEDE_MUST_USE int policy_files_digest(const struct policy *policy, const char *policy_path,
	const struct policy_files_digests *to, struct cede_error *reterr);
