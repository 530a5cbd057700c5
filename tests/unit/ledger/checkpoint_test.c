/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/check.h"
#include "base/cleanup.h"
#include "formats/checkpoint.h"
#include "tests/unit/ledger/tool.h"

static void add(struct bench *b, size_t n) {
	begin(b->ledger);
	for (size_t i = 0; i < n; i++)
		assert_int_equal(
			ledger_event(b->ledger, LEDGER_WATCH_GAP, NULL, NOW, "", NULL), CEDE_OK);
	commit(b->ledger);
}

static void sign_as(struct bench *b) {
	struct cede_error err = {0};

	assert_int_equal(ledger_sign_as(b->ledger, b->dir, "lane-1", NOW, &err), CEDE_OK);
}

/* The newest checkpoint and its field, as they go out. */
static void checkpoint_of(struct bench *b, struct checkpoint *ret, struct checkpoint_field *field) {
	CLEANUP(buf_done) struct buf note = BUF_INIT(CHECKPOINT_MAX);
	CLEANUP(buf_done) struct buf value = BUF_INIT(CHECKPOINT_FIELD_MAX);
	struct note_keys *keys = NULL;

	begin(b->ledger);
	assert_int_equal(ledger_checkpoint(b->ledger, SLICE_LIT("agency"), NOW, &note, &value, NULL),
		CEDE_OK);
	commit(b->ledger);
	assert_int_equal(checkpoint_field_read(buf_slice(&value), field, NULL), CEDE_OK);
	assert_true(slice_equal(buf_slice(&note), buf_slice(&field->note)));
	assert_int_equal(checkpoint_keys(buf_slice(&field->key), &keys, NULL), CEDE_OK);
	assert_int_equal(checkpoint_verify(keys, buf_slice(&note), ret, NULL), CEDE_OK);
	assert_string_equal(ret->host, "lane-1");
	note_keys_free(keys);
}

static bool acknowledged(struct bench *b, uint64_t size, const uint8_t root[32]) {
	bool ours = false;

	begin(b->ledger);
	assert_int_equal(
		ledger_acknowledged(b->ledger, SLICE_LIT("agency"), size, root, NOW, &ours, NULL),
		CEDE_OK);
	commit(b->ledger);
	return ours;
}

/* Sizes around the subtrees that are kept, with a restart now and then. */
static void each_checkpoint_extends_what_was_acknowledged(void **state) {
	static const size_t more[] = {1, 1, 62, 1, 1, 63, 200, 1, 700, 64, 3};
	struct checkpoint older = {.size = 0}, newer;
	struct merkle_hasher hasher;
	struct bench *b = *state;

	assert_int_equal(merkle_hasher_init(&hasher, NULL), CEDE_OK);
	sign_as(b);
	for (size_t i = 0; i < ARRAY_LENGTH(more); i++) {
		CLEANUP(checkpoint_field_done) struct checkpoint_field field = {.from = 0};
		add(b, more[i]);
		checkpoint_of(b, &newer, &field);
		assert_int_equal(field.from, older.size);
		if (older.size > 0)
			assert_int_equal(merkle_check_consistency(&hasher, older.size, older.root,
						 newer.size, newer.root, &field.proof, NULL),
				CEDE_OK);
		assert_true(acknowledged(b, newer.size, newer.root));
		older = newer;
		if (i % 3 != 0)
			continue;
		ledger_closep(&b->ledger);
		assert_int_equal(ledger_open(b->dir, &b->ledger, NULL), CEDE_OK);
		sign_as(b);
	}
	merkle_hasher_done(&hasher);
}

static void what_another_ledger_has_is_not_ours(void **state) {
	CLEANUP(checkpoint_field_done) struct checkpoint_field field = {.from = 0};
	struct bench *b = *state;
	struct checkpoint c;

	sign_as(b);
	add(b, 100);
	checkpoint_of(b, &c, &field);
	assert_true(acknowledged(b, c.size, c.root));
	assert_false(acknowledged(b, c.size + 1, c.root)); /* more than there are */
	assert_false(acknowledged(b, 0, c.root));
	c.root[5] ^= 1;
	assert_false(acknowledged(b, c.size, c.root));
}

