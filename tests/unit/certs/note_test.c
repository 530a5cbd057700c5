/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "certs/base64.h"
#include "certs/key.h"
#include "certs/note.h"
#include "tests/unit/certs/tool.h"

#define DASH "\xe2\x80\x94"
#define TEXT "cede-receipt/1\nsize: 1\n"

static struct tool tool;
static EVP_PKEY *key, *other;
static struct note_keys *keys;

static void must_add(struct note_keys *to, EVP_PKEY *k) {
	struct cede_error err;

	assert_int_equal(note_keys_add(to, k, &err), 0);
}

static int set_up(void **state) {
	struct cede_error err;
	(void)state;
	tool_init(&tool);
	tool_pki(&tool);
	key = tool_private(&tool, "pki/receipt.key");
	other = tool_private(&tool, "pki/policy.key");
	if (note_keys_new(NOTE_RECEIPT, &keys, &err) < 0)
		return -1;
	must_add(keys, key);
	must_add(keys, key); /* twice is once */
	return 0;
}

static int tear_down(void **state) {
	(void)state;
	note_keys_free(keys);
	key_freep(&key);
	key_freep(&other);
	tool_done(&tool);
	return 0;
}

static void sign(const char *text, EVP_PKEY *by, struct buf *out) {
	struct cede_error err;

	assert_int_equal(note_sign(NOTE_RECEIPT, slice_str(text), "agency", by, out, &err), 0);
}

/* The signature line of TEXT, with its LF. */
static void signature_line(EVP_PKEY *by, char *out, size_t size) {
	CLEANUP(buf_done) struct buf note = BUF_INIT(NOTE_MAX);

	sign(TEXT, by, &note);
	size_t start = strlen(TEXT) + 1;
	assert_true(note.len - start < size);
	memcpy(out, note.data + start, note.len - start);
	out[note.len - start] = 0;
}

static int verify(struct slice note) {
	struct slice text;
	uint8_t signer[32], expected[32];
	struct cede_error err;
	int r = note_verify(keys, note, &text, signer, &err);

	if (r == CEDE_OK) {
		assert_int_equal(key_digest(key, expected, &err), 0);
		assert_memory_equal(signer, expected, 32);
		assert_ptr_equal(text.data, note.data);
		assert_int_equal(text.data[text.len - 1], '\n');
	} else {
		assert_int_equal(err.code, r);
		assert_true(strlen(err.text) > 0);
	}
	return r;
}

static void test_round_trip(void **state) {
	CLEANUP(buf_done) struct buf note = BUF_INIT(NOTE_MAX);
	(void)state;
	sign(TEXT, key, &note);
	assert_int_equal(verify(buf_slice(&note)), CEDE_OK);
	/* C2SP: text, empty line, em dash, name, key id and signature */
	assert_memory_equal(note.data, TEXT "\n" DASH " agency ", strlen(TEXT "\n" DASH " agency "));
}

static void test_every_flipped_bit_is_refused(void **state) {
	CLEANUP(buf_done) struct buf note = BUF_INIT(NOTE_MAX);
	size_t name = strlen(TEXT "\n" DASH " ");
	(void)state;
	sign(TEXT, key, &note);
	for (size_t i = 0; i < note.len; i++) {
		if (i >= name && i < name + strlen("agency"))
			continue; /* the signer's name is not signed */
		for (int bit = 0; bit < 8; bit++) {
			note.data[i] ^= (uint8_t)(1 << bit);
			assert_int_not_equal(verify(buf_slice(&note)), CEDE_OK);
			note.data[i] ^= (uint8_t)(1 << bit);
		}
	}
	for (size_t len = 0; len < note.len; len++)
		assert_int_equal(verify(slice_of(note.data, len)), CEDE_ERR_INPUT);
}

