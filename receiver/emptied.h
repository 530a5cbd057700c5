/* SPDX-License-Identifier: Apache-2.0
 * Events of a host's ledger that were emptied, until the event comes that says so, and what those
 * events say (docs/ledger.md, "Forgetting"): how many they emptied, a digest over their sequences,
 * of how many captures and bundles, of before when, and up to which event the agency had
 * acknowledged the ledger then. Nothing behind that may be emptied.
 *
 * Hostile peer  the export is whatever the contractor gave: the work grows with the events and not
 * with their square. Thread  one. */
#pragma once

#include <openssl/types.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/bytes.h"
#include "base/error.h"

struct pruned { /* what a ledger-pruned says, where nothing contradicts it */
	uint64_t sequence;
	uint64_t captures, bundles;
	uint64_t covered;
	int64_t before_ns; /* and not later than the event itself */
	bool beyond;       /* the agency was not shown as much as it is said to have acknowledged */
};

struct emptied {
	void *waiting; /* by the sequence of what must come */
	struct pruned *list;
	size_t count, room;
};

struct pruned_event {
	uint64_t sequence;
	int64_t at_ns;
	struct slice detail;
};

void emptied_done(struct emptied *e); /* starts as {0} */
/* This event is said to have been emptied by that one. md: SHA-256. */
CEDE_MUST_USE int emptied_add(struct emptied *e, const EVP_MD *md, uint64_t sequence, uint64_t by,
	struct cede_error *reterr);
/* A ledger-pruned came. shown: events of the newest checkpoint of before it that the agency has.
 * *ret_wrong: what is wrong with what it says, or NULL: then it is the last of the list. */
CEDE_MUST_USE int emptied_explain(struct emptied *e, const struct pruned_event *event,
	uint64_t shown, const char **ret_wrong, struct cede_error *reterr);
/* The first that should have come and did not; false: there is none. */
bool emptied_unexplained(const struct emptied *e, uint64_t *ret_by);
