/* SPDX-License-Identifier: Apache-2.0 */
#include "base/file.h"

#include <fcntl.h>
#include <linux/magic.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/hex.h"

#define OPEN_TRIES 16

struct file_identity file_identity_of(const struct stat *st) {
	return (struct file_identity){.dev = st->st_dev,
		.ino = st->st_ino,
		.size = (uint64_t)st->st_size,
		.mtime_ns = clock_ns_of(&st->st_mtim),
		.ctime_ns = clock_ns_of(&st->st_ctim)};
}

bool file_identity_equal(const struct file_identity *a, const struct file_identity *b) {
	return a->dev == b->dev && a->ino == b->ino && a->size == b->size &&
		a->mtime_ns == b->mtime_ns && a->ctime_ns == b->ctime_ns;
}

int file_open_beneath(int dirfd, const char *path, int flags, int *ret_fd, struct cede_error *reterr) {
	/* openat2 refuses flags that mean nothing with O_PATH */
	int more = flags & O_PATH ? 0 : O_NONBLOCK | O_NOCTTY;
	struct open_how how = {
		.flags = (uint64_t)(unsigned)(flags | more | O_CLOEXEC | O_NOFOLLOW),
		.resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS |
			RESOLVE_NO_XDEV,
	};
	long fd;
	int tries = 0;

	/* EAGAIN: a directory was renamed while we looked, or another program's lease stands (that
	 * one may stand for long) */
	do
		fd = syscall(SYS_openat2, dirfd, path, &how, sizeof how);
	while (fd < 0 && (errno == EINTR || (errno == EAGAIN && ++tries < OPEN_TRIES)));
	if (fd < 0 && (errno == ELOOP || errno == EXDEV)) {
		int sys = errno;
		cede_error_set_sys(reterr, sys, "open beneath a directory");
		if (reterr != NULL)
			reterr->code = CEDE_ERR_REFUSED;
		return CEDE_ERR_REFUSED;
	}
	if (fd < 0)
		return CEDE_FAIL_SYS(reterr, "open beneath a directory");
	*ret_fd = (int)fd;
	return CEDE_OK;
}

uint64_t file_device_below(int dirfd) {
	struct statfs fs;
	struct stat st;

	if (fstatfs(dirfd, &fs) < 0 || fstat(dirfd, &st) < 0)
		return 0;
	uint32_t type = (uint32_t)fs.f_type;
	return type == OVERLAYFS_SUPER_MAGIC || type == BTRFS_SUPER_MAGIC ? 0 : st.st_dev;
}

int file_place_of(int dirfd, struct file_place *ret, struct cede_error *reterr) {
	struct statx st;

	if (statx(dirfd, "", AT_EMPTY_PATH, STATX_INO | STATX_BTIME, &st) < 0)
		return CEDE_FAIL_SYS(reterr, "stat of a directory");
	bool told = (st.stx_mask & STATX_BTIME) != 0;
	*ret = (struct file_place){.dev = file_device_below(dirfd),
		.ino = st.stx_ino,
		.born_ns = told ? st.stx_btime.tv_sec * NS_PER_SECOND + st.stx_btime.tv_nsec : 0};
	return CEDE_OK;
}

bool file_is_elsewhere(int dirfd, uint64_t dev) {
	uint64_t here = file_device_below(dirfd);

	return here != 0 && here != dev;
}

