/* SPDX-License-Identifier: Apache-2.0 */
#include "certs/note.h"

#include <openssl/err.h>
#include <openssl/evp.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "base/cleanup.h"
#include "certs/base64.h"
#include "certs/key.h"
#include "certs/ossl.h"

#define KEYS_MAX      64
#define NAME_MAX_LEN  128
#define KEY_ID_SIZE   4
#define SIGNATURE_MAX 128             /* a DER ECDSA-Sig-Value of P-256 has at most 72 bytes */
#define LINE_START    "\xe2\x80\x94 " /* em dash U+2014, space */

struct note_key {
	EVP_PKEY *key;
	uint8_t digest[32]; /* begins with the key id */
};

struct note_keys {
	enum note_role role;
	size_t count;
	struct note_key keys[KEYS_MAX];
};

/* The parts of a note; all point into it. */
struct parts {
	struct slice text;
	size_t count;
	struct slice signatures[NOTE_SIGNATURES_MAX]; /* base64 */
};

const char *note_role_type(enum note_role role) {
	switch (role) {
	case NOTE_RECEIPT:
		return "cede-receipt/1";
	case NOTE_POLICY:
		return "cede-policy/1";
	case NOTE_CHECKPOINT:
		return "cede-checkpoint/1";
	case NOTE_WIPE_CERTIFICATE:
		return "cede-wipe-certificate/1";
	}
	require(false);
}

int note_keys_new(enum note_role role, struct note_keys **ret, struct cede_error *reterr) {
	struct note_keys *keys = calloc(1, sizeof *keys);

	if (keys == NULL)
		return CEDE_FAIL_MEMORY(reterr);
	keys->role = role;
	*ret = keys;
	return CEDE_OK;
}

static int require_p256(EVP_PKEY *key, struct cede_error *reterr) {
	if (!ossl_is_p256(key))
		return CEDE_FAIL(reterr, CEDE_ERR_REFUSED, "a signature key must be EC P-256");
	return CEDE_OK;
}

int note_keys_add(struct note_keys *keys, EVP_PKEY *key, struct cede_error *reterr) {
	struct note_key *slot = &keys->keys[keys->count];

	if (keys->count == KEYS_MAX)
		return CEDE_FAIL(reterr, CEDE_ERR_INPUT, "more than %d signature keys", KEYS_MAX);
	CEDE_TRY(require_p256(key, reterr));
	CEDE_TRY(key_digest(key, slot->digest, reterr));
	for (size_t i = 0; i < keys->count; i++)
		if (memcmp(keys->keys[i].digest, slot->digest, sizeof slot->digest) == 0)
			return CEDE_OK;
	if (EVP_PKEY_up_ref(key) != 1)
		return OSSL_FAIL(reterr, "signature key");
	slot->key = key;
	keys->count++;
	return CEDE_OK;
}

void note_keys_free(struct note_keys *keys) {
	if (keys == NULL)
		return;
	for (size_t i = 0; i < keys->count; i++)
		EVP_PKEY_free(keys->keys[i].key);
	free(keys);
}

static bool name_valid(struct slice name) {
	if (name.len == 0 || name.len > NAME_MAX_LEN)
		return false;
	for (size_t i = 0; i < name.len; i++)
		if (name.data[i] <= ' ' || name.data[i] > '~' || name.data[i] == '+')
			return false;
	return true;
}

bool note_name_valid(const char *name) {
	return name_valid(slice_str(name));
}

/* Lines of printable ASCII, none empty, each ended by LF. */
static int check_text(struct slice text, struct cede_error *reterr) {
	size_t line = 0;

	if (text.len == 0 || text.data[text.len - 1] != '\n')
		return CEDE_FAIL(reterr, CEDE_ERR_INPUT, "the text does not end with a new line");
	for (size_t i = 0; i < text.len; i++) {
		uint8_t c = text.data[i];
		if (c == '\n' && line == 0)
			return CEDE_FAIL(reterr, CEDE_ERR_INPUT, "an empty line in the text");
		if (c != '\n' && (c < ' ' || c > '~'))
			return CEDE_FAIL(reterr, CEDE_ERR_INPUT,
				"byte %zu of the text is not printable ASCII", i);
		line = c == '\n' ? 0 : line + 1;
	}
	return CEDE_OK;
}

