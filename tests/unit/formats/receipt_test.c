/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <string.h>

#include "base/check.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "certs/key.h"
#include "formats/receipt.h"
#include "formats/statement.h"
#include "tests/unit/certs/tool.h"

#define ID     "0193577c-5b38-7e11-8000-0123456789ab"
#define SHA256 "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff"
#define HEAD   "cede-receipt/1\nbundle: " ID "\nhost: lane-1\n"
#define TAIL   "sha256: " SHA256 "\nreceived: 2026-11-23T07:52:27Z\n"

static struct tool tool;
static EVP_PKEY *key;
static struct note_keys *keys;

static int set_up(void **state) {
	struct cede_error err;
	(void)state;
	tool_init(&tool);
	tool_pki(&tool);
	key = tool_private(&tool, "pki/receipt.key");
	if (note_keys_new(NOTE_RECEIPT, &keys, &err) < 0 || note_keys_add(keys, key, &err) < 0)
		return -1;
	return 0;
}

static int tear_down(void **state) {
	(void)state;
	note_keys_free(keys);
	key_freep(&key);
	tool_done(&tool);
	return 0;
}

static struct receipt example(void) {
	struct receipt r = {.size = 16777216, .received_ns = INT64_C(1795420347) * NS_PER_SECOND};
	struct cede_error err;

	assert_int_equal(id_parse(SLICE_LIT(ID), &r.bundle, &err), 0);
	memcpy(r.host, "lane-1", 7);
	for (size_t i = 0; i < sizeof r.sha256; i++)
		r.sha256[i] = (uint8_t)((i % 16) * 0x11);
	return r;
}

static void test_round_trip(void **state) {
	CLEANUP(buf_done) struct buf note = BUF_INIT(RECEIPT_MAX);
	struct receipt r = example(), back;
	struct cede_error err;
	(void)state;
	assert_int_equal(receipt_sign(&r, "agency", key, &note, &err), 0);
	static const char text[] = HEAD "size: 16777216\n" TAIL "\n";
	assert_true(note.len > strlen(text));
	assert_memory_equal(note.data, text, strlen(text));
	assert_int_equal(receipt_verify(keys, buf_slice(&note), &back, &err), 0);
	assert_true(id_equal(&back.bundle, &r.bundle));
	assert_string_equal(back.host, r.host);
	assert_int_equal(back.size, r.size);
	assert_memory_equal(back.sha256, r.sha256, 32);
	assert_int_equal(back.received_ns, r.received_ns);
	for (size_t len = 0; len < note.len; len++)
		assert_int_not_equal(receipt_verify(keys, slice_of(note.data, len), &back, &err), 0);
}

#define ROOT "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="

static void test_round_trip_with_a_checkpoint(void **state) {
	CLEANUP(buf_done) struct buf note = BUF_INIT(RECEIPT_MAX);
	struct receipt r = example(), back;
	struct cede_error err;
	(void)state;
	r.checkpoint_size = 4711;
	for (size_t i = 0; i < sizeof r.checkpoint_root; i++)
		r.checkpoint_root[i] = (uint8_t)i;
	assert_int_equal(receipt_sign(&r, "agency", key, &note, &err), 0);
	static const char text[] = HEAD "size: 16777216\n" TAIL "checkpoint: 4711 " ROOT "\n\n";
	assert_memory_equal(note.data, text, strlen(text));
	assert_int_equal(receipt_verify(keys, buf_slice(&note), &back, &err), 0);
	assert_int_equal(back.checkpoint_size, 4711);
	assert_memory_equal(back.checkpoint_root, r.checkpoint_root, 32);
}

