/* SPDX-License-Identifier: Apache-2.0
 * What the files of the ledger share: store.c opens it, event.c chains, capture.c and bundle.c
 * move, query.c reads. One thread at a time. */
#pragma once

#include <openssl/types.h>
#include <sqlite3.h>

#include "agent/ledger/ledger.h"
#include "base/buf.h"
#include "formats/detail.h"
#include "formats/merkle.h"

/* Kinds of ledger_watch_events(), part of an index: they never change; exposure.c asserts them. */
#define LEDGER_WATCH_KINDS "0, 1, 16, 17, 22, 23, 25, 32, 33, 34, 35"
/* The same of ledger_refusals(). */
#define LEDGER_REFUSAL_KINDS "6, 38"

/* Every statement of the ledger: prepared on first use, kept until it is closed. */
enum statement {
	ST_BEGIN,
	ST_COMMIT,
	ST_EVENT_ADD,
	ST_EVENT_LAST,
	ST_EVENT_TIME,
	ST_EVENT_LIFE,
	ST_SOURCE_ADD,
	ST_SOURCE_FIND,
	ST_CAPTURE_LIVE,
	ST_CAPTURE_ADD,
	ST_CAPTURE_AGAIN,
	ST_CAPTURE_STATE,
	ST_CAPTURE_RESET,
	ST_CAPTURE_OVER,
	ST_CAPTURE_END,
	ST_CAPTURE_ENDED,

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
	ST_CAPTURE_AT,
	ST_WIPING,
	ST_UNTOUCHED,
	ST_TOUCHED,
	ST_WIPING_SEGMENTS,
	ST_PROVEN,
	ST_SEGMENT_ADD,
	ST_SEGMENTS_SET,
	ST_SEGMENTS_OF,
	ST_SEGMENT_DIGESTS,
	ST_SEGMENTS_DIGEST,
	ST_SEGMENT_BUNDLE,
	ST_ABANDON_SEGMENTS,
	ST_ABANDON,
	ST_ABANDON_TO,
	ST_FREE,
	ST_SEALED_DETAIL,
	ST_MEMBERS,
	ST_ABANDON_PARTS,
	ST_UNDONE,
	ST_SIBLING,
	ST_LEVELS,

	ST_RECOVER,
	ST_RECEIPT,
	ST_COUNT_CAPTURES,
	ST_COUNT_BUNDLES,
	ST_COUNT_RECEIPTED,
	ST_OLDEST,
	ST_BORN_BY,
	ST_KEPT,
	ST_SETTLING_OF,
	ST_PLACE_FIND,
	ST_PLACE_SET,
	ST_DEVICE_SET,
	ST_OTHER_DEVICE,
	ST_EPOCH_ADD,
	ST_EPOCH_STATE,
	ST_EPOCHS,
	ST_LIVE_COUNT,
	ST_LIVE_ANY,
	ST_LIVE_OF,
	ST_PENDING_OF,
	ST_PENDING_ANY,
	ST_WHICH_NAMED,
	ST_WHICH_INODE,
	ST_POLICY_ADD,
	ST_POLICY_HIGHEST,
	ST_POLICY_LAST,
	ST_UNDECIDE,
	ST_EVENTS,
	ST_EXPOSED_PLAIN,
	ST_EXPOSED_SEALED,
	ST_WATCH_EVENTS,
	ST_REFUSALS,
	ST_SOURCES,
	ST_NEVER_PRUNED,
	ST_PRUNINGS,
	ST_LOST_SEALED,
	ST_LAST_TIME,
	ST_HASHES,
	ST_TREE_GET,
	ST_TREE_ADD,
	ST_CHECKPOINT_ADD,
	ST_CHECKPOINTS,
	ST_ACK_GET,
	ST_ACK_SET,
	ST_KEY_GET,
	ST_KEY_SET,
	ST_OLDEST_ROW,
	ST_BUNDLE_OF_ID,
	ST_TALLY,
	ST_TALLY_OLDEST,
	ST_SIGNED_NS,
	ST_ACKNOWLEDGED_NS,
	ST_OVERVIEW_CAPTURES,
	ST_OVERVIEW_BUNDLES,
	ST_OVERVIEW_POLICY,
	ST_COUNT,
};

struct tally; /* tally.h */

/* What was wiped of one bundle at one time with one result: becomes one event before the next other
 * one, or with the commit. */
struct wiped_group {
	bool any;
	struct id bundle;
	int64_t bundle_row;
	int64_t at_ns;
	char level[64];
	char reason[512];
	struct detail_rows rows;
	struct buf list;
};

/* Who signs checkpoints, and the newest one. */
struct ledger_signer {
	char host[HOST_ID_MAX + 1];
	EVP_PKEY *key; /* NULL: nobody */
	struct buf key_der;
	struct buf note;
	uint64_t note_size; /* events that it covers; 0: none */
};

#define LEDGER_DETAIL_MAX (1U << 20) /* bytes of an event's detail: the largest bundle's captures */

