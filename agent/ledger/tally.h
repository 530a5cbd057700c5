/* SPDX-License-Identifier: Apache-2.0
 * How many live captures of each source are in each state, kept up to date with every change of a
 * row, so that nobody counts a million rows to know.
 *
 * A hook of the writer's connection is told of each change of a row of `capture` (SQLite's
 * preupdate hook), whichever statement makes it: the tally can't drift from the table. Nothing of
 * it is stored; it is counted once when the ledger is opened. (Triggers that do the same cost a
 * fifth of all that the ledger costs.)
 *
 * Fails   a change that was not followed (memory) fails the commit, and a rollback mends the tally.
 *
 * Thread  the ledger's. */
#pragma once

#include "agent/ledger/ledger_internal.h"

CEDE_MUST_USE int tally_start(struct ledger *l, struct cede_error *reterr);
void tally_commit(struct tally *t);
/* Since the last commit or rollback. */
bool tally_failed(const struct tally *t);
void tally_rollback(struct tally *t);
void tally_free(struct tally *t);
