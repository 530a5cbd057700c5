/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/walk.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <string.h>
#include <sys/stat.h>

#include "base/cleanup.h"
#include "base/file.h"

struct level {
	DIR *dir;
	size_t path_len; /* of the directory's own path, with its slash */
};

struct walker {
	const struct walk *walk;
	struct level levels[WALK_DEPTH_MAX];
	size_t depth;
	char path[WALK_PATH_MAX];
};

/* Only the owner may keep the access time as it is. */
static int open_dir(int dir_fd, const char *name, int *ret_fd, struct cede_error *reterr) {
	int r = file_open_beneath(dir_fd, name, O_RDONLY | O_DIRECTORY | O_NOATIME, ret_fd, reterr);

	if (r == CEDE_ERR_IO && reterr->sys == EPERM)
		r = file_open_beneath(dir_fd, name, O_RDONLY | O_DIRECTORY, ret_fd, reterr);
	return r;
}

static void walker_done(struct walker *w) {
	while (w->depth > 0)
		(void)closedir(w->levels[--w->depth].dir);
}

static int trouble(struct walker *w, const struct cede_error *why, struct cede_error *reterr) {
	return w->walk->on_trouble(w->walk->ctx, w->path, why, reterr);
}

/* Goes down into the directory `name` (path says which), or reports why not. */
static int enter(struct walker *w, int dir_fd, const char *name, struct cede_error *reterr) {
	size_t len = strlen(w->path);
	CLEANUP(fd_closep) int fd = -1;
	struct cede_error err;

	if (w->depth == WALK_DEPTH_MAX || len + 2 > sizeof w->path) {
		cede_error_set(&err, CEDE_ERR_REFUSED, "nested more than %d deep", WALK_DEPTH_MAX);
		return trouble(w, &err, reterr);
	}
	if (open_dir(dir_fd, name, &fd, &err) < 0)
		return err.sys == ENOENT ? CEDE_OK : trouble(w, &err, reterr);
	DIR *dir = fdopendir(fd);
	if (dir == NULL)
		return CEDE_FAIL_MEMORY(reterr);
	(void)CEDE_TAKE_FD(fd); /* the DIR has it now */
	if (len > 0)
		w->path[len++] = '/';
	w->levels[w->depth++] = (struct level){dir, len};
	return CEDE_OK;
}

/* A name that is gone again is no directory. */
static int is_directory(int dir_fd, const struct dirent *entry, bool *ret, struct cede_error *reterr) {
	struct stat st = {0};

	*ret = entry->d_type == DT_DIR;
	if (entry->d_type != DT_UNKNOWN)
		return CEDE_OK;
	if (fstatat(dir_fd, entry->d_name, &st, AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT) < 0 &&
		errno != ENOENT)
		return CEDE_FAIL_SYS(reterr, "stat");
	*ret = S_ISDIR(st.st_mode);
	return CEDE_OK;
}

static int take_entry(struct walker *w, const struct dirent *entry, struct cede_error *reterr) {
	const struct level *level = &w->levels[w->depth - 1];
	size_t len = strlen(entry->d_name);
	int dir_fd = dirfd(level->dir);
	struct cede_error err;
	bool directory;

	if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
		return CEDE_OK;
	if (level->path_len + len >= sizeof w->path) {
		cede_error_set(&err, CEDE_ERR_REFUSED, "a path longer than %d bytes in it",
			WALK_PATH_MAX - 1);
		return trouble(w, &err, reterr);
	}
	memcpy(w->path + level->path_len, entry->d_name, len + 1);
	if (is_directory(dir_fd, entry, &directory, &err) < 0)
		return trouble(w, &err, reterr);
	if (directory)
		return enter(w, dir_fd, entry->d_name, reterr);
	return w->walk->on_file(w->walk->ctx, dir_fd, entry->d_name, w->path, reterr);
}

/* One entry of the deepest directory, or back up at its end. */
static int step(struct walker *w, struct cede_error *reterr) {
	struct level *level = &w->levels[w->depth - 1];
	struct cede_error err;

	w->path[level->path_len] = 0;
	errno = 0;
	const struct dirent *entry = readdir(level->dir);
	if (entry != NULL)
		return take_entry(w, entry, reterr);
	int sys = errno;
	(void)closedir(level->dir);
	w->depth--;
	if (sys == 0)
		return CEDE_OK;
	cede_error_set_sys(&err, sys, "read a directory");
	return trouble(w, &err, reterr);
}

int walk_source(int source_fd, const struct walk *walk, struct cede_error *reterr) {
	CLEANUP(walker_done) struct walker w = {.walk = walk};

	CEDE_TRY(enter(&w, source_fd, ".", reterr));
	while (w.depth > 0)
		CEDE_TRY(step(&w, reterr));
	return CEDE_OK;
}
