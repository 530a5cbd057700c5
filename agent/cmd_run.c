/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/cmd_run.h"

#include <getopt.h>
#include <stdio.h>

#include "agent/core/keeper.h"
#include "base/parse.h"

static const char usage[] =
	"usage: cede run --policy POLICY --config AGENT [--unsigned] [--courier PATH]\n"
	"                [--until-empty DURATION]\n"
	"  --policy POLICY  the agency's policy.yaml; its signature is beside it: policy.yaml.sig\n"
	"  --config AGENT   this host's agent.yaml\n"
	"  --unsigned       ask for no signature of the policy (labs and demos only)\n"
	"  --courier PATH   the courier program, if not the installed one\n"
	"  --until-empty DURATION  stop once everything is handed over and wiped, or after DURATION;\n"
	"                   exit status 1 if something is left (standard error says what)\n";

int cmd_run(int argc, char **argv) {
	enum { POLICY = 1, CONFIG, UNSIGNED, COURIER, UNTIL_EMPTY, HELP };
	static const struct option options[] = {{"policy", required_argument, NULL, POLICY},
		{"config", required_argument, NULL, CONFIG},
		{"unsigned", no_argument, NULL, UNSIGNED},
		{"courier", required_argument, NULL, COURIER},
		{"until-empty", required_argument, NULL, UNTIL_EMPTY},
		{"help", no_argument, NULL, HELP}, {0}};
	struct keeper_options o = {0};
	struct keeper_emptying emptying = {0};
	struct cede_error err = {0};
	int c;

	while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
		switch (c) {
		case POLICY:
			o.policy = optarg;
			break;
		case CONFIG:
			o.config = optarg;
			break;
		case COURIER:
			o.courier = optarg;
			break;
		case UNTIL_EMPTY:
			if (parse_duration(slice_str(optarg), &emptying.limit_ns, &err) < 0) {
				(void)fprintf(stderr, "cede run: --until-empty: %s\n", err.text);
				return 2;
			}
			o.emptying = &emptying;
			break;
		case UNSIGNED:
			o.is_unsigned = true;
			break;
		case HELP:
			(void)fputs(usage, stdout);
			return 0;
		default:
			(void)fputs(usage, stderr);
			return 2;
		}
	}
	if (o.policy == NULL || o.config == NULL || optind != argc) {
		(void)fputs(usage, stderr);
		return 2;
	}
	int r = keeper_run(&o, &err);
	if (r == CEDE_OK && emptying.left[0] != 0) {
		(void)fprintf(stderr,
			"cede run: left: %s (cede status shows how things stand, cede ledger events names files)\n",
			emptying.left);
		return 1;
	}
	if (r == CEDE_OK)
		return 0;
	(void)fprintf(stderr, "cede run: %s\n", err.text);
	return r == CEDE_ERR_INPUT || r == CEDE_ERR_REFUSED ? 2 : 3;
}
