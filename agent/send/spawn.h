/* SPDX-License-Identifier: Apache-2.0
 * Starts the courier: with one socket, no environment, no other descriptor, as its own user; and
 * the guard, as this user. How they are started is this room's matter alone.
 *
 * The keeper's sandbox forbids it to start or signal anything, and the courier has to be started
 * again when it dies. So a small process, the spawner, is forked before the sandbox and before any
 * key or policy is read: it waits for one of two requests of fixed size, "start the courier, these
 * are its ports" and "kill it". Path, user and arguments were fixed when it was forked. The courier
 * becomes a child of the keeper (CLONE_PARENT): it ends with it, and the keeper alone waits for it.
 *
 * Owns    the spawner and the socket to it.
 * Thread  loop thread. */
#pragma once

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/error.h"
#include "base/log.h"

#define SPAWN_PORTS_MAX 16
#define SPAWN_USER      "cede-courier"

struct spawner;

struct spawned {
	pid_t pid;
	int pidfd;  /* readable when it has ended */
	int socket; /* the keeper's end */
};

struct spawner_setup {
	const char *courier; /* path of the program */
	const char *guard;   /* of that one */
	const char *user;    /* to run the courier as; NULL: SPAWN_USER if this is root and there
				is one, else as this process */
	const char *metrics; /* address for its scrape endpoint, or NULL */
	int metrics_fd;      /* a socket that listens already, in its place (borrowed), or -1 */
	enum log_level log_level; /* of both */
};

/* INPUT: there is no such user. */
CEDE_MUST_USE int spawner_start(
	const struct spawner_setup *setup, struct spawner **ret, struct cede_error *reterr);
/* Readable once the spawner has ended: then no courier can be started any more. */
int spawner_fd(const struct spawner *s);
/* Kills the one before, if it lives. ports: the ones it may connect to. */
CEDE_MUST_USE int spawn_courier(struct spawner *s, const uint16_t *ports, size_t port_count,
	struct spawned *ret, struct cede_error *reterr);
/* SIGKILL to the courier that was started last; the caller waits for it. */
CEDE_MUST_USE int spawn_kill(struct spawner *s, struct cede_error *reterr);
/* The same for the guard; it outlives spawner and keeper unless it is killed, or told to stop. */
CEDE_MUST_USE int spawn_guard(struct spawner *s, struct spawned *ret, struct cede_error *reterr);
CEDE_MUST_USE int spawn_kill_guard(struct spawner *s, struct cede_error *reterr);
/* Ends the spawner. NULL allowed. */
void spawner_stop(struct spawner *s);
