/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/watch/tree.h"

#include <limits.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <unistd.h>

#include "base/check.h"
#include "base/clock.h"
#include "base/file.h"

/* EXCL_UNLINK: what is closed after it was unlinked (our own wipes) is no news. */
#define MASK                                                                         \
	(IN_CLOSE_WRITE | IN_MOVED_TO | IN_MOVED_FROM | IN_CREATE | IN_DELETE_SELF | \
		IN_MOVE_SELF | IN_ONLYDIR | IN_EXCL_UNLINK)
#define CLOSELY     (IN_MODIFY | IN_DELETE)
#define BUCKETS     4096
#define READS       64 /* at once */
#define READ_BUFFER 65536

struct watched {
	struct watched *chain;
	int wd;
	size_t source;
	bool closely;
	bool listed; /* since it is watched */
	char path[]; /* "" or "a/b" */
};

struct tree {
	uv_poll_t poll;
	int fd;
	int64_t emptied_ns; /* nothing that came before is still to be told */
	struct tree_events events;
	pthread_mutex_t lock; /* the table below: scans add from their threads */
	struct watched *bucket[BUCKETS];
	size_t count;
	void (*on_closed)(void *ctx);
	void *ctx;
};

static struct watched **place(struct tree *t, int wd) {
	struct watched **at = &t->bucket[(unsigned)wd % BUCKETS];

	while (*at != NULL && (*at)->wd != wd)
		at = &(*at)->chain;
	return at;
}

int tree_watch(struct tree *t, size_t source, const char *path, int dirfd, bool closely,
	struct cede_error *reterr) {
	char name[64];
	size_t len = strlen(path) + 1;
	struct watched *w = malloc(sizeof *w + len);

	if (w == NULL)
		return CEDE_FAIL_MEMORY(reterr);
	*w = (struct watched){.source = source, .closely = closely};
	memcpy(w->path, path, len);
	(void)snprintf(name, sizeof name, "/proc/self/fd/%d", dirfd);

	/* the lock spans both steps: an event for this wd is looked up only when it is in the table */
	(void)pthread_mutex_lock(&t->lock);
	int wd = inotify_add_watch(t->fd, name, closely ? MASK | CLOSELY : MASK);
	int sys = errno;
	if (wd >= 0) {
		struct watched **at = place(t, wd);
		w->wd = wd;
		if (*at != NULL) { /* watched already, perhaps under another name since a move */
			w->chain = (*at)->chain;
			w->listed = (*at)->listed && (*at)->source == source &&
				strcmp((*at)->path, path) == 0;
			free(*at);
			t->count--;
		}
		*at = w;
		t->count++;
	}
	(void)pthread_mutex_unlock(&t->lock);
	if (wd >= 0)
		return CEDE_OK;
	free(w);
	errno = sys;
	if (sys == ENOSPC)
		return CEDE_FAIL(reterr, CEDE_ERR_BUSY,
			"no inotify watches left; raise fs.inotify.max_user_watches");
	return CEDE_FAIL_SYS(reterr, "watch a directory");
}

static void forget(struct tree *t, int wd) {
	(void)pthread_mutex_lock(&t->lock);
	struct watched **at = place(t, wd);
	struct watched *w = *at;
	if (w != NULL) {
		*at = w->chain;
		t->count--;
	}
	(void)pthread_mutex_unlock(&t->lock);
	free(w);
}

/* A directory left its place: what was watched below it has wrong names now. */
static void forget_below(struct tree *t, size_t source, const char *path) {
	size_t len = strlen(path);

	(void)pthread_mutex_lock(&t->lock);
	for (size_t i = 0; i < BUCKETS; i++)
		for (struct watched *w = t->bucket[i]; w != NULL; w = w->chain)
			if (w->source == source && strncmp(w->path, path, len) == 0 &&
				(w->path[len] == 0 || w->path[len] == '/'))
				(void)inotify_rm_watch(t->fd, w->wd); /* IN_IGNORED follows */
	(void)pthread_mutex_unlock(&t->lock);
}

