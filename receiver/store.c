/* SPDX-License-Identifier: Apache-2.0 */
#include "receiver/store.h"

#include <fcntl.h>
#include <openssl/evp.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/check.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/direct.h"
#include "base/file.h"
#include "formats/receipt.h"
#include "receiver/limits.h"

#define NAME_SIZE (ID_TEXT_SIZE + 16)

struct claim {
	bool used;
	char host[HOST_ID_MAX + 1];
	struct id bundle;
};

struct store {
	int root;
	EVP_PKEY *key;
	struct note_keys *keys; /* the same key: what it signed is checked before it is told again */
	char *signer;
	pthread_mutex_t lock;
	struct claim claims[LIMIT_UPLOADS];
};

struct store_upload {
	struct store *store;
	struct claim *claim;
	int day; /* directory */
	int fd;
	struct direct out; /* to fd */
	uint64_t size;
	EVP_MD_CTX *md;
};

int store_open(const char *path, EVP_PKEY *receipt_key, const char *signer, struct store **ret,
	struct cede_error *reterr) {
	struct store *s;

	if (mkdir(path, 0700) < 0 && errno != EEXIST)
		return CEDE_FAIL_SYS(reterr, "create the store %s", path);
	s = calloc(1, sizeof *s);
	if (s == NULL || (s->signer = strdup(signer)) == NULL) {
		free(s);
		return CEDE_FAIL_MEMORY(reterr);
	}
	s->root = -1;
	s->key = receipt_key;
	require(pthread_mutex_init(&s->lock, NULL) == 0);
	int r = file_open_dir(AT_FDCWD, path, &s->root, reterr);
	if (r == CEDE_OK)
		r = note_keys_new(NOTE_RECEIPT, &s->keys, reterr);
	if (r == CEDE_OK)
		r = note_keys_add(s->keys, receipt_key, reterr);
	if (r < 0) {
		store_close(s);
		return r;
	}
	*ret = s;
	return CEDE_OK;
}

void store_close(struct store *s) {
	if (s == NULL)
		return;
	fd_closep(&s->root);
	note_keys_free(s->keys);
	(void)pthread_mutex_destroy(&s->lock);
	free(s->signer);
	free(s);
}

/* ---- places */

static void name_of(const struct id *bundle, const char *ending, char name[NAME_SIZE]) {
	char text[ID_TEXT_SIZE];

	id_print(bundle, text);
	(void)snprintf(name, NAME_SIZE, "%s%s", text, ending);
}

