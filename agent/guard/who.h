/* SPDX-License-Identifier: Apache-2.0
 * Which program a process runs, and as whom: from /proc, whose answers never wait on a disk.
 *
 * Promise asked while the process waits for its open to be answered, its number can't be another's.
 * Thread  any. */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/error.h"

struct who {
	pid_t pid;
	uint64_t dev; /* of the program's file; both 0: not known, a kernel thread for example */
	uint64_t ino;
	uint32_t uid; /* effective; UINT32_MAX: not known */
};

/* /proc, kept open: nobody can mount another one over it later. */
CEDE_MUST_USE int who_open(int *ret_procfd, struct cede_error *reterr);
struct who who_is(int procfd, pid_t pid);
/* The path of its program as the kernel tells it ("... (deleted)" after a replacement), or "?". */
void who_program(int procfd, pid_t pid, char *out, size_t size);
/* The effective uid in the text of /proc/PID/status; UINT32_MAX if there is none. */
uint32_t who_uid_in(const char *status);