struct ledger {
	sqlite3 *db;
	sqlite3_stmt *statements[ST_COUNT];
	struct merkle_hasher hasher;
	int lock_fd; /* held by the writer */
	uint64_t sequence;
	uint8_t hash[32];
	uint64_t committed_sequence; /* what a rollback goes back to */
	uint8_t committed_hash[32];
	struct merkle_edge edge, committed_edge; /* writer only */
	struct ledger_signer signer;
	struct buf last_source; /* the name asked for last, and its row; 0: none */
	int64_t last_source_id;
	struct ledger_remount remounted;
	struct tally *tally; /* NULL in a reader */
	struct wiped_group wiped;
	struct buf detail; /* of the event that is being made */
};

CEDE_MUST_USE int ledger_fail(struct ledger *l, const char *what, struct cede_error *reterr);
/* Before the writer closes: leaves no names in the blocks that SQLite is about to free (wal.c). */
void ledger_scrub_wal(struct ledger *l);
/* Lends the statement, reset and unbound. */
CEDE_MUST_USE int ledger_use(
	struct ledger *l, enum statement which, sqlite3_stmt **ret, struct cede_error *reterr);
/* The same for a statement whose first parameter is the source. *ret: NULL if no row has it. */
CEDE_MUST_USE int ledger_use_of(struct ledger *l, enum statement which, struct slice source,
	sqlite3_stmt **ret, struct cede_error *reterr);
/* Runs a statement that gives no rows. */
CEDE_MUST_USE int ledger_run(struct ledger *l, sqlite3_stmt *st, struct cede_error *reterr);
void ledger_finalizep(sqlite3_stmt **st); /* for CLEANUP() */
/* One row or none. */
CEDE_MUST_USE int ledger_row(
	struct ledger *l, sqlite3_stmt *st, bool *ret_there, struct cede_error *reterr);
/* SHA-256 of the event's canonical bytes behind the hash before it (docs/design.md, "ledger"). */
CEDE_MUST_USE int ledger_event_hash(struct ledger *l, const uint8_t previous[32], uint64_t sequence,
	int64_t at_ns, int kind, struct slice subject, struct slice detail, uint8_t ret[32],
	struct cede_error *reterr);
/* ---- tree.c */
/* The edge of the tree over the events that are there. */
CEDE_MUST_USE int ledger_tree_load(struct ledger *l, struct cede_error *reterr);
/* Makes the stored nodes of a ledger that had none. */
CEDE_MUST_USE int ledger_tree_build(struct ledger *l, struct cede_error *reterr);
CEDE_MUST_USE int ledger_tree_add(
	struct ledger *l, const uint8_t hash[32], struct cede_error *reterr);
/* merkle_get_fn; ctx is the ledger. */
CEDE_MUST_USE int ledger_tree_get(
	void *ctx, unsigned height, uint64_t index, uint8_t ret[32], struct cede_error *reterr);
void ledger_signer_done(struct ledger_signer *signer);

/* The event whose detail is l->detail. */
CEDE_MUST_USE int ledger_event_detail(struct ledger *l, enum ledger_event kind,
	const struct id *subject, int64_t now_ns, struct cede_error *reterr);
/* The event of the captures that were wiped together, if there are any. */
CEDE_MUST_USE int ledger_flush_wiped(struct ledger *l, struct cede_error *reterr);
CEDE_MUST_USE int ledger_source(
	struct ledger *l, struct slice name, bool add, int64_t *ret_id, struct cede_error *reterr);
CEDE_MUST_USE int ledger_bundle_id(
	struct ledger *l, int64_t row, struct id *ret, struct cede_error *reterr);
/* Reads the columns of CAPTURE_COLUMNS from the first on. */
void ledger_read_capture(sqlite3_stmt *st, struct ledger_capture *ret);
/* Moves a capture, checking core/capture.h's table. */
/* A capture is over: receipted bundles that hold segments of it are done if nothing else is open. */
CEDE_MUST_USE int ledger_segments_over(
	struct ledger *l, int64_t row, int64_t now_ns, struct cede_error *reterr);
/* The state it has is known; CAPTURE_STATE_COUNT: there is no such row. */
CEDE_MUST_USE int ledger_move_from(struct ledger *l, int64_t row, enum capture_state from,
	enum capture_state to, int64_t not_before_ns, struct cede_error *reterr);
CEDE_MUST_USE int ledger_move(struct ledger *l, int64_t row, enum capture_state to,
	int64_t not_before_ns, struct id *ret_id, struct cede_error *reterr);

/* Whether it was found REPLACED or GONE (which may happen while it is being read and sealed). */
CEDE_MUST_USE int ledger_is_over(
	struct ledger *l, int64_t row, struct id *ret_id, bool *ret, struct cede_error *reterr);

/* Steps a statement that gives captures and calls fn for each; LEDGER_ENOUGH from fn ends it. */
#define LEDGER_ENOUGH 1
CEDE_MUST_USE int ledger_each(struct ledger *l, sqlite3_stmt *st, ledger_capture_fn *fn, void *ctx,
	struct cede_error *reterr);

/* The row without its destination (which lives only as long as the statement). BUG: there is none. */
CEDE_MUST_USE int ledger_bundle_get(
	struct ledger *l, int64_t row, struct ledger_bundle *ret, struct cede_error *reterr);

#define LEDGER_TRY_BIND(l, call, reterr)                                   \
	do {                                                               \
		if ((call) != SQLITE_OK)                                   \
			return ledger_fail((l), "bind a value", (reterr)); \
	} while (0)
