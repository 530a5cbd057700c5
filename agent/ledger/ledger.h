/* SPDX-License-Identifier: Apache-2.0
 * The custody ledger: what became of each capture and bundle, and an event chain in which each row
 * carries the hash of the one before it.
 *
 * Owns    <state>/ledger.db (SQLite, WAL, synchronous=FULL, STRICT tables); nobody else writes it.
 * Promise after ledger_commit() returned 0 all that was recorded since ledger_begin() is on the disk
 *         (I8). Events never change. Moves that are not in core/capture.h's table are BUG.
 * Thread  a struct ledger belongs to one thread at a time (agent/ledger/writer.h owns it in cede run).
 * Fails   IO (nothing of this transaction was recorded: roll back, try again), INPUT (damaged: stop,
 *         wipe nothing), REFUSED (newer schema), BUG. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "agent/core/capture.h"
#include "base/bytes.h"
#include "base/error.h"
#include "base/file.h"
#include "formats/id.h"

#define LEDGER_NAME "ledger.db"

#define LEDGER_KEY_NAME "ledger.key"

struct ledger;
struct buf;

/* Opens or creates it, integrity-checks it after an unclean stop, migrates older schemas. */
CEDE_MUST_USE int ledger_open(const char *state_dir, struct ledger **ret, struct cede_error *reterr);
/* For commands: read only, never checkpoints, works while the agent runs and while it does not. */
CEDE_MUST_USE int ledger_open_reader(
	const char *state_dir, struct ledger **ret, struct cede_error *reterr);
/* For commands: what a call for the ledger returned, with INPUT (damaged) as IO, so that a ledger
 * that can't be read is not taken for bad usage. */
int ledger_unreadable(int code);
void ledger_close(struct ledger *ledger); /* NULL allowed */
void ledger_closep(struct ledger **ledger);

/* For a reader: what it reads from here on is of one moment. Ends with it. */
CEDE_MUST_USE int ledger_read_begin(struct ledger *ledger, struct cede_error *reterr);
CEDE_MUST_USE int ledger_begin(struct ledger *ledger, struct cede_error *reterr);
CEDE_MUST_USE int ledger_commit(struct ledger *ledger, struct cede_error *reterr);
void ledger_rollback(struct ledger *ledger);

