/* SPDX-License-Identifier: Apache-2.0
 * Signed notes: a text, an empty line, signature lines (C2SP signed-note). Signatures are ECDSA
 * P-256 with SHA-256 over the text, type 0x02; the key id is the first four bytes of SHA-256 of the
 * DER SubjectPublicKeyInfo:
 *     "— <name> <base64(4 bytes key id || DER ECDSA-Sig-Value)>\n"
 * By hand: cut the text, base64 -d the signature, tail -c +5, openssl dgst -sha256 -verify.
 *
 * A key is bound to one role, and a role to one statement type: the first line of the text, e.g.
 * "cede-receipt/1"; of a checkpoint, as C2SP tlog-checkpoint has it, the type, '/' and the host
 * whose log it is. note_verify() refuses any other type whoever signed it. */
#pragma once

#include <openssl/types.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/error.h"

#define NOTE_MAX            65536
#define NOTE_SIGNATURES_MAX 16

enum note_role { NOTE_RECEIPT, NOTE_POLICY, NOTE_CHECKPOINT, NOTE_WIPE_CERTIFICATE };

/* "cede-receipt/1", "cede-policy/1", "cede-checkpoint/1", "cede-wipe-certificate/1" */
const char *note_role_type(enum note_role role);

struct note_keys; /* public keys of one role */
CEDE_MUST_USE int note_keys_new(
	enum note_role role, struct note_keys **ret, struct cede_error *reterr);
/* Adds a reference to key. */
CEDE_MUST_USE int note_keys_add(struct note_keys *keys, EVP_PKEY *key, struct cede_error *reterr);
void note_keys_free(struct note_keys *keys);

/* Of a signer: 1 to 128 printable ASCII characters, no space, no '+'. */
bool note_name_valid(const char *name);

/* Appends text + empty line + one signature line to out. text must end with LF, contain no empty
 * line, and its first line must be the role's type. name: no spaces, no '+'. */
CEDE_MUST_USE int note_sign(enum note_role role, struct slice text, const char *name, EVP_PKEY *key,
	struct buf *out, struct cede_error *reterr);
/* Parses strictly and verifies. At least one signature must verify under keys; unknown key ids are
 * passed over; a known key id whose signature does not verify is REFUSED outright. *ret_text points
 * into note; ret_signer (may be NULL) is the digest of the key that signed. INPUT: malformed.
 * REFUSED: type, no known signer, bad signature. */
CEDE_MUST_USE int note_verify(const struct note_keys *keys, struct slice note,
	struct slice *ret_text, uint8_t *ret_signer /* 32 or NULL */, struct cede_error *reterr);
