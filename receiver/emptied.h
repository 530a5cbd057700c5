/* SPDX-License-Identifier: Apache-2.0
 * Events of a host's ledger that were emptied, until the event comes that says so: how many it
 * emptied, and a digest over their sequences (docs/ledger.md, "Forgetting").
 *
 * Hostile peer  the export is whatever the contractor gave: the work grows with the events and not
 * with their square. Thread  one. */
#pragma once

#include <openssl/types.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/bytes.h"
#include "base/error.h"

struct emptied {
	void *waiting; /* by the sequence of what must come */
};

void emptied_done(struct emptied *e); /* starts as {0} */
/* This event is said to have been emptied by that one. md: SHA-256. */
CEDE_MUST_USE int emptied_add(struct emptied *e, const EVP_MD *md, uint64_t sequence, uint64_t by,
	struct cede_error *reterr);
/* A ledger-pruned came. *ret_wrong: what is wrong with what it says, or NULL. */
CEDE_MUST_USE int emptied_explain(struct emptied *e, uint64_t sequence, struct slice detail,
	const char **ret_wrong, struct cede_error *reterr);
/* The first that should have come and did not; false: there is none. */
bool emptied_unexplained(const struct emptied *e, uint64_t *ret_by);
