/* SPDX-License-Identifier: Apache-2.0
 * Tells the service manager how it goes: sd_notify(3)'s datagrams, by hand.
 *
 * Owns    one datagram socket, made by notify_init(): nothing has to be opened once a sandbox is
 * up. Promise without NOTIFY_SOCKET nothing happens; a manager that does not listen is no reason to
 *         fail. Signs of life and status never wait; the others wait a second at most.
 * Thread  any, one at a time. */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/un.h>

struct notify {
	int fd; /* -1: nobody to tell */
	struct sockaddr_un to;
	socklen_t to_len;
	int64_t watchdog_ns; /* a sign of life is expected at least this often; 0: none */
	char status[200];    /* the last one sent */
};

/* Reads NOTIFY_SOCKET (a path, or @abstract), WATCHDOG_USEC and WATCHDOG_PID. */
void notify_init(struct notify *n);
void notify_done(struct notify *n);

void notify_ready(struct notify *n);
/* The configuration is being read anew; notify_ready() ends it. */
void notify_reloading(struct notify *n);
void notify_stopping(struct notify *n);
/* A sign of life. Only where real work was just seen to get on. */
void notify_watchdog(struct notify *n);
/* One line for `systemctl status`; never names of captures. The same line again is not sent. */
void notify_status(struct notify *n, const char *text);
/* Asks the manager to keep a duplicate of the descriptor (FileDescriptorStoreMax=): it comes back
 * under this name (base/passed.h) when the service starts again. False: nobody took it. */
bool notify_store(struct notify *n, int fd, const char *name);
/* The manager forgets all descriptors of this name. */
void notify_store_remove(struct notify *n, const char *name);
