/* SPDX-License-Identifier: Apache-2.0
 * Files: opening below a directory, reading and writing to the end, durable replacement.
 *
 * Promise file_replace() and file_link_new() are the only places that make a name appear: after 0
 *         the new file and its name are on the disk.
 * Fails   IO with errno in reterr->sys; REFUSED where a path leaves its directory. Messages never
 *         name a path: the caller adds the name where it may be shown (I9). */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/stat.h>
#include <sys/types.h>

#include "base/buf.h"
#include "base/error.h"

/* Which file it is and which content it had: what I3 compares. */
struct file_identity {
	uint64_t dev;
	uint64_t ino;
	uint64_t size;
	int64_t mtime_ns;
	int64_t ctime_ns;
};

struct file_identity file_identity_of(const struct stat *st);
bool file_identity_equal(const struct file_identity *a, const struct file_identity *b);

/* openat2 that resolves only beneath dirfd: no symlink, no "..", no mount point, no magic link.
 * flags gets O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY as well. ELOOP, EXDEV come as REFUSED. */
CEDE_MUST_USE int file_open_beneath(
	int dirfd, const char *path, int flags, int *ret_fd, struct cede_error *reterr);
/* A directory, following symlinks (for directories that the administrator names). */
CEDE_MUST_USE int file_open_dir(int dirfd, const char *path, int *ret_fd, struct cede_error *reterr);

CEDE_MUST_USE int file_write_all(int fd, const void *data, size_t len, struct cede_error *reterr);
CEDE_MUST_USE int file_pwrite_all(
	int fd, const void *data, size_t len, uint64_t offset, struct cede_error *reterr);
/* Reads until len bytes or the end; *ret_len says how many. */
CEDE_MUST_USE int file_pread_full(int fd, void *data, size_t len, uint64_t offset, size_t *ret_len,
	struct cede_error *reterr);
/* Adds the whole file to b (which knows its maximum). A FIFO or device is REFUSED. */
CEDE_MUST_USE int file_load_fd(int fd, struct buf *b, struct cede_error *reterr);
/* The same by name; the error names the path: for files of the administrator, never for captures. */
CEDE_MUST_USE int file_load(int dirfd, const char *path, struct buf *b, struct cede_error *reterr);

CEDE_MUST_USE int file_sync(int fd, struct cede_error *reterr);
/* Temporary file beside it, write, fsync, rename over name, fsync of the directory. */
CEDE_MUST_USE int file_replace(
	int dirfd, const char *name, struct slice content, mode_t mode, struct cede_error *reterr);
/* Gives the unnamed or temporary file behind fd the name, unless the name is taken (BUSY): fsync,
 * linkat, fsync of the directory. fd comes from open(O_TMPFILE). */
CEDE_MUST_USE int file_link_new(int fd, int dirfd, const char *name, struct cede_error *reterr);

/* The same without any flush: for what can be made again, or is flushed together with more. */
CEDE_MUST_USE int file_link_only(int fd, int dirfd, const char *name, struct cede_error *reterr);

/* Memory as a file, without a name; sealed against resizing once file_memory_seal() is called. */
CEDE_MUST_USE int file_memory(const char *label, int *ret_fd, struct cede_error *reterr);
CEDE_MUST_USE int file_memory_seal(int fd, struct cede_error *reterr);