/* One directory further; made and durable if it is missing. BUSY: not there and not wanted. */
static int step(int parent, const char *name, bool make, int *ret, struct cede_error *reterr) {
	int fd = openat(parent, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);

	if (fd < 0 && errno == ENOENT) {
		if (!make)
			return CEDE_FAIL(reterr, CEDE_ERR_BUSY, "not there");
		if (mkdirat(parent, name, 0700) < 0 && errno != EEXIST)
			return CEDE_FAIL_SYS(reterr, "create a directory of the store");
		CEDE_TRY(file_sync(parent, reterr));
		fd = openat(parent, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
	}
	if (fd < 0)
		return CEDE_FAIL_SYS(reterr, "open a directory of the store");
	*ret = fd;
	return CEDE_OK;
}

static int open_day(struct store *s, const char *host, const struct id *bundle, bool make, int *ret,
	struct cede_error *reterr) {
	CLEANUP(fd_closep) int at = -1;
	char day[ID_DAY_SIZE];
	char *rest = day;
	char *part;

	require(host_id_valid(slice_str(host)));
	id_day(bundle, day);
	CEDE_TRY(step(s->root, host, make, &at, reterr));
	while ((part = strsep(&rest, "/")) != NULL) {
		int next = -1;
		CEDE_TRY(step(at, part, make, &next, reterr));
		(void)close(at);
		at = next;
	}
	*ret = CEDE_TAKE_FD(at);
	return CEDE_OK;
}

static bool is_there(int day, const struct id *bundle, const char *ending) {
	char name[NAME_SIZE];
	struct stat st;

	name_of(bundle, ending, name);
	return fstatat(day, name, &st, AT_SYMLINK_NOFOLLOW) == 0;
}

static enum store_found found_in(int day, const struct id *bundle) {
	if (is_there(day, bundle, ".cms"))
		return STORE_THERE;
	return is_there(day, bundle, ".abandoned") ? STORE_ABANDONED : STORE_NONE;
}

/* ---- claims: one upload of an id at a time */

static struct claim *claim_of(struct store *s, const char *host, const struct id *bundle) {
	for (size_t i = 0; i < ARRAY_LENGTH(s->claims); i++)
		if (s->claims[i].used && id_equal(&s->claims[i].bundle, bundle) &&
			strcmp(s->claims[i].host, host) == 0)
			return &s->claims[i];
	return NULL;
}

/* NULL: somebody else has it (*ret_full false), or all places are taken. */
static struct claim *claim_take(
	struct store *s, const char *host, const struct id *bundle, bool *ret_full) {
	struct claim *free_one = NULL;

	*ret_full = false;
	(void)pthread_mutex_lock(&s->lock);
	bool taken = claim_of(s, host, bundle) != NULL;
	for (size_t i = 0; !taken && i < ARRAY_LENGTH(s->claims); i++)
		if (!s->claims[i].used) {
			free_one = &s->claims[i];
			free_one->used = true;
			free_one->bundle = *bundle;
			(void)snprintf(free_one->host, sizeof free_one->host, "%s", host);
			break;
		}
	(void)pthread_mutex_unlock(&s->lock);
	*ret_full = !taken && free_one == NULL;
	return free_one;
}

static void claim_end(struct store *s, struct claim *claim) {
	(void)pthread_mutex_lock(&s->lock);
	claim->used = false;
	(void)pthread_mutex_unlock(&s->lock);
}

/* ---- receipts */

static int hash_file(int fd, uint8_t ret[32], uint64_t *ret_size, struct cede_error *reterr) {
	CLEANUP(freep) uint8_t *chunk = malloc(1 << 18);
	EVP_MD_CTX *md = EVP_MD_CTX_new();
	uint64_t at = 0;
	size_t got = 1;
	int r = CEDE_OK;

	if (chunk == NULL || md == NULL || EVP_DigestInit_ex2(md, EVP_sha256(), NULL) != 1)
		r = CEDE_FAIL_MEMORY(reterr);
	while (r == CEDE_OK && got > 0) {
		r = file_pread_full(fd, chunk, 1 << 18, at, &got, reterr);
		if (r == CEDE_OK && EVP_DigestUpdate(md, chunk, got) != 1)
			r = CEDE_FAIL(reterr, CEDE_ERR_CRYPTO, "SHA-256 failed");
		at += got;
	}
	if (r == CEDE_OK && EVP_DigestFinal_ex(md, ret, NULL) != 1)
		r = CEDE_FAIL(reterr, CEDE_ERR_CRYPTO, "SHA-256 failed");
	EVP_MD_CTX_free(md);
	*ret_size = at;
	return r;
}

static int make_receipt(struct store *s, const char *host, const struct id *bundle, uint64_t size,
	const uint8_t sha256[32], struct buf *note, struct cede_error *reterr) {
	struct receipt receipt = {.bundle = *bundle, .size = size, .received_ns = clock_wall_ns()};

	(void)snprintf(receipt.host, sizeof receipt.host, "%s", host);
	memcpy(receipt.sha256, sha256, sizeof receipt.sha256);
	return receipt_sign(&receipt, s->signer, s->key, note, reterr);
}

static int open_bundle(int day, const struct id *bundle, int *ret, struct cede_error *reterr) {
	char name[NAME_SIZE];

	name_of(bundle, ".cms", name);
	return file_open_beneath(day, name, O_RDONLY, ret, reterr);
}

/* The receipt that was written, if it is whole: its file was not flushed. */
static bool stored_receipt(
	struct store *s, int day, const char *host, const struct id *bundle, struct buf *note) {
	struct receipt receipt;
	char name[NAME_SIZE];

	name_of(bundle, ".receipt", name);
	if (file_load(day, name, note, NULL) == CEDE_OK &&
		receipt_verify(s->keys, buf_slice(note), &receipt, NULL) == CEDE_OK &&
		id_equal(&receipt.bundle, bundle) && strcmp(receipt.host, host) == 0)
		return true;
	buf_clear(note);
	return false;
}

int store_receipt(struct store *s, const char *host, const struct id *bundle, struct buf *note,
	struct cede_error *reterr) {
	CLEANUP(fd_closep) int day = -1;
	CLEANUP(fd_closep) int fd = -1;
	char name[NAME_SIZE];
	uint8_t sha256[32];
	uint64_t size;

	CEDE_TRY(open_day(s, host, bundle, false, &day, reterr));
	if (!is_there(day, bundle, ".cms"))
		return CEDE_FAIL(reterr, CEDE_ERR_BUSY, "not there");
	if (stored_receipt(s, day, host, bundle, note))
		return CEDE_OK;
	/* stored, and the end came before its receipt: its name may not be durable yet */
	CEDE_TRY(open_bundle(day, bundle, &fd, reterr));
	CEDE_TRY(hash_file(fd, sha256, &size, reterr));
	CEDE_TRY(file_sync(fd, reterr));
	CEDE_TRY(make_receipt(s, host, bundle, size, sha256, note, reterr));
	name_of(bundle, ".receipt", name);
	return file_replace(
		day, name, buf_slice(note), 0600, reterr); /* flushes the directory, too */
}

int store_find(struct store *s, const char *host, const struct id *bundle, enum store_found *ret,
	uint8_t *ret_sha256, struct cede_error *reterr) {
	CLEANUP(fd_closep) int day = -1;
	CLEANUP(fd_closep) int fd = -1;
	uint64_t size;

	(void)pthread_mutex_lock(&s->lock);
	bool busy = claim_of(s, host, bundle) != NULL;
	(void)pthread_mutex_unlock(&s->lock);
	*ret = STORE_NONE;
	int r = open_day(s, host, bundle, false, &day, reterr);
	if (r < 0 && r != CEDE_ERR_BUSY)
		return r;
	if (r == CEDE_OK)
		*ret = found_in(day, bundle);
	if (*ret == STORE_NONE && busy)
		*ret = STORE_IN_PROGRESS;
	if (*ret != STORE_THERE || ret_sha256 == NULL)
		return CEDE_OK;
	CEDE_TRY(open_bundle(day, bundle, &fd, reterr));
	return hash_file(fd, ret_sha256, &size, reterr);
}

int store_abandon(struct store *s, const char *host, const struct id *bundle, enum store_found *ret,
	struct cede_error *reterr) {
	CLEANUP(fd_closep) int day = -1;
	char name[NAME_SIZE];
	bool full;

	struct claim *claim = claim_take(s, host, bundle, &full);
	if (claim == NULL) {
		*ret = STORE_IN_PROGRESS;
		return CEDE_OK;
	}
	int r = open_day(s, host, bundle, true, &day, reterr);
	if (r == CEDE_OK) {
		*ret = found_in(day, bundle);
		name_of(bundle, ".abandoned", name);
		if (*ret == STORE_NONE)
			r = file_replace(day, name, SLICE_LIT("abandoned\n"), 0600, reterr);
		if (r == CEDE_OK && *ret == STORE_NONE)
			*ret = STORE_ABANDONED;
	}
	claim_end(s, claim);
	return r;
}

/* ---- uploads */

static int start_upload(struct store_upload *u, const char *host, const struct id *bundle,
	enum store_found *ret_found, struct cede_error *reterr) {
	CEDE_TRY(open_day(u->store, host, bundle, true, &u->day, reterr));
	*ret_found = found_in(u->day, bundle);
	if (*ret_found != STORE_NONE)
		return CEDE_OK;
	u->fd = openat(u->day, ".", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
	if (u->fd < 0)
		return CEDE_FAIL_SYS(reterr, "create a file in the store");
	u->md = EVP_MD_CTX_new();
	if (u->md == NULL || EVP_DigestInit_ex2(u->md, EVP_sha256(), NULL) != 1)
		return CEDE_FAIL_MEMORY(reterr);
	return direct_start(&u->out, u->fd, reterr);
}

int store_begin(struct store *s, const char *host, const struct id *bundle,
	enum store_found *ret_found, struct store_upload **ret, struct cede_error *reterr) {
	struct store_upload *u = calloc(1, sizeof *u);
	bool full;

	if (u == NULL)
		return CEDE_FAIL_MEMORY(reterr);
	u->store = s;
	u->day = u->fd = -1;
	u->claim = claim_take(s, host, bundle, &full);
	if (u->claim == NULL) {
		free(u);
		if (full)
			return CEDE_FAIL(reterr, CEDE_ERR_BUSY, "too many uploads at once");
		*ret_found = STORE_IN_PROGRESS;
		return CEDE_OK;
	}
	int r = start_upload(u, host, bundle, ret_found, reterr);
	if (r < 0 || *ret_found != STORE_NONE) {
		store_end(u);
		return r;
	}
	*ret = u;
	return CEDE_OK;
}

int store_write(struct store_upload *u, const void *data, size_t len, struct cede_error *reterr) {
	CEDE_TRY(direct_put(&u->out, data, len, reterr));
	if (EVP_DigestUpdate(u->md, data, len) != 1)
		return CEDE_FAIL(reterr, CEDE_ERR_CRYPTO, "SHA-256 failed");
	u->size += len;
	return CEDE_OK;
}

/* The receipt's file, named and not flushed. One of an earlier life that is there without its
 * bundle is replaced. */
static int name_receipt(struct store_upload *u, struct slice note, struct cede_error *reterr) {
	char name[NAME_SIZE];
	CLEANUP(fd_closep) int fd = openat(u->day, ".", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);

	if (fd < 0)
		return CEDE_FAIL_SYS(reterr, "create a file in the store");
	name_of(&u->claim->bundle, ".receipt", name);
	CEDE_TRY(file_write_all(fd, note.data, note.len, reterr));
	int r = file_link_only(fd, u->day, name, reterr);
	return r == CEDE_ERR_BUSY ? file_replace(u->day, name, note, 0600, reterr) : r;
}

int store_commit(struct store_upload *u, const uint8_t sha256[32], struct buf *note,
	struct cede_error *reterr) {
	uint8_t digest[32];
	char name[NAME_SIZE];

	if (EVP_DigestFinal_ex(u->md, digest, NULL) != 1)
		return CEDE_FAIL(reterr, CEDE_ERR_CRYPTO, "SHA-256 failed");
	if (memcmp(digest, sha256, sizeof digest) != 0)
		return CEDE_FAIL(reterr, CEDE_ERR_INPUT, "the body is not what Repr-Digest says");
	CEDE_TRY(make_receipt(
		u->store, u->claim->host, &u->claim->bundle, u->size, digest, note, reterr));
	CEDE_TRY(direct_finish(&u->out, reterr));
	CEDE_TRY(name_receipt(u, buf_slice(note), reterr));
	name_of(&u->claim->bundle, ".cms", name);
	return file_link_new(u->fd, u->day, name, reterr); /* content, name, directory: durable */
}

void store_end(struct store_upload *u) {
	if (u == NULL)
		return;
	direct_end(&u->out);
	fd_closep(&u->fd); /* nameless unless committed */
	fd_closep(&u->day);
	EVP_MD_CTX_free(u->md);
	claim_end(u->store, u->claim);
	free(u);
}
