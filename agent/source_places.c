/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/source_places.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "agent/vault/place.h"
#include "agent/walk.h"
#include "base/cleanup.h"
#include "base/file.h"

/* ---- names */

/* "/srv/capture/faces" -> "/srv/capture": its length. */
static size_t parent_length(const struct policy_source *source) {
	return (size_t)(strrchr(source->path, '/') - source->path);
}

bool source_path_print(const struct policy_source *source, const char *epoch, const char *path,
	char *out, size_t size) {
	int n = epoch[0] == 0
		? snprintf(out, size, "%s/%s", source->path, path)
		: snprintf(out, size, "%.*s/" PLACE_STORE "/%s/%s/%s", (int)parent_length(source),
			  source->path, source->name, epoch, path);

	return n >= 0 && (size_t)n < size;
}

/* Whether full lies in the store of the source. */
static bool in_store(const struct policy_source *source, const char *full, struct source_path *ret) {
	char store[PATH_MAX];
	int n = snprintf(store, sizeof store, "%.*s/" PLACE_STORE "/%s/",
		(int)parent_length(source), source->path, source->name);

	if (n < 0 || (size_t)n >= sizeof store || strncmp(full, store, (size_t)n) != 0)
		return false;
	const char *slash = strchr(full + n, '/');
	if (slash == NULL || slash - full - n >= FSCRYPT_ID_TEXT)
		return false;
	ret->path = slash + 1;
	(void)snprintf(ret->epoch, sizeof ret->epoch, "%.*s", (int)(slash - full - n), full + n);
	return true;
}

static int is_any(void *ctx, const struct ledger_epoch *e, struct cede_error *reterr) {
	(void)e;
	(void)reterr;
	*(bool *)ctx = true;
	return 1;
}

static int has_store(const struct policy_source *source, struct ledger *ledger, bool *ret,
	struct cede_error *reterr) {
	*ret = source->vault_epoch_ns > 0;
	return *ret || ledger == NULL
		? CEDE_OK
		: ledger_epochs(ledger, source->name, false, is_any, ret, reterr);
}

int source_path_find(const struct policy *policy, struct ledger *ledger, const char *full,
	struct source_path *ret, struct cede_error *reterr) {
	*ret = (struct source_path){0};
	for (size_t i = 0; ret->source == NULL && i < policy->source_count; i++) {
		const struct policy_source *source = &policy->sources[i];
		size_t n = strlen(source->path);
		bool store = false;

		if (strncmp(full, source->path, n) == 0 && full[n] == '/') {
			ret->source = source;
			ret->path = full + n + 1;
		} else if (in_store(source, full, ret)) {
			CEDE_TRY(has_store(source, ledger, &store, reterr));
			ret->source = store ? source : NULL;
		}
	}
	return CEDE_OK;
}

/* ---- directories */

void source_place_ledger(int fd, const struct policy_source *source, char out[EPOCH_SOURCE_SIZE]) {
	struct fscrypt_id id;
	bool encrypted = false;

	if (source->vault_epoch_ns > 0 && fscrypt_of(fd, &id, &encrypted, NULL) == CEDE_OK &&
		encrypted)
		epoch_source(source->name, id.bytes, out);
	else
		(void)snprintf(out, EPOCH_SOURCE_SIZE, "%s", source->name);
}

/* An epoch's directory bears the name of its key. Others that are in the store were made for a turn
 * that is under way or never came, and are empty; or somebody put them there. */
static bool is_epoch(const char *name, bool encrypted, const struct fscrypt_id *id) {
	char own[FSCRYPT_ID_TEXT];

	if (!encrypted)
		return strcmp(name, PLACE_BEFORE) == 0;
	fscrypt_id_print(id, own);
	return strcmp(name, own) == 0;
}

/* Fills in all but fd of a directory that is open and has a store. *ret_foreign: in the store, and
 * no epoch. */
