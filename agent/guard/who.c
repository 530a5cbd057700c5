/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/guard/who.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/parse.h"

int who_open(int *ret_procfd, struct cede_error *reterr) {
	int fd = openat(AT_FDCWD, "/proc", O_PATH | O_DIRECTORY | O_CLOEXEC);

	if (fd < 0)
		return CEDE_FAIL_SYS(reterr, "open /proc");
	*ret_procfd = fd;
	return CEDE_OK;
}

/* "Uid:\treal\teffective\t..." */
uint32_t who_uid_in(const char *status) {
	const char *line = strstr(status, "\nUid:\t");
	uint64_t uid;

	if (line == NULL)
		return UINT32_MAX;
	const char *effective = strchr(line + 6, '\t');
	if (effective == NULL)
		return UINT32_MAX;
	effective++;
	size_t n = strspn(effective, "0123456789");
	if (parse_u64(slice_of(effective, n), 0, UINT32_MAX, &uid, NULL) < 0)
		return UINT32_MAX;
	return (uint32_t)uid;
}

/* /proc/PID itself belongs to root when its process is not dumpable, so its owner says nothing. */
static uint32_t uid_of(int procfd, pid_t pid) {
	char name[32], text[2048];

	(void)snprintf(name, sizeof name, "%d/status", pid);
	CLEANUP(fd_closep) int fd = openat(procfd, name, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return UINT32_MAX;
	ssize_t n = read(fd, text, sizeof text - 1);
	if (n < 0)
		return UINT32_MAX;
	text[n] = 0;
	return who_uid_in(text);
}

struct who who_is(int procfd, pid_t pid) {
	struct who who = {.pid = pid, .uid = UINT32_MAX};
	struct statx st;
	char name[32];

	if (pid <= 0) /* of a namespace that we do not see */
		return who;
	(void)snprintf(name, sizeof name, "%d/exe", pid);
	/* DONT_SYNC: a program on a network file system must not make us wait for its server */
	if (statx(procfd, name, AT_STATX_DONT_SYNC, STATX_INO, &st) == 0) {
		who.dev = makedev(st.stx_dev_major, st.stx_dev_minor);
		who.ino = st.stx_ino;
	}
	who.uid = uid_of(procfd, pid);
	return who;
}

void who_program(int procfd, pid_t pid, char *out, size_t size) {
	char name[32];

	(void)snprintf(name, sizeof name, "%d/exe", pid);
	ssize_t n = pid > 0 ? readlinkat(procfd, name, out, size - 1) : -1;
	if (n < 0)
		n = snprintf(out, size, "?");
	out[n] = 0;
}
