/* SPDX-License-Identifier: Apache-2.0 */
#include "receiver/audit_cmd.h"

#include <fcntl.h>
#include <getopt.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>

#include "base/bytes.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/parse.h"
#include "certs/host_id.h"
#include "receiver/audit.h"

static const char usage[] =
	"usage: cede-receiver audit --store DIR --host HOST --ledger EXPORT [--max-age DURATION]\n"
	"                           [--require LEVEL] [--allow-pruned] [--deep] [--json]\n"
	"  Compares a host's exported ledger (cede ledger export --json) with the store and the host's\n"
	"  checkpoints. One line a finding, then the totals. Exit status: 0 nothing found; 1 findings;\n"
	"  2 bad usage or no export; 3 unreadable.\n";

struct printer {
	bool json, failed;
};

static void found(void *ctx, enum audit_finding finding, const char *subject, const char *text) {
	struct printer *p = ctx;

	if (!p->json) {
		(void)printf("%-16s %s  %s\n", audit_finding_name(finding), subject, text);
		return;
	}
	json_t *o = json_pack("{s:s, s:s, s:s, s:s}", "kind", "finding", "finding",
		audit_finding_name(finding), "subject", subject, "text", text);
	p->failed = o == NULL || json_dumpf(o, stdout, JSON_COMPACT | JSON_ENSURE_ASCII) < 0 ||
		putchar('\n') == EOF || p->failed;
	json_decref(o);
}

static void print_lines(const struct audit_totals *t, const char *anchored_at,
	const char *pruned_before, uint64_t all) {
	(void)printf("anchored up to event %" PRIu64 " of %" PRIu64 "%s%s%s\n", t->anchored,
		t->events, t->anchored > 0 ? " (" : "", anchored_at, t->anchored > 0 ? ")" : "");
	if (t->pruned_bundles > 0)
		(void)printf("pruned: %" PRIu64 " captures in %" PRIu64 " bundles of before %s\n",
			t->pruned_captures, t->pruned_bundles, pruned_before);
	if (t->elsewhere > 0)
		(void)printf("elsewhere: %" PRIu64
			     " bundles that another destination has, as the host says\n",
			t->elsewhere);
	(void)printf("%" PRIu64 " events (%" PRIu64 " emptied), %" PRIu64 " captures, %" PRIu64
		     " bundles of which %" PRIu64 " receipted; %" PRIu64 " in the store; %" PRIu64
		     " checkpoints; %" PRIu64 " findings\n",
		t->events, t->pruned, t->captures, t->bundles, t->receipted, t->in_store,
		t->checkpoints, all);
}

/* NULL: no memory. Takes the counts. */
static json_t *summary(const struct audit_totals *t, const char *anchored_at,
	const char *pruned_before, json_t *counts) {
	return json_pack(
		"{s:s, s:s, s:I, s:I, s:I, s:I, s:s, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:s, s:o}",
		"kind", "summary", "schema", "cede-audit/1", "events", (json_int_t)t->events,
		"pruned", (json_int_t)t->pruned, "pruned_captures", (json_int_t)t->pruned_captures,
		"pruned_bundles", (json_int_t)t->pruned_bundles, "pruned_before", pruned_before,
		"captures", (json_int_t)t->captures, "bundles", (json_int_t)t->bundles, "receipted",
		(json_int_t)t->receipted, "elsewhere", (json_int_t)t->elsewhere, "in_store",
		(json_int_t)t->in_store, "checkpoints", (json_int_t)t->checkpoints, "anchored",
		(json_int_t)t->anchored, "anchored_at", anchored_at, "findings", counts);
}

static uint64_t print_totals(struct printer *p, const struct audit_totals *t) {
	char anchored_at[CLOCK_TEXT_SIZE] = "";
	char pruned_before[CLOCK_TEXT_SIZE] = "";
	json_t *counts = json_object();
	uint64_t all = 0;

	if (t->anchored > 0)
		clock_text(t->anchored_ns, anchored_at);
	if (t->pruned_bundles > 0)
		clock_text(t->pruned_before_ns, pruned_before);
	for (int i = 0; i < AUDIT_FINDING_COUNT; i++) {
		all += t->findings[i];
		(void)json_object_set_new(counts, audit_finding_name((enum audit_finding)i),
			json_integer((json_int_t)t->findings[i]));
	}
	if (!p->json) {
		print_lines(t, anchored_at, pruned_before, all);
		json_decref(counts);
		return all;
	}
	json_t *o = summary(t, anchored_at, pruned_before, counts);
	p->failed = o == NULL || json_dumpf(o, stdout, JSON_COMPACT) < 0 || putchar('\n') == EOF ||
		p->failed;
	json_decref(o);
	return all;
}

