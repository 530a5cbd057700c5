/* SPDX-License-Identifier: Apache-2.0
 * The spool: sealed bundles on the disk, <state>/spool/<bundle id>.cms. Ciphertext only; unlinking
 * is enough.
 *
 * Promise spool_keep() returns 0 only after the bundle and its name are on the disk. A file without
 *         its final name never survives (O_TMPFILE).
 * Thread  any. */
#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "formats/id.h"

/* Makes the directory if needed and opens it. */
CEDE_MUST_USE int spool_open(const char *state_dir, int *ret_dirfd, struct cede_error *reterr);
/* Bytes that it may still grow by: up to its limit (used: what is in it), and so that its file
 * system is not nearly full. */
CEDE_MUST_USE int spool_room(
	int dirfd, uint64_t used, uint64_t limit, uint64_t *ret, struct cede_error *reterr);
/* A nameless file in it. BUSY: the file system is nearly full (less than 5 % or 64 MiB free). */
CEDE_MUST_USE int spool_create(int dirfd, int *ret_fd, struct cede_error *reterr);
CEDE_MUST_USE int spool_keep(int dirfd, const struct id *bundle, int fd, struct cede_error *reterr);
/* Copies a bundle from a memory file into the spool; as durable as spool_keep(). Flushed piece by
 * piece, so that it ends soon after *stop is set: BUSY, and nothing is there. */
CEDE_MUST_USE int spool_copy(int dirfd, const struct id *bundle, int from_fd, uint64_t size,
	const _Atomic bool *stop, struct cede_error *reterr);
/* The bundle again, for reading. */
CEDE_MUST_USE int spool_fetch(
	int dirfd, const struct id *bundle, int *ret_fd, struct cede_error *reterr);
/* false only if it is certain that it is not there. */
bool spool_has(int dirfd, const struct id *bundle);
/* Not there: fine. */
CEDE_MUST_USE int spool_remove(int dirfd, const struct id *bundle, struct cede_error *reterr);
/* Removes what keep() says is not needed any more; at start, after a crash. */
CEDE_MUST_USE int spool_sweep(int dirfd, bool (*keep)(void *ctx, const struct id *bundle),
	void *ctx, size_t *ret_removed, struct cede_error *reterr);
