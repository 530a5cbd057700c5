/* SPDX-License-Identifier: Apache-2.0
 * A hostile program in each sandbox: enters keeper's, courier's, receiver's and opener's, with
 * their own data, and tries what an intruder would (acts.c). Each forbidden act must fail there and
 * work outside (else it proves nothing: skipped, with the reason); each needed one must work. The
 * lists of system calls must be those of tests/golden/seccomp-PROGRAM.txt: an auditor reads that
 * text (--write makes it anew). */
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "agent/core/profile.h"
#include "agent/courier/profile.h"
#include "base/buf.h"
#include "base/check.h"
#include "base/cleanup.h"
#include "base/file.h"
#include "receiver/profile.h"
#include "tests/sandbox/acts.h"

struct shared { /* between a test and its child */
	struct sandbox_report report;
	int result;
	char text[512]; /* why it could not enter */
};

static struct shared *shared;
static unsigned number;
static unsigned failures;

static void say(bool ok, const char *program, const char *what, const char *name, const char *skip) {
	(void)printf("%s %u - %s%s%s%s%s\n", ok ? "ok" : "not ok", ++number, program, what, name,
		skip == NULL ? "" : " # SKIP ", skip == NULL ? "" : skip);
	failures += !ok;
}

/* ---- entering */

static int enter_keeper(const struct acts_world *w, struct cede_error *reterr) {
	char state[128], policy_path[128], key[128];
	struct policy_source source = {
		.name = (char[]){"faces"}, .path = (char *)(uintptr_t)w->inside};
	struct policy policy = {.sources = &source, .source_count = 1};
	struct agent_config config = {.state = state, .certificate = key, .key = key};
	struct profile *profile;

	(void)snprintf(state, sizeof state, "%s/state", w->top);
	(void)snprintf(policy_path, sizeof policy_path, "%s/policy/policy.yaml", w->top);
	(void)snprintf(key, sizeof key, "%s/pki/agent.key", w->top);
	CEDE_TRY(profile_new(&policy, &config, policy_path, &profile, reterr));
	return profile_enter(profile, &shared->report, reterr);
}

static int enter_courier(const struct acts_world *w, struct cede_error *reterr) {
	return courier_enter(&w->good_port, 1, &shared->report, reterr);
}

static int enter_receiver(const struct acts_world *w, struct cede_error *reterr) {
	return receiver_enter(w->inside, &shared->report, reterr);
}

static int enter_opener(const struct acts_world *w, struct cede_error *reterr) {
	return opener_enter(w->inside, NULL, 0, &shared->report, reterr);
}

static const struct program {
	const char *name;
	int (*enter)(const struct acts_world *w, struct cede_error *reterr);
	const struct sandbox_call *const *calls;
} programs[] = {
	{"keeper", enter_keeper, keeper_calls},
	{"courier", enter_courier, courier_calls},
	{"receiver", enter_receiver, receiver_calls},
	{"opener", enter_opener, opener_calls},
};

/* ---- the world of one act */

static int listener(uint16_t *ret_port) {
	struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t size = sizeof at;
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	require(fd >= 0 && bind(fd, (const struct sockaddr *)&at, sizeof at) == 0 &&
		listen(fd, 16) == 0 && getsockname(fd, (struct sockaddr *)&at, &size) == 0);
	*ret_port = ntohs(at.sin_port);
	return fd;
}