/* Well signed, and still no receipt. */
static void test_malformed_text(void **state) {
	static const struct {
		const char *what;
		const char *text;
		int expected;
	} cases[] = {
		{"good", HEAD "size: 1\n" TAIL, CEDE_OK},
		{"empty bundle", HEAD "size: 0\n" TAIL, CEDE_OK},
		{"no root", HEAD "size: 1\n" TAIL "checkpoint: 5\n", CEDE_ERR_INPUT},
		{"short root", HEAD "size: 1\n" TAIL "checkpoint: 5 AAAA\n", CEDE_ERR_INPUT},
		{"no events", HEAD "size: 1\n" TAIL "checkpoint: 0 " ROOT "\n", CEDE_ERR_INPUT},
		{"two checkpoints",
			HEAD "size: 1\n" TAIL "checkpoint: 5 " ROOT "\ncheckpoint: 5 " ROOT "\n",
			CEDE_ERR_INPUT},
		{"checkpoint elsewhere", HEAD "checkpoint: 5 " ROOT "\nsize: 1\n" TAIL,
			CEDE_ERR_INPUT},
		{"only the type", "cede-receipt/1\n", CEDE_ERR_INPUT},
		{"line missing", HEAD TAIL, CEDE_ERR_INPUT},
		{"line more", HEAD "size: 1\n" TAIL "note: x\n", CEDE_ERR_INPUT},
		{"line twice", HEAD "size: 1\nsize: 1\n" TAIL, CEDE_ERR_INPUT},
		{"other order", "cede-receipt/1\nhost: lane-1\nbundle: " ID "\nsize: 1\n" TAIL,
			CEDE_ERR_INPUT},
		{"other key", HEAD "Size: 1\n" TAIL, CEDE_ERR_INPUT},
		{"no colon", HEAD "size 1\n" TAIL, CEDE_ERR_INPUT},
		{"no space", HEAD "size:1\n" TAIL, CEDE_ERR_INPUT},
		{"two spaces", HEAD "size:  1\n" TAIL, CEDE_ERR_INPUT},
		{"space at the end", HEAD "size: 1 \n" TAIL, CEDE_ERR_INPUT},
		{"no value", HEAD "size: \n" TAIL, CEDE_ERR_INPUT},
		{"negative", HEAD "size: -1\n" TAIL, CEDE_ERR_INPUT},
		{"leading zero", HEAD "size: 01\n" TAIL, CEDE_ERR_INPUT},
		{"too large", HEAD "size: 9223372036854775808\n" TAIL, CEDE_ERR_INPUT},
		{"way too large", HEAD "size: 99999999999999999999999\n" TAIL, CEDE_ERR_INPUT},
		{"short hash", HEAD "size: 1\nsha256: 00\nreceived: 2026-11-23T07:52:27Z\n",
			CEDE_ERR_INPUT},
		{"upper-case hash",
			HEAD "size: 1\nsha256: "
			     "00112233445566778899AABBCCDDEEFF00112233445566778899aabbccddeeff\n"
			     "received: 2026-11-23T07:52:27Z\n",
			CEDE_ERR_INPUT},
		{"no date", HEAD "size: 1\nsha256: " SHA256 "\nreceived: 2026-02-30T07:52:27Z\n",
			CEDE_ERR_INPUT},
		{"other zone",
			HEAD "size: 1\nsha256: " SHA256 "\nreceived: 2026-11-23T07:52:27+01:00\n",
			CEDE_ERR_INPUT},
		{"bad id", "cede-receipt/1\nbundle: x\nhost: lane-1\nsize: 1\n" TAIL, CEDE_ERR_INPUT},
		{"bad host", "cede-receipt/1\nbundle: " ID "\nhost: a/b\nsize: 1\n" TAIL,
			CEDE_ERR_INPUT},
		{"long host",
			"cede-receipt/1\nbundle: " ID "\nhost: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
			"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\nsize: 1\n" TAIL,
			CEDE_ERR_INPUT},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_LENGTH(cases); i++) {
		CLEANUP(buf_done) struct buf note = BUF_INIT(RECEIPT_MAX);
		struct receipt back;
		struct cede_error err;
		assert_int_equal(note_sign(NOTE_RECEIPT, slice_str(cases[i].text), "agency", key,
					 &note, &err),
			0);
		int r = receipt_verify(keys, buf_slice(&note), &back, &err);
		if (r != cases[i].expected)
			(void)fprintf(stderr, "%s: %d\n", cases[i].what, r);
		assert_int_equal(r, cases[i].expected);
	}
}

static void test_other_signer_or_role(void **state) {
	CLEANUP(buf_done) struct buf note = BUF_INIT(RECEIPT_MAX);
	CLEANUP(key_freep) EVP_PKEY *stranger = tool_private(&tool, "pki/policy.key");
	struct receipt r = example(), back;
	struct cede_error err;
	(void)state;
	assert_int_equal(receipt_sign(&r, "agency", stranger, &note, &err), 0);
	assert_int_equal(receipt_verify(keys, buf_slice(&note), &back, &err), CEDE_ERR_REFUSED);
	struct note_keys *policy = NULL;
	assert_int_equal(note_keys_new(NOTE_POLICY, &policy, &err), 0);
	assert_int_equal(note_keys_add(policy, stranger, &err), 0);
	assert_int_equal(receipt_verify(policy, buf_slice(&note), &back, &err), CEDE_ERR_REFUSED);
	note_keys_free(policy);
}

static void test_too_long(void **state) {
	CLEANUP(buf_done) struct buf note = BUF_INIT(2 * RECEIPT_MAX);
	struct receipt back;
	struct cede_error err;
	uint8_t *at;
	(void)state;
	assert_int_equal(buf_room(&note, RECEIPT_MAX + 1, &at, &err), 0);
	memset(at, 'x', RECEIPT_MAX + 1);
	buf_grew(&note, RECEIPT_MAX + 1);
	assert_int_equal(receipt_verify(keys, buf_slice(&note), &back, &err), CEDE_ERR_INPUT);
}

static void test_bad_host_is_not_signed(void **state) {
	CLEANUP(buf_done) struct buf note = BUF_INIT(RECEIPT_MAX);
	struct receipt r = example();
	struct cede_error err;
	(void)state;
	memcpy(r.host, "a\nb", 4);
	assert_int_equal(receipt_sign(&r, "agency", key, &note, &err), CEDE_ERR_INPUT);
	assert_int_equal(note.len, 0);
}

static void test_statement_refuses_values(void **state) {
	static const char *const bad[] = {"", " a", "a ", "a\nb: c", "\xc3\xa4", "\t"};
	(void)state;
	for (size_t i = 0; i < ARRAY_LENGTH(bad); i++) {
		CLEANUP(buf_done) struct buf out = BUF_INIT(4096);
		struct statement_field field = {"a", slice_str(bad[i])};
		struct cede_error err;
		assert_int_equal(statement_write("t/1", &field, 1, &out, &err), CEDE_ERR_INPUT);
	}
}

int main(void) {
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_round_trip),
		cmocka_unit_test(test_round_trip_with_a_checkpoint),
		cmocka_unit_test(test_malformed_text), cmocka_unit_test(test_other_signer_or_role),
		cmocka_unit_test(test_too_long), cmocka_unit_test(test_bad_host_is_not_signed),
		cmocka_unit_test(test_statement_refuses_values)};

	return cmocka_run_group_tests_name("receipt", tests, set_up, tear_down);
}
