/* SPDX-License-Identifier: Apache-2.0
 * A vault's epochs in the ledger: each has an encrypted directory and a key of its own. What was
 * found in it stands in the ledger under a source of its own, NAME@KEY (the key's name in
 * hexadecimal), so that two files of one name in two epochs are two captures. What was there
 * without encryption stands under NAME, as in any source.
 *
 * Promise the key of an epoch is destroyed only after ledger_epoch_erasing() was committed, which is
 *         REFUSED while anything of it is live: unproven, held, or not wiped yet (I1, I2).
 * Thread  as agent/ledger/ledger.h. */
#pragma once

#include "agent/ledger/ledger.h"

#define EPOCH_KEY_SIZE    16
#define EPOCH_SOURCE_SIZE (64 + 1 + 2 * EPOCH_KEY_SIZE + 1) /* NAME@KEY and a NUL */
#define EPOCH_PENDING     "pending-erase" /* reason of a wipe that the end of the epoch completes */

enum epoch_state {
	EPOCH_OPEN,     /* its directory is at the source's path */
	EPOCH_DRAINING, /* another took the place */
	EPOCH_ERASING,  /* nothing is in it; its key is being destroyed */
	EPOCH_ERASED,   /* the kernel says that the key is gone */
};

const char *epoch_state_name(enum epoch_state state); /* "open" "draining" "erasing" "erased" */

struct ledger_epoch {
	int64_t row; /* of its source */
	char source[EPOCH_SOURCE_SIZE];
	uint8_t key[EPOCH_KEY_SIZE]; /* its name, not the key */
	enum epoch_state state;
	bool wrapped; /* a sealed copy of the key is in the state directory */
	int64_t made_ns, turned_ns, ended_ns; /* 0: not yet */
	uint64_t live, held;                  /* captures; only from ledger_epochs() */
};

void epoch_source(const char *name, const uint8_t key[EPOCH_KEY_SIZE], char out[EPOCH_SOURCE_SIZE]);
/* The policy's name of a source in the ledger: without the epoch. */
struct slice epoch_source_name(struct slice ledger_source);

/* A new epoch is about to take the place of the one named before (NULL: of what is not encrypted). */
CEDE_MUST_USE int ledger_epoch_turned(struct ledger *l, const char *name,
	const uint8_t key[EPOCH_KEY_SIZE], bool wrapped, const uint8_t *before, int64_t now_ns,
	int64_t *ret_row, struct cede_error *reterr);
/* The directory at the path is this one's, whatever the ledger thought. */
CEDE_MUST_USE int ledger_epoch_is_open(struct ledger *l, const struct ledger_epoch *e, bool open,
	int64_t now_ns, struct cede_error *reterr);
/* OPEN or DRAINING -> ERASING. BUSY: something of it is live. */
CEDE_MUST_USE int ledger_epoch_erasing(
	struct ledger *l, int64_t row, int64_t now_ns, struct cede_error *reterr);
/* ERASING -> ERASED with its event; what was wiped pending this gets the level and reason. */
CEDE_MUST_USE int ledger_epoch_erased(struct ledger *l, const struct ledger_epoch *e,
	const char *level, const char *reason, const char *cause, int64_t now_ns,
	uint64_t *ret_captures, struct cede_error *reterr);

typedef int ledger_epoch_fn(void *ctx, const struct ledger_epoch *e, struct cede_error *reterr);
/* Those of a source (NULL: of all), oldest first; all: with those that are erased. */
CEDE_MUST_USE int ledger_epochs(struct ledger *l, const char *name, bool all, ledger_epoch_fn *fn,
	void *ctx, struct cede_error *reterr);
/* Live captures of a ledger source, and how many of them are held. */
CEDE_MUST_USE int ledger_live(struct ledger *l, struct slice source, uint64_t *ret_live,
	uint64_t *ret_held, struct cede_error *reterr);

/* Whether there is anything that the end of the epoch would do something about: live, or unlinked. */
CEDE_MUST_USE int ledger_epoch_used(
	struct ledger *l, struct slice source, bool *ret, struct cede_error *reterr);

struct ledger_lost {
	uint64_t destroyed; /* unproven: gone with the key */
	uint64_t wiped;     /* proven, were waiting for their wipe */
	uint64_t held;      /* proven, and a hold was to keep them */
	uint64_t waiting;   /* sealed: the agency is still to be asked */
};

/* The key of an epoch was lost (keys in memory, and a reboot): each live capture of it ends with an
 * event of its own, but for those whose bundle may still be at the agency. */
CEDE_MUST_USE int ledger_epoch_lost(struct ledger *l, struct slice source, int64_t now_ns,
	struct ledger_lost *ret, struct cede_error *reterr);
