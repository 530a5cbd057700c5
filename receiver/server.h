/* SPDX-License-Identifier: Apache-2.0
 * libmicrohttpd, set up: TLS 1.3 with client certificates, or a UNIX socket behind a front. */
#pragma once

#include <stdbool.h>

#include "base/sandbox.h"
#include "receiver/config.h"
#include "receiver/request.h"

struct server;

/* Listens, reads the keys, enters the sandbox, starts its threads. setup is borrowed. *ret_port:
 * the port listened on (0 for a UNIX socket). */
CEDE_MUST_USE int server_start(const struct receiver_config *config,
	const struct request_setup *setup, struct sandbox_report *report, struct server **ret,
	unsigned *ret_port, struct cede_error *reterr);
/* False if a thread has been in one step of a request (a write, a flush) for longer than that. */
bool server_gets_on(struct server *s, int64_t longest_ns);
/* Whoever connects now is sent away; waits up to ms for the requests under way. */
void server_drain(struct server *s, unsigned ms);
void server_stop(struct server *s);
