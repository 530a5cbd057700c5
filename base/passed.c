/* SPDX-License-Identifier: Apache-2.0 */
#include "base/passed.h"

#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/parse.h"

#define FIRST_FD 3 /* SD_LISTEN_FDS_START */

static size_t count_of(const char *pid, const char *fds) {
	uint64_t id, n;

	if (pid == NULL || fds == NULL || parse_u64(slice_str(pid), 1, INT32_MAX, &id, NULL) < 0 ||
		(pid_t)id != getpid() || parse_u64(slice_str(fds), 1, INT16_MAX, &n, NULL) < 0)
		return 0;
	return (size_t)n;
}

/* The names stand between colons, one for each descriptor; without one it is "unknown". */
static const char *next_name(const char *at, char ret[PASSED_NAME_MAX + 1]) {
	size_t len = at == NULL ? 0 : strcspn(at, ":");

	if (len == 0 || len > PASSED_NAME_MAX) {
		memcpy(ret, "unknown", sizeof "unknown");
	} else {
		memcpy(ret, at, len);
		ret[len] = 0;
	}
	return at == NULL || at[len] == 0 ? NULL : at + len + 1;
}

void passed_init(struct passed *p) {
	size_t n = count_of(getenv("LISTEN_PID"), getenv("LISTEN_FDS"));
	const char *names = getenv("LISTEN_FDNAMES");

	p->count = 0;
	for (size_t i = 0; i < n; i++) {
		int fd = FIRST_FD + (int)i;
		int flags = fcntl(fd, F_GETFD);
		if (flags < 0)
			return; /* the manager does not pass what it says */
		(void)fcntl(fd, F_SETFD, flags | FD_CLOEXEC);
		if (i >= PASSED_MAX)
			continue;
		names = next_name(names, p->list[i].name);
		p->list[i].fd = fd;
		p->count++;
	}
}

int passed_take(struct passed *p, const char *name) {
	for (size_t i = 0; i < p->count; i++)
		if (p->list[i].fd >= 0 && strcmp(p->list[i].name, name) == 0)
			return CEDE_TAKE_FD(p->list[i].fd);
	return -1;
}

void passed_done(struct passed *p) {
	for (size_t i = 0; i < p->count; i++)
		fd_closep(&p->list[i].fd);
}
