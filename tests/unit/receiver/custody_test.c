/* SPDX-License-Identifier: Apache-2.0 */
#include <fcntl.h>
#include <openssl/ec.h>
#include <openssl/evp.h>
#include <openssl/x509.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/check.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/file.h"
#include "certs/key.h"
#include "receiver/custody.h"
#include "tests/unit/certs/tool.h"

#define EVENTS 200

static struct tool tool;
static struct merkle_hasher hasher;

/* A host: its key, and two histories that part after event 50. */
struct host {
	EVP_PKEY *key;
	uint8_t leaves[2][EVENTS][32];
};

static struct host ours, stranger;

static void make_host(struct host *h) {
	h->key = EVP_EC_gen("P-256");
	assert_non_null(h->key);
	for (size_t k = 0; k < 2; k++)
		for (size_t i = 0; i < EVENTS; i++) {
			uint8_t entry[2] = {(uint8_t)i, (uint8_t)(i < 50 ? 0 : k)};
			assert_int_equal(
				merkle_leaf(&hasher, slice_of(entry, 2), h->leaves[k][i], NULL),
				CEDE_OK);
		}
}

static int set_up(void **state) {
	(void)state;
	tool_init(&tool);
	assert_int_equal(merkle_hasher_init(&hasher, NULL), CEDE_OK);
	make_host(&ours);
	make_host(&stranger);
	return 0;
}

static int tear_down(void **state) {
	(void)state;
	key_freep(&ours.key);
	key_freep(&stranger.key);
	merkle_hasher_done(&hasher);
	tool_done(&tool);
	return 0;
}

struct history {
	const struct host *host;
	size_t branch;
};

static int get(
	void *ctx, unsigned height, uint64_t index, uint8_t ret[32], struct cede_error *reterr) {
	const struct history *h = ctx;
	struct merkle_edge edge = {0};

	for (uint64_t i = index << height; i < (index + 1) << height; i++)
		CEDE_TRY(merkle_append(
			&hasher, &edge, h->host->leaves[h->branch][i], NULL, NULL, reterr));
	return merkle_root(&hasher, &edge, ret, reterr);
}

struct push {
	const struct host *host;
	const char *name;
	size_t branch;
	uint64_t size, from;
};

static void field_of(const struct push *p, struct buf *value) {
	CLEANUP(buf_done) struct buf note = BUF_INIT(CHECKPOINT_MAX);
	struct history history = {p->host, p->branch};
	struct merkle_proof proof = {0};
	struct checkpoint c = {.size = p->size, .at_ns = clock_wall_ns()};
	uint8_t der[CHECKPOINT_KEY_MAX];
	uint8_t *at = der;

	(void)snprintf(c.host, sizeof c.host, "%s", p->name);
	assert_int_equal(merkle_range(&hasher, 0, p->size, get, &history, c.root, NULL), CEDE_OK);
	assert_int_equal(checkpoint_sign(&c, p->host->key, &note, NULL), CEDE_OK);
	int len = i2d_PUBKEY(p->host->key, &at);
	assert_true(len > 0);
	if (p->from > 0 && p->from <= p->size)
		assert_int_equal(
			merkle_consistency(&hasher, p->from, p->size, get, &history, &proof, NULL),
			CEDE_OK);
	buf_clear(value);
	assert_int_equal(checkpoint_field_write(buf_slice(&note), slice_of(der, (size_t)len),
				 p->from, &proof, value, NULL),
		CEDE_OK);
}

