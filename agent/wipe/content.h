/* SPDX-License-Identifier: Apache-2.0
 * The bytes of a wipe: the stream that overwrites, reading it back from the device, and telling a
 * file that was sealed, or is half overwritten, from new content. For wipe.c alone.
 *
 * Thread  a struct content belongs to its batch. */
#pragma once

#include "agent/wipe/wipe.h"

#define CONTENT_STREAM (1U << 20) /* bytes of the stream that are made; it repeats */
#define CONTENT_BLOCK  4096U

struct content {
	uint8_t *stream;
	uint8_t *scratch; /* for direct reads: aligned */
};

CEDE_MUST_USE int content_init(struct content *ret, struct cede_error *reterr);
void content_done(struct content *c);

/* Up to the next whole block. */
uint64_t content_rounded(uint64_t size);

/* Overwrites the whole blocks of the first size bytes; of a sparse file those that it has: holes
 * hold nothing, and filling them could fill the disk. */
CEDE_MUST_USE int content_overwrite(
	const struct content *c, int fd, uint64_t size, bool sparse, struct cede_error *reterr);

/* Reads them back past the page cache; doubtful: only if the system says that this can be done.
 * *ret_direct is false where that can't be done: then nothing
 * was compared. IO: the device gives back something else, or an error. fd stays in direct mode. */
CEDE_MUST_USE int content_verify(const struct content *c, int fd, uint64_t size, bool sparse,
	bool doubtful, bool *ret_direct, struct cede_error *reterr);

enum content_is {
	CONTENT_SEALED, /* the very content that was sealed */
	CONTENT_OURS,   /* half overwritten by an earlier try */
	CONTENT_OTHER,
	CONTENT_UNREADABLE, /* which says nothing */
};

/* size: of the file now. */
enum content_is content_compare(const struct content *c, int fd, const struct wipe_item *item,
	uint64_t size, struct cede_error *reterr);
