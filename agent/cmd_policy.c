/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/cmd_policy.h"

#include <getopt.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent/dry_run.h"
#include "agent/ledger/ledger.h"
#include "agent/policy_files.h"
#include "base/check.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/parse.h"

#define SHOWN_MAX 16384 /* a path of 4095 bytes, each as "\x1b" */

enum exit_code { EXIT_FINE, EXIT_FINDINGS, EXIT_INPUT, EXIT_CANNOT };

static const char usage[] =
	"usage: cede policy check [--json] FILE\n"
	"       cede policy dry-run --policy FILE [--state DIR] [--source NAME] [--at TIME] [--json]\n"
	"  check      reads the policy and the files it names; prints every mistake\n"
	"  dry-run    says what would be done to each file, and why; changes nothing\n"
	"  --state    the agent's state directory: ages then count from when a file was first seen\n"
	"  --source   only this source\n"
	"  --at       decide as at this time (2027-06-30T00:00:00Z) instead of now\n"
	"  --json     one JSON object a line\n";

static int bad_usage(void) {
	(void)fputs(usage, stderr);
	return EXIT_INPUT;
}

static int exit_code(int r) {
	return r == CEDE_ERR_INPUT || r == CEDE_ERR_REFUSED ? EXIT_INPUT : EXIT_CANNOT;
}

static const char *base_name(const char *path) {
	const char *slash = strrchr(path, '/');

	return slash == NULL ? path : slash + 1;
}

/* Prints the object as one line and gives it back. */
static void print_json(json_t *object) {
	if (object == NULL ||
		json_dumpf(object, stdout, JSON_COMPACT | JSON_SORT_KEYS | JSON_REAL_PRECISION(12)) <
			0)
		(void)fputs("cede policy: out of memory for JSON\n", stderr);
	else
		(void)putchar('\n');
	json_decref(object);
}

/* ---- check */

struct check_report {
	const char *name; /* of the file */
	json_t *mistakes; /* NULL: to stderr */
};

static void add_mistake(struct check_report *report, const char *line) {
	if (report->mistakes == NULL)
		(void)fprintf(stderr, "%s\n", line);
	else if (json_array_append_new(report->mistakes, json_string(line)) < 0)
		(void)fprintf(stderr, "cede policy: no room in JSON for: %s\n", line);
}

static void say_file(void *ctx, struct policy_where where, const char *text) {
	struct check_report *report = ctx;
	char line[1024];

	(void)snprintf(
		line, sizeof line, "%s:%u:%u: %s", report->name, where.line, where.column, text);
	add_mistake(report, line);
}

static void print_checked(const struct check_report *report, const struct policy *policy, bool good) {
	const char *plural_d = good && policy->destination_count == 1 ? "" : "s";
	const char *plural_s = good && policy->source_count == 1 ? "" : "s";

	if (report->mistakes != NULL && !good)
		print_json(json_pack("{s:s, s:b, s:O}", "file", report->name, "ok", 0, "mistakes",
			report->mistakes));
	else if (report->mistakes != NULL)
		print_json(json_pack("{s:s, s:b, s:s, s:I, s:I, s:I}", "file", report->name, "ok",
			1, "id", policy->id, "serial", (json_int_t)policy->serial, "destinations",
			(json_int_t)policy->destination_count, "sources",
			(json_int_t)policy->source_count));
	else if (good)
		(void)printf("%s: ok: id %s, serial %" PRIu64 ", %zu destination%s, %zu source%s\n",
			report->name, policy->id, policy->serial, policy->destination_count,
			plural_d, policy->source_count, plural_s);
}

static int check_file(const char *path, bool json) {
	CLEANUP(policy_freep) struct policy *policy = NULL;
	CLEANUP(policy_mistakes_done) struct policy_mistakes mistakes = {NULL, 0};
	struct check_report report = {
		.name = base_name(path), .mistakes = json ? json_array() : NULL};
	struct cede_error err = {0};
	size_t bad = 0;

	int r = policy_load(path, &policy, &mistakes, &err);
	for (size_t i = 0; i < mistakes.count; i++)
		add_mistake(&report, mistakes.lines[i]);
	bad = mistakes.count;
	if (r == CEDE_OK)
		r = policy_files_check(policy, path, clock_wall_ns(), say_file, &report, &bad, &err);
	if (r < 0 && mistakes.count == 0)
		(void)fprintf(stderr, "cede policy check: %s\n", err.text);
	else
		print_checked(&report, policy, r == CEDE_OK && bad == 0);
	json_decref(report.mistakes);
	if (r < 0)
		return exit_code(r);
	return bad > 0 ? EXIT_INPUT : EXIT_FINE;
}

