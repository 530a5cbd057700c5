/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/cmd_policy.h"

#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "agent/cmd_policy_internal.h"
#include "agent/config.h"
#include "agent/core/floor.h"
#include "agent/trust.h"
#include "agent/vault_host.h"
#include "base/check.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/parse.h"

static const char usage[] =
	"usage: cede policy check [--config AGENT] [--host] [--strict] [--json] FILE\n"
	"       cede policy sign --key KEY [--name NAME] FILE\n"
	"       cede policy dry-run [--policy FILE] [--source NAME] [--summary] [--detailed-exitcode] [...]\n"
	"       cede policy explain [--policy FILE] [...] PATH\n"
	"       cede policy diff [--rules-only] [...] OLD NEW\n"
	"       cede policy show [--policy FILE] [--json]\n"
	"  check      reads the policy and the files it names; prints every mistake, and warnings\n"
	"  sign       writes FILE.sig: the agency's signature over the policy and the files it names\n"
	"  dry-run    what would be done to each file, and why; changes nothing\n"
	"  explain    why, for one file, step by step\n"
	"  diff       which rules differ, and which files would be decided differently\n"
	"  show       the policy with every default written out\n"
	"with:\n"
	"  --policy FILE        instead of /etc/cede/policy.yaml (with it, /etc/cede/agent.yaml counts if it is there)\n"
	"  --config AGENT       agent.yaml: the signature must be one that it trusts; its ledger is read\n"
	"  --state DIR          the agent's state directory alone: ages count from when a file was first seen\n"
	"  --at TIME            decide as at this time (2027-06-30T00:00:00Z) instead of now\n"
	"  --source NAME        only this source\n"
	"  --summary            only the totals\n"
	"  --detailed-exitcode  4 instead of 0 if there is something to hand over or to wait for\n"
	"  --host               whether this host can do what the policy asks\n"
	"  --strict             1 instead of 0 if there are warnings\n"
	"  --json               one JSON object a line\n"
	"  --key KEY            the agency's private key for policies\n"
	"  --name NAME          what the signature calls the signer (default: agency-policy)\n"
	"exit codes: 0 fine; 1 findings or differences; 2 bad usage or policy; 3 something could not be read\n";

int policy_cannot(const struct policy_words *w, int r, const struct cede_error *err) {
	(void)fprintf(stderr, "cede policy %s: %s\n", w->command, err->text);
	return r == CEDE_ERR_INPUT || r == CEDE_ERR_REFUSED ? EXIT_INPUT : EXIT_CANNOT;
}

const char *policy_base_name(const char *path) {
	const char *slash = strrchr(path, '/');

	return slash == NULL ? path : slash + 1;
}

/* Not below what the host has had; and says whether it is the one that the agent enforces. */
static int compare_with_host(const struct policy_words *w, const char *path,
	const struct policy *policy, const char *state, struct cede_error *reterr) {
	CLEANUP(ledger_closep) struct ledger *ledger = NULL;
	struct ledger_policy last = {.serial = 0};
	struct floor floor = {.serial = 0};
	bool there = false;

	int r = ledger_open_reader(state, &ledger, reterr);
	if (r < 0 && r != CEDE_ERR_BUSY) /* that: the agent has not run here yet */
		return r;
	if (r == CEDE_OK) {
		CEDE_TRY(floor_load(ledger, &floor, reterr));
		CEDE_TRY(floor_check(policy, &floor, reterr));
		CEDE_TRY(ledger_policy_last(ledger, &last, &there, reterr));
	}
	bool same = there && memcmp(last.sha256, policy->sha256, sizeof last.sha256) == 0;
	if (same)
		(void)fprintf(stderr,
			"cede policy %s: %s is what the agent loaded last (serial %" PRIu64 ")\n",
			w->command, policy_base_name(path), last.serial);
	else if (there)
		(void)fprintf(stderr,
			"cede policy %s: %s is not what the agent loaded last: that has serial %" PRIu64
			"\n",
			w->command, policy_base_name(path), last.serial);
	else
		(void)fprintf(stderr, "cede policy %s: no agent has loaded a policy here yet\n",
			w->command);
	return CEDE_OK;
}

/* As `cede run` would load it. */
static int load_signed(const struct policy_words *w, const char *path, struct policy **ret,
	struct policy_mistakes *mistakes, struct cede_error *reterr) {
	CLEANUP(agent_config_freep) struct agent_config *config = NULL;
	CLEANUP(trusted_policy_freep) struct trusted_policy *t = NULL;
	struct note_keys *signers = NULL;

	CEDE_TRY(agent_config_read(w->config, &config, reterr));
	CEDE_TRY(trust_signers(config->policy_signers, config->policy_signer_count, &signers, reterr));
	int r = trusted_policy_load(path, signers, &t, mistakes, reterr);
	note_keys_free(signers);
	CEDE_TRY(r);
	CEDE_TRY(compare_with_host(w, path, t->policy, config->state, reterr));
	*ret = CEDE_TAKE(t->policy);
	return CEDE_OK;
}

