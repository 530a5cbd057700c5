/* SPDX-License-Identifier: Apache-2.0
 * Everything a client may take of the receiver, in one place. */
#pragma once

#define LIMIT_BUNDLE_DEFAULT   (UINT64_C(80) << 20) /* bytes of one sealed bundle */
#define LIMIT_CONNECTIONS      64U                  /* at once, in all */
#define LIMIT_CONNECTIONS_PEER 32U                  /* of one address */
#define LIMIT_IDLE_S           30U                  /* a connection that neither sends nor reads */
#define LIMIT_HEADERS          32768U /* memory of one connection: request line, headers, buffers */
#define LIMIT_UPLOADS          64     /* in progress at once */
#define LIMIT_THREADS          4U
#define LIMIT_STOP_MS          5000 /* uploads in progress get this long at the end */
