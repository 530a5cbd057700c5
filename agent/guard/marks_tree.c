/* SPDX-License-Identifier: Apache-2.0
 * A directory's mark sees opens of its entries by their names there; a file's own mark sees them by
 * whatever name. New files get theirs when they are opened by the name (sentry.c, before the open
 * is answered), or when inotify tells that they were moved in. */
#include "agent/guard/marks_tree.h"

#include <dirent.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/fanotify.h>
#include <sys/inotify.h>
#include <sys/stat.h>

#include "agent/guard/below.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/log.h"

#define REHEARSAL "rehearsal" /* of agent/vault_host.c: gone again at once, and its key with it */
#define NEWS      (IN_CREATE | IN_MOVED_TO | IN_ONLYDIR | IN_EXCL_UNLINK)

struct marks_watch {
	struct marks_watch *next;
	int wd;
	size_t source;
	bool in_store;     /* of the source's vault; else in the source */
	uint64_t dev, ino; /* a vault's turn, or a rename, gives the name to another directory */
	struct below *below;
};

struct walk {
	struct marks *m;
	size_t source;
	bool in_store;
	uint64_t dev;
	bool leave;
	int top;              /* the source's directory, or the store's; -1: not open yet */
	struct below **stack; /* directories that are still to be marked */
	size_t count, room;
};

static void walk_done(struct walk *w) {
	while (w->count > 0)
		below_drop(w->stack[--w->count]);
	free(w->stack);
	fd_closep(&w->top);
}

/* Taken. */
static int push(struct walk *w, struct below *below, struct cede_error *reterr) {
	if (w->count == w->room) {
		size_t room = w->room == 0 ? 64 : w->room * 2;
		struct below **stack = reallocarray(w->stack, room, sizeof *stack);
		if (stack == NULL) {
			below_drop(below);
			return CEDE_FAIL_MEMORY(reterr);
		}
		w->stack = stack;
		w->room = room;
	}
	w->stack[w->count++] = below;
	return CEDE_OK;
}

/* One file, or one directory with what is below it; the rest is marked all the same, so that nobody
 * who may write in a source can end the guard. */
static void part_failed(const struct walk *w, const struct cede_error *why) {
	struct marks_source *s = &w->m->list[w->source];

	if (w->leave)
		return;
	if (s->parts++ == 0)
		(void)snprintf(s->part_why, sizeof s->part_why, "%.*s", (int)sizeof s->part_why - 1,
			why->text);
}

/* Where the watch is linked, or would be. */
static struct marks_watch **find_watch(struct marks *m, int wd) {
	struct marks_watch **at = &m->watches[(unsigned)wd % MARKS_BUCKETS];

	while (*at != NULL && (*at)->wd != wd)
		at = &(*at)->next;
	return at;
}

static void forget_watch(struct marks *m, int wd) {
	struct marks_watch **at = find_watch(m, wd);
	struct marks_watch *w = *at;

	if (w == NULL)
		return;
	*at = w->next;
	below_drop(w->below);
	free(w);
}

static int watch(const struct walk *w, int dirfd, struct below *below, struct cede_error *reterr) {
	char name[64];
	struct stat st;

	if (fstat(dirfd, &st) < 0)
		return CEDE_FAIL_SYS(reterr, "stat");
	(void)snprintf(name, sizeof name, "/proc/self/fd/%d", dirfd);
	int wd = inotify_add_watch(w->m->inotify, name, NEWS);
	if (wd < 0 && errno == ENOSPC)
		return CEDE_FAIL(reterr, CEDE_ERR_BUSY,
			"no inotify watches left; raise fs.inotify.max_user_watches");
	if (wd < 0)
		return CEDE_FAIL_SYS(reterr, "watch a directory");
	forget_watch(w->m, wd); /* known, perhaps under another name before */
	struct marks_watch *new = malloc(sizeof *new);
	if (new == NULL)
		return CEDE_FAIL_MEMORY(reterr);
	*new = (struct marks_watch){.wd = wd,
		.source = w->source,
		.in_store = w->in_store,
		.dev = st.st_dev,
		.ino = st.st_ino,
		.below = below_use(below)};
	struct marks_watch **at = find_watch(w->m, wd);
	new->next = *at;
	*at = new;
	return CEDE_OK;
}

