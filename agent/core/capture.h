/* SPDX-License-Identifier: Apache-2.0
 * The states of a capture and of a bundle, from one list each: enum, names, allowed moves. The same
 * words stand in the ledger, the log, `cede status` and docs/states.md. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"

/* id, name, allowed next states */
#define CAPTURE_STATES(X)                                                                         \
	/* complete, waits for a bundle */                                                        \
	X(READY, "ready",                                                                         \
		TO(BUNDLED) | TO(READY) | TO(SETTLING) | TO(WIPING) | TO(GONE) | TO(REPLACED))    \
	/* being read into a bundle that is not sealed yet */                                     \
	X(BUNDLED, "bundled", TO(SEALED) | TO(READY) | TO(SETTLING) | TO(GONE) | TO(REPLACED))    \
	/* whole in a sealed bundle; the plaintext is still there */                              \
	X(SEALED, "sealed", TO(WIPING) | TO(READY) | TO(REPLACED) | TO(GONE))                     \
	/* the proof is in the ledger (or the policy says destroy); is being overwritten */       \
	X(WIPING, "wiping", TO(WIPED) | TO(HELD) | TO(KEPT) | TO(REPLACED) | TO(GONE))            \
	X(WIPED, "wiped", 0)                                                                      \
	/* found open or changed when it was to be read: complete again later */                  \
	X(SETTLING, "settling", TO(READY) | TO(WIPING) | TO(GONE) | TO(REPLACED))                 \
	/* somebody else removed it before it was wiped: custody gap, reported */                 \
	X(GONE, "gone", 0)                                                                        \
	/* the file under this name was changed or replaced: the new content is a new capture */  \
	X(REPLACED, "replaced", 0)                                                                \
	/* the proof is in the ledger, and a legal hold keeps the file */                         \
	X(HELD, "held", TO(WIPING) | TO(READY) | TO(GONE) | TO(REPLACED))                         \
	/* the proof is in the ledger, and its storage can't meet wipe.require: kept, reported */ \
	X(KEPT, "kept", TO(WIPING) | TO(READY) | TO(GONE) | TO(REPLACED))

/* id, name, allowed next states */
#define BUNDLE_STATES(X)                                                                         \
	/* sealed; waits for the agency's receipt */                                             \
	X(SEALED, "sealed", TO(RECEIPTED) | TO(ABANDONED))                                       \
	/* receipt verified; captures are wiping or wiped */                                     \
	X(RECEIPTED, "receipted", TO(DONE))                                                      \
	/* receipt there, every capture of it wiped (or reported), spool file gone */            \
	X(DONE, "done", 0)                                                                       \
	/* the ciphertext was lost with the process, and the agency promised never to take it */ \
	X(ABANDONED, "abandoned", 0)

enum capture_state {

#define X(id, name, next) CAPTURE_##id,
	CAPTURE_STATES(X)
#undef X
		CAPTURE_STATE_COUNT
};

enum bundle_state {

#define X(id, name, next) BUNDLE_##id,
	BUNDLE_STATES(X)
#undef X
		BUNDLE_STATE_COUNT
};

const char *capture_state_name(enum capture_state state);
const char *bundle_state_name(enum bundle_state state);
/* BUG if the move is not in the table. */
CEDE_MUST_USE int capture_move(
	enum capture_state from, enum capture_state to, struct cede_error *reterr);
CEDE_MUST_USE int bundle_move(
	enum bundle_state from, enum bundle_state to, struct cede_error *reterr);
