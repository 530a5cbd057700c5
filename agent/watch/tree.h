/* SPDX-License-Identifier: Apache-2.0
 * inotify over the whole tree of each source, on the loop.
 *
 * Promise a directory is watched before it is listed (agent/watch/scan.c does both), so that
 * nothing falls between. What inotify can't promise (queue overflow, no watches left, file systems
 *         without events) is said by `gap`, and a scan makes up for it.
 * Thread  tree_watch() any thread; the rest loop thread. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <uv.h>

#include "base/error.h"

struct tree;

enum tree_life {
	TREE_MADE,
	TREE_WRITTEN,
	TREE_CLOSED, /* after writing */
	TREE_LEFT,
	TREE_CAME,
	TREE_ENDED,
};

/* What happens to each file in a directory that is watched closely. */
struct tree_life_event {
	size_t source;
	const char *path;
	enum tree_life what;
	uint32_t cookie; /* the same for LEFT and CAME of one move */
	bool known; /* its directory was listed since it is watched: no name there escaped notice */
	int64_t since_ns; /* wall time before which it did not happen */
};

struct tree_events {
	void *ctx;
	/* A file was closed after writing, moved in, or linked; closed: its writer is done with it. */
	void (*file)(void *ctx, size_t source, const char *path, bool closed);
	/* A directory appeared (or was moved in): scan it. "" is the source's own directory. */
	void (*directory)(void *ctx, size_t source, const char *path);
	/* Events were lost: scan every source. */
	void (*gap)(void *ctx);
	/* Comes before file() of the same event. */
	void (*life)(void *ctx, const struct tree_life_event *e);
	/* A directory was moved away or went: what was below it has other names. */
	void (*moved)(void *ctx, size_t source, const char *path);
};

CEDE_MUST_USE int tree_new(uv_loop_t *loop, const struct tree_events *events, struct tree **ret,
	struct cede_error *reterr);
/* Watches the open directory dirfd, whose name relative to its source is path; closely: every life
 * in it is told, which costs an event for each write. BUSY: no watches are left
 * (fs.inotify.max_user_watches), the source must be polled. */
CEDE_MUST_USE int tree_watch(struct tree *t, size_t source, const char *path, int dirfd,
	bool closely, struct cede_error *reterr);
/* Hands over what has happened up to now. */
void tree_drain(struct tree *t);
/* All directories at and below path have been listed while they were watched. */
void tree_listed(struct tree *t, size_t source, const char *path);
size_t tree_watches(struct tree *t);
void tree_close(struct tree *t, void (*on_closed)(void *ctx), void *ctx);
