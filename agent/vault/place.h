/* SPDX-License-Identifier: Apache-2.0
 * The directories of a vault: the one at the source's path, where programs write, and beside it the
 * store, <parent of the path>/.cede-vault/SOURCE, with those that were there before and are not
 * empty yet. In the store a directory has the name of its epoch; a new one is made there under the
 * name of the one whose place it takes, so that one exchange of the two makes both names right.
 *
 * Promise no file is moved or copied: what a program has open, or as its working directory, stays
 *         what it is. Nothing that is not empty is removed, but by place_clear(). Symlinks and
 *         mount points are never followed (I6).
 * Thread  any; blocking. */
#pragma once

#include <stddef.h>

#include "agent/vault/fscrypt.h"

#define PLACE_STORE       ".cede-vault"
#define PLACE_BEFORE      "before" /* the epoch that a directory without encryption is */
#define PLACE_DIRECTORIES 20000    /* below a source, at most: they are made anew at each turn */

struct place;

/* make: the store is made where it is not there. REFUSED: nothing can be exchanged here (the path
 * is a mount point, the file system can't), and why. */
CEDE_MUST_USE int place_open(const char *path, const char *source, bool make, struct place **ret,
	struct cede_error *reterr);
void place_close(struct place *p); /* NULL allowed */
void place_closep(struct place **p);
int place_store_fd(const struct place *p); /* borrowed; for the ioctls */
/* Whether path still leads into the directory that p was opened with. */
bool place_is_at(const struct place *p, const char *path);

/* The store and the directory above it, if nothing is in them. */
void place_drop_store(struct place *p, const char *source);

struct place_found {
	char name[FSCRYPT_ID_TEXT]; /* in the store; "" for the one at the path */
	int fd;                     /* the taker closes */
	bool encrypted;
	struct fscrypt_id id;
};

typedef int place_found_fn(void *ctx, struct place_found *found, struct cede_error *reterr);
/* The one at the path first (unless there is none), then those in the store. fn takes found->fd by
 * setting it to -1. */
CEDE_MUST_USE int place_list(
	struct place *p, place_found_fn *fn, void *ctx, struct cede_error *reterr);

/* Makes the next directory in the store under the name of the present one: encrypted under id,
 * whose key must be in the keyring (NULL: not encrypted), with owner, rights, ACL and directories
 * of the present one, like_fd. readable: its names can be read (its key is there); else directories
 * below it are not made. */
CEDE_MUST_USE int place_stage(struct place *p, const char *name, int like_fd, bool readable,
	const struct fscrypt_id *id, struct cede_error *reterr);
/* It takes the place at the path, and what was there gets the name; directories that were made in
 * the old one meanwhile are made in the new one. *ret_fd is the new one. With 0 it is done; if
 * something behind that failed, reterr says so all the same. BUSY: not like_fd is at the path but
 * another directory, which stays there. */
CEDE_MUST_USE int place_turn(struct place *p, const char *name, int like_fd, bool readable,
	int *ret_fd, struct cede_error *reterr);

struct place_rest {
	uint64_t files;   /* that are still there */
	uint64_t removed; /* of what may() let go */
	bool gone;        /* the directory is no more */
};

/* Called for each file that is left (its path below the directory): true if it may be unlinked. */
typedef bool place_may_fn(void *ctx, int dirfd, const char *name, const char *path);
/* Removes the directory of this name from the store if nothing but directories is in it: rmdir()
 * decides, so that a file that appears meanwhile keeps it. may: NULL for no file. fd is the
 * directory, open, or -1. */
CEDE_MUST_USE int place_remove(struct place *p, const char *name, place_may_fn *may, void *ctx,
	struct place_rest *ret, struct cede_error *reterr);
/* Calls may for each file below fd, until it says true: *ret. */
CEDE_MUST_USE int place_any(
	int fd, place_may_fn *may, void *ctx, bool *ret, struct cede_error *reterr);
/* Removes the directory with all that is in it, encrypted names included; how many files. */
CEDE_MUST_USE int place_clear(
	struct place *p, const char *name, uint64_t *ret_files, struct cede_error *reterr);
