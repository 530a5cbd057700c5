/* SPDX-License-Identifier: Apache-2.0 */
#include "base/listen.h"

#include <fcntl.h>
#include <sys/socket.h>

#include "base/cleanup.h"

#define OURS_FROM 10

int listen_check(int fd, struct cede_error *reterr) {
	int type = 0, listens = 0;
	socklen_t size = sizeof type;

	if (getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &size) < 0)
		return CEDE_FAIL(reterr, CEDE_ERR_INPUT, "descriptor %d is no socket", fd);
	size = sizeof listens;
	if (type != SOCK_STREAM || getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listens, &size) < 0 ||
		listens == 0)
		return CEDE_FAIL(reterr, CEDE_ERR_INPUT,
			"descriptor %d is no stream socket that listens (ListenStream= in the .socket unit, Accept=no)",
			fd);
	return CEDE_OK;
}

int listen_take(int passed, int *ret_fd, struct cede_error *reterr) {
	CLEANUP(fd_closep) int fd = passed;

	if (fd < 0)
		return CEDE_FAIL(reterr, CEDE_ERR_INPUT,
			"metrics: systemd: no socket with the name metrics was passed (FileDescriptorName=metrics in the .socket unit)");
	CEDE_TRY(listen_check(fd, reterr));
	int moved = fcntl(fd, F_DUPFD_CLOEXEC, OURS_FROM);
	if (moved < 0)
		return CEDE_FAIL_SYS(reterr, "descriptor %d", fd);
	*ret_fd = moved;
	return CEDE_OK;
}