static void what_was_rolled_back_is_signed_by_nobody(void **state) {
	CLEANUP(buf_done) struct buf note = BUF_INIT(CHECKPOINT_MAX);
	CLEANUP(buf_done) struct buf value = BUF_INIT(CHECKPOINT_FIELD_MAX);
	CLEANUP(checkpoint_field_done) struct checkpoint_field field = {.from = 0};
	struct bench *b = *state;
	struct checkpoint c;

	sign_as(b);
	add(b, 10);
	begin(b->ledger);
	assert_int_equal(
		ledger_event(b->ledger, LEDGER_VIOLATION, NULL, NOW, "reason=lost", NULL), CEDE_OK);
	assert_int_equal(ledger_checkpoint(b->ledger, SLICE_LIT("agency"), NOW, &note, &value, NULL),
		CEDE_OK);
	ledger_rollback(b->ledger);
	add(b, 1);
	checkpoint_of(b, &c, &field);
	assert_false(slice_equal(buf_slice(&note), buf_slice(&field.note)));
	assert_true(acknowledged(b, c.size, c.root));
}

static void a_key_that_is_not_the_ledgers_is_refused(void **state) {
	char key[128], aside[128];
	struct cede_error err = {0};
	struct bench *b = *state;
	struct stat st;

	sign_as(b);
	bench_path(b, LEDGER_KEY_NAME, key);
	bench_path(b, "aside", aside);
	assert_int_equal(stat(key, &st), 0);
	assert_int_equal(st.st_mode & 0777, 0600);
	/* lost: another is made, and the ledger says so */
	assert_int_equal(rename(key, aside), 0);
	uint64_t before, after;
	uint8_t hash[32];
	ledger_head(b->ledger, &before, hash);
	sign_as(b);
	ledger_head(b->ledger, &after, hash);
	assert_int_equal(after, before + 1);
	sign_as(b);
	ledger_head(b->ledger, &before, hash);
	assert_int_equal(after, before);
	/* the first one back, beside a ledger that names the second */
	assert_int_equal(rename(aside, key), 0);
	assert_int_equal(ledger_sign_as(b->ledger, b->dir, "lane-1", NOW, &err), CEDE_ERR_REFUSED);
	assert_non_null(strstr(err.text, "is not the key of the ledger beside it"));
	assert_int_equal(chmod(key, 0644), 0);
	assert_int_equal(ledger_sign_as(b->ledger, b->dir, "lane-1", NOW, &err), CEDE_ERR_REFUSED);
}

static void keys_that_change_are_told_once(void **state) {
	uint8_t one[32] = {1}, two[32] = {2}, hash[32];
	struct bench *b = *state;
	uint64_t n;

	begin(b->ledger);
	for (size_t i = 0; i < 3; i++)
		assert_int_equal(ledger_key_seen(b->ledger, "identity", one, NOW, NULL), CEDE_OK);
	assert_int_equal(ledger_key_seen(b->ledger, "identity", two, NOW, NULL), CEDE_OK);
	assert_int_equal(ledger_key_seen(b->ledger, "seal:agency", two, NOW, NULL), CEDE_OK);
	commit(b->ledger);
	ledger_head(b->ledger, &n, hash);
	assert_int_equal(n, 3);
}

#define WITH_LEDGER(f) cmocka_unit_test_setup_teardown(f, bench_open, bench_close)

int main(void) {
	const struct CMUnitTest tests[] = {
		WITH_LEDGER(each_checkpoint_extends_what_was_acknowledged),
		WITH_LEDGER(what_another_ledger_has_is_not_ours),
		WITH_LEDGER(what_was_rolled_back_is_signed_by_nobody),
		WITH_LEDGER(a_key_that_is_not_the_ledgers_is_refused),
		WITH_LEDGER(keys_that_change_are_told_once),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
