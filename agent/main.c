/* SPDX-License-Identifier: Apache-2.0
 * cede: the command table. */
#include <stdio.h>
#include <string.h>

#include "agent/cmd_doctor.h"
#include "agent/cmd_exposure.h"
#include "agent/cmd_ledger.h"
#include "agent/cmd_policy.h"
#include "agent/cmd_purge.h"
#include "agent/cmd_run.h"
#include "agent/cmd_status.h"
#include "agent/cmd_vault.h"
#include "base/check.h"
#include "base/log.h"
#include "version.h"

static const struct {
	const char *name;
	int (*run)(int argc, char **argv);
	const char *help;
} commands[] = {
	{"run", cmd_run, "the agent: watch, seal, hand over, wipe"},
	{"policy", cmd_policy, "check a policy; dry-run: what would be done to each file"},
	{"status", cmd_status, "what is waiting, what was handed over"},
	{"exposure", cmd_exposure, "which captures were here in the clear, and when"},
	{"doctor", cmd_doctor, "is this host able to keep its promises?"},
	{"purge", cmd_purge, "take this host out of service: hand over, wipe, certify"},
	{"vault", cmd_vault, "init: prepare sources that have one; status: epochs and their keys"},
	{"ledger", cmd_ledger, "verify, list and show what the ledger holds"},
};

static void usage(FILE *to) {
	(void)fprintf(to, "cede %s\nusage: cede COMMAND [options]\n", CEDE_VERSION);
	for (size_t i = 0; i < ARRAY_LENGTH(commands); i++)
		(void)fprintf(to, "  %-8s %s\n", commands[i].name, commands[i].help);
	(void)fputs(
		"exit codes: 0 done; 1 done, with findings; 2 bad usage or input; 3 could not do it\n",
		to);
}

int main(int argc, char **argv) {
	log_setup("cede", LOG_LEVEL_INFO);
	if (argc >= 2 && (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "help") == 0)) {
		usage(stdout);
		return 0;
	}
	if (argc >= 2 && strcmp(argv[1], "--version") == 0) {
		(void)printf("cede %s\n", CEDE_VERSION);
		return 0;
	}
	for (size_t i = 0; argc >= 2 && i < ARRAY_LENGTH(commands); i++)
		if (strcmp(argv[1], commands[i].name) == 0)
			return commands[i].run(argc - 1, argv + 1);
	if (argc >= 2)
		(void)fprintf(stderr, "cede: no command \"%s\"\n", argv[1]);
	usage(stderr);
	return 2;
}
