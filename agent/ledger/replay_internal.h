/* SPDX-License-Identifier: Apache-2.0
 * What the events told so far: replay.c walks them, replay_end.c compares the tables with the end. */
#pragma once

#include <assert.h>

#include "agent/ledger/replay.h"

#define LEVELS_MAX 4096

/* As far as events tell: ready, bundled and settling are one. */
enum stage {
	STAGE_NONE,
	STAGE_OPEN,
	STAGE_SEALED,
	STAGE_WIPING,
	STAGE_WIPED,
	STAGE_GONE,
	STAGE_REPLACED,
	STAGE_HELD,
	STAGE_KEPT
};

struct replayed {
	uint8_t stage;
	bool segments;
	uint32_t bundle;
	uint32_t wipe;    /* index + 1 of the event that ended it */
	uint32_t changed; /* index + 1 of its struct changed; 0: none */
	uint64_t digest;  /* keyed: of the SHA-256 that its bundle's event tells */
};

static_assert(sizeof(struct replayed) == 24, "docs/ledger.md says how much memory a capture takes");

#define NOT_WIPED           UINT32_MAX
#define NO_EVENT_OF_CAPTURE "the captures' table has a row that no event tells of"

struct wipe { /* what one event says of those that it wiped, or that ended otherwise */
	int64_t at_ns;
	uint64_t sequence;
	uint32_t level; /* index of "level\nreason", or NOT_WIPED */
};

struct parcel {        /* a bundle */
	uint8_t state; /* enum bundle_state; BUNDLE_STATE_COUNT: none of this row */
	bool spooled;
	uint64_t sequence; /* of its bundle-sealed */
	uint32_t *members; /* while it is open */
	uint32_t count;
};

/* A capture whose size and times are not those it was seen with. */
struct changed {
	uint64_t row, sequence; /* of the event that says so */
	int64_t size, born, mtime;
};

static_assert(sizeof(struct changed) == 40, "docs/ledger.md likewise; the list grows by doubling");

struct replay {
	struct ledger *l;
	replay_bad_fn *bad;
	void *ctx;
	struct replayed *captures; /* by row */
	uint64_t capture_room, capture_last;
	struct parcel *bundles; /* by row */
	uint64_t bundle_room, bundle_last;
	struct wipe *wipes;
	size_t wipe_count, wipe_room;
	char *levels[LEVELS_MAX];
	uint32_t level_count;
	struct changed *changed;
	size_t changed_count, changed_room;
	uint64_t sequence;                  /* of the event that is being walked */
	uint64_t wiped_count;               /* rows that events told as wiped */
	uint64_t old_captures, old_bundles; /* rows before events told everything */
	uint64_t segments;                  /* that must be there */
	sqlite3_stmt *row;                  /* the captures, beside the events that saw them */
	sqlite3_stmt *policy;               /* the policies, beside theirs */
	sqlite3_stmt *bundle, *segment;
	sqlite3_stmt *source; /* the name of ... */
	int64_t source_id;    /* ... this one */
	struct buf text;
	uint64_t key[18]; /* random */
	bool done;        /* no more is told */
};

void replay_contradicted(struct replay *r, uint64_t sequence, const char *why);
/* Whether there can be a capture or bundle of this row. */
bool replay_is_row(const struct replay *r, uint64_t row);
/* Room is made; INPUT: no row. What is there is valid until the next row. */
CEDE_MUST_USE int replay_capture(
	struct replay *r, uint64_t row, struct replayed **ret, struct cede_error *reterr);
CEDE_MUST_USE int replay_bundle(
	struct replay *r, uint64_t row, struct parcel **ret, struct cede_error *reterr);
bool replay_is_number(sqlite3_stmt *st, int column, int64_t value);
/* Eight bytes stand for 32 while the events are walked: multilinear hashing with a key that nobody
 * knows before; another digest has the same ones once in 2^64. */
uint64_t replay_digest(const struct replay *r, const uint8_t sha256[32]);
CEDE_MUST_USE int replay_prepare(
	struct replay *r, const char *sql, sqlite3_stmt **ret, struct cede_error *reterr);
