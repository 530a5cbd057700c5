/* SPDX-License-Identifier: Apache-2.0
 * Writing a new file past the page cache (O_DIRECT), for content that is flushed at its end and not
 * read again soon: half the CPU time, and nothing of it pushes other programs' pages out. Where the
 * file system has no direct writes it goes through the cache.
 *
 * Promise after direct_finish() the file has exactly the bytes put, not necessarily on the disk.
 * Fails   IO with errno in reterr->sys.
 * Thread  one at a time. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"

struct direct {
	int fd; /* borrowed */
	bool on;
	uint8_t *buffer;
	size_t used;
};

/* fd is new, empty and open for writing, without O_APPEND. */
CEDE_MUST_USE int direct_start(struct direct *d, int fd, struct cede_error *reterr);
CEDE_MUST_USE int direct_put(
	struct direct *d, const void *data, size_t len, struct cede_error *reterr);
/* fd is an ordinary one again. */
CEDE_MUST_USE int direct_finish(struct direct *d, struct cede_error *reterr);
/* Frees the buffer; d may be all zero. */
void direct_end(struct direct *d);
