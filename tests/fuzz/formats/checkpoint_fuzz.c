/* SPDX-License-Identifier: Apache-2.0
 * What the receiver and `cede ledger verify` read of a host that may be anybody's: the first byte
 * says what the rest is: a header field, a text (signed first), a row of notes, or an event's detail. */
#include <openssl/ec.h>
#include <openssl/evp.h>
#include <string.h>

#include "base/check.h"
#include "base/cleanup.h"
#include "formats/checkpoint.h"
#include "formats/detail.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void field(struct slice input) {
	CLEANUP(buf_done) struct buf again = BUF_INIT(CHECKPOINT_FIELD_MAX);
	struct checkpoint_field f;

	if (checkpoint_field_read(input, &f, NULL) < 0)
		return;
	/* what was read can be written, in this form alone */
	require(checkpoint_field_write(buf_slice(&f.note), buf_slice(&f.key), f.from, &f.proof,
			&again, NULL) == CEDE_OK);
	require(slice_equal(buf_slice(&again), input));
	checkpoint_field_done(&f);
}

static void text(struct slice input) {
	static EVP_PKEY *key;
	static struct note_keys *keys;
	CLEANUP(buf_done) struct buf note = BUF_INIT(NOTE_MAX);
	CLEANUP(buf_done) struct buf again = BUF_INIT(NOTE_MAX);
	struct checkpoint first, second;

	if (key == NULL) {
		key = EVP_EC_gen("P-256");
		require(key != NULL);
		require(note_keys_new(NOTE_CHECKPOINT, &keys, NULL) == CEDE_OK);
		require(note_keys_add(keys, key, NULL) == CEDE_OK);
	}
	if (note_sign(NOTE_CHECKPOINT, input, "fuzz", key, &note, NULL) < 0 ||
		checkpoint_verify(keys, buf_slice(&note), &first, NULL) < 0)
		return;
	require(checkpoint_sign(&first, key, &again, NULL) == CEDE_OK);
	require(checkpoint_verify(keys, buf_slice(&again), &second, NULL) == CEDE_OK);
	require(strcmp(first.host, second.host) == 0 && first.size == second.size &&
		memcmp(first.root, second.root, 32) == 0);
}

static void notes(struct slice input) {
	struct slice note, rest = input;
	size_t left = rest.len;

	while (checkpoint_next(&rest, &note)) {
		require(note.len > 0 && rest.len < left);
		left = rest.len;
	}
}

static void detail(struct slice input) {
	CLEANUP(buf_done) struct buf plain = BUF_INIT(1 << 20);
	CLEANUP(buf_done) struct buf again = BUF_INIT(1 << 22);
	struct slice value, rest;
	uint64_t from, to;
	uint8_t digest[32];

	if (!detail_find(input, "v", &value))
		return;
	for (rest = value; rest.len > 0 && detail_rows_next(&rest, &from, &to, NULL) == CEDE_OK;)
		require(from <= to);
	for (rest = value; rest.len > 0 && detail_member_next(&rest, &from, digest, NULL) == CEDE_OK;)
		require(from > 0);
	if (detail_decode(value, &plain, NULL) < 0)
		return;
	require(detail_add(&again, "v", buf_slice(&plain), NULL) == CEDE_OK);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
	static void (*const readers[])(struct slice) = {field, text, notes, detail};

	if (size > 0)
		readers[data[0] % ARRAY_LENGTH(readers)](slice_of(data + 1, size - 1));
	return 0;
}
