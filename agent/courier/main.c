/* SPDX-License-Identifier: Apache-2.0
 * cede-courier: started by `cede run` alone. */
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "agent/courier/courier.h"
#include "base/log.h"
#include "base/parse.h"
#include "base/sandbox.h"

#define PORTS_MAX 16 /* one for each destination */

/* Nothing of the environment may say where this goes or whom it trusts, and it ends when its keeper
 * does. */
static void harden(void) {
	(void)clearenv();
	(void)prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
	(void)signal(SIGPIPE, SIG_IGN);
	(void)signal(SIGINT, SIG_IGN); /* a terminal's ^C is the keeper's to handle */
	(void)signal(SIGTERM, SIG_DFL);
	(void)signal(SIGHUP, SIG_IGN);
}

int main(int argc, char **argv) {
	static const struct option options[] = {{"fd", required_argument, NULL, 'f'},
		{"metrics", required_argument, NULL, 'm'}, {"port", required_argument, NULL, 'p'},
		{"log-level", required_argument, NULL, 'l'}, {0}};
	enum log_level level = LOG_LEVEL_INFO;
	struct sandbox_report report = {0};
	uint16_t ports[PORTS_MAX];
	size_t port_count = 0;
	uint64_t port;
	const char *metrics = NULL;
	struct cede_error err = {0};
	uint64_t fd = UINT64_MAX;
	int c;

	while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
		if (c == 'f' && parse_u64(slice_str(optarg), 3, 1024, &fd, NULL) == CEDE_OK)
			continue;
		if (c == 'p' && port_count < PORTS_MAX &&
			parse_u64(slice_str(optarg), 1, UINT16_MAX, &port, NULL) == CEDE_OK) {
			ports[port_count++] = (uint16_t)port;
			continue;
		}
		if (c == 'l' && log_level_parse(optarg, &level) == CEDE_OK)
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
	log_setup("cede-courier", level);
	const struct courier_setup setup = {
		.socket = (int)fd, .metrics = metrics, .ports = ports, .port_count = port_count};
	if (sandbox_begin(&report, &err) < 0 || courier_run(&setup, &report, &err) < 0) {
		log_event(LOG_LEVEL_ERROR, "courier.stopped", "error=\"%s\"", err.text);
		return 3;
	}
	return 0;
}
