/* SPDX-License-Identifier: Apache-2.0 */
#include "receiver/fleet.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/cleanup.h"
#include "base/file.h"
#include "formats/manifest.h"
#include "receiver/custody.h"

void fleet_done(struct fleet *f) {
	fd_closep(&f->store);
	free(f->hosts);
}

/* Said at once; the report goes on. h: NULL if it is nobody's. */
static void unreadable(
	struct fleet *f, struct fleet_host *h, const char *what, const struct cede_error *err) {
	f->unread(what, err->text);
	f->unreadable = true;
	if (h != NULL)
		h->unreadable = true;
}

/* ---- the store */

static int list_of(int dir, DIR **ret, struct cede_error *reterr) {
	CLEANUP(fd_closep) int again = -1;

	CEDE_TRY(file_open_beneath(dir, ".", O_RDONLY | O_DIRECTORY, &again, reterr));
	*ret = fdopendir(again);
	if (*ret == NULL)
		return CEDE_FAIL_MEMORY(reterr);
	(void)CEDE_TAKE_FD(again);
	return CEDE_OK;
}

/* What is no directory is passed over (*ret -1). */
static int open_folder(int dir, const char *name, int *ret, struct cede_error *reterr) {
	struct cede_error err = {0};

	int r = file_open_beneath(dir, name, O_RDONLY | O_DIRECTORY, ret, &err);
	if (r == CEDE_OK)
		return CEDE_OK;
	*ret = -1;
	if (err.sys == ENOTDIR || err.sys == ENOENT || r == CEDE_ERR_REFUSED)
		return CEDE_OK;
	if (reterr != NULL)
		*reterr = err;
	return r;
}

/* "<id><ending>" */
static bool is_named(const char *name, const char *ending, struct id *ret) {
	size_t n = strlen(name);

	return n == ID_TEXT_SIZE - 1 + strlen(ending) &&
		strcmp(name + ID_TEXT_SIZE - 1, ending) == 0 &&
		id_parse(slice_of(name, ID_TEXT_SIZE - 1), ret, NULL) == CEDE_OK;
}

static int count_bundles(struct fleet_host *h, int dir, unsigned depth, struct cede_error *reterr) {
	CLEANUP(dir_closep) DIR *list = NULL;
	const struct dirent *entry;
	struct id id;

	CEDE_TRY(list_of(dir, &list, reterr));
	while ((entry = readdir(list)) != NULL) {
		CLEANUP(fd_closep) int below = -1;
		if (depth == 3 && is_named(entry->d_name, ".cms", &id)) {
			h->bundles++;
			h->last_ns = id_time_ns(&id) > h->last_ns ? id_time_ns(&id) : h->last_ns;
		}
		if (depth == 3 || entry->d_name[0] == '.')
			continue;
		CEDE_TRY(open_folder(dir, entry->d_name, &below, reterr));
		if (below >= 0)
			CEDE_TRY(count_bundles(h, below, depth + 1, reterr));
	}
	return CEDE_OK;
}

static int look_into_host(
	struct fleet_host *h, int dir, struct custody *custody, struct cede_error *reterr) {
	struct checkpoint newest;
	bool there = false;
	struct stat st;

	h->refused = fstatat(dir, CUSTODY_REFUSED, &st, AT_SYMLINK_NOFOLLOW) == 0 && st.st_size > 0;
	CEDE_TRY(custody_newest(custody, h->name, &newest, &there, reterr));
	h->events = there ? newest.size : 0;
	h->checkpoint_ns = there ? newest.at_ns : 0;
	return CEDE_OK;
}

static int look_at_host(
	struct fleet *f, struct custody *custody, const char *name, struct cede_error *reterr) {
	CLEANUP(fd_closep) int dir = -1;
	struct cede_error err = {0};

	if (!host_id_valid(slice_str(name)))
		return CEDE_OK;
	int r = open_folder(f->store, name, &dir, &err);
	if (r == CEDE_OK && dir < 0)
		return CEDE_OK;
	struct fleet_host *list = reallocarray(f->hosts, f->count + 1, sizeof *list);
	if (list == NULL)
		return CEDE_FAIL_MEMORY(reterr);
	f->hosts = list;
	struct fleet_host *h = &list[f->count++];
	*h = (struct fleet_host){.last_ns = 0};
	(void)snprintf(h->name, sizeof h->name, "%.*s", HOST_ID_MAX, name);
	if (r == CEDE_OK) {
		r = look_into_host(h, dir, custody, &err);
		if (r < 0)
			unreadable(f, h, name, &err);
		r = count_bundles(h, dir, 0, &err);
	}
	if (r < 0)
		unreadable(f, h, name, &err);
	return CEDE_OK;
}

static int look_at_store(struct fleet *f, const char *path, struct cede_error *reterr) {
	CLEANUP(dir_closep) DIR *list = NULL;
	struct custody *custody = NULL;
	const struct dirent *entry;

	CEDE_TRY(file_open_dir(AT_FDCWD, path, &f->store, reterr));
	CEDE_TRY(list_of(f->store, &list, reterr));
	CEDE_TRY(custody_new(f->store, &custody, reterr));
	int r = CEDE_OK;
	while (r == CEDE_OK && (entry = readdir(list)) != NULL)
		if (entry->d_name[0] != '.')
			r = look_at_host(f, custody, entry->d_name, reterr);
	custody_free(custody);
	return r;
}

