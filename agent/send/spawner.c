/* SPDX-License-Identifier: Apache-2.0
 * The process that starts courier and guard. It reads nothing but requests of one size, and holds
 * nothing but its socket and descriptors of the two processes. */
#include <fcntl.h>
#include <grp.h>
#include <linux/capability.h>
#include <linux/sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "agent/send/spawn_internal.h"
#include "base/cleanup.h"
#include "base/sandbox.h"

#define CHILD_FD   3
#define SPAWNER_FD 3
#define METRICS_FD 4 /* of both; if one was passed */
#define WORDS_MAX  (8 + 2 * SPAWN_PORTS_MAX)

#define CAP(name) (1ULL << CAP_##name)

/* What it takes to become the courier's user and to end it; and what the guard is to have, or gives
 * up itself once it is at the front of the queue and cannot be swapped out: no privileges are
 * gained through exec. */
#define SPAWNER_CAPABILITIES                                                        \
	(CAP(SETUID) | CAP(SETGID) | CAP(KILL) | CAP(SYS_ADMIN) | CAP(SYS_PTRACE) | \
		CAP(DAC_READ_SEARCH) | CAP(SYS_NICE) | CAP(IPC_LOCK))

__attribute__((noreturn)) static void run_child(
	const struct spawn_courier *c, const struct spawn_request *q, int fd) {
	static char *const no_environment[] = {NULL};
	static char name[] = "cede-courier", fd_option[] = "--fd", fd_text[] = "3";
	static char metrics_option[] = "--metrics", port_option[] = "--port";
	static char level_option[] = "--log-level";
	char ports[SPAWN_PORTS_MAX][8], metrics[256], level[16];
	char *argv[WORDS_MAX];
	bool has_socket = c->metrics_fd >= 0;
	size_t n = 0;
	sigset_t none;

	(void)sigemptyset(&none);
	(void)sigprocmask(SIG_SETMASK, &none, NULL);
	argv[n++] = name;
	argv[n++] = fd_option;
	argv[n++] = fd_text;
	(void)snprintf(level, sizeof level, "%s", c->log_level);
	argv[n++] = level_option;
	argv[n++] = level;
	if (c->metrics != NULL) {
		(void)snprintf(metrics, sizeof metrics, "%s", has_socket ? "fd:4" : c->metrics);
		argv[n++] = metrics_option;
		argv[n++] = metrics;
	}
	for (size_t i = 0; i < q->port_count; i++) {
		(void)snprintf(ports[i], sizeof ports[i], "%u", q->ports[i]);
		argv[n++] = port_option;
		argv[n++] = ports[i];
	}
	argv[n] = NULL;
	/* the spawner's own end of things stays behind: it is closed on exec, or replaced here */
	if (dup2(fd, CHILD_FD) < 0 || (has_socket && fcntl(METRICS_FD, F_SETFD, 0) < 0) ||
		syscall(SYS_close_range, (has_socket ? METRICS_FD : CHILD_FD) + 1, ~0U, 0) < 0)
		_exit(126);
	if (c->as_user && (setgroups(0, NULL) < 0 || setgid(c->gid) < 0 || setuid(c->uid) < 0))
		_exit(125);
	(void)execve(c->path, argv, no_environment);
	_exit(127);
}

__attribute__((noreturn)) static void run_guard(const struct spawn_courier *c, int fd) {
	static char *const no_environment[] = {NULL};
	static char name[] = "cede-guard", fd_option[] = "--fd", fd_text[] = "3";
	static char level_option[] = "--log-level";
	char level[16];
	char *const argv[] = {name, fd_option, fd_text, level_option, level, NULL};
	sigset_t none;

	(void)snprintf(level, sizeof level, "%s", c->log_level);

	(void)sigemptyset(&none);
	(void)sigprocmask(SIG_SETMASK, &none, NULL);
	if (dup2(fd, CHILD_FD) < 0 || syscall(SYS_close_range, CHILD_FD + 1, ~0U, 0) < 0)
		_exit(126);
	(void)execve(c->guard, argv, no_environment);
	_exit(127);
}

static void kill_child(int *pidfd) {
	if (*pidfd >= 0)
		(void)syscall(SYS_pidfd_send_signal, *pidfd, SIGKILL, NULL, 0);
	fd_closep(pidfd);
}

