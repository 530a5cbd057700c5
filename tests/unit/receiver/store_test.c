/* SPDX-License-Identifier: Apache-2.0
 * The agency's store: each bundle once, durable before its receipt, and nothing half done. */
#include <dirent.h>
#include <fcntl.h>
#include <ftw.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/check.h"
#include "base/file.h"
#include "certs/key.h"
#include "formats/receipt.h"
#include "receiver/limits.h"
#include "receiver/store.h"
#include "tests/unit/certs/tool.h"

#define DAY "2025/05/31"

static struct tool tool;
static EVP_PKEY *key;
static struct note_keys *keys;
static struct store *store;
static unsigned number;

/* ---- the call that one test fails */

static unsigned looks, fail_look; /* the Nth fails, 0: none */

int __real_fstatat64(int dirfd, const char *name, struct stat *st, int flags);
int __wrap_fstatat64(int dirfd, const char *name, struct stat *st, int flags);

int __wrap_fstatat64(int dirfd, const char *name, struct stat *st, int flags) {
	if (++looks != fail_look)
		return __real_fstatat64(dirfd, name, st, flags);
	errno = EIO;
	return -1;
}

/* ---- what was flushed */

static ino_t flushed[64];
static size_t flushes;
static void (*at_first_flush)(void); /* what another thread does meanwhile */

int __real_fsync(int fd);
int __wrap_fsync(int fd);

int __wrap_fsync(int fd) {
	struct stat st;

	if (at_first_flush != NULL) {
		void (*other)(void) = at_first_flush;
		at_first_flush = NULL;
		other();
	}
	if (fstat(fd, &st) == 0 && flushes < ARRAY_LENGTH(flushed))
		flushed[flushes++] = st.st_ino;
	return __real_fsync(fd);
}

static bool was_flushed(const char *path) {
	struct stat st;

	assert_int_equal(__real_fstatat64(tool.dirfd, path, &st, 0), 0);
	for (size_t i = 0; i < flushes; i++)
		if (flushed[i] == st.st_ino)
			return true;
	return false;
}

static int set_up(void **state) {
	struct cede_error err;
	char path[128];

	(void)state;
	tool_init(&tool);
	tool_pki(&tool);
	key = tool_private(&tool, "pki/receipt.key");
	(void)snprintf(path, sizeof path, "%s/store", tool.path);
	if (note_keys_new(NOTE_RECEIPT, &keys, &err) < 0 || note_keys_add(keys, key, &err) < 0 ||
		store_open(path, key, "agency", &store, &err) < 0)
		return -1;
	return 0;
}

static int tear_down(void **state) {
	(void)state;
	store_close(store);
	note_keys_free(keys);
	key_freep(&key);
	tool_done(&tool);
	return 0;
}

/* An id of DAY. */
static struct id fresh(void) {
	char text[ID_TEXT_SIZE];
	struct cede_error err;
	struct id id;

	(void)snprintf(text, sizeof text, "01972884-1400-7000-8000-%012x", ++number);
	assert_int_equal(id_parse(slice_str(text), &id, &err), CEDE_OK);
	return id;
}

static void name_of(const struct id *id, const char *host, const char *ending, char out[256]) {
	char text[ID_TEXT_SIZE], day[ID_DAY_SIZE];

	id_print(id, text);
	id_day(id, day);
	(void)snprintf(out, 256, "store/%s/%s/%s%s", host, day, text, ending);
}

static bool is_there(const struct id *id, const char *host, const char *ending) {
	char name[256];
	struct stat st;

	name_of(id, host, ending, name);
	return fstatat(tool.dirfd, name, &st, AT_SYMLINK_NOFOLLOW) == 0;
}

static void digest_of(const void *data, size_t len, uint8_t out[32]) {
	assert_int_equal(EVP_Digest(data, len, out, NULL, EVP_sha256(), NULL), 1);
}

/* Puts it whole; the result of the commit. */
static int put(const char *host, const struct id *id, const char *text, const uint8_t *digest,
	struct buf *note, struct cede_error *err) {
	struct store_upload *u = NULL;
	enum store_found found;
	uint8_t own[32];

	digest_of(text, strlen(text), own);
	assert_int_equal(store_begin(store, host, id, &found, &u, err), CEDE_OK);
	assert_int_equal(found, STORE_NONE);
	for (size_t at = 0; at < strlen(text); at += 3)
		assert_int_equal(store_write(u, text + at,
					 strlen(text + at) < 3 ? strlen(text + at) : 3, err),
			CEDE_OK);
	int r = store_commit(u, digest != NULL ? digest : own, note, err);
	store_end(u);
	return r;
}