static int identify(struct source_place *place, bool *ret_foreign, struct cede_error *reterr) {
	struct fscrypt_id id;
	enum fscrypt_state state;
	bool encrypted;

	*ret_foreign = false;
	(void)snprintf(place->ledger, sizeof place->ledger, "%s", place->source->name);
	CEDE_TRY(fscrypt_of(place->fd, &id, &encrypted, reterr));
	*ret_foreign = place->epoch[0] != 0 && !is_epoch(place->epoch, encrypted, &id);
	if (!encrypted || *ret_foreign)
		return CEDE_OK;
	epoch_source(place->source->name, id.bytes, place->ledger);
	CEDE_TRY(fscrypt_state(place->fd, &id, &state, reterr));
	if (state != FSCRYPT_PRESENT)
		return CEDE_FAIL(reterr, CEDE_ERR_IO,
			"locked: the kernel does not have its key, so that not even names can be read; the agent opens it when it starts, if there is a wrapped copy");
	return CEDE_OK;
}

static int open_store(const struct policy_source *source, int *ret_fd, struct cede_error *reterr) {
	CLEANUP(fd_closep) int parent = -1;
	char path[PATH_MAX];

	(void)snprintf(path, sizeof path, "%.*s/", (int)parent_length(source), source->path);
	CEDE_TRY(file_open_dir(AT_FDCWD, path, &parent, reterr));
	(void)snprintf(path, sizeof path, PLACE_STORE "/%s", source->name);
	int r = file_open_beneath(parent, path, O_RDONLY | O_DIRECTORY | O_NOATIME, ret_fd, reterr);
	if (r == CEDE_ERR_IO && reterr->sys == EPERM) /* only the owner may keep the access time */
		r = file_open_beneath(parent, path, O_RDONLY | O_DIRECTORY, ret_fd, reterr);
	return r;
}

int source_place_open(
	const struct source_path *path, struct source_place *ret, struct cede_error *reterr) {
	CLEANUP(fd_closep) int store = -1;
	CLEANUP(fd_closep) int fd = -1;
	struct source_place place = {.source = path->source};
	bool foreign = false;

	memcpy(place.epoch, path->epoch, sizeof place.epoch);
	if (place.epoch[0] == 0) {
		CEDE_TRY(file_open_dir(AT_FDCWD, path->source->path, &fd, reterr));
	} else {
		CEDE_TRY(open_store(path->source, &store, reterr));
		CEDE_TRY(file_open_beneath(store, place.epoch, O_RDONLY | O_DIRECTORY, &fd, reterr));
	}
	place.fd = fd;
	if (path->source->vault_epoch_ns > 0 || place.epoch[0] != 0)
		CEDE_TRY(identify(&place, &foreign, reterr));
	else
		source_place_ledger(fd, path->source, place.ledger);
	if (foreign)
		return CEDE_FAIL(reterr, CEDE_ERR_REFUSED,
			"the directory in the vault's store is no epoch of the source: the agent leaves it alone");
	*ret = place;
	ret->fd = CEDE_TAKE_FD(fd);
	return CEDE_OK;
}

/* ---- all of them */

struct listing {
	const struct policy_source *source;
	const struct source_places *to;
	bool store;
	struct stat at_path; /* the directory that was seen there */
};

static int pass_on(
	const struct listing *l, const struct source_place *place, struct cede_error *reterr) {
	return l->to->place(l->to->ctx, place, reterr);
}

static int say(const struct listing *l, const char *epoch, const struct cede_error *why,
	struct cede_error *reterr) {
	return l->to->trouble(l->to->ctx, epoch, why, reterr);
}

static int list_path(struct listing *l, struct cede_error *reterr) {
	CLEANUP(fd_closep) int fd = -1;
	struct source_place place = {.source = l->source};
	struct cede_error err;
	bool foreign;

	if (file_open_dir(AT_FDCWD, l->source->path, &fd, &err) < 0)
		return say(l, "", &err, reterr);
	place.fd = fd;
	source_place_ledger(fd, l->source, place.ledger);
	if ((l->store && identify(&place, &foreign, &err) < 0) ||
		(fstat(fd, &l->at_path) < 0 && CEDE_FAIL_SYS(&err, "stat") < 0))
		return say(l, "", &err, reterr);
	return pass_on(l, &place, reterr);
}

