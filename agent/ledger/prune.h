/* SPDX-License-Identifier: Apache-2.0
 * Forgetting what is over: the events of captures that are wiped and receipted, and whose whole life
 * lies before a time and within what the agency has acknowledged, are emptied; their hashes stay, so that
 * the chain and every checkpoint can still be verified. The rows of these captures and bundles go.
 *
 * Promise all or nothing; an event (ledger-pruned) says how many were emptied, and which. */
#pragma once

#include "agent/ledger/ledger.h"

struct ledger_prune {
	uint64_t captures, bundles, events;
	uint64_t covered; /* events that every destination has acknowledged; nothing behind is touched */
};

/* The writer's handle (the agent is stopped). Afterwards the file is made small again. */
CEDE_MUST_USE int ledger_prune(struct ledger *ledger, int64_t before_ns, int64_t now_ns,
	struct ledger_prune *ret, struct cede_error *reterr);
