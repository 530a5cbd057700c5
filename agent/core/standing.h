/* SPDX-License-Identifier: Apache-2.0
 * How the agent stands now: gathers what the flow, the policy in force and the process know, for
 * the metrics page and for whoever asks on the status socket (core/answer.h).
 *
 * Thread  loop thread. */
#pragma once

#include "agent/core/inforce.h"
#include "agent/core/meters.h"
#include "base/sandbox.h"

struct standing {
	/* the keeper keeps these up to date */
	uint64_t reloads, bad_reloads;
	bool reload_failed;
	int64_t reload_ns;
	bool identity_invalid;
	const struct sandbox_report *sandbox; /* borrowed */
	const char *host;                     /* of the policy in force's inforce */
	/* made by standing_take(), valid until the next */
	struct meters meters;
	struct figures figures;
	/* its own */
	int state_fd;
	struct process_probe *probe;
};

/* Before the sandbox: what it reads later is opened here. */
CEDE_MUST_USE int standing_new(const char *state_dir,
	const struct sandbox_report *sandbox /* borrowed */, struct standing **ret,
	struct cede_error *reterr);
void standing_free(struct standing *s); /* NULL allowed */
/* link may be NULL (being closed). */
void standing_take(struct standing *s, const struct flow *flow, const struct inforce *inforce,
	const struct link *link);
