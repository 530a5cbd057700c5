/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/cmd_status.h"

#include <getopt.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>

#include "agent/config.h"
#include "agent/ledger/ledger.h"
#include "base/check.h"
#include "base/cleanup.h"
#include "base/clock.h"

static const char usage[] = "usage: cede status (--config AGENT | --state DIR) [--json]\n";

static int print_json(const struct ledger_counts *n) {
	json_t *captures = json_object();
	json_t *bundles = json_object();
	char oldest[CLOCK_TEXT_SIZE];

	for (int i = 0; i < CAPTURE_STATE_COUNT; i++)
		(void)json_object_set_new(captures, capture_state_name((enum capture_state)i),
			json_integer((json_int_t)n->captures[i]));
	for (int i = 0; i < BUNDLE_STATE_COUNT; i++)
		(void)json_object_set_new(bundles, bundle_state_name((enum bundle_state)i),
			json_integer((json_int_t)n->bundles[i]));
	clock_text(n->oldest_born_ns, oldest);
	json_t *all = json_pack("{s:s, s:o, s:o, s:I}", "schema", "cede-status/1", "captures",
		captures, "bundles", bundles, "events", (json_int_t)n->events);
	if (all == NULL)
		return 3;
	(void)json_object_set_new(
		all, "oldest", n->oldest_born_ns == INT64_MAX ? json_null() : json_string(oldest));
	int r = json_dumpf(all, stdout, JSON_COMPACT);
	json_decref(all);
	return r == 0 && putchar('\n') != EOF ? 0 : 3;
}

static int print_table(const struct ledger_counts *n) {
	for (int i = 0; i < CAPTURE_STATE_COUNT; i++)
		(void)printf("captures %-10s %10llu\n", capture_state_name((enum capture_state)i),
			(unsigned long long)n->captures[i]);
	for (int i = 0; i < BUNDLE_STATE_COUNT; i++)
		(void)printf("bundles  %-10s %10llu\n", bundle_state_name((enum bundle_state)i),
			(unsigned long long)n->bundles[i]);
	(void)printf("events   %-10s %10llu\n", "", (unsigned long long)n->events);
	if (n->oldest_born_ns != INT64_MAX) {
		char text[CLOCK_TEXT_SIZE];
		clock_text(n->oldest_born_ns, text);
		(void)printf("oldest capture on this host: %s\n", text);
	}
	return fflush(stdout) == 0 ? 0 : 3;
}

static int state_of_config(const char *path, char **ret, struct cede_error *reterr) {
	CLEANUP(agent_config_freep) struct agent_config *config = NULL;
	char **lines = NULL;

	int r = agent_config_load(path, &config, &lines, reterr);
	for (size_t i = 0; lines != NULL && lines[i] != NULL; i++) {
		(void)fprintf(stderr, "%s\n", lines[i]);
		free(lines[i]);
	}
	free(lines);
	if (r == CEDE_OK)
		*ret = CEDE_TAKE(config->state);
	return r;
}

static int report(const char *state, bool json, struct cede_error *reterr) {
	CLEANUP(ledger_closep) struct ledger *ledger = NULL;
	struct ledger_counts counts;

	CEDE_TRY(ledger_open_reader(state, &ledger, reterr));
	CEDE_TRY(ledger_count(ledger, &counts, reterr));
	return json ? print_json(&counts) : print_table(&counts);
}

int cmd_status(int argc, char **argv) {
	static const struct option options[] = {{"config", required_argument, NULL, 'c'},
		{"state", required_argument, NULL, 's'}, {"json", no_argument, NULL, 'j'},
		{"help", no_argument, NULL, 'h'}, {0}};
	CLEANUP(freep) char *from_config = NULL;
	const char *config = NULL;
	const char *state = NULL;
	struct cede_error err = {0};
	bool json = false;
	int c;

	while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
		if (c == 'c') {
			config = optarg;
		} else if (c == 's') {
			state = optarg;
		} else if (c == 'j') {
			json = true;
		} else {
			(void)fputs(usage, c == 'h' ? stdout : stderr);
			return c == 'h' ? 0 : 2;
		}
	}
	if ((config == NULL) == (state == NULL) || optind != argc) {
		(void)fputs(usage, stderr);
		return 2;
	}
	int r = config == NULL ? CEDE_OK : state_of_config(config, &from_config, &err);
	if (r == CEDE_OK)
		r = report(state != NULL ? state : from_config, json, &err);
	if (r < 0)
		(void)fprintf(stderr, "cede status: %s\n", err.text);
	return r >= 0 ? r : r == CEDE_ERR_INPUT ? 2 : 3;
}
