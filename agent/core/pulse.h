/* SPDX-License-Identifier: Apache-2.0
 * The sign of life for the service manager's watchdog. It is sent when a piece of work went once
 * through the ledger's thread and came back to the loop: both get on, or the manager starts the
 * agent anew. What the ledger answers doesn't matter: a full disk is no reason to start again.
 *
 * Thread  the loop's. */
#pragma once

#include <uv.h>

#include "agent/ledger/writer.h"
#include "base/notify.h"

struct pulse {
	uv_timer_t timer;
	struct notify *notify;
	struct ledger_writer *ledger;
	bool underway;
};

/* Both borrowed; the pulse lives as long as the loop. Without a watchdog it does nothing. */
void pulse_start(
	struct pulse *p, uv_loop_t *loop, struct notify *notify, struct ledger_writer *ledger);
/* Before the ledger closes; the handle is the caller's to close. */
void pulse_stop(struct pulse *p);