/* The name of what an event is about, relative to its source; false if its watch is gone. */
static bool name_of(struct tree *t, const struct inotify_event *e, size_t *ret_source,
	bool *ret_closely, bool *ret_listed, char path[PATH_MAX + 1]) {
	bool known = false;

	(void)pthread_mutex_lock(&t->lock);
	const struct watched *w = *place(t, e->wd);
	if (w != NULL) {
		const char *name = e->len > 0 ? e->name : "";
		int n = snprintf(path, PATH_MAX + 1, "%s%s%s", w->path,
			w->path[0] != 0 && name[0] != 0 ? "/" : "", name);
		known = n >= 0 && n < PATH_MAX; /* longer ones: the next scan says them */
		*ret_source = w->source;
		*ret_closely = w->closely;
		*ret_listed = w->listed;
	}
	(void)pthread_mutex_unlock(&t->lock);
	return known;
}

/* Our own wipe puts a name aside for a moment: that is none that a camera gives. */
static bool is_aside(const struct inotify_event *e) {
	return e->len > 0 && strncmp(e->name, FILE_ASIDE_PREFIX, sizeof FILE_ASIDE_PREFIX - 1) == 0;
}

static void tell_life(struct tree *t, const struct inotify_event *e, size_t source, bool listed,
	const char *path) {
	static const struct {
		uint32_t mask;
		enum tree_life what;
	} kinds[] = {{IN_CREATE, TREE_MADE}, {IN_MODIFY, TREE_WRITTEN}, {IN_CLOSE_WRITE, TREE_CLOSED},
		{IN_MOVED_FROM, TREE_LEFT}, {IN_MOVED_TO, TREE_CAME}, {IN_DELETE, TREE_ENDED}};

	struct tree_life_event life = {.source = source,
		.path = path,
		.cookie = e->cookie,
		.known = listed,
		.since_ns = t->emptied_ns};

	if ((e->mask & IN_ISDIR) != 0 || e->len == 0 || is_aside(e))
		return;
	for (size_t i = 0; i < ARRAY_LENGTH(kinds); i++)
		if ((e->mask & kinds[i].mask) != 0) {
			life.what = kinds[i].what;
			t->events.life(t->events.ctx, &life);
		}
}

/* What was listed is so no more: something escaped notice. */
static void lost(struct tree *t) {
	(void)pthread_mutex_lock(&t->lock);
	for (size_t i = 0; i < BUCKETS; i++)
		for (struct watched *w = t->bucket[i]; w != NULL; w = w->chain)
			w->listed = false;
	(void)pthread_mutex_unlock(&t->lock);
	t->events.gap(t->events.ctx);
}

static void dispatch(struct tree *t, const struct inotify_event *e) {
	char path[PATH_MAX + 1];
	size_t source;
	bool closely, listed;

	if (e->mask & IN_Q_OVERFLOW) {
		lost(t);
		return;
	}
	if (e->mask & IN_IGNORED) {
		forget(t, e->wd);
		return;
	}
	if (!name_of(t, e, &source, &closely, &listed, path))
		return; /* a watch that was just removed */
	if (closely)
		tell_life(t, e, source, listed, path);
	if (e->mask & (IN_DELETE_SELF | IN_MOVE_SELF | IN_UNMOUNT)) {
		if (path[0] == 0) /* the source itself */
			t->events.directory(t->events.ctx, source, "");
	} else if ((e->mask & IN_ISDIR) && (e->mask & IN_MOVED_FROM)) {
		forget_below(t, source, path);
		t->events.moved(t->events.ctx, source, path);
	} else if ((e->mask & IN_ISDIR) && (e->mask & (IN_CREATE | IN_MOVED_TO))) {
		t->events.directory(t->events.ctx, source, path);
	} else if ((e->mask & IN_MOVED_TO) && is_aside(e)) {
		return; /* our own wipe; what would stay under such a name a scan finds */
	} else if (e->mask & (IN_CREATE | IN_MOVED_TO | IN_CLOSE_WRITE)) {
		t->events.file(t->events.ctx, source, path, (e->mask & IN_CREATE) == 0);
	}
}