static void must_be_receipt(
	struct slice note, const char *host, const struct id *id, const char *text) {
	struct receipt r;
	uint8_t own[32];
	struct cede_error err = {0};

	digest_of(text, strlen(text), own);
	if (receipt_verify(keys, note, &r, &err) < 0)
		fail_msg("%s", err.text);
	assert_true(id_equal(&r.bundle, id));
	assert_string_equal(r.host, host);
	assert_int_equal(r.size, strlen(text));
	assert_memory_equal(r.sha256, own, 32);
}

static void what_is_stored_is_found_with_its_receipt(void **state) {
	CLEANUP(buf_done) struct buf note = BUF_INIT(RECEIPT_MAX);
	CLEANUP(buf_done) struct buf again = BUF_INIT(RECEIPT_MAX);
	CLEANUP(buf_done) struct buf content = BUF_INIT(4096);
	struct id id = fresh();
	struct cede_error err = {0};
	enum store_found found;
	struct store_upload *u = NULL;
	uint8_t digest[32], own[32];
	char name[256];

	(void)state;
	assert_int_equal(store_find(store, "lane-1", &id, &found, NULL, &err), CEDE_OK);
	assert_int_equal(found, STORE_NONE);
	assert_int_equal(put("lane-1", &id, "sealed bytes", NULL, &note, &err), CEDE_OK);
	must_be_receipt(buf_slice(&note), "lane-1", &id, "sealed bytes");
	assert_int_equal(store_find(store, "lane-1", &id, &found, digest, &err), CEDE_OK);
	assert_int_equal(found, STORE_THERE);
	digest_of("sealed bytes", 12, own);
	assert_memory_equal(digest, own, 32);
	name_of(&id, "lane-1", ".cms", name);
	tool_read(&tool, name, &content);
	assert_true(slice_is(buf_slice(&content), "sealed bytes"));
	assert_int_equal(store_receipt(store, "lane-1", &id, &again, &err), CEDE_OK);
	assert_true(slice_equal(buf_slice(&again), buf_slice(&note)));
	/* never a second time */
	assert_int_equal(store_begin(store, "lane-1", &id, &found, &u, &err), CEDE_OK);
	assert_int_equal(found, STORE_THERE);
	assert_null(u);
	assert_int_equal(store_abandon(store, "lane-1", &id, &found, &err), CEDE_OK);
	assert_int_equal(found, STORE_THERE);
	assert_false(is_there(&id, "lane-1", ".abandoned"));
	/* another host's bundle of the same id is another bundle */
	assert_int_equal(store_find(store, "lane-2", &id, &found, NULL, &err), CEDE_OK);
	assert_int_equal(found, STORE_NONE);
	buf_clear(&note);
	assert_int_equal(put("lane-2", &id, "other bytes", NULL, &note, &err), CEDE_OK);
	must_be_receipt(buf_slice(&note), "lane-2", &id, "other bytes");
}

static void what_is_not_as_stated_is_not_stored(void **state) {
	CLEANUP(buf_done) struct buf note = BUF_INIT(RECEIPT_MAX);
	static const uint8_t wrong[32] = {1};
	struct id id = fresh();
	struct cede_error err;
	struct store_upload *u = NULL;
	enum store_found found;

	(void)state;
	assert_int_equal(put("lane-1", &id, "bytes", wrong, &note, &err), CEDE_ERR_INPUT);
	assert_int_equal(note.len, 0);
	assert_false(is_there(&id, "lane-1", ".cms"));
	assert_false(is_there(&id, "lane-1", ".receipt"));
	/* neither is one that was not committed */
	assert_int_equal(store_begin(store, "lane-1", &id, &found, &u, &err), CEDE_OK);
	assert_int_equal(store_write(u, "half", 4, &err), CEDE_OK);
	store_end(u);
	assert_false(is_there(&id, "lane-1", ".cms"));
	assert_int_equal(store_find(store, "lane-1", &id, &found, NULL, &err), CEDE_OK);
	assert_int_equal(found, STORE_NONE);
}

