/* SPDX-License-Identifier: Apache-2.0 */
#include "formats/checkpoint.h"

#include <inttypes.h>
#include <openssl/evp.h>
#include <openssl/x509.h>
#include <stdio.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/parse.h"
#include "certs/base64.h"
#include "certs/key.h"

static int write_text(
	const struct checkpoint *c, char origin[128], struct buf *text, struct cede_error *reterr) {
	char at[CLOCK_TEXT_SIZE];

	(void)snprintf(origin, 128, "%s/%s", note_role_type(NOTE_CHECKPOINT), c->host);
	clock_text(c->at_ns, at);
	CEDE_TRY(buf_addf(text, reterr, "%s\n%" PRIu64 "\n", origin, c->size));
	CEDE_TRY(base64_encode(slice_of(c->root, 32), text, reterr));
	return buf_addf(text, reterr, "\ntime %s\n", at);
}

int checkpoint_sign(
	const struct checkpoint *c, EVP_PKEY *key, struct buf *out, struct cede_error *reterr) {
	CLEANUP(buf_done) struct buf text = BUF_INIT(CHECKPOINT_MAX);
	char origin[128];

	CEDE_TRY(write_text(c, origin, &text, reterr));
	return note_sign(NOTE_CHECKPOINT, buf_slice(&text), origin, key, out, reterr);
}

static bool cut_line(struct slice *rest, struct slice *line) {
	struct slice tail;

	if (!slice_cut(*rest, '\n', line, &tail))
		return false;
	*rest = tail;
	return true;
}

static int read_text(struct slice text, struct checkpoint *ret, struct cede_error *reterr) {
	CLEANUP(buf_done) struct buf root = BUF_INIT(64);
	struct slice lines[4], rest = text;
	size_t prefix = strlen(note_role_type(NOTE_CHECKPOINT)) + 1;
	struct checkpoint c = {.size = 0};

	for (size_t i = 0; i < 4; i++)
		if (!cut_line(&rest, &lines[i]))
			return CEDE_FAIL(
				reterr, CEDE_ERR_INPUT, "a checkpoint has four lines, not %zu", i);
	if (rest.len > 0)
		return CEDE_FAIL(reterr, CEDE_ERR_INPUT, "a checkpoint has four lines, not more");
	struct slice host = slice_of(lines[0].data + prefix, lines[0].len - prefix);
	if (!host_id_valid(host))
		return CEDE_FAIL(reterr, CEDE_ERR_INPUT, "a checkpoint of no host id");
	memcpy(c.host, host.data, host.len);
	CEDE_TRY(parse_u64(lines[1], 1, INT64_MAX, &c.size, reterr));
	CEDE_TRY(base64_decode(lines[2], &root, reterr));
	if (root.len != 32)
		return CEDE_FAIL(reterr, CEDE_ERR_INPUT, "a checkpoint's root has 32 bytes");
	memcpy(c.root, root.data, 32);
	if (!slice_starts(lines[3], "time "))
		return CEDE_FAIL(reterr, CEDE_ERR_INPUT, "a checkpoint's fourth line is its time");
	CEDE_TRY(parse_time(slice_of(lines[3].data + 5, lines[3].len - 5), &c.at_ns, reterr));
	*ret = c;
	return CEDE_OK;
}

int checkpoint_verify(const struct note_keys *keys, struct slice note, struct checkpoint *ret,
	struct cede_error *reterr) {
	struct slice text;

	CEDE_TRY(note_verify(keys, note, &text, NULL, reterr));
	int r = read_text(text, ret, reterr);
	if (r < 0)
		cede_error_within(reterr, "checkpoint");
	return r;
}

int checkpoint_keys(struct slice der, struct note_keys **ret, struct cede_error *reterr) {
	CLEANUP(key_freep) EVP_PKEY *key = NULL;
	const uint8_t *at = der.data;
	struct note_keys *keys;

	if (der.len == 0 || der.len > CHECKPOINT_KEY_MAX ||
		(key = d2i_PUBKEY(NULL, &at, (long)der.len)) == NULL || at != der.data + der.len)
		return CEDE_FAIL(reterr, CEDE_ERR_INPUT, "a ledger's key is no public key");
	CEDE_TRY(note_keys_new(NOTE_CHECKPOINT, &keys, reterr));
	int r = note_keys_add(keys, key, reterr);
	if (r < 0)
		note_keys_free(keys);
	else
		*ret = keys;
	return r;
}

