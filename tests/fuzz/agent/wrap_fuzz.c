/* SPDX-License-Identifier: Apache-2.0
 * The sealed key of an epoch, whatever stands in the file: it opens only as it was sealed. The
 * first 16 bytes are the name that it is asked for, the rest is the file. */
#include <string.h>

#include "agent/vault/wrap.h"
#include "base/check.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
	static const uint8_t secret[WRAP_SECRET_LEAST] = "thirty-two bytes of no secrecy.";
	uint8_t key[FSCRYPT_KEY_SIZE] = {0};
	const uint8_t untouched[FSCRYPT_KEY_SIZE] = {0};
	struct fscrypt_id id = {{0}};
	struct cede_error err = {0};

	if (size < sizeof id.bytes)
		return 0;
	memcpy(id.bytes, data, sizeof id.bytes);
	int r = wrap_unseal(slice_of(data + sizeof id.bytes, size - sizeof id.bytes),
		slice_of(secret, sizeof secret), &id, key, &err);
	require(r == CEDE_OK || r == CEDE_ERR_INPUT);
	require(r == CEDE_OK || memcmp(key, untouched, sizeof key) == 0);
	return 0;
}
