/* SPDX-License-Identifier: Apache-2.0 */
#include <poll.h>
#include <pwd.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "agent/send/spawn_internal.h"
#include "base/check.h"
#include "base/cleanup.h"

#define ANSWER_MS 5000

struct spawner {
	int socket;
	pid_t pid;
};

/* Unless another is named: the one that the package makes, where it is there. */
static int find_user(const char *name, struct spawn_courier *c, struct cede_error *reterr) {
	struct passwd entry, *found = NULL;
	char names[4096];

	if (name == NULL && geteuid() != 0)
		return CEDE_OK;
	(void)getpwnam_r(name == NULL ? SPAWN_USER : name, &entry, names, sizeof names, &found);
	if (found == NULL && name == NULL)
		return CEDE_OK;
	if (found == NULL)
		return CEDE_FAIL(reterr, CEDE_ERR_INPUT, "courier_user: there is no user %s", name);
	c->as_user = found->pw_uid != geteuid();
	c->uid = found->pw_uid;
	c->gid = found->pw_gid;
	return CEDE_OK;
}

int spawner_start(const struct spawner_setup *setup, struct spawner **ret, struct cede_error *reterr) {
	CLEANUP(fd_closep) int ours = -1;
	CLEANUP(fd_closep) int theirs = -1;
	CLEANUP(freep) struct spawner *s = calloc(1, sizeof *s);
	struct spawn_courier c = {.path = setup->courier,
		.guard = setup->guard,
		.metrics = setup->metrics,
		.metrics_fd = setup->metrics_fd,
		.log_level = log_level_name(setup->log_level)};
	pid_t keeper = getpid();
	int pair[2];

	if (s == NULL)
		return CEDE_FAIL_MEMORY(reterr);
	CEDE_TRY(find_user(setup->user, &c, reterr));
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
		return CEDE_FAIL_SYS(reterr, "socket for the spawner");
	ours = pair[0];
	theirs = pair[1];
	s->pid = fork();
	if (s->pid < 0)
		return CEDE_FAIL_SYS(reterr, "start the spawner");
	if (s->pid == 0)
		spawner_run(theirs, keeper, &c);
	s->socket = CEDE_TAKE_FD(ours);
	*ret = CEDE_TAKE(s);
	return CEDE_OK;
}

int spawner_fd(const struct spawner *s) {
	return s->socket;
}

/* The two descriptors that come with a courier; closed on exec, though nothing is executed. */
static bool take_fds(struct msghdr *m, int ret[2]) {
	const struct cmsghdr *c = CMSG_FIRSTHDR(m);

	if (c == NULL || c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS ||
		c->cmsg_len != CMSG_LEN(2 * sizeof(int)))
		return false;
	memcpy(ret, CMSG_DATA(c), 2 * sizeof(int));
	return true;
}

/* It answers within a moment: it does nothing else. */
static int ask(struct spawner *s, const struct spawn_request *q, struct spawn_reply *ret,
	int fds[2], struct cede_error *reterr) {
	union {
		struct cmsghdr align;
		char bytes[CMSG_SPACE(2 * sizeof(int))];
	} control;
	struct iovec part = {.iov_base = ret, .iov_len = sizeof *ret};
	struct msghdr m = {.msg_iov = &part,
		.msg_iovlen = 1,
		.msg_control = control.bytes,
		.msg_controllen = sizeof control.bytes};
	ssize_t n;

	do
		n = send(s->socket, q, sizeof *q, MSG_NOSIGNAL);
	while (n < 0 && errno == EINTR);
	if (n < 0)
		return CEDE_FAIL_SYS(reterr, "the spawner is gone");
	while ((n = recvmsg(s->socket, &m, MSG_CMSG_CLOEXEC)) < 0 &&
		(errno == EINTR || errno == EAGAIN)) {
		struct pollfd p = {
			.fd = s->socket, .events = POLLIN}; /* the loop made it non-blocking */
		if (errno == EAGAIN && poll(&p, 1, ANSWER_MS) == 0)
			return CEDE_FAIL(reterr, CEDE_ERR_IO, "the spawner does not answer");
	}
	if (n < 0)
		return CEDE_FAIL_SYS(reterr, "the spawner's answer");
	if (n != (ssize_t)sizeof *ret || (fds != NULL && ret->error == 0 && !take_fds(&m, fds)))
		return CEDE_FAIL(reterr, CEDE_ERR_IO, "the spawner is gone");
	return CEDE_OK;
}

int spawn_courier(struct spawner *s, const uint16_t *ports, size_t port_count, struct spawned *ret,
	struct cede_error *reterr) {
	struct spawn_request q = {.op = SPAWN_START, .port_count = (uint32_t)port_count};
	struct spawn_reply answer;
	int fds[2] = {-1, -1};

	require(port_count <= SPAWN_PORTS_MAX);
	memcpy(q.ports, ports, port_count * sizeof *ports);
	CEDE_TRY(ask(s, &q, &answer, fds, reterr));
	if (answer.error != 0) {
		errno = answer.error;
		return CEDE_FAIL_SYS(reterr, "start the courier");
	}
	*ret = (struct spawned){.pid = answer.pid, .socket = fds[0], .pidfd = fds[1]};
	return CEDE_OK;
}

int spawn_guard(struct spawner *s, struct spawned *ret, struct cede_error *reterr) {
	const struct spawn_request q = {.op = SPAWN_START_GUARD};
	struct spawn_reply answer;
	int fds[2] = {-1, -1};

	CEDE_TRY(ask(s, &q, &answer, fds, reterr));
	if (answer.error != 0) {
		errno = answer.error;
		return CEDE_FAIL_SYS(reterr, "start the guard");
	}
	*ret = (struct spawned){.pid = answer.pid, .socket = fds[0], .pidfd = fds[1]};
	return CEDE_OK;
}

int spawn_kill_guard(struct spawner *s, struct cede_error *reterr) {
	const struct spawn_request q = {.op = SPAWN_KILL_GUARD};
	struct spawn_reply answer;

	return ask(s, &q, &answer, NULL, reterr);
}

int spawn_kill(struct spawner *s, struct cede_error *reterr) {
	const struct spawn_request q = {.op = SPAWN_KILL};
	struct spawn_reply answer;

	return ask(s, &q, &answer, NULL, reterr);
}

void spawner_stop(struct spawner *s) {
	if (s == NULL)
		return;
	(void)close(s->socket); /* it ends at that */
	while (waitpid(s->pid, NULL, 0) < 0 && errno == EINTR)
		continue;
	free(s);
}
