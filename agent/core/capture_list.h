/* SPDX-License-Identifier: Apache-2.0
 * Captures that are taken out of the ledger to be worked on after its transaction. */
#pragma once

#include "agent/ledger/ledger.h"

struct capture_list {
	struct ledger_capture *items; /* path and source belong to the list; group is left out */
	size_t count;
	size_t room;
};

/* A ledger_capture_fn: adds a copy of c to the list that is ctx. */
CEDE_MUST_USE int capture_list_add(
	void *ctx, const struct ledger_capture *c, struct cede_error *reterr);
void capture_list_done(struct capture_list *list); /* empty and usable again */
