/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/wipe/disk.h"

#include <fcntl.h>
#include <ftw.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"

#define IMAGE_SIZE (320 << 20) /* the smallest that mkfs.xfs takes is 300 MiB; sparse */
#define WORDS_MAX  16

static char path_words[] = "PATH=/usr/sbin:/usr/bin:/sbin:/bin";

int disk_run(const char *words) {
	CLEANUP(freep) char *copy = strdup(words);
	char *argv[WORDS_MAX + 1];
	char *rest = NULL;
	char *environment[] = {path_words, NULL};
	size_t n = 0;
	posix_spawn_file_actions_t quiet;
	pid_t pid;
	int status = -1;

	for (char *w = strtok_r(copy, " ", &rest); w != NULL && n < WORDS_MAX;
		w = strtok_r(NULL, " ", &rest))
		argv[n++] = w;
	argv[n] = NULL;
	posix_spawn_file_actions_init(&quiet);
	posix_spawn_file_actions_addopen(&quiet, 1, "/dev/null", O_WRONLY, 0);
	posix_spawn_file_actions_addopen(&quiet, 2, "/dev/null", O_WRONLY, 0);
	int r = posix_spawnp(&pid, argv[0], &quiet, NULL, argv, environment);
	posix_spawn_file_actions_destroy(&quiet);
	if (r != 0 || waitpid(pid, &status, 0) != pid || !WIFEXITED(status))
		return -1;
	return WEXITSTATUS(status);
}

bool disk_init(struct disk *disk, const char *mkfs, const char *tune, const char *options) {
	char words[512];

	*disk = (struct disk){.mounted = false};
	if (geteuid() != 0)
		return false;
	(void)snprintf(disk->home, sizeof disk->home, "/var/tmp/wipe-XXXXXX");
	if (mkdtemp(disk->home) == NULL)
		return false;
	(void)snprintf(disk->image, sizeof disk->image, "%s/image", disk->home);
	(void)snprintf(disk->mount, sizeof disk->mount, "%s/mount", disk->home);
	CLEANUP(fd_closep) int fd = open(disk->image, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (fd < 0 || ftruncate(fd, IMAGE_SIZE) < 0 || mkdir(disk->mount, 0700) < 0)
		return false;
	(void)snprintf(words, sizeof words, "%s %s", mkfs, disk->image);
	if (disk_run(words) != 0)
		return false;
	(void)snprintf(words, sizeof words, "%s %s", tune == NULL ? "true" : tune, disk->image);
	if (disk_run(words) != 0)
		return false;
	(void)snprintf(words, sizeof words, "mount -o loop%s%s %s %s", options[0] != 0 ? "," : "",
		options, disk->image, disk->mount);
	disk->mounted = disk_run(words) == 0;
	return disk->mounted;
}

static void unmount(struct disk *disk) {
	char words[160];

	(void)snprintf(words, sizeof words, "umount %s", disk->mount);
	if (disk->mounted && disk_run(words) != 0)
		(void)fprintf(stderr, "# can't unmount %s\n", disk->mount);
	disk->mounted = false;
}

bool disk_each(struct disk *disk, const char *text,
	void (*fn)(void *ctx, const char *at, size_t left), void *ctx) {
	size_t n = strlen(text);

	unmount(disk);
	CLEANUP(fd_closep) int fd = open(disk->image, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return false;
	char *all = mmap(NULL, IMAGE_SIZE, PROT_READ, MAP_PRIVATE, fd, 0);
	if (all == MAP_FAILED)
		return false;
	const char *end = all + IMAGE_SIZE;
	for (off_t from = 0; (from = lseek(fd, from, SEEK_DATA)) >= 0;) { /* a hole holds nothing */
		off_t to = lseek(fd, from, SEEK_HOLE);
		const char *at = all + from;
		while ((at = memmem(at, (size_t)(all + to - at), text, n)) != NULL) {
			fn(ctx, at + n, (size_t)(end - at) - n);
			at += n;
		}
		from = to;
	}
	(void)munmap(all, IMAGE_SIZE);
	return true;
}

static int take_away(const char *path, const struct stat *st, int kind, struct FTW *ftw) {
	(void)st;
	(void)kind;
	(void)ftw;
	return remove(path);
}

void disk_done(struct disk *disk) {
	unmount(disk);
	if (disk->home[0] != 0)
		(void)nftw(disk->home, take_away, 16, FTW_DEPTH | FTW_PHYS | FTW_MOUNT);
	disk->home[0] = 0;
}
