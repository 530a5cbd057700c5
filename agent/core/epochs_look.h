/* SPDX-License-Identifier: Apache-2.0
 * What earlier processes left of the vaults, before it is made places of: what the ledger knows,
 * and what is on the disk. For epochs_open.c.
 *
 * Owns    a struct opening: its lists, and the descriptors in them that were not taken.
 * Thread  each function says its own; one has a struct opening at a time. */
#pragma once

#include "agent/core/epochs_internal.h"

#define NOT_KNOWN SIZE_MAX

struct known { /* unfinished, of the ledger */
	struct ledger_epoch e;
	size_t source; /* NOT_KNOWN: the policy has it no more */
	bool placed;   /* already, by an earlier opening */
	bool away;     /* ... and its directory has to be found again */
	size_t place;
	bool found;
	bool untouched; /* it was to take a place and never did */
};

struct found {
	struct place_found place;
	size_t known; /* index, or NOT_KNOWN */
	bool lost;    /* the kernel has no key, and there is no copy */
	bool locked;  /* there is one, and it does not open */
};

struct open_source {
	size_t source;
	struct place *place;
	struct found *found;
	size_t count;
	bool as_plain; /* no vault, but its directory can be served like any other, when it is there */
	int plain_fd; /* that directory, or -1 */
	bool stale;   /* the path leads elsewhere than to where the store is */
	struct cede_error err;
	struct cede_error locked;
};

struct opening {
	struct flow *flow;
	void (*then)(struct flow *flow);
	size_t only; /* source, or NOT_KNOWN: all */
	struct known *known;
	size_t known_count;
	struct open_source *sources;
	size_t count;
};

void epochs_opening_free(struct opening *o);
/* Writer thread: fills known. ctx is the struct opening. */
CEDE_MUST_USE int epochs_look_ledger(struct ledger *ledger, void *ctx, struct cede_error *reterr);
/* A job: fills found of each source, and err, where there is more to say than that. */
void epochs_look_disk(void *ctx);
/* A job: gives the kernel the key of an epoch from its wrapped copy. */
CEDE_MUST_USE int epochs_unlock_key(const struct flow *flow, int store_fd,
	const struct fscrypt_id *id, struct cede_error *reterr);
