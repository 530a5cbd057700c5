/* SPDX-License-Identifier: Apache-2.0
 * cede-guard: started by `cede run` alone. */
#include <getopt.h>
#include <linux/capability.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "agent/guard/sentry_internal.h"
#include "base/error.h"
#include "base/log.h"
#include "base/parse.h"
#include "base/sandbox.h"

#define CAP(name) (UINT64_C(1) << CAP_##name)
#define PRIORITY  (-15) /* every open of a capture waits for us */

/* What is left of root's rights: marks on file systems, programs of other users, directories. */
static void keep_capabilities(void) {
	struct __user_cap_header_struct head = {.version = _LINUX_CAPABILITY_VERSION_3};
	struct __user_cap_data_struct data[_LINUX_CAPABILITY_U32S_3];
	const uint64_t keep = CAP(SYS_ADMIN) | CAP(SYS_PTRACE) | CAP(DAC_READ_SEARCH) | CAP(IPC_LOCK);

	if (syscall(SYS_capget, &head, data) < 0)
		return; /* nothing to give up, or it shows below: marks fail */
	for (unsigned i = 0; i < _LINUX_CAPABILITY_U32S_3; i++) {
		data[i].permitted &= (uint32_t)(keep >> (32 * i));
		data[i].effective = data[i].permitted;
		data[i].inheritable = 0;
	}
	if (syscall(SYS_capset, &head, data) < 0)
		log_event(LOG_LEVEL_WARNING, "guard.capabilities", "error=\"kept more than needed\"");
}

/* What is there now whole, what comes later page by page. CAP_IPC_LOCK stays: without it a limit
 * would refuse later pages, the thread's stack first of all. Where there is a limit and not the
 * capability (containers), nothing is locked. */
static bool lock_memory(void) {
	return sandbox_may_lock_memory() && mlockall(MCL_CURRENT) == 0 &&
		mlockall(MCL_FUTURE | MCL_ONFAULT) == 0;
}

static void harden(void) {
	struct rlimit none = {0, 0};
	struct rlimit files = {TABLE_SIZE, TABLE_SIZE};

	(void)clearenv();
	(void)setrlimit(RLIMIT_CORE, &none);
	if (setrlimit(RLIMIT_NOFILE, &files) < 0) { /* a lower limit is fine, a higher one is not */
		(void)getrlimit(RLIMIT_NOFILE, &files);
		files.rlim_cur = files.rlim_max < TABLE_SIZE ? files.rlim_max : TABLE_SIZE;
		(void)setrlimit(RLIMIT_NOFILE, &files);
	}
	(void)prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
	(void)prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
	(void)signal(SIGPIPE, SIG_IGN);
	(void)signal(SIGINT, SIG_IGN); /* a terminal's ^C is the keeper's to handle */
	(void)signal(SIGHUP, SIG_IGN);
	/* without a network, at the front of the queue, and never swapped out: as far as we may */
	(void)unshare(CLONE_NEWNET);
	(void)setpriority(PRIO_PROCESS, 0, PRIORITY);
	if (!lock_memory())
		log_event(LOG_LEVEL_WARNING, "guard.memory",
			"text=\"may be swapped out: answers may wait for the disk\" mend=\"give it CAP_IPC_LOCK\"");
	keep_capabilities();
}

int main(int argc, char **argv) {
	static const struct option options[] = {{"fd", required_argument, NULL, 'f'},
		{"log-level", required_argument, NULL, 'l'}, {0}};
	enum log_level level = LOG_LEVEL_INFO;
	struct cede_error err = {0};
	uint64_t fd = UINT64_MAX;
	int c;

	while ((c = getopt_long(argc, argv, "", options, NULL)) != -1)
		if ((c != 'f' || parse_u64(slice_str(optarg), 3, 1024, &fd, NULL) < 0) &&
			(c != 'l' || log_level_parse(optarg, &level) < 0))
			break;
	if (c != -1 || fd == UINT64_MAX) {
		(void)fputs("cede-guard is started by `cede run`\n", stderr);
		return 2;
	}
	log_setup("cede-guard", level);
	harden();
	if (sentry_run((int)fd, &err) < 0) {
		log_event(LOG_LEVEL_ERROR, "guard.stopped", "error=\"%s\"", err.text);
		return 3;
	}
	return 0;
}
