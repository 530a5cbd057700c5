/* SPDX-License-Identifier: Apache-2.0
 * What the service manager hears and gives: notifications, passed descriptors, credentials. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/check.h"
#include "base/cleanup.h"
#include "base/credential.h"
#include "base/notify.h"
#include "base/passed.h"
#include "tests/unit/unit.h"

/* ---- the manager's end */

struct manager {
	int fd;
	char name[108]; /* as NOTIFY_SOCKET has it */
};

static void manager_init(struct manager *m, bool abstract) {
	struct sockaddr_un at = {.sun_family = AF_UNIX};
	char name[90];

	(void)snprintf(
		name, sizeof name, "%s/cede-notify-%d", abstract ? "@" : "/tmp", (int)getpid());
	memcpy(at.sun_path, name, strlen(name));
	if (abstract)
		at.sun_path[0] = 0;
	m->fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	assert_true(m->fd >= 0);
	assert_int_equal(bind(m->fd, (const struct sockaddr *)&at,
				 (socklen_t)(offsetof(struct sockaddr_un, sun_path) + strlen(name))),
		0);
	(void)snprintf(m->name, sizeof m->name, "%s", name);
	assert_int_equal(setenv("NOTIFY_SOCKET", name, 1), 0);
}

static void manager_done(struct manager *m) {
	if (m->name[0] == '/')
		(void)unlink(m->name);
	fd_closep(&m->fd);
	(void)unsetenv("NOTIFY_SOCKET");
}

/* What came, or "" for nothing; a descriptor beside it goes to *ret_fd. */
static const char *heard(struct manager *m, char text[512], int *ret_fd) {
	union {
		struct cmsghdr head;
		char room[CMSG_SPACE(sizeof(int))];
	} control;
	struct iovec part = {.iov_base = text, .iov_len = 511};
	struct msghdr h = {.msg_iov = &part,
		.msg_iovlen = 1,
		.msg_control = &control,
		.msg_controllen = sizeof control.room};
	ssize_t n = recvmsg(m->fd, &h, MSG_CMSG_CLOEXEC);

	text[n < 0 ? 0 : n] = 0;
	if (ret_fd != NULL) {
		*ret_fd = -1;
		if (n >= 0 && h.msg_controllen > 0)
			memcpy(ret_fd, CMSG_DATA(&control.head), sizeof *ret_fd);
	}
	return text;
}

/* ---- notifications */

static void each_word_arrives(void **state) {
	(void)state;
	for (int abstract = 0; abstract < 2; abstract++) {
		struct manager m;
		struct notify n;
		char text[512];

		manager_init(&m, abstract != 0);
		notify_init(&n);
		notify_ready(&n);
		assert_string_equal(heard(&m, text, NULL), "READY=1");
		notify_stopping(&n);
		assert_string_equal(heard(&m, text, NULL), "STOPPING=1");
		notify_watchdog(&n);
		assert_string_equal(heard(&m, text, NULL), "WATCHDOG=1");
		notify_reloading(&n);
		assert_int_equal(
			strncmp(heard(&m, text, NULL), "RELOADING=1\nMONOTONIC_USEC=", 27), 0);
		assert_true(strtoull(text + 27, NULL, 10) > 0);
		notify_done(&n);
		manager_done(&m);
	}
}

static void status_is_one_line_and_sent_once(void **state) {
	struct manager m;
	struct notify n;
	char text[512], longer[1000];

	(void)state;
	manager_init(&m, true);
	notify_init(&n);
	notify_status(&n, "link up\nREADY=1");
	assert_string_equal(heard(&m, text, NULL), "STATUS=link up?READY=1");
	notify_status(&n, "link up\nREADY=1");
	assert_string_equal(heard(&m, text, NULL), "");
	notify_status(&n, "link down");
	assert_string_equal(heard(&m, text, NULL), "STATUS=link down");
	memset(longer, 'x', sizeof longer - 1);
	longer[sizeof longer - 1] = 0;
	notify_status(&n, longer);
	assert_int_equal(strlen(heard(&m, text, NULL)), 7 + sizeof n.status - 1);
	notify_status(&n, longer);
	assert_string_equal(heard(&m, text, NULL), "");
	notify_done(&n);
	manager_done(&m);
}

static void without_a_manager_nothing_happens(void **state) {
	static const char *const table[] = {NULL, "", "/", "@", "relative", "vsock:2:1234",
		"/nobody/listens/here",
		"/"
		"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
		"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"};

	(void)state;
	for (size_t i = 0; i < ARRAY_LENGTH(table); i++) {
		struct notify n;
		if (table[i] == NULL)
			(void)unsetenv("NOTIFY_SOCKET");
		else
			(void)setenv("NOTIFY_SOCKET", table[i], 1);
		notify_init(&n);
		notify_ready(&n);
		notify_watchdog(&n);
		notify_status(&n, "text");
		assert_false(notify_store(&n, 0, "guard"));
		notify_done(&n);
	}
	(void)unsetenv("NOTIFY_SOCKET");
}