static int cmd_check(int argc, char **argv) {
	enum { JSON = 1, HELP };
	static const struct option options[] = {
		{"json", no_argument, NULL, JSON}, {"help", no_argument, NULL, HELP}, {0}};
	bool json = false;
	int c;

	while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
		if (c == HELP) {
			(void)fputs(usage, stdout);
			return EXIT_FINE;
		}
		if (c != JSON)
			return bad_usage();
		json = true;
	}
	return optind + 1 == argc ? check_file(argv[optind], json) : bad_usage();
}

/* ---- dry-run */

struct printer {
	const char *policy_name;
	int64_t now_ns;
	bool json;
	bool headed; /* the heading is printed */
};

/* What would move a terminal's cursor, is no text, or is a backslash: as \xNN. */
static void show_path(const char *path, char out[SHOWN_MAX]) {
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

/* "3d04h" "2h05m" "14m57s" "3s": two units are enough to see how urgent it is. */
static void show_span(int64_t ns, char *out, size_t size) {
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

static void print_file_json(
	const struct printer *p, const struct dry_run_file *f, const char *path, const char *rule) {
	const struct decision *d = &f->decision;
	char born[CLOCK_TEXT_SIZE];
	char deadline[CLOCK_TEXT_SIZE];

	clock_text(d->born_ns, born);
	clock_text(d->deadline_ns, deadline);
	print_json(json_pack("{s:s, s:s, s:s, s:b, s:b, s:s, s:f, s:s, s:s, s:s, s:s}", "kind",
		"file", "action", action_name(d->action), "reason", reason_name(d->reason),
		"finding", (int)reason_is_finding(d->reason), "overdue", (int)d->overdue, "born",
		born, "age_seconds", (double)(p->now_ns - d->born_ns) / (double)NS_PER_SECOND,
		"deadline", deadline, "source", f->source->name, "path", path, "rule", rule));
}

static void print_file(void *ctx, const struct dry_run_file *f) {
	struct printer *p = ctx;
	char path[SHOWN_MAX];
	char rule[160];
	char age[24];
	char deadline[CLOCK_TEXT_SIZE];

	show_path(f->path, path);
	(void)snprintf(rule, sizeof rule, "%.100s:%u", p->policy_name, f->decision.rule.line);
	if (p->json) {
		print_file_json(p, f, path, rule);
		return;
	}
	if (!p->headed)
		(void)printf("%-9s %-17s %9s  %-20s  %-12s %-18s %s\n", "ACTION", "REASON", "AGE",
			"DEADLINE", "SOURCE", "RULE", "PATH");
	p->headed = true;
	show_span(p->now_ns - f->decision.born_ns, age, sizeof age);
	clock_text(f->decision.deadline_ns, deadline);
	(void)printf("%-9s %-17s %9s  %-20s  %-12s %-18s %s\n", action_name(f->decision.action),
		reason_name(f->decision.reason), age, deadline, f->source->name, rule, path);
}

static void print_trouble(void *ctx, const struct policy_source *source, const char *path,
	const struct cede_error *why) {
	char shown[SHOWN_MAX];

	(void)ctx;
	show_path(path, shown);
	(void)fprintf(stderr, "cede policy dry-run: source %s: %s%s%s\n", source->name, shown,
		shown[0] != 0 ? ": " : "", why->text);
}

static const char *const actions_shown[] = {"hand-over", "wait", "ignore", "hold", "refuse"};

static uint64_t action_total(const struct dry_run_totals *t, size_t action) {
	static const enum action of_reason[REASON_COUNT] = {

#define X(id, action, finding, name, text) [REASON_##id] = action,
		DECIDE_REASONS(X)
#undef X
	};
	uint64_t total = 0;

	for (size_t i = 0; i < REASON_COUNT; i++)
		total += (size_t)of_reason[i] == action ? t->reasons[i] : 0;
	return total;
}

static void print_totals_json(const struct printer *p, const struct dry_run_totals *t) {
	json_t *actions = json_object();
	json_t *reasons = json_object();
	char oldest[CLOCK_TEXT_SIZE] = "";
	int full = 0;

	for (size_t i = 0; i < ARRAY_LENGTH(actions_shown); i++)
		full |= json_object_set_new(
			actions, actions_shown[i], json_integer((json_int_t)action_total(t, i)));
	for (size_t i = 0; i < REASON_COUNT; i++)
		full |= json_object_set_new(reasons, reason_name((enum reason)i),
			json_integer((json_int_t)t->reasons[i]));
	if (t->oldest_source != NULL)
		clock_text(t->oldest_ns, oldest);
	if (full != 0)
		(void)fputs("cede policy: out of memory for JSON\n", stderr);
	print_json(json_pack("{s:s, s:I, s:o, s:o, s:I, s:I, s:s, s:s, s:s}", "kind", "totals",
		"files", (json_int_t)t->files, "actions", actions, "reasons", reasons, "overdue",
		(json_int_t)t->overdue, "troubles", (json_int_t)t->troubles, "oldest", oldest,
		"oldest_source", t->oldest_source != NULL ? t->oldest_source->name : "", "policy",
		p->policy_name));
}

static void print_totals(const struct printer *p, const struct dry_run_totals *t) {
	char age[24];

	if (p->json) {
		print_totals_json(p, t);
		return;
	}
	(void)printf("\n%" PRIu64 " file%s:", t->files, t->files == 1 ? "" : "s");
	for (size_t i = 0; i < ARRAY_LENGTH(actions_shown); i++)
		(void)printf(" %s %" PRIu64 "%s", actions_shown[i], action_total(t, i),
			i + 1 < ARRAY_LENGTH(actions_shown) ? "," : "\n");
	for (size_t i = 0; i < REASON_COUNT; i++)
		if (t->reasons[i] > 0)
			(void)printf(
				"  %8" PRIu64 "  %s\n", t->reasons[i], reason_text((enum reason)i));
	if (t->oldest_source == NULL)
		return;
	show_span(p->now_ns - t->oldest_ns, age, sizeof age);
	(void)printf("oldest: %s, in source %s; %" PRIu64 " older than allowed\n", age,
		t->oldest_source->name, t->overdue);
}

struct dry_options {
	const char *policy;
	const char *state;
	const char *source;
	int64_t now_ns;
	bool json;
};

static int do_dry_run(const struct dry_options *o, const struct policy *policy) {
	CLEANUP(ledger_closep) struct ledger *ledger = NULL;
	struct printer printer = {
		.policy_name = base_name(o->policy), .now_ns = o->now_ns, .json = o->json};
	struct dry_run_totals totals;
	struct cede_error err = {0};

	if (o->state != NULL && ledger_open_reader(o->state, &ledger, &err) < 0) {
		(void)fprintf(stderr, "cede policy dry-run: %s: %s\n", o->state, err.text);
		return EXIT_CANNOT;
	}
	struct dry_run run = {.policy = policy,
		.source = o->source,
		.ledger = ledger,
		.now_ns = o->now_ns,
		.ctx = &printer,
		.file = print_file,
		.trouble = print_trouble};
	int r = dry_run(&run, &totals, &err);
	if (r < 0) {
		(void)fprintf(stderr, "cede policy dry-run: %s\n", err.text);
		return exit_code(r);
	}
	print_totals(&printer, &totals);
	if (fflush(stdout) != 0 || totals.troubles > 0)
		return EXIT_CANNOT;
	return totals.findings ? EXIT_FINDINGS : EXIT_FINE;
}

static int load_and_run(const struct dry_options *o) {
	CLEANUP(policy_freep) struct policy *policy = NULL;
	CLEANUP(policy_mistakes_done) struct policy_mistakes mistakes = {NULL, 0};
	struct cede_error err = {0};

	int r = policy_load(o->policy, &policy, &mistakes, &err);
	if (r == CEDE_OK)
		return do_dry_run(o, policy);
	for (size_t i = 0; i < mistakes.count; i++)
		(void)fprintf(stderr, "%s\n", mistakes.lines[i]);
	if (mistakes.count == 0)
		(void)fprintf(stderr, "cede policy dry-run: %s\n", err.text);
	return exit_code(r);
}

static int cmd_dry_run(int argc, char **argv) {
	enum { POLICY = 1, STATE, SOURCE, AT, JSON, HELP };
	static const struct option options[] = {{"policy", required_argument, NULL, POLICY},
		{"state", required_argument, NULL, STATE},
		{"source", required_argument, NULL, SOURCE}, {"at", required_argument, NULL, AT},
		{"json", no_argument, NULL, JSON}, {"help", no_argument, NULL, HELP}, {0}};
	struct dry_options o = {.now_ns = clock_wall_ns()};
	struct cede_error err;
	int c;

	while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
		switch (c) {
		case POLICY:
			o.policy = optarg;
			break;
		case STATE:
			o.state = optarg;
			break;
		case SOURCE:
			o.source = optarg;
			break;
		case AT:
			if (parse_time(slice_str(optarg), &o.now_ns, &err) == CEDE_OK)
				break;
			(void)fprintf(stderr, "cede policy dry-run: --at: %s\n", err.text);
			return EXIT_INPUT;
		case JSON:
			o.json = true;
			break;
		case HELP:
			(void)fputs(usage, stdout);
			return EXIT_FINE;
		default:
			return bad_usage();
		}
	}
	return o.policy != NULL && optind == argc ? load_and_run(&o) : bad_usage();
}

int cmd_policy(int argc, char **argv) {
	if (argc >= 2 && strcmp(argv[1], "check") == 0)
		return cmd_check(argc - 1, argv + 1);
	if (argc >= 2 && strcmp(argv[1], "dry-run") == 0)
		return cmd_dry_run(argc - 1, argv + 1);
	if (argc >= 2 && strcmp(argv[1], "--help") == 0) {
		(void)fputs(usage, stdout);
		return EXIT_FINE;
	}
	return bad_usage();
}
