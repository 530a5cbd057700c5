/* SPDX-License-Identifier: Apache-2.0
 * The dry run: every file of the sources through the agent's own facts and decide(), one report a
 * file, those in the ended epochs of a vault included. It reads directories and attributes, opens
 * no capture and changes nothing.
 *
 * Promise memory does not grow with the number of files.
 * Thread  any.
 * Fails   a source or directory that cannot be looked at is reported and counted, the run goes on;
 *         IO from the ledger ends it. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "policy/decide.h"

struct ledger;

struct dry_run_file {
	const struct policy_source *source;
	const char *epoch; /* of its vault, that has ended: its name in the store; else "" */
	const char *path;  /* relative to the source, or to the epoch's directory */
	uint64_t size;
	struct decision decision;
};

struct dry_run_totals {
	uint64_t files;
	uint64_t bytes;
	uint64_t reasons[REASON_COUNT];
	uint64_t overdue;  /* older than their maximum age, whatever becomes of them */
	uint64_t troubles; /* directories or files that could not be looked at */
	int64_t oldest_ns; /* birth of the oldest file that is not ignored; 0: none */
	const struct policy_source *oldest_source;
	bool findings;
};

struct dry_run {
	const struct policy *policy;
	const char *source;    /* name of the only one, or NULL for all */
	struct ledger *ledger; /* what was seen before, or NULL */
	int64_t now_ns;
	void *ctx;
	void (*file)(void *ctx, const struct dry_run_file *file);
	/* path relative to the source, "" for itself; why names the epoch, if it is in one */
	void (*trouble)(void *ctx, const struct policy_source *source, const char *path,
		const struct cede_error *why);
};

/* INPUT: there is no source of that name. */
CEDE_MUST_USE int dry_run(
	const struct dry_run *run, struct dry_run_totals *ret, struct cede_error *reterr);
