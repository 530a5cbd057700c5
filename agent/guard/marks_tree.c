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

#include "base/cleanup.h"
#include "base/file.h"
#include "base/log.h"

#define DEPTH_MAX 100
#define REHEARSAL "rehearsal" /* of agent/vault_host.c: gone again at once, and its key with it */
#define NEWS      (IN_CREATE | IN_MOVED_TO | IN_ONLYDIR | IN_EXCL_UNLINK)

struct marks_watch {
	struct marks_watch *next;
	int wd;
	size_t source;
	bool in_store;     /* of the source's vault; else in the source */
	uint64_t dev, ino; /* a vault's turn, or a rename, gives the name to another directory */
	char below[];      /* "" or "a/b" */
};

struct walk {
	struct marks *m;
	size_t source;
	bool in_store;
	uint64_t dev;
	bool leave;
	unsigned failed; /* files that could not be marked */
};

static int watch(const struct walk *w, int dirfd, const char *below, struct cede_error *reterr) {
	char name[64];
	size_t len = strlen(below) + 1;
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
	struct marks_watch **at = &w->m->watches;
	while (*at != NULL && (*at)->wd != wd)
		at = &(*at)->next;
	if (*at != NULL) { /* known, perhaps under another name before */
		struct marks_watch *old = *at;
		*at = old->next;
		free(old);
	}
	struct marks_watch *new = malloc(sizeof *new + len);
	if (new == NULL)
		return CEDE_FAIL_MEMORY(reterr);
	*new = (struct marks_watch){.next = w->m->watches,
		.wd = wd,
		.source = w->source,
		.in_store = w->in_store,
		.dev = st.st_dev,
		.ino = st.st_ino};
	memcpy(new->below, below, len);
	w->m->watches = new;
	return CEDE_OK;
}

static int mark_directory(
	const struct walk *w, int dirfd, const char *below, struct cede_error *reterr) {
	if (w->leave) {
		(void)fanotify_mark(w->m->fan, FAN_MARK_REMOVE, FAN_OPEN_PERM | FAN_EVENT_ON_CHILD,
			dirfd, NULL);
		return CEDE_OK;
	}
	CEDE_TRY(watch(w, dirfd, below, reterr)); /* first: what comes while we read is told */
	if (fanotify_mark(w->m->fan, FAN_MARK_ADD, FAN_OPEN_PERM | FAN_EVENT_ON_CHILD, dirfd, NULL) <
		0)
		return CEDE_FAIL_SYS(reterr, "mark a directory");
	return CEDE_OK;
}

static int mark_file(struct walk *w, int dirfd, const char *name, struct cede_error *reterr) {
	unsigned how = (w->leave ? FAN_MARK_REMOVE : FAN_MARK_ADD) | FAN_MARK_DONT_FOLLOW;

	if (fanotify_mark(w->m->fan, how, FAN_OPEN_PERM, dirfd, name) == 0 || errno == ENOENT ||
		w->leave)
		return CEDE_OK;
	return CEDE_FAIL_SYS(reterr, "mark a file");
}

static int walk_directory(struct walk *w, int fd /* taken */, const char *below, unsigned depth,
	struct cede_error *reterr);

