/* SPDX-License-Identifier: Apache-2.0
 * What the keeper may do (base/sandbox.h): no network, no program started, files only below the
 * sources, the state directory and where the policy and the keys are.
 *
 * Owns    copies of the paths.
 * Promise a policy whose sources lie elsewhere is told from one that can take over without a restart:
 *         what was given up can't be had back.
 *         A rule is for the directory that was at its path at the start, not for the path.
 * Thread  the first one, before any other is there; afterwards immutable. */
#pragma once

#include "agent/config.h"
#include "base/sandbox.h"
#include "policy/policy.h"

struct profile;

extern const struct sandbox_call *const keeper_calls[];
extern const uint64_t keeper_capabilities;

/* policy_path: as given to `cede run`; it is read again when another policy comes. */
CEDE_MUST_USE int profile_new(const struct policy *policy, const struct agent_config *config,
	const char *policy_path, struct profile **ret, struct cede_error *reterr);
CEDE_MUST_USE int profile_enter(
	const struct profile *p, struct sandbox_report *report, struct cede_error *reterr);
/* REFUSED, with the mend: a source of this policy lies where the sandbox lets nobody in. */
CEDE_MUST_USE int profile_allows(const struct profile *p, const struct sandbox_report *report,
	const struct policy *policy, struct cede_error *reterr);
/* REFUSED, with the mend: what is at the source's path now is not below any directory that this
 * process let itself into (a file system was mounted above it). */
CEDE_MUST_USE int profile_reaches(const struct profile *p, const struct sandbox_report *report,
	const struct policy_source *source, struct cede_error *reterr);
/* REFUSED: the policy requires a layer that this process does not have. */
CEDE_MUST_USE int profile_satisfies(const struct sandbox_report *report,
	const struct policy *policy, struct cede_error *reterr);
void profile_free(struct profile *p); /* NULL allowed */
