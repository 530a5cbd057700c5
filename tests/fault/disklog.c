/* SPDX-License-Identifier: Apache-2.0
 * disklog MOUNTPOINT LOG IMAGE...: a file system with the files 0, 1, ..., each backed by an image, for
 * loop devices on top. Every write and every flush goes into LOG in the order of their arrival, all disks
 * together, so that a test can make each state in which a power failure may leave them: all up to the
 * last flush of a disk, and any part of what came after it (as dm-log-writes does). */
#define FUSE_USE_VERSION 31
#include <errno.h>
#include <fcntl.h>
#include <fuse3/fuse.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define DISKS_MOST 8

static int disks[DISKS_MOST];
static int disk_count;
static int log_fd = -1;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

struct entry {     /* little-endian as the machine; W is followed by its bytes */
	char type; /* W write, F flush */
	uint8_t disk;
	uint8_t zero[6];
	uint64_t offset;
	uint64_t size;
};

static void put(const void *data, size_t size) {
	for (const char *at = data; size > 0;) {
		ssize_t n = write(log_fd, at, size);
		if (n < 0) {
			perror("disklog: log");
			_exit(1);
		}
		at += n;
		size -= (size_t)n;
	}
}

static void record(char type, int disk, uint64_t offset, const char *data, size_t size) {
	struct entry e = {.type = type, .disk = (uint8_t)disk, .offset = offset, .size = size};

	put(&e, sizeof e);
	if (data != NULL)
		put(data, size);
}

static int disk_of(const char *path) {
	char *end;
	unsigned long n = strtoul(path + 1, &end, 10);

	return path[1] != 0 && *end == 0 && n < (unsigned long)disk_count ? (int)n : -1;
}

static int get_attributes(const char *path, struct stat *st, struct fuse_file_info *info) {
	(void)info;
	memset(st, 0, sizeof *st);
	if (strcmp(path, "/") == 0) {
		st->st_mode = S_IFDIR | 0700;
		st->st_nlink = 2;
		return 0;
	}
	int disk = disk_of(path);
	if (disk < 0)
		return -ENOENT;
	return fstat(disks[disk], st) < 0 ? -errno : 0;
}

static int open_disk(const char *path, struct fuse_file_info *info) {
	(void)info;
	return disk_of(path) < 0 ? -ENOENT : 0;
}

static int read_disk(
	const char *path, char *data, size_t size, off_t offset, struct fuse_file_info *info) {
	(void)info;
	ssize_t n = pread(disks[disk_of(path)], data, size, offset);
	return n < 0 ? -errno : (int)n;
}

static int write_disk(const char *path, const char *data, size_t size, off_t offset,
	struct fuse_file_info *info) {
	int disk = disk_of(path);

	(void)info;
	(void)pthread_mutex_lock(&lock);
	ssize_t n = pwrite(disks[disk], data, size, offset);
	int sys = errno;
	if (n > 0)
		record('W', disk, (uint64_t)offset, data, (size_t)n);
	(void)pthread_mutex_unlock(&lock);
	return n < 0 ? -sys : (int)n;
}

static int flush_disk(const char *path, int only_data, struct fuse_file_info *info) {
	(void)only_data;
	(void)info;
	(void)pthread_mutex_lock(&lock);
	record('F', disk_of(path), 0, NULL, 0);
	(void)pthread_mutex_unlock(&lock);
	return 0;
}

static const struct fuse_operations operations = {.getattr = get_attributes,
	.open = open_disk,
	.read = read_disk,
	.write = write_disk,
	.fsync = flush_disk};

int main(int argc, char **argv) {
	if (argc < 4 || argc - 3 > DISKS_MOST) {
		(void)fprintf(stderr, "usage: disklog MOUNTPOINT LOG IMAGE...\n");
		return 2;
	}
	for (int i = 3; i < argc; i++) {
		disks[disk_count] = open(argv[i], O_RDWR | O_CLOEXEC);
		if (disks[disk_count++] < 0) {
			perror(argv[i]);
			return 1;
		}
	}
	log_fd = open(argv[2], O_CREAT | O_TRUNC | O_WRONLY | O_APPEND | O_CLOEXEC, 0600);
	if (log_fd < 0) {
		perror(argv[2]);
		return 1;
	}
	char foreground[] = "-f";
	char *words[] = {argv[0], foreground, argv[1], NULL};
	return fuse_main(3, words, &operations, NULL);
}
