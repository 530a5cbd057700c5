/* SPDX-License-Identifier: Apache-2.0
 * Looks at one name and asks the policy what to do with it now: facts (watch/facts.h), whether a
 * program has it open for writing (a read lease tells), then decide(). What a scan and a settled
 * event find comes out the same way.
 *
 * Thread  any; blocking. */
#pragma once

#include "base/file.h"
#include "policy/decide.h"

struct finding {
	size_t source;
	char *path; /* relative to the source */
	struct file_identity identity;
	struct decision decision;
	bool gone; /* no file has the name; nothing else is set */
};

struct findings {
	struct finding *items;
	size_t count;
	size_t room;
};

void findings_done(struct findings *f); /* frees the items; usable again */

/* A name that is gone is said to be. In a grouped source that is ready, the members that the policy
 * requires are looked at as well and added with it; while one of them is not complete, all wait. */
CEDE_MUST_USE int check_path(const struct policy *policy, size_t source, int source_fd,
	const char *path, int64_t now_ns, struct findings *out, struct cede_error *reterr);
/* Adds a name as refused for a reason that was seen elsewhere (a mount point met by a scan). */
CEDE_MUST_USE int check_refused(size_t source, const char *path, enum reason reason,
	struct findings *out, struct cede_error *reterr);
