/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "base/check.h"
#include "base/hex.h"
#include "formats/merkle.h"
#include "tests/unit/unit.h"

#define LEAVES 70

static struct merkle_hasher hasher;
static uint8_t leaves[LEAVES][32];

static int set_up(void **state) {
	(void)state;
	assert_int_equal(merkle_hasher_init(&hasher, NULL), CEDE_OK);
	for (size_t i = 0; i < LEAVES; i++) {
		uint8_t entry = (uint8_t)i;
		assert_int_equal(merkle_leaf(&hasher, slice_of(&entry, 1), leaves[i], NULL), CEDE_OK);
	}
	return 0;
}

static int tear_down(void **state) {
	(void)state;
	merkle_hasher_done(&hasher);
	return 0;
}

/* RFC 9162 section 2.1.1, word for word. */
static void root_of(size_t from, size_t n, uint8_t ret[32]) {
	uint8_t left[32], right[32];
	size_t k = 1;

	if (n == 1) {
		memcpy(ret, leaves[from], 32);
		return;
	}
	while (k * 2 < n)
		k *= 2;
	root_of(from, k, left);
	root_of(from + k, n - k, right);
	assert_int_equal(merkle_node(&hasher, left, right, ret, NULL), CEDE_OK);
}

static int get(
	void *ctx, unsigned height, uint64_t index, uint8_t ret[32], struct cede_error *reterr) {
	(void)ctx;
	(void)reterr;
	root_of(index << height, (size_t)1 << height, ret);
	return CEDE_OK;
}

/* The vectors that every implementation of RFC 6962 is tried with. */
static void known_roots(void **state) {
	static const char *const first[] = {
		"e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
		"6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d"};
	static const uint8_t data[] = {0x00, 0x10, 0x20, 0x21, 0x30, 0x31, 0x40, 0x41, 0x42, 0x43,
		0x50, 0x51, 0x52, 0x53, 0x54, 0x55, 0x56, 0x57, 0x60, 0x61, 0x62, 0x63, 0x64, 0x65,
		0x66, 0x67, 0x68, 0x69, 0x6a, 0x6b, 0x6c, 0x6d, 0x6e, 0x6f};
	static const size_t ends[] = {0, 1, 2, 4, 6, 10, 18, 34};
	static const char *const last =
		"5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328";
	struct merkle_edge edge = {0};
	uint8_t root[32], leaf[32];
	char text[65];

	(void)state;
	for (size_t i = 0; i < ARRAY_LENGTH(first); i++) { /* of nothing, of one empty entry */
		struct merkle_edge small = {0};
		if (i == 1) {
			assert_int_equal(merkle_leaf(&hasher, SLICE_NONE, leaf, NULL), CEDE_OK);
			assert_int_equal(
				merkle_append(&hasher, &small, leaf, NULL, NULL, NULL), CEDE_OK);
		}
		assert_int_equal(merkle_root(&hasher, &small, root, NULL), CEDE_OK);
		hex_print(root, 32, text);
		assert_string_equal(text, first[i]);
	}
	/* "", 00, 10, 2021, 3031, 40414243, 5051525354555657, 606162636465666768696a6b6c6d6e6f */
	for (size_t i = 0; i < ARRAY_LENGTH(ends); i++) {
		size_t from = i == 0 ? 0 : ends[i - 1];
		assert_int_equal(
			merkle_leaf(&hasher, slice_of(data + from, ends[i] - from), leaf, NULL),
			CEDE_OK);
		assert_int_equal(merkle_append(&hasher, &edge, leaf, NULL, NULL, NULL), CEDE_OK);
	}
	assert_int_equal(merkle_root(&hasher, &edge, root, NULL), CEDE_OK);
	hex_print(root, 32, text);
	assert_string_equal(text, last);
}

