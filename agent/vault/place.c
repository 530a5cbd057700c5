/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/vault/place.h"

#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/file.h"

#define DEPTH_MOST  64
#define XATTR_NAMES 4096
#define XATTR_VALUE 65536 /* XATTR_SIZE_MAX of the kernel */

struct place {
	int parent;
	int store;
	char *name; /* of the source's directory in parent */
};

static const char no_exchange[] =
	"a vault's directory is exchanged for another: the source's path must be a plain directory on the file system of its parent, no mount point; put the captures one directory below the mount point";

static int pass_on(const struct cede_error *err, struct cede_error *reterr) {
	if (reterr != NULL)
		*reterr = *err;
	return (int)err->code;
}

/* ---- open */

static int make_directory(
	int dirfd, const char *name, bool make, int *ret_fd, struct cede_error *reterr) {
	if (make && mkdirat(dirfd, name, 0700) < 0 && errno != EEXIST)
		return CEDE_FAIL_SYS(reterr, "make the vault's store beside the source");
	int r = file_open_beneath(dirfd, name, O_RDONLY | O_DIRECTORY, ret_fd, reterr);
	if (r < 0)
		cede_error_within(reterr, "the vault's store beside the source (cede vault init)");
	return r;
}

static int open_store(struct place *p, const char *source, bool make, struct cede_error *reterr) {
	CLEANUP(fd_closep) int above = -1;
	struct stat st;

	CEDE_TRY(make_directory(p->parent, PLACE_STORE, make, &above, reterr));
	CEDE_TRY(make_directory(above, source, make, &p->store, reterr));
	if (fstat(p->store, &st) < 0)
		return CEDE_FAIL_SYS(reterr, "stat of the vault's store");
	if (st.st_uid != geteuid() || (st.st_mode & (S_IRWXG | S_IRWXO)) != 0)
		return CEDE_FAIL(reterr, CEDE_ERR_REFUSED,
			"the vault's store (" PLACE_STORE
			"/%s beside the source) is not ours alone: the agent's user and mode 0700 expected",
			source);
	return CEDE_OK;
}

static int check_place(const struct place *p, struct cede_error *reterr) {
	struct statx at;
	struct stat parent;

	if (statx(p->parent, p->name, AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT, STATX_TYPE, &at) < 0)
		return CEDE_FAIL_SYS(reterr, "the source's directory");
	if (fstat(p->parent, &parent) < 0)
		return CEDE_FAIL_SYS(reterr, "stat");
	if (!S_ISDIR(at.stx_mode) || (at.stx_attributes & STATX_ATTR_MOUNT_ROOT) != 0)
		return CEDE_FAIL(reterr, CEDE_ERR_REFUSED, "%s", no_exchange);
	return CEDE_OK;
}

static char *directory_of(const char *path) {
	const char *slash = strrchr(path, '/');

	return slash == path ? strdup("/") : strndup(path, (size_t)(slash - path));
}

bool place_is_at(const struct place *p, const char *path) {
	CLEANUP(freep) char *parent = directory_of(path);
	struct stat is;
	struct stat at;

	return parent != NULL && stat(parent, &at) == 0 && fstat(p->parent, &is) == 0 &&
		at.st_dev == is.st_dev && at.st_ino == is.st_ino;
}

int place_open(const char *path, const char *source, bool make, struct place **ret,
	struct cede_error *reterr) {
	CLEANUP(place_closep) struct place *p = calloc(1, sizeof *p);
	const char *slash = strrchr(path, '/');
	CLEANUP(freep) char *parent = directory_of(path);

	if (p == NULL || parent == NULL)
		return CEDE_FAIL_MEMORY(reterr);
	p->parent = p->store = -1;
	p->name = strdup(slash + 1);
	if (p->name == NULL)
		return CEDE_FAIL_MEMORY(reterr);
	if (slash == path)
		return CEDE_FAIL(reterr, CEDE_ERR_REFUSED,
			"a vault needs a directory above the source that is not the root of all: put the captures one directory below");
	CEDE_TRY(file_open_dir(AT_FDCWD, parent, &p->parent, reterr));
	CEDE_TRY(check_place(p, reterr));
	CEDE_TRY(open_store(p, source, make, reterr));
	*ret = CEDE_TAKE(p);
	return CEDE_OK;
}

