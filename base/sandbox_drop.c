/* SPDX-License-Identifier: Apache-2.0 */
#include <dirent.h>
#include <linux/capability.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/check.h"
#include "base/cleanup.h"
#include "base/file.h"
#include "base/log.h"
#include "base/sandbox.h"
#include "base/sandbox_internal.h"

static const char *const names[] = {

#define X(id, name) name,
	SANDBOX_LAYERS(X)
#undef X
};

const char *sandbox_layer_name(enum sandbox_layer layer) {
	return names[layer];
}

int sandbox_layer_parse(const char *name, enum sandbox_layer *ret) {
	for (size_t i = 0; i < ARRAY_LENGTH(names); i++)
		if (strcmp(name, names[i]) == 0) {
			*ret = (enum sandbox_layer)i;
			return CEDE_OK;
		}
	return CEDE_ERR_INPUT;
}

void sandbox_text(uint32_t set, char ret[SANDBOX_TEXT_SIZE]) {
	size_t len = 0;

	(void)snprintf(ret, SANDBOX_TEXT_SIZE, "-");
	for (size_t i = 0; i < ARRAY_LENGTH(names); i++)
		if ((set & 1U << i) != 0)
			len += (size_t)snprintf(ret + len, SANDBOX_TEXT_SIZE - len, "%s%s",
				len > 0 ? "," : "", names[i]);
}

void sandbox_say(const char *program, const struct sandbox_report *report) {
	char on[SANDBOX_TEXT_SIZE];

	sandbox_text(report->on, on);
	log_event(LOG_LEVEL_INFO, "sandbox.on", "process=%s layers=%s", program, on);
	for (size_t i = 0; i < ARRAY_LENGTH(names); i++)
		if ((report->missing & 1U << i) != 0)
			log_event(LOG_LEVEL_WARNING, "sandbox.missing",
				"process=%s layer=%s why=\"%s\"", program, names[i],
				report->why[i] == NULL ? "not told" : report->why[i]);
}

int sandbox_begin(struct sandbox_report *report, struct cede_error *reterr) {
	const struct rlimit none = {0, 0};
	const struct rlimit all = {RLIM_INFINITY, RLIM_INFINITY};

	if (setrlimit(RLIMIT_CORE, &none) < 0 || prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) < 0)
		return CEDE_FAIL_SYS(reterr, "sandbox: forbid core files and debuggers");
	report->on |= 1U << SANDBOX_UNDUMPABLE;
	(void)setrlimit(RLIMIT_MEMLOCK, &all); /* lock_memory() looks whether it is so */
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
		return CEDE_FAIL_SYS(reterr, "sandbox: give up new privileges");
	report->on |= 1U << SANDBOX_NO_NEW_PRIVILEGES;
	return CEDE_OK;
}

/* ---- capabilities */

typedef struct __user_cap_data_struct cap_words[_LINUX_CAPABILITY_U32S_3];

static uint64_t joined(uint32_t low, uint32_t high) {
	return (uint64_t)high << 32 | low;
}

int sandbox_capabilities(uint64_t keep, struct sandbox_report *report, struct cede_error *reterr) {
	struct __user_cap_header_struct head = {.version = _LINUX_CAPABILITY_VERSION_3};
	cap_words now;

	if (syscall(SYS_capget, &head, now) < 0)
		return CEDE_FAIL_SYS(reterr, "sandbox: look at the capabilities");
	bool may_bound = (now[0].effective & 1U << CAP_SETPCAP) != 0;
	for (unsigned cap = 0; may_bound && cap < 64; cap++) {
		if ((keep >> cap & 1) != 0 || prctl(PR_CAPBSET_READ, cap, 0, 0, 0) != 1)
			continue; /* not one of this kernel's, or gone already */
		if (prctl(PR_CAPBSET_DROP, cap, 0, 0, 0) < 0)
			return CEDE_FAIL_SYS(reterr, "sandbox: give up capability %u", cap);
	}
	if (prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) < 0)
		return CEDE_FAIL_SYS(reterr, "sandbox: give up ambient capabilities");
	for (size_t i = 0; i < ARRAY_LENGTH(now); i++) {
		now[i].permitted &= (uint32_t)(keep >> 32 * i);
		now[i].effective = now[i].permitted;
		now[i].inheritable = 0;
	}
	if (syscall(SYS_capset, &head, now) < 0 || syscall(SYS_capget, &head, now) < 0)
		return CEDE_FAIL_SYS(reterr, "sandbox: give up capabilities");
	require((joined(now[0].permitted, now[1].permitted) & ~keep) == 0);
	report->on |= 1U << SANDBOX_CAPABILITIES;
	return CEDE_OK;
}

/* ---- memory */

bool sandbox_may_lock_memory(void) {
	struct __user_cap_header_struct head = {.version = _LINUX_CAPABILITY_VERSION_3};
	struct rlimit limit;
	cap_words now;

	if (getrlimit(RLIMIT_MEMLOCK, &limit) == 0 && limit.rlim_cur == RLIM_INFINITY)
		return true;
	return syscall(SYS_capget, &head, now) == 0 && (now[0].effective & 1U << CAP_IPC_LOCK) != 0;
}

/* Keys and plaintext are all over a program's memory, in buffers of libraries too: all of it is locked
 * as it is touched. A limit would make later allocations fail: then none is, and that is told. */
static void lock_memory(struct sandbox_report *report) {
	if (!SANDBOX_SANITIZED && sandbox_may_lock_memory() &&
		mlockall(MCL_CURRENT | MCL_FUTURE | MCL_ONFAULT) == 0) {
		report->on |= 1U << SANDBOX_LOCKED_MEMORY;
		return;
	}
	report->missing |= 1U << SANDBOX_LOCKED_MEMORY;
	report->why[SANDBOX_LOCKED_MEMORY] = SANDBOX_SANITIZED
		? "a build with sanitizers"
		: "RLIMIT_MEMLOCK: let it lock all its memory (LimitMEMLOCK=infinity)";
}

/* ---- the whole */

/* Landlock and capabilities bind one thread; what started before would keep everything. */
static int alone(struct cede_error *reterr) {
	CLEANUP(dir_closep) DIR *dir = opendir("/proc/self/task");
	const struct dirent *entry;
	size_t n = 0;

	if (dir == NULL)
		return CEDE_FAIL_SYS(reterr, "sandbox: /proc/self/task");
	while ((errno = 0, entry = readdir(dir)) != NULL)
		n += entry->d_name[0] != '.';
	if (errno != 0 || n != 1)
		return CEDE_FAIL(reterr, CEDE_ERR_BUG,
			"sandbox: it must be entered before the first thread; there are %zu", n);
	return CEDE_OK;
}

int sandbox_enter(const struct sandbox_profile *profile, struct sandbox_report *report,
	struct cede_error *reterr) {
	CEDE_TRY(alone(reterr));
	if (profile->own_user) {
		uint32_t *set = geteuid() != 0 ? &report->on : &report->missing;
		*set |= 1U << SANDBOX_USER;
		report->why[SANDBOX_USER] = "it runs as root";
	}
	CEDE_TRY(sandbox_capabilities(profile->capabilities, report, reterr));
	lock_memory(report);
	CEDE_TRY(sandbox_landlock(profile, report, reterr));
	return sandbox_seccomp(profile, report, reterr);
}
