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

/* A name that the wipe gives a file for a moment before it is unlinked; see agent/wipe/wipe.c. */
#define FILE_ASIDE_PREFIX ".cede-wiped-"

/* openat2 that resolves only beneath dirfd: no symlink, no "..", no mount point, no magic link.
 * flags gets O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY as well. ELOOP, EXDEV come as REFUSED. */
CEDE_MUST_USE int file_open_beneath(
	int dirfd, const char *path, int flags, int *ret_fd, struct cede_error *reterr);

/* The very file of fd again, whatever its name is now, or without a name; through /proc. */
CEDE_MUST_USE int file_open_again(int fd, int flags, int *ret_fd, struct cede_error *reterr);

struct file_place {
	uint64_t dev; /* file_device_below() */
	uint64_t ino;
	int64_t born_ns; /* 0: the file system does not tell */
};

/* What tells a directory again after its file system was mounted anew: all but dev. */
CEDE_MUST_USE int file_place_of(int dirfd, struct file_place *ret, struct cede_error *reterr);
/* The device whose files lie below the directory; 0 where directories and files of one file system
 * may have different ones (overlayfs, btrfs), or nothing can be said. */
uint64_t file_device_below(int dirfd);
/* A file of this device is not found below dirfd: it may only be that its file system is not
 * mounted there now. */
bool file_is_elsewhere(int dirfd, uint64_t dev);
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

/* Makes a file that must not be there yet, for reading and writing; the error names the path: for
 * files of the administrator. */
CEDE_MUST_USE int file_create_new(
	const char *path, mode_t mode, int *ret_fd, struct cede_error *reterr);
CEDE_MUST_USE int file_sync(int fd, struct cede_error *reterr);
/* Temporary file beside it, write, fsync, rename over name, fsync of the directory. */
CEDE_MUST_USE int file_replace(
	int dirfd, const char *name, struct slice content, mode_t mode, struct cede_error *reterr);
/* Gives the unnamed or temporary file behind fd the name, unless the name is taken (BUSY): fsync,
 * linkat, fsync of the directory; on failure the name is not there. fd comes from open(O_TMPFILE). */
CEDE_MUST_USE int file_link_new(int fd, int dirfd, const char *name, struct cede_error *reterr);
/* A new file of this content, whole and durable, unless the name is taken (BUSY): a crash leaves
 * all of it or nothing, where the file system has files without names. */
CEDE_MUST_USE int file_create(
	int dirfd, const char *name, struct slice content, mode_t mode, struct cede_error *reterr);

/* The same without any flush: for what can be made again, or is flushed together with more. */
CEDE_MUST_USE int file_link_only(int fd, int dirfd, const char *name, struct cede_error *reterr);

/* Another name in the same directory, unless that one is taken; nothing is flushed. False: errno. */
bool file_rename_new(int dirfd, const char *from, const char *to);
/* Each gets the other's name, at once; nothing is flushed. False: errno. */
bool file_exchange(int a_dirfd, const char *a, int b_dirfd, const char *b);

/* Memory as a file, without a name; sealed against resizing once file_memory_seal() is called. */
CEDE_MUST_USE int file_memory(const char *label, int *ret_fd, struct cede_error *reterr);
CEDE_MUST_USE int file_memory_seal(int fd, struct cede_error *reterr);
