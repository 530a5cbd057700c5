/* SPDX-License-Identifier: Apache-2.0
 * What the files of the vaults share. Loop thread. */
#pragma once

#include "agent/core/epochs.h"
#include "agent/core/flow_internal.h"
#include "agent/ledger/epoch.h"
#include "agent/vault/place.h"
#include "agent/vault/wrap.h"

#define EPOCHS_MOST    32 /* of one source at once; then its turns wait */
#define EPOCHS_SPARE   64 /* places for epochs of sources that have no vault any more */
#define EPOCH_LOOK_NS  (NS_PER_SECOND / 2) /* less than a tick: each tick looks */
#define VAULT_AGAIN_NS (5 * NS_PER_SECOND)
/* An empty epoch that somebody is in, or that has nothing but ignored files, waits for so much of
 * an epoch since something of it was live, or since its turn. An open one that was used and has
 * nothing live for so long makes its turn early. So a key goes within an epoch of the last receipt. */
#define EPOCH_PATIENCE(epoch_ns) ((epoch_ns) / 4)
#define HALF_WRITTEN_NS \
	(60 * NS_PER_SECOND) /* an ignored file younger than this may become a capture */

enum epoch_step {
	STEP_OPEN,
	STEP_DRAINING,
	STEP_CLOSING, /* nothing is begun there; what is under way ends, then its directories go */
	STEP_RECORDING,  /* ERASING goes into the ledger */
	STEP_DESTROYING, /* the key */
};

/* Of a place in a vault. */
struct epoch {
	struct ledger_epoch ledger; /* key and name; row 0: not encrypted */
	struct fscrypt_id id;
	bool encrypted;
	enum epoch_step step;
	bool lost;         /* the key is gone, or the directory: its captures can't be read */
	bool gone;         /* nothing has its name in the store */
	bool away;         /* another directory came to the path: waits until its own is found */
	bool locked;       /* wrapped, and it could not be unwrapped */
	bool busy;         /* a job or ledger work of it is under way */
	const char *cause; /* of its end; for the ledger */
	const char *kept;  /* why it does not end though it is empty of captures, or NULL */
	uint64_t held;
	uint64_t leftovers;            /* ignored files that went with it */
	enum wipe_level wrapped_level; /* what the wipe of its sealed key achieved */
	int64_t live_boot_ns;          /* when something of it was live last */
	int64_t again_boot_ns;
	bool said_kept, said_busy, said_lost;
};

/* Of a source. */
struct vault {
	bool wanted;         /* the policy has it; else only what is there ends */
	struct place *place; /* NULL: could not be opened yet */
	bool opening;
	bool failed;    /* the last opening */
	bool waits;     /* a directory that it found, for a place */
	bool displaced; /* another directory is at the path: all is found anew, see look_anew() */
	bool has_current;
	size_t current; /* the place at the source's path */
	bool turning;
	bool staged; /* the next directory is in the store, and in the ledger */
	struct fscrypt_id next;
	struct ledger_epoch next_epoch;
	int64_t due_boot_ns;
	int64_t again_boot_ns;
	int64_t find_boot_ns; /* when what is away is looked for again */
	char why[256];        /* it is not in force, or "" */
};

/* ---- epochs.c */
/* A free place for a directory of the source; false: none is left. With true fd and epoch are its. */
bool epochs_take_place(
	struct flow *flow, size_t source, int fd, struct epoch *epoch, size_t *ret_place);
/* The place ends; what was known of it is freed. */
void epochs_leave_place(struct flow *flow, size_t place);
/* The directory that was served there: not before what is under way in it has ended, which holds
 * the number of its descriptor. */
void epochs_close_left(struct flow *flow, size_t source);
/* The place of a directory without encryption that is away: the source's own, without a vault. */
void epochs_forget_plain(struct flow *flow, size_t source);
size_t epochs_of(const struct flow *flow, size_t source); /* places, the open one included */
/* Not in force, and why: said once in log and ledger, until NULL. */
void epochs_say_unavailable(struct flow *flow, size_t source, const char *why);
const char *epochs_name(const struct epoch *e, char out[FSCRYPT_ID_TEXT]); /* in the store */

/* ---- epochs_open.c */
void epochs_open_one(struct flow *flow, size_t source);
void epochs_unlock(struct flow *flow, size_t place); /* tries again */

/* ---- epochs_turn.c */
void epochs_turn(struct flow *flow, size_t source);

/* ---- epochs_end.c */
void epochs_end_tick(struct flow *flow, size_t place);
