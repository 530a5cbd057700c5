/* SPDX-License-Identifier: Apache-2.0
 * The metrics endpoint. libmicrohttpd with a thread of its own, on the loopback, a UNIX socket, or a
 * socket that was passed. What it serves lies ready: a scrape waits for no other part of the agent.
 *
 *   GET /metrics   what the keeper said last, and what the courier uses; Prometheus text format
 *                  0.0.4, or OpenMetrics 1.0 for whoever asks for it
 *   GET /healthz   200 while keeper and courier live: the keeper spoke within the last 15 seconds
 *   GET /readyz    200 while every condition of agent/ipc/readiness.h is met, 503 with the reasons
 *
 * Hostile peer  any local user: bounded connections and time, nothing but these three paths. */
#pragma once

#include "base/bytes.h"
#include "base/error.h"
#include "base/sandbox.h"

struct scrape;

/* Listens; before the sandbox. address: "127.0.0.1:9464", "[::1]:9464", "unix:/path", or "fd:4" for
 * a socket that listens. */
CEDE_MUST_USE int scrape_new(const char *address, struct scrape **ret, struct cede_error *reterr);
/* Serves, from a thread inside the sandbox, whose layers its page tells. */
CEDE_MUST_USE int scrape_start(
	struct scrape *s, const struct sandbox_report *sandbox, struct cede_error *reterr);
/* The text (at most IPC_METRICS_MAX; nothing: the keeper could not tell it) is copied. unmet:
 * CONDITION_BIT()s. */
void scrape_update(struct scrape *s, struct slice text, uint32_t unmet);
void scrape_stop(struct scrape *s); /* NULL allowed */