static void one_upload_of_an_id_at_a_time(void **state) {
	struct store_upload *uploads[LIMIT_UPLOADS], *u = NULL;
	struct id id = fresh();
	struct cede_error err;
	enum store_found found;

	(void)state;
	assert_int_equal(store_begin(store, "lane-1", &id, &found, &uploads[0], &err), CEDE_OK);
	assert_int_equal(store_begin(store, "lane-1", &id, &found, &u, &err), CEDE_OK);
	assert_int_equal(found, STORE_IN_PROGRESS);
	assert_int_equal(store_abandon(store, "lane-1", &id, &found, &err), CEDE_OK);
	assert_int_equal(found, STORE_IN_PROGRESS);
	assert_int_equal(store_find(store, "lane-1", &id, &found, NULL, &err), CEDE_OK);
	assert_int_equal(found, STORE_IN_PROGRESS);
	/* a host has so many places, all hosts together so many */
	for (size_t i = 1; i < LIMIT_UPLOADS; i++) {
		struct id more = fresh();
		char host[16];

		(void)snprintf(host, sizeof host, "lane-%zu", 1 + i / LIMIT_UPLOADS_HOST);
		assert_int_equal(store_begin(store, host, &more, &found, &uploads[i], &err), CEDE_OK);
		assert_int_equal(found, STORE_NONE);
		if (i + 1 < LIMIT_UPLOADS && (i + 1) % LIMIT_UPLOADS_HOST == 0) {
			assert_int_equal(store_begin(store, host, &more, &found, &u, &err), CEDE_OK);
			assert_int_equal(found, STORE_IN_PROGRESS);
			more = fresh();
			assert_int_equal(
				store_begin(store, host, &more, &found, &u, &err), CEDE_ERR_BUSY);
			assert_int_equal(
				store_abandon(store, host, &more, &found, &err), CEDE_ERR_BUSY);
		}
	}
	struct id last = fresh();
	assert_int_equal(store_begin(store, "lane-99", &last, &found, &u, &err), CEDE_ERR_BUSY);
	for (size_t i = 0; i < LIMIT_UPLOADS; i++)
		store_end(uploads[i]);
	assert_int_equal(store_begin(store, "lane-1", &last, &found, &u, &err), CEDE_OK);
	store_end(u);
}

static void an_id_that_was_given_up_is_never_stored(void **state) {
	struct id id = fresh();
	struct cede_error err;
	enum store_found found;
	struct store_upload *u = NULL;

	(void)state;
	for (int i = 0; i < 2; i++) {
		assert_int_equal(store_abandon(store, "lane-1", &id, &found, &err), CEDE_OK);
		assert_int_equal(found, STORE_ABANDONED);
		assert_true(is_there(&id, "lane-1", ".abandoned"));
	}
	assert_int_equal(store_begin(store, "lane-1", &id, &found, &u, &err), CEDE_OK);
	assert_int_equal(found, STORE_ABANDONED);
	assert_null(u);
}

/* Its name appears before the flush that makes it durable: until that is over nothing is said. */
/* Else a second copy would be stored, or a promise given that the first never came. */
static void what_cannot_be_looked_at_is_not_absent(void **state) {
	CLEANUP(buf_done) struct buf note = BUF_INIT(RECEIPT_MAX);
	struct id stored = fresh(), given_up = fresh();
	struct cede_error err = {0};
	enum store_found found;

	(void)state;
	assert_int_equal(put("lane-1", &stored, "sealed bytes", NULL, &note, &err), CEDE_OK);
	assert_int_equal(store_abandon(store, "lane-1", &given_up, &found, &err), CEDE_OK);
	for (unsigned nth = 1; nth <= 2; nth++) { /* the bundle's name, the tombstone's */
		struct id ids[] = {stored, given_up};
		for (size_t i = 0; i < ARRAY_LENGTH(ids); i++) {
			struct store_upload *u = NULL;
			looks = 0;
			fail_look = nth;
			assert_int_equal(
				store_abandon(store, "lane-1", &ids[i], &found, &err), CEDE_ERR_IO);
			looks = 0;
			assert_int_equal(store_begin(store, "lane-1", &ids[i], &found, &u, &err),
				CEDE_ERR_IO);
			assert_null(u);
			looks = 0;
			assert_int_equal(store_find(store, "lane-1", &ids[i], &found, NULL, &err),
				CEDE_ERR_IO);
			fail_look = 0;
			assert_int_equal(
				store_begin(store, "lane-1", &ids[i], &found, &u, &err), CEDE_OK);
			assert_int_equal(found, i == 0 ? STORE_THERE : STORE_ABANDONED);
		}
	}
	looks = 0;
	fail_look = 1;
	buf_clear(&note);
	assert_int_equal(store_receipt(store, "lane-1", &stored, &note, &err), CEDE_ERR_IO);
	fail_look = 0;
	assert_false(is_there(&stored, "lane-1", ".abandoned"));
	assert_false(is_there(&given_up, "lane-1", ".cms"));
}

