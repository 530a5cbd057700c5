/* SPDX-License-Identifier: Apache-2.0
 * Which captures were on this host in a span of time, in which form, from when to when; and what makes
 * that uncertain. Read from the state tables through their indexes, so that a day out of years takes
 * no longer than that day had captures; `cede ledger verify` checks those tables against the chain.
 *
 * Thread  as ledger.h; a reader never holds up the agent. */
#pragma once

#include "agent/ledger/ledger.h"

enum exposure_form {
	EXPOSURE_PLAIN,  /* readable by whoever read the disk */
	EXPOSURE_SEALED, /* a sealed bundle in the spool: only the agency's key opens it */
	/* in the clear, and no capture (not of ledger_exposure()): cede left it alone. It has no id
	 * and no size; `end` says why; until when it was here nobody knows, unless to_ns does */
	EXPOSURE_REFUSED,
};

struct exposure_item { /* slices are borrowed for the call */
	enum exposure_form form;
	struct id id;
	struct slice source;
	struct slice path;
	struct slice classification; /* or empty */
	uint64_t size;
	uint8_t sha256[32];
	bool has_sha256;
	int64_t from_ns; /* the earliest time that is known of it */
	int64_t to_ns;   /* INT64_MAX: it is still there */
	/* of a capture "wiped" "gone" "replaced" (plain), "receipted" "abandoned" (sealed), or "" */
	const char *end;
	struct slice level; /* of the wipe, or empty */
	bool has_bundle;
	struct id bundle; /* that holds it, or its newest segment */
};

typedef int exposure_fn(void *ctx, const struct exposure_item *item, struct cede_error *reterr);

/* Everything that was here at any moment of [from, to), plain then sealed, each by from_ns. source:
 * only of this one, or an empty slice. */
CEDE_MUST_USE int ledger_exposure(struct ledger *ledger, int64_t from_ns, int64_t to_ns,
	struct slice source, exposure_fn *fn, void *ctx, struct cede_error *reterr);

typedef int exposure_source_fn(void *ctx, struct slice name, struct cede_error *reterr);
/* The name of each source whose directory was ever there, by name; a vault's once. */
CEDE_MUST_USE int ledger_sources(
	struct ledger *ledger, exposure_source_fn *fn, void *ctx, struct cede_error *reterr);

/* Events that say whether the agent and the guard watched: starts, stops, gaps, steps of the clock,
 * what the guard saw, sources that were away, policies. All of them, first to last. */
CEDE_MUST_USE int ledger_watch_events(
	struct ledger *ledger, ledger_row_fn *fn, void *ctx, struct cede_error *reterr);
/* capture-refused, and purge-done, after which what was refused is wiped, too. All, first to last. */
CEDE_MUST_USE int ledger_refusals(
	struct ledger *ledger, ledger_row_fn *fn, void *ctx, struct cede_error *reterr);
/* The events that say what was taken out of the ledger. */
CEDE_MUST_USE int ledger_prunings(
	struct ledger *ledger, ledger_row_fn *fn, void *ctx, struct cede_error *reterr);

struct exposure_lost { /* a bundle that was taken out of the spool and never came to the agency */
	struct id bundle;
	uint64_t captures;           /* that it held: which ones, its bundle-sealed event says */
	int64_t sealed_ns, ended_ns; /* when that was found out */
};

typedef int exposure_lost_fn(void *ctx, const struct exposure_lost *lost, struct cede_error *reterr);
CEDE_MUST_USE int ledger_lost_sealed(struct ledger *ledger, int64_t from_ns, int64_t to_ns,
	exposure_lost_fn *fn, void *ctx, struct cede_error *reterr);
/* The newest event's time; 0: there is none. */
CEDE_MUST_USE int ledger_last_ns(struct ledger *ledger, int64_t *ret, struct cede_error *reterr);