static int check_type(enum note_role role, struct slice text, struct cede_error *reterr) {
	const char *type = note_role_type(role);
	struct slice first, rest;

	/* a checkpoint's first line is the origin of its log: the host's id follows the type */
	if (!slice_cut(text, '\n', &first, &rest) ||
		(role == NOTE_CHECKPOINT ? !slice_starts(first, type) ||
					first.len < strlen(type) + 2 || first.data[strlen(type)] != '/'
					 : !slice_is(first, type)))
		return CEDE_FAIL(reterr, CEDE_ERR_REFUSED,
			"another statement: its first line must be %s%s", type,
			role == NOTE_CHECKPOINT ? "/ and a host id" : "");
	return CEDE_OK;
}

static int parse_signature_line(struct slice line, struct parts *parts, struct cede_error *reterr) {
	struct slice name, signature;
	size_t start = sizeof LINE_START - 1;

	if (parts->count == NOTE_SIGNATURES_MAX)
		return CEDE_FAIL(
			reterr, CEDE_ERR_INPUT, "more than %d signatures", NOTE_SIGNATURES_MAX);
	if (!slice_starts(line, LINE_START) ||
		!slice_cut(slice_of(line.data + start, line.len - start), ' ', &name, &signature) ||
		!name_valid(name) || signature.len == 0)
		return CEDE_FAIL(reterr, CEDE_ERR_INPUT,
			"signature line %zu: an em dash, a name and base64 expected",
			parts->count + 1);
	parts->signatures[parts->count++] = signature;
	return CEDE_OK;
}

static int parse(struct slice note, struct parts *parts, struct cede_error *reterr) {
	*parts = (struct parts){0};
	if (note.len == 0 || note.len > NOTE_MAX)
		return CEDE_FAIL(reterr, CEDE_ERR_INPUT, "a note has 1 to %d bytes, not %zu",
			NOTE_MAX, note.len);
	const uint8_t *gap = memmem(note.data, note.len, "\n\n", 2);
	if (gap == NULL)
		return CEDE_FAIL(reterr, CEDE_ERR_INPUT, "no empty line behind the text");
	parts->text = slice_of(note.data, (size_t)(gap - note.data) + 1);
	CEDE_TRY(check_text(parts->text, reterr));
	struct slice line, rest = slice_of(gap + 2, note.len - parts->text.len - 1);
	while (slice_cut(rest, '\n', &line, &rest))
		CEDE_TRY(parse_signature_line(line, parts, reterr));
	if (rest.len > 0)
		return CEDE_FAIL(reterr, CEDE_ERR_INPUT, "bytes behind the last line");
	if (parts->count == 0)
		return CEDE_FAIL(reterr, CEDE_ERR_INPUT, "no signature");
	return CEDE_OK;
}

/* *ret_good: whether the signature is one of this key. */
static int verify_one(EVP_PKEY *key, struct slice text, struct slice signature, bool *ret_good,
	struct cede_error *reterr) {
	CLEANUP(ossl_md_ctx_freep) EVP_MD_CTX *ctx = EVP_MD_CTX_new();

	if (ctx == NULL || EVP_DigestVerifyInit_ex(ctx, NULL, "SHA256", NULL, NULL, key, NULL) != 1)
		return OSSL_FAIL(reterr, "verify a signature");
	/* anything but 1 is a no: 0 a wrong signature, negative one that is no ECDSA-Sig-Value */
	*ret_good = EVP_DigestVerify(ctx, signature.data, signature.len, text.data, text.len) == 1;
	ERR_clear_error();
	return CEDE_OK;
}

