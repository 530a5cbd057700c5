/* SPDX-License-Identifier: Apache-2.0 */
#include "receiver/store.h"

#include <fcntl.h>
#include <openssl/evp.h>
#include <openssl/x509.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/check.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/direct.h"
#include "base/file.h"
#include "base/log.h"
#include "formats/checkpoint.h"
#include "formats/receipt.h"
#include "receiver/custody.h"
#include "receiver/days.h"
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
	struct custody *custody;
	struct days *days;
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

/* The store's own name, after it was made. */
static int sync_above(int root, struct cede_error *reterr) {
	CLEANUP(fd_closep) int above = -1;

	CEDE_TRY(file_open_dir(root, "..", &above, reterr));
	return file_sync(above, reterr);
}

/* A receipt for nothing, signed and verified, and the key read from DER as hosts' keys are: a key that
 * can't sign is found at the start, and what OpenSSL sets up at its first use is there before memory
 * can be short. It remembers a failure for ever: every host's checkpoint would pass for forged. */
static int try_key(const struct store *s, struct cede_error *reterr) {
	CLEANUP(buf_done) struct buf note = BUF_INIT(RECEIPT_MAX);
	struct receipt receipt = {.host = "self-test", .received_ns = clock_wall_ns()};
	struct note_keys *of_der = NULL;
	uint8_t *der = NULL;

	CEDE_TRY(id_make(receipt.received_ns, &receipt.bundle, reterr));
	CEDE_TRY(receipt_sign(&receipt, s->signer, s->key, &note, reterr));
	CEDE_TRY(receipt_verify(s->keys, buf_slice(&note), &receipt, reterr));
	int size = i2d_PUBKEY(s->key, &der);
	int r = size > 0 ? checkpoint_keys(slice_of(der, (size_t)size), &of_der, reterr)
			 : CEDE_FAIL(reterr, CEDE_ERR_CRYPTO, "the receipt key can't be written");
	OPENSSL_free(der);
	note_keys_free(of_der);
	return r;
}