/* ---- events: kinds are stable identifiers; golden-tested */
#define LEDGER_EVENTS(X)                                                                           \
	X(AGENT_STARTED, "agent-started")     /* detail: version, policy id, serial, digest */     \
	X(AGENT_STOPPED, "agent-stopped")     /* clean stop */                                     \
	X(CAPTURE_SEEN, "capture-seen")       /* row, source, size, born ..., path */              \
	X(CAPTURE_CHANGED, "capture-changed") /* written again, or open while being read */        \
	X(CAPTURE_REPLACED, "capture-replaced")                                                    \
	X(CAPTURE_GONE, "capture-gone")                                                            \
	X(CAPTURE_REFUSED, "capture-refused") /* file that is never touched, with its reason */    \
	X(BUNDLE_SEALED, "bundle-sealed")     /* captures, size, digest, destination */            \
	X(BUNDLE_SPOOLED, "bundle-spooled")   /* sealed and durable on this host */                \
	X(BUNDLE_RECEIPTED, "bundle-receipted")                                                    \
	X(BUNDLE_ABANDONED, "bundle-abandoned")                                                    \
	X(RECEIPT_REFUSED, "receipt-refused")                                                      \
	X(BUNDLE_WIPING, "bundle-wiping")                                                          \
	X(CAPTURE_WIPED, "capture-wiped") /* level, reason */                                      \
	X(WIPE_FAILED, "wipe-failed")                                                              \
	X(BUNDLE_DONE, "bundle-done")                                                              \
	X(POLICY_LOADED, "policy-loaded")                                                          \
	X(WATCH_GAP, "watch-gap") /* events overflowed; a scan follows */                          \
	X(VIOLATION, "violation")                                                                  \
	X(CAPTURE_HELD, "capture-held")           /* proven, and kept under a legal hold */        \
	X(HOLD_LIFTED, "hold-lifted")             /* no hold covers it any more: is wiped */       \
	X(CAPTURE_DESTROYED, "capture-destroyed") /* max_age, the policy says destroy */           \
	X(SOURCE_MISSING, "source-missing")       /* its captures can't be reached */              \
	X(SOURCE_BACK, "source-back")                                                              \
	X(SOURCE_CHANGED, "source-changed")     /* another directory is at its path now */         \
	X(CLOCK_STEPPED, "clock-stepped")       /* the wall clock was set, by so many seconds */   \
	X(SOURCE_REMOUNTED, "source-remounted") /* its file system has another device number now */                                                                                                \
	X(CHECKPOINT, "checkpoint")             /* signed: sequence, hash, key */                  \
	X(KEY_CHANGED, "key-changed")           /* role, old and new key */                        \
	X(NAMES_SCRUBBED, "names-scrubbed")     /* a file system's journal was emptied of names */ \
	X(VAULT_TURNED, "vault-turned")         /* a new epoch's directory took the place */       \
	X(VAULT_ERASED, "vault-erased")         /* an epoch's key was destroyed */                 \
	X(GUARD_STARTED, "guard-started")       /* mode, marks */                                  \
	X(GUARD_LOST, "guard-lost")             /* from here on opens are not seen */              \
	X(GUARD_DENIED, "guard-denied")         /* pid, uid, executable, capture */                \
	X(GUARD_NOTED, "guard-noted")           /* the same, not denied: mode report */            \
	X(SANDBOX_WEAK, "sandbox-weak")         /* a layer that this host lacks */                 \
	X(PURGE_BEGUN, "purge-begun")                                                              \
	X(PURGE_DONE, "purge-done")           /* digest of the certificate */                      \
	X(CAPTURES_WIPED, "captures-wiped")   /* of one bundle, at one time: level, rows */        \
	X(SEGMENT_SEALED, "segment-sealed")   /* of a large capture: row, bundle, index, sha256 */ \
	X(LEDGER_PRUNED, "ledger-pruned")     /* events that were emptied: number, digest */       \
	X(LEDGER_MIGRATED, "ledger-migrated") /* from an older schema */                           \
	X(NAMES_STAY, "names-stay")     /* where a source lies no journal can be emptied; why */   \
	X(KEEP_ENDED, "keep-ended")     /* kept for its storage until now: is wiped */             \
	X(BUNDLE_FREED, "bundle-freed") /* lost, nobody can be asked: sealed anew without it */

enum ledger_event {

#define X(id, name) LEDGER_##id,
	LEDGER_EVENTS(X)
#undef X
		LEDGER_EVENT_COUNT
};

/* Of an event that was emptied (cede ledger prune): only its hash is there. */
#define LEDGER_PRUNED_KIND (-1)

const char *ledger_event_name(int kind); /* "?" for a number of another version */

/* subject: a capture or bundle id, or NULL. detail: "key=value key=value". Inside a transaction. */
CEDE_MUST_USE int ledger_event(struct ledger *ledger, enum ledger_event kind,
	const struct id *subject, int64_t now_ns, const char *detail, struct cede_error *reterr);
/* The agent was not there: from its clean stop on, or from the last event that it wrote, until now.
 * Nothing if there never was one. */
CEDE_MUST_USE int ledger_gap(struct ledger *ledger, int64_t now_ns, struct cede_error *reterr);
/* Newest event's sequence and hash (zero and zeros when empty), as of the last event call. */
void ledger_head(const struct ledger *ledger, uint64_t *ret_sequence, uint8_t ret_hash[32]);

/* ---- checkpoints (formats/checkpoint.h, docs/ledger.md) */

/* From now on checkpoints are signed, as this host, with the key in <state>/ledger.key, which is
 * made if there is none; its events are committed. REFUSED: the key there is not this ledger's. */
CEDE_MUST_USE int ledger_sign_as(struct ledger *ledger, const char *state_dir, const char *host,
	int64_t now_ns, struct cede_error *reterr);
/* The digest of the key in a role: an event if it is another than the last one. */
CEDE_MUST_USE int ledger_key_seen(struct ledger *ledger, const char *role, const uint8_t digest[32],
	int64_t now_ns, struct cede_error *reterr);
/* Signs for all events so far, those of this transaction too: give it away only after the commit.
 * note: the signed note; field: the same for a push to this destination, with the proof that it
 * extends what is known there. Both stay empty if nobody signs. */
CEDE_MUST_USE int ledger_checkpoint(struct ledger *ledger, struct slice destination, int64_t now_ns,
	struct buf *note, struct buf *field, struct cede_error *reterr);
