/* SPDX-License-Identifier: Apache-2.0
 * Whether this host can have the vault that a source asks for; for commands.
 *
 * Thread  any; blocking. */
#pragma once

#include "agent/config.h"
#include "policy/policy.h"

/* config may be NULL: then nothing is said of vault.key. make: the store is made, and a turn is
 * rehearsed in it with a key and directories of its own, which are gone afterwards; else nothing
 * is changed. The error says what is missing, and the mend. */
CEDE_MUST_USE int vault_host_check(const struct policy_source *source,
	const struct agent_config *config, bool make, struct cede_error *reterr);
/* Whether the source's vault.key is one that the service manager hands over to the agent alone: not
 * to be had here, so nothing was said of it. */
bool vault_host_key_is_handed_over(
	const struct policy_source *source, const struct agent_config *config);