int store_open(const char *path, EVP_PKEY *receipt_key, const char *signer, struct store **ret,
	struct cede_error *reterr) {
	struct store *s;
	bool made = mkdir(path, 0700) == 0;

	if (!made && errno != EEXIST)
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
	if (r == CEDE_OK && made)
		r = sync_above(s->root, reterr);
	if (r == CEDE_OK)
		r = custody_new(s->root, &s->custody, reterr);
	if (r == CEDE_OK)
		r = days_new(s->root, &s->days, reterr);
	if (r == CEDE_OK)
		r = note_keys_new(NOTE_RECEIPT, &s->keys, reterr);
	if (r == CEDE_OK)
		r = note_keys_add(s->keys, receipt_key, reterr);
	if (r == CEDE_OK)
		r = try_key(s, reterr);
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
	custody_free(s->custody);
	days_free(s->days);
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

/* What can't be looked at is not absent: a second copy, or a promise that it never came, would follow. */
static int look_for(int day, const struct id *bundle, const char *ending, bool *ret,
	struct cede_error *reterr) {
	char name[NAME_SIZE];
	struct stat st;

	name_of(bundle, ending, name);
	*ret = fstatat(day, name, &st, AT_SYMLINK_NOFOLLOW) == 0;
	return *ret || errno == ENOENT ? CEDE_OK
				       : CEDE_FAIL_SYS(reterr, "look for a bundle in the store");
}

static int find_in(
	int day, const struct id *bundle, enum store_found *ret, struct cede_error *reterr) {
	bool there, abandoned;

	CEDE_TRY(look_for(day, bundle, ".cms", &there, reterr));
	CEDE_TRY(look_for(day, bundle, ".abandoned", &abandoned, reterr));
	*ret = there ? STORE_THERE : abandoned ? STORE_ABANDONED : STORE_NONE;
	return CEDE_OK;
}

/* ---- claims: one upload of an id at a time */

static struct claim *claim_of(struct store *s, const char *host, const struct id *bundle) {
	for (size_t i = 0; i < ARRAY_LENGTH(s->claims); i++)
		if (s->claims[i].used && id_equal(&s->claims[i].bundle, bundle) &&
			strcmp(s->claims[i].host, host) == 0)
			return &s->claims[i];
	return NULL;
}

static struct claim *claim_free(struct store *s, const char *host) {
	struct claim *free_one = NULL;
	size_t of_host = 0;

	for (size_t i = 0; i < ARRAY_LENGTH(s->claims); i++) {
		if (!s->claims[i].used)
			free_one = &s->claims[i];
		else
			of_host += strcmp(s->claims[i].host, host) == 0;
	}
	return of_host < LIMIT_UPLOADS_HOST ? free_one : NULL;
}

/* NULL: somebody else has it (*ret_full false), or all places (of this host) are taken. */
static struct claim *claim_take(
	struct store *s, const char *host, const struct id *bundle, bool *ret_full) {
	struct claim *claim = NULL;

	(void)pthread_mutex_lock(&s->lock);
	bool taken = claim_of(s, host, bundle) != NULL;
	if (!taken)
		claim = claim_free(s, host);
	if (claim != NULL) {
		claim->used = true;
		claim->bundle = *bundle;
		(void)snprintf(claim->host, sizeof claim->host, "%s", host);
	}
	(void)pthread_mutex_unlock(&s->lock);
	*ret_full = !taken && claim == NULL;
	return claim;
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

/* What is known of the host's ledger. What can't be read is not acknowledged; the bundle is here
 * all the same. */
static void add_checkpoint(struct store *s, struct receipt *receipt) {
	struct checkpoint newest = {.size = 0};
	struct cede_error err = {0};
	bool known = false;

	if (custody_newest(s->custody, receipt->host, &newest, &known, &err) < 0)
		log_event(LOG_LEVEL_ERROR, "checkpoint.unread", "host=%s error=\"%s\"",
			receipt->host, err.text);
	receipt->checkpoint_size = known ? newest.size : 0;
	memcpy(receipt->checkpoint_root, newest.root, sizeof newest.root);
}

static int make_receipt(struct store *s, const char *host, const struct id *bundle, uint64_t size,
	const uint8_t sha256[32], struct buf *note, struct cede_error *reterr) {
	struct receipt receipt = {.bundle = *bundle, .size = size, .received_ns = clock_wall_ns()};

	(void)snprintf(receipt.host, sizeof receipt.host, "%s", host);
	memcpy(receipt.sha256, sha256, sizeof receipt.sha256);
	add_checkpoint(s, &receipt);
	return receipt_sign(&receipt, s->signer, s->key, note, reterr);
}

static int open_bundle(int day, const struct id *bundle, int *ret, struct cede_error *reterr) {
	char name[NAME_SIZE];

	name_of(bundle, ".cms", name);
	return file_open_beneath(day, name, O_RDONLY, ret, reterr);
}

/* The receipt that was written, if it is whole and for what is stored: its file was not flushed. */
static bool stored_receipt(struct store *s, int day, const char *host, const struct id *bundle,
	uint64_t size, struct buf *note, struct receipt *ret) {
	char name[NAME_SIZE];

	name_of(bundle, ".receipt", name);
	if (file_load(day, name, note, NULL) == CEDE_OK &&
		receipt_verify(s->keys, buf_slice(note), ret, NULL) == CEDE_OK &&
		id_equal(&ret->bundle, bundle) && strcmp(ret->host, host) == 0 && ret->size == size)
		return true;
	buf_clear(note);
	return false;
}

/* The receipt's file, under its name and not flushed. It appears whole: there is no temporary name
 * that a crash could leave. */
static int name_receipt(
	int day, const struct id *bundle, struct slice note, struct cede_error *reterr) {
	char name[NAME_SIZE];
	CLEANUP(fd_closep) int fd = openat(day, ".", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);

	if (fd < 0)
		return CEDE_FAIL_SYS(reterr, "create a file in the store");
	name_of(bundle, ".receipt", name);
	CEDE_TRY(file_write_all(fd, note.data, note.len, reterr));
	int r = file_link_only(fd, day, name, reterr);
	return r == CEDE_ERR_BUSY ? CEDE_OK : r; /* another thread's is as good */
}

static int drop_receipt(int day, const struct id *bundle, struct cede_error *reterr) {
	char name[NAME_SIZE];

	name_of(bundle, ".receipt", name);
	if (unlinkat(day, name, 0) < 0 && errno != ENOENT)
		return CEDE_FAIL_SYS(reterr, "remove a receipt that is worth nothing");
	return CEDE_OK;
}

/* A receipt of before, with what is known of the host's ledger now; it takes the other's place. */
static int tell_again(struct store *s, int day, const struct receipt *stored, struct buf *note,
	struct cede_error *reterr) {
	struct receipt now = *stored;

	add_checkpoint(s, &now);
	if (now.checkpoint_size == stored->checkpoint_size &&
		memcmp(now.checkpoint_root, stored->checkpoint_root, 32) == 0)
		return CEDE_OK;
	buf_clear(note);
	CEDE_TRY(receipt_sign(&now, s->signer, s->key, note, reterr));
	CEDE_TRY(drop_receipt(day, &stored->bundle, reterr));
	return name_receipt(day, &stored->bundle, buf_slice(note), reterr);
}

int store_receipt(struct store *s, const char *host, const struct id *bundle, struct buf *note,
	struct cede_error *reterr) {
	CLEANUP(fd_closep) int day = -1;
	CLEANUP(fd_closep) int fd = -1;
	struct receipt receipt;
	uint8_t sha256[32];
	struct stat st;
	uint64_t size;
	bool there;

	CEDE_TRY(days_open(s->days, host, bundle, false, &day, reterr));
	CEDE_TRY(look_for(day, bundle, ".cms", &there, reterr));
	if (!there)
		return CEDE_FAIL(reterr, CEDE_ERR_BUSY, "not there");
	CEDE_TRY(open_bundle(day, bundle, &fd, reterr));
	if (fstat(fd, &st) < 0)
		return CEDE_FAIL_SYS(reterr, "stat a bundle");
	if (stored_receipt(s, day, host, bundle, (uint64_t)st.st_size, note, &receipt))
		return tell_again(s, day, &receipt, note, reterr);
	/* stored, and the end came before its receipt */
	CEDE_TRY(hash_file(fd, sha256, &size, reterr));
	CEDE_TRY(file_sync(fd, reterr)); /* whoever put it there */
	CEDE_TRY(file_sync(day, reterr));
	CEDE_TRY(make_receipt(s, host, bundle, size, sha256, note, reterr));
	CEDE_TRY(drop_receipt(day, bundle, reterr));
	return name_receipt(day, bundle, buf_slice(note), reterr);
}

/* What was received under this name: as its receipt says, or read again. */
static int stored_digest(struct store *s, int day, const char *host, const struct id *bundle,
	uint8_t ret_sha256[32], struct cede_error *reterr) {
	CLEANUP(buf_done) struct buf note = BUF_INIT(RECEIPT_MAX);
	CLEANUP(fd_closep) int fd = -1;
	struct receipt receipt;
	struct stat st;
	uint64_t size;

	CEDE_TRY(open_bundle(day, bundle, &fd, reterr));
	if (fstat(fd, &st) < 0)
		return CEDE_FAIL_SYS(reterr, "stat a bundle");
	if (!stored_receipt(s, day, host, bundle, (uint64_t)st.st_size, &note, &receipt))
		return hash_file(fd, ret_sha256, &size, reterr);
	memcpy(ret_sha256, receipt.sha256, sizeof receipt.sha256);
	return CEDE_OK;
}

static bool is_claimed(struct store *s, const char *host, const struct id *bundle) {
	(void)pthread_mutex_lock(&s->lock);
	bool claimed = claim_of(s, host, bundle) != NULL;
	(void)pthread_mutex_unlock(&s->lock);
	return claimed;
}

int store_find(struct store *s, const char *host, const struct id *bundle, enum store_found *ret,
	uint8_t *ret_sha256, struct cede_error *reterr) {
	CLEANUP(fd_closep) int day = -1;

	*ret = STORE_NONE;
	int r = days_open(s->days, host, bundle, false, &day, reterr);
	if (r < 0 && r != CEDE_ERR_BUSY)
		return r;
	if (r == CEDE_OK)
		CEDE_TRY(find_in(day, bundle, ret, reterr));
	/* looked at after the name: while an upload has it, the name may not be on the disk yet */
	if (*ret != STORE_ABANDONED && is_claimed(s, host, bundle))
		*ret = STORE_IN_PROGRESS;
	if (*ret != STORE_THERE || ret_sha256 == NULL)
		return CEDE_OK;
	return stored_digest(s, day, host, bundle, ret_sha256, reterr);
}

/* A name that is durable and was never there in part. */
static int name_tombstone(int day, const struct id *bundle, struct cede_error *reterr) {
	char name[NAME_SIZE];
	CLEANUP(fd_closep) int fd = openat(day, ".", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);

	if (fd < 0)
		return CEDE_FAIL_SYS(reterr, "create a file in the store");
	name_of(bundle, ".abandoned", name);
	CEDE_TRY(file_write_all(fd, "abandoned\n", 10, reterr));
	return file_link_new(fd, day, name, reterr);
}

int store_abandon(struct store *s, const char *host, const struct id *bundle, enum store_found *ret,
	struct cede_error *reterr) {
	CLEANUP(fd_closep) int day = -1;
	bool full;

	struct claim *claim = claim_take(s, host, bundle, &full);
	if (claim == NULL && full)
		return CEDE_FAIL(reterr, CEDE_ERR_BUSY, "too many uploads at once");
	if (claim == NULL) {
		*ret = STORE_IN_PROGRESS;
		return CEDE_OK;
	}
	int r = days_open(s->days, host, bundle, true, &day, reterr);
	if (r == CEDE_OK)
		r = find_in(day, bundle, ret, reterr);
	if (r == CEDE_OK && *ret == STORE_NONE && (r = name_tombstone(day, bundle, reterr)) == CEDE_OK)
		*ret = STORE_ABANDONED;
	claim_end(s, claim);
	return r;
}

int store_checkpoint(
	struct store *s, const char *host, struct slice value, struct cede_error *reterr) {
	enum custody_verdict verdict;

	return custody_take(s->custody, host, value, &verdict, reterr);
}

/* ---- uploads */

static int start_upload(struct store_upload *u, const char *host, const struct id *bundle,
	enum store_found *ret_found, struct cede_error *reterr) {
	CEDE_TRY(days_open(u->store->days, host, bundle, true, &u->day, reterr));
	CEDE_TRY(find_in(u->day, bundle, ret_found, reterr));
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

/* Content first, then its name, then the receipt's: a receipt never stands alone. The flush of the
 * directory is for both names. */
static int name_both(struct store_upload *u, struct slice note, struct cede_error *reterr) {
	const struct id *bundle = &u->claim->bundle;
	char name[NAME_SIZE];

	name_of(bundle, ".cms", name);
	CEDE_TRY(file_sync(u->fd, reterr));
	CEDE_TRY(drop_receipt(u->day, bundle, reterr)); /* of an earlier life, for other bytes */
	CEDE_TRY(file_link_only(u->fd, u->day, name, reterr));
	int r = name_receipt(u->day, bundle, note, reterr);
	if (r == CEDE_OK)
		r = file_sync(u->day, reterr);
	if (r == CEDE_OK)
		return CEDE_OK;
	/* not promised: it is not there, and can come again */
	(void)drop_receipt(u->day, bundle, NULL);
	(void)unlinkat(u->day, name, 0);
	return r;
}

int store_commit(struct store_upload *u, const uint8_t sha256[32], struct buf *note,
	struct cede_error *reterr) {
	uint8_t digest[32];

	if (EVP_DigestFinal_ex(u->md, digest, NULL) != 1)
		return CEDE_FAIL(reterr, CEDE_ERR_CRYPTO, "SHA-256 failed");
	if (memcmp(digest, sha256, sizeof digest) != 0)
		return CEDE_FAIL(reterr, CEDE_ERR_INPUT, "the body is not what Repr-Digest says");
	CEDE_TRY(make_receipt(
		u->store, u->claim->host, &u->claim->bundle, u->size, digest, note, reterr));
	CEDE_TRY(direct_finish(&u->out, reterr));
	return name_both(u, buf_slice(note), reterr);
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
