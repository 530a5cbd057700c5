/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/seal/spool.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/statvfs.h>

#include "base/cleanup.h"
#include "base/file.h"

#define FREE_LEAST (UINT64_C(64) << 20)
#define NAME_SIZE  (ID_TEXT_SIZE + 4)
#define COPY_CHUNK (256U << 10)
#define COPY_FLUSH (2U << 20) /* the slowest card takes it in less than a second */

static void name_of(const struct id *bundle, char name[NAME_SIZE]) {
	char text[ID_TEXT_SIZE];

	id_print(bundle, text);
	(void)snprintf(name, NAME_SIZE, "%s.cms", text);
}

int spool_open(const char *state_dir, int *ret_dirfd, struct cede_error *reterr) {
	CLEANUP(fd_closep) int state = -1;

	CEDE_TRY(file_open_dir(AT_FDCWD, state_dir, &state, reterr));
	if (mkdirat(state, "spool", 0700) < 0 && errno != EEXIST)
		return CEDE_FAIL_SYS(reterr, "create %s/spool", state_dir);
	CEDE_TRY(file_sync(state, reterr));
	return file_open_beneath(state, "spool", O_RDONLY | O_DIRECTORY, ret_dirfd, reterr);
}

int spool_room(int dirfd, uint64_t used, uint64_t limit, uint64_t *ret, struct cede_error *reterr) {
	struct statvfs fs;

	if (fstatvfs(dirfd, &fs) < 0)
		return CEDE_FAIL_SYS(reterr, "free space of the spool");
	uint64_t least = (uint64_t)fs.f_blocks / 20 * fs.f_frsize;
	uint64_t there = (uint64_t)fs.f_bavail * fs.f_frsize;
	if (least < FREE_LEAST)
		least = FREE_LEAST;
	*ret = there < least || used > limit ? 0 : there - least;
	if (*ret > limit - used && used <= limit)
		*ret = limit - used;
	return CEDE_OK;
}

int spool_create(int dirfd, int *ret_fd, struct cede_error *reterr) {
	uint64_t room;

	CEDE_TRY(spool_room(dirfd, 0, UINT64_MAX, &room, reterr));
	if (room == 0)
		return CEDE_FAIL(reterr, CEDE_ERR_BUSY,
			"the spool's file system is nearly full; captures stay in their source");
	int fd = openat(dirfd, ".", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
	if (fd < 0)
		return CEDE_FAIL_SYS(reterr, "create a file in the spool");
	*ret_fd = fd;
	return CEDE_OK;
}

int spool_keep(int dirfd, const struct id *bundle, int fd, struct cede_error *reterr) {
	char name[NAME_SIZE];

	name_of(bundle, name);
	return file_link_new(fd, dirfd, name, reterr);
}

int spool_copy(int dirfd, const struct id *bundle, int from_fd, uint64_t size,
	const _Atomic bool *stop, struct cede_error *reterr) {
	CLEANUP(fd_closep) int fd = -1;
	CLEANUP(freep) uint8_t *chunk = malloc(COPY_CHUNK);

	if (chunk == NULL)
		return CEDE_FAIL_MEMORY(reterr);
	CEDE_TRY(spool_create(dirfd, &fd, reterr));
	for (uint64_t at = 0; at < size;) {
		size_t n = size - at < COPY_CHUNK ? (size_t)(size - at) : COPY_CHUNK;
		size_t got;
		if (*stop)
			return CEDE_FAIL(reterr, CEDE_ERR_BUSY, "told to end");
		CEDE_TRY(file_pread_full(from_fd, chunk, n, at, &got, reterr));
		if (got != n)
			return CEDE_FAIL(reterr, CEDE_ERR_BUG, "bundle shorter than recorded");
		CEDE_TRY(file_write_all(fd, chunk, n, reterr));
		at += n;
		if (at % COPY_FLUSH == 0)
			CEDE_TRY(file_sync(fd, reterr));
	}
	return spool_keep(dirfd, bundle, fd, reterr);
}

int spool_fetch(int dirfd, const struct id *bundle, int *ret_fd, struct cede_error *reterr) {
	char name[NAME_SIZE];

	name_of(bundle, name);
	return file_open_beneath(dirfd, name, O_RDONLY, ret_fd, reterr);
}

bool spool_has(int dirfd, const struct id *bundle) {
	char name[NAME_SIZE];

	name_of(bundle, name);
	return faccessat(dirfd, name, F_OK, AT_SYMLINK_NOFOLLOW) == 0 || errno != ENOENT;
}

int spool_remove(int dirfd, const struct id *bundle, struct cede_error *reterr) {
	char name[NAME_SIZE];

	name_of(bundle, name);
	if (unlinkat(dirfd, name, 0) < 0 && errno != ENOENT)
		return CEDE_FAIL_SYS(reterr, "remove a bundle from the spool");
	return CEDE_OK;
}

int spool_sweep(int dirfd, bool (*keep)(void *ctx, const struct id *bundle), void *ctx,
	size_t *ret_removed, struct cede_error *reterr) {
	CLEANUP(dir_closep) DIR *dir = NULL;
	CLEANUP(fd_closep) int fd = openat(dirfd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	struct dirent *entry;

	*ret_removed = 0;
	if (fd < 0 || (dir = fdopendir(fd)) == NULL)
		return CEDE_FAIL_SYS(reterr, "list the spool");
	fd = -1; /* dir's now */
	while ((errno = 0, entry = readdir(dir)) != NULL) {
		struct slice name = slice_str(entry->d_name);
		struct id bundle;

		if (name.len != NAME_SIZE - 1 ||
			!slice_is(slice_of(name.data + name.len - 4, 4), ".cms") ||
			id_parse(slice_of(name.data, name.len - 4), &bundle, NULL) < 0)
			continue; /* none of ours */
		if (keep(ctx, &bundle))
			continue;
		CEDE_TRY(spool_remove(dirfd, &bundle, reterr));
		(*ret_removed)++;
	}
	if (errno != 0)
		return CEDE_FAIL_SYS(reterr, "list the spool");
	return CEDE_OK;
}
