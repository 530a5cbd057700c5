/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/cmd_policy.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "agent/cmd_policy_internal.h"
#include "base/check.h"
#include "base/clock.h"

static const char usage[] =
	"usage: cede policy check [--json] FILE\n"
	"       cede policy dry-run --policy FILE [--state DIR] [--source NAME] [--at TIME] [--json]\n"
	"       cede policy sign --key KEY [--name NAME] FILE\n"
	"  check      reads the policy and the files it names; prints every mistake\n"
	"  dry-run    says what would be done to each file, and why; changes nothing\n"
	"  sign       writes FILE.sig: the agency's signature over the policy and the files it names\n"
	"  --key      the agency's private key for policies\n"
	"  --name     what the signature calls the signer (default: agency-policy)\n"
	"  --state    the agent's state directory: ages then count from when a file was first seen\n"
	"  --source   only this source\n"
	"  --at       decide as at this time (2027-06-30T00:00:00Z) instead of now\n"
	"  --json     one JSON object a line\n";

int policy_bad_usage(void) {
	(void)fputs(usage, stderr);
	return EXIT_INPUT;
}

int policy_help(void) {
	(void)fputs(usage, stdout);
	return EXIT_FINE;
}

int policy_exit_code(int r) {
	return r == CEDE_ERR_INPUT || r == CEDE_ERR_REFUSED ? EXIT_INPUT : EXIT_CANNOT;
}

const char *policy_base_name(const char *path) {
	const char *slash = strrchr(path, '/');

	return slash == NULL ? path : slash + 1;
}

int policy_load_for(const char *command, const char *path, struct policy **ret) {
	struct policy_mistakes mistakes = {NULL, 0};
	struct cede_error err = {0};

	*ret = NULL;
	int r = policy_load(path, ret, &mistakes, &err);
	for (size_t i = 0; i < mistakes.count; i++)
		(void)fprintf(stderr, "%s\n", mistakes.lines[i]);
	if (r < 0 && mistakes.count == 0)
		(void)fprintf(stderr, "cede policy %s: %s\n", command, err.text);
	policy_mistakes_done(&mistakes);
	return r == CEDE_OK ? EXIT_FINE : policy_exit_code(r);
}

void print_json(json_t *object) {
	if (object == NULL ||
		json_dumpf(object, stdout, JSON_COMPACT | JSON_SORT_KEYS | JSON_REAL_PRECISION(12)) <
			0)
		(void)fputs("cede policy: out of memory for JSON\n", stderr);
	else
		(void)putchar('\n');
	json_decref(object);
}

void show_path(const char *path, char out[SHOWN_MAX]) {
	size_t used = 0;

	for (const unsigned char *c = (const unsigned char *)path; *c != 0 && used + 5 < SHOWN_MAX;
		c++) {
		if (*c >= 0x20 && *c < 0x7f && *c != '\\')
			out[used++] = (char)*c;
		else
			used += (size_t)snprintf(out + used, SHOWN_MAX - used, "\\x%02x", *c);
	}
	out[used] = 0;
}

void show_span(int64_t ns, char *out, size_t size) {
	int64_t s = ns / NS_PER_SECOND;

	if (s >= 86400)
		(void)snprintf(out, size, "%" PRId64 "d%02dh", s / 86400, (int)(s % 86400 / 3600));
	else if (s >= 3600)
		(void)snprintf(out, size, "%dh%02dm", (int)(s / 3600), (int)(s % 3600 / 60));
	else if (s >= 60)
		(void)snprintf(out, size, "%dm%02ds", (int)(s / 60), (int)(s % 60));
	else
		(void)snprintf(out, size, "%ds", (int)s);
}

int cmd_policy(int argc, char **argv) {
	static const struct {
		const char *name;
		int (*run)(int argc, char **argv);
	} commands[] = {{"check", cmd_policy_check}, {"dry-run", cmd_policy_dry_run},
		{"sign", cmd_policy_sign}};

	for (size_t i = 0; argc >= 2 && i < ARRAY_LENGTH(commands); i++)
		if (strcmp(argv[1], commands[i].name) == 0)
			return commands[i].run(argc - 1, argv + 1);
	if (argc >= 2 && strcmp(argv[1], "--help") == 0)
		return policy_help();
	return policy_bad_usage();
}