int file_open_dir(int dirfd, const char *path, int *ret_fd, struct cede_error *reterr) {
	int fd = openat(dirfd, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	if (fd < 0)
		return CEDE_FAIL_SYS(reterr, "open directory %s", path);
	*ret_fd = fd;
	return CEDE_OK;
}

int file_write_all(int fd, const void *data, size_t len, struct cede_error *reterr) {
	const uint8_t *at = data;

	while (len > 0) {
		ssize_t n = write(fd, at, len);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return CEDE_FAIL_SYS(reterr, "write");
		at += n;
		len -= (size_t)n;
	}
	return CEDE_OK;
}

int file_pwrite_all(int fd, const void *data, size_t len, uint64_t offset, struct cede_error *reterr) {
	const uint8_t *at = data;

	while (len > 0) {
		ssize_t n = pwrite(fd, at, len, (off_t)offset);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return CEDE_FAIL_SYS(reterr, "write");
		at += n;
		len -= (size_t)n;
		offset += (uint64_t)n;
	}
	return CEDE_OK;
}

int file_pread_full(int fd, void *data, size_t len, uint64_t offset, size_t *ret_len,
	struct cede_error *reterr) {
	uint8_t *at = data;
	size_t got = 0;

	while (got < len) {
		ssize_t n = pread(fd, at + got, len - got, (off_t)(offset + got));
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return CEDE_FAIL_SYS(reterr, "read");
		if (n == 0)
			break;
		got += (size_t)n;
	}
	*ret_len = got;
	return CEDE_OK;
}

int file_load_fd(int fd, struct buf *b, struct cede_error *reterr) {
	struct stat st;
	uint8_t *at;

	if (fstat(fd, &st) < 0)
		return CEDE_FAIL_SYS(reterr, "stat");
	if (!S_ISREG(st.st_mode))
		return CEDE_FAIL(reterr, CEDE_ERR_REFUSED, "not a regular file");
	for (;;) {
		size_t want = b->max - b->len < 65536 ? b->max - b->len : 65536;
		uint8_t more;

		if (want == 0) { /* full: allowed only if this is the end */
			ssize_t n = read(fd, &more, 1);
			if (n < 0 && errno == EINTR)
				continue;
			if (n < 0)
				return CEDE_FAIL_SYS(reterr, "read");
			if (n == 0)
				return CEDE_OK;
			return CEDE_FAIL(reterr, CEDE_ERR_INPUT,
				"larger than the %zu bytes allowed", b->max);
		}
		CEDE_TRY(buf_room(b, want, &at, reterr));
		ssize_t n = read(fd, at, want);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return CEDE_FAIL_SYS(reterr, "read");
		if (n == 0)
			return CEDE_OK;
		buf_grew(b, (size_t)n);
	}
}

int file_load(int dirfd, const char *path, struct buf *b, struct cede_error *reterr) {
	CLEANUP(fd_closep)
	int fd = openat(dirfd, path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);

	if (fd < 0)
		return CEDE_FAIL_SYS(reterr, "open %s", path);
	int r = file_load_fd(fd, b, reterr);
	if (r < 0)
		cede_error_within(reterr, "%s", path);
	return r;
}

int file_create_new(const char *path, mode_t mode, int *ret_fd, struct cede_error *reterr) {
	int fd = openat(AT_FDCWD, path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, mode);

	if (fd < 0)
		return CEDE_FAIL_SYS(reterr, "make %s", path);
	*ret_fd = fd;
	return CEDE_OK;
}

int file_sync(int fd, struct cede_error *reterr) {
	if (fsync(fd) < 0)
		return CEDE_FAIL_SYS(reterr, "flush to disk");
	return CEDE_OK;
}

int file_replace(
	int dirfd, const char *name, struct slice content, mode_t mode, struct cede_error *reterr) {
	uint8_t random[8];
	char digits[17];
	char temporary[300];

	if (getrandom(random, sizeof random, 0) != (ssize_t)sizeof random)
		return CEDE_FAIL_SYS(reterr, "random numbers");
	hex_print(random, sizeof random, digits);
	if (snprintf(temporary, sizeof temporary, ".%s.%s.tmp", name, digits) >= (int)sizeof temporary)
		return CEDE_FAIL(reterr, CEDE_ERR_BUG, "name too long");
	CLEANUP(fd_closep)
	int fd = openat(dirfd, temporary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, mode);
	if (fd < 0)
		return CEDE_FAIL_SYS(reterr, "create %s", temporary);
	int r = file_write_all(fd, content.data, content.len, reterr);
	if (r == CEDE_OK)
		r = file_sync(fd, reterr);
	if (r == CEDE_OK && renameat(dirfd, temporary, dirfd, name) < 0)
		r = CEDE_FAIL_SYS(reterr, "rename to %s", name);
	if (r < 0) {
		(void)unlinkat(dirfd, temporary, 0);
		return r;
	}
	return file_sync(dirfd, reterr);
}

#define SELF_SIZE 32

/* The name that the kernel gives a descriptor of this process. */
static void name_of_fd(int fd, char ret[SELF_SIZE]) {
	(void)snprintf(ret, SELF_SIZE, "/proc/self/fd/%d", fd);
}

int file_open_again(int fd, int flags, int *ret_fd, struct cede_error *reterr) {
	char self[SELF_SIZE];

	name_of_fd(fd, self);
	*ret_fd = openat(AT_FDCWD, self, flags | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	if (*ret_fd < 0)
		return CEDE_FAIL_SYS(reterr, "open it again through /proc");
	return CEDE_OK;
}

int file_link_only(int fd, int dirfd, const char *name, struct cede_error *reterr) {
	char self[SELF_SIZE];

	name_of_fd(fd, self);
	if (linkat(AT_FDCWD, self, dirfd, name, AT_SYMLINK_FOLLOW) == 0)
		return CEDE_OK;
	if (errno == EEXIST)
		return CEDE_FAIL(reterr, CEDE_ERR_BUSY, "the name is taken");
	return CEDE_FAIL_SYS(reterr, "name the new file");
}

int file_link_new(int fd, int dirfd, const char *name, struct cede_error *reterr) {
	CEDE_TRY(file_sync(fd, reterr));
	CEDE_TRY(file_link_only(fd, dirfd, name, reterr));
	int r = file_sync(dirfd, reterr);
	if (r < 0) /* not promised: the next try must not find it there */
		(void)unlinkat(dirfd, name, 0);
	return r;
}

int file_create(
	int dirfd, const char *name, struct slice content, mode_t mode, struct cede_error *reterr) {
	CLEANUP(fd_closep) int fd = openat(dirfd, ".", O_TMPFILE | O_RDWR | O_CLOEXEC, mode);

	if (fd < 0 && (errno == EOPNOTSUPP || errno == EISDIR))
		return file_replace(dirfd, name, content, mode, reterr);
	if (fd < 0)
		return CEDE_FAIL_SYS(reterr, "create %s", name);
	CEDE_TRY(file_write_all(fd, content.data, content.len, reterr));
	return file_link_new(fd, dirfd, name, reterr);
}

bool file_rename_new(int dirfd, const char *from, const char *to) {
	return renameat2(dirfd, from, dirfd, to, RENAME_NOREPLACE) == 0;
}

bool file_exchange(int a_dirfd, const char *a, int b_dirfd, const char *b) {
	return renameat2(a_dirfd, a, b_dirfd, b, RENAME_EXCHANGE) == 0;
}

int file_memory(const char *label, int *ret_fd, struct cede_error *reterr) {
	int fd = memfd_create(label, MFD_CLOEXEC | MFD_ALLOW_SEALING);

	if (fd < 0)
		return CEDE_FAIL_SYS(reterr, "memory file");
	*ret_fd = fd;
	return CEDE_OK;
}

int file_memory_seal(int fd, struct cede_error *reterr) {
	if (fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE | F_SEAL_SEAL) < 0)
		return CEDE_FAIL_SYS(reterr, "seal the memory file");
	return CEDE_OK;
}