/* 0 or an errno. */
static int start_child(const struct spawn_courier *c, const struct spawn_request *q, int *pidfd,
	int *ret_socket, pid_t *ret_pid) {
	CLEANUP(fd_closep) int ours = -1;
	CLEANUP(fd_closep) int theirs = -1;
	int pair[2];

	kill_child(pidfd);
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) < 0)
		return errno;
	ours = pair[0];
	theirs = pair[1];
	/* a child of our parent: the keeper's. There is no thread here, so no lock is held */
	pid_t pid = (pid_t)syscall(
		SYS_clone, CLONE_PARENT | CLONE_PIDFD | SIGCHLD, NULL, pidfd, NULL, 0);
	if (pid < 0) {
		*pidfd = -1;
		return errno;
	}
	if (pid == 0 && q->op == SPAWN_START_GUARD)
		run_guard(c, theirs);
	if (pid == 0)
		run_child(c, q, theirs);
	*ret_socket = CEDE_TAKE_FD(ours);
	*ret_pid = pid;
	return 0;
}

static bool reply(int socket, const struct spawn_reply *answer, int child, int pidfd) {
	union {
		struct cmsghdr align;
		char bytes[CMSG_SPACE(2 * sizeof(int))];
	} control = {0};
	struct iovec part = {.iov_len = sizeof *answer};
	struct msghdr m = {.msg_iov = &part, .msg_iovlen = 1};
	const int fds[2] = {child, pidfd};

	memcpy(&part.iov_base, &(const void *){answer}, sizeof part.iov_base);
	if (child >= 0) {
		m.msg_control = control.bytes;
		m.msg_controllen = sizeof control.bytes;
		struct cmsghdr *c = CMSG_FIRSTHDR(&m);
		c->cmsg_level = SOL_SOCKET;
		c->cmsg_type = SCM_RIGHTS;
		c->cmsg_len = CMSG_LEN(sizeof fds);
		memcpy(CMSG_DATA(c), fds, sizeof fds);
	}
	return sendmsg(socket, &m, MSG_NOSIGNAL) == (ssize_t)sizeof *answer;
}

static bool serve(int socket, const struct spawn_courier *c, int *courier, int *guard) {
	struct spawn_request q;
	struct spawn_reply answer = {0};
	CLEANUP(fd_closep) int child = -1;
	ssize_t n;

	do
		n = recv(socket, &q, sizeof q, MSG_TRUNC);
	while (n < 0 && errno == EINTR);
	if (n != (ssize_t)sizeof q || q.port_count > SPAWN_PORTS_MAX)
		return false; /* the keeper is gone, or no keeper of ours */
	int *pidfd = q.op == SPAWN_START || q.op == SPAWN_KILL ? courier : guard;
	if (q.op == SPAWN_KILL || q.op == SPAWN_KILL_GUARD) {
		kill_child(pidfd);
		return reply(socket, &answer, -1, -1);
	}
	if (q.op != SPAWN_START && q.op != SPAWN_START_GUARD)
		return false;
	pid_t pid = 0;
	answer.error = start_child(c, &q, pidfd, &child, &pid);
	answer.pid = pid;
	return reply(socket, &answer, child, *pidfd);
}

void spawner_run(int socket, pid_t keeper, const struct spawn_courier *c) {
	static const int ignored[] = {SIGTERM, SIGINT, SIGHUP, SIGPIPE}; /* the keeper's to handle */
	struct sandbox_report report = {0};
	int courier = -1, guard = -1;

	(void)prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
	if (getppid() != keeper)
		_exit(0);
	(void)prctl(PR_SET_NAME, "cede-spawner", 0, 0, 0);
	for (size_t i = 0; i < sizeof ignored / sizeof ignored[0]; i++)
		(void)signal(ignored[i], SIG_IGN);
	bool has_socket = c->metrics_fd >= 0;
	if (dup2(socket, SPAWNER_FD) < 0 || fcntl(SPAWNER_FD, F_SETFD, FD_CLOEXEC) < 0 ||
		(has_socket && dup3(c->metrics_fd, METRICS_FD, O_CLOEXEC) < 0) ||
		syscall(SYS_close_range, (has_socket ? METRICS_FD : SPAWNER_FD) + 1, ~0U, 0) < 0)
		_exit(126);
	if (sandbox_capabilities(SPAWNER_CAPABILITIES, &report, NULL) < 0)
		_exit(125);
	while (serve(SPAWNER_FD, c, &courier, &guard))
		continue;
	kill_child(&courier); /* the guard stays: it holds captures shut */
	_exit(0);
}
