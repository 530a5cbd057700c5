/* SPDX-License-Identifier: Apache-2.0
 * What the files of `cede ledger` share. Results: 0, 1 (found nothing), or an error. */
#pragma once

#include "agent/ledger/ledger.h"

/* JSON Lines of docs/ledger.md, from this event on. */
CEDE_MUST_USE int ledger_export(struct ledger *ledger, uint64_t from, struct cede_error *reterr);
/* Every event of one capture, and of its bundles. */
CEDE_MUST_USE int ledger_show(
	struct ledger *ledger, const struct id *id, bool json, struct cede_error *reterr);
