/* SPDX-License-Identifier: Apache-2.0 */
#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "agent/purge/internal.h"
#include "agent/source_places.h"
#include "agent/walk.h"
#include "agent/wipe/scrub.h"
#include "base/check.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/file.h"
#include "policy/decide.h"

#define DEPTH_MOST 512

struct doomed {
	char *path;
	enum tally_what what;
	bool is_capture;
	int64_t row;
	enum capture_state state;
	struct id id;
};

/* Files of one place, wiped many at a time. */
struct sweep {
	struct purge *p;
	int fd;             /* of the place */
	const char *source; /* its name, or "" */
	const char *key;    /* the name that the ledger has its captures under, or "" */
	const struct policy_source *wants; /* what the policy says of it; NULL: no source */
	struct doomed files[PURGE_BATCH];
	struct wipe_item items[PURGE_BATCH];
	size_t count;
	enum tally_what what; /* of what is no capture */
};

static void sweep_clear(struct sweep *s) {
	for (size_t i = 0; i < s->count; i++)
		free(s->files[i].path);
	s->count = 0;
}

static void sweep_freep(struct sweep **s) {
	if (*s == NULL)
		return;
	sweep_clear(*s);
	free(*s);
	*s = NULL;
}

enum tally_what purge_what(enum capture_state state) {
	return state == CAPTURE_HELD                               ? TALLY_HELD
		: state == CAPTURE_WIPING || state == CAPTURE_KEPT ? TALLY_WIPING
								   : TALLY_UNSENT;
}

/* ---- what the ledger says before and after */

static int release(struct sweep *s, struct cede_error *reterr) {
	struct ledger *ledger = s->p->ledger;
	int64_t now = clock_wall_ns();

	if (ledger == NULL)
		return CEDE_OK;
	CEDE_TRY(ledger_begin(ledger, reterr));
	for (size_t i = 0; i < s->count; i++) {
		const struct doomed *d = &s->files[i];
		if (!d->is_capture || d->state == CAPTURE_WIPING)
			continue;
		CEDE_TRY(d->state == CAPTURE_HELD ? ledger_hold_lifted(ledger, d->row, now, reterr)
				: d->state == CAPTURE_KEPT
				? ledger_keep_ended(ledger, d->row, now, reterr)
				: ledger_capture_destroying(ledger, d->row, "purge", now, reterr));
	}
	return ledger_commit(ledger, reterr);
}

static int record(struct sweep *s, struct cede_error *reterr) {
	struct ledger *ledger = s->p->ledger;
	int64_t now = clock_wall_ns();

	if (ledger != NULL)
		CEDE_TRY(ledger_begin(ledger, reterr));
	for (size_t i = 0; i < s->count; i++) {
		const struct doomed *d = &s->files[i];
		const struct wipe_item *item = &s->items[i];
		char why[WIPE_REASONS_SIZE];
		wipe_reasons_print(item->reasons, why);
		CEDE_TRY(tally_wiped(&s->p->tally, d->what, d->is_capture ? &d->id : NULL,
			s->source, item, reterr));
		if (d->is_capture && item->outcome == WIPE_DONE)
			CEDE_TRY(ledger_capture_wiped(ledger, d->row, wipe_level_name(item->level),
				why, now, true, reterr));
	}
	return ledger == NULL ? CEDE_OK : ledger_commit(ledger, reterr);
}

static int flush(struct sweep *s, struct cede_error *reterr) {
	if (s->count == 0)
		return CEDE_OK;
	CEDE_TRY(release(s, reterr));
	CEDE_TRY(wipe_batch(s->items, s->count, reterr));
	CEDE_TRY(record(s, reterr));
	sweep_clear(s);
	return CEDE_OK;
}

/* ---- finding them */

static int note_capture(void *ctx, const struct ledger_capture *c, struct cede_error *reterr) {
	struct doomed *d = ctx;

	(void)reterr;
	d->is_capture = true;
	d->row = c->row;
	d->state = c->state;
	d->id = c->id;
	d->what = purge_what(c->state);
	return CEDE_OK;
}

/* A link, a FIFO, a socket, a device: the name goes; what is behind it is not ours. */
static int drop_other(struct sweep *s, int dirfd, const char *name, struct cede_error *reterr) {
	bool gone = unlinkat(dirfd, name, 0) == 0 || errno == ENOENT;
	const char *error = gone ? "no-file" : strerrorname_np(errno);

	return tally_add(&s->p->tally, s->what, NULL, s->source, 0,
		gone ? wipe_level_name(WIPE_REMOVED) : "remains",
		error != NULL ? error : "system-error", reterr);
}

/* A capture that the agency does not have, whatever its size or links. */
static bool is_wanted(const struct policy_source *wants, const char *path) {
	return wants != NULL && still_wanted(wants, slice_str(path), 0);
}