/* The same for the ledger's own memory. with_event: says that the agent is alive, and the oldest
 * capture (its row; 0: none) that is in the clear. */
CEDE_MUST_USE int ledger_checkpoint_keep(
	struct ledger *ledger, bool with_event, int64_t now_ns, struct cede_error *reterr);
/* The agency says that this is the newest checkpoint it has. *ret_ours: this ledger begins with
 * what it has; false: it was rolled back or rewritten since (nothing is recorded). */
CEDE_MUST_USE int ledger_acknowledged(struct ledger *ledger, struct slice destination, uint64_t size,
	const uint8_t root[32], int64_t now_ns, bool *ret_ours, struct cede_error *reterr);

/* ---- captures */
struct ledger_capture { /* slices are borrowed for the call */
	int64_t row;
	struct id id;
	enum capture_state state;
	struct slice source;
	struct slice path;
	struct slice group;          /* stem, or empty */
	struct slice classification; /* or empty; not read back: it is in the event */
	struct file_identity identity;
	int64_t born_ns;
	int64_t first_seen_ns;
	int64_t deadline_ns;
	int64_t not_before_ns; /* READY: not before this; INT64_MAX: is destroyed at its age */
	uint8_t sha256[32];    /* from SEALED on; in segments: over their digests, in order */
	uint64_t segment_size;
	uint32_t segment_count; /* 1: whole; more: one row a capture, see ledger_segment_... */
	int64_t bundle_row;     /* 0: none */
};

#define LEDGER_UNTOUCHED (-1) /* as the time before which a capture in WIPING is not looked at */

/* Of one in WIPING: it is destroyed by the policy, and needs no proof. */
static inline bool ledger_is_destroyed(const struct ledger_capture *c) {
	return c->not_before_ns == INT64_MAX;
}

/* Of one in WIPING: the process that was to wipe it stopped in order, and had not touched it. */
static inline bool ledger_is_untouched(const struct ledger_capture *c) {
	return c->not_before_ns == LEDGER_UNTOUCHED;
}

enum ledger_seen { LEDGER_SEEN_NEW, LEDGER_SEEN_KNOWN, LEDGER_SEEN_UPDATED };

/* A complete file was found. NEW: a capture was recorded in READY (c->id must be set; *ret_row).
 * KNOWN: this very identity is live already (any state from READY to WIPING): nothing to do.
 * UPDATED: a row in SETTLING or READY under this name got the new identity and is READY (keeps id
 * and first_seen). If a row in BUNDLED, SEALED or WIPING, or one of which segments were sealed, has
 * the name with another identity, it is moved to REPLACED and the file becomes NEW. */
CEDE_MUST_USE int ledger_capture_seen(struct ledger *ledger, const struct ledger_capture *c,
	int64_t now_ns, enum ledger_seen *ret, int64_t *ret_row, struct cede_error *reterr);
/* The same for a name of which ledger_first_seen() just said 0: always NEW. */
CEDE_MUST_USE int ledger_capture_add(struct ledger *ledger, const struct ledger_capture *c,
	int64_t now_ns, int64_t *ret_row, struct cede_error *reterr);

/* Device numbers are given anew when a file system is mounted. When a file turns out to be a live
 * capture in all but its device, or the directory of a source one that was seen under another, what
 * is live of the source there gets the new number, with an event; this tells of the last one since
 * it was asked for. */
struct ledger_remount {
	bool happened;
	uint64_t from, to;
};

struct ledger_remount ledger_take_remount(struct ledger *ledger);
/* The directory of a source was opened. */
CEDE_MUST_USE int ledger_source_opened(struct ledger *ledger, struct slice source,
	const struct file_place *place, int64_t now_ns, struct cede_error *reterr);
/* Earliest first_seen of a live capture of this name, or 0. */
CEDE_MUST_USE int ledger_first_seen(struct ledger *ledger, struct slice source, struct slice path,
	int64_t *ret_ns, struct cede_error *reterr);

/* The live capture that a file is: by its name, or by its inode where it has another name now. An
 * empty source: only the latter. */
CEDE_MUST_USE int ledger_which(struct ledger *ledger, struct slice source, struct slice path,
	uint64_t dev, uint64_t ino, struct id *ret, bool *ret_there, struct cede_error *reterr);

