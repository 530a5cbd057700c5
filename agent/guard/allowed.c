/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/guard/allowed.h"

#include <fcntl.h>
#include <limits.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/check.h"
#include "base/cleanup.h"
#include "base/log.h"

void allowed_done(struct allowed *a) {
	for (size_t i = 0; i < a->count; i++) {
		for (size_t k = 0; k < a->list[i].count; k++)
			fd_closep(&a->list[i].files[k].fd);
		free(a->list[i].path);
		free(a->list[i].user);
	}
	a->count = 0;
}

int allowed_add(struct allowed *a, const char *user, const char *path, struct cede_error *reterr) {
	if (a->count == ALLOWED_MAX)
		return CEDE_FAIL(
			reterr, CEDE_ERR_INPUT, "more than %d allowed programs", ALLOWED_MAX);
	struct allowed_program *p = &a->list[a->count++];
	*p = (struct allowed_program){.path = strdup(path), .user = strdup(user), .uid = UINT32_MAX};
	return p->path == NULL || p->user == NULL ? CEDE_FAIL_MEMORY(reterr) : CEDE_OK;
}

int allowed_find_users(struct allowed *a, struct cede_error *reterr) {
	for (size_t i = 0; i < a->count; i++) {
		struct passwd entry, *found = NULL;
		char names[4096];
		if (getpwnam_r(a->list[i].user, &entry, names, sizeof names, &found) != 0 ||
			found == NULL || found->pw_uid == UINT32_MAX)
			return CEDE_FAIL(reterr, CEDE_ERR_INPUT,
				"allow: there is no user %s here (make it, or correct the policy)",
				a->list[i].user);
		a->list[i].uid = found->pw_uid;
	}
	return CEDE_OK;
}

/* Whether only root can change what the name leads to. In a sticky directory nobody else can take
 * root's entries away. */
static bool is_roots(const struct stat *st) {
	bool sticky = S_ISDIR(st->st_mode) && (st->st_mode & S_ISVTX) != 0;

	return st->st_uid == 0 && ((st->st_mode & (S_IWGRP | S_IWOTH)) == 0 || sticky);
}

/* Each directory on the way, and the file. Without symlinks: the policy's path is taken apart after
 * they were resolved. */
static const char *unsafe_part(const char *path) {
	char part[PATH_MAX];
	struct stat st;

	if (snprintf(part, sizeof part, "%s", path) >= PATH_MAX)
		return "its path is too long";
	for (char *slash = part; slash != NULL; slash = strchr(slash + 1, '/')) {
		char kept = slash[1];
		if (slash == part)
			slash[1] = 0; /* "/" */
		else
			*slash = 0;
		if (lstat(part, &st) < 0 || !is_roots(&st))
			return "a directory on its path can be changed by others than root (chown root, chmod go-w)";
		if (slash == part)
			slash[1] = kept;
		else
			*slash = '/';
	}
	if (lstat(part, &st) < 0 || !S_ISREG(st.st_mode))
		return "is no regular file";
	if (!is_roots(&st))
		return "can be changed by others than root (chown root, chmod go-w)";
	return NULL;
}

/* NULL: it may be taken. Else why not; which file it is as far as that is known, and no descriptor. */
static const char *look(const struct allowed_program *p, struct allowed_file *ret) {
	CLEANUP(freep) char *resolved = realpath(p->path, NULL);
	struct stat st;

	if (resolved == NULL)
		return errno == ENOENT ? "is not there (install it)" : "can't be looked at";
	CLEANUP(fd_closep) int fd = openat(AT_FDCWD, resolved, O_PATH | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0 || fstat(fd, &st) < 0)
		return "can't be looked at";
	*ret = (struct allowed_file){-1, st.st_dev, st.st_ino};
	const char *unsafe = unsafe_part(resolved);
	if (unsafe == NULL)
		ret->fd = CEDE_TAKE_FD(fd);
	return unsafe;
}

static void add_file(struct allowed_program *p, const struct allowed_file *file) {
	if (p->count == ALLOWED_FORMER)
		fd_closep(&p->files[--p->count].fd);
	memmove(&p->files[1], &p->files[0], p->count * sizeof p->files[0]);
	p->files[0] = *file;
	p->count++;
}

static bool is_file(const struct allowed_file *a, const struct allowed_file *b) {
	return a->dev == b->dev && a->ino == b->ino;
}

/* Which files were taken and must go: the one that is refused now (NULL: none), and each that
 * others than root can change by now, a former one too. */
static void find_lost(const struct allowed_program *p, const struct allowed_file *refused,
	bool ret_lost[ALLOWED_FORMER]) {
	for (size_t i = 0; i < p->count; i++) {
		struct stat st;
		ret_lost[i] = (refused != NULL && is_file(&p->files[i], refused)) ||
			fstat(p->files[i].fd, &st) < 0 || !is_roots(&st);
	}
}

/* How many went. */
static size_t drop_lost(struct allowed_program *p, const bool lost[ALLOWED_FORMER]) {
	size_t kept = 0, count = p->count;

	for (size_t i = 0; i < count; i++)
		if (lost[i])
			fd_closep(&p->files[i].fd);
		else
			p->files[kept++] = p->files[i];
	p->count = kept;
	return count - kept;
}

static void refresh_one(struct allowed_program *p, pthread_mutex_t *lock) {
	struct allowed_file now = {.fd = -1};
	bool lost[ALLOWED_FORMER];
	const char *why = look(p, &now);

	find_lost(p, why != NULL ? &now : NULL, lost);
	if (why != NULL) {
		if (strcmp(p->why, why) != 0)
			log_event(LOG_LEVEL_ERROR, "guard.program",
				"exe=%s error=\"%s\" effect=\"it is not allowed\"", p->path, why);
		(void)snprintf(p->why, sizeof p->why, "%s", why);
	} else {
		p->why[0] = 0;
	}
	(void)pthread_mutex_lock(lock);
	size_t gone = drop_lost(p, lost);
	bool known = p->count > 0 && is_file(&p->files[0], &now);
	bool replaced = why == NULL && p->count > 0 && !known;
	p->found = why == NULL;
	if (why == NULL && !known) {
		add_file(p, &now);
		now.fd = -1;
	}
	(void)pthread_mutex_unlock(lock);
	fd_closep(&now.fd);
	if (gone > 0)
		log_event(LOG_LEVEL_WARNING, "guard.program",
			"exe=%s files=%zu text=\"were allowed and can be changed by others than root now: they are not allowed any more\"",
			p->path, gone);
	if (replaced)
		log_event(LOG_LEVEL_INFO, "guard.program",
			"exe=%s text=\"replaced; the new one is allowed\"", p->path);
}

void allowed_refresh(struct allowed *a, pthread_mutex_t *lock) {
	for (size_t i = 0; i < a->count; i++)
		refresh_one(&a->list[i], lock);
}

bool allowed_has(const struct allowed *a, const struct who *who) {
	for (size_t i = 0; i < a->count; i++) {
		const struct allowed_program *p = &a->list[i];
		if (p->uid != who->uid || who->uid == UINT32_MAX)
			continue;
		for (size_t k = 0; k < p->count; k++)
			if (p->files[k].dev == who->dev && p->files[k].ino == who->ino)
				return true;
	}
	return false;
}

size_t allowed_missing(const struct allowed *a) {
	size_t n = 0;

	for (size_t i = 0; i < a->count; i++)
		n += !a->list[i].found;
	return n;
}