static void the_watchdog_is_for_its_process(void **state) {
	static const struct {
		const char *usec, *pid;
		int64_t ns;
	} table[] = {
		{NULL, NULL, 0},
		{"30000000", NULL, INT64_C(30000000000)},
		{"30000000", "self", INT64_C(30000000000)},
		{"30000000", "1", 0},
		{"30000000", "", 0},
		{"30000000", "self and more", 0},
		{"0", NULL, 0},
		{"-1", NULL, 0},
		{"1e6", NULL, 0},
		{"99999999999999999999", NULL, 0},
		{"9223372036854775807", NULL, 0},
	};
	struct manager m;

	(void)state;
	manager_init(&m, true);
	for (size_t i = 0; i < ARRAY_LENGTH(table); i++) {
		struct notify n;
		char self[16];
		(void)snprintf(self, sizeof self, "%d", (int)getpid());
		(void)unsetenv("WATCHDOG_USEC");
		(void)unsetenv("WATCHDOG_PID");
		if (table[i].usec != NULL)
			(void)setenv("WATCHDOG_USEC", table[i].usec, 1);
		if (table[i].pid != NULL)
			(void)setenv("WATCHDOG_PID",
				strcmp(table[i].pid, "self") == 0 ? self : table[i].pid, 1);
		notify_init(&n);
		if (n.watchdog_ns != table[i].ns)
			fail_msg("case %zu: %lld", i, (long long)n.watchdog_ns);
		notify_done(&n);
	}
	(void)unsetenv("WATCHDOG_USEC");
	(void)unsetenv("WATCHDOG_PID");
	manager_done(&m);
}

static void a_full_manager_does_not_hold_up_signs_of_life(void **state) {
	struct manager m;
	struct notify n;
	char text[512];

	(void)state;
	manager_init(&m, true);
	notify_init(&n);
	for (int i = 0; i < 5000; i++)
		notify_watchdog(&n); /* would block after a few */
	notify_status(&n, "not taken");
	assert_string_equal(n.status, ""); /* so that it is sent again */
	assert_string_equal(heard(&m, text, NULL), "WATCHDOG=1");
	notify_done(&n);
	manager_done(&m);
}

static void descriptors_go_to_the_store(void **state) {
	struct manager m;
	struct notify n;
	struct stat a, b;
	char text[512];
	int fd;

	(void)state;
	manager_init(&m, false);
	notify_init(&n);
	int null = openat(AT_FDCWD, "/dev/null", O_RDONLY | O_CLOEXEC);
	assert_true(notify_store(&n, null, "guard"));
	assert_string_equal(heard(&m, text, &fd), "FDSTORE=1\nFDNAME=guard");
	assert_true(fd >= 0 && fstat(fd, &a) == 0 && fstat(null, &b) == 0);
	assert_true(a.st_rdev == b.st_rdev);
	notify_store_remove(&n, "guard");
	assert_string_equal(heard(&m, text, &fd), "FDSTOREREMOVE=1\nFDNAME=guard");
	assert_int_equal(fd, -1);
	(void)close(null);
	notify_done(&n);
	manager_done(&m);
}

/* ---- descriptors that were passed: in a child, whose first descriptors are ours to choose */

struct passing {
	const char *pid; /* "self": the child's own */
	const char *fds;
	const char *names;
	size_t open; /* so many descriptors from 3 on */
	size_t count;
	const char *take;
	int want; /* its number; -1: none */
};

static int pass(const struct passing *c) {
	struct passed p;
	char self[16];

	for (int fd = 3; fd < 64; fd++)
		(void)close(fd);
	for (size_t i = 0; i < c->open; i++)
		if (dup(STDOUT_FILENO) != 3 + (int)i)
			return 10;
	(void)snprintf(self, sizeof self, "%d", (int)getpid());
	(void)unsetenv("LISTEN_FDNAMES");
	(void)setenv("LISTEN_PID", strcmp(c->pid, "self") == 0 ? self : c->pid, 1);
	(void)setenv("LISTEN_FDS", c->fds, 1);
	if (c->names != NULL)
		(void)setenv("LISTEN_FDNAMES", c->names, 1);
	passed_init(&p);
	if (p.count != c->count)
		return 11;
	for (size_t i = 0; i < p.count; i++)
		if ((fcntl(p.list[i].fd, F_GETFD) & FD_CLOEXEC) == 0)
			return 12;
	int got = passed_take(&p, c->take);
	if (got != c->want)
		return 13;
	if (got >= 0 && c->count == 1 && passed_take(&p, c->take) != -1)
		return 14;
	passed_done(&p);
	return got >= 0 && fcntl(got, F_GETFD) < 0 ? 15 : 0;
}

