/* SPDX-License-Identifier: Apache-2.0
 * A host's exported ledger (docs/ledger.md, "Export") against what the agency has of that host: the
 * store and the checkpoints. The chain and each checkpoint are computed anew from the export.
 *
 * Hostile peer  the export is whatever the contractor gave. Memory and time grow with its events
 * and the store's bundles. Thread  any. */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "base/error.h"

#define AUDIT_FINDINGS(X)                                                                         \
	X(LEDGER_BROKEN, "ledger-broken")       /* not an unbroken chain of events */             \
	X(LEDGER_SHORT, "ledger-short")         /* fewer events than the agency has seen */       \
	X(LEDGER_REWRITTEN, "ledger-rewritten") /* other events than the agency has seen */       \
	X(CHECKPOINT_BAD, "checkpoint-bad")     /* one that the store keeps does not verify */    \
	X(UNANCHORED, "unanchored") /* there are bundles, and no checkpoint that fits them */     \
	X(EMPTIED, "emptied")       /* events were pruned: of these nothing can be said */        \
	X(LACKING, "lacking") /* the host claims a receipt, and the bundle is not in the store */ \
	X(DIFFERENT, "different")   /* it is there with another size or digest */                 \
	X(UNKNOWN, "unknown")       /* in the store, and the ledger never sealed it */            \
	X(OVERSTAYED, "overstayed") /* in the clear for longer than --max-age */                  \
	X(WEAK_WIPE, "weak-wipe")   /* a wipe worth less than --require */                        \
	X(DESTROYED, "destroyed")   /* wiped without a proof */                                   \
	X(REMOVED, "removed")       /* another program took it away */

enum audit_finding {

#define X(id, name) AUDIT_##id,
	AUDIT_FINDINGS(X)
#undef X
		AUDIT_FINDING_COUNT
};

const char *audit_finding_name(enum audit_finding finding);

struct audit_options {
	int host_dir;       /* <store>/<host>; borrowed */
	FILE *export_file;  /* borrowed */
	int64_t max_age_ns; /* 0: any */
	int require;        /* index of audit_level(), or -1 */
	bool deep;          /* read every bundle and hash it */
	bool allow_pruned;  /* what was pruned as it should be is no finding */
	void *ctx;
	/* subject: id of a bundle or capture, or a sequence; text: for people */
	void (*found)(void *ctx, enum audit_finding finding, const char *subject, const char *text);
};

struct audit_totals {
	uint64_t events, pruned, captures, bundles, receipted, in_store, checkpoints;
	uint64_t elsewhere; /* receipted, for a destination of which nothing is in the store */
	uint64_t pruned_captures, pruned_bundles; /* as the ledger says; no checkpoint tells */
	int64_t pruned_before_ns;
	uint64_t anchored; /* events up to the newest checkpoint that fits: nobody can change these */
	int64_t anchored_ns; /* when that one was signed */
	uint64_t findings[AUDIT_FINDING_COUNT];
};

/* From the weakest to the strongest; -1: no such level. */
int audit_level(const char *name);
/* INPUT: the export is no export. IO: it or the store can't be read. */
CEDE_MUST_USE int audit_run(
	const struct audit_options *options, struct audit_totals *ret, struct cede_error *reterr);
