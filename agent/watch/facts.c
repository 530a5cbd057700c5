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

const char *facts_name(const char *path) {
	const char *slash = strrchr(path, '/');

	return slash == NULL ? path : slash + 1;
}

int facts_open_parent(
	int source_fd, const char *path, int *ret_own_fd, int *ret_fd, struct cede_error *reterr) {
	size_t len = (size_t)(facts_name(path) - path);
	char parent[PATH_MAX + 1];

	*ret_own_fd = -1;
	*ret_fd = source_fd;
	if (len == 0)
		return CEDE_OK;
	if (len > sizeof parent)
		return CEDE_FAIL(reterr, CEDE_ERR_INPUT, "name too long");
	memcpy(parent, path, len - 1);
	parent[len - 1] = 0;
	CEDE_TRY(file_open_beneath(source_fd, parent, O_RDONLY | O_DIRECTORY, ret_own_fd, reterr));
	*ret_fd = *ret_own_fd;
	return CEDE_OK;
}

/* The group's required members, by the same directory. */
static int look_at_group(int dirfd, const char *name, const struct policy_source *source,
	int64_t now_ns, struct decide_facts *ret, struct cede_error *reterr) {
	struct slice stem = group_stem(slice_str(name));

	ret->group_there = true;
	ret->group_changed_ns = INT64_MIN;
	ret->group_since_ns = ret->ctime_ns;
	for (size_t i = 0; i < source->group_require_count; i++) {
		char member[NAME_MAX + 1];
		struct stat st = {0};
		int n = snprintf(member, sizeof member, "%.*s%s", (int)stem.len,
			(const char *)stem.data, source->group_require[i]);
		bool fits = n >= 0 && n <= NAME_MAX;
		if (fits && fstatat(dirfd, member, &st, AT_SYMLINK_NOFOLLOW) < 0 && errno != ENOENT)
			return CEDE_FAIL_SYS(reterr, "stat of a group's member");
		if (!S_ISREG(st.st_mode)) {
			ret->group_there = false;
			continue;
		}
		int64_t ctime_ns = clock_ns_of(&st.st_ctim);
		int64_t changed = last_change(clock_ns_of(&st.st_mtim), ctime_ns, now_ns);
		if (changed > ret->group_changed_ns && strcmp(member, name) != 0)
			ret->group_changed_ns = changed;
		/* ctime: a writer can set mtime to a future in which the group would wait for ever */
		if (ctime_ns < ret->group_since_ns)
			ret->group_since_ns = ctime_ns;
	}
	return CEDE_OK;
}

int facts_of(int source_fd, const char *path, const struct policy_source *source, int64_t now_ns,
	struct decide_facts *ret, struct file_identity *ret_identity, struct cede_error *reterr) {
	CLEANUP(fd_closep) int own_fd = -1;
	int dirfd;

	CEDE_TRY(facts_open_parent(source_fd, path, &own_fd, &dirfd, reterr));
	return facts_at(dirfd, facts_name(path), path, source, now_ns, ret, ret_identity, reterr);
}

int facts_at(int dirfd, const char *name, const char *path, const struct policy_source *source,
	int64_t now_ns, struct decide_facts *ret, struct file_identity *ret_identity,
	struct cede_error *reterr) {
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
	return source->grouped && ret->kind == FILE_KIND_REGULAR
		? look_at_group(dirfd, name, source, now_ns, ret, reterr)
		: CEDE_OK;
}
