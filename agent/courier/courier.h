/* SPDX-License-Identifier: Apache-2.0
 * The courier: has the network and sees no plaintext, no capture directory, no ledger (I5). Takes
 * destinations and sealed bundles from the keeper, makes one try for each, says what came of it. */
#pragma once

#include "base/sandbox.h"

struct courier_setup {
	int socket;            /* to the keeper */
	const char *metrics;   /* address, or NULL */
	const uint16_t *ports; /* the ones that may be connected to */
	size_t port_count;
};

/* Enters the sandbox, then serves the keeper until it says stop or is gone. */
CEDE_MUST_USE int courier_run(const struct courier_setup *setup, struct sandbox_report *report,
	struct cede_error *reterr);
