/* SPDX-License-Identifier: Apache-2.0
 * Empties the journal of an ext4 file system: names of files that are gone, and what was journalled
 * of their content, stay in it otherwise until later traffic overwrites it (EXT4_IOC_CHECKPOINT
 * with ZEROOUT, Linux 5.14; CAP_SYS_ADMIN). It flushes the file system and holds its writers up
 * while it takes: once for many files, never for one.
 *
 * Thread  any; blocking. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

enum scrub_result {
	SCRUB_DONE,
	SCRUB_NOT_HERE, /* another file system, an older kernel, or no right to */
	SCRUB_FAILED,   /* errno says why; the journal is as it was, or partly emptied */
};

/* dirfd: any directory of the file system. */
bool scrub_possible(int dirfd);
enum scrub_result scrub_journal(int dirfd, int64_t *ret_took_ns);

/* What was told of a file in user attributes. Values are overwritten before the flush and removed
 * after it; where the file system moves or journals them, copies stay. True: it has some. */
bool scrub_attributes(int fd, const uint8_t *noise);
void scrub_attributes_remove(int fd);
