/* SPDX-License-Identifier: Apache-2.0
 * Descriptors that the service manager passed at the start (sd_listen_fds(3), by hand): sockets of
 * .socket units, and what comes back from its descriptor store (base/notify.h).
 *
 * Owns    those descriptors, until one is taken; they are closed when a program is started. */
#pragma once

#include <stddef.h>

#define PASSED_MAX      32
#define PASSED_NAME_MAX 255

struct passed {
	size_t count;

	struct {
		int fd; /* -1: taken */
		char name[PASSED_NAME_MAX + 1];
	} list[PASSED_MAX];
};

/* Reads LISTEN_PID, LISTEN_FDS and LISTEN_FDNAMES; what is meant for another process is left. More
 * than PASSED_MAX: the others stay open and unused, as nobody can know what they are. */
void passed_init(struct passed *p);
/* The first of this name, the caller's from now on; -1 if there is none (any more). */
int passed_take(struct passed *p, const char *name);
/* Closes what nobody took. */
void passed_done(struct passed *p);