static void test_malformed(void **state) {
	char good[512], foreign[512], all[4096];

	static const struct {
		const char *what;
		const char *form; /* %1$s: a good signature line, %2$s: one of an unknown key */
		int expected;
	} cases[] = {
		{"plain", TEXT "\n%1$s", CEDE_OK},
		{"unknown first", TEXT "\n%2$s%1$s", CEDE_OK},
		{"unknown last", TEXT "\n%1$s%2$s", CEDE_OK},
		{"unknown twice", TEXT "\n%2$s%2$s%1$s", CEDE_OK},
		{"only unknown", TEXT "\n%2$s", CEDE_ERR_REFUSED},
		{"same key twice", TEXT "\n%1$s%1$s", CEDE_ERR_INPUT},
		{"no signature", TEXT "\n", CEDE_ERR_INPUT},
		{"no empty line", TEXT "%1$s", CEDE_ERR_INPUT},
		{"two empty lines", TEXT "\n\n%1$s", CEDE_ERR_INPUT},
		{"starts with an empty line", "\n" TEXT "\n%1$s", CEDE_ERR_INPUT},
		{"empty line in the text", "cede-receipt/1\n\nsize: 1\n\n%1$s", CEDE_ERR_INPUT},
		{"empty text", "\n\n%1$s", CEDE_ERR_INPUT},
		{"only the gap", "\n\n", CEDE_ERR_INPUT},
		{"bytes behind", TEXT "\n%1$sx", CEDE_ERR_INPUT},
		{"line behind", TEXT "\n%1$sx\n", CEDE_ERR_INPUT},
		{"empty line behind", TEXT "\n%1$s\n", CEDE_ERR_INPUT},
		{"carriage return", "cede-receipt/1\r\nsize: 1\n\n%1$s", CEDE_ERR_INPUT},
		{"CR before the gap", "cede-receipt/1\nsize: 1\r\n\r\n%1$s", CEDE_ERR_INPUT},
		{"tab", "cede-receipt/1\nsize:\t1\n\n%1$s", CEDE_ERR_INPUT},
		{"not ASCII", "cede-receipt/1\nsize: \xc3\xa4\n\n%1$s", CEDE_ERR_INPUT},
		{"other type", "cede-policy/1\nsize: 1\n\n%1$s", CEDE_ERR_REFUSED},
		{"longer type", "cede-receipt/10\nsize: 1\n\n%1$s", CEDE_ERR_REFUSED},
		{"type in the second line", "x\ncede-receipt/1\n\n%1$s", CEDE_ERR_REFUSED},
		{"changed text", "cede-receipt/1\nsize: 2\n\n%1$s", CEDE_ERR_REFUSED},
		{"hyphen", TEXT "\n- agency AAAAAAAA\n%1$s", CEDE_ERR_INPUT},
		{"no space", TEXT "\n" DASH "agency AAAAAAAA\n%1$s", CEDE_ERR_INPUT},
		{"no name", TEXT "\n" DASH "  AAAAAAAA\n%1$s", CEDE_ERR_INPUT},
		{"plus in the name", TEXT "\n" DASH " a+b AAAAAAAA\n%1$s", CEDE_ERR_INPUT},
		{"no base64", TEXT "\n" DASH " agency\n%1$s", CEDE_ERR_INPUT},
		{"empty base64", TEXT "\n" DASH " agency \n%1$s", CEDE_ERR_INPUT},
		{"bad base64", TEXT "\n" DASH " agency AAAA=AAA\n%1$s", CEDE_ERR_INPUT},
		{"loose bits", TEXT "\n" DASH " agency AAAAAAB=\n%1$s", CEDE_ERR_INPUT},
		{"blank behind", TEXT "\n" DASH " agency AAAAAAAA \n%1$s", CEDE_ERR_INPUT},
		{"key id only", TEXT "\n" DASH " agency AAAAAA==\n%1$s", CEDE_ERR_INPUT},
	};

	(void)state;
	signature_line(key, good, sizeof good);
	signature_line(other, foreign, sizeof foreign);
	for (size_t i = 0; i < ARRAY_LENGTH(cases); i++) {
		char *to = all;
		for (const char *p = cases[i].form; *p != 0;) { /* %1$s by hand: the form varies */
			bool first = strncmp(p, "%1$s", 4) == 0, second = strncmp(p, "%2$s", 4) == 0;
			if (first || second) {
				to = stpcpy(to, first ? good : foreign);
				p += 4;
			} else {
				*to++ = *p++;
			}
		}
		int r = verify(slice_of(all, (size_t)(to - all)));
		if (r != cases[i].expected)
			(void)fprintf(stderr, "%s: %d\n", cases[i].what, r);
		assert_int_equal(r, cases[i].expected);
	}
}

