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
	struct decide_facts facts; /* path is lent from path */
	struct decision decision;
	bool beside; /* a member of the group of another name: has a finding of its own as well */
	bool gone; /* no file has the name; identity.dev is file_device_below(), nothing else is set */
};

struct findings {
	struct finding *items;
	size_t count;
	size_t room;
};

void findings_done(struct findings *f); /* frees the items; usable again */

struct check_place {
	size_t source;
	int source_fd;
	int dirfd; /* of the directory that the name is in */
};

/* Looks at an entry of an open directory; path is its path relative to the source. A name that is gone
 * is said to be. When one of a grouped source would go, the members that the
 * policy requires are looked at as well and added with it; each is decided with what is known of the others. */
CEDE_MUST_USE int check_entry(const struct policy *policy, const struct check_place *place,
	const char *path, int64_t now_ns, struct findings *out, struct cede_error *reterr);
/* The same, of a path whose directory is opened for it. */
CEDE_MUST_USE int check_path(const struct policy *policy, size_t source, int source_fd,
	const char *path, int64_t now_ns, struct findings *out, struct cede_error *reterr);
/* The reason to give for a name that could not be looked at, or a directory that could not
 * be opened: a mount point or symlink on the way, or what the system says. */
enum reason check_why(const struct cede_error *err);
/* Adds a name as refused for a reason that was seen elsewhere. */
CEDE_MUST_USE int check_later(size_t source, const char *path, int64_t not_before_ns,
	struct findings *out, struct cede_error *reterr); /* as one that waits */
CEDE_MUST_USE int check_refused(size_t source, const char *path, enum reason reason,
	struct findings *out, struct cede_error *reterr);
