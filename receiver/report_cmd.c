/* SPDX-License-Identifier: Apache-2.0 */
#include <getopt.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/parse.h"
#include "receiver/audit_cmd.h"
#include "receiver/fleet.h"

static const char usage[] =
	"usage: cede-receiver report --store DIR [--opened DIR] [--max-age DURATION] [--json]\n"
	"  Every host that has a folder in the store: its last bundle, its ledger's newest checkpoint, and,\n"
	"  from the newest manifest of it in --opened or its folder HOST (what cede-receiver open writes), the\n"
	"  serial of its policy and how old its oldest capture was. Exit status: 0; 1 a host is overdue, sent\n"
	"  a checkpoint that was refused or a manifest in another's name; 2 bad usage; 3 something is\n"
	"  unreadable: it is named, and what can be read is told.\n";

static void unread(const char *what, const char *why) {
	(void)fprintf(stderr, "cede-receiver report: %s: %s\n", what, why);
}

static bool is_overdue(int64_t max_age_ns, const struct fleet_host *h) {
	return max_age_ns > 0 && h->created_ns > 0 && h->oldest_ns > max_age_ns;
}

static void time_or_dash(int64_t ns, char out[CLOCK_TEXT_SIZE]) {
	if (ns > 0)
		clock_text(ns, out);
	else
		(void)snprintf(out, CLOCK_TEXT_SIZE, "-");
}

static int print_json(const struct fleet *f, int64_t max_age_ns) {
	json_t *hosts = json_array();
	char last[CLOCK_TEXT_SIZE], checkpoint[CLOCK_TEXT_SIZE], opened[CLOCK_TEXT_SIZE];

	for (size_t i = 0; i < f->count; i++) {
		const struct fleet_host *h = &f->hosts[i];
		time_or_dash(h->last_ns, last);
		time_or_dash(h->checkpoint_ns, checkpoint);
		time_or_dash(h->created_ns, opened);
		(void)json_array_append_new(hosts,
			json_pack("{s:s, s:s, s:I, s:I, s:s, s:b, s:b, s:b, s:s, s:I, s:f, s:b}",
				"host", h->name, "last_bundle", last, "bundles",
				(json_int_t)h->bundles, "ledger_events", (json_int_t)h->events,
				"checkpoint", checkpoint, "refused_checkpoints", (int)h->refused,
				"forged_manifests", (int)h->forged, "unreadable",
				(int)h->unreadable, "opened", opened, "policy_serial",
				(json_int_t)h->serial, "oldest_plaintext_seconds",
				(double)h->oldest_ns / (double)NS_PER_SECOND, "overdue",
				(int)is_overdue(max_age_ns, h)));
	}
	json_t *all = json_pack("{s:s, s:o}", "schema", "cede-report/1", "hosts", hosts);
	int r = all == NULL ? -1 : json_dumpf(all, stdout, JSON_COMPACT);
	json_decref(all);
	return r == 0 && putchar('\n') != EOF ? 0 : -1;
}

static void print_table(const struct fleet *f, int64_t max_age_ns) {
	char last[CLOCK_TEXT_SIZE], checkpoint[CLOCK_TEXT_SIZE];

	(void)printf("%-24s %-20s %8s %10s %-20s %6s %9s  %s\n", "HOST", "LAST BUNDLE", "BUNDLES",
		"EVENTS", "CHECKPOINT", "POLICY", "OLDEST", "");
	for (size_t i = 0; i < f->count; i++) {
		const struct fleet_host *h = &f->hosts[i];
		time_or_dash(h->last_ns, last);
		time_or_dash(h->checkpoint_ns, checkpoint);
		char serial[24] = "-", oldest[24] = "-";
		if (h->created_ns > 0) {
			(void)snprintf(serial, sizeof serial, "%" PRIu64, h->serial);
			(void)snprintf(oldest, sizeof oldest, "%" PRId64 "s",
				h->oldest_ns / NS_PER_SECOND);
		}
		(void)printf("%-24s %-20s %8" PRIu64 " %10" PRIu64 " %-20s %6s %9s  %s%s%s%s\n",
			h->name, last, h->bundles, h->events, checkpoint, serial, oldest,
			is_overdue(max_age_ns, h) ? "OVERDUE " : "",
			h->refused ? "REFUSED-CHECKPOINT " : "",
			h->forged ? "FORGED-MANIFEST " : "", h->unreadable ? "UNREADABLE" : "");
	}
}

static int run(const char *store, const char *opened, const char *max_age, bool json,
	struct cede_error *reterr) {
	CLEANUP(fleet_done) struct fleet f = {.store = -1, .unread = unread};
	int64_t max_age_ns = 0;
	bool findings = false;

	if (max_age != NULL && parse_duration(slice_str(max_age), &max_age_ns, reterr) < 0)
		return CEDE_ERR_INPUT;
	CEDE_TRY(fleet_read(&f, store, opened, reterr));
	if (f.unknown > 0)
		(void)fprintf(stderr,
			"cede-receiver report: %" PRIu64
			" manifests are of bundles that the store does not have: passed over\n",
			f.unknown);
	if (json && print_json(&f, max_age_ns) < 0)
		return CEDE_FAIL(reterr, CEDE_ERR_IO, "write the report");
	if (!json)
		print_table(&f, max_age_ns);
	for (size_t i = 0; i < f.count; i++)
		findings = findings || f.hosts[i].refused || f.hosts[i].forged ||
			is_overdue(max_age_ns, &f.hosts[i]);
	if (fflush(stdout) != 0)
		return CEDE_FAIL_SYS(reterr, "write the report");
	return f.unreadable ? 3 : findings;
}

int report_cmd(int argc, char **argv) {
	static const struct option options[] = {{"store", required_argument, NULL, 's'},
		{"opened", required_argument, NULL, 'o'}, {"max-age", required_argument, NULL, 'm'},
		{"json", no_argument, NULL, 'j'}, {"help", no_argument, NULL, 'h'}, {0}};
	const char *store = NULL;
	const char *opened = NULL;
	const char *max_age = NULL;
	struct cede_error err = {0};
	bool json = false;
	int c;

	while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
		if (c == 's') {
			store = optarg;
		} else if (c == 'o') {
			opened = optarg;
		} else if (c == 'm') {
			max_age = optarg;
		} else if (c == 'j') {
			json = true;
		} else {
			(void)fputs(usage, c == 'h' ? stdout : stderr);
			return c == 'h' ? 0 : 2;
		}
	}
	if (store == NULL || optind != argc) {
		(void)fputs(usage, stderr);
		return 2;
	}
	int r = run(store, opened, max_age, json, &err);
	if (r >= 0)
		return r;
	(void)fprintf(stderr, "cede-receiver report: %s\n", err.text);
	return r == CEDE_ERR_INPUT ? 2 : 3;
}