static int doom(void *ctx, int dirfd, const char *name, const char *path, struct cede_error *reterr) {
	struct sweep *s = ctx;
	struct stat st;

	if (fstatat(dirfd, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
		return errno == ENOENT ? CEDE_OK : CEDE_FAIL_SYS(reterr, "stat");
	if (!S_ISREG(st.st_mode))
		return drop_other(s, dirfd, name, reterr);
	struct doomed *d = &s->files[s->count];
	*d = (struct doomed){.path = strdup(path), .what = s->what};
	if (d->path == NULL)
		return CEDE_FAIL_MEMORY(reterr);
	s->items[s->count++] = (struct wipe_item){.source_fd = s->fd,
		.path = d->path,
		.want = file_identity_of(&st),
		.verify = WIPE_VERIFY_SAMPLE,
		.scrub = true};
	if (s->p->ledger != NULL)
		CEDE_TRY(ledger_capture_at(
			s->p->ledger, slice_str(s->key), slice_str(path), note_capture, d, reterr));
	if (!d->is_capture && is_wanted(s->wants, path))
		d->what = TALLY_UNSENT;
	return s->count == PURGE_BATCH ? flush(s, reterr) : CEDE_OK;
}

static int not_entered(
	void *ctx, const char *path, const struct cede_error *why, struct cede_error *reterr) {
	struct sweep *s = ctx;
	const char *error = strerrorname_np(why->sys);

	(void)path; /* a directory's name may be personal data */
	return tally_add(&s->p->tally, s->what, NULL, s->source, 0, "remains",
		why->code == CEDE_ERR_REFUSED ? "directory-not-entered"
			: error != NULL       ? error
					      : "system-error",
		reterr);
}

/* Empty directories, the deepest first; what is not empty stays. */
static void drop_directories(int dirfd, unsigned depth) {
	CLEANUP(fd_closep) int again = -1;
	CLEANUP(dir_closep) DIR *dir = NULL;
	const struct dirent *entry;

	if (depth == DEPTH_MOST ||
		file_open_beneath(dirfd, ".", O_RDONLY | O_DIRECTORY, &again, NULL) < 0 ||
		(dir = fdopendir(again)) == NULL)
		return;
	(void)CEDE_TAKE_FD(again);
	while ((entry = readdir(dir)) != NULL) {
		CLEANUP(fd_closep) int below = -1;
		if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0 ||
			(entry->d_type != DT_DIR && entry->d_type != DT_UNKNOWN) ||
			file_open_beneath(
				dirfd, entry->d_name, O_RDONLY | O_DIRECTORY, &below, NULL) < 0)
			continue;
		drop_directories(below, depth + 1);
		(void)unlinkat(dirfd, entry->d_name, AT_REMOVEDIR);
	}
	(void)fsync(dirfd);
}

static const struct policy_source *source_named(const struct purge *p, const char *name) {
	for (size_t i = 0; i < p->policy->source_count; i++)
		if (strcmp(p->policy->sources[i].name, name) == 0)
			return &p->policy->sources[i];
	return NULL;
}

static int sweep_place(struct purge *p, int fd, const char *source, const char *key,
	enum tally_what what, struct cede_error *reterr) {
	CLEANUP(sweep_freep) struct sweep *s = calloc(1, sizeof *s);

	if (s == NULL)
		return CEDE_FAIL_MEMORY(reterr);
	s->p = p;
	s->fd = fd;
	s->source = source;
	s->key = key;
	s->what = what;
	s->wants = source_named(p, source);
	const struct walk walk = {.on_file = doom, .on_trouble = not_entered, .ctx = s};
	CEDE_TRY(walk_source(fd, &walk, reterr));
	CEDE_TRY(flush(s, reterr));
	drop_directories(fd, 0);
	return CEDE_OK;
}

int purge_place(
	struct purge *p, int fd, const char *source, const char *key, struct cede_error *reterr) {
	return sweep_place(p, fd, source, key, TALLY_OTHER_FILE, reterr);
}

int purge_sources(struct purge *p, struct cede_error *reterr) {
	for (size_t i = 0; i < p->policy->source_count; i++) {
		char key[EPOCH_SOURCE_SIZE];
		source_place_ledger(p->source_fds[i], &p->policy->sources[i], key);
		CEDE_TRY(purge_place(p, p->source_fds[i], p->policy->sources[i].name, key, reterr));
	}
	return CEDE_OK;
}

/* ---- what the hand-over left alone */

struct count {
	struct purge *p;
	const char *key;
	const struct policy_source *wants;
};

static int count_one(
	void *ctx, int dirfd, const char *name, const char *path, struct cede_error *reterr) {
	const struct count *c = ctx;
	struct doomed d = {.is_capture = false};
	struct stat st;

	if (fstatat(dirfd, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
		return errno == ENOENT ? CEDE_OK : CEDE_FAIL_SYS(reterr, "stat");
	if (!S_ISREG(st.st_mode) || !is_wanted(c->wants, path))
		return CEDE_OK;
	CEDE_TRY(ledger_capture_at(
		c->p->ledger, slice_str(c->key), slice_str(path), note_capture, &d, reterr));
	c->p->left.refused += !d.is_capture;
	return CEDE_OK;
}

/* It is not wiped either, and said then. */
static int pass_by(
	void *ctx, const char *path, const struct cede_error *why, struct cede_error *reterr) {
	(void)ctx;
	(void)path;
	(void)why;
	(void)reterr;
	return CEDE_OK;
}

int purge_count_place(
	struct purge *p, int fd, const char *source, const char *key, struct cede_error *reterr) {
	struct count c = {.p = p, .key = key, .wants = source_named(p, source)};
	const struct walk walk = {.on_file = count_one, .on_trouble = pass_by, .ctx = &c};

	return walk_source(fd, &walk, reterr);
}

int purge_count_refused(struct purge *p, struct cede_error *reterr) {
	for (size_t i = 0; i < p->policy->source_count; i++) {
		char key[EPOCH_SOURCE_SIZE];
		source_place_ledger(p->source_fds[i], &p->policy->sources[i], key);
		CEDE_TRY(purge_count_place(
			p, p->source_fds[i], p->policy->sources[i].name, key, reterr));
	}
	return purge_count_stores(p, reterr);
}

/* ---- state and key */

/* Sealed bundles are ciphertext: to unlink them is enough (docs/design.md). */
static void empty_spool(int state_fd) {
	CLEANUP(fd_closep) int fd = -1;
	CLEANUP(dir_closep) DIR *dir = NULL;
	const struct dirent *entry;

	if (file_open_beneath(state_fd, "spool", O_RDONLY | O_DIRECTORY, &fd, NULL) < 0 ||
		(dir = fdopendir(dup(fd))) == NULL)
		return;
	while ((entry = readdir(dir)) != NULL)
		if (entry->d_name[0] != '.')
			(void)unlinkat(fd, entry->d_name, 0); /* else the sweep says what remains */
	(void)fsync(fd);
}

int purge_state(struct purge *p, struct cede_error *reterr) {
	CLEANUP(fd_closep) int fd = -1;

	require(p->ledger == NULL);
	CEDE_TRY(file_open_dir(AT_FDCWD, p->config->state, &fd, reterr));
	empty_spool(fd);
	return sweep_place(p, fd, "", "", TALLY_STATE_FILE, reterr);
}

static const char *scrub(int fd) {
	int64_t took_ns;

	switch (scrub_journal(fd, &took_ns)) {
	case SCRUB_DONE:
		return "scrubbed";
	case SCRUB_NOT_HERE:
		return "may-remain:no-scrub-here";
	case SCRUB_FAILED:
		break;
	}
	return "may-remain:scrub-failed";
}

/* The directory of a vault was closed, so that its key could go. */
static const char *scrub_at(const char *directory) {
	CLEANUP(fd_closep) int fd = -1;

	return file_open_dir(AT_FDCWD, directory, &fd, NULL) < 0 ? "may-remain:not-there" : scrub(fd);
}

void purge_names(struct purge *p) {
	for (size_t i = 0; i < p->policy->source_count; i++)
		p->names[i] = scrub_at(p->policy->sources[i].path);
	p->state_names = scrub_at(p->config->state);
}

int purge_key(struct purge *p, struct cede_error *reterr) {
	const char *slash = strrchr(p->config->key, '/');
	CLEANUP(freep)
	char *directory = slash == NULL
		? strdup(".")
		: strndup(p->config->key, (size_t)(slash - p->config->key) + 1);
	CLEANUP(fd_closep) int fd = -1;
	struct wipe_item item;
	struct stat st;

	if (directory == NULL)
		return CEDE_FAIL_MEMORY(reterr);
	CEDE_TRY(file_open_dir(AT_FDCWD, directory, &fd, reterr));
	const char *name = slash == NULL ? p->config->key : slash + 1;
	if (fstatat(fd, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
		return CEDE_FAIL_SYS(reterr, "the host's key %s", p->config->key);
	if (!S_ISREG(st.st_mode))
		return tally_add(
			&p->tally, TALLY_KEY, NULL, "", 0, "remains", "no-regular-file", reterr);
	item = (struct wipe_item){.source_fd = fd,
		.path = name,
		.want = file_identity_of(&st),
		.verify = WIPE_VERIFY_SAMPLE,
		.scrub = true};
	CEDE_TRY(wipe_batch(&item, 1, reterr));
	return tally_wiped(&p->tally, TALLY_KEY, NULL, "", &item, reterr);
}