void place_close(struct place *p) {
	if (p == NULL)
		return;
	fd_closep(&p->parent);
	fd_closep(&p->store);
	free(p->name);
	free(p);
}

void place_closep(struct place **p) {
	place_close(*p);
	*p = NULL;
}

int place_store_fd(const struct place *p) {
	return p->store;
}

void place_drop_store(struct place *p, const char *source) {
	CLEANUP(fd_closep) int above = -1;

	if (file_open_beneath(p->parent, PLACE_STORE, O_RDONLY | O_DIRECTORY, &above, NULL) < 0)
		return;
	(void)unlinkat(above, source, AT_REMOVEDIR);
	(void)unlinkat(p->parent, PLACE_STORE, AT_REMOVEDIR);
}

/* ---- what is there */

static int find(struct place *p, int dirfd, const char *entry, const char *name, place_found_fn *fn,
	void *ctx, struct cede_error *reterr) {
	struct place_found found = {.fd = -1};
	struct cede_error err = {0};

	(void)p;
	int r = file_open_beneath(dirfd, entry, O_RDONLY | O_DIRECTORY, &found.fd, &err);
	if (r < 0)
		return err.sys == ENOENT ? CEDE_OK : pass_on(&err, reterr);
	(void)snprintf(found.name, sizeof found.name, "%s", name);
	r = fscrypt_of(found.fd, &found.id, &found.encrypted, reterr);
	if (r == CEDE_OK)
		r = fn(ctx, &found, reterr);
	fd_closep(&found.fd);
	return r;
}

int place_list(struct place *p, place_found_fn *fn, void *ctx, struct cede_error *reterr) {
	CLEANUP(dir_closep) DIR *dir = NULL;
	CLEANUP(fd_closep) int fd = -1;
	struct dirent *entry;

	CEDE_TRY(find(p, p->parent, p->name, "", fn, ctx, reterr));
	CEDE_TRY(file_open_beneath(p->store, ".", O_RDONLY | O_DIRECTORY, &fd, reterr));
	dir = fdopendir(fd);
	if (dir == NULL)
		return CEDE_FAIL_SYS(reterr, "list the vault's store");
	(void)CEDE_TAKE_FD(fd);
	while ((errno = 0, entry = readdir(dir)) != NULL) {
		if (entry->d_name[0] == '.' || strlen(entry->d_name) >= FSCRYPT_ID_TEXT)
			continue;
		CEDE_TRY(find(p, p->store, entry->d_name, entry->d_name, fn, ctx, reterr));
	}
	return errno == 0 ? CEDE_OK : CEDE_FAIL_SYS(reterr, "list the vault's store");
}

/* ---- walks */

/* dirfd has the name; path is the name below the tree. enter: before what is in a directory, leave:
 * after it. A negative return ends the walk with that code, 1 ends it with 0. */
struct walk {
	void *ctx;
	int (*enter)(void *ctx, int dirfd, const char *name, const char *path, int fd,
		struct cede_error *reterr);
	int (*leave)(void *ctx, int dirfd, const char *name, const char *path,
		struct cede_error *reterr);
	int (*file)(void *ctx, int dirfd, const char *name, const char *path,
		struct cede_error *reterr);
};

static int walk_directory(const struct walk *w, int fd, char *path, size_t length, unsigned depth,
	struct cede_error *reterr);

static int walk_child(const struct walk *w, int dirfd, const char *name, char *path, size_t length,
	unsigned depth, struct cede_error *reterr) {
	CLEANUP(fd_closep) int fd = -1;
	struct cede_error err = {0};

	int r = file_open_beneath(dirfd, name, O_RDONLY | O_DIRECTORY, &fd, &err);
	if (r < 0 && (err.sys == ENOENT || err.sys == ENOTDIR))
		return CEDE_OK; /* gone, or another thing now: the next walk sees it */
	if (r < 0)
		return pass_on(&err, reterr);
	r = w->enter == NULL ? CEDE_OK : w->enter(w->ctx, dirfd, name, path, fd, reterr);
	if (r == CEDE_OK)
		r = walk_directory(w, fd, path, length, depth + 1, reterr);
	if (r == CEDE_OK && w->leave != NULL)
		r = w->leave(w->ctx, dirfd, name, path, reterr);
	return r;
}

static bool is_directory(int dirfd, const struct dirent *entry) {
	struct stat st;

	if (entry->d_type != DT_UNKNOWN)
		return entry->d_type == DT_DIR;
	return fstatat(dirfd, entry->d_name, &st, AT_SYMLINK_NOFOLLOW) == 0 && S_ISDIR(st.st_mode);
}

