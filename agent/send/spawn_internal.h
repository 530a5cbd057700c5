/* SPDX-License-Identifier: Apache-2.0
 * Between spawn.c (the keeper's side) and spawner.c (the process). */
#pragma once

#include <stdbool.h>

#include "agent/send/spawn.h"

enum spawn_op { SPAWN_START = 1, SPAWN_KILL, SPAWN_START_GUARD, SPAWN_KILL_GUARD };

/* One packet each way; both are programs of one build, and forked from one another. */
struct spawn_request {
	uint32_t op;
	uint32_t port_count;
	uint16_t ports[SPAWN_PORTS_MAX];
};

struct spawn_reply { /* and for SPAWN_START... two descriptors: socket, pidfd */
	int32_t error;
	int32_t pid;
};

struct spawn_courier { /* what the spawner knows of the courier; fixed when it is forked */
	const char *path;
	const char *guard;   /* that other program's path */
	const char *metrics; /* or NULL */
	int metrics_fd;      /* a socket that listens, in its place; -1: none */
	const char *log_level;
	bool as_user;
	uid_t uid;
	gid_t gid;
};

/* The life of the spawner, in the forked child: ends when the keeper does. */
__attribute__((noreturn)) void spawner_run(int socket, pid_t keeper, const struct spawn_courier *c);