static void test_nul(void **state) {
	char good[512], all[1024];
	(void)state;
	signature_line(key, good, sizeof good);
	size_t len = (size_t)snprintf(all, sizeof all, TEXT "\n%s", good);
	assert_int_equal(verify(slice_of(all, len + 1)), CEDE_ERR_INPUT);
	all[18] = 0;
	assert_int_equal(verify(slice_of(all, len)), CEDE_ERR_INPUT);
	assert_int_equal(verify(SLICE_NONE), CEDE_ERR_INPUT);
}

static void test_limits(void **state) {
	CLEANUP(buf_done) struct buf note = BUF_INIT(2 * NOTE_MAX);
	char good[512], foreign[512];
	struct cede_error err;
	(void)state;
	signature_line(key, good, sizeof good);
	signature_line(other, foreign, sizeof foreign);
	assert_int_equal(buf_addf(&note, &err, TEXT "\n%s", good), 0);
	for (int i = 1; i < NOTE_SIGNATURES_MAX; i++)
		assert_int_equal(buf_add_str(&note, foreign, &err), 0);
	assert_int_equal(verify(buf_slice(&note)), CEDE_OK);
	assert_int_equal(buf_add_str(&note, foreign, &err), 0);
	assert_int_equal(verify(buf_slice(&note)), CEDE_ERR_INPUT);
	buf_clear(&note);
	assert_int_equal(buf_add_str(&note, TEXT, &err), 0);
	while (note.len <= NOTE_MAX)
		assert_int_equal(buf_add_str(&note, "x: y\n", &err), 0);
	assert_int_equal(buf_addf(&note, &err, "\n%s", good), 0);
	assert_int_equal(verify(buf_slice(&note)), CEDE_ERR_INPUT);
}

static void test_known_key_with_garbage(void **state) {
	CLEANUP(buf_done) struct buf raw = BUF_INIT(NOTE_MAX);
	uint8_t digest[32];
	struct cede_error err;
	static const uint8_t garbage[300] = {0x30};
	char good[512];
	(void)state;
	signature_line(key, good, sizeof good);
	assert_int_equal(key_digest(key, digest, &err), 0);
	for (size_t len = 1; len < sizeof garbage; len += 13) {
		CLEANUP(buf_done) struct buf note = BUF_INIT(NOTE_MAX);
		buf_clear(&raw);
		assert_int_equal(buf_add(&raw, digest, 4, &err), 0);
		assert_int_equal(buf_add(&raw, garbage, len, &err), 0);
		/* a good signature beside it does not make up for it */
		assert_int_equal(buf_addf(&note, &err, TEXT "\n%s" DASH " x ", good), 0);
		assert_int_equal(base64_encode(buf_slice(&raw), &note, &err), 0);
		assert_int_equal(buf_add_str(&note, "\n", &err), 0);
		assert_int_equal(verify(buf_slice(&note)), CEDE_ERR_REFUSED);
	}
}

/* Bytes behind the DER value, or a longer form of it, are another signature: refused. */
static void test_der_is_canonical(void **state) {
	CLEANUP(buf_done) struct buf raw = BUF_INIT(NOTE_MAX);
	CLEANUP(buf_done) struct buf note = BUF_INIT(NOTE_MAX);
	char good[512];
	struct cede_error err;
	(void)state;
	signature_line(key, good, sizeof good);
	const char *text = strrchr(good, ' ') + 1;
	assert_int_equal(base64_decode(slice_of(text, strlen(text) - 1), &raw, &err), 0);
	assert_int_equal(buf_add(&raw, "\0", 1, &err), 0);
	assert_int_equal(buf_add_str(&note, TEXT "\n" DASH " agency ", &err), 0);
	assert_int_equal(base64_encode(buf_slice(&raw), &note, &err), 0);
	assert_int_equal(buf_add_str(&note, "\n", &err), 0);
	assert_int_equal(verify(buf_slice(&note)), CEDE_ERR_REFUSED);
}

