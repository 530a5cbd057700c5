/* SPDX-License-Identifier: Apache-2.0
 * Checkpoints of a host's ledger: how many events there are, and the root of the Merkle tree over
 * their hashes, signed with the host's ledger key. A signed note (certs/note.h) in the manner of C2SP
 * tlog-checkpoint:
 *     cede-checkpoint/1/<host id>
 *     <number of events>
 *     <base64 of the root>
 *     time <RFC 3339, UTC>
 * and how one travels with a push: the header field
 *     Cede-Checkpoint: note=<base64>; key=<base64 of the public key>[; from=<number>; proof=<base64>]
 * where the proof (formats/merkle.h) shows that it extends the checkpoint of `from` events.
 *
 * Hostile peer  the receiver reads these from a host that may be anybody's by now. Thread  any. */
#pragma once

#include <openssl/types.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"
#include "certs/note.h"
#include "formats/id.h"
#include "formats/merkle.h"

#define CHECKPOINT_MAX       2048 /* bytes of a note */
#define CHECKPOINT_FIELD     "Cede-Checkpoint"
#define CHECKPOINT_FIELD_MAX 7000 /* bytes of its value */
#define CHECKPOINT_KEY_MAX   200  /* bytes of a public key */

struct checkpoint {
	char host[HOST_ID_MAX + 1];
	uint64_t size; /* events */
	uint8_t root[32];
	int64_t at_ns;
};

/* Appends the signed note to out. */
CEDE_MUST_USE int checkpoint_sign(const struct checkpoint *checkpoint, EVP_PKEY *key,
	struct buf *out, struct cede_error *reterr);
/* Signature first, then the text. keys: of role NOTE_CHECKPOINT. */
CEDE_MUST_USE int checkpoint_verify(const struct note_keys *keys, struct slice note,
	struct checkpoint *ret, struct cede_error *reterr);
/* DER SubjectPublicKeyInfo -> EC P-256, as the role's only key. */
CEDE_MUST_USE int checkpoint_keys(
	struct slice der, struct note_keys **ret, struct cede_error *reterr);
/* Cuts the first note off a row of notes (each ends with its last signature line; an empty line
 * may follow). False: there is none. */
bool checkpoint_next(struct slice *rest, struct slice *ret_note);

struct checkpoint_field {
	struct buf note;
	struct buf key;
	uint64_t from; /* 0: no proof */
	struct merkle_proof proof;
};

CEDE_MUST_USE int checkpoint_field_write(struct slice note, struct slice key, uint64_t from,
	const struct merkle_proof *proof, struct buf *out, struct cede_error *reterr);
/* Exactly that form. INPUT. */
CEDE_MUST_USE int checkpoint_field_read(
	struct slice value, struct checkpoint_field *ret, struct cede_error *reterr);
void checkpoint_field_done(struct checkpoint_field *field);
