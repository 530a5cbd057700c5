/* SPDX-License-Identifier: Apache-2.0
 * The keeper's metrics as exposition text. Names of captures never stand in it (I9); labels come
 * from closed sets: sources and destinations of the policy, states, reasons, levels, conditions.
 * Every series is there from the start, so that alerts see the first of its kind.
 * tests/golden/metrics.txt lists them, docs/runbook.md says what to do about them. */
#pragma once

#include "agent/core/figures.h"
#include "base/buf.h"
#include "base/process.h"

#define METERS_CERTIFICATES_MAX (1 + 2 * POLICY_DESTINATIONS_MAX)

struct meters_certificate {
	const char *role;        /* "identity" "seal" "server-ca" */
	const char *destination; /* "" for the identity */
	int64_t until_ns;        /* the earliest of the role */
};

struct meters {
	const struct policy *policy;
	const struct figures *figures;
	int64_t now_ns; /* wall time */
	bool is_signed, reload_failed;
	uint64_t reloads, bad_reloads;
	int64_t reload_ns; /* the last try, the start included */
	uint64_t courier_starts;
	uint64_t ledger_bytes; /* with its write-ahead log */
	struct meters_certificate certificates[METERS_CERTIFICATES_MAX];
	size_t certificate_count;
	struct process_figures process;
	uint32_t layers_on, layers_missing; /* of the keeper's sandbox: 1 << enum sandbox_layer */
	uint32_t unmet;                     /* CONDITION_BIT()s of agent/ipc/readiness.h */
};

CEDE_MUST_USE int meters_text(const struct meters *m, struct buf *out, struct cede_error *reterr);
/* Age of the oldest capture in the clear that no hold keeps; 0: there is none. While the ledger
 * can't be written at least the time since: what came meanwhile is not known. */
int64_t meters_oldest_age_ns(const struct meters *m, size_t source);
