/* SPDX-License-Identifier: Apache-2.0
 * What a report can't exclude, and what was seen: told by the events of agent and guard.
 *
 * Thread  any. */
#pragma once

#include "agent/exposure/report.h"

/* Adds those that touch the report's span, by time. source: what concerns another one is left out,
 * unless it is empty. */
CEDE_MUST_USE int notes_make(struct ledger *ledger, struct slice source, struct report *report,
	struct cede_error *reterr);
