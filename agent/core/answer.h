/* SPDX-License-Identifier: Apache-2.0
 * The status socket: whoever may enter the state directory connects to STATE/status.socket, is told
 * how the agent stands as one line of JSON (docs/status.md), and is disconnected. Nothing is read
 * from it.
 *
 * Thread  loop thread. */
#pragma once

#include <uv.h>

#include "agent/core/standing.h"

#define ANSWER_SOCKET "status.socket"

struct answer {
	uv_poll_t poll;
	bool polling;
	int fd;
	int state_fd; /* borrowed */
	/* Fills the standing anew; false: not now. */
	bool (*take)(void *ctx);
	const struct standing *standing;
	void *ctx;
};

/* Binds; before the sandbox. state_fd is borrowed for its life. */
CEDE_MUST_USE int answer_open(struct answer *a, int state_fd, struct cede_error *reterr);
void answer_start(struct answer *a, uv_loop_t *loop, const struct standing *standing,
	bool (*take)(void *ctx), void *ctx);
/* The name goes, so that nobody waits for an answer. Twice is fine. */
void answer_stop(struct answer *a);