static int walk_entry(struct walk *w, int dirfd, const char *below, const char *name,
	unsigned depth, struct cede_error *reterr) {
	char path[PATH_MAX];
	struct stat st;

	if (fstatat(dirfd, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
		return errno == ENOENT ? CEDE_OK : CEDE_FAIL_SYS(reterr, "look at a name");
	if (S_ISREG(st.st_mode))
		return mark_file(w, dirfd, name, reterr);
	if (!S_ISDIR(st.st_mode) || st.st_dev != w->dev) /* another file system: not the source's */
		return CEDE_OK;
	if (w->in_store && below[0] == 0 && strcmp(name, REHEARSAL) == 0)
		return CEDE_OK;
	if (depth == DEPTH_MAX ||
		snprintf(path, sizeof path, "%s%s%s", below, below[0] != 0 ? "/" : "", name) >=
			PATH_MAX)
		return CEDE_FAIL(reterr, CEDE_ERR_REFUSED, "directories lie too deep");
	int fd = openat(dirfd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0)
		return errno == ENOENT ? CEDE_OK : CEDE_FAIL_SYS(reterr, "open a directory");
	return walk_directory(w, fd, path, depth + 1, reterr);
}

static int walk_directory(
	struct walk *w, int fd, const char *below, unsigned depth, struct cede_error *reterr) {
	CLEANUP(dir_closep) DIR *dir = fdopendir(fd);
	const struct dirent *e;

	if (dir == NULL) {
		fd_closep(&fd);
		return CEDE_FAIL_MEMORY(reterr);
	}
	CEDE_TRY(mark_directory(w, dirfd(dir), below, reterr));
	while ((e = readdir(dir)) != NULL)
		if (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0)
			CEDE_TRY(walk_entry(w, dirfd(dir), below, e->d_name, depth, reterr));
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

static int open_below(const struct marks_source *s, bool in_store, const char *below, int *ret_fd,
	struct cede_error *reterr) {
	CLEANUP(fd_closep) int top = -1;

	CEDE_TRY(file_open_dir(AT_FDCWD, in_store ? s->store : s->resolved, &top, reterr));
	if (below[0] == 0) {
		*ret_fd = CEDE_TAKE_FD(top);
		return CEDE_OK;
	}
	return file_open_beneath(top, below, O_RDONLY | O_DIRECTORY, ret_fd, reterr);
}

/* The directory that is watched, if it has still the name by which it was marked. */
static int open_watched(const struct marks *m, const struct marks_watch *w, int *ret_fd,
	struct cede_error *reterr) {
	const struct marks_source *s = &m->list[w->source];
	CLEANUP(fd_closep) int fd = -1;
	struct stat st;

	if (s->resolved == NULL)
		return CEDE_FAIL(reterr, CEDE_ERR_BUSY, "the source is not there");
	CEDE_TRY(open_below(s, w->in_store, w->below, &fd, reterr));
	if (fstat(fd, &st) < 0)
		return CEDE_FAIL_SYS(reterr, "stat");
	if (st.st_dev != w->dev || st.st_ino != w->ino)
		return CEDE_FAIL(reterr, CEDE_ERR_BUSY, "another directory has its name");
	*ret_fd = CEDE_TAKE_FD(fd);
	return CEDE_OK;
}

/* A program may go on working in an epoch that has ended. Its directory may just have got its end,
 * or its turn: then the next walk sees what is there. */
static int walk_store(struct walk *w, struct cede_error *reterr) {
	struct cede_error err = {0};
	int fd;

	w->in_store = true;
	int r = open_below(&w->m->list[w->source], true, "", &fd, &err);
	if (r < 0 && err.sys == ENOENT)
		return CEDE_OK;
	if (r < 0) {
		*reterr = err;
		return r;
	}
	return walk_directory(w, fd, "", 0, reterr);
}

int marks_tree(struct marks *m, size_t number, struct cede_error *reterr) {
	struct marks_source *s = &m->list[number];
	struct walk w = {.m = m, .source = number, .dev = s->dev};
	int fd;

	if (m->inotify < 0)
		m->inotify = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
	if (m->inotify < 0)
		return CEDE_FAIL_SYS(reterr, "inotify");
	CEDE_TRY(open_below(s, false, "", &fd, reterr));
	CEDE_TRY(walk_directory(&w, fd, "", 0, reterr));
	if (s->store_ino != 0)
		CEDE_TRY(walk_store(&w, reterr));
	s->whole = true;
	watch_parent(m, s);
	return CEDE_OK;
}

void marks_tree_leave(struct marks *m, size_t number) {
	struct walk w = {.m = m, .source = number, .dev = m->list[number].dev, .leave = true};
	struct cede_error err = {0};
	int fd;

	if (m->list[number].resolved == NULL ||
		open_below(&m->list[number], false, "", &fd, &err) < 0 ||
		walk_directory(&w, fd, "", 0, &err) < 0 ||
		(m->list[number].store_ino != 0 && walk_store(&w, &err) < 0))
		log_event(LOG_LEVEL_WARNING, "guard.unmark", "source=%s error=\"%s\"",
			m->list[number].path, err.text);
}

void marks_tree_done(struct marks *m) {
	while (m->watches != NULL) {
		struct marks_watch *w = m->watches;
		m->watches = w->next;
		free(w);
	}
	fd_closep(&m->inotify);
}

static struct marks_watch *find_watch(const struct marks *m, int wd) {
	struct marks_watch *w = m->watches;

	while (w != NULL && w->wd != wd)
		w = w->next;
	return w;
}

static void forget_watch(struct marks *m, int wd) {
	struct marks_watch **at = &m->watches;

	while (*at != NULL && (*at)->wd != wd)
		at = &(*at)->next;
	if (*at != NULL) {
		struct marks_watch *w = *at;
		*at = w->next;
		free(w);
	}
}

/* Anything unexpected: the whole tree is walked again. */
static void one_news(struct marks *m, const struct inotify_event *e) {
	CLEANUP(fd_closep) int fd = -1;
	struct cede_error err = {0};

	if ((e->mask & IN_Q_OVERFLOW) != 0) {
		for (size_t i = 0; i < m->count; i++)
			m->list[i].whole = false;
		return;
	}
	for (size_t i = 0; i < m->count; i++)
		if (is_its_name(&m->list[i], e))
			m->list[i].whole = false;
	const struct marks_watch *w = find_watch(m, e->wd);
	if (w == NULL)
		return;
	struct marks_source *s = &m->list[w->source];
	if ((e->mask & (IN_UNMOUNT | IN_IGNORED)) != 0) {
		if (w->below[0] == 0)
			s->whole = false;
		if ((e->mask & IN_IGNORED) != 0)
			forget_watch(m, e->wd);
		return;
	}
	struct walk walk = {.m = m, .source = w->source, .in_store = w->in_store, .dev = s->dev};
	char below[PATH_MAX];
	(void)snprintf(below, sizeof below, "%s", w->below); /* w may go while we walk */
	int r = e->len == 0 ? CEDE_ERR_IO : open_watched(m, w, &fd, &err);
	if (r == CEDE_OK)
		r = walk_entry(&walk, fd, below, e->name, 0, &err);
	if (r < 0) /* a directory on the way was renamed, for example */
		s->whole = false;
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
