/* SPDX-License-Identifier: Apache-2.0 */
#include <openssl/x509.h>
#include <string.h>

#include "base/check.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "certs/key.h"
#include "formats/checkpoint.h"
#include "tests/unit/certs/tool.h"

#define ROOT "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="
#define TIME "time 2026-11-23T07:52:27Z\n"

static struct tool tool;
static EVP_PKEY *key;
static struct note_keys *keys;
static uint8_t der[CHECKPOINT_KEY_MAX];
static size_t der_len;

static int set_up(void **state) {
	(void)state;
	tool_init(&tool);
	tool_pki(&tool);
	key = tool_private(&tool, "pki/receipt.key");
	uint8_t *at = der;
	der_len = (size_t)i2d_PUBKEY(key, &at);
	return checkpoint_keys(slice_of(der, der_len), &keys, NULL);
}

static int tear_down(void **state) {
	(void)state;
	note_keys_free(keys);
	key_freep(&key);
	tool_done(&tool);
	return 0;
}

static struct checkpoint example(void) {
	struct checkpoint c = {
		.host = "lane-1", .size = 4711, .at_ns = INT64_C(1795420347) * NS_PER_SECOND};

	for (size_t i = 0; i < sizeof c.root; i++)
		c.root[i] = (uint8_t)i;
	return c;
}

static void round_trip(void **state) {
	CLEANUP(buf_done) struct buf notes = BUF_INIT(3 * CHECKPOINT_MAX);
	struct checkpoint c = example(), back;
	static const char text[] = "cede-checkpoint/1/lane-1\n4711\n" ROOT "\n" TIME
				   "\n\xe2\x80\x94 cede-checkpoint/1/lane-1 ";

	(void)state;
	assert_int_equal(checkpoint_sign(&c, key, &notes, NULL), CEDE_OK);
	assert_memory_equal(notes.data, text, strlen(text));
	assert_int_equal(buf_add_str(&notes, "\n", NULL), CEDE_OK);
	c.size++;
	assert_int_equal(checkpoint_sign(&c, key, &notes, NULL), CEDE_OK);
	struct slice note, rest = buf_slice(&notes);
	for (uint64_t n = 0; n < 2; n++) { /* one file may hold many */
		assert_true(checkpoint_next(&rest, &note));
		assert_int_equal(checkpoint_verify(keys, note, &back, NULL), CEDE_OK);
		assert_string_equal(back.host, "lane-1");
		assert_int_equal(back.size, 4711 + n);
		assert_memory_equal(back.root, c.root, 32);
		assert_true(back.at_ns == c.at_ns);
	}
	assert_false(checkpoint_next(&rest, &note));
}

static void malformed_texts_are_refused(void **state) {
	static const struct {
		const char *text;
		int expected;
	} cases[] = {
		{"cede-checkpoint/1/lane-1\n1\n" ROOT "\n" TIME, CEDE_OK},
		{"cede-checkpoint/1/..\n1\n" ROOT "\n" TIME, CEDE_ERR_INPUT},
		{"cede-checkpoint/1/a/b\n1\n" ROOT "\n" TIME, CEDE_ERR_INPUT},
		{"cede-checkpoint/1/lane-1\n0\n" ROOT "\n" TIME, CEDE_ERR_INPUT},
		{"cede-checkpoint/1/lane-1\n01\n" ROOT "\n" TIME, CEDE_ERR_INPUT},
		{"cede-checkpoint/1/lane-1\n9223372036854775808\n" ROOT "\n" TIME, CEDE_ERR_INPUT},
		{"cede-checkpoint/1/lane-1\n1\nAAAA\n" TIME, CEDE_ERR_INPUT},
		{"cede-checkpoint/1/lane-1\n1\n" ROOT "\n", CEDE_ERR_INPUT},
		{"cede-checkpoint/1/lane-1\n1\n" ROOT "\n" TIME "more\n", CEDE_ERR_INPUT},
		{"cede-checkpoint/1/lane-1\n1\n" ROOT "\nnow\n", CEDE_ERR_INPUT},
		{"cede-checkpoint/1/lane-1\n", CEDE_ERR_INPUT},
	};

	static const char *const others[] = {"cede-checkpoint/1\n1\n", "cede-checkpoint/1/\n1\n",
		"cede-checkpoint/10/lane-1\n1\n", "cede-receipt/1\n1\n"};

	(void)state;
	for (size_t i = 0; i < ARRAY_LENGTH(cases); i++) {
		CLEANUP(buf_done) struct buf note = BUF_INIT(CHECKPOINT_MAX);
		struct checkpoint c;
		assert_int_equal(
			note_sign(NOTE_CHECKPOINT, slice_str(cases[i].text), "x", key, &note, NULL),
			CEDE_OK);
		assert_int_equal(
			checkpoint_verify(keys, buf_slice(&note), &c, NULL), cases[i].expected);
	}
	for (size_t i = 0; i < ARRAY_LENGTH(others); i++) {
		CLEANUP(buf_done) struct buf note = BUF_INIT(CHECKPOINT_MAX);
		assert_int_equal(
			note_sign(NOTE_CHECKPOINT, slice_str(others[i]), "x", key, &note, NULL),
			CEDE_ERR_REFUSED);
	}
}

