/* SPDX-License-Identifier: Apache-2.0
 * The programs that may open captures: path and user from the policy, and the files that were found
 * there, by device and inode. Each found file is kept open (O_PATH), so that its inode can't become
 * another file's while a process may still run it.
 *
 * Promise a package upgrade needs no restart: allowed_refresh() finds the new file; processes that
 *         still run the former one stay allowed. A file that others than root can replace or write
 *         is not taken, and one that was taken is let go at the next refresh after it became so.
 * Thread  refresh waits on the disk: one thread at a time. has() does not; the caller keeps the two
 *         apart with `lock`. */
#pragma once

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "agent/guard/who.h"
#include "base/error.h"

#define ALLOWED_MAX    32
#define ALLOWED_FORMER 4 /* files of one program: the present one, and those it replaced */

struct allowed_file {
	int fd; /* O_PATH */
	uint64_t dev, ino;
};

struct allowed_program {
	char *path;
	char *user;
	uint32_t uid;                              /* UINT32_MAX: not looked up yet */
	struct allowed_file files[ALLOWED_FORMER]; /* newest first */
	size_t count;
	bool found;    /* by the last refresh */
	char why[160]; /* not found: the reason that was said */
};

struct allowed {
	struct allowed_program list[ALLOWED_MAX];
	size_t count;
};

void allowed_done(struct allowed *a);
CEDE_MUST_USE int allowed_add(
	struct allowed *a, const char *user, const char *path, struct cede_error *reterr);
/* The users' numbers. INPUT: there is no such user. May wait, for a directory service too. */
CEDE_MUST_USE int allowed_find_users(struct allowed *a, struct cede_error *reterr);
/* Looks what is at each path now. Called without the lock, which it takes to change a. Says in the
 * log what changed. */
void allowed_refresh(struct allowed *a, pthread_mutex_t *lock);
bool allowed_has(const struct allowed *a, const struct who *who);
/* Programs that the last refresh did not find, or did not take. */
size_t allowed_missing(const struct allowed *a);
