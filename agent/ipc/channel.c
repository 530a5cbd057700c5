/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/ipc/channel.h"

#include <sys/socket.h>
#include <unistd.h>

#include "base/check.h"

int channel_send(int socket, const struct ipc_writer *w, const int *fds, size_t fd_count,
	struct cede_error *reterr) {
	union {
		struct cmsghdr align;
		char bytes[CMSG_SPACE(IPC_FDS_MAX * sizeof(int))];
	} control = {0};
	struct iovec part = {.iov_len = w->len};
	struct msghdr m = {.msg_iov = &part, .msg_iovlen = 1};
	ssize_t n;

	require(!w->too_long && fd_count <= IPC_FDS_MAX);
	memcpy(&part.iov_base, &(const void *){w->bytes}, sizeof part.iov_base);
	if (fd_count > 0) {
		m.msg_control = control.bytes;
		m.msg_controllen = CMSG_SPACE(fd_count * sizeof(int));
		struct cmsghdr *c = CMSG_FIRSTHDR(&m);
		c->cmsg_level = SOL_SOCKET;
		c->cmsg_type = SCM_RIGHTS;
		c->cmsg_len = CMSG_LEN(fd_count * sizeof(int));
		memcpy(CMSG_DATA(c), fds, fd_count * sizeof(int));
	}
	do
		n = sendmsg(socket, &m, MSG_NOSIGNAL | MSG_DONTWAIT);
	while (n < 0 && errno == EINTR);
	if (n >= 0)
		return CEDE_OK;
	if (errno == EAGAIN || errno == ENOBUFS || errno == ETOOMANYREFS)
		return CEDE_FAIL(reterr, CEDE_ERR_BUSY, "the other side does not read");
	if (errno == EPIPE || errno == ECONNRESET)
		return CEDE_FAIL(reterr, CEDE_ERR_REFUSED, "the other side is gone");
	return CEDE_FAIL_SYS(reterr, "send a message");
}

static void take_fds(struct msghdr *m, struct ipc_packet *ret, bool *ret_too_many) {
	for (struct cmsghdr *c = CMSG_FIRSTHDR(m); c != NULL; c = CMSG_NXTHDR(m, c)) {
		if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
			continue;
		size_t n = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
		for (size_t i = 0; i < n; i++) {
			int fd;
			memcpy(&fd, CMSG_DATA(c) + i * sizeof fd, sizeof fd);
			if (ret->fd_count < IPC_FDS_MAX) {
				ret->fds[ret->fd_count++] = fd;
			} else {
				(void)close(fd);
				*ret_too_many = true;
			}
		}
	}
}

int channel_receive(int socket, struct ipc_packet *ret, struct cede_error *reterr) {
	union {
		struct cmsghdr align;
		char bytes[CMSG_SPACE(2 * IPC_FDS_MAX * sizeof(int))];
	} control;
	struct iovec part = {.iov_base = ret->bytes, .iov_len = sizeof ret->bytes};
	struct msghdr m = {.msg_iov = &part,
		.msg_iovlen = 1,
		.msg_control = control.bytes,
		.msg_controllen = sizeof control.bytes};
	bool too_many = false;
	ssize_t n;

	ret->fd_count = 0;
	do
		n = recvmsg(socket, &m, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
	while (n < 0 && errno == EINTR);
	if (n < 0 && errno == EAGAIN)
		return CEDE_FAIL(reterr, CEDE_ERR_BUSY, "nothing there");
	if (n < 0 && errno != ECONNRESET)
		return CEDE_FAIL_SYS(reterr, "receive a message");
	if (n <= 0)
		return CEDE_FAIL(reterr, CEDE_ERR_REFUSED, "the other side is gone");
	ret->len = (size_t)n;
	take_fds(&m, ret, &too_many);
	if (too_many || (m.msg_flags & (MSG_TRUNC | MSG_CTRUNC)) != 0) {
		channel_discard(ret);
		return CEDE_FAIL(
			reterr, CEDE_ERR_INPUT, "message: cut short, or too many descriptors");
	}
	return CEDE_OK;
}

void channel_discard(struct ipc_packet *packet) {
	for (size_t i = 0; i < packet->fd_count; i++)
		if (packet->fds[i] >= 0)
			(void)close(packet->fds[i]);
	packet->fd_count = 0;
}
