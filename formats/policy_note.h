/* SPDX-License-Identifier: Apache-2.0
 * The policy's signature, policy.yaml.sig: the agency's signed statement of which policy is in force
 * and which keys it means. A signed note (certs/note.h) over
 *     cede-policy/1
 *     id: <policy id>
 *     serial: <number>
 *     expires: <RFC 3339, UTC>
 *     sha256: <64 hexadecimal digits, of policy.yaml>
 *     file: <64 hexadecimal digits> <name as the policy writes it>
 * with one file line for each file that the policy names, in the order in which it names them.
 *
 * Controlled by whoever can write beside the policy: parsed strictly, signature first.
 * Thread  any. */
#pragma once

#include <openssl/types.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "certs/note.h"

#define POLICY_NOTE_FILES_MAX 128
#define POLICY_NOTE_ID_MAX    64
#define POLICY_NOTE_NAME_MAX  959 /* STATEMENT_VALUE_MAX without the digest and its space */

struct policy_note_file {
	uint8_t sha256[32];
	char *name;
};

struct policy_note {
	char id[POLICY_NOTE_ID_MAX + 1];
	uint64_t serial;
	int64_t expires_ns;
	uint8_t sha256[32];
	struct policy_note_file *files;
	size_t file_count;
};

/* Whether a file of this name can stand in the note. */
bool policy_note_name_valid(const char *name);
/* Appends the signed note to out. INPUT: a file name that is not printable ASCII; too many files. */
CEDE_MUST_USE int policy_note_sign(const struct policy_note *policy, const char *signer,
	EVP_PKEY *key, struct buf *out, struct cede_error *reterr);
/* Signature first, then the text; ret_signer (may be NULL) is the digest of the key that signed. */
CEDE_MUST_USE int policy_note_verify(const struct note_keys *keys, struct slice note,
	struct policy_note *ret, uint8_t ret_signer[32], struct cede_error *reterr);
void policy_note_done(struct policy_note *policy);