static void passed_descriptors_are_found_by_name(void **state) {
	static const struct passing table[] = {
		{"self", "1", "metrics", 1, 1, "metrics", 3},
		{"self", "1", "metrics", 1, 1, "guard", -1},
		{"self", "2", "metrics:guard", 2, 2, "guard", 4},
		{"self", "2", "guard:guard", 2, 2, "guard", 3},
		{"self", "1", NULL, 1, 1, "unknown", 3},
		{"self", "2", ":guard", 2, 2, "guard", 4},
		{"self", "2", "guard", 2, 2, "unknown", 4},
		{"self", "1", "a:b:c", 1, 1, "b", -1},
		{"self", "3", "a:b:c", 1, 1, "a", 3}, /* said more than there are */
		{"self", "40", NULL, 40, PASSED_MAX, "unknown", 3},
		{"1", "1", "metrics", 1, 0, "metrics", -1}, /* another process is meant */
		{"", "1", "metrics", 1, 0, "metrics", -1},
		{"self", "0", "", 0, 0, "metrics", -1},
		{"self", "-1", "metrics", 1, 0, "metrics", -1},
		{"self", "1x", "metrics", 1, 0, "metrics", -1},
		{"self", "99999999999", "metrics", 1, 0, "metrics", -1},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_LENGTH(table); i++) {
		int status;
		pid_t child = fork();
		if (child == 0)
			_exit(pass(&table[i]));
		assert_int_equal(waitpid(child, &status, 0), child);
		if (!WIFEXITED(status) || WEXITSTATUS(status) != 0)
			fail_msg("case %zu: status %d", i, WEXITSTATUS(status));
	}
}

/* ---- credentials */

static void credentials_are_plain_names_in_their_directory(void **state) {
	static const struct {
		const char *directory, *text, *path, *error;
	} table[] = {
		{"/run/credentials/cede.service", "credential:agent.key",
			"/run/credentials/cede.service/agent.key", NULL},
		{"/c", "credential:../shadow", NULL, "the name of a credential expected"},
		{"/c", "credential:/etc/shadow", NULL, "the name of a credential expected"},
		{"/c", "credential:a/b", NULL, "the name of a credential expected"},
		{"/c", "credential:", NULL, "the name of a credential expected"},
		{"/c", "credential:.hidden", NULL, "the name of a credential expected"},
		{NULL, "credential:agent.key", "credential:agent.key", "started without credentials"},
		{"relative", "credential:agent.key", "credential:agent.key",
			"started without credentials"},
		{"", "credential:agent.key", "credential:agent.key", "started without credentials"},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_LENGTH(table); i++) {
		CLEANUP(freep) char *path = NULL;
		struct cede_error err = {0};
		if (table[i].directory == NULL)
			(void)unsetenv("CREDENTIALS_DIRECTORY");
		else
			(void)setenv("CREDENTIALS_DIRECTORY", table[i].directory, 1);
		assert_true(credential_named(table[i].text));
		int r = credential_path(table[i].text, &path, &err);
		if (table[i].path != NULL) {
			assert_int_equal(r, CEDE_OK);
			assert_string_equal(path, table[i].path);
			bool there = table[i].error == NULL;
			assert_int_equal(
				credential_there(path, &err), there ? CEDE_OK : CEDE_ERR_REFUSED);
			assert_true(credential_is(path) == there);
		}
		if (table[i].path == NULL) {
			assert_int_equal(r, CEDE_ERR_REFUSED);
		}
		if (table[i].error != NULL)
			assert_non_null(strstr(err.text, table[i].error));
	}
	(void)setenv("CREDENTIALS_DIRECTORY", "/c", 1);
	assert_false(credential_is("/c/a/b"));
	assert_false(credential_is("/cc/a"));
	assert_false(credential_is("/etc/a"));
	(void)unsetenv("CREDENTIALS_DIRECTORY");
	assert_false(credential_is("/c/a"));
	assert_false(credential_named("agent.key"));
}

int main(void) {
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(each_word_arrives),
		cmocka_unit_test(status_is_one_line_and_sent_once),
		cmocka_unit_test(without_a_manager_nothing_happens),
		cmocka_unit_test(the_watchdog_is_for_its_process),
		cmocka_unit_test(a_full_manager_does_not_hold_up_signs_of_life),
		cmocka_unit_test(descriptors_go_to_the_store),
		cmocka_unit_test(passed_descriptors_are_found_by_name),
		cmocka_unit_test(credentials_are_plain_names_in_their_directory),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
