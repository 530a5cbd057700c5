/* SPDX-License-Identifier: Apache-2.0
 * What can be seen of a name without opening it: the facts that decide() wants. The agent and the
 * dry run gather them here.
 *
 * Promise stays beneath the source: no symlink is followed, no mount point crossed (I6).
 * Thread  any; blocking. */
#pragma once

#include "base/file.h"
#include "policy/decide.h"

/* Of a name in an open directory; path is its path relative to the source. IO with sys ENOENT or
 * ENOTDIR: gone. REFUSED: the path leads out of the source. In a grouped source group_there,
 * group_changed_ns and group_since_ns say whether every required ending is there as a regular file,
 * when the last of the others changed (as far as can be believed now), and since when the earliest
 * member has been unchanged. ret->path is borrowed from path; ret->open_for_writing and
 * ret->group_open are false: that takes an open. */
CEDE_MUST_USE int facts_at(int dirfd, const char *name, const char *path,
	const struct policy_source *source, int64_t now_ns, struct decide_facts *ret,
	struct file_identity *ret_identity, struct cede_error *reterr);
/* The last part of a path. */
const char *facts_name(const char *path);
/* The directory of a path beneath the source: *ret_fd, which is to be closed as *ret_own_fd, or is
 * source_fd itself and *ret_own_fd is -1. */
CEDE_MUST_USE int facts_open_parent(
	int source_fd, const char *path, int *ret_own_fd, int *ret_fd, struct cede_error *reterr);
/* facts_at() of a path beneath the source, whose directory is opened for it. */
CEDE_MUST_USE int facts_of(int source_fd, const char *path, const struct policy_source *source,
	int64_t now_ns, struct decide_facts *ret, struct file_identity *ret_identity,
	struct cede_error *reterr);
