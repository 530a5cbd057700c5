/* SPDX-License-Identifier: Apache-2.0
 * cede-courier: started by `cede run` alone. */
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <unistd.h>

#include "agent/courier/courier.h"
#include "base/log.h"
#include "base/parse.h"

/* Nothing of the environment may say where this goes or whom it trusts, no core file may hold keys,
 * and it ends when its keeper does. */
static void harden(void) {
	struct rlimit none = {0, 0};

	(void)clearenv();
	(void)setrlimit(RLIMIT_CORE, &none);
	(void)prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
	(void)prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
	(void)prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
	(void)signal(SIGPIPE, SIG_IGN);
	(void)signal(SIGINT, SIG_IGN); /* a terminal's ^C is the keeper's to handle */
	(void)signal(SIGTERM, SIG_DFL);
	(void)signal(SIGHUP, SIG_IGN);
}

int main(int argc, char **argv) {
	static const struct option options[] = {{"fd", required_argument, NULL, 'f'},
		{"metrics", required_argument, NULL, 'm'}, {0}};
	const char *metrics = NULL;
	struct cede_error err = {0};
	uint64_t fd = UINT64_MAX;
	int c;

	while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
		if (c == 'f' && parse_u64(slice_str(optarg), 3, 1024, &fd, NULL) == CEDE_OK)
			continue;
		if (c != 'm')
			break;
		metrics = optarg;
	}
	if (c != -1 || fd == UINT64_MAX) {
		(void)fputs("cede-courier is started by `cede run`\n", stderr);
		return 2;
	}
	harden();
	log_setup("cede-courier", LOG_LEVEL_INFO);
	if (courier_run((int)fd, metrics, &err) < 0) {
		log_event(LOG_LEVEL_ERROR, "courier.stopped", "error=\"%s\"", err.text);
		return 3;
	}
	return 0;
}
