/* SPDX-License-Identifier: Apache-2.0
 * The keeper's life: the start list, the loop, the signals, the drain.
 *
 * Promise a failure before "agent.ready" ends the process with the reason and nothing touched.
 * SIGTERM and SIGINT: nothing new is begun, what is under way gets DRAIN_MS, then it stops within 5
 * s. Fails   INPUT (policy, configuration, keys), REFUSED (keys that others can read), BUSY
 * (another agent uses the state directory), IO. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"

struct keeper_emptying {
	int64_t limit_ns;
	char left[1024]; /* out: what is not handed over and wiped, in words; "": nothing */
};

struct keeper_options {
	const char *policy;  /* path of policy.yaml */
	const char *config;  /* path of agent.yaml */
	bool is_unsigned;    /* no signature of the policy is asked for */
	const char *courier; /* path of cede-courier, or NULL: found beside this program */
	/* Stops by itself once nothing is left to hand over or to wipe, or after limit_ns; NULL:
	 * runs until it is told to stop. Told so before: what is left then is in `left`. */
	struct keeper_emptying *emptying;
};

/* Runs until it is told to stop. The text of an error has been printed to stderr already when it
 * returns INPUT with several lines; otherwise it is in reterr. */
CEDE_MUST_USE int keeper_run(const struct keeper_options *options, struct cede_error *reterr);