static void the_field_comes_back(void **state) {
	static const size_t counts[] = {0, 1, 2, 40, MERKLE_PROOF_MAX};

	(void)state;
	for (uint64_t from = 0; from < 2; from++)
		for (size_t i = 0; i < ARRAY_LENGTH(counts); i++) {
			CLEANUP(buf_done) struct buf value = BUF_INIT(CHECKPOINT_FIELD_MAX);
			CLEANUP(checkpoint_field_done) struct checkpoint_field back = {.from = 99};
			struct merkle_proof proof = {.count = counts[i]};
			memset(proof.hashes, 0xa5, sizeof proof.hashes);
			assert_int_equal(checkpoint_field_write(SLICE_LIT("a note\n"),
						 slice_of(der, der_len), from, &proof, &value, NULL),
				CEDE_OK);
			assert_int_equal(
				checkpoint_field_read(buf_slice(&value), &back, NULL), CEDE_OK);
			assert_int_equal(back.from, from);
			assert_true(slice_is(buf_slice(&back.note), "a note\n"));
			assert_true(slice_equal(buf_slice(&back.key), slice_of(der, der_len)));
			if (from == 0)
				continue;
			assert_int_equal(back.proof.count, counts[i]);
			assert_memory_equal(back.proof.hashes, proof.hashes, counts[i] * 32);
		}
}

static void bad_fields_are_refused(void **state) {
	static const char *const values[] = {"", "note=", "note=AAAA", "note=AAAA;key=AAAA",
		"note=AAAA; key=AAAA;", "note=AAAA; key=AAAA; ", "note=AAAA; key=AAAA; from=1",
		"note=AAAA; key=AAAA; from=0; proof=", "note=AAAA; key=AAAA; from=1; proof=AAAA",
		"note=AAAA; key=AAAA; proof=; from=1", "key=AAAA; note=AAAA",
		"note=AAAA; key=AAAA; from=1; proof=; more=1", "note=A; key=AAAA",
		" note=AAAA; key=AAAA"};

	(void)state;
	for (size_t i = 0; i < ARRAY_LENGTH(values); i++) {
		struct checkpoint_field field;
		assert_int_equal(
			checkpoint_field_read(slice_str(values[i]), &field, NULL), CEDE_ERR_INPUT);
	}
}

static void bad_keys_are_refused(void **state) {
	struct note_keys *none = NULL;

	(void)state;
	assert_int_equal(checkpoint_keys(SLICE_NONE, &none, NULL), CEDE_ERR_INPUT);
	assert_int_equal(checkpoint_keys(slice_of(der, der_len - 1), &none, NULL), CEDE_ERR_INPUT);
	assert_int_equal(checkpoint_keys(slice_of(der, der_len + 1), &none, NULL), CEDE_ERR_INPUT);
	assert_null(none);
}

int main(void) {
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(round_trip),
		cmocka_unit_test(malformed_texts_are_refused),
		cmocka_unit_test(the_field_comes_back),
		cmocka_unit_test(bad_fields_are_refused),
		cmocka_unit_test(bad_keys_are_refused),
	};

	return cmocka_run_group_tests(tests, set_up, tear_down);
}
