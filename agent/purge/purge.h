/* SPDX-License-Identifier: Apache-2.0
 * Decommissioning a host: hand over what is left, then wipe sources, spool, ledger and key, and
 * sign a certificate of what was done, how strong it was, and what remains.
 *
 *   purge.c        the steps
 *   captures.c     what the ledger knows and nobody proved: destroyed, by id
 *   files.c        everything else below sources and state
 *   tally.c        counts and details
 *   copy.c         the ledger, sealed to the agency
 *   outputs.c      the files that it makes: reserved before anything is wiped
 *   certificate.c  the signed note, and the page that is printed
 *
 * Promise what the agency has no proof for is destroyed only if the caller said so; each is in the
 *         ledger before it is touched (I8) and in the details by its id.
 * Needs   no agent on this state directory.
 * Thread  one; blocking. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"

struct purge_options {
	const char *policy, *config;
	const char *courier;     /* or NULL */
	const char *certificate; /* file to make; the details beside it: FILE.details */
	const char *html;        /* page to make, or NULL */
	const char *ledger_copy; /* file to make, or NULL: none */
	const char *ledger_to; /* destination whose sealing keys it is sealed to; NULL: the only one */
	const char *reason;    /* of the purge, and who does it: printable ASCII */
	const char *operator;
	int64_t limit_ns; /* how long the hand-over may take */
	bool is_unsigned;
	bool destroy_unsent, destroy_held;
};

struct purge_left { /* STOPPED: what keeps it from going on; FINDINGS: what is gone */
	uint64_t unsent, held, bundles;
	uint64_t refused;  /* files that the policy wants and the hand-over left alone */
	char remains[256]; /* of FINDINGS: "WHAT REASON COUNT, ...", cut off if there are many */
	uint64_t earlier_runs; /* of FINDINGS: that were cut off; the certificate has only their beginnings */
};

enum purge_end {
	PURGE_CLEAN,    /* everything handed over, nothing remains */
	PURGE_FINDINGS, /* done; something was destroyed unsent or remains, or an earlier run was
			   cut off: the certificate says what */
	PURGE_STOPPED, /* something is left and the options do not say to destroy it: nothing more was wiped */
};

/* REFUSED and INPUT: nothing was touched, but what the hand-over did. IO in the midst: run it
 * again, unless the message says that the ledger is wiped. */
CEDE_MUST_USE int purge_run(const struct purge_options *options, enum purge_end *ret_end,
	struct purge_left *ret_left, struct cede_error *reterr);
