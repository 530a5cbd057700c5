/* SPDX-License-Identifier: Apache-2.0
 * Files that cede left alone, for whatever reason: they were in the clear, and nobody watched them go.
 *
 * Thread  any. */
#pragma once

#include "agent/exposure/report.h"

/* Adds those that can have been here in the report's span, by time. source: only of this one, or
 * empty. */
CEDE_MUST_USE int refused_make(struct ledger *ledger, struct slice source, struct report *report,
	struct cede_error *reterr);
void refused_done(struct report *report);
