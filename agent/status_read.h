/* SPDX-License-Identifier: Apache-2.0
 * How things stand, as one JSON document (docs/status.md): custody from the ledger, whether the
 * agent runs or not; what only a running agent knows, from its status socket.
 *
 * Fails   BUSY (no ledger yet), IO, INPUT, REFUSED as ledger_open_reader() says. */
#pragma once

#include <jansson.h>
#include <stdbool.h>

#include "base/error.h"

#define STATUS_SCHEMA "cede-status/1"

/* *ret is the caller's to json_decref(). */
CEDE_MUST_USE int status_read(const char *state_dir, json_t **ret, struct cede_error *reterr);
/* Whether nobody needs to look: the agent runs, is ready, and no plaintext is too old. */
bool status_in_order(const json_t *status);