static void test_roles_are_bound(void **state) {
	static const enum note_role roles[] = {
		NOTE_RECEIPT, NOTE_POLICY, NOTE_CHECKPOINT, NOTE_WIPE_CERTIFICATE};

	(void)state;
	for (size_t i = 0; i < ARRAY_LENGTH(roles); i++) {
		CLEANUP(buf_done) struct buf note = BUF_INIT(NOTE_MAX);
		char text[64];
		struct cede_error err;
		(void)snprintf(text, sizeof text, "%s%s\na: b\n", note_role_type(roles[i]),
			roles[i] == NOTE_CHECKPOINT ? "/lane-1" : "");
		assert_int_equal(note_sign(roles[i], slice_str(text), "x", key, &note, &err), 0);
		assert_int_equal(verify(buf_slice(&note)),
			roles[i] == NOTE_RECEIPT ? CEDE_OK : CEDE_ERR_REFUSED);
		if (roles[i] != NOTE_RECEIPT)
			assert_int_equal(
				note_sign(NOTE_RECEIPT, slice_str(text), "x", key, &note, &err),
				CEDE_ERR_REFUSED);
	}
}

static void test_sign_refuses(void **state) {
	static const struct {
		const char *text;
		const char *name;
	} cases[] = {{TEXT, ""}, {TEXT, "a b"}, {TEXT, "a+b"}, {TEXT, "a\n"}, {TEXT, "\xc3\xa4"},
		{"cede-receipt/1", "x"}, {"cede-receipt/1\n\n", "x"},
		{"cede-receipt/1\na\r\n", "x"}, {"", "x"}};

	(void)state;
	for (size_t i = 0; i < ARRAY_LENGTH(cases); i++) {
		CLEANUP(buf_done) struct buf note = BUF_INIT(NOTE_MAX);
		struct cede_error err;
		assert_int_equal(note_sign(NOTE_RECEIPT, slice_str(cases[i].text), cases[i].name,
					 key, &note, &err),
			CEDE_ERR_INPUT);
		assert_int_equal(note.len, 0);
	}
}

static void test_stock_openssl_verifies(void **state) {
	CLEANUP(buf_done) struct buf note = BUF_INIT(NOTE_MAX);
	(void)state;
	sign(TEXT, key, &note);
	tool_write(&tool, "r.note", buf_slice(&note), 0600);
	assert_int_equal(tool_run(&tool, "sh", "-c",
				 "sed '/^$/,$d' r.note >body && "
				 "tail -n1 r.note | awk '{print $NF}' | base64 -d | tail -c +5 >sig && "
				 "openssl dgst -sha256 -verify pki/receipt.pub -signature sig body",
				 NULL),
		0);
	assert_int_not_equal(tool_run(&tool, "openssl", "dgst", "-sha256", "-verify",
				     "pki/policy.pub", "-signature", "sig", "body", NULL),
		0);
}

static void test_note_of_stock_openssl(void **state) {
	CLEANUP(buf_done) struct buf note = BUF_INIT(NOTE_MAX);
	(void)state;
	tool_write(&tool, "body", SLICE_LIT(TEXT), 0600);
	assert_int_equal(tool_run(&tool, "sh", "-c",
				 "openssl dgst -sha256 -sign pki/receipt.key -out sig body && "
				 "openssl pkey -pubin -in pki/receipt.pub -outform DER | "
				 "openssl dgst -sha256 -binary | head -c 4 >id && "
				 "{ cat body; printf '\\n\\342\\200\\224 by-hand '; "
				 "cat id sig | base64 -w0; echo; } >hand.note",
				 NULL),
		0);
	tool_read(&tool, "hand.note", &note);
	assert_int_equal(verify(buf_slice(&note)), CEDE_OK);
}

int main(void) {
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_round_trip),
		cmocka_unit_test(test_every_flipped_bit_is_refused),
		cmocka_unit_test(test_malformed), cmocka_unit_test(test_nul),
		cmocka_unit_test(test_limits), cmocka_unit_test(test_known_key_with_garbage),
		cmocka_unit_test(test_der_is_canonical), cmocka_unit_test(test_roles_are_bound),
		cmocka_unit_test(test_sign_refuses), cmocka_unit_test(test_stock_openssl_verifies),
		cmocka_unit_test(test_note_of_stock_openssl)};

	return cmocka_run_group_tests_name("note", tests, set_up, tear_down);
}