static int mark_directory(
	const struct walk *w, int dirfd, struct below *below, struct cede_error *reterr) {
	struct cede_error err = {0};

	if (w->leave) {
		(void)fanotify_mark(w->m->fan, FAN_MARK_REMOVE, FAN_OPEN_PERM | FAN_EVENT_ON_CHILD,
			dirfd, NULL);
		return CEDE_OK;
	}
	/* first: what comes while we read is told. Without a watch what is new in it is marked by
	 * the next walk */
	if (watch(w, dirfd, below, &err) < 0)
		part_failed(w, &err);
	if (fanotify_mark(w->m->fan, FAN_MARK_ADD, FAN_OPEN_PERM | FAN_EVENT_ON_CHILD, dirfd, NULL) <
		0)
		return CEDE_FAIL_SYS(reterr, "mark a directory");
	return CEDE_OK;
}

static int mark_file(const struct walk *w, int dirfd, const char *name, struct cede_error *reterr) {
	unsigned how = (w->leave ? FAN_MARK_REMOVE : FAN_MARK_ADD) | FAN_MARK_DONT_FOLLOW;

	if (fanotify_mark(w->m->fan, how, FAN_OPEN_PERM, dirfd, name) == 0 || errno == ENOENT ||
		w->leave)
		return CEDE_OK;
	return CEDE_FAIL_SYS(reterr, "mark a file");
}

