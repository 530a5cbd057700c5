/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/wipe/scrub.h"

#include <errno.h>
#include <linux/magic.h>
#include <linux/types.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/vfs.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/clock.h"

/* linux/ext4.h is no user header */
#define EXT4_IOC_CHECKPOINT _IOW('f', 43, __u32)
#define FLAG_ZEROOUT        2U
#define FLAG_DRY_RUN        4U
#define VALUE_MAX           65536U /* XATTR_SIZE_MAX */

bool scrub_possible(int dirfd) {
	uint32_t flags = FLAG_ZEROOUT | FLAG_DRY_RUN;
	struct statfs fs;

	if (fstatfs(dirfd, &fs) < 0 || fs.f_type != EXT4_SUPER_MAGIC)
		return false;
	/* ENODEV: it has no journal, so nothing stays in one */
	return ioctl(dirfd, EXT4_IOC_CHECKPOINT, &flags) == 0 || errno == ENODEV;
}

enum scrub_result scrub_journal(int dirfd, int64_t *ret_took_ns) {
	int64_t began = clock_boot_ns();
	uint32_t flags = FLAG_ZEROOUT;

	*ret_took_ns = 0;
	if (!scrub_possible(dirfd))
		return SCRUB_NOT_HERE;
	if (syncfs(dirfd) < 0)
		return SCRUB_FAILED;
	if (ioctl(dirfd, EXT4_IOC_CHECKPOINT, &flags) < 0 && errno != ENODEV)
		return SCRUB_FAILED;
	*ret_took_ns = clock_boot_ns() - began;
	return SCRUB_DONE;
}

/* Calls one for each user attribute; whether there was any. Most files have no attribute at all. */
static bool each_attribute(
	int fd, void (*one)(int fd, const char *name, const uint8_t *noise), const uint8_t *noise) {
	ssize_t size = flistxattr(fd, NULL, 0);
	CLEANUP(freep) char *list = size > 0 ? malloc((size_t)size) : NULL;
	ssize_t n = list == NULL ? 0 : flistxattr(fd, list, (size_t)size);
	bool some = size > 0 && n <= 0; /* they changed, or there is no memory: the worse */

	for (ssize_t at = 0; at < n; at += (ssize_t)strlen(list + at) + 1) {
		if (strncmp(list + at, "user.", 5) != 0)
			continue;
		some = true;
		one(fd, list + at, noise);
	}
	return some;
}

static void overwrite(int fd, const char *name, const uint8_t *noise) {
	ssize_t size = fgetxattr(fd, name, NULL, 0);

	if (size > 0 && size <= (ssize_t)VALUE_MAX)
		(void)fsetxattr(fd, name, noise, (size_t)size, XATTR_REPLACE);
}

static void take_away(int fd, const char *name, const uint8_t *noise) {
	(void)noise;
	(void)fremovexattr(fd, name);
}

bool scrub_attributes(int fd, const uint8_t *noise) {
	return each_attribute(fd, overwrite, noise);
}

void scrub_attributes_remove(int fd) {
	(void)each_attribute(fd, take_away, NULL);
}
