/* SPDX-License-Identifier: Apache-2.0
 * Is this host able to keep its promises? A table of checks; each line says what it looked at, how
 * that stands, and what to do about it.
 *
 * Promise reads only, but for a short-lived connection to each destination (a question for a bundle
 *         that nobody has: nothing is left behind at the agency), and no name of a capture is said.
 * Thread  the first one, before any other is there. */
#pragma once

#include <stdbool.h>

#include "base/error.h"

enum doctor_verdict {
	DOCTOR_OK,
	DOCTOR_WEAK,   /* works, and a promise is weaker than it could be, or soon will be */
	DOCTOR_BROKEN, /* a promise is not kept on this host */
};

const char *doctor_verdict_name(enum doctor_verdict verdict); /* "ok" "weak" "broken" */

struct doctor_finding {
	const char *check;   /* stable identifier: "storage", "clock" ... */
	const char *subject; /* a source, a destination, a file of the administrator, or "" */
	enum doctor_verdict verdict;
	const char *text;
	const char *mend; /* "" when ok */
};

struct doctor_options {
	const char *policy, *config;
	const char *courier; /* or NULL */
	bool is_unsigned;
	bool offline; /* destinations are not connected to */
	void *ctx;
	/* texts are borrowed for the call */
	void (*found)(void *ctx, const struct doctor_finding *finding);
};

/* *ret_worst of all findings. INPUT: agent.yaml can't be read: there is nothing to look at. */
CEDE_MUST_USE int doctor_run(const struct doctor_options *options, enum doctor_verdict *ret_worst,
	struct cede_error *reterr);
