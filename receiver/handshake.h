/* SPDX-License-Identifier: Apache-2.0
 * The server tried once by a client of its own, before the service manager hears that it is ready.
 * The TLS library passes over what it could not set up (a CA that it had no memory for): such a
 * server listens and refuses every agent until somebody starts it again.
 *
 * Thread  any but the daemon's own. */
#pragma once

#include <microhttpd.h>

#include "base/bytes.h"
#include "base/error.h"

/* A TLS 1.3 handshake (RFC 8446) over a socket pair: it must come to its end, and the server must
 * ask for a certificate of each CA in ca (PEM; section 4.2.4). The daemon takes connections from
 * MHD_add_connection(). CRYPTO says what went wrong. */
CEDE_MUST_USE int handshake_try(
	struct MHD_Daemon *daemon, struct slice ca, struct cede_error *reterr);
