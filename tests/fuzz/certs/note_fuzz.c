/* SPDX-License-Identifier: Apache-2.0 */
#include <openssl/bio.h>
#include <openssl/evp.h>
#include <openssl/pem.h>

#include "base/check.h"
#include "base/cleanup.h"
#include "certs/key.h"
#include "certs/note.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Of the key that signed the good notes of the corpus. */
static const char public_key[] = "-----BEGIN PUBLIC KEY-----\n"
				 "MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAERLydoPT4CskmfkOjDyoZeZ/YtJq4\n"
				 "RT88JbGm8mjAAISgRKWc6W5Lee1F+mPfbXMBAUTLPhAGsfV0NrdwU0glZA==\n"
				 "-----END PUBLIC KEY-----\n";

static struct note_keys *make_keys(void) {
	struct note_keys *keys = NULL;
	BIO *bio = BIO_new_mem_buf(public_key, -1);
	CLEANUP(key_freep) EVP_PKEY *key = PEM_read_bio_PUBKEY(bio, NULL, NULL, NULL);

	BIO_free(bio);
	require(key != NULL);
	require(note_keys_new(NOTE_RECEIPT, &keys, NULL) == CEDE_OK);
	require(note_keys_add(keys, key, NULL) == CEDE_OK);
	return keys;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
	static struct note_keys *keys;
	struct slice text;
	uint8_t signer[32];

	if (keys == NULL)
		keys = make_keys();
	if (note_verify(keys, slice_of(data, size), &text, signer, NULL) < 0)
		return 0;
	require(text.data == data && text.len < size);
	require(slice_starts(text, "cede-receipt/1\n") && text.data[text.len - 1] == '\n');
	return 0;
}
