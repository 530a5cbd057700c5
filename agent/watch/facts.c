/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/watch/facts.h"

#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sysmacros.h>

#include "base/cleanup.h"
#include "base/clock.h"

/* A file may carry any year: its nanoseconds stop at the ends of the range. */
static int64_t ns_of(const struct statx_timestamp *t) {
	if (t->tv_sec >= INT64_MAX / NS_PER_SECOND)
		return INT64_MAX;
	if (t->tv_sec <= INT64_MIN / NS_PER_SECOND)
		return INT64_MIN;
	return (int64_t)t->tv_sec * NS_PER_SECOND + t->tv_nsec;
}

static enum file_kind kind_of(unsigned mode) {
	if (S_ISREG(mode))
		return FILE_KIND_REGULAR;
	if (S_ISDIR(mode))
		return FILE_KIND_DIRECTORY;
	return S_ISLNK(mode) ? FILE_KIND_SYMLINK : FILE_KIND_OTHER;
}

/* The directory of the name (borrowed from source_fd where it is the source itself). */
static int open_parent(int source_fd, const char *path, int *ret_own_fd, int *ret_fd,
	const char **ret_name, struct cede_error *reterr) {
	const char *slash = strrchr(path, '/');
	char parent[PATH_MAX + 1];

	*ret_own_fd = -1;
	*ret_fd = source_fd;
	*ret_name = path;
	if (slash == NULL)
		return CEDE_OK;
	if ((size_t)(slash - path) >= sizeof parent)
		return CEDE_FAIL(reterr, CEDE_ERR_INPUT, "name too long");
	memcpy(parent, path, (size_t)(slash - path));
	parent[slash - path] = 0;
	CEDE_TRY(file_open_beneath(source_fd, parent, O_RDONLY | O_DIRECTORY, ret_own_fd, reterr));
	*ret_fd = *ret_own_fd;
	*ret_name = slash + 1;
	return CEDE_OK;
}

/* The group's required members, by the same directory. */
static void look_at_group(
	int dirfd, const char *name, const struct policy_source *source, struct decide_facts *ret) {
	struct slice stem = group_stem(slice_str(name));

	ret->group_complete = true;
	ret->group_since_ns = ret->ctime_ns;
	for (size_t i = 0; i < source->group_require_count; i++) {
		char member[NAME_MAX + 1];
		struct stat st;
		int n = snprintf(member, sizeof member, "%.*s%s", (int)stem.len,
			(const char *)stem.data, source->group_require[i]);
		if (n < 0 || n > NAME_MAX || fstatat(dirfd, member, &st, AT_SYMLINK_NOFOLLOW) < 0 ||
			!S_ISREG(st.st_mode)) {
			ret->group_complete = false;
			continue;
		}
		/* ctime: a writer can set mtime to a future in which the group would wait for ever */
		int64_t since = clock_ns_of(&st.st_ctim);
		if (since < ret->group_since_ns)
			ret->group_since_ns = since;
	}
}

int facts_of(int source_fd, const char *path, const struct policy_source *source,
	struct decide_facts *ret, struct file_identity *ret_identity, struct cede_error *reterr) {
	CLEANUP(fd_closep) int own_fd = -1;
	const char *name;
	int dirfd;

	CEDE_TRY(open_parent(source_fd, path, &own_fd, &dirfd, &name, reterr));
	return facts_at(dirfd, name, path, source, ret, ret_identity, reterr);
}

int facts_at(int dirfd, const char *name, const char *path, const struct policy_source *source,
	struct decide_facts *ret, struct file_identity *ret_identity, struct cede_error *reterr) {
	struct statx st;

	if (statx(dirfd, name, AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT,
		    STATX_BASIC_STATS | STATX_BTIME, &st) < 0)
		return CEDE_FAIL_SYS(reterr, "stat");
	*ret = (struct decide_facts){
		.path = slice_str(path),
		/* a file that is itself a mount point is none of the source's */
		.kind = st.stx_attributes & STATX_ATTR_MOUNT_ROOT ? FILE_KIND_OTHER
								  : kind_of(st.stx_mode),
		.size = st.stx_size,
		.links = st.stx_nlink,
		.mtime_ns = ns_of(&st.stx_mtime),
		.ctime_ns = ns_of(&st.stx_ctime),
		.btime_ns = st.stx_mask & STATX_BTIME ? ns_of(&st.stx_btime) : 0,
	};
	*ret_identity = (struct file_identity){.dev = makedev(st.stx_dev_major, st.stx_dev_minor),
		.ino = st.stx_ino,
		.size = st.stx_size,
		.mtime_ns = ret->mtime_ns,
		.ctime_ns = ret->ctime_ns};
	if (source->grouped && ret->kind == FILE_KIND_REGULAR)
		look_at_group(dirfd, name, source, ret);
	return CEDE_OK;
}
