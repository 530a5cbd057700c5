/* SPDX-License-Identifier: Apache-2.0
 * The way of each capture through the keeper: findings in, ledger rows and moves, bundles, receipts,
 * wipes. The only module that knows all stages; it alone decides moves and it alone queues ledger
 * work. Each step is: 1. may it (core/capture.h), 2. the ledger, durable, 3. the stage.
 *
 *   intake.c    names that changed -> checked -> recorded as ready
 *   handover.c  ready -> bundle -> sealed, recorded -> pushed -> receipt, recorded
 *   disposal.c  proven -> wiped, recorded
 *   flow.c      start, recovery, the second's tick, stop
 *
 * Promise a ledger that can't be written delays everything and loses nothing: work is tried again
 *         each second. A ledger that is damaged stops the agent (I7).
 * Thread  loop thread. */
#pragma once

#include <uv.h>

#include "agent/ledger/writer.h"
#include "agent/send/link.h"
#include "certs/note.h"
#include "certs/seal.h"
#include "policy/policy.h"

struct flow;

struct flow_destination_keys { /* both taken by flow_start() */
	struct sealer_keys *seal;
	struct note_keys *receipts;
	bool changed; /* sealing keys or place are not those of the predecessor's policy */
};

struct flow_setup {
	uv_loop_t *loop;
	const struct policy *policy;              /* borrowed for the life of the flow */
	const char *host;                         /* borrowed */
	int spool_fd;                             /* taken */
	struct ledger_writer *ledger;             /* taken */
	const struct flow_destination_keys *keys; /* one for each destination of the policy */
	bool is_signed;
	uint8_t signer[32];
	struct flow *predecessor; /* retired: its bundles and figures come over; NULL at start */
	struct link *link;        /* with a predecessor and same_link: the one that goes on */
	bool same_link;
	/* the flow can't go on (a damaged ledger): stop and exit; called once */
	void (*fatal)(void *ctx, const char *text);
	void *ctx;
};

CEDE_MUST_USE int flow_start(
	const struct flow_setup *setup, struct flow **ret, struct cede_error *reterr);
/* The link calls these (struct link_events.ctx = the flow). */
void flow_link_events(struct flow *flow, struct link_events *ret);
/* Once the link is there (borrowed until flow_stop() ended): recovery begins, then the scans. */
void flow_run(struct flow *flow, struct link *link);
/* Begins nothing new and calls on_drained once all that was sealed is receipted and wiped (it may
 * never come: the caller sets a limit). */
void flow_drain(struct flow *flow, void (*on_drained)(void *ctx), void *ctx);
/* Not one step further, the link included. */
void flow_halt(struct flow *flow);
bool flow_policy_expired(const struct flow *flow);
/* Starts no new work, waits for what runs, closes the ledger, frees all, then on_stopped. */
void flow_stop(struct flow *flow, void (*on_stopped)(void *ctx), void *ctx);

/* Ends it so that a successor can be started with another policy: nothing new is begun, what runs
 * is waited for, the ledger stays open, receipts are still taken. Then on_retired (from deep
 * within: only note it); the caller starts the successor and frees this. */
void flow_retire(struct flow *flow, void (*on_retired)(void *ctx), void *ctx);
/* False: a receipt came since; on_retired comes once more. */
bool flow_is_retired(struct flow *flow, void (*on_retired)(void *ctx), void *ctx);
void flow_free_retired(struct flow *flow);
/* What the successor is to use. */
struct ledger_writer *flow_ledger(const struct flow *flow);
int flow_take_spool(struct flow *flow);

/* For metrics; see core/meters.h. */
struct flow_figures {
	uint64_t seen, sealed_bundles, sealed_captures, pushed_bytes, receipts, receipts_refused,
		push_failures, wiped, wiped_below, gone, replaced, wipe_failures, gaps, scans,
		refused, ledger_retries, kept, destroyed;
	uint64_t held; /* files that stay and are reported, as of the last whole scan */
	size_t settling, bundles_open, wipes_waiting;
	bool link_up;
	bool expired;
	/* the keeper adds these */
	bool is_signed, reload_failed;
	uint64_t reloads, bad_reloads;
};

void flow_figures(const struct flow *flow, struct flow_figures *ret);