/* ---- manifests */

/* Whether the store has this bundle of the host, or its receipt. */
static bool has_bundle(const struct fleet *f, const struct fleet_host *h, const struct id *bundle) {
	char path[HOST_ID_MAX + ID_DAY_SIZE + ID_TEXT_SIZE + 16];
	char day[ID_DAY_SIZE], id[ID_TEXT_SIZE];
	struct stat st;

	id_day(bundle, day);
	id_print(bundle, id);
	(void)snprintf(path, sizeof path, "%s/%s/%s.cms", h->name, day, id);
	if (fstatat(f->store, path, &st, AT_SYMLINK_NOFOLLOW) == 0)
		return true;
	(void)snprintf(path, sizeof path, "%s/%s/%s.receipt", h->name, day, id);
	return fstatat(f->store, path, &st, AT_SYMLINK_NOFOLLOW) == 0;
}

/* Who sent the bundle is what the store says: a manifest holds whatever its sender wrote. */
static struct fleet_host *sender_of(
	const struct fleet *f, struct fleet_host *likely, const struct id *bundle) {
	if (likely != NULL && has_bundle(f, likely, bundle))
		return likely;
	for (size_t i = 0; i < f->count; i++)
		if (&f->hosts[i] != likely && has_bundle(f, &f->hosts[i], bundle))
			return &f->hosts[i];
	return NULL;
}

static void take_manifest(struct fleet_host *h, const struct id *bundle, const struct manifest *m) {
	int64_t oldest = m->created_ns;

	if (!slice_is(m->host, h->name) || !id_equal(&m->bundle, bundle)) {
		h->forged = true;
		return;
	}
	if (m->created_ns <= h->created_ns)
		return;
	for (size_t i = 0; i < m->count; i++)
		if (m->entries[i].mtime_ns < oldest)
			oldest = m->entries[i].mtime_ns;
	h->created_ns = m->created_ns;
	h->serial = m->policy_serial;
	if (__builtin_sub_overflow(m->created_ns, oldest, &h->oldest_ns))
		h->oldest_ns = INT64_MAX;
}

static int load_manifest(
	int dir, const char *name, struct manifest_read **ret, struct cede_error *reterr) {
	CLEANUP(buf_done) struct buf text = BUF_INIT(MANIFEST_SIZE_MAX);
	CLEANUP(fd_closep) int fd = -1;

	CEDE_TRY(file_open_beneath(dir, name, O_RDONLY, &fd, reterr));
	CEDE_TRY(file_load_fd(fd, &text, reterr));
	return manifest_read(buf_slice(&text), ret, reterr);
}

/* Captures lie beside manifests, in folders; only what has a manifest's name is looked at. */
static int look_at_manifests(
	struct fleet *f, int dir, struct fleet_host *likely, struct cede_error *reterr) {
	CLEANUP(dir_closep) DIR *list = NULL;
	const struct dirent *entry;
	struct id bundle;

	CEDE_TRY(list_of(dir, &list, reterr));
	while ((entry = readdir(list)) != NULL) {
		CLEANUP(manifest_read_freep) struct manifest_read *m = NULL;
		struct cede_error err = {0};
		if (!is_named(entry->d_name, ".manifest.json", &bundle))
			continue;
		struct fleet_host *h = sender_of(f, likely, &bundle);
		if (h == NULL)
			f->unknown++;
		else if (load_manifest(dir, entry->d_name, &m, &err) < 0)
			unreadable(f, h, entry->d_name, &err);
		else
			take_manifest(h, &bundle, manifest_peek(m));
	}
	return CEDE_OK;
}

/* What open wrote into DIR, or into a folder of each host there. */
static int look_at_opened(struct fleet *f, const char *path, struct cede_error *reterr) {
	CLEANUP(fd_closep) int dir = -1;

	CEDE_TRY(file_open_dir(AT_FDCWD, path, &dir, reterr));
	CEDE_TRY(look_at_manifests(f, dir, NULL, reterr));
	for (size_t i = 0; i < f->count; i++) {
		struct fleet_host *h = &f->hosts[i];
		CLEANUP(fd_closep) int below = -1;
		struct cede_error err = {0};
		int r = open_folder(dir, h->name, &below, &err);
		if (r == CEDE_OK && below >= 0)
			r = look_at_manifests(f, below, h, &err);
		if (r < 0)
			unreadable(f, h, h->name, &err);
	}
	return CEDE_OK;
}

static int by_name(const void *x, const void *y) {
	const struct fleet_host *a = x;
	const struct fleet_host *b = y;

	return strcmp(a->name, b->name);
}

int fleet_read(struct fleet *f, const char *store, const char *opened, struct cede_error *reterr) {
	CEDE_TRY(look_at_store(f, store, reterr));
	if (opened != NULL)
		CEDE_TRY(look_at_opened(f, opened, reterr));
	if (f->count > 1)
		qsort(f->hosts, f->count, sizeof *f->hosts, by_name);
	return CEDE_OK;
}
