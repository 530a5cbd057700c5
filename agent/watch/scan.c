/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/watch/scan.h"

#include <fcntl.h>
#include <limits.h>
#include <linux/magic.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/vfs.h>

#include "base/check.h"
#include "base/cleanup.h"
#include "base/clock.h"

#define FUSE_MAGIC 0x65735546U
#define PASSING_NS (10 * NS_PER_SECOND)

struct scan {
	uv_async_t wake; /* walk -> loop: a batch is there, or the end */
	uv_thread_t thread;
	const struct policy *policy;
	size_t source;
	int dir_fd; /* borrowed, or -1 */
	char *path;
	struct tree *tree;
	struct scan_events events;
	struct scan_result result;

	pthread_mutex_t lock; /* what follows */
	pthread_cond_t taken;
	struct findings batch; /* non-empty: for the loop to take */
	bool paused;           /* the loop wants no more for now */
	bool finished;
	_Atomic bool stop;
};

struct walk { /* of the thread alone */
	struct scan *scan;
	int source_fd;
	char **stack; /* directories still to be listed */
	size_t count;
	size_t room;
	struct findings found;
};

static bool has_events(int fd) {
	struct statfs fs;

	if (fstatfs(fd, &fs) < 0)
		return false;
	switch ((uint32_t)fs.f_type) {
	case NFS_SUPER_MAGIC:
	case SMB_SUPER_MAGIC:
	case CIFS_SUPER_MAGIC:
	case SMB2_SUPER_MAGIC:
	case FUSE_MAGIC:
		return false;
	default:
		return true;
	}
}

/* Gives the batch to the loop and waits until it was taken. */
static void deliver(struct walk *w) {
	struct scan *s = w->scan;

	if (w->found.count == 0)
		return;
	(void)pthread_mutex_lock(&s->lock);
	s->batch = w->found;
	w->found = (struct findings){0};
	(void)uv_async_send(&s->wake);
	while ((s->batch.count > 0 || s->paused) && !s->stop)
		(void)pthread_cond_wait(&s->taken, &s->lock);
	findings_done(&s->batch); /* only if it is to stop */
	(void)pthread_mutex_unlock(&s->lock);
}

static int push(struct walk *w, const char *path, struct cede_error *reterr) {
	if (w->count == w->room) {
		size_t room = w->room == 0 ? 64 : w->room * 2;
		char **stack = reallocarray(w->stack, room, sizeof *stack);
		if (stack == NULL)
			return CEDE_FAIL_MEMORY(reterr);
		w->stack = stack;
		w->room = room;
	}
	char *copy = strdup(path);
	if (copy == NULL)
		return CEDE_FAIL_MEMORY(reterr);
	w->stack[w->count++] = copy;
	return CEDE_OK;
}

/* A name that is gone again is no directory. */
static int is_directory(int dirfd, const struct dirent *entry, bool *ret, struct cede_error *reterr) {
	struct stat st = {0};

	*ret = entry->d_type == DT_DIR;
	if (entry->d_type != DT_UNKNOWN)
		return CEDE_OK;
	if (fstatat(dirfd, entry->d_name, &st, AT_SYMLINK_NOFOLLOW) < 0 && errno != ENOENT)
		return CEDE_FAIL_SYS(reterr, "stat");
	*ret = S_ISDIR(st.st_mode);
	return CEDE_OK;
}

/* What our own wipe is about to unlink: only if it is there still some time later, it is a file. */
static bool is_passing(const char *name) {
	return strncmp(name, FILE_ASIDE_PREFIX, sizeof FILE_ASIDE_PREFIX - 1) == 0;
}

/* What could not be looked at is said, each with its name: nothing is passed over in silence. */
static int unreached(
	struct walk *w, const char *path, const struct cede_error *why, struct cede_error *reterr) {
	enum reason reason = check_why(why);

	w->scan->result.failed += reason == REASON_UNREADABLE;
	return check_refused(w->scan->source, path, reason, &w->found, reterr);
}

/* One name of a directory. A name that can't be looked at is counted, and the walk goes on. */
static int visit(struct walk *w, int dirfd, const char *directory, const struct dirent *entry,
	struct cede_error *reterr) {
	struct scan *s = w->scan;
	char path[PATH_MAX + NAME_MAX + 1];
	struct cede_error err = {0};

	if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
		return CEDE_OK;
	int n = snprintf(path, sizeof path, "%s%s%s", directory, directory[0] != 0 ? "/" : "",
		entry->d_name);
	require(n > 0 && (size_t)n < sizeof path); /* the directory was opened by its path */
	if (n >= PATH_MAX)
		return check_refused(s->source, path, REASON_PATH_TOO_LONG, &w->found, reterr);
	bool deeper;
	if (is_directory(dirfd, entry, &deeper, &err) < 0)
		return unreached(w, path, &err, reterr);
	if (deeper)
		return push(w, path, reterr);
	if (is_passing(entry->d_name))
		return check_later(s->source, path, clock_wall_ns() + PASSING_NS, &w->found, reterr);
	s->result.files++;
	const struct check_place place = {
		.source = s->source, .source_fd = w->source_fd, .dirfd = dirfd};
	if (check_entry(s->policy, &place, path, clock_wall_ns(), &w->found, &err) < 0)
		return unreached(w, path, &err, reterr);
	return CEDE_OK;
}

