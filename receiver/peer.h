/* SPDX-License-Identifier: Apache-2.0
 * Who is the client: the host id that its certificate proves. Asked before any body is taken. */
#pragma once

#include <microhttpd.h>
#include <sys/types.h>

#include "formats/id.h"

struct peer_rules {
	bool front;      /* behind a front: the subject comes in a header, over the UNIX socket */
	uid_t front_uid; /* who may be the front, besides root and ourselves */
};

/* REFUSED says why in words fit for the log. */
CEDE_MUST_USE int peer_host(const struct peer_rules *rules, struct MHD_Connection *connection,
	char host[HOST_ID_MAX + 1], struct cede_error *reterr);
/* The one CN of an RFC 4514 or OpenSSL-style subject ("CN=x,O=y", "/O=y/CN=x"). Fuzzed. */
CEDE_MUST_USE int peer_subject(
	struct slice subject, char host[HOST_ID_MAX + 1], struct cede_error *reterr);
