/* SPDX-License-Identifier: Apache-2.0
 * The guard process: answers the kernel's questions who may open a file of a source.
 *
 *   sentry.c  asks nothing but memory and /proc: reads the questions, answers at once who is
 *             allowed, talks to the keeper
 *   clerk.c   a thread for all that may wait: rules, marks, and what is not allowed at first sight
 *             (the program may have been replaced by an upgrade)
 *
 * Promise an answer to an allowed program never waits on a disk, a network, the keeper, or on the
 *         answer to another. With `enforce` nobody gets an answer that allows by default: without
 *         a guard process the question waits (docs/guard.md: every way to lose it). */
#pragma once

#include "base/error.h"

/* socket: the keeper's. Runs until the keeper says stop; when the keeper is gone, until its
 * successor has taken the descriptors over, or until SIGTERM. */
CEDE_MUST_USE int sentry_run(int socket, struct cede_error *reterr);
