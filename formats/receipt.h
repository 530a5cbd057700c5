/* SPDX-License-Identifier: Apache-2.0
 * The receipt: the agency's signed statement that it holds a bundle durably. A signed note
 * (certs/note.h) over
 *     cede-receipt/1
 *     bundle: <bundle id>
 *     host: <host id>
 *     size: <bytes of the sealed bundle>
 *     sha256: <64 hexadecimal digits, of the sealed bundle>
 *     received: <RFC 3339, UTC>
 *     checkpoint: <number of events> <base64 of the root>
 * exactly these lines in this order; the last one only if the agency has a checkpoint of the host's
 * ledger (formats/checkpoint.h): the newest it had when it signed. */
#pragma once

#include <openssl/types.h>
#include <stdint.h>

#include "certs/note.h"
#include "formats/id.h"

#define RECEIPT_MAX 8192 /* bytes of a whole note */

struct receipt {
	struct id bundle;
	char host[HOST_ID_MAX + 1];
	uint64_t size;
	uint8_t sha256[32];
	int64_t received_ns;
	uint64_t checkpoint_size; /* 0: none */
	uint8_t checkpoint_root[32];
};

/* Appends the signed note to out. signer: the name in the signature line. */
CEDE_MUST_USE int receipt_sign(const struct receipt *receipt, const char *signer, EVP_PKEY *key,
	struct buf *out, struct cede_error *reterr);
/* Signature first, then the text. Says nothing about which bundle it should be for: the caller
 * compares (agent/confirm). */
CEDE_MUST_USE int receipt_verify(const struct note_keys *keys, struct slice note,
	struct receipt *ret, struct cede_error *reterr);