static void while_an_upload_has_it_nothing_is_promised(void **state) {
	CLEANUP(buf_done) struct buf note = BUF_INIT(RECEIPT_MAX);
	struct id id = fresh();
	struct cede_error err;
	struct store_upload *u = NULL;
	enum store_found found;
	uint8_t own[32];

	(void)state;
	digest_of("bytes", 5, own);
	assert_int_equal(store_begin(store, "lane-1", &id, &found, &u, &err), CEDE_OK);
	assert_int_equal(store_write(u, "bytes", 5, &err), CEDE_OK);
	assert_int_equal(store_commit(u, own, &note, &err), CEDE_OK);
	assert_true(is_there(&id, "lane-1", ".cms"));
	assert_int_equal(store_find(store, "lane-1", &id, &found, NULL, &err), CEDE_OK);
	assert_int_equal(found, STORE_IN_PROGRESS);
	store_end(u);
	assert_int_equal(store_find(store, "lane-1", &id, &found, NULL, &err), CEDE_OK);
	assert_int_equal(found, STORE_THERE);
}

/* A receipt without its bundle says nothing about the bundle that comes under the id later. */
static void a_receipt_that_stands_alone_is_worth_nothing(void **state) {
	CLEANUP(buf_done) struct buf note = BUF_INIT(RECEIPT_MAX);
	CLEANUP(buf_done) struct buf again = BUF_INIT(RECEIPT_MAX);
	struct id id = fresh();
	struct cede_error err;
	enum store_found found;
	uint8_t digest[32], own[32];
	char name[256];

	(void)state;
	assert_int_equal(put("lane-1", &id, "lost", NULL, &note, &err), CEDE_OK);
	name_of(&id, "lane-1", ".cms", name);
	assert_int_equal(unlinkat(tool.dirfd, name, 0), 0);
	assert_int_equal(store_find(store, "lane-1", &id, &found, NULL, &err), CEDE_OK);
	assert_int_equal(found, STORE_NONE);
	assert_int_equal(store_receipt(store, "lane-1", &id, &again, &err), CEDE_ERR_BUSY);
	buf_clear(&note);
	assert_int_equal(put("lane-1", &id, "came", NULL, &note, &err), CEDE_OK);
	assert_int_equal(store_receipt(store, "lane-1", &id, &again, &err), CEDE_OK);
	must_be_receipt(buf_slice(&again), "lane-1", &id, "came");
	digest_of("came", 4, own);
	assert_int_equal(store_find(store, "lane-1", &id, &found, digest, &err), CEDE_OK);
	assert_memory_equal(digest, own, 32);
}

/* The receipt's file is not flushed: what a crash made of it is made good. */
static void a_receipt_that_a_crash_took_is_made_again(void **state) {
	CLEANUP(buf_done) struct buf note = BUF_INIT(RECEIPT_MAX);
	struct id id = fresh(), other = fresh();
	struct cede_error err;
	char name[256], others[256];

	(void)state;
	assert_int_equal(put("lane-1", &id, "bytes", NULL, &note, &err), CEDE_OK);
	name_of(&id, "lane-1", ".receipt", name);
	buf_clear(&note);
	assert_int_equal(put("lane-1", &other, "more", NULL, &note, &err), CEDE_OK);
	name_of(&other, "lane-1", ".receipt", others);
	const struct slice spoilt[] = {SLICE_LIT(""), SLICE_LIT("\0\0\0\0\0\0"), buf_slice(&note)};
	for (size_t i = 0; i <= ARRAY_LENGTH(spoilt); i++) {
		CLEANUP(buf_done) struct buf got = BUF_INIT(RECEIPT_MAX);
		CLEANUP(buf_done) struct buf kept = BUF_INIT(RECEIPT_MAX);
		assert_int_equal(unlinkat(tool.dirfd, name, 0), 0);
		if (i < ARRAY_LENGTH(spoilt)) /* the last: another bundle's, well signed */
			tool_write(&tool, name, spoilt[i], 0600);
		assert_int_equal(store_receipt(store, "lane-1", &id, &got, &err), CEDE_OK);
		must_be_receipt(buf_slice(&got), "lane-1", &id, "bytes");
		tool_read(&tool, name, &kept);
		assert_true(slice_equal(buf_slice(&kept), buf_slice(&got)));
	}
	struct id never = fresh();
	assert_int_equal(store_receipt(store, "lane-1", &never, &note, &err), CEDE_ERR_BUSY);
}

static int take_away(const char *path, const struct stat *st, int kind, struct FTW *at) {
	(void)st;
	(void)kind;
	(void)at;
	return remove(path);
}

