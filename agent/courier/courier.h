/* SPDX-License-Identifier: Apache-2.0
 * The courier: has the network and sees no plaintext, no capture directory, no ledger (I5). Takes
 * destinations and sealed bundles from the keeper, makes one try for each, says what came of it. */
#pragma once

#include "base/error.h"

/* Serves the keeper on this socket until it says stop or is gone. metrics: address, or NULL. */
CEDE_MUST_USE int courier_run(int socket, const char *metrics, struct cede_error *reterr);