struct words {
	const char *store, *host, *ledger, *max_age, *require;
	bool allow_pruned, deep, json;
};

static bool parse(int argc, char **argv, struct words *w, bool *ret_help) {
	enum { STORE = 1, HOST, LEDGER, MAX_AGE, REQUIRE, ALLOW_PRUNED, DEEP, JSON, HELP };
	static const struct option options[] = {{"store", required_argument, NULL, STORE},
		{"host", required_argument, NULL, HOST}, {"ledger", required_argument, NULL, LEDGER},
		{"max-age", required_argument, NULL, MAX_AGE},
		{"require", required_argument, NULL, REQUIRE},
		{"allow-pruned", no_argument, NULL, ALLOW_PRUNED}, {"deep", no_argument, NULL, DEEP},
		{"json", no_argument, NULL, JSON}, {"help", no_argument, NULL, HELP}, {0}};
	int c;

	while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
		const char **texts[] = {
			NULL, &w->store, &w->host, &w->ledger, &w->max_age, &w->require};
		if (c >= STORE && c <= REQUIRE)
			*texts[c] = optarg;
		else if (c == ALLOW_PRUNED)
			w->allow_pruned = true;
		else if (c == DEEP)
			w->deep = true;
		else if (c == JSON)
			w->json = true;
		else {
			*ret_help = c == HELP;
			return false;
		}
	}
	return w->store != NULL && w->host != NULL && w->ledger != NULL && optind == argc;
}

static int run(const struct words *w, struct cede_error *reterr) {
	CLEANUP(fd_closep) int store = -1;
	CLEANUP(fd_closep) int host = -1;
	CLEANUP(fd_closep) int fd = openat(AT_FDCWD, w->ledger, O_RDONLY | O_CLOEXEC);
	CLEANUP(file_closep) FILE *from = NULL;
	struct printer p = {.json = w->json};
	struct audit_options o = {.require = -1,
		.deep = w->deep,
		.allow_pruned = w->allow_pruned,
		.ctx = &p,
		.found = found};
	struct audit_totals totals;

	if (fd < 0)
		return CEDE_FAIL_SYS(reterr, "open %s", w->ledger);
	if (!host_id_valid(slice_str(w->host)))
		return CEDE_FAIL(reterr, CEDE_ERR_INPUT, "--host: no host id");
	if (w->max_age != NULL && parse_duration(slice_str(w->max_age), &o.max_age_ns, reterr) < 0)
		return CEDE_ERR_INPUT;
	if (w->require != NULL && (o.require = audit_level(w->require)) < 0)
		return CEDE_FAIL(reterr, CEDE_ERR_INPUT,
			"--require: removed, unproven, overwritten-current, overwritten-watched or crypto-erased expected");
	CEDE_TRY(file_open_dir(AT_FDCWD, w->store, &store, reterr));
	if (file_open_beneath(store, w->host, O_RDONLY | O_DIRECTORY, &host, reterr) < 0)
		return CEDE_FAIL(reterr, CEDE_ERR_INPUT, "the store %s has nothing of host %s",
			w->store, w->host);
	from = fdopen(fd, "r");
	if (from == NULL)
		return CEDE_FAIL_MEMORY(reterr);
	(void)CEDE_TAKE_FD(fd);
	o.host_dir = host;
	o.export_file = from;
	CEDE_TRY(audit_run(&o, &totals, reterr));
	uint64_t findings = print_totals(&p, &totals);
	if (p.failed || fflush(stdout) != 0)
		return CEDE_FAIL(reterr, CEDE_ERR_IO, "write the audit");
	return findings > 0 ? 1 : 0;
}

int audit_cmd(int argc, char **argv) {
	struct words w = {0};
	struct cede_error err = {0};
	bool help = false;

	if (!parse(argc, argv, &w, &help)) {
		(void)fputs(usage, help ? stdout : stderr);
		return help ? 0 : 2;
	}
	int r = run(&w, &err);
	if (r >= 0)
		return r;
	(void)fprintf(stderr, "cede-receiver audit: %s\n", err.text);
	return r == CEDE_ERR_INPUT ? 2 : 3;
}
