/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <string.h>

#include "base/check.h"
#include "base/clock.h"
#include "certs/key.h"
#include "formats/policy_note.h"
#include "tests/unit/certs/tool.h"

#define SHA256 "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff"
#define HEAD   "cede-policy/1\nid: lanes\nserial: 7\nexpires: 2027-06-30T00:00:00Z\n"
#define BODY   "sha256: " SHA256 "\n"
#define FILES  "file: " SHA256 " pki/ca.pem\nfile: " SHA256 " a name.pem\n"

static struct tool tool;
static EVP_PKEY *key, *other;
static struct note_keys *keys, *receipt_keys;

static int set_up(void **state) {
	struct cede_error err;
	(void)state;
	tool_init(&tool);
	tool_pki(&tool);
	key = tool_private(&tool, "pki/policy.key");
	other = tool_private(&tool, "pki/receipt.key");
	if (note_keys_new(NOTE_POLICY, &keys, &err) < 0 || note_keys_add(keys, key, &err) < 0 ||
		note_keys_new(NOTE_RECEIPT, &receipt_keys, &err) < 0 ||
		note_keys_add(receipt_keys, key, &err) < 0)
		return -1;
	return 0;
}

static int tear_down(void **state) {
	(void)state;
	note_keys_free(keys);
	note_keys_free(receipt_keys);
	key_freep(&key);
	key_freep(&other);
	tool_done(&tool);
	return 0;
}

static void fill(uint8_t sha256[32]) {
	for (size_t i = 0; i < 32; i++)
		sha256[i] = (uint8_t)((i % 16) * 0x11);
}

static void what_is_signed_is_read_again(void **state) {
	CLEANUP(buf_done) struct buf note = BUF_INIT(NOTE_MAX);
	char ca[] = "pki/ca.pem", seal[] = "a name.pem";
	struct policy_note_file files[] = {{.name = ca}, {.name = seal}};
	struct policy_note back,
		p = {.id = "lanes",
			.serial = 7,
			.expires_ns = INT64_C(1814313600) * NS_PER_SECOND,
			.files = files,
			.file_count = 2};
	static const char text[] = HEAD BODY FILES "\n";
	struct cede_error err;

	(void)state;
	fill(p.sha256);
	fill(files[0].sha256);
	fill(files[1].sha256);
	assert_int_equal(policy_note_sign(&p, "agency", key, &note, &err), 0);
	assert_true(note.len > strlen(text));
	assert_memory_equal(note.data, text, strlen(text));
	assert_int_equal(policy_note_verify(keys, buf_slice(&note), &back, NULL, &err), 0);
	assert_string_equal(back.id, "lanes");
	assert_int_equal(back.serial, 7);
	assert_int_equal(back.expires_ns, p.expires_ns);
	assert_int_equal(back.file_count, 2);
	assert_string_equal(back.files[1].name, seal);
	assert_memory_equal(back.files[1].sha256, files[1].sha256, 32);
	policy_note_done(&back);
	for (size_t len = 0; len < note.len; len++)
		assert_int_not_equal(
			policy_note_verify(keys, slice_of(note.data, len), &back, NULL, &err), 0);
	for (size_t i = 0; i < strlen(text) - 1; i++) { /* no byte of the text can change */
		note.data[i] ^= 1;
		assert_int_not_equal(
			policy_note_verify(keys, buf_slice(&note), &back, NULL, &err), 0);
		note.data[i] ^= 1;
	}
	/* a key counts for its own role alone */
	assert_int_equal(policy_note_verify(receipt_keys, buf_slice(&note), &back, NULL, &err),
		CEDE_ERR_REFUSED);
	buf_clear(&note);
	assert_int_equal(policy_note_sign(&p, "agency", other, &note, &err), 0);
	assert_int_equal(
		policy_note_verify(keys, buf_slice(&note), &back, NULL, &err), CEDE_ERR_REFUSED);
}

static void well_signed_and_still_no_policy(void **state) {
	static const struct {
		const char *what, *text;
		int expected;
	} cases[] = {
		{"good", HEAD BODY FILES, CEDE_OK},
		{"no files", HEAD BODY, CEDE_OK},
		{"only the type", "cede-policy/1\n", CEDE_ERR_INPUT},
		{"no digest", HEAD FILES, CEDE_ERR_INPUT},
		{"files first", HEAD FILES BODY, CEDE_ERR_INPUT},
		{"something behind", HEAD BODY FILES "more: x\n", CEDE_ERR_INPUT},
		{"file without name", HEAD BODY "file: " SHA256 "\n", CEDE_ERR_INPUT},
		{"file with a short digest", HEAD BODY "file: 0011 a\n", CEDE_ERR_INPUT},
		{"digest in capitals",
			HEAD BODY
			"file: 00112233445566778899AABBCCDDEEFF00112233445566778899aabbccddeeff a\n",
			CEDE_ERR_INPUT},
		{"serial 0", "cede-policy/1\nid: l\nserial: 0\nexpires: 2027-06-30T00:00:00Z\n" BODY,
			CEDE_ERR_INPUT},
		{"serial with zeros",
			"cede-policy/1\nid: l\nserial: 07\nexpires: 2027-06-30T00:00:00Z\n" BODY,
			CEDE_ERR_INPUT},
		{"no such day",
			"cede-policy/1\nid: l\nserial: 7\nexpires: 2027-06-31T00:00:00Z\n" BODY,
			CEDE_ERR_INPUT},
		{"long id",
			"cede-policy/1\nid: 01234567890123456789012345678901234567890123456789012345678901234\nserial: 7\nexpires: 2027-06-30T00:00:00Z\n" BODY,
			CEDE_ERR_INPUT},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_LENGTH(cases); i++) {
		CLEANUP(buf_done) struct buf note = BUF_INIT(NOTE_MAX);
		struct policy_note p = {.id = ""};
		struct cede_error err;
		assert_int_equal(
			note_sign(NOTE_POLICY, slice_str(cases[i].text), "agency", key, &note, &err),
			0);
		int r = policy_note_verify(keys, buf_slice(&note), &p, NULL, &err);
		if (r != cases[i].expected)
			fail_msg("%s: %d", cases[i].what, r);
		policy_note_done(&p);
	}
}

static void too_many_files_are_refused(void **state) {
	CLEANUP(buf_done) struct buf note = BUF_INIT(NOTE_MAX);
	static struct policy_note_file files[POLICY_NOTE_FILES_MAX + 1];
	char name[] = "a", odd[] = "caf\xc3\xa9";
	struct policy_note p = {
		.id = "l", .serial = 1, .files = files, .file_count = POLICY_NOTE_FILES_MAX + 1};
	struct cede_error err;

	(void)state;
	for (size_t i = 0; i < ARRAY_LENGTH(files); i++)
		files[i].name = name;
	assert_int_equal(policy_note_sign(&p, "agency", key, &note, &err), CEDE_ERR_INPUT);
	assert_non_null(strstr(err.text, "more than 128 files"));
	p.file_count = 1;
	files[0].name = odd;
	assert_int_equal(policy_note_sign(&p, "agency", key, &note, &err), CEDE_ERR_INPUT);
}

int main(void) {
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_is_signed_is_read_again),
		cmocka_unit_test(well_signed_and_still_no_policy),
		cmocka_unit_test(too_many_files_are_refused),
	};

	return cmocka_run_group_tests(tests, set_up, tear_down);
}