/* False: there is nothing more for now. */
static bool read_some(struct tree *t) {
	char buffer[READ_BUFFER] __attribute__((aligned(__alignof__(struct inotify_event))));
	int64_t now = clock_wall_ns();
	ssize_t n = read(t->fd, buffer, sizeof buffer);

	if (n < 0) {
		if (errno == EAGAIN)
			t->emptied_ns = now;
		else if (errno != EINTR)
			lost(t);
		return false;
	}
	for (ssize_t at = 0; at < n;) {
		struct inotify_event head;
		memcpy(&head, buffer + at, sizeof head);
		dispatch(t, (const struct inotify_event *)(const void *)(buffer + at));
		at += (ssize_t)(sizeof head + head.len);
	}
	return n > 0;
}

void tree_drain(struct tree *t) {
	for (size_t i = 0; i < READS && read_some(t); i++)
		;
}

static void on_readable(uv_poll_t *poll, int status, int events) {
	struct tree *t = poll->data;

	(void)events;
	if (status < 0)
		lost(t);
	else
		tree_drain(t);
}

static bool is_at_or_below(const char *path, const char *of) {
	size_t len = strlen(of);

	return len == 0 || (strncmp(path, of, len) == 0 && (path[len] == 0 || path[len] == '/'));
}

/* Events from before the listing have to be told first: what they tell may have escaped it. */
void tree_listed(struct tree *t, size_t source, const char *path) {
	int64_t before = t->emptied_ns;

	tree_drain(t);
	if (t->emptied_ns == before)
		return; /* more came than could be taken: after the next listing */
	(void)pthread_mutex_lock(&t->lock);
	for (size_t i = 0; i < BUCKETS; i++)
		for (struct watched *w = t->bucket[i]; w != NULL; w = w->chain)
			if (w->source == source && is_at_or_below(w->path, path))
				w->listed = true;
	(void)pthread_mutex_unlock(&t->lock);
}

int tree_new(uv_loop_t *loop, const struct tree_events *events, struct tree **ret,
	struct cede_error *reterr) {
	struct tree *t = calloc(1, sizeof *t);

	if (t == NULL)
		return CEDE_FAIL_MEMORY(reterr);
	t->events = *events;
	t->emptied_ns = clock_wall_ns();
	t->fd = inotify_init1(IN_NONBLOCK | IN_CLOEXEC);
	if (t->fd < 0) {
		free(t);
		return CEDE_FAIL_SYS(reterr, "inotify (fs.inotify.max_user_instances)");
	}
	int r = uv_poll_init(loop, &t->poll, t->fd);
	if (r < 0) {
		(void)close(t->fd);
		free(t);
		return CEDE_FAIL(reterr, CEDE_ERR_IO, "inotify: %s", uv_strerror(r));
	}
	require(pthread_mutex_init(&t->lock, NULL) == 0);
	t->poll.data = t;
	r = uv_poll_start(&t->poll, UV_READABLE, on_readable);
	require(r == 0); /* fails only for a handle that is closing */
	*ret = t;
	return CEDE_OK;
}

size_t tree_watches(struct tree *t) {
	(void)pthread_mutex_lock(&t->lock);
	size_t n = t->count;
	(void)pthread_mutex_unlock(&t->lock);
	return n;
}

static void closed(uv_handle_t *handle) {
	struct tree *t = handle->data;
	void (*on_closed)(void *) = t->on_closed;
	void *ctx = t->ctx;

	(void)close(t->fd);
	for (size_t i = 0; i < BUCKETS; i++)
		while (t->bucket[i] != NULL) {
			struct watched *w = t->bucket[i];
			t->bucket[i] = w->chain;
			free(w);
		}
	(void)pthread_mutex_destroy(&t->lock);
	free(t);
	on_closed(ctx);
}

void tree_close(struct tree *t, void (*on_closed)(void *ctx), void *ctx) {
	t->on_closed = on_closed;
	t->ctx = ctx;
	uv_close((uv_handle_t *)&t->poll, closed);
}
