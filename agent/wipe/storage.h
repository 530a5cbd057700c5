/* SPDX-License-Identifier: Apache-2.0
 * What overwriting an open file can achieve on the storage it is on: file system, mount options,
 * flags, extents (FIEMAP). Says only what can be seen from here; flash below the file system, and
 * the blocks that the file had earlier, can't be.
 *
 * Thread  any; a struct storage_mount belongs to its owner. */
#pragma once

#include <stdbool.h>

#include "agent/wipe/levels.h"
#include "base/error.h"

struct storage_extents; /* where the file's blocks are */

/* A mount, as far as it decides what overwriting there can achieve. */
struct storage_mount {
	int id;
	bool is_ext4;
	bool can_scrub; /* this process can empty its journal: agent/wipe/scrub.h */
	wipe_reasons reasons;
};

#define STORAGE_MOUNT_UNKNOWN ((struct storage_mount){.id = -1})

/* The mount that fd is on; *known is one that was looked at before, or unknown. */
void storage_mount_of(int fd, struct storage_mount *known);
/* Looks before the overwriting: the reasons why it would prove nothing; wipe_best() has the
 * verdict. mount: the one that fd is on. */
CEDE_MUST_USE int storage_look(int fd, const struct storage_mount *mount,
	struct storage_extents **ret, wipe_reasons *ret_reasons, struct cede_error *reterr);
/* Looks again after it was flushed: 0 if every block is where it was. */
wipe_reasons storage_compare(int fd, const struct storage_extents *before);
void storage_extents_free(struct storage_extents *extents); /* NULL allowed */
/* What a wipe can be worth for files in the directory, as far as the directory tells: the best
 * level, and the reasons against a better one. scrubs: the policy lets the journal be emptied. */
enum wipe_level storage_directory(int dirfd, bool scrubs, wipe_reasons *ret_reasons);