int policy_load_for(const struct policy_words *w, const char *path, struct policy **ret) {
	struct policy_mistakes mistakes = {NULL, 0};
	struct cede_error err = {0};
	int code = EXIT_FINE;

	*ret = NULL;
	int r = w->config != NULL ? load_signed(w, path, ret, &mistakes, &err)
				  : policy_load(path, ret, &mistakes, &err);
	for (size_t i = 0; i < mistakes.count; i++)
		(void)fprintf(stderr, "%s\n", mistakes.lines[i]);
	if (r < 0)
		code = mistakes.count > 0 ? EXIT_INPUT : policy_cannot(w, r, &err);
	else if (w->config == NULL)
		(void)fprintf(stderr,
			"cede policy %s: the signature of %s was not looked at (--config agent.yaml does)\n",
			w->command, policy_base_name(path));
	policy_mistakes_done(&mistakes);
	return code;
}

int policy_ledger_for(const struct policy_words *w, struct ledger **ret) {
	CLEANUP(agent_config_freep) struct agent_config *config = NULL;
	struct cede_error err = {0};
	const char *state = w->state;

	if (state == NULL && w->config == NULL)
		return EXIT_FINE;
	int r = state == NULL ? agent_config_read(w->config, &config, &err) : CEDE_OK;
	if (r == CEDE_OK && state == NULL)
		state = config->state;
	if (r == CEDE_OK)
		r = ledger_open_reader(state, ret, &err);
	if (r == CEDE_ERR_BUSY && w->state == NULL)
		return EXIT_FINE; /* nothing was seen before */
	return r == CEDE_OK ? EXIT_FINE : policy_cannot(w, r, &err);
}

