/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/wipe/media.h"

#include <fcntl.h>
#include <linux/fiemap.h>
#include <linux/fs.h>
#include <linux/magic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/vfs.h>

#include "base/cleanup.h"

#define EXTENTS_MAX 256
#define XFS_MAGIC   0x58465342U

struct media_extents {
	uint32_t count;
	bool unknown; /* too many, or the file system has no FIEMAP */

	struct {
		uint64_t logical, physical, length;
	} at[EXTENTS_MAX];
};

/* Where overwriting in place reaches the blocks at all (WIPE.md: measured for ext4 and xfs). */
static const char *file_system_reason(int fd) {
	struct statfs fs;

	if (fstatfs(fd, &fs) < 0)
		return "unknown-file-system";
	switch ((uint32_t)fs.f_type) {
	case EXT4_SUPER_MAGIC:
	case XFS_MAGIC:
		return "";
	case BTRFS_SUPER_MAGIC:
		return "copy-on-write";
	case OVERLAYFS_SUPER_MAGIC:
		return "overlay";
	case TMPFS_MAGIC:
		return "memory";
	case NFS_SUPER_MAGIC:
	case SMB_SUPER_MAGIC:
		return "network";
	default:
		return "unknown-file-system";
	}
}

/* Whether the mount with this id says data=journal. */
static bool mount_journals_data(int mount_id) {
	CLEANUP(file_closep) FILE *f = fopen("/proc/self/mountinfo", "re");
	CLEANUP(freep) char *line = NULL;
	size_t room = 0;

	while (f != NULL && getline(&line, &room, f) > 0) {
		char *end;
		if (strtoul(line, &end, 10) == (unsigned long)mount_id && *end == ' ')
			return strstr(line, "data=journal") != NULL;
	}
	return f == NULL; /* can't be known: the worse */
}

static int mount_id_of(int fd) {
	struct statx st;

	if (statx(fd, "", AT_EMPTY_PATH, STATX_MNT_ID, &st) < 0 || (st.stx_mask & STATX_MNT_ID) == 0)
		return -1;
	return (int)st.stx_mnt_id;
}

static const char *journal_reason(int fd) {
	static _Thread_local int known_mount = -1; /* mountinfo is read once for many files */
	static _Thread_local bool known_journals;
	unsigned flags = 0;

	if (ioctl(fd, FS_IOC_GETFLAGS, &flags) == 0 && (flags & FS_JOURNAL_DATA_FL) != 0)
		return "data-journalled";
	int mount = mount_id_of(fd);
	if (mount < 0)
		return "unknown-mount";
	if (mount != known_mount) {
		known_journals = mount_journals_data(mount);
		known_mount = mount;
	}
	return known_journals ? "data-journalled" : "";
}

const char *media_directory(int dirfd) {
	const char *reason = file_system_reason(dirfd);

	return reason[0] != 0 ? reason : journal_reason(dirfd);
}

/* struct fiemap ends in its extents: room for EXTENTS_MAX of them */
#define MAP_SIZE (sizeof(struct fiemap) + EXTENTS_MAX * sizeof(struct fiemap_extent))

/* The present extents. Blocks that are only in memory yet (delayed) have no place: what reaches the
 * disk for them will be the overwritten content, unless they were written out meanwhile. */
static const char *read_extents(int fd, struct fiemap *map, struct media_extents *ret) {
	memset(map, 0, sizeof *map);
	map->fm_length = FIEMAP_MAX_OFFSET;
	map->fm_extent_count = EXTENTS_MAX;
	ret->count = 0;
	ret->unknown = false;
	if (ioctl(fd, FS_IOC_FIEMAP, map) < 0)
		return "extents-unknown";
	for (uint32_t i = 0; i < map->fm_mapped_extents; i++) {
		const struct fiemap_extent *e = &map->fm_extents[i];
		if (e->fe_flags & FIEMAP_EXTENT_SHARED)
			return "shared-extents";
		if (e->fe_flags & FIEMAP_EXTENT_DATA_INLINE)
			return "inline-data";
		if (e->fe_flags & (FIEMAP_EXTENT_ENCODED | FIEMAP_EXTENT_NOT_ALIGNED))
			return "encoded-extents";
		if (e->fe_flags & (FIEMAP_EXTENT_DELALLOC | FIEMAP_EXTENT_UNKNOWN))
			continue;
		ret->at[ret->count].logical = e->fe_logical;
		ret->at[ret->count].physical = e->fe_physical;
		ret->at[ret->count++].length = e->fe_length;
	}
	ret->unknown = map->fm_mapped_extents == EXTENTS_MAX &&
		(map->fm_extents[EXTENTS_MAX - 1].fe_flags & FIEMAP_EXTENT_LAST) == 0;
	return ret->unknown ? "too-many-extents" : "";
}

int media_look(
	int fd, struct media_extents **ret, const char **ret_reason, struct cede_error *reterr) {
	CLEANUP(freep) struct fiemap *map = malloc(MAP_SIZE);
	CLEANUP(freep) struct media_extents *all = malloc(sizeof *all);

	if (map == NULL || all == NULL)
		return CEDE_FAIL_MEMORY(reterr);
	*ret_reason = media_directory(fd);
	if ((*ret_reason)[0] == 0)
		*ret_reason = read_extents(fd, map, all);
	if ((*ret_reason)[0] != 0) { /* nothing to compare later */
		all->count = 0;
		all->unknown = true;
	}
	/* most files have one or two extents: keep only what is used */
	struct media_extents *kept =
		malloc(offsetof(struct media_extents, at) + (all->count + 1) * sizeof all->at[0]);
	if (kept == NULL)
		return CEDE_FAIL_MEMORY(reterr);
	memcpy(kept, all, offsetof(struct media_extents, at) + all->count * sizeof all->at[0]);
	*ret = kept;
	return CEDE_OK;
}

/* Whether the range stands at the same place in the list (extents may have been joined). */
static bool is_mapped(
	const struct media_extents *all, uint64_t logical, uint64_t physical, uint64_t length) {
	while (length > 0) {
		bool found = false;
		for (uint32_t i = 0; i < all->count && !found; i++) {
			uint64_t from = all->at[i].logical;
			uint64_t end = from + all->at[i].length;
			if (logical < from || logical >= end)
				continue;
			if (all->at[i].physical + (logical - from) != physical)
				return false;
			uint64_t n = end - logical < length ? end - logical : length;
			logical += n;
			physical += n;
			length -= n;
			found = true;
		}
		if (!found)
			return false;
	}
	return true;
}

const char *media_compare(int fd, const struct media_extents *before) {
	CLEANUP(freep) struct fiemap *map = malloc(MAP_SIZE);
	CLEANUP(freep) struct media_extents *after = malloc(sizeof *after);

	if (before->unknown || map == NULL || after == NULL)
		return "extents-unknown";
	const char *reason = read_extents(fd, map, after);
	if (reason[0] != 0)
		return reason;
	for (uint32_t i = 0; i < before->count; i++)
		if (!is_mapped(after, before->at[i].logical, before->at[i].physical,
			    before->at[i].length))
			return "moved";
	return "";
}

void media_extents_free(struct media_extents *extents) {
	free(extents);
}
