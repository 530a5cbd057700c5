/* SPDX-License-Identifier: Apache-2.0
 * A walk over a source (or one directory of it) on a thread of its own: watches each directory,
 * then lists it, checks each name, and hands the findings to the loop in batches. It waits for the
 * loop to take them: memory stays flat however large the tree is.
 *
 * Promise never follows a symlink, never crosses a mount point, never leaves the source (I6).
 * Thread  loop thread, but for the walk itself. */
#pragma once

#include <uv.h>

#include "agent/watch/check.h"
#include "agent/watch/tree.h"

#define SCAN_BATCH 2048

struct scan;

struct scan_result {
	struct cede_error err; /* code CEDE_OK if the walk reached everything */
	uint64_t files;        /* seen, whatever became of them */
	uint64_t directories;
	uint64_t failed; /* names or directories that could not be looked at */
	bool unwatched;  /* some directory has no inotify watch or its file system no events */
	int64_t took_ns;
	int fd; /* of the source directory as the scan opened it, or -1; the taker closes */
};

struct scan_events {
	void *ctx;
	/* Takes what f holds (leaves it empty). Returns false if it wants no more for now: the walk
	 * waits until scan_more(). */
	bool (*found)(void *ctx, struct findings *f);
	void (*ended)(void *ctx, size_t source, const char *path, struct scan_result *result);
};

/* path: "" for the whole source. dir_fd is its directory; -1: it is opened anew by the policy's
 * path. policy and dir_fd must outlive the scan. */
CEDE_MUST_USE int scan_start(uv_loop_t *loop, const struct policy *policy, size_t source,
	int dir_fd, const char *path, struct tree *tree, const struct scan_events *events,
	struct scan **ret, struct cede_error *reterr);
void scan_more(struct scan *scan);
/* Makes it end soon (ended() still comes, after which the scan is gone). */
void scan_stop(struct scan *scan);
