/* SPDX-License-Identifier: Apache-2.0
 * Everything a client may take of the receiver, in one place. */
#pragma once

#define LIMIT_BUNDLE_DEFAULT    (UINT64_C(80) << 20) /* bytes of one sealed bundle */
#define LIMIT_BUNDLE_LEAST      (UINT64_C(1) << 20)
#define LIMIT_BUNDLE_MOST       (UINT64_C(1) << 30)
#define LIMIT_SOCKET_PATH       108U /* of a UNIX socket, with its end */
#define LIMIT_CONNECTIONS       512U /* at once, in all */
#define LIMIT_CONNECTIONS_PEER  64U  /* of one address */
#define LIMIT_CONNECTIONS_HOST  32U  /* of one host; an agent makes 8 */
#define LIMIT_CONNECTIONS_SPARE 64U  /* fewer places left: who needs none goes (visitors.h) */
#define LIMIT_HEAD_S            20   /* from the connect to the end of the headers */
#define LIMIT_IDLE_S            30   /* a connection that neither sends nor reads */
#define LIMIT_BODY_S            60   /* in which at least ... */
#define LIMIT_BODY_LEAST        (UINT64_C(30) << 10) /* ... so much of a body comes, or the rest of it */
#define LIMIT_BODY_SLOW         (UINT64_C(16) << 10) /* bytes a second: slower ones make place */
#define LIMIT_QUIET_S           5 /* an upload silent for so long ends when its host asks anew */
#define LIMIT_SWALLOWED         (UINT64_C(1) << 20) /* of a body that was refused before it came */
#define LIMIT_REFUSED_S         10 /* for what still comes of a refused body, and ... */
#define LIMIT_REFUSED_SLOWEST   (UINT64_C(256) << 10) /* ... one second more for so many bytes */
#define LIMIT_HEADERS           32768U /* memory of one connection: request line, headers, buffers */
#define LIMIT_UPLOADS           64     /* in progress at once */
#define LIMIT_UPLOADS_HOST      16     /* of one host; an agent makes 8 */
#define LIMIT_THREADS           4U
#define LIMIT_FILES             2048U /* descriptors: connections, uploads and their folders */
#define LIMIT_STOP_MS           5000  /* uploads in progress get this long at the end */