static int is_directory(const struct walk *w, int dirfd, const struct below *below,
	const char *name, bool *ret, struct cede_error *reterr) {
	struct stat st;

	*ret = false;
	if (fstatat(dirfd, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
		return errno == ENOENT ? CEDE_OK : CEDE_FAIL_SYS(reterr, "look at a name");
	if (S_ISREG(st.st_mode))
		return mark_file(w, dirfd, name, reterr);
	/* another file system is not the source's */
	*ret = S_ISDIR(st.st_mode) && st.st_dev == w->dev &&
		!(w->in_store && below_is_top(below) && strcmp(name, REHEARSAL) == 0);
	return CEDE_OK;
}

/* A file is marked; a directory is for later. */
static int mark_entry(struct walk *w, int dirfd, struct below *below, const char *name,
	struct cede_error *reterr) {
	struct cede_error err = {0};
	struct below *deeper = NULL;
	bool is;

	if (is_directory(w, dirfd, below, name, &is, &err) < 0) {
		part_failed(w, &err);
		return CEDE_OK;
	}
	int r = is ? below_new(below, name, &deeper, &err) : CEDE_OK;
	if (r == CEDE_ERR_REFUSED)
		part_failed(w, &err);
	else if (r < 0)
		return CEDE_FAIL_MEMORY(reterr);
	return deeper == NULL ? CEDE_OK : push(w, deeper, reterr);
}

/* One directory and its files; those in it are for later. Failures are this directory's alone, but
 * for a lack of memory, and where it is the top. */
static int mark_one(struct walk *w, struct below *below, struct cede_error *reterr) {
	CLEANUP(dir_closep) DIR *dir = NULL;
	CLEANUP(fd_closep) int fd = -1;
	const struct dirent *e = NULL;
	struct cede_error err = {0};
	char path[PATH_MAX];

	below_path(below, path);
	int r = file_open_beneath(w->top, path, O_RDONLY | O_DIRECTORY, &fd, &err);
	bool may_go = !below_is_top(below) || w->in_store;
	if (r < 0 && may_go &&
		(err.sys == ENOENT || err.sys == ENOTDIR || err.sys == ELOOP || err.sys == EXDEV))
		return CEDE_OK; /* gone, moved (its new parent's watch tells), or not the source's */
	if (r == CEDE_OK)
		r = mark_directory(w, fd, below, &err);
	if (r < 0 && below_is_top(below)) {
		*reterr = err;
		return r;
	}
	if (r == CEDE_OK) {
		dir = fdopendir(fd);
		if (dir == NULL)
			return CEDE_FAIL_MEMORY(reterr);
		(void)CEDE_TAKE_FD(fd);
	}
	while (dir != NULL && (errno = 0, e = readdir(dir)) != NULL)
		if (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0)
			CEDE_TRY(mark_entry(w, dirfd(dir), below, e->d_name, reterr));
	if (r == CEDE_OK && errno != 0)
		r = CEDE_FAIL_SYS(&err, "list a directory");
	if (r < 0)
		part_failed(w, &err);
	return CEDE_OK;
}

/* What is on the stack, and what that brings to it: any depth with one descriptor at a time. */
static int walk_on(struct walk *w, struct cede_error *reterr) {
	while (w->count > 0) {
		CLEANUP(below_dropp) struct below *below = w->stack[--w->count];
		CEDE_TRY(mark_one(w, below, reterr));
	}
	return CEDE_OK;
}

/* Another directory may take the source's name, a vault's turn for example: it is to be marked at
 * once. */
static void watch_parent(struct marks *m, struct marks_source *s) {
	char parent[PATH_MAX];
	const char *slash = strrchr(s->resolved, '/');

	if (slash == NULL || slash - s->resolved >= PATH_MAX)
		return;
	(void)snprintf(parent, sizeof parent, "%.*s",
		slash == s->resolved ? 1 : (int)(slash - s->resolved), s->resolved);
	int wd = inotify_add_watch(
		m->inotify, parent, IN_MOVED_TO | IN_CREATE | IN_ONLYDIR | IN_MASK_ADD);
	s->parent_wd = wd < 0 ? 0 : wd; /* without it the next second finds out */
}

static bool is_its_name(const struct marks_source *s, const struct inotify_event *e) {
	const char *slash = s->resolved == NULL ? NULL : strrchr(s->resolved, '/');

	return s->parent_wd == e->wd && e->len > 0 && slash != NULL &&
		strcmp(slash + 1, e->name) == 0;
}

static int open_top(
	const struct marks_source *s, bool in_store, int *ret_fd, struct cede_error *reterr) {
	return file_open_dir(AT_FDCWD, in_store ? s->store : s->resolved, ret_fd, reterr);
}

/* The directory that is watched, if it has still the name by which it was marked. */
static int open_watched(int top, const struct marks_watch *w, int *ret_fd, struct cede_error *reterr) {
	CLEANUP(fd_closep) int fd = -1;
	char path[PATH_MAX];
	struct stat st;

	below_path(w->below, path);
	CEDE_TRY(file_open_beneath(top, path, O_RDONLY | O_DIRECTORY, &fd, reterr));
	if (fstat(fd, &st) < 0)
		return CEDE_FAIL_SYS(reterr, "stat");
	if (st.st_dev != w->dev || st.st_ino != w->ino)
		return CEDE_FAIL(reterr, CEDE_ERR_BUSY, "another directory has its name");
	*ret_fd = CEDE_TAKE_FD(fd);
	return CEDE_OK;
}

/* The source's directory; then the store, since a program may go on working in an epoch that has
 * ended. An epoch may just have got its end, or its turn: then the next walk sees what is there. */
static int walk_all(struct marks *m, size_t number, bool leave, struct cede_error *reterr) {
	const struct marks_source *s = &m->list[number];

	for (int in_store = 0; in_store < (s->store_ino != 0 ? 2 : 1); in_store++) {
		CLEANUP(walk_done)
		struct walk w = {.m = m,
			.source = number,
			.in_store = in_store != 0,
			.dev = s->dev,
			.leave = leave,
			.top = -1};
		struct cede_error err = {0};
		int r = open_top(s, w.in_store, &w.top, &err);
		if (r < 0 && w.in_store && err.sys == ENOENT)
			continue;
		if (r < 0) {
			*reterr = err;
			return r;
		}
		struct below *below;
		CEDE_TRY(below_top(&below, reterr));
		CEDE_TRY(push(&w, below, reterr));
		CEDE_TRY(walk_on(&w, reterr));
	}
	return CEDE_OK;
}

int marks_tree(struct marks *m, size_t number, struct cede_error *reterr) {
	struct marks_source *s = &m->list[number];

	if (m->inotify < 0)
		m->inotify = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
	if (m->inotify < 0)
		return CEDE_FAIL_SYS(reterr, "inotify");
	s->parts = 0;
	CEDE_TRY(walk_all(m, number, false, reterr));
	s->whole = true;
	s->walked_boot_ns = clock_boot_ns();
	watch_parent(m, s);
	return CEDE_OK;
}

void marks_tree_leave(struct marks *m, size_t number) {
	struct cede_error err = {.text = "it is not there"};

	if (m->list[number].resolved == NULL || walk_all(m, number, true, &err) < 0)
		log_event(LOG_LEVEL_WARNING, "guard.unmark", "source=%s error=\"%s\"",
			m->list[number].path, err.text);
}

void marks_tree_done(struct marks *m) {
	for (size_t i = 0; i < MARKS_BUCKETS; i++)
		while (m->watches[i] != NULL)
			forget_watch(m, m->watches[i]->wd);
	fd_closep(&m->inotify);
}

static int new_entry(struct marks *m, const struct marks_watch *watch, const char *name) {
	const struct marks_source *s = &m->list[watch->source];
	CLEANUP(walk_done)
	struct walk w = {
		.m = m, .source = watch->source, .in_store = watch->in_store, .dev = s->dev, .top = -1};
	CLEANUP(fd_closep) int fd = -1;
	struct cede_error err = {0};

	CEDE_TRY(open_top(s, watch->in_store, &w.top, &err));
	CEDE_TRY(open_watched(w.top, watch, &fd, &err));
	CEDE_TRY(mark_entry(&w, fd, watch->below, name, &err));
	return walk_on(&w, &err); /* the watch may go meanwhile */
}

/* Anything unexpected: the whole tree is walked again. */
static void one_news(struct marks *m, const struct inotify_event *e) {
	if ((e->mask & IN_Q_OVERFLOW) != 0) {
		for (size_t i = 0; i < m->count; i++)
			m->list[i].whole = false;
		return;
	}
	for (size_t i = 0; i < m->count; i++)
		if (is_its_name(&m->list[i], e))
			m->list[i].whole = false;
	const struct marks_watch *w = *find_watch(m, e->wd);
	if (w == NULL)
		return;
	struct marks_source *s = &m->list[w->source];
	if ((e->mask & (IN_UNMOUNT | IN_IGNORED)) != 0) {
		if (below_is_top(w->below))
			s->whole = false;
		if ((e->mask & IN_IGNORED) != 0)
			forget_watch(m, e->wd);
		return;
	}
	if (s->resolved == NULL || e->len == 0 || new_entry(m, w, e->name) < 0)
		s->whole = false; /* a directory on the way was renamed, for example */
}

bool marks_news(struct marks *m) {
	char buffer[16384] __attribute__((aligned(__alignof__(struct inotify_event))));
	ssize_t n;

	while (m->inotify >= 0 && (n = read(m->inotify, buffer, sizeof buffer)) > 0)
		for (char *at = buffer; at < buffer + n;) {
			const struct inotify_event *e = (const struct inotify_event *)(void *)at;
			one_news(m, e);
			at += sizeof *e + e->len;
		}
	for (size_t i = 0; i < m->count; i++)
		if (m->list[i].kind == MARK_INODES && !m->list[i].whole)
			return true;
	return false;
}
