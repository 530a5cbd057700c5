/* SPDX-License-Identifier: Apache-2.0
 * The guard on the captures, as the keeper needs it: started as the policy says, found again after
 * a crash of the keeper, its attempts and its losses recorded in the ledger.
 *
 * Ways to get the descriptors of a guard that was there before (docs/guard.md): from the service
 * manager's store; from the guard itself, which waits at STATE/guard.socket.
 *
 * Thread  loop thread. */
#pragma once

#include "agent/core/flow.h"
#include "agent/guard/guard.h"
#include "agent/send/spawn.h"
#include "base/notify.h"
#include "base/passed.h"

struct guarded {
	uv_loop_t *loop;
	struct spawner *spawner;
	struct notify *notify;
	struct guard *guard; /* NULL: the policy wants none */
	struct flow *flow;   /* records; NULL: not now */
	enum guard_mode mode;
	int state_fd;
	int listener; /* for a successor of this process */
	struct guard_kept found;
	int survivor;             /* a connection to the guard that outlived its keeper; -1 */
	struct guard_note *early; /* told before there was a flow */
	bool adopted;
	bool failed; /* report: said so, is tried again */
};

/* Before anything is read: takes what an earlier guard left. All borrowed for its life. */
CEDE_MUST_USE int guarded_init(struct guarded *g, uv_loop_t *loop, struct spawner *spawner,
	struct notify *notify, struct passed *passed, const char *state, struct cede_error *reterr);
/* The policy's rules, before its flow starts (and opens captures). With `enforce` a failure is
 * returned: nothing is handed over that cannot be guarded; with `report` it is said. */
CEDE_MUST_USE int guarded_apply(
	struct guarded *g, const struct policy *policy, struct cede_error *reterr);
/* Where it records from now on; says what is in force. NULL: the ledger closes. */
void guarded_record(struct guarded *g, struct flow *flow);
/* The agent is about to stop: the ledger gets the last word on it. */
void guarded_leaving(struct guarded *g);
void guarded_figures(const struct guarded *g, struct flow_figures *figures);
/* Once nothing opens captures any more. */
void guarded_close(struct guarded *g, void (*on_closed)(void *ctx), void *ctx);
/* The process ends without having begun. A guard that was found stays. */
void guarded_abandon(struct guarded *g);
