/* SPDX-License-Identifier: Apache-2.0
 * The wipe alone, as the agent calls it, or the raw cost of the same bytes; for tests/bench/wipe.
 *
 *   wipe_cost wipe DIR    wipes every file below DIR (two levels), in the agent's batches
 *   wipe_cost raw FILE    overwrites FILE once and flushes it once
 *   wipe_cost least DIR   overwrites, flushes and unlinks them in as many jobs, and does nothing else
 *
 * Prints seconds. */
#include <dirent.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "agent/core/flow_internal.h"
#include "agent/wipe/content.h"
#include "agent/wipe/wipe.h"
#include "base/check.h"
#include "base/cleanup.h"
#include "base/clock.h"

#define FILES_MOST   200000
#define FILES_WANTED 8192 /* agent/core/keeper.c */

static char *paths[FILES_MOST];
static size_t path_count;
static _Atomic size_t next;

static void list(int dirfd, const char *prefix) {
	int fd = openat(dirfd, prefix[0] == 0 ? "." : prefix, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *dir = fdopendir(fd);
	struct dirent *e;

	require(dir != NULL);
	while ((e = readdir(dir)) != NULL) {
		char path[512];
		if (e->d_name[0] == '.')
			continue;
		(void)snprintf(
			path, sizeof path, "%s%s%s", prefix, prefix[0] != 0 ? "/" : "", e->d_name);
		if (e->d_type == DT_DIR) {
			list(dirfd, path);
			continue;
		}
		require(path_count < FILES_MOST);
		paths[path_count++] = strdup(path);
	}
	(void)closedir(dir);
}

/* Batch after batch; so many of these at once as the agent has jobs. */
static void *job(void *ctx) {
	struct wipe_item *items = ctx;
	struct cede_error err = {0};

	for (;;) {
		size_t at = atomic_fetch_add(&next, WIPE_BATCH);
		if (at >= path_count)
			return NULL;
		size_t n = path_count - at < WIPE_BATCH ? path_count - at : WIPE_BATCH;
		require(wipe_batch(items + at, n, &err) == CEDE_OK);
	}
}

/* The agent wipes what was captured first, first. */
static int by_name(const void *a, const void *b) {
	return strcmp(*(char *const *)a, *(char *const *)b);
}

static int wipe(const char *top) {
	pthread_t jobs[WIPE_JOBS];
	int dirfd = open(top, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	struct wipe_item *items;
	size_t done = 0, current = 0;

	require(dirfd >= 0);
	list(dirfd, "");
	qsort(paths, path_count, sizeof paths[0], by_name);
	items = calloc(path_count + 1, sizeof *items);
	require(items != NULL);
	for (size_t i = 0; i < path_count; i++) {
		struct stat st;
		require(fstatat(dirfd, paths[i], &st, AT_SYMLINK_NOFOLLOW) == 0);
		items[i] = (struct wipe_item){.source_fd = dirfd,
			.path = paths[i],
			.want = file_identity_of(&st),
			.verify = i % VERIFY_SAMPLE == 0 ? WIPE_VERIFY_SAMPLE : WIPE_VERIFY_NONE};
	}
	int64_t began = clock_boot_ns();
	for (size_t i = 0; i < WIPE_JOBS; i++)
		require(pthread_create(&jobs[i], NULL, job, items) == 0);
	for (size_t i = 0; i < WIPE_JOBS; i++)
		require(pthread_join(jobs[i], NULL) == 0);
	int64_t took = clock_boot_ns() - began;
	for (size_t i = 0; i < path_count; i++) {
		done += items[i].outcome == WIPE_DONE;
		current += items[i].level == WIPE_OVERWRITTEN_CURRENT;
	}
	(void)printf("%.3f\n", (double)took / NS_PER_SECOND);
	(void)fprintf(stderr, "%zu files, %zu wiped, %zu overwritten-current\n", path_count, done,
		current);
	return done == path_count && current == done ? 0 : 1;
}

#define OPEN_AT_ONCE 1024 /* of each job */

/* What no wipe can leave out: each file is opened, overwritten, flushed before its name goes, unlinked, closed. */
static void *least_job(void *ctx) {
	const int *dirfd = ctx;
	CLEANUP(freep) int *fds = calloc(OPEN_AT_ONCE, sizeof *fds);
	struct cede_error err = {0};
	struct content c;

	require(fds != NULL && content_init(&c, &err) == CEDE_OK);
	for (;;) {
		size_t at = atomic_fetch_add(&next, OPEN_AT_ONCE);
		if (at >= path_count)
			break;
		size_t n = path_count - at < OPEN_AT_ONCE ? path_count - at : OPEN_AT_ONCE;
		for (size_t i = 0; i < n; i++) {
			struct stat st;
			fds[i] = openat(*dirfd, paths[at + i], O_RDWR | O_CLOEXEC);
			require(fds[i] >= 0 && fstat(fds[i], &st) == 0);
			require(content_overwrite(&c, fds[i], (uint64_t)st.st_size, false, &err) ==
				CEDE_OK);
			(void)sync_file_range(fds[i], 0, 0, SYNC_FILE_RANGE_WRITE);
		}
		require(syncfs(*dirfd) == 0);
		for (size_t i = 0; i < n; i++)
			require(unlinkat(*dirfd, paths[at + i], 0) == 0 && close(fds[i]) == 0);
	}
	content_done(&c);
	return NULL;
}

static int least(const char *top) {
	CLEANUP(fd_closep) int dirfd = open(top, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	pthread_t jobs[WIPE_JOBS];

	require(dirfd >= 0);
	list(dirfd, "");
	qsort(paths, path_count, sizeof paths[0], by_name);
	int64_t began = clock_boot_ns();
	for (size_t i = 0; i < WIPE_JOBS; i++)
		require(pthread_create(&jobs[i], NULL, least_job, &dirfd) == 0);
	for (size_t i = 0; i < WIPE_JOBS; i++)
		require(pthread_join(jobs[i], NULL) == 0);
	require(syncfs(dirfd) == 0); /* the names */
	(void)printf("%.3f\n", (double)(clock_boot_ns() - began) / NS_PER_SECOND);
	return 0;
}

static int raw(const char *path) {
	CLEANUP(fd_closep) int fd = open(path, O_RDWR | O_CLOEXEC);
	struct cede_error err = {0};
	struct content c;
	struct stat st;

	require(fd >= 0 && fstat(fd, &st) == 0 && content_init(&c, &err) == CEDE_OK);
	int64_t began = clock_boot_ns();
	require(content_overwrite(&c, fd, (uint64_t)st.st_size, false, &err) == CEDE_OK);
	require(fsync(fd) == 0);
	int64_t took = clock_boot_ns() - began;
	content_done(&c);
	(void)printf("%.3f\n", (double)took / NS_PER_SECOND);
	return 0;
}

int main(int argc, char **argv) {
	struct rlimit files;

	if (getrlimit(RLIMIT_NOFILE, &files) == 0 &&
		files.rlim_cur < FILES_WANTED) { /* as the agent */
		files.rlim_cur = files.rlim_max < FILES_WANTED ? files.rlim_max : FILES_WANTED;
		(void)setrlimit(RLIMIT_NOFILE, &files);
	}
	(void)signal(SIGIO, SIG_IGN);
	if (argc == 3 && strcmp(argv[1], "wipe") == 0)
		return wipe(argv[2]);
	if (argc == 3 && strcmp(argv[1], "raw") == 0)
		return raw(argv[2]);
	if (argc == 3 && strcmp(argv[1], "least") == 0)
		return least(argv[2]);
	(void)fprintf(stderr, "usage: wipe_cost wipe DIR | raw FILE | least DIR\n");
	return 2;
}
