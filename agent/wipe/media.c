/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/wipe/media.h"

#include <fcntl.h>
#include <limits.h>
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
#include "base/parse.h"

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

/* Whether a mount may write data into its journal, by its line of mountinfo. data=journal is not
 * said there where it is the default in the superblock (tune2fs -o journal_data); but it always
 * switches delayed allocation off, and that is said. */
static bool line_journals_data(const char *line) {
	if (strstr(line, " - xfs ") != NULL)
		return false;
	if (strstr(line, " - ext4 ") == NULL || strstr(line, "data=journal") != NULL)
		return true; /* of another type (ext3): not known */
	return strstr(line, "nodelalloc") != NULL && strstr(line, "data=ordered") == NULL &&
		strstr(line, "data=writeback") == NULL;
}

/* Whether the mount with this id may do so. */
static bool mount_journals_data(int mount_id) {
	CLEANUP(file_closep) FILE *f = fopen("/proc/self/mountinfo", "re");
	CLEANUP(freep) char *line = NULL;
	size_t room = 0;

	while (f != NULL && getline(&line, &room, f) > 0) {
		uint64_t id;
		const char *space = strchr(line, ' ');
		if (space != NULL &&
			parse_u64(slice_of(line, (size_t)(space - line)), 0, INT_MAX, &id, NULL) ==
				CEDE_OK &&
			id == (uint64_t)mount_id)
			return line_journals_data(line);
	}
	return true; /* can't be known: the worse */
}

static int mount_id_of(int fd) {
	struct statx st;

	if (statx(fd, "", AT_EMPTY_PATH, STATX_MNT_ID, &st) < 0 || (st.stx_mask & STATX_MNT_ID) == 0)
		return -1;
	return (int)st.stx_mnt_id;
}

static const char *journal_reason(int fd, struct media_mount *known) {
	unsigned flags = 0;

	if (ioctl(fd, FS_IOC_GETFLAGS, &flags) == 0 && (flags & FS_JOURNAL_DATA_FL) != 0)
		return "data-journalled";
	int mount = mount_id_of(fd);
	if (mount < 0)
		return "unknown-mount";
	if (mount != known->id)
		*known = (struct media_mount){mount, mount_journals_data(mount)};
	return known->journals_data ? "data-journalled" : "";
}

static const char *place_reason(int fd, struct media_mount *known) {
	const char *reason = file_system_reason(fd);

	return reason[0] != 0 ? reason : journal_reason(fd, known);
}

const char *media_directory(int dirfd) {
	struct media_mount mount = MEDIA_MOUNT_UNKNOWN;

	return place_reason(dirfd, &mount);
}

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

int media_look(int fd, struct media_mount *known, struct media_extents **ret,
	const char **ret_reason, struct cede_error *reterr) {
	CLEANUP(freep) struct fiemap *map = malloc(MAP_SIZE);
	CLEANUP(freep) struct media_extents *all = malloc(sizeof *all);

	if (map == NULL || all == NULL)
		return CEDE_FAIL_MEMORY(reterr);
	*ret_reason = place_reason(fd, known);
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