/* A store with a folder for host lane-1. */
static int new_store(const char *name) {
	int fd;

	assert_int_equal(mkdirat(tool.dirfd, name, 0700), 0);
	fd = openat(tool.dirfd, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	assert_true(fd >= 0);
	assert_int_equal(mkdirat(fd, "lane-1", 0700), 0);
	return fd;
}

static uint64_t newest(struct custody *c) {
	struct checkpoint checkpoint;
	bool there;

	assert_int_equal(custody_newest(c, "lane-1", &checkpoint, &there, NULL), CEDE_OK);
	return there ? checkpoint.size : 0;
}

static void only_what_extends_the_last_is_taken(void **state) {
	static const struct {
		struct push push;
		enum custody_verdict want;
		uint64_t newest;
	} steps[] = {
		{{&ours, "lane-2", 0, 5, 0}, CUSTODY_OTHER_HOST, 0},
		{{&ours, "lane-1", 0, 10, 0}, CUSTODY_TAKEN, 10},
		{{&ours, "lane-1", 0, 10, 0}, CUSTODY_KNOWN, 10},
		{{&ours, "lane-1", 0, 20, 10}, CUSTODY_TAKEN, 20},
		{{&ours, "lane-1", 0, 30, 10}, CUSTODY_UNPROVEN, 20},
		{{&ours, "lane-1", 0, 30, 0}, CUSTODY_UNPROVEN, 20},
		{{&ours, "lane-1", 0, 30, 25}, CUSTODY_UNPROVEN, 20},
		{{&ours, "lane-1", 0, 30, 20}, CUSTODY_TAKEN, 30},
		{{&ours, "lane-1", 0, 29, 20}, CUSTODY_BEHIND, 30},
		{{&stranger, "lane-1", 0, 40, 30}, CUSTODY_OTHER_KEY, 30},
		{{&ours, "lane-2", 0, 40, 30}, CUSTODY_OTHER_HOST, 30},
		{{&ours, "lane-1", 0, 60, 30}, CUSTODY_TAKEN, 60},
		{{&ours, "lane-1", 1, 60, 30}, CUSTODY_REWRITTEN, 60},
		{{&ours, "lane-1", 1, 80, 60}, CUSTODY_REWRITTEN, 60},
		{{&ours, "lane-1", 0, 199, 60}, CUSTODY_TAKEN, 199},
	};

	CLEANUP(fd_closep) int root = new_store("steps");
	CLEANUP(buf_done) struct buf value = BUF_INIT(CHECKPOINT_FIELD_MAX);
	CLEANUP(buf_done) struct buf refused = BUF_INIT(1 << 20);
	struct custody *c = NULL;

	(void)state;
	assert_int_equal(custody_new(root, &c, NULL), CEDE_OK);
	for (size_t i = 0; i < ARRAY_LENGTH(steps); i++) {
		enum custody_verdict verdict;
		struct cede_error err = {0};
		field_of(&steps[i].push, &value);
		assert_int_equal(
			custody_take(c, "lane-1", buf_slice(&value), &verdict, &err), CEDE_OK);
		if (verdict != steps[i].want)
			print_message("step %zu\n", i);
		assert_int_equal(verdict, steps[i].want);
		assert_int_equal(newest(c), steps[i].newest);
		if (i % 2 == 0) { /* another process goes on with what is on the disk */
			custody_free(c);
			assert_int_equal(custody_new(root, &c, NULL), CEDE_OK);
		}
	}
	custody_free(c);
	assert_int_equal(file_load(root, "lane-1/" CUSTODY_REFUSED, &refused, NULL), CEDE_OK);
	struct slice note, rest = buf_slice(&refused);
	size_t n = 0;
	while (checkpoint_next(&rest, &note))
		n++;
	assert_int_equal(n, 6); /* the evidence: each that was refused */
}

static void nonsense_is_refused(void **state) {
	static const char *const values[] = {
		"", "note=AAAA; key=AAAA", "x", "note=AAAA; key=AAAA; from=1; proof="};
	CLEANUP(fd_closep) int root = new_store("nonsense");
	CLEANUP(buf_done) struct buf value = BUF_INIT(CHECKPOINT_FIELD_MAX);
	enum custody_verdict verdict;
	struct custody *c = NULL;

	(void)state;
	assert_int_equal(custody_new(root, &c, NULL), CEDE_OK);
	for (size_t i = 0; i < ARRAY_LENGTH(values); i++) {
		assert_int_equal(
			custody_take(c, "lane-1", slice_str(values[i]), &verdict, NULL), CEDE_OK);
		assert_int_equal(verdict, CUSTODY_FORGED);
	}
	field_of(&(struct push){&ours, "lane-1", 0, 10, 0}, &value);
	/* the first letter of the note, in base64: another text, the same signature */
	value.data[strlen("note=")] ^= 1;
	assert_int_equal(custody_take(c, "lane-1", buf_slice(&value), &verdict, NULL), CEDE_OK);
	assert_int_equal(verdict, CUSTODY_FORGED);
	assert_int_equal(newest(c), 0);
	custody_free(c);
}

/* A crash in the midst of an append: what was whole counts, and the next one takes the place of the rest. */
static void half_a_note_at_the_end_is_passed_over(void **state) {
	CLEANUP(buf_done) struct buf value = BUF_INIT(CHECKPOINT_FIELD_MAX);
	struct stat whole;

	(void)state;
	for (off_t cut = 0; cut < 3; cut++) {
		char name[16];
		(void)snprintf(name, sizeof name, "cut-%d", (int)cut);
		CLEANUP(fd_closep) int root = new_store(name);
		enum custody_verdict verdict;
		struct custody *c = NULL;
		assert_int_equal(custody_new(root, &c, NULL), CEDE_OK);
		field_of(&(struct push){&ours, "lane-1", 0, 10, 0}, &value);
		assert_int_equal(
			custody_take(c, "lane-1", buf_slice(&value), &verdict, NULL), CEDE_OK);
		CLEANUP(fd_closep)
		int fd = openat(root, "lane-1/" CUSTODY_CHECKPOINTS, O_RDWR | O_CLOEXEC);
		assert_int_equal(fstat(fd, &whole), 0);
		field_of(&(struct push){&ours, "lane-1", 0, 20, 10}, &value);
		assert_int_equal(
			custody_take(c, "lane-1", buf_slice(&value), &verdict, NULL), CEDE_OK);
		assert_int_equal(newest(c), 20);
		assert_int_equal(ftruncate(fd, whole.st_size + (cut == 0 ? 1 : cut * 60)), 0);
		assert_int_equal(newest(c), 10);
		field_of(&(struct push){&ours, "lane-1", 0, 30, 10}, &value);
		assert_int_equal(
			custody_take(c, "lane-1", buf_slice(&value), &verdict, NULL), CEDE_OK);
		assert_int_equal(verdict, CUSTODY_TAKEN);
		assert_int_equal(newest(c), 30);
		custody_free(c);
	}
}

static void damaged_files_take_nothing(void **state) {
	CLEANUP(fd_closep) int root = new_store("damaged");
	CLEANUP(buf_done) struct buf value = BUF_INIT(CHECKPOINT_FIELD_MAX);
	enum custody_verdict verdict;
	struct custody *c = NULL;
	struct checkpoint checkpoint;
	bool there;

	(void)state;
	assert_int_equal(custody_new(root, &c, NULL), CEDE_OK);
	field_of(&(struct push){&ours, "lane-1", 0, 10, 0}, &value);
	assert_int_equal(custody_take(c, "lane-1", buf_slice(&value), &verdict, NULL), CEDE_OK);
	CLEANUP(fd_closep)
	int fd = openat(root, "lane-1/" CUSTODY_CHECKPOINTS, O_WRONLY | O_CLOEXEC);
	assert_int_equal(pwrite(fd, "x", 1, 30), 1);
	field_of(&(struct push){&ours, "lane-1", 0, 20, 10}, &value);
	assert_int_equal(
		custody_take(c, "lane-1", buf_slice(&value), &verdict, NULL), CEDE_ERR_INPUT);
	assert_int_equal(custody_newest(c, "lane-1", &checkpoint, &there, NULL), CEDE_ERR_INPUT);
	custody_free(c);
}

/* A restore that brought back the checkpoints alone: whoever comes next must not have its key
 * pinned and the checkpoints written over. */
static void checkpoints_without_their_key_take_nothing(void **state) {
	CLEANUP(fd_closep) int root = new_store("keyless");
	CLEANUP(buf_done) struct buf value = BUF_INIT(CHECKPOINT_FIELD_MAX);
	CLEANUP(buf_done) struct buf kept = BUF_INIT(1 << 20);
	CLEANUP(buf_done) struct buf key = BUF_INIT(KEY_FILE_MAX);
	CLEANUP(buf_done) struct buf after = BUF_INIT(1 << 20);
	const struct host *const hosts[] = {&stranger, &ours};
	enum custody_verdict verdict;
	struct custody *c = NULL;
	struct checkpoint checkpoint;
	bool there;

	(void)state;
	assert_int_equal(custody_new(root, &c, NULL), CEDE_OK);
	for (uint64_t size = 10; size <= 20; size += 10) {
		field_of(&(struct push){&ours, "lane-1", 0, size, size - 10}, &value);
		assert_int_equal(
			custody_take(c, "lane-1", buf_slice(&value), &verdict, NULL), CEDE_OK);
	}
	assert_int_equal(file_load(root, "lane-1/" CUSTODY_CHECKPOINTS, &kept, NULL), CEDE_OK);
	assert_int_equal(file_load(root, "lane-1/" CUSTODY_KEY, &key, NULL), CEDE_OK);
	assert_int_equal(unlinkat(root, "lane-1/" CUSTODY_KEY, 0), 0);
	for (size_t i = 0; i < ARRAY_LENGTH(hosts); i++) {
		struct cede_error err = {0};
		field_of(&(struct push){hosts[i], "lane-1", 0, 30, 20}, &value);
		assert_int_equal(custody_take(c, "lane-1", buf_slice(&value), &verdict, &err),
			CEDE_ERR_INPUT);
		assert_non_null(strstr(err.text, "restore ledger.pub"));
		assert_int_equal(
			custody_newest(c, "lane-1", &checkpoint, &there, NULL), CEDE_ERR_INPUT);
	}
	assert_int_equal(faccessat(root, "lane-1/" CUSTODY_KEY, F_OK, 0), -1);
	assert_int_equal(file_load(root, "lane-1/" CUSTODY_CHECKPOINTS, &after, NULL), CEDE_OK);
	assert_true(slice_equal(buf_slice(&after), buf_slice(&kept)));
	/* with the key it goes on where it was, and the receiver need not be restarted */
	assert_int_equal(
		file_create(root, "lane-1/" CUSTODY_KEY, buf_slice(&key), 0600, NULL), CEDE_OK);
	assert_int_equal(newest(c), 20);
	assert_int_equal(custody_take(c, "lane-1", buf_slice(&value), &verdict, NULL), CEDE_OK);
	assert_int_equal(verdict, CUSTODY_TAKEN);
	assert_int_equal(newest(c), 30);
	custody_free(c);
}

int main(void) {
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(only_what_extends_the_last_is_taken),
		cmocka_unit_test(nonsense_is_refused),
		cmocka_unit_test(half_a_note_at_the_end_is_passed_over),
		cmocka_unit_test(damaged_files_take_nothing),
		cmocka_unit_test(checkpoints_without_their_key_take_nothing),
	};

	return cmocka_run_group_tests(tests, set_up, tear_down);
}
