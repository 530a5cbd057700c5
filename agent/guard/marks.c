/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/guard/marks.h"

#include <dirent.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/fanotify.h>
#include <sys/stat.h>

#include "agent/guard/marks_tree.h"
#include "agent/guard/wire.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/log.h"
#include "base/parse.h"

#define AGAIN_NS (60 * NS_PER_SECOND) /* a source of which a part could not be marked */

void marks_init(struct marks *m, int fan) {
	memset(m, 0, sizeof *m);
	m->fan = fan;
	m->inotify = -1;
}

void marks_done(struct marks *m) {
	for (size_t i = 0; i < m->count; i++) {
		free(m->list[i].path);
		free(m->list[i].resolved);
		free(m->list[i].store);
	}
	marks_tree_done(m);
	m->count = 0;
}

int marks_add(struct marks *m, const char *path, const char *store, struct cede_error *reterr) {
	if (m->count == MARKS_SOURCES_MAX)
		return CEDE_FAIL(reterr, CEDE_ERR_INPUT, "more than %d sources", MARKS_SOURCES_MAX);
	struct marks_source *s = &m->list[m->count++];
	*s = (struct marks_source){.path = strdup(path), .store = strdup(store)};
	return s->path == NULL || s->store == NULL ? CEDE_FAIL_MEMORY(reterr) : CEDE_OK;
}

/* ---- does the file system hold nothing but sources? */

static bool is_below(const char *path, const char *of) {
	size_t n = strlen(of);

	return strncmp(path, of, n) == 0 && (path[n] == 0 || path[n] == '/');
}

/* Whether the path is a source or lies in one (then *ret_on_way is false), or leads to one. */
static bool belongs(const struct marks *m, const char *path, bool *ret_on_way) {
	*ret_on_way = false;
	for (size_t i = 0; i < m->count; i++)
		if (m->list[i].resolved != NULL && is_below(path, m->list[i].resolved))
			return true;
	for (size_t i = 0; i < m->count; i++)
		if (m->list[i].resolved != NULL && is_below(m->list[i].resolved, path)) {
			*ret_on_way = true;
			return true;
		}
	return false;
}

bool marks_only_sources(const char *top, const struct marks *m) {
	CLEANUP(dir_closep) DIR *dir = NULL;
	bool on_way;

	if (!belongs(m, top, &on_way))
		return false;
	if (!on_way)
		return true;
	dir = opendir(top);
	for (const struct dirent *e; dir != NULL && (e = readdir(dir)) != NULL;) {
		char path[PATH_MAX];
		if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0 ||
			strcmp(e->d_name, "lost+found") == 0 ||
			strcmp(e->d_name, GUARD_VAULT_STORE) == 0)
			continue;
		/* the root of a file system may be mounted at "/" alone: then nothing is below "//" */
		if (snprintf(path, sizeof path, "%s/%s", strcmp(top, "/") == 0 ? "" : top,
			    e->d_name) >= PATH_MAX ||
			!belongs(m, path, &on_way))
			return false;
		if (on_way && !marks_only_sources(path, m))
			return false;
	}
	return dir != NULL;
}

/* Whether the mount with this id shows the root of its file system: the fourth field of its line in
 * mountinfo. */
static bool shows_root(uint64_t mount_id) {
	CLEANUP(file_closep) FILE *f = fopen("/proc/self/mountinfo", "re");
	CLEANUP(freep) char *line = NULL;
	size_t room = 0;

	while (f != NULL && getline(&line, &room, f) > 0) {
		char *rest = line;
		const char *id = strsep(&rest, " ");
		uint64_t number;
		if (parse_u64(slice_str(id), 0, INT_MAX, &number, NULL) < 0 || number != mount_id)
			continue;
		(void)strsep(&rest, " "); /* parent */
		(void)strsep(&rest, " "); /* device */
		const char *root = strsep(&rest, " ");
		return root != NULL && strcmp(root, "/") == 0;
	}
	return false;
}

/* The directory at which the file system of `path` is mounted, cut from path itself. */
static bool find_top(char path[PATH_MAX], uint64_t *ret_mount_id) {
	for (;;) {
		struct statx st;
		if (statx(AT_FDCWD, path, AT_SYMLINK_NOFOLLOW, STATX_MNT_ID, &st) < 0 ||
			(st.stx_mask & STATX_MNT_ID) == 0 ||
			(st.stx_attributes_mask & STATX_ATTR_MOUNT_ROOT) == 0)
			return false;
		*ret_mount_id = st.stx_mnt_id;
		if ((st.stx_attributes & STATX_ATTR_MOUNT_ROOT) != 0)
			return true;
		char *slash = strrchr(path, '/');
		if (slash == NULL || strcmp(path, "/") == 0)
			return false;
		slash[slash == path ? 1 : 0] = 0;
	}
}

static bool has_file_system_alone(const struct marks *m, const char *resolved) {
	char top[PATH_MAX];
	uint64_t mount_id;

	return snprintf(top, sizeof top, "%s", resolved) < PATH_MAX && find_top(top, &mount_id) &&
		strcmp(top, "/") != 0 && shows_root(mount_id) && marks_only_sources(top, m);
}

/* ---- marks */

static void say_failed(struct marks_source *s, const char *why) {
	if (strncmp(s->why, why, sizeof s->why - 1) == 0)
		return;
	(void)snprintf(s->why, sizeof s->why, "%.199s", why);
	if (s->parts > 0)
		log_event(LOG_LEVEL_ERROR, "guard.unmarked",
			"source=%s parts=%zu error=\"%s\" effect=\"the rest of it is guarded\"",
			s->path, s->parts, s->why);
	else
		log_event(LOG_LEVEL_ERROR, "guard.unmarked", "source=%s error=\"%s\"", s->path,
			s->why);
}

