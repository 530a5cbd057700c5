/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/core/floor.h"

#include <inttypes.h>
#include <string.h>

#include "base/hex.h"

int floor_load(struct ledger *ledger, struct floor *ret, struct cede_error *reterr) {
	struct ledger_policy highest;
	bool there;

	*ret = (struct floor){.serial = 0};
	CEDE_TRY(ledger_policy_highest(ledger, &highest, &there, reterr));
	if (!there)
		return CEDE_OK;
	ret->serial = highest.serial;
	memcpy(ret->sha256, highest.sha256, sizeof ret->sha256);
	return CEDE_OK;
}

int floor_check(const struct policy *policy, const struct floor *floor, struct cede_error *reterr) {
	char sha256[65];

	if (policy->serial < floor->serial)
		return CEDE_FAIL(reterr, CEDE_ERR_REFUSED,
			"policy serial %" PRIu64 " is older than %" PRIu64
			", which this host has had: an old policy can't come back; get the newest from the agency",
			policy->serial, floor->serial);
	if (policy->serial > floor->serial || memcmp(policy->sha256, floor->sha256, 32) == 0)
		return CEDE_OK;
	hex_print(floor->sha256, 32, sha256);
	return CEDE_FAIL(reterr, CEDE_ERR_REFUSED,
		"policy serial %" PRIu64
		" was another text on this host (SHA-256 %.16s…): a changed policy needs a higher serial",
		policy->serial, sha256);
}