bool checkpoint_next(struct slice *rest, struct slice *ret_note) {
	while (rest->len > 0 && rest->data[0] == '\n')
		*rest = slice_of(rest->data + 1, rest->len - 1);
	if (rest->len == 0)
		return false;
	struct slice note = *rest;
	const uint8_t *gap = memmem(note.data, note.len, "\n\n", 2);
	size_t at = gap == NULL ? note.len : (size_t)(gap - note.data) + 2;
	/* signature lines begin with the first byte of an em dash; anything else is the next text */
	while (at < note.len && note.data[at] == 0xe2) {
		const uint8_t *end = memchr(note.data + at, '\n', note.len - at);
		at = end == NULL ? note.len : (size_t)(end - note.data) + 1;
	}
	*ret_note = slice_of(note.data, at);
	*rest = slice_of(note.data + at, note.len - at);
	return true;
}

/* ---- the header field */

int checkpoint_field_write(struct slice note, struct slice key, uint64_t from,
	const struct merkle_proof *proof, struct buf *out, struct cede_error *reterr) {
	CEDE_TRY(buf_add_str(out, "note=", reterr));
	CEDE_TRY(base64_encode(note, out, reterr));
	CEDE_TRY(buf_add_str(out, "; key=", reterr));
	CEDE_TRY(base64_encode(key, out, reterr));
	if (from == 0)
		return CEDE_OK;
	CEDE_TRY(buf_addf(out, reterr, "; from=%" PRIu64 "; proof=", from));
	return proof->count == 0
		? CEDE_OK
		: base64_encode(slice_of(proof->hashes, proof->count * 32), out, reterr);
}

/* "name=value", where value ends at the next "; " or the end. */
static bool take_part(struct slice *rest, const char *name, struct slice *value) {
	size_t n = strlen(name);
	struct slice tail = SLICE_NONE;

	if (!slice_starts(*rest, name))
		return false;
	*value = slice_of(rest->data + n, rest->len - n);
	if (slice_cut(*value, ';', value, &tail)) {
		if (tail.len < 2 || tail.data[0] != ' ')
			return false;
		tail = slice_of(tail.data + 1, tail.len - 1);
	}
	*rest = tail;
	return true;
}

static int read_proof(struct slice text, struct merkle_proof *ret, struct cede_error *reterr) {
	CLEANUP(buf_done) struct buf raw = BUF_INIT(MERKLE_PROOF_MAX * 32 + 3);

	ret->count = 0;
	if (text.len == 0)
		return CEDE_OK;
	CEDE_TRY(base64_decode(text, &raw, reterr));
	if (raw.len % 32 != 0 || raw.len > sizeof ret->hashes)
		return CEDE_FAIL(reterr, CEDE_ERR_INPUT, "a proof is a row of hashes");
	memcpy(ret->hashes, raw.data, raw.len);
	ret->count = raw.len / 32;
	return CEDE_OK;
}

static int read_field(struct slice value, struct checkpoint_field *ret, struct cede_error *reterr) {
	struct slice rest = value;
	struct slice note, key, from, proof;

	if (value.len > CHECKPOINT_FIELD_MAX || !take_part(&rest, "note=", &note) ||
		!take_part(&rest, "key=", &key))
		return CEDE_FAIL(reterr, CEDE_ERR_INPUT, "note and key expected");
	CEDE_TRY(base64_decode(note, &ret->note, reterr));
	CEDE_TRY(base64_decode(key, &ret->key, reterr));
	ret->from = 0;
	if (rest.len == 0)
		return CEDE_OK;
	if (!take_part(&rest, "from=", &from) || !take_part(&rest, "proof=", &proof) || rest.len > 0)
		return CEDE_FAIL(reterr, CEDE_ERR_INPUT, "from and proof expected");
	CEDE_TRY(parse_u64(from, 1, INT64_MAX, &ret->from, reterr));
	return read_proof(proof, &ret->proof, reterr);
}

int checkpoint_field_read(
	struct slice value, struct checkpoint_field *ret, struct cede_error *reterr) {
	*ret = (struct checkpoint_field){
		.note = BUF_INIT(CHECKPOINT_MAX), .key = BUF_INIT(CHECKPOINT_KEY_MAX)};
	int r = read_field(value, ret, reterr);
	if (r < 0) {
		cede_error_within(reterr, CHECKPOINT_FIELD);
		checkpoint_field_done(ret);
	}
	return r;
}

void checkpoint_field_done(struct checkpoint_field *field) {
	buf_done(&field->note);
	buf_done(&field->key);
}
