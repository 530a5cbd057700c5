/* SPDX-License-Identifier: Apache-2.0
 * Opening what seal.h sealed: the agency's tool only; never linked into the agent.
 *
 * Checks the structure before decrypting: AuthEnvelopedData, AES-256-GCM, 12 byte nonce, 16 byte
 * tag. Nothing of the plaintext is left in out_fd unless the tag was right. */
#pragma once

#include <openssl/types.h>

#include "base/error.h"

CEDE_MUST_USE int seal_open(int sealed_fd, EVP_PKEY *key, X509 *cert,
	int out_fd /* empty regular file or memory file */, struct cede_error *reterr);
