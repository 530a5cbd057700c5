/* SPDX-License-Identifier: Apache-2.0
 * Is the ledger what was recorded? Walks every event once: the chain, the tree's root at each
 * signed checkpoint, and what all other tables say of captures, bundles and policies against what
 * the events say. Reads in one transaction: what the agent writes meanwhile is not looked at.
 *
 * Thread  one. Memory: 24 bytes a capture, 40 to 80 more for one that was written again; bounded by
 * the number of events, whatever the ledger says. */
#pragma once

#include "agent/ledger/ledger.h"

struct ledger_check {
	uint64_t events;
	uint64_t pruned; /* of these: emptied, only their hashes are there */
	uint64_t captures, bundles;
	uint64_t checkpoints; /* that were met and fit */
	uint64_t seen;    /* events up to which the agency's checkpoints agree; 0: none was given */
	uint8_t hash[32]; /* of the newest event */
	uint8_t root[32];
	uint8_t key[200]; /* DER of the key that the ledger names, and its length; 0: none */
	uint8_t key_len;
	uint64_t bad_sequence; /* 0: sound; else the first event that is not what was recorded, or
				* is contradicted by a table or a checkpoint */
	char why[400];
};

/* notes: checkpoints that the agency keeps, one behind the other (may be empty). key: whose
 * signatures they must have (DER; empty: the key that the ledger itself names). state_key: the key
 * that lies beside the ledger (DER, may be empty). CEDE_OK also when it is not sound: see ret.
 * INPUT: notes are malformed. */
CEDE_MUST_USE int ledger_check(struct ledger *ledger, struct slice notes, struct slice key,
	struct slice state_key, struct ledger_check *ret, struct cede_error *reterr);