static int note_file(
	void *ctx, int dirfd, const char *name, const char *path, struct cede_error *reterr) {
	(void)dirfd;
	(void)name;
	(void)path;
	(void)reterr;
	*(bool *)ctx = true;
	return CEDE_OK;
}

static int note_trouble(
	void *ctx, const char *path, const struct cede_error *why, struct cede_error *reterr) {
	(void)why;
	return note_file(ctx, -1, path, path, reterr);
}

/* What the agent leaves alone is no capture; that there is something is said. */
static int list_foreign(
	const struct listing *l, const struct source_place *place, struct cede_error *reterr) {
	bool any = false;
	const struct walk walk = {.on_file = note_file, .on_trouble = note_trouble, .ctx = &any};
	struct cede_error err;

	CEDE_TRY(walk_source(place->fd, &walk, reterr));
	if (!any)
		return CEDE_OK;
	cede_error_set(&err, CEDE_ERR_REFUSED,
		"a directory in the vault's store that is no epoch of the source and has files: the agent leaves it alone; see whose they are, and move them away");
	return say(l, place->epoch, &err, reterr);
}

static int list_epoch(
	const struct listing *l, int store, const char *name, struct cede_error *reterr) {
	CLEANUP(fd_closep) int fd = -1;
	struct source_place place = {.source = l->source};
	struct cede_error err = {0};
	struct stat st;
	bool foreign = false;

	(void)snprintf(place.epoch, sizeof place.epoch, "%s", name);
	if (file_open_beneath(store, name, O_RDONLY | O_DIRECTORY, &fd, &err) < 0)
		return err.sys == ENOENT ? CEDE_OK : say(l, name, &err, reterr);
	place.fd = fd;
	if ((fstat(fd, &st) < 0 && CEDE_FAIL_SYS(&err, "stat") < 0) ||
		identify(&place, &foreign, &err) < 0)
		return say(l, name, &err, reterr);
	if (st.st_dev == l->at_path.st_dev && st.st_ino == l->at_path.st_ino)
		return CEDE_OK; /* a turn came between: it was at the path a moment ago */
	return foreign ? list_foreign(l, &place, reterr) : pass_on(l, &place, reterr);
}

static int list_store(const struct listing *l, struct cede_error *reterr) {
	CLEANUP(dir_closep) DIR *dir = NULL;
	CLEANUP(fd_closep) int fd = -1;
	const struct dirent *entry = NULL;
	struct cede_error err = {0};

	if (open_store(l->source, &fd, &err) < 0) {
		if (err.sys == ENOENT) /* none was made yet, or all are gone */
			return CEDE_OK;
		cede_error_within(&err, "the vault's store beside the source");
		return say(l, "", &err, reterr);
	}
	dir = fdopendir(fd);
	if (dir == NULL)
		return CEDE_FAIL_MEMORY(reterr);
	int store = CEDE_TAKE_FD(fd); /* the DIR has it now */
	while ((errno = 0, entry = readdir(dir)) != NULL)
		if (entry->d_name[0] != '.' && strlen(entry->d_name) < FSCRYPT_ID_TEXT)
			CEDE_TRY(list_epoch(l, store, entry->d_name, reterr));
	if (errno == 0)
		return CEDE_OK;
	(void)CEDE_FAIL_SYS(&err, "list the vault's store beside the source");
	return say(l, "", &err, reterr);
}

int source_places(const struct policy_source *source, struct ledger *ledger,
	const struct source_places *to, struct cede_error *reterr) {
	struct listing l = {.source = source, .to = to};

	CEDE_TRY(has_store(source, ledger, &l.store, reterr));
	CEDE_TRY(list_path(&l, reterr));
	return l.store ? list_store(&l, reterr) : CEDE_OK;
}