int policy_vault_here(const struct policy_words *w, const struct policy_source *source,
	struct cede_error *reterr) {
	CLEANUP(agent_config_freep) struct agent_config *config = NULL;
	struct cede_error err = {0};
	char **lines = NULL;

	if (w->config != NULL && agent_config_load(w->config, &config, &lines, &err) < 0)
		for (size_t i = 0; lines != NULL && lines[i] != NULL; i++)
			freep(&lines[i]);
	freep(&lines);
	return vault_host_check(source, config, false, reterr);
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

static void show(const char *text, bool ascii, char out[SHOWN_MAX]) {
	size_t used = 0;

	for (const unsigned char *c = (const unsigned char *)text; *c != 0 && used + 5 < SHOWN_MAX;
		c++) {
		bool plain = *c >= 0x20 && *c != 0x7f && (!ascii || (*c < 0x7f && *c != '\\'));
		if (!ascii && *c == 0xc2 && c[1] >= 0x80 && c[1] < 0xa0) { /* U+0080 to U+009F */
			plain = false;
			c++;
		}
		if (plain)
			out[used++] = (char)*c;
		else
			used += (size_t)snprintf(out + used, SHOWN_MAX - used, "\\x%02x", *c);
	}
	out[used] = 0;
}

void show_path(const char *path, char out[SHOWN_MAX]) {
	show(path, true, out);
}

void show_text(const char *text, char out[SHOWN_MAX]) {
	show(text, false, out);
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

void show_bytes(uint64_t bytes, char *out, size_t size) {
	static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB"};
	double n = (double)bytes;
	size_t i = 0;

	while (i + 1 < ARRAY_LENGTH(units) && n >= 1024) {
		n /= 1024;
		i++;
	}
	(void)snprintf(out, size, i == 0 || n >= 100 ? "%.0f %s" : "%.1f %s", n, units[i]);
}

/* ---- the command line */

enum {
	POLICY = 1,
	CONFIG,
	STATE,
	SOURCE,
	AT,
	KEY,
	NAME,
	JSON,
	SUMMARY,
	DETAILED,
	RULES,
	HOST,
	STRICT,
	HELP
};

#define TAKES(option) (1U << (option))

static const struct command {
	const char *name;
	int (*run)(const struct policy_words *w);
	unsigned takes;
	unsigned needs;
	size_t rest; /* names behind the options */
} commands[] = {
	{"check", cmd_policy_check,
		TAKES(CONFIG) | TAKES(AT) | TAKES(HOST) | TAKES(STRICT) | TAKES(JSON), 0, 1},
	{"sign", cmd_policy_sign, TAKES(KEY) | TAKES(NAME), TAKES(KEY), 1},
	{"dry-run", cmd_policy_dry_run,
		TAKES(POLICY) | TAKES(CONFIG) | TAKES(STATE) | TAKES(SOURCE) | TAKES(AT) |
			TAKES(JSON) | TAKES(SUMMARY) | TAKES(DETAILED),
		0, 0},
	{"explain", cmd_policy_explain,
		TAKES(POLICY) | TAKES(CONFIG) | TAKES(STATE) | TAKES(AT) | TAKES(JSON), 0, 1},
	{"diff", cmd_policy_diff,
		TAKES(CONFIG) | TAKES(STATE) | TAKES(AT) | TAKES(JSON) | TAKES(RULES), 0, 2},
	{"show", cmd_policy_show, TAKES(POLICY) | TAKES(CONFIG) | TAKES(JSON), 0, 0},
};

static bool set(struct policy_words *w, int option, char *value) {
	struct cede_error err;

	switch (option) {
	case POLICY:
		w->policy = value;
		return true;
	case CONFIG:
		w->config = value;
		return true;
	case STATE:
		w->state = value;
		return true;
	case SOURCE:
		w->source = value;
		return true;
	case AT:
		if (parse_time(slice_str(value), &w->now_ns, &err) == CEDE_OK)
			return true;
		(void)fprintf(stderr, "cede policy %s: --at: %s\n", w->command, err.text);
		return false;
	case KEY:
		w->key = value;
		return true;
	case NAME:
		w->name = value;
		return true;
	case JSON:
		w->json = true;
		return true;
	case SUMMARY:
		w->summary = true;
		return true;
	case DETAILED:
		w->detailed = true;
		return true;
	case RULES:
		w->rules_only = true;
		return true;
	case HOST:
		w->host = true;
		return true;
	case STRICT:
		w->strict = true;
		return true;
	default:
		return false;
	}
}

static int bad_usage(const char *command, const char *what, const char *which) {
	char line[512];

	(void)snprintf(line, sizeof line, "cede policy%s%s: %s%s", command[0] != 0 ? " " : "",
		command, what, which);
	cede_plain(line);
	(void)fprintf(stderr, "%s\n%s", line, usage);
	return EXIT_INPUT;
}

static const char *name_of(const struct option *options, unsigned wanted) {
	while (options->name != NULL && (wanted & TAKES(options->val)) == 0)
		options++;
	return options->name != NULL ? options->name : "";
}

static int help(void) {
	(void)fputs(usage, stdout);
	return EXIT_FINE;
}

static int run(const struct command *command, int argc, char **argv) {
	static const struct option options[] = {{"policy", required_argument, NULL, POLICY},
		{"config", required_argument, NULL, CONFIG},
		{"state", required_argument, NULL, STATE},
		{"source", required_argument, NULL, SOURCE}, {"at", required_argument, NULL, AT},
		{"key", required_argument, NULL, KEY}, {"name", required_argument, NULL, NAME},
		{"json", no_argument, NULL, JSON}, {"summary", no_argument, NULL, SUMMARY},
		{"detailed-exitcode", no_argument, NULL, DETAILED},
		{"rules-only", no_argument, NULL, RULES}, {"host", no_argument, NULL, HOST},
		{"strict", no_argument, NULL, STRICT}, {"help", no_argument, NULL, HELP}, {0}};
	struct policy_words w = {
		.command = command->name, .name = "agency-policy", .now_ns = clock_wall_ns()};
	unsigned given = 0;
	int c;

	while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
		if (c == HELP)
			return help();
		if (c == '?') { /* getopt has said which */
			(void)fputs(usage, stderr);
			return EXIT_INPUT;
		}
		if ((command->takes & TAKES(c)) == 0)
			return bad_usage(command->name, "takes no --", name_of(options, TAKES(c)));
		if (!set(&w, c, optarg))
			return EXIT_INPUT;
		given |= TAKES(c);
	}
	w.rest = argv + optind;
	w.rest_count = (size_t)(argc - optind);
	if ((given & command->needs) != command->needs)
		return bad_usage(
			command->name, "needs --", name_of(options, command->needs & ~given));
	if (w.rest_count > command->rest)
		return bad_usage(command->name, "unexpected argument ", w.rest[command->rest]);
	if (w.rest_count < command->rest)
		return bad_usage(command->name, "a name is missing", "");
	if (w.policy == NULL && (command->takes & TAKES(POLICY)) != 0) {
		w.policy = AGENT_POLICY_DEFAULT;
		if (w.config == NULL && w.state == NULL && access(AGENT_CONFIG_DEFAULT, R_OK) == 0)
			w.config = AGENT_CONFIG_DEFAULT;
	}
	return command->run(&w);
}

int cmd_policy(int argc, char **argv) {
	for (size_t i = 0; argc >= 2 && i < ARRAY_LENGTH(commands); i++)
		if (strcmp(argv[1], commands[i].name) == 0)
			return run(&commands[i], argc - 1, argv + 1);
	if (argc >= 2 && strcmp(argv[1], "--help") == 0)
		return help();
	return argc >= 2 ? bad_usage("", "there is no command ", argv[1])
			 : bad_usage("", "a command expected", "");
}
