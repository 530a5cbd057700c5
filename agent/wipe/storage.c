/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/wipe/storage.h"

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

#include "agent/wipe/scrub.h"
#include "base/cleanup.h"
#include "base/parse.h"

#define EXTENTS_MAX 256
#define XFS_MAGIC   0x58465342U

struct storage_extents {
	uint32_t count;
	bool unknown; /* too many, or the file system has no FIEMAP */

	struct {
		uint64_t logical, physical, length;
	} at[EXTENTS_MAX];
};

/* Where overwriting in place reaches the blocks at all: measured for ext4 and xfs alone. */
static wipe_reasons file_system_reasons(uint32_t type) {
	switch (type) {
	case EXT4_SUPER_MAGIC:
	case XFS_MAGIC:
		return 0;
	case BTRFS_SUPER_MAGIC:
		return WIPE_BIT(COPY_ON_WRITE);
	case OVERLAYFS_SUPER_MAGIC:
		return WIPE_BIT(OVERLAY);
	case TMPFS_MAGIC:
	case RAMFS_MAGIC:
		return WIPE_BIT(MEMORY);
	case NFS_SUPER_MAGIC:
	case SMB_SUPER_MAGIC:
	case SMB2_SUPER_MAGIC:
	case CIFS_SUPER_MAGIC:
	case V9FS_MAGIC:
	case CEPH_SUPER_MAGIC:
	case AFS_FS_MAGIC:
		return WIPE_BIT(NETWORK);
	default:
		return WIPE_BIT(UNKNOWN_FILE_SYSTEM);
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

static void look_at_mount(int fd, int id, struct storage_mount *ret) {
	struct statfs fs;
	bool told = fstatfs(fd, &fs) == 0;
	uint32_t type = told ? (uint32_t)fs.f_type : 0;

	*ret = (struct storage_mount){.id = id, .is_ext4 = type == EXT4_SUPER_MAGIC};
	ret->can_scrub = ret->is_ext4 && scrub_possible(fd);
	ret->reasons = file_system_reasons(type);
	if (ret->reasons == 0 && mount_journals_data(id))
		ret->reasons = WIPE_BIT(DATA_JOURNALLED);
}

void storage_mount_of(int fd, struct storage_mount *known) {
	int id = mount_id_of(fd);

	if (id < 0)
		*known = (struct storage_mount){.id = -1, .reasons = WIPE_BIT(UNKNOWN_MOUNT)};
	else if (id != known->id)
		look_at_mount(fd, id, known);
}

/* What file system, mount and flags say, for a file or a directory. */
static wipe_reasons place_reasons(int fd, const struct storage_mount *mount) {
	unsigned flags = 0;

	if (mount->is_ext4 && ioctl(fd, FS_IOC_GETFLAGS, &flags) == 0 &&
		(flags & FS_JOURNAL_DATA_FL) != 0)
		return mount->reasons | WIPE_BIT(DATA_JOURNALLED);
	return mount->reasons;
}

enum wipe_level storage_directory(int dirfd, bool scrubs, wipe_reasons *ret_reasons) {
	struct storage_mount mount = STORAGE_MOUNT_UNKNOWN;

	storage_mount_of(dirfd, &mount);
	*ret_reasons = place_reasons(dirfd, &mount);
	if (scrubs && mount.can_scrub)
		*ret_reasons &= ~WIPE_SCRUB_LIFTS;
	return wipe_best(*ret_reasons);
}

#define MAP_SIZE (sizeof(struct fiemap) + EXTENTS_MAX * sizeof(struct fiemap_extent))

/* The present extents. Blocks that are only in memory yet (delayed) have no place: what reaches the
 * disk for them will be the overwritten content, unless they were written out meanwhile. So it is not
 * asked for them to be written (FIEMAP_FLAG_SYNC): that would bring the content to the disk first. */
static wipe_reasons read_extents(int fd, struct fiemap *map, struct storage_extents *ret) {
	wipe_reasons reasons = 0;

	memset(map, 0, sizeof *map);
	map->fm_length = FIEMAP_MAX_OFFSET;
	map->fm_extent_count = EXTENTS_MAX;
	ret->count = 0;
	ret->unknown = false;
	if (ioctl(fd, FS_IOC_FIEMAP, map) < 0)
		return WIPE_BIT(EXTENTS_UNKNOWN);
	for (uint32_t i = 0; i < map->fm_mapped_extents; i++) {
		const struct fiemap_extent *e = &map->fm_extents[i];
		if (e->fe_flags & FIEMAP_EXTENT_SHARED)
			reasons |= WIPE_BIT(SHARED_EXTENTS);
		if (e->fe_flags & FIEMAP_EXTENT_DATA_INLINE) {
			reasons |= WIPE_BIT(INLINE_DATA); /* these are never aligned either */
			continue;
		}
		if (e->fe_flags & (FIEMAP_EXTENT_ENCODED | FIEMAP_EXTENT_NOT_ALIGNED))
			reasons |= WIPE_BIT(ENCODED_EXTENTS);
		if (e->fe_flags & (FIEMAP_EXTENT_DELALLOC | FIEMAP_EXTENT_UNKNOWN))
			continue;
		ret->at[ret->count].logical = e->fe_logical;
		ret->at[ret->count].physical = e->fe_physical;
		ret->at[ret->count++].length = e->fe_length;
	}
	ret->unknown = map->fm_mapped_extents == EXTENTS_MAX &&
		(map->fm_extents[EXTENTS_MAX - 1].fe_flags & FIEMAP_EXTENT_LAST) == 0;
	return ret->unknown ? reasons | WIPE_BIT(TOO_MANY_EXTENTS) : reasons;
}

int storage_look(int fd, const struct storage_mount *mount, struct storage_extents **ret,
	wipe_reasons *ret_reasons, struct cede_error *reterr) {
	CLEANUP(freep) struct fiemap *map = malloc(MAP_SIZE);
	CLEANUP(freep) struct storage_extents *all = malloc(sizeof *all);

	if (map == NULL || all == NULL)
		return CEDE_FAIL_MEMORY(reterr);
	*ret_reasons = place_reasons(fd, mount);
	all->count = 0;
	all->unknown = false;
	/* where nothing is overwritten in place there is nothing to compare later */
	if ((*ret_reasons & ~WIPE_SCRUB_LIFTS) == 0)
		*ret_reasons |= read_extents(fd, map, all);
	/* most files have one or two extents: keep only what is used */
	struct storage_extents *kept =
		malloc(offsetof(struct storage_extents, at) + (all->count + 1) * sizeof all->at[0]);
	if (kept == NULL)
		return CEDE_FAIL_MEMORY(reterr);
	memcpy(kept, all, offsetof(struct storage_extents, at) + all->count * sizeof all->at[0]);
	*ret = kept;
	return CEDE_OK;
}

/* Whether the range stands at the same place in the list (extents may have been joined). */
static bool is_mapped(
	const struct storage_extents *all, uint64_t logical, uint64_t physical, uint64_t length) {
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

wipe_reasons storage_compare(int fd, const struct storage_extents *before) {
	CLEANUP(freep) struct fiemap *map = malloc(MAP_SIZE);
	CLEANUP(freep) struct storage_extents *after = malloc(sizeof *after);

	if (before->unknown || map == NULL || after == NULL)
		return WIPE_BIT(EXTENTS_UNKNOWN);
	wipe_reasons reasons = read_extents(fd, map, after);
	for (uint32_t i = 0; i < before->count; i++)
		if (!is_mapped(after, before->at[i].logical, before->at[i].physical,
			    before->at[i].length))
			reasons |= WIPE_BIT(MOVED);
	return reasons;
}

void storage_extents_free(struct storage_extents *extents) {
	free(extents);
}
