/* SPDX-License-Identifier: Apache-2.0
 * The metrics endpoint: GET /metrics gives the text that the keeper sent last, GET /healthz says
 * that the courier lives. libmicrohttpd with a thread of its own, on the loopback or a UNIX socket.
 *
 * Hostile peer  any local user: bounded connections and time, nothing but these two paths. */
#pragma once

#include "base/bytes.h"
#include "base/error.h"

#define SCRAPE_TEXT_MAX (1U << 20)

struct scrape;

/* address: "127.0.0.1:9464", "[::1]:9464" or "unix:/path". */
CEDE_MUST_USE int scrape_start(const char *address, struct scrape **ret, struct cede_error *reterr);
void scrape_update(struct scrape *s, struct slice text); /* copied */
void scrape_stop(struct scrape *s);                      /* NULL allowed */
