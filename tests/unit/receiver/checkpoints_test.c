/* SPDX-License-Identifier: Apache-2.0 */
#include <fcntl.h>
#include <openssl/ec.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <stdio.h>
#include <string.h>

#include "base/check.h"
#include "base/file.h"
#include "certs/key.h"
#include "receiver/checkpoints.h"
#include "receiver/custody.h"
#include "tests/unit/certs/tool.h"

#define MANY 1500 /* many times what is looked at at once */

static struct tool tool;
static EVP_PKEY *key;

static int set_up(void **state) {
	(void)state;
	tool_init(&tool);
	key = EVP_EC_gen("P-256");
	BIO *memory = BIO_new(BIO_s_mem());
	char *pem;
	assert_int_equal(PEM_write_bio_PUBKEY(memory, key), 1);
	long len = BIO_get_mem_data(memory, &pem);
	tool_write(&tool, CUSTODY_KEY, slice_of(pem, (size_t)len), 0600);
	BIO_free_all(memory);
	return 0;
}

static int tear_down(void **state) {
	(void)state;
	key_freep(&key);
	tool_done(&tool);
	return 0;
}

static void add(struct buf *file, uint64_t size) {
	struct checkpoint c = {.host = "lane-1", .size = size};

	if (file->len > 0)
		assert_int_equal(buf_add(file, "\n", 1, NULL), CEDE_OK);
	assert_int_equal(checkpoint_sign(&c, key, file, NULL), CEDE_OK);
}

static struct checkpoints *open_kept(const struct buf *file) {
	struct checkpoints *cs = NULL;

	tool_write(&tool, CUSTODY_CHECKPOINTS, buf_slice(file), 0600);
	assert_int_equal(checkpoints_open(tool.dirfd, &cs, NULL), CEDE_OK);
	return cs;
}

/* Reads to the end: the sum of the sizes, and how many were none. */
static uint64_t read_all(struct checkpoints *cs, size_t *ret_count, size_t *ret_bad) {
	struct checkpoint c;
	uint64_t sum = 0;
	bool there = true;
	int r;

	*ret_count = *ret_bad = 0;
	while ((r = checkpoints_next(cs, &c, &there, NULL)) == CEDE_ERR_INPUT || there) {
		*ret_bad += r < 0;
		*ret_count += r == CEDE_OK;
		sum += r == CEDE_OK ? c.size : 0;
		assert_true(*ret_bad + *ret_count <= 2 * MANY);
	}
	assert_int_equal(r, CEDE_OK);
	checkpoints_close(cs);
	return sum;
}

static void test_none(void **state) {
	struct checkpoints *cs = NULL;
	size_t count, bad;

	(void)state;
	assert_int_equal(checkpoints_open(tool.dirfd, &cs, NULL), CEDE_OK);
	assert_int_equal(read_all(cs, &count, &bad), 0);
	assert_int_equal(count + bad, 0);
}

static void test_many(void **state) {
	CLEANUP(buf_done) struct buf file = BUF_INIT(1 << 20);
	size_t count, bad;

	(void)state;
	for (uint64_t i = 1; i <= MANY; i++)
		add(&file, 3 * i);
	assert_int_equal(read_all(open_kept(&file), &count, &bad), 3ULL * MANY * (MANY + 1) / 2);
	assert_int_equal(count, MANY);
	assert_int_equal(bad, 0);
	/* every cut: the last one is there or is none, the others are as they were */
	size_t whole = file.len;
	for (size_t less = 1; less < 200; less += 9) {
		file.len = whole - less;
		(void)read_all(open_kept(&file), &count, &bad);
		assert_int_equal(count, MANY - 1);
		assert_int_equal(bad, 1);
	}
}

static void test_damage(void **state) {
	CLEANUP(buf_done) struct buf file = BUF_INIT(1 << 20);
	static const uint8_t nothing[200000];
	size_t count, bad;

	(void)state;
	for (uint64_t i = 1; i <= 500; i++) {
		add(&file, i);
		if (i == 100)
			assert_int_equal(buf_add(&file, nothing, sizeof nothing, NULL), CEDE_OK);
		if (i == 200) /* the same again, and an older one: out of their order */
			add(&file, 200);
		if (i == 300)
			add(&file, 7);
	}
	file.data[20] ^= 1; /* of the first one */
	assert_int_equal(read_all(open_kept(&file), &count, &bad), 500 * 501 / 2 - 1 - 101);
	assert_int_equal(count, 498);
	assert_true(bad >= 4);
}

int main(void) {
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_none),
		cmocka_unit_test(test_many),
		cmocka_unit_test(test_damage),
	};

	return cmocka_run_group_tests(tests, set_up, tear_down);
}