/* Called for each row; a negative return ends the walk with that code, a positive one with 0. */
typedef int ledger_capture_fn(void *ctx, const struct ledger_capture *c, struct cede_error *reterr);

/* A capture is large if it would pass `bytes`, or goes in segments: it is taken alone. */
enum ledger_large {
	LARGE_FIRST,  /* taken if it is the first one */
	LARGE_ENDS,   /* not taken, and nothing behind it: there is company of another source */
	LARGE_PASSED, /* not taken; what is behind it is */
};

/* Takes READY captures of a source whose not_before has come, earliest deadline first, moves them
 * to BUNDLED and calls fn for each, until `captures` or `bytes` is reached. */
CEDE_MUST_USE int ledger_take(struct ledger *ledger, struct slice source, size_t captures,
	uint64_t bytes, enum ledger_large large, int64_t now_ns, ledger_capture_fn *fn, void *ctx,
	struct cede_error *reterr);
/* Earliest deadline among READY captures of the source whose not_before has come (INT64_MAX: none),
 * and the earliest not_before among the others. */
CEDE_MUST_USE int ledger_next(struct ledger *ledger, struct slice source, int64_t now_ns,
	int64_t *ret_deadline_ns, int64_t *ret_not_before_ns, struct cede_error *reterr);
/* BUNDLED or READY -> SETTLING, GONE, REPLACED, READY (with a new not_before); with its event if
 * there is a detail. Segments that were sealed of it stay. One that was found REPLACED or GONE
 * meanwhile stays so: nothing is done. */
CEDE_MUST_USE int ledger_capture_move(struct ledger *ledger, int64_t row, enum capture_state to,
	int64_t not_before_ns, int64_t now_ns, const char *detail, struct cede_error *reterr);
/* WIPING -> WIPED. alone: its bundle's last event does not tell of it, so it gets one. One whose
 * name was found to be another file's while it was being wiped stays REPLACED and gets its level
 * all the same. level: "overwritten-current" ... (agent/wipe/wipe.h). */
CEDE_MUST_USE int ledger_capture_wiped(struct ledger *ledger, int64_t row, const char *level,
	const char *reason, int64_t now_ns, bool alone, struct cede_error *reterr);

/* What was wiped turns out to be worth more, or its level is known only now; said like a wipe. */
CEDE_MUST_USE int ledger_capture_level(struct ledger *ledger, int64_t row, const char *level,
	const char *reason, int64_t now_ns, struct cede_error *reterr);

/* The file of a name is gone: a live capture of it that is READY or SETTLING becomes GONE; unless
 * dev is not 0 and the capture's is another: then its file system is only not there now. */
CEDE_MUST_USE int ledger_capture_absent(struct ledger *ledger, struct slice source, struct slice path,
	uint64_t dev, int64_t now_ns, bool *ret_was_there, struct cede_error *reterr);
/* WIPING -> HELD; detail names the hold. */
CEDE_MUST_USE int ledger_capture_held(struct ledger *ledger, int64_t row, int64_t now_ns,
	const char *hold, struct cede_error *reterr);
/* WIPING -> KEPT, a violation; detail says why. */
CEDE_MUST_USE int ledger_capture_kept(struct ledger *ledger, int64_t row, int64_t now_ns,
	const char *detail, struct cede_error *reterr);
/* KEPT -> WIPING. */
CEDE_MUST_USE int ledger_keep_ended(
	struct ledger *ledger, int64_t row, int64_t now_ns, struct cede_error *reterr);
/* KEPT captures with a row above `after`, in order of their rows. */
CEDE_MUST_USE int ledger_kept(struct ledger *ledger, int64_t after, ledger_capture_fn *fn,
	void *ctx, struct cede_error *reterr);
/* WIPING, and not touched until this orderly stop (what is destroyed without a proof is not told
 * apart); and, once the next process has read them, before it touches any: no longer said of any. */
CEDE_MUST_USE int ledger_wipe_untouched(
	struct ledger *ledger, int64_t row, struct cede_error *reterr);
CEDE_MUST_USE int ledger_wipes_begin(struct ledger *ledger, struct cede_error *reterr);
/* HELD -> WIPING. */
CEDE_MUST_USE int ledger_hold_lifted(
	struct ledger *ledger, int64_t row, int64_t now_ns, struct cede_error *reterr);
