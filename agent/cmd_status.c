/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/cmd_status.h"

#include <getopt.h>
#include <jansson.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "agent/config.h"
#include "agent/ledger/ledger.h"
#include "agent/status_read.h"
#include "agent/status_show.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/parse.h"

#define WATCH_S 2

static const char usage[] =
	"usage: cede status [--config AGENT | --state DIR] [--json] [--watch[=SECONDS]]\n"
	"  --config AGENT  instead of " AGENT_CONFIG_DEFAULT "\n"
	"exit status: 0 all is in order, 1 somebody has to look, 2 usage, 3 it can't be told\n";

/* 0 in order, 1 not, negative: it can't be told. */
static int report(const char *state, bool json, struct cede_error *reterr) {
	json_t *status;

	CEDE_TRY(status_read(state, &status, reterr));
	int result = status_in_order(status) ? 0 : 1;
	if (json) {
		if (json_dumpf(status, stdout, JSON_COMPACT) < 0)
			result = CEDE_FAIL(reterr, CEDE_ERR_IO, "write it");
		(void)putchar('\n');
	} else {
		status_show(status, clock_wall_ns(), stdout);
	}
	json_decref(status);
	if (fflush(stdout) != 0)
		return CEDE_FAIL_SYS(reterr, "write it");
	return result;
}

/* Again and again, until it is interrupted or can't write any more. A ledger of many captures takes
 * its time to be read: nine tenths of the time it is left alone. */
static int watch(const char *state, bool json, uint64_t seconds) {
	bool terminal = isatty(STDOUT_FILENO) == 1;

	for (;;) {
		struct cede_error err = {0};
		int64_t began = clock_boot_ns();
		if (terminal && !json)
			(void)fputs("\033[H\033[J", stdout);
		if (report(state, json, &err) < 0)
			(void)fprintf(stderr, "cede status: %s\n", err.text);
		if (!terminal && !json)
			(void)putchar('\n');
		if (fflush(stdout) != 0 || ferror(stdout) != 0)
			return 3;
		int64_t took_ms = (clock_boot_ns() - began) / NS_PER_MS;
		int64_t wait_ms = (int64_t)seconds * 1000;
		(void)poll(NULL, 0, (int)(wait_ms > 9 * took_ms ? wait_ms : 9 * took_ms));
	}
}

int cmd_status(int argc, char **argv) {
	static const struct option options[] = {{"config", required_argument, NULL, 'c'},
		{"state", required_argument, NULL, 's'}, {"json", no_argument, NULL, 'j'},
		{"watch", optional_argument, NULL, 'w'}, {"help", no_argument, NULL, 'h'}, {0}};
	CLEANUP(freep) char *place = NULL;
	const char *config = NULL;
	const char *state = NULL;
	struct cede_error err = {0};
	uint64_t every_s = 0;
	bool json = false;
	int c;

	while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
		if (c == 'c') {
			config = optarg;
		} else if (c == 's') {
			state = optarg;
		} else if (c == 'j') {
			json = true;
		} else if (c == 'w' &&
			(optarg == NULL ||
				parse_u64(slice_str(optarg), 1, 3600, &every_s, NULL) == CEDE_OK)) {
			every_s = optarg == NULL ? WATCH_S : every_s;
		} else {
			(void)fputs(usage, c == 'h' ? stdout : stderr);
			return c == 'h' ? 0 : 2;
		}
	}
	if ((config != NULL && state != NULL) || optind != argc) {
		(void)fprintf(stderr, "cede status: %s%s\n%s",
			optind != argc ? "unexpected argument "
				       : "either --state or --config, not both",
			optind != argc ? argv[optind] : "", usage);
		return 2;
	}
	int r = agent_config_state(state, config, &place, &err);
	if (r == CEDE_OK && every_s > 0)
		return watch(place, json, every_s);
	if (r == CEDE_OK)
		r = ledger_unreadable(report(place, json, &err));
	if (r < 0)
		(void)fprintf(stderr, "cede status: %s\n", err.text);
	return r >= 0 ? r : r == CEDE_ERR_INPUT ? 2 : 3;
}
