/* SPDX-License-Identifier: Apache-2.0
 * Texts that sign a policy, whatever they say: the input is signed first. */
#include <openssl/ec.h>
#include <openssl/evp.h>
#include <string.h>

#include "base/check.h"
#include "base/cleanup.h"
#include "formats/policy_note.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
	static EVP_PKEY *key;
	static struct note_keys *keys;
	CLEANUP(buf_done) struct buf note = BUF_INIT(NOTE_MAX);
	CLEANUP(buf_done) struct buf again = BUF_INIT(NOTE_MAX);
	struct policy_note first, second;

	if (key == NULL) {
		key = EVP_EC_gen("P-256");
		require(key != NULL);
		require(note_keys_new(NOTE_POLICY, &keys, NULL) == CEDE_OK);
		require(note_keys_add(keys, key, NULL) == CEDE_OK);
	}
	if (note_sign(NOTE_POLICY, slice_of(data, size), "fuzz", key, &note, NULL) < 0 ||
		policy_note_verify(keys, buf_slice(&note), &first, NULL, NULL) < 0)
		return 0;
	/* what was read can be written, and says the same */
	require(policy_note_sign(&first, "fuzz", key, &again, NULL) == CEDE_OK);
	require(policy_note_verify(keys, buf_slice(&again), &second, NULL, NULL) == CEDE_OK);
	require(strcmp(first.id, second.id) == 0 && first.serial == second.serial &&
		first.file_count == second.file_count &&
		memcmp(first.sha256, second.sha256, sizeof first.sha256) == 0);
	for (size_t i = 0; i < first.file_count; i++)
		require(strcmp(first.files[i].name, second.files[i].name) == 0 &&
			memcmp(first.files[i].sha256, second.files[i].sha256, 32) == 0);
	policy_note_done(&first);
	policy_note_done(&second);
	return 0;
}