static int walk_directory(const struct walk *w, int fd, char *path, size_t length, unsigned depth,
	struct cede_error *reterr) {
	CLEANUP(fd_closep) int own = -1;
	CLEANUP(dir_closep) DIR *dir = NULL;
	struct dirent *entry = NULL;
	int r = CEDE_OK;

	if (depth > DEPTH_MOST)
		return CEDE_FAIL(reterr, CEDE_ERR_REFUSED, "directories deeper than %d", DEPTH_MOST);
	CEDE_TRY(file_open_beneath(fd, ".", O_RDONLY | O_DIRECTORY, &own, reterr));
	dir = fdopendir(own);
	if (dir == NULL)
		return CEDE_FAIL_SYS(reterr, "list a directory");
	(void)CEDE_TAKE_FD(own);
	while (r == CEDE_OK && (errno = 0, entry = readdir(dir)) != NULL) {
		const char *name = entry->d_name;
		if (strcmp(name, ".") == 0 || strcmp(name, "..") == 0)
			continue;
		int n = snprintf(
			path + length, PATH_MAX - length, "%s%s", length > 0 ? "/" : "", name);
		if (n < 0 || (size_t)n >= PATH_MAX - length)
			return CEDE_FAIL(reterr, CEDE_ERR_REFUSED, "a path that is too long");
		if (is_directory(fd, entry))
			r = walk_child(w, fd, name, path, length + (size_t)n, depth, reterr);
		else if (w->file != NULL)
			r = w->file(w->ctx, fd, name, path, reterr);
		path[length] = 0;
	}
	if (entry == NULL && r == CEDE_OK && errno != 0)
		return CEDE_FAIL_SYS(reterr, "list a directory");
	return r;
}

static int walk_tree(int fd, const struct walk *w, struct cede_error *reterr) {
	CLEANUP(freep) char *path = calloc(1, PATH_MAX);

	if (path == NULL)
		return CEDE_FAIL_MEMORY(reterr);
	int r = walk_directory(w, fd, path, 0, 0, reterr);
	return r == 1 ? CEDE_OK : r;
}

/* ---- the next directory */

/* ACL, labels, whatever the administrator gave it; what can't be set here must not be missing in
 * silence, but for labels, which the system gives by itself. */
static int copy_attributes(int from, int to, struct cede_error *reterr) {
	char names[XATTR_NAMES];
	CLEANUP(freep) char *value = malloc(XATTR_VALUE);
	ssize_t size = flistxattr(from, names, sizeof names);

	if (value == NULL)
		return CEDE_FAIL_MEMORY(reterr);
	if (size < 0 && errno == EOPNOTSUPP)
		return CEDE_OK;
	if (size < 0)
		return CEDE_FAIL_SYS(reterr, "list the attributes of a directory");
	for (const char *n = names; n < names + size; n += strlen(n) + 1) {
		ssize_t length = fgetxattr(from, n, value, XATTR_VALUE);
		if (length < 0 && errno == ENODATA)
			continue;
		if ((length < 0 || fsetxattr(to, n, value, (size_t)length, 0) < 0) &&
			strncmp(n, "security.", 9) != 0)
			return CEDE_FAIL_SYS(reterr, "give a directory the attributes of another");
	}
	return CEDE_OK;
}

static int copy_rights(int from, int to, struct cede_error *reterr) {
	struct stat st;
	struct stat now;

	if (fstat(from, &st) < 0 || fstat(to, &now) < 0)
		return CEDE_FAIL_SYS(reterr, "stat");
	if ((st.st_uid != now.st_uid || st.st_gid != now.st_gid) &&
		fchown(to, st.st_uid, st.st_gid) < 0)
		return CEDE_FAIL_SYS(reterr, "give a directory the owner of another");
	CEDE_TRY(copy_attributes(from, to, reterr));
	if (fchmod(to, st.st_mode & 07777) < 0)
		return CEDE_FAIL_SYS(reterr, "give a directory the rights of another");
	return CEDE_OK;
}

struct copying {
	int to;
	size_t count;
};

