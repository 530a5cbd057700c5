/* SPDX-License-Identifier: Apache-2.0
 * The files that a purge makes: certificate, details, page, copy of the ledger. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include "agent/purge/internal.h"
#include "agent/purge/page.h"
#include "base/check.h"
#include "base/cleanup.h"
#include "base/file.h"
#include "base/hex.h"
#include "certs/note.h"

#define DETAILS_ROOM 65536 /* for what is told once the ledger is gone */
#define PARTS_LOOKED 100   /* of a copy of the ledger: names that must be free */

/* ---- where they may stand */

static bool is_below(const char *where, const char *directory) {
	CLEANUP(freep) char *dir = realpath(directory, NULL);
	size_t n = dir == NULL ? 0 : strlen(dir);

	return dir != NULL && strncmp(where, dir, n) == 0 && (where[n] == 0 || where[n] == '/');
}

/* What is written must not stand where everything is wiped. */
static int open_place(const struct purge *p, struct output *o, struct cede_error *reterr) {
	char *slash = strrchr(o->path, '/');
	CLEANUP(freep)
	char *directory =
		slash == NULL ? strdup(".") : strndup(o->path, (size_t)(slash - o->path) + 1);

	if (directory == NULL)
		return CEDE_FAIL_MEMORY(reterr);
	o->name = slash == NULL ? o->path : slash + 1;
	CEDE_TRY(file_open_dir(AT_FDCWD, directory, &o->dir_fd, reterr));
	CLEANUP(freep) char *where = realpath(directory, NULL);
	if (where == NULL)
		return CEDE_FAIL_SYS(reterr, "resolve %s", directory);
	bool below = is_below(where, p->config->state);
	for (size_t i = 0; i < p->policy->source_count; i++)
		below = below || is_below(where, p->policy->sources[i].path);
	return below
		? CEDE_FAIL(reterr, CEDE_ERR_INPUT,
			  "lies in a source or in the state directory, which are wiped; name another place")
		: CEDE_OK;
}

/* ---- made, and given another name */

/* NFS has no rename that keeps what is there, FAT has no links. */
static bool move(const struct output *o, const char *from, const char *to) {
	if (file_rename_new(o->dir_fd, from, to))
		return true;
	if (errno != EINVAL || file_link_only(o->fd, o->dir_fd, to, NULL) < 0)
		return false;
	return unlinkat(o->dir_fd, from, 0) == 0;
}

static int make(struct output *o, struct cede_error *reterr) {
	int flags = O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW;

	o->fd = openat(o->dir_fd, o->name, flags, o->mode);
	if (o->fd < 0 && errno == EEXIST)
		return CEDE_FAIL(reterr, CEDE_ERR_INPUT,
			"is there already, or another option names it, too; name a file that is not");
	if (o->fd < 0)
		return CEDE_FAIL_SYS(reterr, "make it");
	o->state = OUTPUT_NAMED;
	return CEDE_OK;
}

static int put_aside(struct output *o, struct cede_error *reterr) {
	uint8_t random[8];
	char digits[17];

	if (getrandom(random, sizeof random, 0) != (ssize_t)sizeof random)
		return CEDE_FAIL_SYS(reterr, "random numbers");
	hex_print(random, sizeof random, digits);
	(void)snprintf(o->aside, sizeof o->aside, ".cede-purge-%s", digits);
	if (!move(o, o->name, o->aside))
		return CEDE_FAIL_SYS(reterr, "rename it for a while");
	o->state = OUTPUT_ASIDE;
	return CEDE_OK;
}

/* What must be written when there is no way back has its blocks now, where the file system can. */
int output_make_room(const struct output *o, struct cede_error *reterr) {
	struct stat st;

	if (fstat(o->fd, &st) < 0)
		return CEDE_FAIL_SYS(reterr, "stat");
	if (o->room == 0 || fallocate(o->fd, FALLOC_FL_KEEP_SIZE, st.st_size, o->room) == 0 ||
		errno == EOPNOTSUPP || errno == ENOSYS)
		return CEDE_OK;
	return CEDE_FAIL_SYS(reterr, "get %lld bytes for it", (long long)o->room);
}

/* ---- the parts of the ledger's copy */

char *output_part(const struct output *o, uint32_t part) {
	char *name = NULL;

	return asprintf(&name, "%s.%u", o->name, part) < 0 ? NULL : name;
}

static int look_for_parts(const struct output *o, struct cede_error *reterr) {
	for (uint32_t i = 2; i <= PARTS_LOOKED; i++) {
		CLEANUP(freep) char *name = output_part(o, i);
		if (name == NULL)
			return CEDE_FAIL_MEMORY(reterr);
		if (faccessat(o->dir_fd, name, F_OK, AT_SYMLINK_NOFOLLOW) == 0)
			return CEDE_FAIL(reterr, CEDE_ERR_INPUT,
				"a large copy has a part %s, which is there already, or another option names it; name a file that is not",
				name);
	}
	return CEDE_OK;
}

