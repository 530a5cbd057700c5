/* SPDX-License-Identifier: Apache-2.0
 * What the two halves of the audit share: the export (audit.c), and the store (audit_store.c). */
#pragma once

#include "formats/checkpoint.h"
#include "formats/id.h"
#include "formats/merkle.h"
#include "receiver/audit.h"
#include "receiver/checkpoints.h"
#include "receiver/emptied.h"

struct seen;

struct unnamed {
	int64_t id_ns;
	struct id id;
};

struct destination { /* where bundles went, as the ledger tells of it */
	struct destination *next;
	bool found; /* a bundle for it is in this store */
	char name[];
};

struct sealed { /* a bundle, as the ledger tells of it */
	struct id id;
	uint64_t size;
	uint8_t sha256[32];
	bool receipted, found;
	struct destination *to;
};

struct audit {
	const struct audit_options *o;
	struct audit_totals totals;
	struct seen *seen;
	uint64_t seen_room;
	struct sealed *bundles; /* both sorted by id once the export was read */
	size_t bundle_room;
	struct id *receipts;
	size_t receipt_count, receipt_room;
	struct merkle_hasher hasher;
	struct merkle_edge edge;
	struct emptied emptied;
	uint8_t hash[32]; /* of the newest event */
	struct checkpoints *checkpoints;
	struct checkpoint shown; /* the next of them */
	bool more_shown;
	bool compared;          /* there was one of these events, whether or not it fits */
	struct checkpoint kept; /* the newest that the agency was shown */
	int64_t last_ns;        /* of the newest event */
	int64_t end_ns;         /* of the export: that, or the newest checkpoint that fits */

	struct {
		int64_t newest_ns;       /* when the newest bundle came */
		uint64_t receipts_know;  /* events of the newest checkpoint that a receipt names */
		struct unnamed *unnamed; /* bundles that the ledger does not name and must know */
		size_t unnamed_count, unnamed_room;
		bool of_the_export; /* there are bundles that the export must know */
	} store;

	uint64_t lines;
	uint64_t wipes; /* rows in lists of what was wiped */
	bool broken;
	struct destination *destinations;
	void *by_name; /* the same, to be searched: an export can name as many as it has bundles */
};

static inline bool audit_several(const struct audit *a) {
	return a->destinations != NULL && a->destinations->next != NULL;
}

void audit_found(
	struct audit *audit, enum audit_finding finding, const char *subject, const char *text);
void audit_found_id(
	struct audit *audit, enum audit_finding finding, const struct id *id, const char *text);
/* Once the export was read: every bundle of the store against what it tells, and the other way. */
CEDE_MUST_USE int audit_store(struct audit *audit, struct cede_error *reterr);