/* READY, SETTLING or SEALED -> WIPING without a proof: what the policy says at max_age, or a purge.
 * reason: "max-age" ... */
CEDE_MUST_USE int ledger_capture_destroying(struct ledger *ledger, int64_t row, const char *reason,
	int64_t now_ns, struct cede_error *reterr);
/* Captures of a source in these three states that were born then or before, the oldest first. */
CEDE_MUST_USE int ledger_born_by(struct ledger *ledger, struct slice source, int64_t born_ns,
	ledger_capture_fn *fn, void *ctx, struct cede_error *reterr);
/* SETTLING captures of a source, at most `most`. */
CEDE_MUST_USE int ledger_settling(struct ledger *ledger, struct slice source, size_t most,
	ledger_capture_fn *fn, void *ctx, struct cede_error *reterr);

/* The live capture that has the name, if there is one. */
CEDE_MUST_USE int ledger_capture_at(struct ledger *ledger, struct slice source, struct slice path,
	ledger_capture_fn *fn, void *ctx, struct cede_error *reterr);
/* Whether a live capture of the source lies on another device than this. */
CEDE_MUST_USE int ledger_other_device(struct ledger *ledger, struct slice source, uint64_t dev,
	bool *ret, struct cede_error *reterr);

/* ---- policies that were in force */
struct ledger_policy {
	struct slice id; /* borrowed for the call; not read back */
	uint64_t serial;
	uint8_t sha256[32];
	bool is_signed;
	uint8_t signer[32];
};

/* The signed policy with the highest serial that was ever in force here; *ret_there. */
CEDE_MUST_USE int ledger_policy_highest(struct ledger *ledger, struct ledger_policy *ret,
	bool *ret_there, struct cede_error *reterr);
/* The one that was loaded last. */
CEDE_MUST_USE int ledger_policy_last(struct ledger *ledger, struct ledger_policy *ret,
	bool *ret_there, struct cede_error *reterr);
/* Records it with its event, and sends what another policy had found READY back to SETTLING: the
 * next scan decides anew. */
CEDE_MUST_USE int ledger_policy_loaded(struct ledger *ledger, const struct ledger_policy *p,
	int64_t now_ns, struct cede_error *reterr);

/* ---- bundles */
struct ledger_bundle {
	int64_t row;
	struct id id;
	enum bundle_state state;
	struct slice destination;
	uint64_t size;
	uint8_t sha256[32];
	bool spooled;
	uint64_t captures;
	int64_t sealed_ns;
	int64_t segment_of; /* row of the large capture of which it has a segment; 0: none */
};

struct ledger_sealed { /* one capture (or segment) that is in the bundle */
	int64_t row;
	uint8_t sha256[32]; /* of the whole capture; for a segment that is not the last: of the segment */
	struct file_identity identity;
};

/* Records the bundle and moves its captures BUNDLED -> SEALED (those that were found REPLACED or
 * GONE meanwhile stay so). b->id, destination, size, sha256,
 * spooled are given. For captures in segments use ledger_segment_sealed(). */
CEDE_MUST_USE int ledger_bundle_sealed(struct ledger *ledger, const struct ledger_bundle *b,
	const struct ledger_sealed *captures, size_t n, int64_t now_ns, int64_t *ret_row,
	struct cede_error *reterr);

/* A segment of a large capture, which goes in segments, one bundle each. */
struct ledger_segment {
	uint32_t index;
	uint32_t count;
	uint64_t offset;
	uint64_t size;
	uint8_t sha256[32];
	bool more; /* its next one is being sealed already */
};

/* Records a segment of row as sealed in bundle_row. BUNDLED stays, if there is more, or -> READY
 * for its next segment, or SEALED when every segment has its bundle. */
CEDE_MUST_USE int ledger_segment_sealed(struct ledger *ledger, int64_t row, int64_t bundle_row,
	const struct ledger_segment *segment, struct cede_error *reterr);

struct ledger_segments {
	uint64_t count; /* that have a bundle */
	uint64_t next;  /* the lowest index without one */
	uint64_t size;  /* of each but the last; 0 if there are none yet */
};

/* Where a capture that goes in segments goes on. */
CEDE_MUST_USE int ledger_segments_of(
	struct ledger *ledger, int64_t row, struct ledger_segments *ret, struct cede_error *reterr);
