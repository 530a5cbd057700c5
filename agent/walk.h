/* SPDX-License-Identifier: Apache-2.0
 * Walks everything beneath a source, file by file, without keeping the files in memory.
 *
 * Promise no symbolic link is followed, no mount point crossed; nothing changes, access times
 *         included where the system allows it. Memory and descriptors grow with the depth only,
 *         which is bounded.
 * Thread  any; one walk belongs to one thread.
 * Fails   what cannot be entered is handed to on_trouble and the walk goes on; a negative return of
 * a callback ends it with that code. */
#pragma once

#include "base/error.h"

#define WALK_PATH_MAX  4096 /* bytes of a path relative to the source, with its NUL */
#define WALK_DEPTH_MAX 128  /* directories below the source, a descriptor each */

struct walk {
	/* Each entry that is no directory: its name in the open directory dirfd, and its path
	 * relative to the source. */
	int (*on_file)(void *ctx, int dirfd, const char *name, const char *path,
		struct cede_error *reterr);
	/* A directory (path, "" for the source itself) that is left out, and why. */
	int (*on_trouble)(void *ctx, const char *path, const struct cede_error *why,
		struct cede_error *reterr);
	void *ctx;
};

CEDE_MUST_USE int walk_source(
	int source_fd /* borrowed */, const struct walk *walk, struct cede_error *reterr);