static void drop_parts(const struct output *o, uint32_t count) {
	for (uint32_t i = 2; i <= count; i++) {
		CLEANUP(freep) char *name = output_part(o, i);
		if (name != NULL)
			(void)unlinkat(o->dir_fd, name, 0);
	}
}

/* ---- all of them */

static int set_up(struct purge *p, struct cede_error *reterr) {
	const struct purge_options *o = p->options;
	const char *paths[OUTPUT_COUNT] = {o->certificate, o->certificate, o->html, o->ledger_copy};
	static const struct output kinds[OUTPUT_COUNT] = {
		{.mode = 0644, .room = NOTE_MAX, .fd = -1, .dir_fd = -1},
		{.mode = 0600, .room = DETAILS_ROOM, .fd = -1, .dir_fd = -1},
		{.mode = 0644, .room = PAGE_MAX, .fd = -1, .dir_fd = -1},
		{.mode = 0600, .fd = -1, .dir_fd = -1}};

	memcpy(p->outputs, kinds, sizeof kinds);
	for (size_t i = 0; i < OUTPUT_COUNT; i++) {
		char *path = NULL;
		if (paths[i] == NULL)
			continue;
		if (asprintf(&path, "%s%s", paths[i], i == OUTPUT_DETAILS ? ".details" : "") < 0)
			return CEDE_FAIL_MEMORY(reterr);
		p->outputs[i].path = path;
	}
	return CEDE_OK;
}

/* All under their own names first: two that are one, however they are spelled, show here. */
static int make_all(struct purge *p, struct output **ret_wrong, struct cede_error *reterr) {
	for (size_t i = 0; i < OUTPUT_COUNT; i++) {
		*ret_wrong = &p->outputs[i];
		if (p->outputs[i].path == NULL)
			continue;
		CEDE_TRY(open_place(p, &p->outputs[i], reterr));
		CEDE_TRY(make(&p->outputs[i], reterr));
		if (i == OUTPUT_LEDGER)
			CEDE_TRY(look_for_parts(&p->outputs[i], reterr));
	}
	for (size_t i = 0; i < OUTPUT_COUNT; i++) {
		*ret_wrong = &p->outputs[i];
		if (p->outputs[i].path == NULL)
			continue;
		CEDE_TRY(put_aside(&p->outputs[i], reterr));
		CEDE_TRY(output_make_room(&p->outputs[i], reterr));
	}
	return CEDE_OK;
}

int outputs_reserve(struct purge *p, struct cede_error *reterr) {
	struct output *wrong = NULL;

	CEDE_TRY(set_up(p, reterr));
	if (make_all(p, &wrong, reterr) == CEDE_OK)
		return CEDE_OK;
	cede_error_within(reterr, "%s", wrong->path);
	outputs_done(p);
	return CEDE_ERR_INPUT;
}

int output_publish(struct output *o, struct cede_error *reterr) {
	if (o->path == NULL)
		return CEDE_OK;
	CEDE_TRY(file_sync(o->fd, reterr));
	if (!move(o, o->aside, o->name))
		return CEDE_FAIL_SYS(
			reterr, "give %s its name (it is %s beside it)", o->path, o->aside);
	o->state = OUTPUT_NAMED;
	return file_sync(o->dir_fd, reterr);
}

int output_write(struct output *o, struct slice content, struct cede_error *reterr) {
	int r = file_write_all(o->fd, content.data, content.len, reterr);

	if (r == CEDE_OK && ftruncate(o->fd, (off_t)content.len) < 0) /* the room is not needed */
		r = CEDE_FAIL_SYS(reterr, "cut it");
	if (r < 0)
		cede_error_within(reterr, "%s", o->path);
	return r;
}

/* Once the ledger is gone what was written is all that there is. */
static bool is_worth_it(const struct purge *p, const struct output *o) {
	struct stat st;

	return p->no_way_back && (fstat(o->fd, &st) < 0 || st.st_size > 0);
}

void outputs_done(struct purge *p) {
	for (size_t i = 0; i < OUTPUT_COUNT; i++) {
		struct output *o = &p->outputs[i];
		if (o->path == NULL)
			continue;
		if (i == OUTPUT_LEDGER && !p->no_way_back)
			drop_parts(o, p->copy_parts);
		if (o->state != OUTPUT_NONE && !is_worth_it(p, o))
			(void)unlinkat(o->dir_fd, o->state == OUTPUT_ASIDE ? o->aside : o->name, 0);
		fd_closep(&o->fd);
		fd_closep(&o->dir_fd);
		free(CEDE_TAKE(o->path));
	}
}