/* The receipt's bytes are kept. SEALED -> RECEIPTED, and in the same transaction every capture of
 * the bundle whose whole content is now proven SEALED -> WIPING (a capture in segments only when
 * the last of its bundles is receipted). Captures already WIPED (wipe after seal) stay. */
CEDE_MUST_USE int ledger_bundle_receipted(struct ledger *ledger, int64_t bundle_row,
	struct slice receipt, int64_t now_ns, struct cede_error *reterr);
/* The bundle is durably in the spool now (BUNDLE_SPOOLED event). */
CEDE_MUST_USE int ledger_bundle_spooled(
	struct ledger *ledger, int64_t bundle_row, int64_t now_ns, struct cede_error *reterr);
/* Wipe after seal: SEALED -> WIPING for captures of a spooled bundle (in segments: when each of its
 * bundles is spooled or receipted). REFUSED if it is not spooled. */
CEDE_MUST_USE int ledger_bundle_wiping(
	struct ledger *ledger, int64_t bundle_row, int64_t now_ns, struct cede_error *reterr);
CEDE_MUST_USE int ledger_bundle_state(struct ledger *ledger, int64_t bundle_row,
	enum bundle_state *ret, struct cede_error *reterr);
/* SEALED -> ABANDONED; its captures SEALED/BUNDLED -> READY (to be sealed again; of a capture in
 * segments only the segment of this bundle), or SETTLING (*ret_undecided) if another policy than
 * theirs is in force: a scan decides. */
CEDE_MUST_USE int ledger_bundle_abandoned(struct ledger *ledger, int64_t bundle_row, int64_t now_ns,
	bool *ret_undecided, struct cede_error *reterr);
/* The bundle's bytes are lost, nobody can say whether the agency has it, and these captures of it
 * were sealed anew: SEALED -> BUNDLED (by way of READY), for the ledger_bundle_sealed() that
 * follows in this transaction. It stays SEALED. *ret_freed false: one of them is not SEALED in it
 * any more, and nothing was changed. Not for one with a segment. */
CEDE_MUST_USE int ledger_bundle_freed(struct ledger *ledger, int64_t bundle_row,
	const int64_t *rows, size_t n, int64_t now_ns, bool *ret_freed, struct cede_error *reterr);
/* Calls fn for each spooled SEALED bundle whose captures all were sealed, with the same content,
 * into this earlier one, to which the agency has a receipt now. */
typedef int ledger_bundle_fn(void *ctx, const struct ledger_bundle *b, struct cede_error *reterr);
CEDE_MUST_USE int ledger_bundle_duplicates(struct ledger *ledger, int64_t bundle_row,
	ledger_bundle_fn *fn, void *ctx, struct cede_error *reterr);
/* Such a one: as ledger_bundle_receipted(), with the receipt of the bundle `of`. */
CEDE_MUST_USE int ledger_bundle_duplicate(struct ledger *ledger, int64_t bundle_row,
	const struct id *of, struct slice receipt, int64_t now_ns, struct cede_error *reterr);
/* RECEIPTED -> DONE if no capture of it is WIPING or (in segments) still unproven; *ret_done. */
CEDE_MUST_USE int ledger_bundle_done(struct ledger *ledger, int64_t bundle_row, int64_t now_ns,
	bool *ret_done, struct cede_error *reterr);

/* All bundles in a state, oldest first. */
CEDE_MUST_USE int ledger_bundles(struct ledger *ledger, enum bundle_state state,
	ledger_bundle_fn *fn, void *ctx, struct cede_error *reterr);
/* The captures of a bundle in this state (CAPTURE_STATE_COUNT: all). */
CEDE_MUST_USE int ledger_bundle_captures(struct ledger *ledger, int64_t bundle_row,
	enum capture_state state, ledger_capture_fn *fn, void *ctx, struct cede_error *reterr);
/* All captures in a state, earliest deadline first. */
CEDE_MUST_USE int ledger_captures(struct ledger *ledger, enum capture_state state,
	ledger_capture_fn *fn, void *ctx, struct cede_error *reterr);
/* INPUT: this capture is WIPING, and neither its bundles nor an event of its destruction tell why.
 * SQLite finds damage of its own structures, not of the values in them. */
CEDE_MUST_USE int ledger_must_be_proven(
	struct ledger *ledger, int64_t row, struct cede_error *reterr);
