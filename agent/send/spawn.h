/* SPDX-License-Identifier: Apache-2.0
 * Starts the courier: with one socket, no environment, no other descriptor, as its own user. How it
 * is started is this file's matter alone. */
#pragma once

#include <sys/types.h>

#include "base/error.h"

struct spawned {
	pid_t pid;
	int pidfd;  /* readable when it has ended */
	int socket; /* the keeper's end */
};

CEDE_MUST_USE int spawn_courier(const char *path, const char *user /* or NULL */,
	const char *metrics /* or NULL */, struct spawned *ret, struct cede_error *reterr);
