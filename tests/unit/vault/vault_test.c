/* SPDX-License-Identifier: Apache-2.0
 * The vault's parts: sealed keys anywhere; directories and keys on an ext4 with encryption of the
 * test's own (root and loop devices; skipped elsewhere). */
#include <fcntl.h>
#include <openssl/rand.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "agent/vault/place.h"
#include "agent/vault/wrap.h"
#include "base/bytes.h"
#include "base/check.h"
#include "base/cleanup.h"
#include "base/file.h"
#include "tests/unit/unit.h"
#include "tests/unit/wipe/disk.h"

#define MARKER "~vault-unit-marker~"

/* ---- sealed keys */

struct state {
	char home[64];
	char secret[96];
	int fd;
};

/* The secret on another file system than the state: that is what is asked for. */
static bool state_init(struct state *s, size_t secret) {
	uint8_t bytes[WRAP_SECRET_MOST + 1];

	(void)snprintf(s->home, sizeof s->home, "/var/tmp/vault-XXXXXX");
	(void)snprintf(s->secret, sizeof s->secret, "/dev/shm/vault-%d", (int)getpid());
	assert_non_null(mkdtemp(s->home));
	assert_int_equal(file_open_dir(AT_FDCWD, s->home, &s->fd, NULL), CEDE_OK);
	assert_int_equal(RAND_bytes(bytes, sizeof bytes), 1);
	CLEANUP(fd_closep)
	int fd = openat(AT_FDCWD, s->secret, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	struct stat a, b;
	return fd >= 0 && file_write_all(fd, bytes, secret, NULL) == CEDE_OK &&
		fstat(fd, &a) == 0 && fstat(s->fd, &b) == 0 && a.st_dev != b.st_dev;
}

static void state_done(struct state *s) {
	char words[160];

	(void)unlink(s->secret);
	(void)close(s->fd);
	(void)snprintf(words, sizeof words, "rm -rf %s", s->home);
	assert_int_equal(disk_run(words), 0);
}

static const struct fscrypt_id some_id = {{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16}};

static void sealed_keys_come_back(void **unused) {
	struct state s;
	struct wrap *w = NULL;
	uint8_t key[FSCRYPT_KEY_SIZE], got[FSCRYPT_KEY_SIZE] = {0};
	struct cede_error err = {0};

	(void)unused;
	if (!state_init(&s, WRAP_SECRET_LEAST)) {
		state_done(&s);
		skip();
	}
	assert_int_equal(RAND_bytes(key, sizeof key), 1);
	assert_int_equal(wrap_open(s.secret, s.fd, &w, &err), CEDE_OK);
	assert_int_equal(wrap_store(w, &some_id, key, &err), CEDE_OK);
	wrap_close(w);
	assert_int_equal(wrap_open(s.secret, s.fd, &w, &err), CEDE_OK);
	assert_int_equal(wrap_load(w, &some_id, got, &err), CEDE_OK);
	assert_memory_equal(got, key, sizeof key);
	wrap_forget(w, &some_id);
	assert_int_equal(wrap_load(w, &some_id, got, &err), CEDE_ERR_IO);
	assert_int_equal(err.sys, ENOENT);
	wrap_close(w);
	state_done(&s);
}

/* Every bit of the file, another name, another secret, another length: nothing opens. */
static void damaged_keys_do_not_open(void **unused) {
	struct state s;
	struct wrap *w = NULL;
	struct buf content = BUF_INIT(1024), secret = BUF_INIT(8192);
	uint8_t key[FSCRYPT_KEY_SIZE] = {7}, got[FSCRYPT_KEY_SIZE];
	struct fscrypt_id other = some_id;
	struct cede_error err = {0};
	char name[128];

	(void)unused;
	if (!state_init(&s, 100)) {
		state_done(&s);
		skip();
	}
	assert_int_equal(wrap_open(s.secret, s.fd, &w, &err), CEDE_OK);
	assert_int_equal(wrap_store(w, &some_id, key, &err), CEDE_OK);
	(void)snprintf(name, sizeof name, "%s/vault/0102030405060708090a0b0c0d0e0f10.key", s.home);
	assert_int_equal(file_load(AT_FDCWD, name, &content, &err), CEDE_OK);
	assert_int_equal(file_load(AT_FDCWD, s.secret, &secret, &err), CEDE_OK);
	struct slice good = buf_slice(&content);
	struct slice with = buf_slice(&secret);
	assert_int_equal(wrap_unseal(good, with, &some_id, got, &err), CEDE_OK);
	assert_null(memmem(good.data, good.len, key, 16));
	for (size_t bit = 0; bit < 8 * good.len; bit++) {
		content.data[bit / 8] ^= (uint8_t)(1U << (bit % 8));
		assert_int_equal(wrap_unseal(good, with, &some_id, got, &err), CEDE_ERR_INPUT);
		content.data[bit / 8] ^= (uint8_t)(1U << (bit % 8));
	}
	for (size_t n = 0; n < good.len; n++)
		assert_int_equal(wrap_unseal(slice_of(good.data, n), with, &some_id, got, &err),
			CEDE_ERR_INPUT);
	other.bytes[15] ^= 1;
	assert_int_equal(wrap_unseal(good, with, &other, got, &err), CEDE_ERR_INPUT);
	assert_int_equal(wrap_unseal(good, slice_of(with.data, with.len - 1), &some_id, got, &err),
		CEDE_ERR_INPUT);
	wrap_close(w);
	buf_done(&content);
	buf_done(&secret);
	state_done(&s);
}

static void secrets_that_protect_nothing_are_refused(void **unused) {
	struct state s;
	struct wrap *w = NULL;
	struct cede_error err = {0};
	char beside[128];

	(void)unused;
	bool apart = state_init(&s, WRAP_SECRET_LEAST - 1);
	if (!apart) {
		state_done(&s);
		skip();
	}
	assert_int_equal(wrap_open(s.secret, s.fd, &w, &err), CEDE_ERR_INPUT);
	assert_non_null(strstr(err.text, "at least 32"));
	assert_int_equal(truncate(s.secret, WRAP_SECRET_MOST + 1), 0);
	assert_int_equal(wrap_open(s.secret, s.fd, &w, &err), CEDE_ERR_INPUT);
	assert_int_equal(truncate(s.secret, 64), 0);
	if (geteuid() == 0) { /* whoever owns it may read and change it, whatever its mode */
		assert_int_equal(chown(s.secret, 7, 0), 0);
		assert_int_equal(wrap_open(s.secret, s.fd, &w, &err), CEDE_ERR_REFUSED);
		assert_non_null(strstr(err.text, "vault.key: "));
		assert_non_null(strstr(err.text, s.secret));
		assert_non_null(strstr(err.text, "belongs to user 7"));
		assert_non_null(strstr(err.text, "chown it"));
		assert_int_equal(chown(s.secret, 0, 0), 0);
	}
	assert_int_equal(fchmodat(AT_FDCWD, s.secret, 0640, 0), 0);
	assert_int_equal(wrap_open(s.secret, s.fd, &w, &err), CEDE_ERR_REFUSED);
	assert_non_null(strstr(err.text, "lets others at the"));
	/* on the file system of the state: whoever has the one disk has both */
	(void)snprintf(beside, sizeof beside, "%s/secret", s.home);
	CLEANUP(fd_closep) int fd = openat(AT_FDCWD, beside, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
	assert_true(fd >= 0 && ftruncate(fd, 64) == 0);
	assert_int_equal(wrap_open(beside, s.fd, &w, &err), CEDE_ERR_REFUSED);
	assert_non_null(strstr(err.text, "file system of the state"));
	CLEANUP(fd_closep) int shm = open("/dev/shm", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	assert_int_equal(fchmodat(AT_FDCWD, s.secret, 0600, 0), 0);
	assert_int_equal(wrap_check(beside, s.fd, shm, &err), CEDE_ERR_REFUSED);
	assert_int_equal(wrap_check(s.secret, s.fd, shm, &err), CEDE_ERR_REFUSED);
	assert_non_null(strstr(err.text, "file system of the captures"));
	assert_int_equal(wrap_check(s.secret, s.fd, s.fd, &err), CEDE_OK);
	assert_int_equal(faccessat(s.fd, WRAP_DIRECTORY, F_OK, 0), -1); /* a look makes nothing */
	assert_int_equal(wrap_open("/dev/shm/nothing-there", s.fd, &w, &err), CEDE_ERR_IO);
	/* a FIFO would hang whoever waits for its writer */
	(void)unlink(s.secret);
	assert_int_equal(mkfifo(s.secret, 0600), 0);
	assert_int_equal(wrap_open(s.secret, s.fd, &w, &err), CEDE_ERR_REFUSED);
	state_done(&s);
}

/* ---- directories */

struct site {
	struct disk disk;
	char path[128];
	struct place *place;
	struct fscrypt_id id;
	int fd;    /* of the source's directory */
	int mount; /* of the file system */
};

static bool site_init(struct site *s) {
	uint8_t key[FSCRYPT_KEY_SIZE];

	*s = (struct site){.fd = -1, .mount = -1};
	if (!disk_init(&s->disk, "mkfs.ext4 -q -F -O encrypt", NULL, "")) {
		disk_done(&s->disk);
		return false;
	}
	(void)snprintf(s->path, sizeof s->path, "%s/faces", s->disk.mount);
	assert_int_equal(file_open_dir(AT_FDCWD, s->disk.mount, &s->mount, NULL), CEDE_OK);
	assert_int_equal(mkdirat(s->mount, "faces", 0755), 0);
	assert_int_equal(file_open_dir(s->mount, "faces", &s->fd, NULL), CEDE_OK);
	assert_int_equal(place_open(s->path, "faces", true, &s->place, NULL), CEDE_OK);
	assert_int_equal(RAND_bytes(key, sizeof key), 1);
	assert_int_equal(fscrypt_add(s->mount, key, &s->id, NULL), CEDE_OK);
	return true;
}

static void site_done(struct site *s) {
	place_close(s->place);
	fd_closep(&s->fd);
	fd_closep(&s->mount);
	disk_done(&s->disk);
}

static void count_one(void *ctx, const char *at, size_t left) {
	(void)at;
	(void)left;
	(*(size_t *)ctx)++;
}

static size_t disk_count(struct disk *disk, const char *text) {
	size_t n = 0;

	assert_true(disk_each(disk, text, count_one, &n));
	return n;
}

static void put(int dir, const char *name, const char *text) {
	CLEANUP(fd_closep) int fd = openat(dir, name, O_WRONLY | O_CREAT | O_CLOEXEC, 0644);

	assert_true(fd >= 0);
	assert_int_equal(file_write_all(fd, text, strlen(text), NULL), CEDE_OK);
}

static bool there(int dir, const char *name) {
	struct stat st;

	return fstatat(dir, name, &st, AT_SYMLINK_NOFOLLOW) == 0;
}

/* To the next directory; the descriptor of the source's directory is the new one's then. */
static int turn(struct site *s, const char *name) {
	struct cede_error err = {0};
	int next = -1;

	assert_int_equal(place_stage(s->place, name, s->fd, true, &s->id, &err), CEDE_OK);
	assert_int_equal(place_turn(s->place, name, s->fd, true, &next, &err), CEDE_OK);
	assert_int_equal(err.code, CEDE_OK);
	int old = s->fd;
	s->fd = next;
	return old;
}

static void a_turn_gives_a_directory_like_the_old_one(void **unused) {
	/* user::rwx, user:1234:rwx, group::r-x, mask::rwx, other::--- */
	static const uint8_t acl[] = {2, 0, 0, 0, 1, 0, 7, 0, 255, 255, 255, 255, 2, 0, 7, 0, 0xd2,
		4, 0, 0, 4, 0, 5, 0, 255, 255, 255, 255, 16, 0, 7, 0, 255, 255, 255, 255, 32, 0, 0,
		0, 255, 255, 255, 255};
	struct site s;
	struct stat st;
	char got[64];

	(void)unused;
	if (!site_init(&s))
		skip();
	assert_int_equal(mkdirat(s.fd, "lane", 0711), 0);
	assert_int_equal(mkdirat(s.fd, "lane/3", 0700), 0);
	assert_int_equal(fchownat(s.fd, "lane/3", 1000, 1001, AT_SYMLINK_NOFOLLOW), 0);
	assert_int_equal(symlinkat("/etc", s.fd, "link"), 0);
	assert_int_equal(fchown(s.fd, 1000, 1000), 0);
	assert_int_equal(fchmod(s.fd, 02770), 0);
	assert_int_equal(fsetxattr(s.fd, "system.posix_acl_default", acl, sizeof acl, 0), 0);
	assert_int_equal(fsetxattr(s.fd, "user.note", "x", 1, 0), 0);
	put(s.fd, "lane/a.jpg", "a capture");
	int old = turn(&s, PLACE_BEFORE);

	assert_true(there(old, "lane/a.jpg") && !there(s.fd, "lane/a.jpg"));
	assert_false(there(s.fd, "link"));
	assert_int_equal(fstatat(AT_FDCWD, s.path, &st, 0), 0);
	assert_int_equal(st.st_uid, 1000);
	assert_int_equal(st.st_mode & 07777, 02770);
	assert_int_equal(fstatat(s.fd, "lane", &st, 0), 0);
	assert_int_equal(st.st_mode & 07777, 0711);
	assert_int_equal(fstatat(s.fd, "lane/3", &st, 0), 0);
	assert_int_equal(st.st_gid, 1001);
	assert_int_equal(fgetxattr(s.fd, "system.posix_acl_default", got, sizeof got), sizeof acl);
	assert_memory_equal(got, acl, sizeof acl);
	assert_int_equal(fgetxattr(s.fd, "user.note", got, sizeof got), 1);
	(void)close(old);
	site_done(&s);
}

static int count_found(void *ctx, struct place_found *f, struct cede_error *reterr) {
	unsigned *n = ctx;

	(void)reterr;
	*n += f->name[0] == 0 ? 100 : f->encrypted ? 10 : 1;
	return CEDE_OK;
}

static void what_is_there_is_listed(void **unused) {
	struct site s;
	unsigned n = 0;

	(void)unused;
	if (!site_init(&s))
		skip();
	int old = turn(&s, PLACE_BEFORE);
	assert_int_equal(
		place_stage(s.place, "0123456789abcdef0123456789abcdef", s.fd, true, &s.id, NULL),
		CEDE_OK);
	put(place_store_fd(s.place), "stray", "no directory");
	assert_int_equal(place_list(s.place, count_found, &n, NULL), CEDE_ERR_IO);
	assert_int_equal(unlinkat(place_store_fd(s.place), "stray", 0), 0);
	n = 0;
	assert_int_equal(place_list(s.place, count_found, &n, NULL), CEDE_OK);
	assert_int_equal(n, 111);
	(void)close(old);
	site_done(&s);
}

static bool is_tmp(void *ctx, int dirfd, const char *name, const char *path) {
	(void)ctx;
	(void)dirfd;
	(void)path;
	return strstr(name, ".tmp") != NULL;
}

static void only_what_is_empty_goes(void **unused) {
	struct site s;
	struct place_rest rest;

	(void)unused;
	if (!site_init(&s))
		skip();
	assert_int_equal(mkdirat(s.fd, "lane", 0700), 0);
	int old = turn(&s, PLACE_BEFORE);
	put(old, "lane/late.jpg", "written by a program that stayed");
	put(old, "x.tmp", "ignored");
	assert_int_equal(place_remove(s.place, PLACE_BEFORE, NULL, NULL, &rest, NULL), CEDE_OK);
	assert_false(rest.gone);
	assert_int_equal(rest.files, 2);
	assert_true(there(old, "lane/late.jpg"));
	assert_int_equal(place_remove(s.place, PLACE_BEFORE, is_tmp, NULL, &rest, NULL), CEDE_OK);
	assert_int_equal(rest.removed, 1);
	assert_true(!rest.gone && there(old, "lane/late.jpg"));
	assert_int_equal(unlinkat(old, "lane/late.jpg", 0), 0);
	assert_int_equal(place_remove(s.place, PLACE_BEFORE, NULL, NULL, &rest, NULL), CEDE_OK);
	assert_true(rest.gone);
	/* who is in there still is told, and does not lose in silence */
	assert_int_equal(openat(old, "y.jpg", O_WRONLY | O_CREAT | O_CLOEXEC, 0600), -1);
	assert_int_equal(errno, ENOENT);
	assert_int_equal(place_remove(s.place, PLACE_BEFORE, NULL, NULL, &rest, NULL), CEDE_OK);
	assert_true(rest.gone);
	(void)close(old);
	site_done(&s);
}

static void a_key_is_gone_when_nobody_uses_it(void **unused) {
	struct site s;
	enum fscrypt_state state;
	struct place_rest rest;
	uint64_t files;

	(void)unused;
	if (!site_init(&s))
		skip();
	(void)close(turn(&s, PLACE_BEFORE));
	assert_int_equal(place_remove(s.place, PLACE_BEFORE, NULL, NULL, &rest, NULL), CEDE_OK);
	put(s.fd, "NAMEofTraveller.jpg", MARKER);
	assert_int_equal(fscrypt_state(s.mount, &s.id, &state, NULL), CEDE_OK);
	assert_int_equal(state, FSCRYPT_PRESENT);
	int held = openat(s.fd, "NAMEofTraveller.jpg", O_RDONLY | O_CLOEXEC);
	assert_int_equal(fscrypt_remove(s.mount, &s.id, &state, NULL), CEDE_OK);
	assert_int_equal(state, FSCRYPT_BUSY);
	(void)close(held);
	fd_closep(&s.fd);
	assert_int_equal(fscrypt_remove(s.mount, &s.id, &state, NULL), CEDE_OK);
	assert_int_equal(state, FSCRYPT_ABSENT);
	assert_int_equal(fscrypt_remove(s.mount, &s.id, &state, NULL), CEDE_OK);
	assert_int_equal(state, FSCRYPT_ABSENT);
	/* what is left can be put aside and removed without the key */
	uint8_t key[FSCRYPT_KEY_SIZE] = {9};
	struct fscrypt_id next;
	int fd = -1;
	assert_int_equal(file_open_dir(AT_FDCWD, s.path, &s.fd, NULL), CEDE_OK);
	assert_int_equal(fscrypt_add(s.mount, key, &next, NULL), CEDE_OK);
	assert_int_equal(place_stage(s.place, "lost", s.fd, false, &next, NULL), CEDE_OK);
	assert_int_equal(place_turn(s.place, "lost", s.fd, false, &fd, NULL), CEDE_OK);
	(void)close(fd);
	assert_int_equal(place_clear(s.place, "lost", &files, NULL), CEDE_OK);
	assert_int_equal(files, 1);
	place_close(s.place);
	s.place = NULL;
	fd_closep(&s.fd);
	fd_closep(&s.mount);
	assert_int_equal(disk_count(&s.disk, MARKER), 0);
	assert_int_equal(disk_count(&s.disk, "NAMEofTraveller"), 0);
	site_done(&s);
}

static void another_directory_at_the_path_stays_there(void **unused) {
	struct site s;
	struct cede_error err = {0};
	char aside[4096];
	int fd = -1;

	(void)unused;
	if (!site_init(&s))
		skip();
	(void)snprintf(aside, sizeof aside, "%s.aside", s.path);
	assert_int_equal(place_stage(s.place, PLACE_BEFORE, s.fd, true, &s.id, NULL), CEDE_OK);
	assert_int_equal(rename(s.path, aside), 0);
	assert_int_equal(place_turn(s.place, PLACE_BEFORE, s.fd, true, &fd, &err), CEDE_ERR_BUSY);
	assert_int_equal(mkdir(s.path, 0700), 0);
	int other = open(s.path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	put(other, "b.jpg", "a capture");
	assert_int_equal(place_turn(s.place, PLACE_BEFORE, s.fd, true, &fd, &err), CEDE_ERR_BUSY);
	assert_true(strstr(err.text, "another directory") != NULL);
	assert_true(file_exchange(AT_FDCWD, s.path, AT_FDCWD, aside));
	assert_int_equal(place_turn(s.place, PLACE_BEFORE, s.fd, true, &fd, NULL), CEDE_OK);
	assert_true(there(other, "b.jpg") && fd >= 0);
	(void)close(other);
	(void)close(fd);
	site_done(&s);
}

static void where_nothing_can_be_exchanged_is_refused(void **unused) {
	struct site s;
	struct place *p = NULL;
	struct cede_error err = {0};
	char words[300];

	(void)unused;
	if (!site_init(&s))
		skip();
	/* the mount point itself, a link, nothing, a store that others may enter */
	assert_int_equal(place_open(s.disk.mount, "faces", true, &p, &err), CEDE_ERR_REFUSED);
	assert_non_null(strstr(err.text, "mount point"));
	assert_int_equal(place_open("/faces", "faces", true, &p, &err), CEDE_ERR_REFUSED);
	assert_non_null(strstr(err.text, "root of all"));
	assert_int_equal(symlinkat("faces", s.mount, "link"), 0);
	(void)snprintf(words, sizeof words, "%s/link", s.disk.mount);
	assert_int_equal(place_open(words, "faces", true, &p, &err), CEDE_ERR_REFUSED);
	(void)snprintf(words, sizeof words, "%s/nothing", s.disk.mount);
	assert_int_equal(place_open(words, "faces", true, &p, &err), CEDE_ERR_IO);
	assert_int_equal(place_open(s.path, "others", false, &p, &err), CEDE_ERR_IO);
	assert_non_null(strstr(err.text, "cede vault init"));
	assert_int_equal(fchmod(place_store_fd(s.place), 0755), 0);
	assert_int_equal(place_open(s.path, "faces", true, &p, &err), CEDE_ERR_REFUSED);
	assert_non_null(strstr(err.text, "ours alone"));
	/* a file system without encryption */
	struct fscrypt_id id;
	uint8_t key[FSCRYPT_KEY_SIZE] = {1};
	CLEANUP(fd_closep) int proc = openat(AT_FDCWD, "/proc", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	assert_int_equal(fscrypt_add(proc, key, &id, &err), CEDE_ERR_REFUSED);
	assert_non_null(strstr(err.text, "tune2fs"));
	assert_int_equal(mkdirat(s.fd, "full", 0700), 0);
	assert_int_equal(fscrypt_set(s.fd, &s.id, &err), CEDE_ERR_IO); /* not empty */
	site_done(&s);
}

int main(void) {
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(sealed_keys_come_back),
		cmocka_unit_test(damaged_keys_do_not_open),
		cmocka_unit_test(secrets_that_protect_nothing_are_refused),
		cmocka_unit_test(a_turn_gives_a_directory_like_the_old_one),
		cmocka_unit_test(what_is_there_is_listed),
		cmocka_unit_test(only_what_is_empty_goes),
		cmocka_unit_test(a_key_is_gone_when_nobody_uses_it),
		cmocka_unit_test(another_directory_at_the_path_stays_there),
		cmocka_unit_test(where_nothing_can_be_exchanged_is_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
