/* SPDX-License-Identifier: Apache-2.0
 * Where unpacked captures go: files appear below one folder only when they are whole, never replace
 * others, and can all be taken back.
 *
 * Promise every path is opened part by part beneath the folder: no symlink, no "..", no mount
 * point. Thread  one. Fails   IO; REFUSED: the name is taken by another content, or leads out of
 * the folder. Texts name the capture's id (I9). */
#pragma once

#include <stddef.h>

#include "base/cleanup.h"
#include "base/file.h"
#include "formats/manifest.h"

#define PLACE_NAME_MAX (2 * MANIFEST_PATH_MAX)

struct place {
	int dirfd;         /* borrowed */
	struct buf folder; /* path of the folder that was opened last, and its descriptor */
	int folder_fd;
	struct place_made *made; /* what undo removes, newest last */
	size_t made_count, made_room;
	size_t folders; /* how many were made */
};

/* A file, or folders one in the other (their path ends with '/'). */
struct place_made {
	char *path;
	size_t there; /* bytes of it that were there before */
	size_t len;   /* up to here it was made */
};

/* A file that has no name yet. */
struct place_file {
	int fd;
	int folder_fd;      /* where temporary is */
	char temporary[40]; /* "" if the file system has files without names */
};

#define PLACE_FILE_NONE ((struct place_file){.fd = -1, .folder_fd = -1})

void place_init(struct place *p, int dirfd);
void place_done(struct place *p);
/* Removes what was made, newest first; what cannot be removed stays. */
void place_undo(struct place *p);

/* An empty file for the member of e, in its folder (made if need be). */
CEDE_MUST_USE int place_file_new(struct place *p, const struct manifest_entry *e,
	struct place_file *ret, struct cede_error *reterr);
/* Gives it its name and the capture's mtime: "<source>/<path>", or for a segment
 * "<folder>/<capture id>.segment-000001-of-000042", so that segments of two captures that had the
 * same name one after the other never meet. */
CEDE_MUST_USE int place_file_keep(struct place *p, const struct manifest_entry *e,
	struct place_file *file, struct cede_error *reterr);
void place_file_done(struct place_file *file); /* without place_file_keep(): nothing is left */

/* "<bundle id>.manifest.json" */
CEDE_MUST_USE int place_manifest(
	struct place *p, const struct id *bundle, struct slice json, struct cede_error *reterr);
/* If all segments of e's capture are there: joins them; they stay until place_drop_segments(). */
CEDE_MUST_USE int place_join(
	struct place *p, const struct manifest_entry *e, struct cede_error *reterr);
/* Everything to the disk. What is dropped afterwards cannot be taken back. */
CEDE_MUST_USE int place_sync(struct place *p, struct cede_error *reterr);
/* If e's capture was joined: removes its segments. */
CEDE_MUST_USE int place_drop_segments(
	struct place *p, const struct manifest_entry *e, struct cede_error *reterr);
