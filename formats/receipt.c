/* SPDX-License-Identifier: Apache-2.0 */
#include "formats/receipt.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/check.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/hex.h"
#include "base/parse.h"
#include "certs/base64.h"
#include "formats/statement.h"

#define SIZE_TEXT_MAX 24

int receipt_sign(const struct receipt *receipt, const char *signer, EVP_PKEY *key, struct buf *out,
	struct cede_error *reterr) {
	CLEANUP(buf_done) struct buf text = BUF_INIT(RECEIPT_MAX);
	CLEANUP(buf_done) struct buf note = BUF_INIT(RECEIPT_MAX);
	CLEANUP(buf_done) struct buf checkpoint = BUF_INIT(128);
	char bundle[ID_TEXT_SIZE], size[SIZE_TEXT_MAX], sha256[65], received[CLOCK_TEXT_SIZE];

	if (!host_id_valid(slice_str(receipt->host)))
		return CEDE_FAIL(reterr, CEDE_ERR_INPUT, "no valid host id");
	id_print(&receipt->bundle, bundle);
	(void)snprintf(size, sizeof size, "%" PRIu64, receipt->size);
	hex_print(receipt->sha256, sizeof receipt->sha256, sha256);
	clock_text(receipt->received_ns, received);
	CEDE_TRY(buf_addf(&checkpoint, reterr, "%" PRIu64 " ", receipt->checkpoint_size));
	CEDE_TRY(base64_encode(slice_of(receipt->checkpoint_root, 32), &checkpoint, reterr));
	const struct statement_field fields[] = {{"bundle", slice_str(bundle)},
		{"host", slice_str(receipt->host)}, {"size", slice_str(size)},
		{"sha256", slice_str(sha256)}, {"received", slice_str(received)},
		{"checkpoint", buf_slice(&checkpoint)}};
	size_t count = ARRAY_LENGTH(fields) - (receipt->checkpoint_size == 0);
	CEDE_TRY(statement_write(note_role_type(NOTE_RECEIPT), fields, count, &text, reterr));
	CEDE_TRY(note_sign(NOTE_RECEIPT, buf_slice(&text), signer, key, &note, reterr));
	return buf_add(out, note.data, note.len, reterr);
}

static int parse_checkpoint(struct slice value, struct receipt *ret, struct cede_error *reterr) {
	CLEANUP(buf_done) struct buf root = BUF_INIT(64);
	struct slice size, text;

	if (!slice_cut(value, ' ', &size, &text))
		return CEDE_FAIL(reterr, CEDE_ERR_INPUT, "checkpoint: a number and a root expected");
	CEDE_TRY(parse_u64(size, 1, INT64_MAX, &ret->checkpoint_size, reterr));
	CEDE_TRY(base64_decode(text, &root, reterr));
	if (root.len != sizeof ret->checkpoint_root)
		return CEDE_FAIL(reterr, CEDE_ERR_INPUT, "checkpoint: a root has 32 bytes");
	memcpy(ret->checkpoint_root, root.data, sizeof ret->checkpoint_root);
	return CEDE_OK;
}

static int parse_text(struct slice text, struct receipt *ret, struct cede_error *reterr) {
	struct statement_field fields[] = {{.key = "bundle"}, {.key = "host"}, {.key = "size"},
		{.key = "sha256"}, {.key = "received"}, {.key = "checkpoint"}};
	bool with = memmem(text.data, text.len, "\ncheckpoint: ", 13) != NULL;
	struct receipt r = {0};

	CEDE_TRY(statement_read(
		text, note_role_type(NOTE_RECEIPT), fields, ARRAY_LENGTH(fields) - !with, reterr));
	CEDE_TRY(id_parse(fields[0].value, &r.bundle, reterr));
	if (!host_id_valid(fields[1].value))
		return CEDE_FAIL(reterr, CEDE_ERR_INPUT, "host: no valid host id");
	memcpy(r.host, fields[1].value.data, fields[1].value.len);
	CEDE_TRY(parse_u64(fields[2].value, 0, INT64_MAX, &r.size, reterr));
	CEDE_TRY(hex_parse(fields[3].value, r.sha256, sizeof r.sha256, reterr));
	CEDE_TRY(parse_time(fields[4].value, &r.received_ns, reterr));
	if (with)
		CEDE_TRY(parse_checkpoint(fields[5].value, &r, reterr));
	*ret = r;
	return CEDE_OK;
}

int receipt_verify(const struct note_keys *keys, struct slice note, struct receipt *ret,
	struct cede_error *reterr) {
	struct slice text;

	if (note.len > RECEIPT_MAX)
		return CEDE_FAIL(reterr, CEDE_ERR_INPUT, "a receipt has at most %d bytes, not %zu",
			RECEIPT_MAX, note.len);
	CEDE_TRY(note_verify(keys, note, &text, NULL, reterr));
	int r = parse_text(text, ret, reterr);
	if (r < 0)
		cede_error_within(reterr, "the receipt's text");
	return r;
}
