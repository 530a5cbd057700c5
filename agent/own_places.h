/* SPDX-License-Identifier: Apache-2.0
 * What the agent must never take for captures: its state, the policy, the host's keys and
 * certificate. Handed over and wiped like a picture, they would be lost.
 *
 * Thread  any. */
#pragma once

#include "agent/config.h"
#include "policy/policy.h"

/* REFUSED: the state directory and the source lie in each other, or the policy's directory or a
 * file that agent.yaml names lies in the source; the text names both, and the mend. Symbolic links
 * are followed; what is not there yet is looked for where it would be. */
CEDE_MUST_USE int own_places_check(const struct policy_source *source, const char *policy_path,
	const struct agent_config *config, struct cede_error *reterr);
/* The same for every source. */
CEDE_MUST_USE int own_places_check_all(const struct policy *policy, const char *policy_path,
	const struct agent_config *config, struct cede_error *reterr);
