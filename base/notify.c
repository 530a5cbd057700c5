/* SPDX-License-Identifier: Apache-2.0 */
#include "base/notify.h"

#include <inttypes.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/parse.h"

#define WAIT_S 1

/* A path, or the name of an abstract socket behind an @; anything else is not ours to guess at. */
static bool address_of(const char *text, struct sockaddr_un *to, socklen_t *len) {
	size_t n = text == NULL ? 0 : strlen(text);

	if (n < 2 || n >= sizeof to->sun_path || (text[0] != '/' && text[0] != '@'))
		return false;
	*to = (struct sockaddr_un){.sun_family = AF_UNIX};
	memcpy(to->sun_path, text, n);
	if (text[0] == '@')
		to->sun_path[0] = 0;
	*len = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + n);
	return true;
}

/* WATCHDOG_PID, if it is there, says whom the manager means. */
static int64_t watchdog_of(const char *usec, const char *pid) {
	uint64_t us, id;

	if (usec == NULL || parse_u64(slice_str(usec), 1, INT64_MAX / 1000, &us, NULL) < 0)
		return 0;
	if (pid != NULL &&
		(parse_u64(slice_str(pid), 1, INT32_MAX, &id, NULL) < 0 || (pid_t)id != getpid()))
		return 0;
	return (int64_t)us * 1000;
}

void notify_init(struct notify *n) {
	struct timeval wait = {.tv_sec = WAIT_S};

	*n = (struct notify){.fd = -1};
	if (!address_of(getenv("NOTIFY_SOCKET"), &n->to, &n->to_len))
		return;
	n->fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (n->fd < 0)
		return;
	(void)setsockopt(n->fd, SOL_SOCKET, SO_SNDTIMEO, &wait, sizeof wait);
	n->watchdog_ns = watchdog_of(getenv("WATCHDOG_USEC"), getenv("WATCHDOG_PID"));
}

void notify_done(struct notify *n) {
	fd_closep(&n->fd);
}

static bool send_with(struct notify *n, const char *text, int passed, int flags) {
	union {
		struct cmsghdr head;
		char room[CMSG_SPACE(sizeof passed)];
	} control = {.room = {0}};
	struct iovec part = {.iov_base = (void *)(uintptr_t)text, .iov_len = strlen(text)};
	struct msghdr m = {
		.msg_name = &n->to, .msg_namelen = n->to_len, .msg_iov = &part, .msg_iovlen = 1};

	if (n->fd < 0)
		return false;
	if (passed >= 0) {
		m.msg_control = &control;
		m.msg_controllen = sizeof control.room;
		control.head.cmsg_level = SOL_SOCKET;
		control.head.cmsg_type = SCM_RIGHTS;
		control.head.cmsg_len = CMSG_LEN(sizeof passed);
		memcpy(CMSG_DATA(&control.head), &passed, sizeof passed);
	}
	return sendmsg(n->fd, &m, MSG_NOSIGNAL | flags) >= 0;
}

static void send_text(struct notify *n, const char *text) {
	bool sent = send_with(n, text, -1, 0);

	(void)sent;
}

void notify_ready(struct notify *n) {
	send_text(n, "READY=1");
}

void notify_reloading(struct notify *n) {
	struct timespec now;
	char text[80];

	(void)clock_gettime(CLOCK_MONOTONIC, &now); /* not boot time: sd_notify(3) */
	(void)snprintf(text, sizeof text, "RELOADING=1\nMONOTONIC_USEC=%" PRId64,
		clock_ns_of(&now) / 1000);
	send_text(n, text);
}

void notify_stopping(struct notify *n) {
	send_text(n, "STOPPING=1");
}

void notify_watchdog(struct notify *n) {
	bool sent = send_with(n, "WATCHDOG=1", -1, MSG_DONTWAIT);

	(void)sent; /* the next one follows in a moment */
}

void notify_status(struct notify *n, const char *text) {
	char line[sizeof n->status + 8];

	if (n->fd < 0 || strncmp(n->status, text, sizeof n->status - 1) == 0)
		return;
	(void)snprintf(n->status, sizeof n->status, "%s", text);
	(void)snprintf(line, sizeof line, "STATUS=%s", n->status);
	for (char *c = line; *c != 0; c++)
		if ((unsigned char)*c < 0x20 || *c == 0x7f)
			*c = '?'; /* a line end would begin another assignment */
	if (!send_with(n, line, -1, MSG_DONTWAIT))
		n->status[0] = 0;
}

bool notify_store(struct notify *n, int fd, const char *name) {
	char text[300];

	(void)snprintf(text, sizeof text, "FDSTORE=1\nFDNAME=%.200s", name);
	return send_with(n, text, fd, 0);
}

void notify_store_remove(struct notify *n, const char *name) {
	char text[300];

	(void)snprintf(text, sizeof text, "FDSTOREREMOVE=1\nFDNAME=%.200s", name);
	send_text(n, text);
}
