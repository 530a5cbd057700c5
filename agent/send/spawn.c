/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/send/spawn.h"

#include <fcntl.h>
#include <grp.h>
#include <pwd.h>
#include <signal.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"

#define CHILD_FD 3

/* In the child of a process with threads: only async-signal-safe calls. */
__attribute__((noreturn)) static void run_child(
	const char *path, int fd, const struct passwd *user, const char *metrics) {
	static char *const no_environment[] = {NULL};
	const char *words[] = {
		"cede-courier", "--fd", "3", metrics == NULL ? NULL : "--metrics", metrics, NULL};
	char *argv[6];
	sigset_t none;

	(void)sigemptyset(&none);
	(void)sigprocmask(SIG_SETMASK, &none, NULL);
	if (fd == CHILD_FD) {
		if (fcntl(fd, F_SETFD, 0) < 0)
			_exit(126);
	} else if (dup2(fd, CHILD_FD) < 0) {
		_exit(126);
	}
	if (syscall(SYS_close_range, CHILD_FD + 1, ~0U, 0) < 0)
		_exit(126);
	if (user != NULL &&
		(setgroups(0, NULL) < 0 || setgid(user->pw_gid) < 0 || setuid(user->pw_uid) < 0))
		_exit(125);
	memcpy(argv, words, sizeof argv);
	(void)execve(path, argv, no_environment);
	_exit(127);
}

int spawn_courier(const char *path, const char *user, const char *metrics, struct spawned *ret,
	struct cede_error *reterr) {
	CLEANUP(fd_closep) int ours = -1;
	CLEANUP(fd_closep) int theirs = -1;
	struct passwd entry, *found = NULL;
	char names[4096];
	int pair[2];

	if (user != NULL &&
		(getpwnam_r(user, &entry, names, sizeof names, &found) != 0 || found == NULL))
		return CEDE_FAIL(reterr, CEDE_ERR_INPUT, "courier_user: there is no user %s", user);
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) < 0)
		return CEDE_FAIL_SYS(reterr, "socket for the courier");
	ours = pair[0];
	theirs = pair[1];
	pid_t pid = fork();
	if (pid < 0)
		return CEDE_FAIL_SYS(reterr, "start the courier");
	if (pid == 0)
		run_child(path, theirs, found, metrics);
	int pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
	if (pidfd < 0) {
		int r = CEDE_FAIL_SYS(reterr, "watch the courier");
		(void)kill(pid, SIGKILL);
		(void)waitpid(pid, NULL, 0);
		return r;
	}
	(void)fcntl(pidfd, F_SETFD, FD_CLOEXEC);
	*ret = (struct spawned){.pid = pid, .pidfd = pidfd, .socket = CEDE_TAKE_FD(ours)};
	return CEDE_OK;
}