static int copy_directory(void *ctx, int dirfd, const char *name, const char *path, int fd,
	struct cede_error *reterr) {
	struct copying *c = ctx;
	CLEANUP(fd_closep) int parent = -1;
	CLEANUP(fd_closep) int made = -1;
	char above[PATH_MAX];
	const char *slash = strrchr(path, '/');

	(void)dirfd;
	if (++c->count > PLACE_DIRECTORIES)
		return CEDE_FAIL(reterr, CEDE_ERR_REFUSED,
			"more than %d directories below the source", PLACE_DIRECTORIES);
	(void)snprintf(above, sizeof above, "%.*s", slash == NULL ? 1 : (int)(slash - path),
		slash == NULL ? "." : path);
	CEDE_TRY(file_open_beneath(c->to, above, O_RDONLY | O_DIRECTORY, &parent, reterr));
	if (mkdirat(parent, name, 0700) < 0)
		return errno == EEXIST ? CEDE_OK : CEDE_FAIL_SYS(reterr, "make a directory");
	CEDE_TRY(file_open_beneath(parent, name, O_RDONLY | O_DIRECTORY, &made, reterr));
	return copy_rights(fd, made, reterr);
}

static int copy_directories(int from, int to, struct cede_error *reterr) {
	struct copying c = {.to = to};
	const struct walk walk = {.ctx = &c, .enter = copy_directory};

	return walk_tree(from, &walk, reterr);
}

int place_stage(struct place *p, const char *name, int like_fd, bool readable,
	const struct fscrypt_id *id, struct cede_error *reterr) {
	CLEANUP(fd_closep) int fd = -1;

	if (mkdirat(p->store, name, 0700) < 0)
		return CEDE_FAIL_SYS(reterr, "make the next directory of a vault");
	CEDE_TRY(file_open_beneath(p->store, name, O_RDONLY | O_DIRECTORY, &fd, reterr));
	if (id != NULL)
		CEDE_TRY(fscrypt_set(fd, id, reterr));
	if (readable)
		CEDE_TRY(copy_directories(like_fd, fd, reterr));
	CEDE_TRY(copy_rights(like_fd, fd, reterr));
	return file_sync(p->store, reterr);
}

static bool is_same(int dirfd, const char *name, int fd) {
	struct stat at;
	struct stat is;

	return fstatat(dirfd, name, &at, AT_SYMLINK_NOFOLLOW) == 0 && fstat(fd, &is) == 0 &&
		at.st_dev == is.st_dev && at.st_ino == is.st_ino;
}

/* What somebody put at the path would lie in the store under the name of an epoch, and nobody would
 * look at it there: it is compared before, and, since it may come between, behind. */
static int exchange(struct place *p, const char *name, int like_fd, struct cede_error *reterr) {
	static const char another[] =
		"another directory is at the source's path than the vault's present one";

	if (!is_same(p->parent, p->name, like_fd))
		return CEDE_FAIL(reterr, CEDE_ERR_BUSY, "%s", another);
	if (!file_exchange(p->parent, p->name, p->store, name))
		return CEDE_FAIL_SYS(reterr, "exchange a vault's directory for the next");
	if (is_same(p->store, name, like_fd))
		return CEDE_OK;
	if (!file_exchange(p->parent, p->name, p->store, name))
		return CEDE_FAIL_SYS(reterr,
			"%s, and lies in the store beside the source now (" PLACE_STORE
			"): put it back by hand",
			another);
	return CEDE_FAIL(reterr, CEDE_ERR_BUSY, "%s", another);
}

int place_turn(struct place *p, const char *name, int like_fd, bool readable, int *ret_fd,
	struct cede_error *reterr) {
	CLEANUP(fd_closep) int fd = -1;
	struct cede_error err = {0};

	CEDE_TRY(file_open_beneath(p->store, name, O_RDONLY | O_DIRECTORY, &fd, reterr));
	CEDE_TRY(exchange(p, name, like_fd, reterr));
	/* it is done: what fails from here on does not undo it */
	if ((readable && copy_directories(like_fd, fd, &err) < 0) ||
		file_sync(p->parent, &err) < 0 || file_sync(p->store, &err) < 0)
		(void)pass_on(&err, reterr);
	*ret_fd = CEDE_TAKE_FD(fd);
	return CEDE_OK;
}

/* ---- the end of one */

struct looking {
	place_may_fn *may;
	void *ctx;
	bool found;
	uint64_t count;
};

