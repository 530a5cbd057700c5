/* SPDX-License-Identifier: Apache-2.0
 * Who is connected, and how long each may take: limits that hold against clients that do nothing,
 * or very little.
 *
 * Owns    a place for each connection, and a thread that looks at them each second.
 * Promise whatever a client trickles, each thing it does has a deadline: to ask (with the TLS
 *         handshake), to send the next part of the body it announced, to take its answer; a short
 *         one for a body that is thrown away. One address has so many places, and so has one host,
 * behind a front as well. When places get short, one connection makes room for each that comes, so
 * that crowds don't shut honest hosts out: the oldest that was refused; if there is none, the
 * oldest of those that never asked for anything or of those that wait between two requests,
 * whichever are more. Thread  any. */
#pragma once

#include <microhttpd.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "formats/id.h"

struct visitors;

/* by_address: false where all come from one front. */
CEDE_MUST_USE int visitors_new(bool by_address, struct visitors **ret, struct cede_error *reterr);
void visitors_free(struct visitors *v); /* when the daemon has stopped; NULL allowed */

/* From now on nobody is let in; who is here may go on. (MHD_quiesce_daemon() is not for this: it
 * and a worker that a new connection wakes up both take the listening socket out of the worker's
 * epoll set, and whoever comes second ends the process.) */
void visitors_shut(struct visitors *v);

enum visit {
	VISIT_ASKING,  /* handshake and headers */
	VISIT_SENDING, /* a body */
	VISIT_REFUSED, /* a body that nobody wants: its answer is known */
	VISIT_WAITING, /* for us: no deadline */
	VISIT_TAKING,  /* the answer */
};

/* The host that asks on this connection, known from now on. False: it has too many of them. */
bool visitors_host(struct visitors *v, struct MHD_Connection *connection, const char *host);
/* What the client does now. length: of what is to come of its body. */
void visitors_now(
	struct visitors *v, struct MHD_Connection *connection, enum visit now, uint64_t length);
/* So much of its body has come. However long a body takes, it is not cut as long as enough of it
 * comes: the host's link may be no better. */
void visitors_sent(struct visitors *v, struct MHD_Connection *connection, uint64_t length);
/* All uploads (of this host) that may be in progress are: the slowest (of it) is cut, if it is slow. */
void visitors_make_place(struct visitors *v, const char *host);
/* What it sends is this bundle. */
void visitors_bundle(struct visitors *v, struct MHD_Connection *connection, const struct id *bundle);
/* The host asks, elsewhere, for a bundle that is being uploaded: its link broke without a word to
 * us, as when its address changed. An upload of it from which nothing comes any more is cut, and
 * with it the host's others that fell silent then or before. */
void visitors_asked_anew(struct visitors *v, const char *host, const struct id *bundle);
/* For MHD_OPTION_NOTIFY_CONNECTION, with the visitors as its context. */
void visitors_notify(void *visitors, struct MHD_Connection *connection, void **place,
	enum MHD_ConnectionNotificationCode code);
