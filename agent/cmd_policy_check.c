/* SPDX-License-Identifier: Apache-2.0 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "agent/cmd_policy_internal.h"
#include "agent/policy_files.h"
#include "base/cleanup.h"
#include "base/clock.h"

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

static int check_signature(const struct policy_words *w, const char *path) {
	CLEANUP(policy_freep) struct policy *policy = NULL;

	return policy_load_for(w, path, &policy);
}

static int check_file(const struct policy_words *w, const char *path) {
	CLEANUP(policy_freep) struct policy *policy = NULL;
	CLEANUP(policy_mistakes_done) struct policy_mistakes mistakes = {NULL, 0};
	struct check_report report = {
		.name = policy_base_name(path), .mistakes = w->json ? json_array() : NULL};
	struct cede_error err = {0};
	size_t bad = 0;

	int r = policy_load(path, &policy, &mistakes, &err);
	for (size_t i = 0; i < mistakes.count; i++)
		add_mistake(&report, mistakes.lines[i]);
	bad = mistakes.count;
	if (r == CEDE_OK)
		r = policy_files_check(policy, path, clock_wall_ns(), say_file, &report, &bad, &err);
	if (r == CEDE_OK && bad == 0 && w->config != NULL && check_signature(w, path) != EXIT_FINE)
		bad = 1;
	if (r < 0 && mistakes.count == 0)
		(void)policy_cannot(w, r, &err);
	else
		print_checked(&report, policy, r == CEDE_OK && bad == 0);
	json_decref(report.mistakes);
	if (r < 0)
		return r == CEDE_ERR_INPUT || r == CEDE_ERR_REFUSED ? EXIT_INPUT : EXIT_CANNOT;
	return bad > 0 ? EXIT_INPUT : EXIT_FINE;
}

int cmd_policy_check(const struct policy_words *w) {
	return check_file(w, w->rest[0]);
}
