/* SPDX-License-Identifier: Apache-2.0
 * A policy written out with every default: as YAML that loads again to the same policy, or as a
 * flat list of keys for comparing two.
 *
 * Thread  any. */
#pragma once

#include "base/buf.h"
#include "policy/policy.h"

CEDE_MUST_USE int policy_show(
	const struct policy *policy, struct buf *out, struct cede_error *reterr);

/* key: "sources.faces.max_age"; value as YAML writes it. A negative return ends the list. */
typedef int policy_key_fn(void *ctx, const char *key, const char *value, struct cede_error *reterr);
CEDE_MUST_USE int policy_keys(
	const struct policy *policy, policy_key_fn *fn, void *ctx, struct cede_error *reterr);

/* As the policy writes it. */
const char *wipe_require_name(enum wipe_require require);

#define SHOW_TEXT_SIZE 64
/* "15m" "1500ms": the largest unit that says it exactly. */
void show_duration(int64_t ns, char out[SHOW_TEXT_SIZE]);
/* "200Mbit/s" "64KiB/s" */
void show_rate(uint64_t bytes_per_s, char out[SHOW_TEXT_SIZE]);
/* "16MiB" */
void show_size(uint64_t bytes, char out[SHOW_TEXT_SIZE]);