/* One signature line: *ret_signer is the key that made it, or stays if the key id is unknown. */
static int verify_line(const struct note_keys *keys, struct slice text, struct slice base64,
	size_t *ret_signer, struct cede_error *reterr) {
	CLEANUP(buf_done) struct buf raw = BUF_INIT(NOTE_MAX);
	bool known = false;

	CEDE_TRY(base64_decode(base64, &raw, reterr));
	if (raw.len <= KEY_ID_SIZE)
		return CEDE_FAIL(reterr, CEDE_ERR_INPUT, "a signature that is too short");
	struct slice signature = slice_of(raw.data + KEY_ID_SIZE, raw.len - KEY_ID_SIZE);
	for (size_t i = 0; i < keys->count; i++) {
		bool good = false;
		if (memcmp(keys->keys[i].digest, raw.data, KEY_ID_SIZE) != 0)
			continue;
		known = true;
		if (signature.len <= SIGNATURE_MAX)
			CEDE_TRY(verify_one(keys->keys[i].key, text, signature, &good, reterr));
		if (good) {
			*ret_signer = i;
			return CEDE_OK;
		}
	}
	if (known)
		return CEDE_FAIL(reterr, CEDE_ERR_REFUSED,
			"a signature of a known key does not fit the text: forged or damaged");
	return CEDE_OK;
}

int note_verify(const struct note_keys *keys, struct slice note, struct slice *ret_text,
	uint8_t *ret_signer, struct cede_error *reterr) {
	bool signed_by[KEYS_MAX] = {false};
	size_t signer = keys->count;
	struct parts parts;

	CEDE_TRY(parse(note, &parts, reterr));
	CEDE_TRY(check_type(keys->role, parts.text, reterr));
	for (size_t i = 0; i < parts.count; i++) {
		size_t by = keys->count;
		CEDE_TRY(verify_line(keys, parts.text, parts.signatures[i], &by, reterr));
		if (by == keys->count)
			continue;
		if (signed_by[by])
			return CEDE_FAIL(reterr, CEDE_ERR_INPUT, "two signatures of the same key");
		signed_by[by] = true;
		if (signer == keys->count)
			signer = by;
	}
	if (signer == keys->count)
		return CEDE_FAIL(reterr, CEDE_ERR_REFUSED,
			"no signature of a key that is trusted "
			"for this statement");
	*ret_text = parts.text;
	if (ret_signer != NULL)
		memcpy(ret_signer, keys->keys[signer].digest, sizeof keys->keys[signer].digest);
	return CEDE_OK;
}

static int sign_text(EVP_PKEY *key, struct slice text, struct buf *raw, struct cede_error *reterr) {
	CLEANUP(ossl_md_ctx_freep) EVP_MD_CTX *ctx = EVP_MD_CTX_new();
	uint8_t digest[32];
	uint8_t *at;
	size_t len = SIGNATURE_MAX;

	CEDE_TRY(require_p256(key, reterr));
	CEDE_TRY(key_digest(key, digest, reterr));
	CEDE_TRY(buf_add(raw, digest, KEY_ID_SIZE, reterr));
	CEDE_TRY(buf_room(raw, len, &at, reterr));
	if (ctx == NULL || EVP_DigestSignInit_ex(ctx, NULL, "SHA256", NULL, NULL, key, NULL) != 1 ||
		EVP_DigestSign(ctx, at, &len, text.data, text.len) != 1)
		return OSSL_FAIL(reterr, "sign a statement");
	buf_grew(raw, len);
	return CEDE_OK;
}

int note_sign(enum note_role role, struct slice text, const char *name, EVP_PKEY *key,
	struct buf *out, struct cede_error *reterr) {
	CLEANUP(buf_done) struct buf raw = BUF_INIT(KEY_ID_SIZE + SIGNATURE_MAX);
	CLEANUP(buf_done) struct buf note = BUF_INIT(NOTE_MAX);

	CEDE_TRY(check_text(text, reterr));
	CEDE_TRY(check_type(role, text, reterr));
	if (!name_valid(slice_str(name)))
		return CEDE_FAIL(reterr, CEDE_ERR_INPUT,
			"a signer's name has 1 to %d printable characters, no space, no '+'",
			NAME_MAX_LEN);
	CEDE_TRY(sign_text(key, text, &raw, reterr));
	CEDE_TRY(buf_add(&note, text.data, text.len, reterr));
	CEDE_TRY(buf_addf(&note, reterr, "\n" LINE_START "%s ", name));
	CEDE_TRY(base64_encode(buf_slice(&raw), &note, reterr));
	CEDE_TRY(buf_add_str(&note, "\n", reterr));
	return buf_add(out, note.data, note.len, reterr);
}
