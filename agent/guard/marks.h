/* SPDX-License-Identifier: Apache-2.0
 * Where fanotify asks us: for each source its whole file system, if the file system holds nothing
 * but sources; else each directory and file of the source, so that no open elsewhere on the
 * machine ever waits for us.
 *
 * Promise neither a hard link, a move out of the source, a subdirectory, a bind mount nor another
 *         mount of the file system leads around either kind; docs/guard.md has the one gap (a file
 *         that was moved in is marked a moment later) and why each kind was chosen.
 * Thread  all calls on the clerk's thread: they wait on the disk. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

#define MARKS_SOURCES_MAX 256
#define MARKS_BUCKETS     4096

enum mark_kind { MARK_NONE, MARK_FILE_SYSTEM, MARK_INODES };

struct marks_source {
	char *path;     /* as the policy has it */
	char *resolved; /* without symlinks; NULL: not there yet */
	char *store;    /* of the epochs that its vault has ended, or "" */
	enum mark_kind kind;
	uint64_t dev, ino;  /* of the directory that was marked */
	uint64_t store_ino; /* inodes: of the store that was marked; 0: none */
	int parent_wd;      /* inodes: watch of the directory that has its name; 0: none */
	bool whole;         /* inodes: the tree was walked, and nothing says it must be again */
	size_t parts;       /* inodes: files and subtrees that could not be marked, at least */
	char part_why[160]; /* of the first of them */
	int64_t walked_boot_ns;
	char why[200]; /* no mark, or not all: the reason that was said */
};

struct marks_watch; /* a directory of MARK_INODES, watched for what is moved into it */

struct marks {
	int fan;     /* borrowed */
	int inotify; /* -1: not needed yet */
	struct marks_source list[MARKS_SOURCES_MAX];
	size_t count;
	struct marks_watch *watches[MARKS_BUCKETS]; /* by wd: a source may have very many directories */
};

void marks_init(struct marks *m, int fan);
void marks_done(struct marks *m);
CEDE_MUST_USE int marks_add(
	struct marks *m, const char *path, const char *store, struct cede_error *reterr);
/* Marks what has no mark now: at start, each second, and when something was mounted. A source that
 * is not there is no failure: it is marked when it comes. */
void marks_set(struct marks *m);
/* The first source that is there and has no mark, with its reason; NULL: none. */
const struct marks_source *marks_failed(const struct marks *m);
/* Takes back the marks of the sources that `next` does not have. */
void marks_leave(struct marks *m, const struct marks *next);
/* What was moved into, or made in, directories of MARK_INODES: read from m->inotify. True:
 * marks_set() is to be called now, not only at the next second. */
bool marks_news(struct marks *m);
/* Sources that have no mark, or of which a part has none. */
size_t marks_lacking(const struct marks *m);
size_t marks_count(const struct marks *m, enum mark_kind kind);
/* The source that an absolute path lies in, and the name below it. */
bool marks_find(const struct marks *m, const char *path, size_t *ret_source, const char **ret_below);
/* Whether every entry of the directory at `top` is one of the sources, or leads to one. */
bool marks_only_sources(const char *top, const struct marks *m);
