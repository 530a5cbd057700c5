/* SPDX-License-Identifier: Apache-2.0
 * The layers that keep cede's own processes in their rooms, and the guard on the captures. */
#include <fcntl.h>
#include <string.h>
#include <sys/fanotify.h>
#include <sys/wait.h>
#include <unistd.h>

#include "agent/core/profile.h"
#include "agent/doctor/internal.h"
#include "base/cleanup.h"
#include "base/sandbox.h"

struct told {
	uint32_t on, missing;
};

/* What the keeper does at its start, done by a child that ends right after it. */
__attribute__((noreturn)) static void enter_and_tell(const struct doctor *d, int fd) {
	struct sandbox_report report = {0};
	struct profile *profile;
	struct cede_error err;

	if (sandbox_begin(&report, &err) < 0 ||
		profile_new(d->policy, d->config, d->options->policy, &profile, &err) < 0 ||
		profile_enter(profile, &report, &err) < 0)
		_exit(1);
	const struct told told = {report.on, report.missing};
	_exit(write(fd, &told, sizeof told) == (ssize_t)sizeof told ? 0 : 1);
}

static bool ask_child(const struct doctor *d, struct told *ret) {
	int ends[2];
	int status;

	if (pipe2(ends, O_CLOEXEC) < 0)
		return false;
	pid_t pid = fork();
	if (pid == 0)
		enter_and_tell(d, ends[1]);
	(void)close(ends[1]);
	bool told = pid > 0 && read(ends[0], ret, sizeof *ret) == (ssize_t)sizeof *ret;
	(void)close(ends[0]);
	while (pid > 0 && waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	return told;
}

/* The layers as words of a sentence. */
static void layers_text(uint32_t layers, char out[static 2 * SANDBOX_TEXT_SIZE]) {
	char text[SANDBOX_TEXT_SIZE];

	sandbox_text(layers, text);
	for (const char *in = text; *in != 0; in++) {
		*out++ = *in;
		if (*in == ',')
			*out++ = ' ';
	}
	*out = 0;
}

void check_layers(struct doctor *d) {
	char text[2 * SANDBOX_TEXT_SIZE];
	struct told told;

	if (d->policy == NULL)
		return;
	if (!ask_child(d, &told)) {
		doctor_say(d, "sandbox", "", DOCTOR_BROKEN,
			"start the agent and see what it says: it would not start",
			"the keeper can't enter its sandbox here");
		return;
	}
	layers_text(told.missing, text);
	if (told.missing != 0) {
		doctor_say(d, "sandbox", "", DOCTOR_WEAK,
			"run a kernel that has them (Debian 12's own has all but those for TCP ports and signals)",
			"this kernel lacks: %s", text);
		return;
	}
	layers_text(told.on, text);
	doctor_say(d, "sandbox", "", DOCTOR_OK, "", "%s", text);
}

void check_guard(struct doctor *d) {
	if (d->policy == NULL)
		return;
	if (d->policy->guard.mode == GUARD_OFF) {
		doctor_say(d, "guard", "", DOCTOR_OK, "", "the policy asks for none");
		return;
	}
	CLEANUP(fd_closep) int fd = fanotify_init(FAN_CLASS_CONTENT | FAN_CLOEXEC, O_RDONLY);
	if (fd < 0)
		doctor_say(d, "guard", "", DOCTOR_BROKEN,
			errno == EPERM
				? "run the agent as root, or give its unit CAP_SYS_ADMIN for the guard"
				: "run a kernel with CONFIG_FANOTIFY_ACCESS_PERMISSIONS",
			"the policy asks for a guard, and none is possible here: %s",
			strerror(errno));
	for (size_t i = 0; i < d->policy->guard.allow_count; i++)
		if (access(d->policy->guard.allow[i].exe, X_OK) < 0)
			doctor_say(d, "guard", d->policy->guard.allow[i].exe, DOCTOR_WEAK,
				"install the camera's program, or ask the agency to name the right one",
				"the program that may open captures is not there");
	if (fd >= 0)
		doctor_say(d, "guard", "", DOCTOR_OK, "", "possible here");
}
