/* SPDX-License-Identifier: Apache-2.0
 * Blocking work on the pool: a job owns copies of all it needs, its work() touches nothing else,
 * and done() gives the result back on the loop thread.
 *
 * Thread  all calls on the loop thread; work() on a pool thread. The pool starts with the first
 * job: sandbox before. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <uv.h>

#include "base/error.h"

struct jobs {
	uv_loop_t *loop;
	size_t running;
	void (*on_idle)(void *ctx); /* called when running falls to 0 while it is set */
	void *ctx;
};

typedef void job_work_fn(void *ctx);
typedef void job_done_fn(void *ctx);

void jobs_init(struct jobs *jobs, uv_loop_t *loop);
/* ctx is the caller's; done() runs exactly once after work(). On failure neither runs. */
CEDE_MUST_USE int jobs_start(struct jobs *jobs, job_work_fn *work, job_done_fn *done, void *ctx,
	struct cede_error *reterr);
