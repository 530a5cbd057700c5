/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/cmd_vault.h"

#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "agent/cmd_policy_internal.h"
#include "agent/ledger/epoch.h"
#include "agent/vault_host.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/escape.h"
#include "base/hex.h"

static const char usage[] =
	"usage: cede vault init --policy FILE [--config AGENT]   prepares each source that has a vault\n"
	"       cede vault status --state DIR [--all] [--json]   the epochs of each source, and their keys\n"
	"  init      makes the store beside the source and rehearses a turn; changes nothing at the source:\n"
	"            the agent makes the first turn when it starts\n"
	"  status    epochs whose key is there; with --all those that are erased as well\n"
	"exit codes: 0 done; 1 a source can't have its vault; 2 bad usage or input; 3 could not do it\n";

struct words {
	const char *verb, *policy, *config, *state;
	bool all, json;
};

/* 0, or 1 for help, or -1. */
static int parse(int argc, char **argv, struct words *ret) {
	static const struct option options[] = {{"policy", required_argument, NULL, 'p'},
		{"config", required_argument, NULL, 'c'}, {"state", required_argument, NULL, 's'},
		{"all", no_argument, NULL, 'a'}, {"json", no_argument, NULL, 'j'},
		{"help", no_argument, NULL, 'h'}, {0}};
	int c;

	while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
		switch (c) {
		case 'p':
			ret->policy = optarg;
			break;
		case 'c':
			ret->config = optarg;
			break;
		case 's':
			ret->state = optarg;
			break;
		case 'a':
			ret->all = true;
			break;
		case 'j':
			ret->json = true;
			break;
		default:
			return c == 'h' ? 1 : -1;
		}
	}
	if (optind + 1 != argc)
		return -1;
	ret->verb = argv[optind];
	bool init = strcmp(ret->verb, "init") == 0;
	if (!init && strcmp(ret->verb, "status") != 0)
		return -1;
	return (init ? ret->policy : ret->state) == NULL ? -1 : 0;
}

/* ---- init */

static int init_source(const struct policy_source *s, const struct agent_config *config) {
	struct cede_error err = {0};
	char epoch[64];

	if (vault_host_check(s, config, true, &err) < 0) {
		(void)printf("source %s: no vault here: %s\n", s->name, err.text);
		return 1;
	}
	show_span(s->vault_epoch_ns, epoch, sizeof epoch);
	(void)printf("source %s: ready: a directory and a key every %s, keys %s\n", s->name, epoch,
		s->vault_keys_in_memory
			? "in memory: a restart of the system destroys what was not handed over"
			: config == NULL ? "wrapped (vault.key was not looked at: give --config)"
			: vault_host_key_is_handed_over(s, config)
			? "wrapped (vault.key is handed over by the service manager: not to be had here)"
			: "wrapped");
	return 0;
}

static int init(const struct words *w, struct cede_error *reterr) {
	CLEANUP(policy_freep) struct policy *policy = NULL;
	CLEANUP(policy_mistakes_done) struct policy_mistakes mistakes = {NULL, 0};
	CLEANUP(agent_config_freep) struct agent_config *config = NULL;
	size_t vaults = 0;
	int bad = 0;

	int r = policy_load(w->policy, &policy, &mistakes, reterr);
	for (size_t i = 0; i < mistakes.count; i++)
		(void)fprintf(stderr, "%s\n", mistakes.lines[i]);
	CEDE_TRY(r);
	if (w->config != NULL)
		CEDE_TRY(agent_config_read(w->config, &config, reterr));
	for (size_t i = 0; i < policy->source_count; i++) {
		if (policy->sources[i].vault_epoch_ns == 0)
			continue;
		vaults++;
		bad |= init_source(&policy->sources[i], config);
	}
	if (vaults == 0)
		(void)printf("no source of the policy has a vault\n");
	return bad;
}

/* ---- status */

struct listing {
	bool json;
	uint64_t epochs;
	int64_t now_ns;
};

static int print_epoch(void *ctx, const struct ledger_epoch *e, struct cede_error *reterr) {
	struct listing *l = ctx;
	char name[3 * 64 + 1], key[2 * EPOCH_KEY_SIZE + 1], made[CLOCK_TEXT_SIZE], age[64];

	(void)reterr;
	l->epochs++;
	escape_word(epoch_source_name(slice_str(e->source)), name, sizeof name);
	hex_print(e->key, sizeof e->key, key);
	clock_text(e->made_ns, made);
	show_span((e->ended_ns != 0 ? e->ended_ns : l->now_ns) - e->made_ns, age, sizeof age);
	if (l->json)
		print_json(json_pack("{s:s, s:s, s:s, s:s, s:s, s:s, s:I, s:I}", "schema",
			"cede-vault-epoch/1", "source", name, "epoch", key, "state",
			epoch_state_name(e->state), "keys", e->wrapped ? "wrapped" : "memory",
			"made", made, "captures", (json_int_t)e->live, "held", (json_int_t)e->held));
	else
		(void)printf("%s %s %-9s since %s, key of %s, captures %" PRIu64 "%s\n", name, key,
			epoch_state_name(e->state), made, age, e->live, e->held > 0 ? " (held)" : "");
	return CEDE_OK;
}

static int status(const struct words *w, struct cede_error *reterr) {
	CLEANUP(ledger_closep) struct ledger *ledger = NULL;
	struct listing l = {.json = w->json, .now_ns = clock_wall_ns()};

	CEDE_TRY(ledger_unreadable(ledger_open_reader(w->state, &ledger, reterr)));
	CEDE_TRY(ledger_unreadable(ledger_epochs(ledger, NULL, w->all, print_epoch, &l, reterr)));
	if (l.epochs == 0 && !w->json)
		(void)printf("no epoch of a vault\n");
	return 0;
}

int cmd_vault(int argc, char **argv) {
	struct words words = {0};
	struct cede_error err = {0};

	int help = parse(argc, argv, &words);
	if (help != 0) {
		(void)fputs(usage, help > 0 ? stdout : stderr);
		return help > 0 ? 0 : 2;
	}
	int r = strcmp(words.verb, "init") == 0 ? init(&words, &err) : status(&words, &err);
	if (r < 0 && err.text[0] != 0)
		(void)fprintf(stderr, "cede vault %s: %s\n", words.verb, err.text);
	if (r >= 0 && fflush(stdout) != 0)
		return 3;
	return r >= 0 ? r : r == CEDE_ERR_INPUT || r == CEDE_ERR_REFUSED ? 2 : 3;
}
