/* SPDX-License-Identifier: Apache-2.0
 * What the tables must say, from the events alone: fed with each event in order, then asked at the
 * end. Each contradiction is told once, with the event that says otherwise. */
#pragma once

#include "agent/ledger/ledger_internal.h"

struct replay;
/* Called with the sequence that is contradicted and words; the first call counts. */
typedef void replay_bad_fn(void *ctx, uint64_t sequence, const char *why);

CEDE_MUST_USE int replay_new(struct ledger *l, replay_bad_fn *bad, void *ctx, struct replay **ret,
	struct cede_error *reterr);
CEDE_MUST_USE int replay_event(
	struct replay *r, const struct ledger_row *row, struct cede_error *reterr);
/* A ledger-migrated event: rows of before are not told everything of. */
CEDE_MUST_USE int replay_migrated(
	struct replay *r, const struct ledger_row *row, struct cede_error *reterr);
/* After the last event. */
CEDE_MUST_USE int replay_end(struct replay *r, uint64_t sequence, uint64_t *ret_captures,
	uint64_t *ret_bundles, struct cede_error *reterr);
void replay_free(struct replay *r);
void replay_freep(struct replay **r);