static void put(const char *folder, const char *name) {
	char path[192];

	(void)snprintf(path, sizeof path, "%s/%s", folder, name);
	int fd = openat(AT_FDCWD, path, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
	require(fd >= 0 && write(fd, "x", 1) == 1);
	(void)close(fd);
}

static void world_init(struct acts_world *w) {
	char camera[96];
	uint16_t own;

	(void)snprintf(w->top, sizeof w->top, "/var/tmp/cede-sandbox-XXXXXX");
	require(mkdtemp(w->top) != NULL);
	(void)snprintf(camera, sizeof camera, "%s/camera", w->top);
	(void)snprintf(w->inside, sizeof w->inside, "%s/camera/inside", w->top);
	(void)snprintf(w->outside, sizeof w->outside, "%s/outside", w->top);
	require(mkdir(camera, 0700) == 0 && mkdir(w->inside, 0700) == 0 &&
		mkdir(w->outside, 0700) == 0);
	put(w->inside, "there");
	put(w->outside, "there");
	w->directory = openat(AT_FDCWD, w->inside, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	w->old = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	w->listening = listener(&own);
	require(w->directory >= 0 && w->old >= 0 &&
		socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, w->pair) == 0);
}

static void world_done(struct acts_world *w) {
	static const char *const names[] = {"camera/inside/there", "camera/inside/new",
		"camera/inside/linked", "camera/inside/link", "camera/inside/renamed",
		"outside/there", "outside/new", "outside/moved"};
	int top = openat(AT_FDCWD, w->top, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	(void)umount2(w->inside, MNT_DETACH);
	for (size_t i = 0; i < ARRAY_LENGTH(names); i++)
		(void)unlinkat(top, names[i], 0);
	(void)unlinkat(top, "camera/inside/folder", AT_REMOVEDIR);
	require(unlinkat(top, "camera/inside", AT_REMOVEDIR) == 0 &&
		unlinkat(top, "camera", AT_REMOVEDIR) == 0 &&
		unlinkat(top, "outside", AT_REMOVEDIR) == 0 &&
		unlinkat(AT_FDCWD, w->top, AT_REMOVEDIR) == 0);
	(void)unlinkat(AT_FDCWD, "/tmp/.cede-sandbox-test", 0);
	(void)unlinkat(AT_FDCWD, "/tmp/.cede-sandbox-device", 0);
	(void)close(top);
	(void)close(w->directory);
	(void)close(w->old);
	(void)close(w->listening);
	(void)close(w->pair[0]);
	(void)close(w->pair[1]);
}

enum outcome { WORKED, FAILED, KILLED, NOT_ENTERED };

__attribute__((noreturn)) static void child(
	const struct acts_world *w, const struct program *p, const struct act *act) {
	struct cede_error err = {0};

	if (p != NULL && (sandbox_begin(&shared->report, &err) < 0 || p->enter(w, &err) < 0)) {
		memcpy(shared->text, err.text, sizeof shared->text);
		_exit(2);
	}
	shared->result = act->try(w);
	_exit(shared->result != 0);
}

/* p NULL: without any sandbox. */
static enum outcome try_act(
	const struct acts_world *ports, const struct program *p, const struct act *act) {
	struct acts_world w = *ports;
	int status;

	memset(shared, 0, sizeof *shared);
	world_init(&w);
	pid_t pid = fork();
	require(pid >= 0);
	if (pid == 0)
		child(&w, p, act);
	require(waitpid(pid, &status, 0) == pid);
	world_done(&w);
	if (WIFSIGNALED(status)) {
		shared->result = 0;
		return WTERMSIG(status) == SIGSYS ? KILLED : NOT_ENTERED;
	}
	return WEXITSTATUS(status) == 0 ? WORKED : WEXITSTATUS(status) == 1 ? FAILED : NOT_ENTERED;
}

static void one(const struct acts_world *w, const struct program *p, const struct act *act) {
	bool may = strchr(act->may, p->name[0]) != NULL;
	enum outcome bare = may ? WORKED : try_act(w, NULL, act);
	int bare_result = shared->result;
	enum outcome inside = try_act(w, p, act);
	const char *what = may ? " can: " : " cannot: ";

	if (inside == NOT_ENTERED) {
		say(false, p->name, what, act->name, NULL);
		(void)printf("# did not enter: %s\n", shared->text);
	} else if (shared->report.missing &
		(1U << SANDBOX_SECCOMP | 1U << SANDBOX_LANDLOCK | 1U << SANDBOX_LANDLOCK_NETWORK)) {
		say(true, p->name, what, act->name,
			"this kernel, or this build, lacks layers of the sandbox");
	} else if (!may && bare != WORKED && inside != WORKED) {
		say(true, p->name, what, act->name, strerror(bare_result));
	} else {
		say((inside == WORKED) == may, p->name, what, act->name, NULL);
		if ((inside == WORKED) != may)
			(void)printf("# %s\n",
				inside == WORKED           ? "it worked"
					: inside == KILLED ? "killed"
							   : strerror(shared->result));
	}
}

/* ---- golden text */

static void print_call(struct buf *out, const struct sandbox_call *c) {
	int r = c->what == NULL ? buf_addf(out, NULL, "allow %s\n", c->name)
				: buf_addf(out, NULL, "allow %s where argument %u is %s\n", c->name,
					  c->argument, c->what);
	require(r == CEDE_OK);
}

static void print_list(const struct program *p, struct buf *out) {
	for (size_t i = 0; p->calls[i] != NULL; i++)
		for (const struct sandbox_call *c = p->calls[i]; c->name != NULL; c++)
			print_call(out, c);
	for (const char *const *d = sandbox_deadly_calls(); *d != NULL; d++)
		require(buf_addf(out, NULL, "kill %s\n", *d) == CEDE_OK);
	require(buf_addf(out, NULL, "all others fail with ENOSYS\n") == CEDE_OK);
}

static void golden(const char *top, const struct program *p, bool write_it) {
	CLEANUP(buf_done) struct buf is = BUF_INIT(65536);
	CLEANUP(buf_done) struct buf want = BUF_INIT(65536);
	CLEANUP(fd_closep) int dir = -1;
	char path[512], name[64];

	print_list(p, &is);
	(void)snprintf(path, sizeof path, "%s/tests/golden", top);
	(void)snprintf(name, sizeof name, "seccomp-%s.txt", p->name);
	require(file_open_dir(AT_FDCWD, path, &dir, NULL) == CEDE_OK);
	if (write_it)
		require(file_replace(dir, name, buf_slice(&is), 0644, NULL) == CEDE_OK);
	bool same = file_load(dir, name, &want, NULL) == CEDE_OK &&
		slice_equal(buf_slice(&is), buf_slice(&want));
	say(same, p->name, ": its list of system calls is that of tests/golden/", name, NULL);
}

int main(int argc, char **argv) {
	const char *top = getenv("TOP");
	bool write_it = argc > 1 && strcmp(argv[1], "--write") == 0;
	struct acts_world w = {0};

	(void)printf("1..%zu\n", ARRAY_LENGTH(programs) * (acts_count + 1));
	(void)setvbuf(stdout, NULL, _IOLBF, 0);
	shared = mmap(
		NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	require(shared != MAP_FAILED && top != NULL);
	int good = listener(&w.good_port), bad = listener(&w.bad_port);
	w.other = fork();
	if (w.other == 0) {
		(void)prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
		for (;;)
			(void)pause();
	}
	for (size_t i = 0; i < ARRAY_LENGTH(programs); i++) {
		for (size_t k = 0; k < acts_count; k++)
			one(&w, &programs[i], &acts[k]);
		golden(top, &programs[i], write_it);
	}
	(void)kill(w.other, SIGKILL);
	(void)waitpid(w.other, NULL, 0);
	(void)close(good);
	(void)close(bad);
	return failures > 0;
}
