/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/certs/tool.h"

#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/check.h"
#include "base/file.h"
#include "certs/key.h"

#define ARGS_MAX 32

static void must(int r, const struct cede_error *err) {
	if (r < 0)
		(void)fprintf(stderr, "%s\n", err->text);
	require(r == CEDE_OK);
}

void tool_init(struct tool *t) {
	struct cede_error err;

	(void)snprintf(t->path, sizeof t->path, "/tmp/cede-test-XXXXXX");
	require(mkdtemp(t->path) != NULL);
	must(file_open_dir(AT_FDCWD, t->path, &t->dirfd, &err), &err);
}

void tool_done(struct tool *t) {
	require(tool_run(t, "rm", "-rf", t->path, NULL) == 0);
	require(close(t->dirfd) == 0);
}

int tool_run(const struct tool *t, const char *program, ...) {
	char *args[ARGS_MAX + 1];
	size_t n = 0;
	int status;
	va_list ap;

	va_start(ap, program);
	for (const char *arg = program; arg != NULL; arg = va_arg(ap, const char *)) {
		require(n < ARGS_MAX);
		args[n++] = strdup(arg);
	}
	va_end(ap);
	args[n] = NULL;
	pid_t pid = fork();
	require(pid >= 0);
	if (pid == 0) { /* stdout is the test's own protocol */
		int null = open("/dev/null", O_RDWR);
		if (null < 0 || dup2(null, 0) < 0 || dup2(null, 1) < 0 || dup2(null, 2) < 0 ||
			fchdir(t->dirfd) < 0 || setenv("LC_ALL", "C", 1) < 0)
			_exit(127);
		(void)execvp(program, args);
		_exit(127);
	}
	require(waitpid(pid, &status, 0) == pid);
	for (size_t i = 0; i < n; i++)
		free(args[i]);
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128;
}

void tool_pki(const struct tool *t) {
	const char *top = getenv("TOP");
	char path[4096];

	require(top != NULL);
	(void)snprintf(path, sizeof path, "%s/certs/dev-pki", top);
	require(tool_run(t, path, "pki", NULL) == 0);
}

void tool_write(const struct tool *t, const char *name, struct slice content, unsigned mode) {
	struct cede_error err;
	int fd = openat(t->dirfd, name, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

	require(fd >= 0);
	must(file_write_all(fd, content.data, content.len, &err), &err);
	require(fchmod(fd, (mode_t)mode) == 0);
	require(close(fd) == 0);
}

void tool_read(const struct tool *t, const char *name, struct buf *out) {
	struct cede_error err;

	must(file_load(t->dirfd, name, out, &err), &err);
}

EVP_PKEY *tool_private(const struct tool *t, const char *name) {
	struct cede_error err;
	EVP_PKEY *key = NULL;

	must(key_load_private(t->dirfd, name, &key, &err), &err);
	return key;
}

EVP_PKEY *tool_public(const struct tool *t, const char *name) {
	struct cede_error err;
	EVP_PKEY *key = NULL;

	must(key_load_public(t->dirfd, name, &key, &err), &err);
	return key;
}

X509 *tool_cert(const struct tool *t, const char *name) {
	struct cede_error err;
	X509 *cert = NULL;

	must(cert_load(t->dirfd, name, &cert, &err), &err);
	return cert;
}
