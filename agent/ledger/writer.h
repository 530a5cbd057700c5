/* SPDX-License-Identifier: Apache-2.0
 * The one thread that writes the ledger. Work is queued from the loop thread; all that is waiting
 * goes into one transaction (group commit), and each piece's done() is called on the loop thread
 * after the commit is on the disk.
 *
 * Promise done() with CEDE_OK only after the commit; if the common transaction fails every piece is
 *         tried again in a transaction of its own, so that one bad piece fails alone.
 * Thread  all calls on the loop thread; work() runs on the writer's thread and touches nothing but
 *         the ledger and its ctx. */
#pragma once

#include <uv.h>

#include "agent/ledger/ledger.h"

struct ledger_writer;

typedef int ledger_work_fn(struct ledger *ledger, void *ctx, struct cede_error *reterr);
typedef void ledger_done_fn(void *ctx, int result, const struct cede_error *err);

/* Takes the ledger. The thread starts here: sandbox before. */
CEDE_MUST_USE int ledger_writer_start(uv_loop_t *loop, struct ledger *ledger /* taken */,
	struct ledger_writer **ret, struct cede_error *reterr);
/* work may run twice (see above): it must not keep state of the first try. IO: out of memory, then
 * neither is called. */
CEDE_MUST_USE int ledger_writer_queue(struct ledger_writer *w, ledger_work_fn *work,
	ledger_done_fn *done, void *ctx, struct cede_error *reterr);
size_t ledger_writer_waiting(const struct ledger_writer *w);
/* Finishes all that is queued (their done() still run), ends the thread, closes the ledger, then
 * on_closed. */
void ledger_writer_close(struct ledger_writer *w, void (*on_closed)(void *ctx), void *ctx);
/* For a process that ends without its loop: finishes what is queued and ends the thread, which uses
 * what the loop's thread is about to give back; no done() runs, and nothing may be queued. */
void ledger_writer_end(struct ledger_writer *w);