/* The store of a vault is made, and taken away, while the source is there. */
static void look_at_store(struct marks_source *s) {
	struct stat st;
	bool there = s->store[0] != 0 && lstat(s->store, &st) == 0 && S_ISDIR(st.st_mode) &&
		st.st_dev == s->dev;
	uint64_t now = there ? st.st_ino : 0;

	if (now != s->store_ino)
		s->whole = false;
	s->store_ino = now;
}

static int set_one(struct marks *m, size_t number, struct cede_error *reterr) {
	struct marks_source *s = &m->list[number];
	CLEANUP(fd_closep) int fd = -1;
	struct stat st;

	CEDE_TRY(file_open_dir(AT_FDCWD, s->resolved, &fd, reterr));
	if (fstat(fd, &st) < 0)
		return CEDE_FAIL_SYS(reterr, "stat");
	bool same = s->kind != MARK_NONE && s->dev == st.st_dev && s->ino == st.st_ino;
	if (!same) {
		s->kind = has_file_system_alone(m, s->resolved) ? MARK_FILE_SYSTEM : MARK_INODES;
		s->whole = false;
		s->parts = 0;
	}
	s->dev = st.st_dev;
	s->ino = st.st_ino;
	if (s->kind == MARK_INODES) {
		look_at_store(s);
		if (s->parts > 0 && clock_boot_ns() - s->walked_boot_ns >= AGAIN_NS)
			s->whole = false;
		return s->whole ? CEDE_OK : marks_tree(m, number, reterr);
	}
	/* also where it is marked already: the file system may have been mounted anew meanwhile,
	 * and then it has no mark; adding one to what has it does nothing */
	if (fanotify_mark(m->fan, FAN_MARK_ADD | FAN_MARK_FILESYSTEM, FAN_OPEN_PERM, fd, NULL) < 0)
		return CEDE_FAIL_SYS(reterr, "mark its file system");
	return CEDE_OK;
}

/* True: the directory is there. */
static bool resolve(struct marks_source *s) {
	char *now = realpath(s->path, NULL);

	free(s->resolved);
	s->resolved = now;
	return now != NULL;
}

void marks_set(struct marks *m) {
	struct cede_error err = {0};

	for (size_t i = 0; i < m->count; i++)
		(void)resolve(&m->list[i]);
	for (size_t i = 0; i < m->count; i++) {
		struct marks_source *s = &m->list[i];
		if (s->resolved == NULL) {
			s->kind = MARK_NONE;
			s->parts = 0;
			s->why[0] = 0;
			continue;
		}
		enum mark_kind before = s->kind;
		if (set_one(m, i, &err) < 0) {
			s->parts = 0;
			say_failed(s, err.text);
			s->kind = MARK_NONE;
			continue;
		}
		if (s->parts > 0) {
			say_failed(s, s->part_why);
			continue;
		}
		bool lacked = s->why[0] != 0;
		s->why[0] = 0;
		if (before != s->kind || lacked)
			log_event(LOG_LEVEL_INFO, "guard.marked", "source=%s marks=%s", s->path,
				s->kind == MARK_FILE_SYSTEM ? "file-system" : "inodes");
	}
}

const struct marks_source *marks_failed(const struct marks *m) {
	for (size_t i = 0; i < m->count; i++)
		if (m->list[i].resolved != NULL && m->list[i].kind == MARK_NONE)
			return &m->list[i];
	return NULL;
}

static bool has_path(const struct marks *m, const char *path) {
	for (size_t i = 0; i < m->count; i++)
		if (strcmp(m->list[i].path, path) == 0)
			return true;
	return false;
}

static bool marks_file_system(const struct marks *m, uint64_t dev) {
	for (size_t i = 0; i < m->count; i++)
		if (m->list[i].kind == MARK_FILE_SYSTEM && m->list[i].dev == dev)
			return true;
	return false;
}

void marks_leave(struct marks *m, const struct marks *next) {
	for (size_t i = 0; i < m->count; i++) {
		struct marks_source *s = &m->list[i];
		if (s->kind == MARK_INODES && !has_path(next, s->path))
			marks_tree_leave(m, i);
		if (s->kind == MARK_FILE_SYSTEM && !marks_file_system(next, s->dev) &&
			s->resolved != NULL &&
			fanotify_mark(m->fan, FAN_MARK_REMOVE | FAN_MARK_FILESYSTEM, FAN_OPEN_PERM,
				AT_FDCWD, s->resolved) < 0 &&
			errno != ENOENT)
			log_event(LOG_LEVEL_WARNING, "guard.unmark", "source=%s error=\"%s\"",
				s->path, strerrordesc_np(errno));
	}
}

size_t marks_lacking(const struct marks *m) {
	size_t n = 0;

	for (size_t i = 0; i < m->count; i++)
		n += m->list[i].kind == MARK_NONE || m->list[i].parts > 0;
	return n;
}

size_t marks_count(const struct marks *m, enum mark_kind kind) {
	size_t n = 0;

	for (size_t i = 0; i < m->count; i++)
		n += m->list[i].kind == kind;
	return n;
}

bool marks_find(const struct marks *m, const char *path, size_t *ret_source, const char **ret_below) {
	for (size_t i = 0; i < m->count; i++) {
		const char *top = m->list[i].resolved;
		size_t n = top == NULL ? 0 : strlen(top);
		if (top == NULL || strncmp(path, top, n) != 0 || path[n] != '/')
			continue;
		*ret_source = i;
		*ret_below = path + n + 1;
		return true;
	}
	return false;
}
