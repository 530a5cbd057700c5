/* SPDX-License-Identifier: Apache-2.0
 * What the checks share. A check looks at one thing, says at least one line, and fails only where
 * the doctor itself can't go on. */
#pragma once

#include "agent/config.h"
#include "agent/doctor/doctor.h"
#include "agent/trust.h"

struct doctor {
	const struct doctor_options *options;
	struct agent_config *config;
	struct trusted_policy *trusted; /* NULL: it can't be used, and that was said */
	const struct policy *policy;    /* of trusted, or NULL */
	bool identity_works;
	enum doctor_verdict worst;
};

/* mend "": only with DOCTOR_OK. */
void doctor_say(struct doctor *d, const char *check, const char *subject,
	enum doctor_verdict verdict, const char *mend, const char *fmt, ...) CEDE_PRINTF(6, 7);

/* The mend of a failure to read: whoever may not read has to be another user first. */
const char *doctor_mend(const struct cede_error *err, const char *otherwise);

void check_policy(struct doctor *d);   /* loads it */
void check_identity(struct doctor *d); /* certificate and key */
void check_sources(struct doctor *d);  /* storage of each source */
void check_state(struct doctor *d);    /* the state directory, free space, what lies in a source */
void check_swap(struct doctor *d);
void check_core(struct doctor *d); /* core dumps */
void check_clock(struct doctor *d);
void check_watches(struct doctor *d); /* inotify's limits, descriptors */
void check_layers(struct doctor *d);  /* sandbox */
void check_guard(struct doctor *d);
void check_destinations(struct doctor *d); /* a real handshake with each */
