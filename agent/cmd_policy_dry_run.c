/* SPDX-License-Identifier: Apache-2.0 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "agent/cmd_policy_internal.h"
#include "agent/dry_run.h"
#include "agent/ledger/ledger.h"
#include "base/check.h"
#include "base/cleanup.h"
#include "base/clock.h"

#define PLAIN_COLUMNS 0 /* no terminal: nothing is shortened */
#define COLUMNS_LEAST 60

struct printer {
	const struct policy_words *words;
	const struct policy *policy;
	const char *policy_name;
	size_t columns; /* of the terminal, or PLAIN_COLUMNS */
	bool colour;
	bool progress;   /* on stderr */
	bool headed;     /* the heading is printed */
	int destination; /* width of the longest name */
	uint64_t files;
	bool work; /* something is to be done, or waited for */
};

static void printer_init(
	struct printer *p, const struct policy_words *w, const struct policy *policy) {
	struct winsize size;

	*p = (struct printer){.words = w,
		.policy = policy,
		.policy_name = policy_base_name(w->policy),
		.destination = (int)strlen("DESTINATION")};
	if (isatty(STDOUT_FILENO) && !w->json) {
		p->columns = ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0
			? size.ws_col
			: 80;
		p->colour = getenv("NO_COLOR") == NULL;
		if (p->columns < COLUMNS_LEAST)
			p->columns = COLUMNS_LEAST;
	}
	p->progress = isatty(STDERR_FILENO) && (w->summary || !isatty(STDOUT_FILENO));
	for (size_t i = 0; i < policy->destination_count; i++)
		if ((int)strlen(policy->destinations[i].name) > p->destination)
			p->destination = (int)strlen(policy->destinations[i].name);
}

static void print_file_json(
	const struct printer *p, const struct dry_run_file *f, const char *path, const char *rule) {
	const struct decision *d = &f->decision;
	char born[CLOCK_TEXT_SIZE];
	char deadline[CLOCK_TEXT_SIZE];

	clock_text(d->born_ns, born);
	clock_text(d->deadline_ns, deadline);
	print_json(json_pack(
		"{s:s, s:s, s:s, s:b, s:b, s:s, s:f, s:s, s:s, s:s, s:s, s:s, s:I, s:s?, s:s?}",
		"kind", "file", "action", action_name(d->action), "reason", reason_name(d->reason),
		"finding", (int)reason_is_finding(d->reason), "overdue", (int)d->overdue, "born",
		born, "age_seconds", (double)(p->words->now_ns - d->born_ns) / (double)NS_PER_SECOND,
		"deadline", deadline, "source", f->source->name, "path", path, "rule", rule,
		"destination", p->policy->destinations[f->source->destination].name, "size",
		(json_int_t)f->size, "hold", d->hold == NULL ? NULL : d->hold->id, "epoch",
		f->epoch[0] == 0 ? NULL : f->epoch));
}

/* The middle goes first: both ends of a path tell the most. */
static void shorten(char *text, size_t columns) {
	size_t len = strlen(text);

	if (len <= columns)
		return;
	size_t tail = columns * 2 / 3;
	size_t head = columns - tail - 3;
	memcpy(text + head, "...", 3);
	memmove(text + head + 3, text + len - tail, tail + 1);
}

/* "14m57s" before the deadline, "-3h10m" after it. */
static void show_left(int64_t ns, char *out, size_t size) {
	if (ns < 0) {
		*out++ = '-';
		size--;
	}
	show_span(ns < 0 ? -ns : ns, out, size);
}

static void print_progress(struct printer *p) {
	if (p->progress && ++p->files % 10000 == 0)
		(void)fprintf(stderr, "\r%" PRIu64 " files", p->files);
}

static void print_row(const struct printer *p, const struct decision *d, const char *source,
	const char *destination, char *path) {
	static const char *const colours[] = {[ACTION_HAND_OVER] = "",
		[ACTION_WAIT] = "\033[2m",
		[ACTION_IGNORE] = "\033[2m",
		[ACTION_HOLD] = "\033[33m",
		[ACTION_REFUSE] = "\033[31m",
		[ACTION_DESTROY] = "\033[31m"};
	char age[24], left[24], row[256], hold[128] = "";
	bool paint = p->colour, below = false;

	show_span(p->words->now_ns - d->born_ns, age, sizeof age);
	show_left(d->deadline_ns - p->words->now_ns, left, sizeof left);
	int n = snprintf(row, sizeof row, "%-9s %-17s %6s %7s %-*s %4u ", action_name(d->action),
		reason_name(d->reason), age, left, p->destination, destination, d->rule.line);
	if (d->hold != NULL)
		(void)snprintf(hold, sizeof hold, "  hold %.100s", d->hold->id);
	if (p->columns != PLAIN_COLUMNS && n > 0) {
		size_t used = (size_t)n + strlen(source) + 1;
		shorten(path, used + 8 < p->columns ? p->columns - used : 8);
		below = hold[0] != 0 && used + strlen(path) + strlen(hold) > p->columns;
	}
	(void)printf("%s%s%s/%s%s%*s%s%s\n", paint ? colours[d->action] : "", row, source, path,
		below ? "\n" : "", below ? n : 0, "", hold, paint ? "\033[0m" : "");
}

