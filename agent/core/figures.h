/* SPDX-License-Identifier: Apache-2.0
 * What the keeper knows in numbers: counted by the flow as it goes, copied for the metrics page and
 * for `cede status`. Reading them reads no ledger and no directory.
 *
 * Thread  loop thread. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "agent/confirm/confirm.h"
#include "agent/ledger/ledger.h"
#include "agent/wipe/levels.h"
#include "base/metric.h"
#include "policy/decide.h"

/* id, identifier: the same words stand in the ledger's violation events */
#define VIOLATIONS(X)                                               \
	X(OVERDUE, "overdue")                                       \
	X(GROUP_INCOMPLETE, "group-incomplete")                     \
	X(SPOOL_FULL, "spool-full")                                 \
	X(BUNDLE_MISSING, "spooled-bundle-missing")                 \
	X(LEDGER_FOREIGN, "ledger-is-not-what-the-agency-has-seen") \
	X(VAULT, "vault-unavailable")

enum violation {

#define X(id, name) VIOLATION_##id,
	VIOLATIONS(X)
#undef X
		VIOLATION_COUNT
};

const char *violation_name(enum violation v);

/* id, identifier: why a try to push failed. What a server says is a class, not a number. */
#define PUSH_FAILURES(X)        \
	X(RESOLVE, "resolve")   \
	X(ADDRESS, "address")   \
	X(CONNECT, "connect")   \
	X(TIMEOUT, "timeout")   \
	X(SLOW, "slow")         \
	X(RESET, "reset")       \
	X(TLS, "tls")           \
	X(PIN, "pin")           \
	X(REDIRECT, "redirect") \
	X(REFUSED, "http-4xx")  \
	X(SERVER, "http-5xx")   \
	X(RECEIPT, "receipt")   \
	X(COURIER, "courier")   \
	X(OTHER, "other")

enum push_failure {

#define X(id, name) PUSH_FAILURE_##id,
	PUSH_FAILURES(X)
#undef X
		PUSH_FAILURE_COUNT
};

const char *push_failure_name(enum push_failure f);
/* Of a kind as the link says it. */
enum push_failure push_failure_of(const char *kind);

struct source_figures {
	struct ledger_tally tally; /* as of the last second */
	/* of the last whole scan: what is in the directory and not (yet) in the ledger */
	uint64_t stay[REASON_COUNT]; /* files that are reported and left alone */
	uint64_t left[REASON_COUNT]; /* of these, what the policy wants or may want */
	uint64_t stay_bytes;
	uint64_t incomplete, incomplete_bytes; /* being written, quiet, or waiting for their group */
	int64_t oldest_other_ns; /* birth of the oldest of these that the policy wants; INT64_MAX */
	int64_t scanned_ns;      /* when it ended; 0: none yet */
	bool missing;            /* its directory is not there, or another file system is */
	bool unwatched;          /* no events: looked at every two seconds */
	/* since the start */
	uint64_t seen, wiped;
	struct histogram exposure; /* from a capture's last change to its wipe */
};

struct destination_figures {
	bool up;
	bool seal_over;            /* a certificate that is sealed to has ended */
	uint64_t open, open_bytes; /* sealed bundles without a receipt */
	int64_t receipt_ns;        /* the last one; 0: none since the start */
	/* since the start */
	uint64_t receipts, pushed_bytes;
	uint64_t receipts_refused[CONFIRM_REFUSAL_COUNT];
	uint64_t push_failures[PUSH_FAILURE_COUNT];
	struct histogram push; /* from the first try of a bundle to its receipt */
};

struct flow_figures {
	/* since the start */
	uint64_t sealed_bundles, sealed_captures, wipes[WIPE_LEVEL_COUNT], wiped_below, kept_below,
		scrubs, gone, replaced, wipe_failures, gaps, scans, refused, ledger_retries, kept,
		destroyed, violations[VIOLATION_COUNT], read_failures, clock_steps,
		lost; /* wiped, and their bundle was taken out of the spool and is nowhere */
	/* now */
	size_t settling, wipes_waiting;
	uint64_t events; /* in the ledger */
	uint64_t spool_bytes, spool_limit;
	int64_t checkpoint_ns;   /* when the ledger was last signed; 0: never */
	int64_t acknowledged_ns; /* when the agency last said which checkpoint it has */
	/* of vaults: epochs that have not ended, of these the ones that something keeps, sources
	 * whose vault is not in force, birth of the oldest key (INT64_MAX: none) */
	size_t vault_epochs, vault_kept, vault_unavailable;
	int64_t vault_oldest_ns;
	uint64_t vault_turns, vault_erased, vault_busy, vault_lost; /* since the start */
	/* the keeper adds these */
	bool guard_wanted, guard_active;
	uint64_t guard_denied, guard_noted, guard_restarts;
	bool spool_full;
	bool ledger_failing;  /* work waits because the ledger can't be written */
	int64_t unwritten_ns; /* since when: nothing that came since is known; 0: it can be */
	bool recovered;       /* what an earlier process had begun is known */
	bool expired;         /* the policy */
};

/* All of it; one for each source and destination of the policy, in its order. */
struct figures {
	struct flow_figures flow;
	struct source_figures sources[POLICY_SOURCES_MAX];
	struct destination_figures destinations[POLICY_DESTINATIONS_MAX];
};

/* Nothing yet. */
void figures_reset(struct source_figures *s);
/* What was counted since the start in one place of a source, to what was in another. */
void figures_add_since(struct source_figures *to, const struct source_figures *from);
/* Birth of the oldest capture in the clear that no hold keeps, of all that is known; INT64_MAX. */
int64_t figures_oldest_ns(const struct source_figures *s);