static int list(struct walk *w, const char *path, struct cede_error *reterr) {
	struct scan *s = w->scan;
	CLEANUP(fd_closep) int fd = -1;
	CLEANUP(dir_closep) DIR *dir = NULL;
	struct dirent *entry = NULL;
	struct cede_error err = {0};

	int r = file_open_beneath(
		w->source_fd, path[0] != 0 ? path : ".", O_RDONLY | O_DIRECTORY, &fd, &err);
	if (r < 0) {
		if (path[0] == 0) {
			*reterr = err;
			return r;
		}
		if (err.sys == ENOENT || err.sys == ENOTDIR)
			return CEDE_OK;
		return unreached(w, path, &err, reterr);
	}
	s->result.directories++;
	if (!has_events(fd) ||
		tree_watch(s->tree, s->source, path, fd,
			s->policy->sources[s->source].wipe_require == WIPE_REQUIRE_WATCHED, &err) < 0)
		s->result.unwatched = true;
	dir = fdopendir(fd);
	if (dir == NULL)
		return CEDE_FAIL_SYS(reterr, "list a directory");
	int listing = CEDE_TAKE_FD(fd); /* belongs to dir now */
	while (!s->stop && (errno = 0, entry = readdir(dir)) != NULL) {
		CEDE_TRY(visit(w, listing, path, entry, reterr));
		if (w->found.count >= SCAN_BATCH)
			deliver(w);
	}
	if (entry == NULL && errno != 0 && !s->stop) { /* its rest is not known */
		(void)CEDE_FAIL_SYS(&err, "list a directory");
		return unreached(w, path, &err, reterr);
	}
	return CEDE_OK;
}

static int walk_tree(struct walk *w, struct cede_error *reterr) {
	struct scan *s = w->scan;

	CEDE_TRY(s->dir_fd >= 0 ? file_open_beneath(s->dir_fd, ".", O_RDONLY | O_DIRECTORY,
					  &w->source_fd, reterr)
				: file_open_dir(AT_FDCWD, s->policy->sources[s->source].path,
					  &w->source_fd, reterr));
	CEDE_TRY(push(w, s->path, reterr));
	while (w->count > 0 && !s->stop) {
		char *path = w->stack[--w->count];
		int r = list(w, path, reterr);
		free(path);
		CEDE_TRY(r);
		if (w->found.count >= SCAN_BATCH)
			deliver(w);
	}
	return CEDE_OK;
}

static void walk_thread(void *arg) {
	struct scan *s = arg;
	struct walk w = {.scan = s, .source_fd = -1};
	int64_t began = clock_boot_ns();

	if (walk_tree(&w, &s->result.err) == CEDE_OK)
		deliver(&w);
	findings_done(&w.found);
	while (w.count > 0)
		free(w.stack[--w.count]);
	free(w.stack);
	s->result.fd = w.source_fd;
	s->result.took_ns = clock_boot_ns() - began;
	(void)pthread_mutex_lock(&s->lock);
	s->finished = true;
	(void)uv_async_send(&s->wake);
	(void)pthread_mutex_unlock(&s->lock);
}

static void closed(uv_handle_t *handle) {
	struct scan *s = handle->data;
	struct scan_events events = s->events;
	struct scan_result result = s->result;
	char *path = s->path;
	size_t source = s->source;

	findings_done(&s->batch);
	(void)pthread_mutex_destroy(&s->lock);
	(void)pthread_cond_destroy(&s->taken);
	free(s);
	events.ended(events.ctx, source, path, &result);
	free(path);
}

static void on_wake(uv_async_t *handle) {
	struct scan *s = handle->data;
	struct findings batch;

	(void)pthread_mutex_lock(&s->lock);
	batch = s->batch;
	s->batch = (struct findings){0};
	bool finished = s->finished;
	(void)pthread_mutex_unlock(&s->lock);

	bool more = batch.count == 0 || s->stop || s->events.found(s->events.ctx, &batch);
	findings_done(&batch);
	(void)pthread_mutex_lock(&s->lock);
	s->paused = !more;
	(void)pthread_cond_signal(&s->taken);
	(void)pthread_mutex_unlock(&s->lock);
	if (finished && !uv_is_closing((uv_handle_t *)handle)) {
		(void)uv_thread_join(&s->thread);
		uv_close((uv_handle_t *)handle, closed);
	}
}

void scan_more(struct scan *s) {
	(void)pthread_mutex_lock(&s->lock);
	s->paused = false;
	(void)pthread_cond_signal(&s->taken);
	(void)pthread_mutex_unlock(&s->lock);
}

void scan_stop(struct scan *s) {
	(void)pthread_mutex_lock(&s->lock);
	s->stop = true;
	(void)pthread_cond_signal(&s->taken);
	(void)pthread_mutex_unlock(&s->lock);
}

int scan_start(uv_loop_t *loop, const struct policy *policy, size_t source, int dir_fd,
	const char *path, struct tree *tree, const struct scan_events *events, struct scan **ret,
	struct cede_error *reterr) {
	struct scan *s = calloc(1, sizeof *s);
	char *copy = strdup(path);

	if (s == NULL || copy == NULL || uv_async_init(loop, &s->wake, on_wake) != 0) {
		free(s);
		free(copy);
		return CEDE_FAIL_MEMORY(reterr);
	}
	s->wake.data = s;
	s->policy = policy;
	s->source = source;
	s->dir_fd = dir_fd;
	s->path = copy;
	s->tree = tree;
	s->events = *events;
	s->result.fd = -1;
	require(pthread_mutex_init(&s->lock, NULL) == 0 && pthread_cond_init(&s->taken, NULL) == 0);
	int r = uv_thread_create(&s->thread, walk_thread, s);
	require(r == 0 || r == UV_EAGAIN);
	if (r != 0) { /* no thread to be had: ends as a failed scan, so that the caller tries again */
		s->stop = true;
		s->result.err = (struct cede_error){
			.code = CEDE_ERR_BUSY, .sys = EAGAIN, .text = "no thread for a scan"};
		uv_close((uv_handle_t *)&s->wake, closed);
	}
	*ret = s;
	return CEDE_OK;
}