static void print_file(void *ctx, const struct dry_run_file *f) {
	struct printer *p = ctx;
	char path[SHOWN_MAX];
	char rule[160], source[128];

	print_progress(p);
	p->work = p->work || f->decision.action == ACTION_HAND_OVER ||
		f->decision.action == ACTION_WAIT || f->decision.action == ACTION_DESTROY;
	if (p->words->summary)
		return;
	show_path(f->path, path);
	if (p->words->json) {
		(void)snprintf(rule, sizeof rule, "%.100s:%u", p->policy_name, f->decision.rule.line);
		print_file_json(p, f, path, rule);
		return;
	}
	if (!p->headed)
		(void)printf("%-9s %-17s %6s %7s %-*s %4s %s\n", "ACTION", "REASON", "AGE", "LEFT",
			p->destination, "DESTINATION", "LINE", "SOURCE/PATH");
	p->headed = true;
	(void)snprintf(source, sizeof source, "%s%s%s", f->source->name,
		f->epoch[0] != 0 ? "@" : "", f->epoch);
	print_row(p, &f->decision, source, p->policy->destinations[f->source->destination].name,
		path);
}

static void print_trouble(void *ctx, const struct policy_source *source, const char *path,
	const struct cede_error *why) {
	char shown[SHOWN_MAX];

	(void)ctx;
	show_path(path, shown);
	(void)fprintf(stderr, "cede policy dry-run: source %s: %s%s%s\n", source->name, shown,
		shown[0] != 0 ? ": " : "", why->text);
}

static const char *const actions_shown[] = {
	"hand-over", "wait", "ignore", "hold", "refuse", "destroy"};

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
	print_json(json_pack("{s:s, s:s, s:I, s:I, s:o, s:o, s:I, s:I, s:s, s:s, s:s}", "schema",
		"cede-dry-run/1", "kind", "totals", "files", (json_int_t)t->files, "bytes",
		(json_int_t)t->bytes, "actions", actions, "reasons", reasons, "overdue",
		(json_int_t)t->overdue, "troubles", (json_int_t)t->troubles, "oldest", oldest,
		"oldest_source", t->oldest_source != NULL ? t->oldest_source->name : "", "policy",
		p->policy_name));
}

static void print_totals(const struct printer *p, const struct dry_run_totals *t) {
	char age[24];

	char bytes[24];

	if (p->progress && p->files >= 10000)
		(void)fputs("\r\033[K", stderr);
	if (p->words->json) {
		print_totals_json(p, t);
		return;
	}
	show_bytes(t->bytes, bytes, sizeof bytes);
	(void)printf("%s%" PRIu64 " file%s, %s, by %s:\n ", p->headed ? "\n" : "", t->files,
		t->files == 1 ? "" : "s", bytes, p->policy_name);
	for (size_t i = 0; i < ARRAY_LENGTH(actions_shown); i++)
		(void)printf(" %s %" PRIu64 "%s", actions_shown[i], action_total(t, i),
			i + 1 < ARRAY_LENGTH(actions_shown) ? "," : "\n");
	for (size_t i = 0; i < REASON_COUNT; i++)
		if (t->reasons[i] > 0)
			(void)printf(
				"  %8" PRIu64 "  %s\n", t->reasons[i], reason_text((enum reason)i));
	if (t->oldest_source == NULL)
		return;
	show_span(p->words->now_ns - t->oldest_ns, age, sizeof age);
	(void)printf("oldest: %s, in source %s; %" PRIu64 " older than allowed\n", age,
		t->oldest_source->name, t->overdue);
}

static int do_dry_run(
	const struct policy_words *w, const struct policy *policy, struct ledger *ledger) {
	struct printer printer;
	struct dry_run_totals totals;
	struct cede_error err = {0};

	printer_init(&printer, w, policy);
	struct dry_run run = {.policy = policy,
		.source = w->source,
		.ledger = ledger,
		.now_ns = w->now_ns,
		.ctx = &printer,
		.file = print_file,
		.trouble = print_trouble};
	int r = dry_run(&run, &totals, &err);
	if (r < 0)
		return policy_cannot(w, r, &err);
	print_totals(&printer, &totals);
	if (fflush(stdout) != 0 || totals.troubles > 0)
		return EXIT_CANNOT;
	if (totals.findings)
		return EXIT_FINDINGS;
	return w->detailed && printer.work ? EXIT_WORK : EXIT_FINE;
}

int cmd_policy_dry_run(const struct policy_words *w) {
	CLEANUP(policy_freep) struct policy *policy = NULL;
	CLEANUP(ledger_closep) struct ledger *ledger = NULL;
	int code = policy_load_for(w, w->policy, &policy);

	if (policy == NULL)
		return code;
	code = policy_ledger_for(w, &ledger);
	return code == EXIT_FINE ? do_dry_run(w, policy, ledger) : code;
}
