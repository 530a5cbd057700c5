/* SPDX-License-Identifier: Apache-2.0
 * The lowest policy that this host may still take: the highest signed serial that it ever had. An
 * old policy can't come back, and a serial means one text.
 *
 * Thread  any. */
#pragma once

#include "agent/ledger/ledger.h"
#include "policy/policy.h"

struct floor {
	uint64_t serial; /* 0: none yet */
	uint8_t sha256[32];
};

CEDE_MUST_USE int floor_load(struct ledger *ledger, struct floor *ret, struct cede_error *reterr);
/* REFUSED: below it, or the same serial with another text. */
CEDE_MUST_USE int floor_check(
	const struct policy *policy, const struct floor *floor, struct cede_error *reterr);
