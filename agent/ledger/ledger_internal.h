/* SPDX-License-Identifier: Apache-2.0
 * What the files of the ledger share: store.c opens it, event.c chains, capture.c and bundle.c
 * move, query.c reads. One thread at a time. */
#pragma once

#include <openssl/types.h>
#include <sqlite3.h>

#include "agent/ledger/ledger.h"

/* Every statement of the ledger: prepared on first use, kept until it is closed. */
enum statement {
	ST_BEGIN,
	ST_COMMIT,
	ST_EVENT_ADD,
	ST_EVENT_LAST,
	ST_SOURCE_ADD,
	ST_SOURCE_FIND,
	ST_CAPTURE_LIVE,
	ST_CAPTURE_ADD,
	ST_CAPTURE_AGAIN,
	ST_CAPTURE_STATE,
	ST_CAPTURE_RESET,
	ST_CAPTURE_OVER,
	ST_CAPTURE_END,
	ST_CAPTURE_PARTS,
	ST_CAPTURE_ROW,
	ST_CAPTURE_SEALED,
	ST_CAPTURE_WIPED,
	ST_TAKE,
	ST_TAKE_GROUP,
	ST_NEXT_DEADLINE,
	ST_NEXT_TIME,
	ST_BUNDLE_ADD,
	ST_BUNDLE_ROW,
	ST_BUNDLE_STATE,
	ST_BUNDLE_RECEIPT,
	ST_BUNDLE_SPOOLED,
	ST_BUNDLES,
	ST_BUNDLE_CAPTURES,
	ST_CAPTURES,
	ST_WIPING,
	ST_WIPING_SEGMENTS,
	ST_SEGMENT_ADD,
	ST_SEGMENTS_SET,
	ST_SEGMENTS_OF,
	ST_ABANDON_SEGMENTS,
	ST_ABANDON,
	ST_ABANDON_PARTS,
	ST_UNDONE,
	ST_SIBLING,
	ST_LEVELS,
	ST_RECOVER_PARTS,
	ST_RECOVER,
	ST_RECEIPT,
	ST_COUNT_CAPTURES,
	ST_COUNT_BUNDLES,
	ST_OLDEST,
	ST_PAST_DEADLINE,
	ST_SETTLING_OF,
	ST_POLICY_ADD,
	ST_POLICY_HIGHEST,
	ST_POLICY_LAST,
	ST_UNDECIDE,
	ST_EVENTS,
	ST_COUNT,
};

struct ledger {
	sqlite3 *db;
	sqlite3_stmt *statements[ST_COUNT];
	EVP_MD *sha256; /* fetched once: each look-up by name takes a lock */
	EVP_MD_CTX *md;
	int lock_fd; /* held by the writer */
	uint64_t sequence;
	uint8_t hash[32];
	uint64_t committed_sequence; /* what a rollback goes back to */
	uint8_t committed_hash[32];
	struct buf last_source; /* the name asked for last, and its row; 0: none */
	int64_t last_source_id;
};

CEDE_MUST_USE int ledger_fail(struct ledger *l, const char *what, struct cede_error *reterr);
/* Lends the statement, reset and unbound. */
CEDE_MUST_USE int ledger_use(
	struct ledger *l, enum statement which, sqlite3_stmt **ret, struct cede_error *reterr);
/* Runs a statement that gives no rows. */
CEDE_MUST_USE int ledger_run(struct ledger *l, sqlite3_stmt *st, struct cede_error *reterr);
/* One row or none. */
CEDE_MUST_USE int ledger_row(
	struct ledger *l, sqlite3_stmt *st, bool *ret_there, struct cede_error *reterr);
/* SHA-256 of the event's canonical bytes behind the hash before it (docs/design.md, "ledger"). */
CEDE_MUST_USE int ledger_event_hash(struct ledger *l, const uint8_t previous[32], uint64_t sequence,
	int64_t at_ns, int kind, struct slice subject, struct slice detail, uint8_t ret[32],
	struct cede_error *reterr);
CEDE_MUST_USE int ledger_source(
	struct ledger *l, struct slice name, bool add, int64_t *ret_id, struct cede_error *reterr);
/* Reads the columns of CAPTURE_COLUMNS from the first on. */
void ledger_read_capture(sqlite3_stmt *st, struct ledger_capture *ret);
/* Moves a capture, checking core/capture.h's table. */
CEDE_MUST_USE int ledger_move(struct ledger *l, int64_t row, enum capture_state to,
	int64_t not_before_ns, struct id *ret_id, struct cede_error *reterr);

/* Whether it was found REPLACED or GONE (which may happen while it is being read and sealed). */
CEDE_MUST_USE int ledger_is_over(struct ledger *l, int64_t row, bool *ret, struct cede_error *reterr);

/* Steps a statement that gives captures and calls fn for each; LEDGER_ENOUGH from fn ends it. */
#define LEDGER_ENOUGH 1
CEDE_MUST_USE int ledger_each(struct ledger *l, sqlite3_stmt *st, ledger_capture_fn *fn, void *ctx,
	struct cede_error *reterr);

#define LEDGER_TRY_BIND(l, call, reterr)                                   \
	do {                                                               \
		if ((call) != SQLITE_OK)                                   \
			return ledger_fail((l), "bind a value", (reterr)); \
	} while (0)