/* Adds the stored receipt of a bundle to out. */
CEDE_MUST_USE int ledger_receipt(struct ledger *ledger, const struct id *bundle, struct buf *out,
	bool *ret_there, struct cede_error *reterr);
/* At start: BUNDLED -> READY (nothing was sealed of them yet; sealed segments stay sealed). */
CEDE_MUST_USE int ledger_recover(struct ledger *ledger, struct cede_error *reterr);

/* What is live of a source, without reading its rows: kept up to date with each change. */
struct ledger_tally {
	uint64_t files[CAPTURE_STATE_COUNT]; /* 0 in states that are none */
	uint64_t bytes[CAPTURE_STATE_COUNT];
	int64_t oldest_born_ns; /* of those that no hold keeps; INT64_MAX: none */
};

/* Only where the ledger is open for writing. A source that it does not know has nothing. */
CEDE_MUST_USE int ledger_tally(struct ledger *ledger, struct slice source, struct ledger_tally *ret,
	struct cede_error *reterr);

/* For people: what there is of each source or destination in each state, finished ones included.
 * Reads every row. */
struct ledger_overview {
	struct slice name; /* of the source or destination; borrowed for the call */
	int state;         /* enum capture_state or bundle_state */
	uint64_t count, bytes;
	int64_t born_ns, deadline_ns; /* of the oldest of these captures */
	int64_t receipt_ns;           /* the last receipt of these bundles; 0: none */
};

typedef int ledger_overview_fn(void *ctx, const struct ledger_overview *o, struct cede_error *reterr);
CEDE_MUST_USE int ledger_overview_captures(
	struct ledger *ledger, ledger_overview_fn *fn, void *ctx, struct cede_error *reterr);
CEDE_MUST_USE int ledger_overview_bundles(
	struct ledger *ledger, ledger_overview_fn *fn, void *ctx, struct cede_error *reterr);
/* The policy that was loaded last, and its id. */
CEDE_MUST_USE int ledger_overview_policy(struct ledger *ledger, char *id, size_t size,
	struct ledger_policy *ret, bool *ret_there, struct cede_error *reterr);

/* When it was last signed, and when the agency (of several destinations the one that is furthest
 * behind) last said which checkpoint it has; 0: never. */
CEDE_MUST_USE int ledger_signed_ns(struct ledger *ledger, int64_t *ret_signed_ns,
	int64_t *ret_acknowledged_ns, struct cede_error *reterr);

struct ledger_counts {
	uint64_t captures[CAPTURE_STATE_COUNT];
	uint64_t bundles[BUNDLE_STATE_COUNT];
	uint64_t events;
	int64_t oldest_born_ns; /* of READY..WIPING; INT64_MAX: none */
};

CEDE_MUST_USE int ledger_count(
	struct ledger *ledger, struct ledger_counts *ret, struct cede_error *reterr);

/* Captures that the agency has: wiping, wiped or held, with a receipt. */
CEDE_MUST_USE int ledger_count_receipted(
	struct ledger *ledger, uint64_t *ret, struct cede_error *reterr);

struct ledger_row { /* an event; slices are borrowed for the call */
	uint64_t sequence;
	int64_t at_ns;
	int kind;
	struct slice subject; /* a capture's or bundle's id, or empty */
	struct slice detail;  /* formats/detail.h */
	const uint8_t *hash;  /* 32 bytes */
};

typedef int ledger_row_fn(void *ctx, const struct ledger_row *row, struct cede_error *reterr);
/* Every event from this sequence on, in order; a positive return of fn ends it. */
CEDE_MUST_USE int ledger_events(struct ledger *ledger, uint64_t from, ledger_row_fn *fn, void *ctx,
	struct cede_error *reterr);
/* The first sequence from which on, by bisection, no event is older than at_ns (one behind the
 * last: none is that young). Where the clock was set back (there is an event of it) an older one
 * may follow. */
CEDE_MUST_USE int ledger_events_since(
	struct ledger *ledger, int64_t at_ns, uint64_t *ret_sequence, struct cede_error *reterr);
/* Walks the chain alone (agent/ledger/verify.h looks at everything); *ret_bad_sequence is the first
 * bad event (0: sound). INPUT when bad. */
CEDE_MUST_USE int ledger_verify(struct ledger *ledger, uint64_t *ret_events,
	uint64_t *ret_bad_sequence, struct cede_error *reterr);
