/* SPDX-License-Identifier: Apache-2.0
 * One bundle's worth of captures, from the ledger that it was taken from to the ledger that records
 * its bundle: taken and started by handover.c, read, sealed and recorded by load.c.
 *
 * Thread  the loop's; what is named so on the ledger's. */
#pragma once

#include "agent/core/flow_internal.h"
#include "formats/checkpoint.h"

struct load {
	struct flow *flow;
	size_t destination;
	/* plan */
	bool into_memory; /* the link takes it; else only what must be sealed to the disk is taken */
	size_t *sources;  /* that go to this destination, nearest deadline first once taken */
	size_t source_count;
	/* take */
	struct seal_item *items;
	size_t count;
	size_t room;
	bool spool;
	bool wipe_now; /* wipe after seal, or max_age near: the spooled bundle is the proof */
	bool may_spool;
	bool spool_room;   /* the spool takes one more */
	bool spool_wanted; /* and was not asked in vain */
	bool segment;      /* of a large capture, which is items[0] */
	bool in_order;     /* all segments before it are sealed, and none behind it */
	bool holds;        /* its source's place for a large capture; for the ledger's thread */
	bool anew;         /* again, instead of ... */
	struct id lost;    /* ... this bundle: core/anew.c */
	int64_t lost_row;
	int64_t urgent_ns; /* when it must be sealed to the disk if there is no receipt */
	int64_t again_ns;  /* wall time at which something becomes ready; INT64_MAX: unknown */
	struct buf checkpoint, field; /* of all that came before */
	/* seal */
	struct seal_job job;
	struct parcel *parcel;
	/* record */
	struct load *next; /* its next segment, sealed meanwhile and recorded after it */
	unsigned run;      /* segments before it in one go */
	bool waits;        /* for the record of the one before */
	bool is_sealed;
	int64_t bundle_row;
	struct ledger_sealed *captures;
	struct capture_list to_wipe;
};

/* With the sources of the destination that are there; NULL: no memory. */
struct load *load_new(struct flow *flow, size_t destination);
/* Adds a capture, whole; *ret is its item. On the ledger's thread. */
CEDE_MUST_USE int load_add(struct load *l, const struct ledger_capture *c, size_t source,
	struct seal_item **ret, struct cede_error *reterr);
/* Recorded, or never to be. */
void load_release(void *ctx);
/* Reads and seals what it holds, in memory or into the spool, and records it. If all buffers are in
 * use, as soon as one is free: the ledger took it while the loads before it were sealed. */
void load_seal(struct load *l);

/* ---- on the ledger's thread: large captures of a source go one after the other; in turns they
 * would all have to be wiped when the last one ends */
void load_large_begins(struct load *l);
void load_large_pauses(struct load *l);
