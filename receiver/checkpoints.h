/* SPDX-License-Identifier: Apache-2.0
 * The checkpoints that the store keeps of a host (receiver/custody.h), read from the first to the
 * newest and verified with the key beside them. Each must be of more events than the one before it,
 * as they were taken.
 *
 * Promise memory does not grow with their number. The receiver wrote them under its own user:
 * whoever audits trusts the store or has no measure. Thread  one. */
#pragma once

#include <stdbool.h>

#include "base/error.h"
#include "formats/checkpoint.h"

struct checkpoints;
/* A host that never sent one has none. */
CEDE_MUST_USE int checkpoints_open(int host_dir, struct checkpoints **ret, struct cede_error *reterr);
void checkpoints_close(struct checkpoints *checkpoints); /* NULL allowed */
void checkpoints_closep(struct checkpoints **checkpoints);
/* *ret_there false: that was the newest. INPUT: this one is none, or out of its order; the next
 * call goes on behind it. */
CEDE_MUST_USE int checkpoints_next(struct checkpoints *checkpoints, struct checkpoint *ret,
	bool *ret_there, struct cede_error *reterr);
