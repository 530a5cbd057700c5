/* SPDX-License-Identifier: Apache-2.0
 * What a purge did, counted and listed: counts by outcome, level and reason for the certificate, and
 * a file of details (JSON Lines, docs/wiping.md "cede purge") whose digest the certificate carries.
 *
 * Promise no name of a capture goes in (I9): captures are told by id, other files by source and size.
 * Thread  one. */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "agent/wipe/wipe.h"
#include "base/error.h"
#include "formats/id.h"

#define TALLY_ROWS 96 /* different (what, level, reason); more go into the last one */

enum tally_what {
	TALLY_UNSENT,     /* captures that the agency does not have: destroyed, or kept */
	TALLY_HELD,       /* under a legal hold; the agency has them */
	TALLY_WIPING,     /* proven captures whose wipe had not ended */
	TALLY_OTHER_FILE, /* below a source and no capture */
	TALLY_BUNDLE,     /* sealed bundles without a receipt, in the spool */
	TALLY_STATE_FILE,
	TALLY_KEY,
	TALLY_VAULT_KEY, /* of an epoch, in the kernel */
	TALLY_WHAT_COUNT
};

/* "unsent-capture" "held-capture" "proven-capture" "other-file" "unsent-bundle" "state-file"
 * "identity-key" "vault-key" */
const char *tally_what_name(enum tally_what what);

struct tally_row {
	enum tally_what what;
	char level[32];                 /* wipe_level_name(), or "remains" */
	char reason[WIPE_REASONS_SIZE]; /* of a wipe: several, with commas */
	uint64_t count;
};

struct tally {
	struct tally_row rows[TALLY_ROWS];
	size_t row_count;
	uint64_t remains;
	FILE *details;
	struct tally_digest *digest;
};

/* The file of details, new, borrowed. */
CEDE_MUST_USE int tally_open(int details_fd, struct tally *ret, struct cede_error *reterr);
/* id: of the capture or bundle, or NULL. level "remains": it is still there, reason says why. */
CEDE_MUST_USE int tally_add(struct tally *t, enum tally_what what, const struct id *id,
	const char *source, uint64_t size, const char *level, const char *reason,
	struct cede_error *reterr);
/* The same from a wipe's outcome. */
CEDE_MUST_USE int tally_wiped(struct tally *t, enum tally_what what, const struct id *id,
	const char *source, const struct wipe_item *item, struct cede_error *reterr);
/* How many of it do not remain. */
uint64_t tally_gone(const struct tally *t, enum tally_what what);
/* What was told so far is in the file. */
CEDE_MUST_USE int tally_flush(struct tally *t, struct cede_error *reterr);
/* Ends the file, durable; the digest of all of it. */
CEDE_MUST_USE int tally_close(struct tally *t, uint8_t ret_sha256[32], struct cede_error *reterr);
void tally_done(struct tally *t);
