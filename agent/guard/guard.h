/* SPDX-License-Identifier: Apache-2.0
 * The keeper's end of the guard: starts it, gives it the rules, starts it again when it dies or
 * hangs, and holds duplicates of its descriptors meanwhile, so that questions wait and none is
 * allowed by default.
 *
 * Owns    the guard process, the socket, the duplicates.
 * Promise guard_start() and guard_apply() return 0 only when the rules are in force and every
 * source that is there is marked, but for parts of it that can't be (figures: unmarked). What the
 *         guard says wrongly costs the guard (killed, started again), never the keeper.
 * Thread  loop thread. It opens no capture, so it never waits for the guard. */
#pragma once

#include <uv.h>

#include "agent/guard/wire.h"
#include "base/error.h"
#include "policy/policy.h"

struct guard;

struct guard_process { /* as it was just started */
	pid_t pid;
	int pidfd;
	int socket;
};

struct guard_kept { /* of an earlier guard; -1: none */
	int fan;
	int table;
};

enum guard_state {
	GUARD_STATE_ACTIVE,
	GUARD_STATE_LOST, /* opens wait, until it is back */
};

struct guard_events {
	void *ctx;
	/* Starts the program; SIGKILL to it. How is the caller's matter; the guard is a child of
	 * this process. */
	int (*spawn)(void *ctx, struct guard_process *ret, struct cede_error *reterr);
	void (*kill)(void *ctx);
	void (*attempt)(void *ctx, const struct guard_attempt *a);
	/* So many more that are not told each. */
	void (*more)(void *ctx, uint64_t denied, uint64_t noted);
	/* Changed; why: for people, and "" when it is active. */
	void (*state)(void *ctx, enum guard_state state, const char *why);
	/* Sources that have no mark, or of which a part has none: there are some now, or none any
	 * more. */
	void (*unmarked)(void *ctx, unsigned sources);
	/* New descriptors that should outlive this process. */
	void (*keep)(void *ctx, const struct guard_kept *kept);
};

struct guard_figures {
	uint64_t allowed, denied, noted, unread; /* since this process started */
	uint64_t restarts;
	unsigned file_systems, inodes; /* sources, by their marks */
	unsigned unmarked;             /* those that have none, or of which a part has none */
	unsigned programs_missing;
	bool active;
};

/* listener: a socket on which a successor of this process finds the guard; taken, as is what was
 * kept. Waits for the guard, at most GUARD_START_MS. */
CEDE_MUST_USE int guard_start(uv_loop_t *loop, const struct policy *policy, int listener,
	const struct guard_kept *kept, const struct guard_events *events, struct guard **ret,
	struct cede_error *reterr);
/* Another policy's rules; on failure the former ones stay in force. */
CEDE_MUST_USE int guard_apply(
	struct guard *g, const struct policy *policy, struct cede_error *reterr);
void guard_figures(const struct guard *g, struct guard_figures *ret);
/* Lets it end (what it had to tell is told before), gives its descriptors back, then on_closed. */
void guard_close(struct guard *g, void (*on_closed)(void *ctx), void *ctx);
