/* SPDX-License-Identifier: Apache-2.0
 * The Repr-Digest field (RFC 9530 section 3): a dictionary of structured fields (RFC 8941); cede
 * writes one member "sha-256=:<base64>:" and reads just that. */
#pragma once

#include <stdint.h>

#include "base/bytes.h"
#include "base/error.h"

#define DIGEST_FIELD_SIZE 64

void digest_field_print(const uint8_t sha256[32], char out[DIGEST_FIELD_SIZE]);
/* Strict: this one member, spaces around allowed, other algorithms in the list are passed over.
 * INPUT: no sha-256, twice, or not 32 bytes. */
CEDE_MUST_USE int digest_field_parse(
	struct slice field, uint8_t ret_sha256[32], struct cede_error *reterr);