static int look_at_file(
	void *ctx, int dirfd, const char *name, const char *path, struct cede_error *reterr) {
	struct looking *l = ctx;

	(void)reterr;
	l->found = l->may(l->ctx, dirfd, name, path);
	return l->found ? 1 : CEDE_OK;
}

int place_any(int fd, place_may_fn *may, void *ctx, bool *ret, struct cede_error *reterr) {
	struct looking l = {.may = may, .ctx = ctx};
	const struct walk walk = {.ctx = &l, .file = look_at_file};

	*ret = false;
	CEDE_TRY(walk_tree(fd, &walk, reterr));
	*ret = l.found;
	return CEDE_OK;
}

static int remove_file(
	void *ctx, int dirfd, const char *name, const char *path, struct cede_error *reterr) {
	struct looking *l = ctx;

	if (l->may == NULL || !l->may(l->ctx, dirfd, name, path))
		return CEDE_OK;
	if (unlinkat(dirfd, name, 0) < 0 && errno != ENOENT)
		return CEDE_FAIL_SYS(reterr, "unlink what is left in an epoch");
	l->count++;
	return CEDE_OK;
}

static int count_file(
	void *ctx, int dirfd, const char *name, const char *path, struct cede_error *reterr) {
	struct looking *l = ctx;

	(void)dirfd;
	(void)name;
	(void)path;
	(void)reterr;
	l->count++;
	return CEDE_OK;
}

/* Not empty again: a program was faster. */
static int remove_directory(
	void *ctx, int dirfd, const char *name, const char *path, struct cede_error *reterr) {
	(void)ctx;
	(void)path;
	if (unlinkat(dirfd, name, AT_REMOVEDIR) == 0 || errno == ENOENT)
		return CEDE_OK;
	return errno == ENOTEMPTY ? 1 : CEDE_FAIL_SYS(reterr, "remove a directory of a vault");
}

static int count_files(int fd, uint64_t *ret, struct cede_error *reterr) {
	struct looking l = {0};
	const struct walk walk = {.ctx = &l, .file = count_file};

	CEDE_TRY(walk_tree(fd, &walk, reterr));
	*ret = l.count;
	return CEDE_OK;
}

static int remove_tree(
	struct place *p, const char *name, int fd, bool *ret_gone, struct cede_error *reterr) {
	const struct walk walk = {.leave = remove_directory};

	CEDE_TRY(walk_tree(fd, &walk, reterr));
	*ret_gone = unlinkat(p->store, name, AT_REMOVEDIR) == 0 || errno == ENOENT;
	if (!*ret_gone && errno != ENOTEMPTY)
		return CEDE_FAIL_SYS(reterr, "remove a directory of a vault");
	return *ret_gone ? file_sync(p->store, reterr) : CEDE_OK;
}

int place_remove(struct place *p, const char *name, place_may_fn *may, void *ctx,
	struct place_rest *ret, struct cede_error *reterr) {
	CLEANUP(fd_closep) int fd = -1;
	struct cede_error err = {0};

	*ret = (struct place_rest){0};
	int r = file_open_beneath(p->store, name, O_RDONLY | O_DIRECTORY, &fd, &err);
	if (r < 0 && err.sys == ENOENT) {
		ret->gone = true;
		return CEDE_OK;
	}
	if (r < 0)
		return pass_on(&err, reterr);
	if (may != NULL) {
		struct looking l = {.may = may, .ctx = ctx};
		const struct walk walk = {.ctx = &l, .file = remove_file};
		CEDE_TRY(walk_tree(fd, &walk, reterr));
		ret->removed = l.count;
	}
	/* a program that is in there must not lose its directories while files keep them all */
	CEDE_TRY(count_files(fd, &ret->files, reterr));
	return ret->files > 0 ? CEDE_OK : remove_tree(p, name, fd, &ret->gone, reterr);
}

static bool any_file(void *ctx, int dirfd, const char *name, const char *path) {
	(void)ctx;
	(void)dirfd;
	(void)name;
	(void)path;
	return true;
}

int place_clear(struct place *p, const char *name, uint64_t *ret_files, struct cede_error *reterr) {
	struct place_rest rest;

	CEDE_TRY(place_remove(p, name, any_file, NULL, &rest, reterr));
	*ret_files = rest.removed;
	if (!rest.gone)
		return CEDE_FAIL(
			reterr, CEDE_ERR_BUSY, "an epoch's directory is not empty: tried again");
	return CEDE_OK;
}