static int check_made(void *ctx, unsigned height, uint64_t index, const uint8_t hash[32],
	struct cede_error *reterr) {
	uint8_t want[32];

	(void)reterr;
	root_of(index << height, (size_t)1 << height, want);
	assert_memory_equal(hash, want, 32);
	(*(size_t *)ctx)++;
	return CEDE_OK;
}

static void roots_and_proofs_of_every_size(void **state) {
	struct merkle_edge edge = {0};
	size_t made = 0;

	(void)state;
	for (uint64_t n = 1; n <= LEAVES; n++) {
		uint8_t want[32], got[32], older[32];
		assert_int_equal(
			merkle_append(&hasher, &edge, leaves[n - 1], check_made, &made, NULL),
			CEDE_OK);
		root_of(0, n, want);
		assert_int_equal(merkle_root(&hasher, &edge, got, NULL), CEDE_OK);
		assert_memory_equal(got, want, 32);
		assert_int_equal(merkle_range(&hasher, 0, n, get, NULL, got, NULL), CEDE_OK);
		assert_memory_equal(got, want, 32);
		for (uint64_t m = 1; m <= n; m++) {
			struct merkle_proof proof;
			root_of(0, m, older);
			assert_int_equal(merkle_consistency(&hasher, m, n, get, NULL, &proof, NULL),
				CEDE_OK);
			assert_int_equal(
				merkle_check_consistency(&hasher, m, older, n, want, &proof, NULL),
				CEDE_OK);
		}
	}
	assert_int_equal(
		made, LEAVES - 3); /* 70 = 64 + 4 + 2: each leaf but the three tops joins two */
}

static void a_proof_of_something_else_is_refused(void **state) {
	struct merkle_proof proof, bad;

	(void)state;
	for (uint64_t n = 2; n <= LEAVES; n += 3)
		for (uint64_t m = 1; m < n; m++) {
			uint8_t older[32], newer[32];
			root_of(0, m, older);
			root_of(0, n, newer);
			assert_int_equal(merkle_consistency(&hasher, m, n, get, NULL, &proof, NULL),
				CEDE_OK);
			for (size_t i = 0; i < proof.count; i++) {
				bad = proof;
				bad.hashes[i][7] ^= 1;
				assert_int_equal(merkle_check_consistency(
							 &hasher, m, older, n, newer, &bad, NULL),
					CEDE_ERR_REFUSED);
			}
			bad = proof;
			bad.count--;
			assert_int_equal(
				merkle_check_consistency(&hasher, m, older, n, newer, &bad, NULL),
				CEDE_ERR_REFUSED);
			bad = proof;
			memset(bad.hashes[bad.count++], 7, 32);
			assert_int_equal(
				merkle_check_consistency(&hasher, m, older, n, newer, &bad, NULL),
				CEDE_ERR_REFUSED);
			older[0] ^= 1;
			assert_int_equal(
				merkle_check_consistency(&hasher, m, older, n, newer, &proof, NULL),
				CEDE_ERR_REFUSED);
			older[0] ^= 1;
			newer[31] ^= 1;
			assert_int_equal(
				merkle_check_consistency(&hasher, m, older, n, newer, &proof, NULL),
				CEDE_ERR_REFUSED);
		}
	assert_int_equal(merkle_check_consistency(&hasher, 0, leaves[0], 1, leaves[0], &proof, NULL),
		CEDE_ERR_REFUSED);
	assert_int_equal(merkle_check_consistency(&hasher, 2, leaves[0], 1, leaves[0], &proof, NULL),
		CEDE_ERR_REFUSED);
	proof.count = 0;
	assert_int_equal(merkle_check_consistency(&hasher, 1, leaves[0], 1, leaves[1], &proof, NULL),
		CEDE_ERR_REFUSED);
}

int main(void) {
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(known_roots),
		cmocka_unit_test(roots_and_proofs_of_every_size),
		cmocka_unit_test(a_proof_of_something_else_is_refused),
	};

	return cmocka_run_group_tests(tests, set_up, tear_down);
}
