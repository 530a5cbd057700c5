/* SPDX-License-Identifier: Apache-2.0
 * The vaults of a flow. A source with a vault has a directory for each epoch, encrypted under a key
 * of its own; each is a place of the flow (struct flow_source) from its turn to its end, and what
 * is found in it is handed over from there, wherever the directory stands: descriptors are used, no
 * paths. So a capture that was seen before a turn stays what it was: same descriptor, same path
 * below it, same inode, same name in the ledger.
 *
 *   open       the source's path leads to it
 *   draining   another took its place at the turn; programs that have it open, or are in it, go on
 *   closing    the ledger has nothing live of it, and nobody is in it; its directories are removed
 *              (rmdir decides: a file that came meanwhile makes it draining again)
 *   destroying the ledger says ERASING; its key goes, until the kernel says it is absent
 *
 *   epochs.c       the places; what is due each second
 *   epochs_open.c  at start: what is there, which keys
 *   epochs_turn.c  the next epoch takes the place
 *   epochs_end.c   the end of one
 *
 * Promise a key is destroyed only when the ledger durably holds that nothing of its epoch is live
 *         (I1, I2), or when the kernel had lost it (keys in memory, and a reboot).
 * Thread  loop thread; jobs own what they need. */
#pragma once

#include "agent/core/flow.h"

/* Makes flow->places and flow->sources from the policy. */
CEDE_MUST_USE int epochs_start(struct flow *flow, struct cede_error *reterr);
void epochs_free(struct flow *flow);
/* Finds what earlier processes left, then then(). */
void epochs_open(struct flow *flow, void (*then)(struct flow *flow));
void epochs_tick(struct flow *flow);
void epochs_look(struct flow *flow); /* captures were wiped: an epoch may be empty now */
void epochs_figures(const struct flow *flow, struct flow_figures *ret);

/* The policy has one for the source, or what is left of one has not ended: nothing of it is looked
 * for by the source's path, which may lead to any of its directories. */
bool epochs_has_vault(const struct flow *flow, size_t source);
/* The place that the source's path led to when it was last looked at; false: not known now. */
bool epochs_at_path(const struct flow *flow, size_t source, size_t *ret_place);
/* The path leads to another directory than that: what is there is found anew, as at a start. What is
 * not found any more waits, with its key. False: not now, another look or a turn is under way. */
bool epochs_displaced(struct flow *flow, size_t source);

/* Nothing is looked at, sealed or wiped there: it is closing, its directory is gone or was not
 * found again, its key is lost, or locked away. */
bool epochs_is_closed(const struct flow *flow, size_t source);
bool epochs_is_lost(const struct flow *flow, size_t source);
/* What is unlinked there goes for good with the key. */
bool epochs_has_key(const struct flow *flow, size_t source);
/* A number that no other directory has as long as this one is a place. */
uint64_t epochs_number(const struct flow *flow, size_t source);
