/* SPDX-License-Identifier: Apache-2.0 */
#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>

#include "agent/cmd_policy_internal.h"
#include "agent/dry_run.h"
#include "agent/ledger/ledger.h"
#include "base/check.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/parse.h"

struct printer {
	const char *policy_name;
	int64_t now_ns;
	bool json;
	bool headed; /* the heading is printed */
};

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
		.policy_name = policy_base_name(o->policy), .now_ns = o->now_ns, .json = o->json};
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
		return policy_exit_code(r);
	}
	print_totals(&printer, &totals);
	if (fflush(stdout) != 0 || totals.troubles > 0)
		return EXIT_CANNOT;
	return totals.findings ? EXIT_FINDINGS : EXIT_FINE;
}

static int load_and_run(const struct dry_options *o) {
	CLEANUP(policy_freep) struct policy *policy = NULL;
	int code = policy_load_for("dry-run", o->policy, &policy);

	return policy == NULL ? code : do_dry_run(o, policy);
}

int cmd_policy_dry_run(int argc, char **argv) {
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
			return policy_help();
		default:
			return policy_bad_usage();
		}
	}
	return o.policy != NULL && optind == argc ? load_and_run(&o) : policy_bad_usage();
}
