/* SPDX-License-Identifier: Apache-2.0
 * What the details of ledger events are made of: "key=value key=value", printable ASCII. In values
 * all but letters, digits and !#$&'()*+,-./:;<=>?@[]^_`{|}~ is %xx. docs/ledger.md has every kind's
 * keys. The agent writes them; the agency's tools read them from what a host exported, which may be
 * anything.
 *
 * Thread  any. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/bytes.h"
#include "base/error.h"

/* Appends "key=value", behind a space unless it is the first. */
CEDE_MUST_USE int detail_add(
	struct buf *detail, const char *key, struct slice value, struct cede_error *reterr);
CEDE_MUST_USE int detail_add_i64(
	struct buf *detail, const char *key, int64_t value, struct cede_error *reterr);
/* The first value of this key, still encoded. */
bool detail_find(struct slice detail, const char *key, struct slice *ret);
/* Appends the decoded value. INPUT: not what detail_add() writes. */
CEDE_MUST_USE int detail_decode(struct slice value, struct buf *out, struct cede_error *reterr);
/* INPUT: not there, or no number. */
CEDE_MUST_USE int detail_u64(
	struct slice detail, const char *key, uint64_t *ret, struct cede_error *reterr);
CEDE_MUST_USE int detail_i64(
	struct slice detail, const char *key, int64_t *ret, struct cede_error *reterr);

/* Lists of rows: "3,7-12,40". Appends one; detail_rows_end() ends the last range. Starts as {0}. */
struct detail_rows {
	uint64_t from, to;
	bool any, more;
};

CEDE_MUST_USE int detail_rows_add(
	struct detail_rows *rows, struct buf *out, uint64_t row, struct cede_error *reterr);
CEDE_MUST_USE int detail_rows_end(
	struct detail_rows *rows, struct buf *out, struct cede_error *reterr);
/* Takes the first range off *rest, which must not be empty. INPUT: no list. */
CEDE_MUST_USE int detail_rows_next(
	struct slice *rest, uint64_t *ret_from, uint64_t *ret_to, struct cede_error *reterr);

/* Lists of captures in a bundle: "17:<base64 of its SHA-256>,18:...". */
CEDE_MUST_USE int detail_member_add(
	struct buf *out, uint64_t row, const uint8_t sha256[32], struct cede_error *reterr);
CEDE_MUST_USE int detail_member_next(
	struct slice *rest, uint64_t *ret_row, uint8_t ret_sha256[32], struct cede_error *reterr);
