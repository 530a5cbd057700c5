/* SPDX-License-Identifier: Apache-2.0
 * Texts that the agency signed, whatever they say: the input is signed first. */
#include <openssl/ec.h>
#include <openssl/evp.h>
#include <string.h>

#include "base/check.h"
#include "base/cleanup.h"
#include "formats/receipt.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
	static EVP_PKEY *key;
	static struct note_keys *keys;
	CLEANUP(buf_done) struct buf note = BUF_INIT(NOTE_MAX);
	CLEANUP(buf_done) struct buf again = BUF_INIT(NOTE_MAX);
	struct receipt first, second;

	if (key == NULL) {
		key = EVP_EC_gen("P-256");
		require(key != NULL);
		require(note_keys_new(NOTE_RECEIPT, &keys, NULL) == CEDE_OK);
		require(note_keys_add(keys, key, NULL) == CEDE_OK);
	}
	if (note_sign(NOTE_RECEIPT, slice_of(data, size), "fuzz", key, &note, NULL) < 0 ||
		receipt_verify(keys, buf_slice(&note), &first, NULL) < 0)
		return 0;
	/* what was read can be written, and says the same */
	require(receipt_sign(&first, "fuzz", key, &again, NULL) == CEDE_OK);
	require(receipt_verify(keys, buf_slice(&again), &second, NULL) == CEDE_OK);
	require(id_equal(&first.bundle, &second.bundle) && first.size == second.size &&
		strcmp(first.host, second.host) == 0 &&
		memcmp(first.sha256, second.sha256, sizeof first.sha256) == 0);
	return 0;
}
