/* SPDX-License-Identifier: Apache-2.0
 * Sockets that a service manager opened and passed (base/passed.h).
 *
 * Thread  at start, before there are others. */
#pragma once

#include "base/error.h"

/* A stream socket that listens; INPUT if it is anything else. */
CEDE_MUST_USE int listen_check(int fd, struct cede_error *reterr);
/* fd, as passed_take() gave it (-1: INPUT with the mend), checked and moved out of the way of low
 * numbers, so that what a child gets under one never overwrites it. */
CEDE_MUST_USE int listen_take(int fd /* taken */, int *ret_fd, struct cede_error *reterr);