static void remove_all(const char *path) {
	char whole[256];

	(void)snprintf(whole, sizeof whole, "%s/%s", tool.path, path);
	assert_int_equal(nftw(whole, take_away, 16, FTW_DEPTH | FTW_PHYS), 0);
}

static const char *const places[] = {"store", "store/lane-5", "store/lane-5/2025",
	"store/lane-5/2025/05", ("store/lane-5/" DAY)};

static void push_another(void) {
	CLEANUP(buf_done) struct buf note = BUF_INIT(RECEIPT_MAX);
	struct id id = fresh();
	struct cede_error err;

	assert_int_equal(put("lane-5", &id, "bytes", NULL, &note, &err), CEDE_OK);
	for (size_t i = 0; i < ARRAY_LENGTH(places); i++)
		assert_true(was_flushed(places[i]));
}

/* Its folder was taken away while the receiver runs: what is made in its place is flushed, and all above. */
static void a_folder_that_is_made_anew_is_flushed(void **state) {
	(void)state;
	push_another();
	for (size_t i = 1; i < ARRAY_LENGTH(places); i++) {
		remove_all(places[i]);
		flushes = 0;
		push_another();
		flushes = 0;
		CLEANUP(buf_done) struct buf note = BUF_INIT(RECEIPT_MAX);
		struct id id = fresh();
		struct cede_error err;
		assert_int_equal(put("lane-5", &id, "more", NULL, &note, &err), CEDE_OK);
		assert_false(was_flushed("store/lane-5")); /* once is enough */
		/* who finds it before the flush is over flushes it as well */
		remove_all(places[i]);
		flushes = 0;
		at_first_flush = push_another;
		push_another();
		assert_null(at_first_flush);
	}
}

static void a_link_in_the_way_is_not_followed(void **state) {
	struct id id = fresh();
	struct cede_error err;
	enum store_found found;
	struct store_upload *u = NULL;

	(void)state;
	assert_int_equal(mkdirat(tool.dirfd, "elsewhere", 0700), 0);
	assert_int_equal(symlinkat("../elsewhere", tool.dirfd, "store/lane-9"), 0);
	assert_int_equal(store_begin(store, "lane-9", &id, &found, &u, &err), CEDE_ERR_IO);
	assert_null(u);
	assert_int_equal(unlinkat(tool.dirfd, "elsewhere", AT_REMOVEDIR), 0); /* still empty */
}

static void a_full_disk_is_told_and_keeps_nothing(void **state) {
	static char chunk[65536];
	struct store *full = NULL;
	struct store_upload *u = NULL;
	struct cede_error err = {0};
	enum store_found found;
	struct id id = fresh();
	char path[128];

	(void)state;
	(void)snprintf(path, sizeof path, "%s/full", tool.path);
	assert_int_equal(mkdir(path, 0700), 0);
	if (mount("none", path, "tmpfs", 0, "size=1m,mode=0700") < 0)
		skip(); /* needs root and the right to mount */
	assert_int_equal(store_open(path, key, "agency", &full, &err), CEDE_OK);
	assert_int_equal(store_begin(full, "lane-1", &id, &found, &u, &err), CEDE_OK);
	int r = CEDE_OK;
	for (size_t i = 0; r == CEDE_OK && i < 64; i++)
		r = store_write(u, chunk, sizeof chunk, &err);
	assert_int_equal(r, CEDE_ERR_IO);
	assert_int_equal(err.sys, ENOSPC);
	store_end(u);
	assert_int_equal(store_find(full, "lane-1", &id, &found, NULL, &err), CEDE_OK);
	assert_int_equal(found, STORE_NONE);
	store_close(full);
	assert_int_equal(umount(path), 0);
}

int main(void) {
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_is_stored_is_found_with_its_receipt),
		cmocka_unit_test(what_is_not_as_stated_is_not_stored),
		cmocka_unit_test(one_upload_of_an_id_at_a_time),
		cmocka_unit_test(an_id_that_was_given_up_is_never_stored),
		cmocka_unit_test(what_cannot_be_looked_at_is_not_absent),
		cmocka_unit_test(while_an_upload_has_it_nothing_is_promised),
		cmocka_unit_test(a_receipt_that_stands_alone_is_worth_nothing),
		cmocka_unit_test(a_receipt_that_a_crash_took_is_made_again),
		cmocka_unit_test(a_folder_that_is_made_anew_is_flushed),
		cmocka_unit_test(a_link_in_the_way_is_not_followed),
		cmocka_unit_test(a_full_disk_is_told_and_keeps_nothing),
	};

	return cmocka_run_group_tests(tests, set_up, tear_down);
}
