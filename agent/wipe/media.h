/* SPDX-License-Identifier: Apache-2.0
 * What overwriting an open file achieves on the storage it is on: file system, mount options,
 * extents (FIEMAP). Says only what can be seen from here; flash below the file system can't be. */
#pragma once

#include "agent/wipe/wipe.h"

struct media_extents; /* where the file's blocks are */

/* What was found out of the last file's mount, so that it is read once for a batch. */
struct media_mount {
	int id;
	bool journals_data;
};

#define MEDIA_MOUNT_UNKNOWN ((struct media_mount){.id = -1})

/* Looks before the overwriting. *ret_reason is why an overwrite would prove nothing, or "". */
CEDE_MUST_USE int media_look(int fd, struct media_mount *known, struct media_extents **ret,
	const char **ret_reason, struct cede_error *reterr);
/* Looks again after it was flushed: "" if every block is where it was, else the reason. */
const char *media_compare(int fd, const struct media_extents *before);
void media_extents_free(struct media_extents *extents);
/* For lint and doctor: what the directory's file system promises; "" or the reason. */
const char *media_directory(int dirfd);
