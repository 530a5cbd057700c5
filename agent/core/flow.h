/* SPDX-License-Identifier: Apache-2.0
 * The way of each capture through the keeper: findings in, ledger rows and moves, bundles, receipts,
 * wipes. The only module that knows all stages; it alone decides moves and it alone queues ledger
 * work. Each step is: 1. may it (core/capture.h), 2. the ledger, durable, 3. the stage.
 *
 *   intake.c    names that changed -> checked -> recorded as ready
 *   places.c    sources that go away, come back, or are mounted anew
 *   epochs*.c   vaults: directories that take each other's place, and the end of their keys
 *   handover.c  ready -> bundle -> sealed, recorded
 *   outbox.c    sealed -> pushed -> receipt, recorded; or into the spool
 *   anew.c      sealed, and lost with the memory it was in -> sealed anew when its age is up
 *   disposal.c  proven -> wiped, recorded
 *   release.c   held, or past its age -> to be wiped, recorded
 *   recovery.c  what was under way before the start
 *   figures.c   what is counted on the way
 *   rest.c      is anything left to do?
 *   flow.c      start, the second's tick, stop
 *
 * Promise a ledger that can't be written delays everything and loses nothing: work is tried again
 *         each second. A ledger that is damaged stops the agent (I7).
 * Thread  loop thread. */
#pragma once

#include <uv.h>

#include "agent/core/figures.h"
#include "agent/ledger/writer.h"
#include "agent/send/link.h"
#include "certs/note.h"
#include "certs/seal.h"
#include "policy/policy.h"

struct flow;

struct flow_destination_keys {                        /* the pointers are taken by flow_start() */
	uint8_t seal_digest[32], receipts_digest[32]; /* of the files */
	struct sealer_keys *seal;
	int64_t seal_until_ns; /* the first of their certificates ends */
	struct note_keys *receipts;
	bool changed; /* sealing keys are not those of the predecessor's policy */
	bool moved;   /* its URL is another */
};

struct flow_setup {
	uv_loop_t *loop;
	const struct policy *policy;  /* borrowed for the life of the flow */
	const char *host;             /* borrowed */
	int spool_fd;                 /* taken */
	uint64_t spool_limit;         /* bytes */
	const char *state;            /* directory; borrowed like the policy */
	const char *vault_key;        /* file that wraps vaults' keys, or NULL; likewise */
	struct ledger_writer *ledger; /* taken */
	const struct flow_destination_keys *keys; /* one for each destination of the policy */
	bool is_signed;
	uint8_t signer[32];
	uint8_t identity[32];     /* digest of the key in the host's certificate */
	struct flow *predecessor; /* retired: its bundles and figures come over; NULL at start */
	struct link *link;        /* with a predecessor and same_link: the one that goes on */
	bool same_link;
	/* the flow can't go on (a damaged ledger): stop and exit; called once */
	void (*fatal)(void *ctx, const char *text);
	/* the system let nobody work in the directory of a source, of this number in the policy: is
	 * it the sandbox? True: it was said, or the agent ends for it. */
	bool (*denied)(void *ctx, size_t source);
	/* what was under way before is known and the scans have begun; once, unless it is stopped before */
	void (*recovered)(void *ctx);
	void *ctx;
};

CEDE_MUST_USE int flow_start(
	const struct flow_setup *setup, struct flow **ret, struct cede_error *reterr);
/* The link calls these (struct link_events.ctx = the flow). */
void flow_link_events(struct flow *flow, struct link_events *ret);
/* Once the link is there (borrowed until flow_stop() ended): recovery begins, then the scans. */
void flow_run(struct flow *flow, struct link *link);
/* Begins nothing new and calls on_drained once all that was sealed is receipted and wiped (it may
 * never come: the caller sets a limit). What may be spooled and gets no receipt is. */
void flow_drain(struct flow *flow, void (*on_drained)(void *ctx), void *ctx);
/* Not one step further, the link included. */
void flow_halt(struct flow *flow);
/* at_rest: nothing is left to do until something new is found: all was looked at once, handed over
 * and wiped, but for what can't be, or is kept. left: in words, what is not handed over and wiped
 * (names of sources, states and reasons; of captures only their number), "" if there is nothing,
 * borrowed for the call. Files that the policy does not want are not left. The answer comes later,
 * or from within the call. */
typedef void flow_rest_fn(void *ctx, bool at_rest, const char *left);
void flow_ask_rest(struct flow *flow, flow_rest_fn *answer, void *ctx);
bool flow_policy_expired(const struct flow *flow);
bool flow_has_recovered(const struct flow *flow);
/* Starts no new work, waits for what runs, closes the ledger, frees all, then on_stopped. */
void flow_stop(struct flow *flow, void (*on_stopped)(void *ctx), void *ctx);

/* Ends it so that a successor can be started with another policy (keys: one for each of its
 * destinations, borrowed for the call): nothing new is begun, what runs is waited for, the ledger
 * stays open, receipts are still taken. Then on_retired (from deep within: only note it); the
 * caller starts the successor and frees this. */
void flow_retire(struct flow *flow, const struct policy *next,
	const struct flow_destination_keys *keys, void (*on_retired)(void *ctx), void *ctx);
/* The process ends after it: no copy into the spool holds it up. */
void flow_hurry(struct flow *flow);
/* False: a receipt came since; on_retired comes once more. */
bool flow_is_retired(struct flow *flow, void (*on_retired)(void *ctx), void *ctx);
void flow_free_retired(struct flow *flow);
/* What the successor is to use. */
struct ledger_writer *flow_ledger(const struct flow *flow);
int flow_take_spool(struct flow *flow);

/* A copy; sources and destinations in the order of the policy. */
void flow_figures(const struct flow *flow, struct figures *ret);
