/* SPDX-License-Identifier: Apache-2.0 */
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "agent/cmd_policy_internal.h"
#include "agent/config.h"
#include "agent/own_places.h"
#include "agent/policy_files.h"
#include "agent/wipe/storage.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "policy/lint.h"
#include "policy/show.h"

struct check_report {
	const char *name; /* of the file */
	json_t *mistakes; /* NULL: to stderr */
	json_t *warnings; /* likewise */
	size_t warning_count;
};

static void add_line(json_t *list, const char *line) {
	if (list == NULL)
		(void)fprintf(stderr, "%s\n", line);
	else if (json_array_append_new(list, json_string(line)) < 0)
		(void)fprintf(stderr, "cede policy: no room in JSON for: %s\n", line);
}

static void say_mistake(void *ctx, struct policy_where where, const char *text) {
	struct check_report *report = ctx;
	char line[1024];

	(void)snprintf(
		line, sizeof line, "%s:%u:%u: %s", report->name, where.line, where.column, text);
	cede_plain(line);
	add_line(report->mistakes, line);
}

static void say_warning(void *ctx, struct policy_where where, const char *text) {
	struct check_report *report = ctx;
	char line[1024];

	report->warning_count++;
	(void)snprintf(line, sizeof line, "%s:%u:%u: warning: %s", report->name, where.line,
		where.column, text);
	cede_plain(line);
	add_line(report->warnings, line);
}

static void look_at_vault(
	struct check_report *report, const struct policy_words *w, const struct policy_source *s) {
	struct cede_error err = {0};
	char text[768];

	if (policy_vault_here(w, s, &err) == CEDE_OK)
		return;
	(void)snprintf(text, sizeof text,
		"source %s: vault can't be had here: %.400s; until then its captures are overwritten like any other's",
		s->name, err.text);
	say_warning(report, s->where, text);
}

/* What `cede run` would refuse on this host; one agent.yaml that can't be read is said elsewhere. */
static void look_at_own_places(struct check_report *report, const struct policy_words *w,
	const struct policy *policy, const char *path, size_t *bad) {
	CLEANUP(agent_config_freep) struct agent_config *config = NULL;
	struct cede_error err = {0};
	char **lines = NULL;

	if (w->config == NULL)
		return;
	int r = agent_config_load(w->config, &config, &lines, &err);
	for (size_t i = 0; lines != NULL && lines[i] != NULL; i++)
		freep(&lines[i]);
	freep(&lines);
	for (size_t i = 0; r == CEDE_OK && i < policy->source_count; i++) {
		const struct policy_source *s = &policy->sources[i];
		if (own_places_check(s, path, config, &err) == CEDE_OK)
			continue;
		say_mistake(report, s->where, err.text);
		++*bad;
	}
}

/* What the policy asks of this host, and whether it can. */
static void look_at_host(
	struct check_report *report, const struct policy_words *w, const struct policy *policy) {
	for (size_t i = 0; i < policy->source_count; i++) {
		const struct policy_source *s = &policy->sources[i];
		CLEANUP(fd_closep) int fd = -1;
		char text[768];
		struct cede_error err;
		if (file_open_dir(AT_FDCWD, s->path, &fd, &err) < 0) {
			(void)snprintf(text, sizeof text,
				"source %s: %.300s: make the directory, or mount it", s->name,
				err.text);
			say_warning(report, s->where, text);
			continue;
		}
		if (s->vault_epoch_ns > 0) {
			look_at_vault(report, w, s);
			continue;
		}
		wipe_reasons reasons;
		char why[WIPE_REASONS_SIZE];
		enum wipe_level best = storage_directory(fd, s->wipe_scrub_ns != 0, &reasons);
		if (best >= wipe_required(s->wipe_require))
			continue;
		wipe_reasons_print(reasons, why);
		(void)snprintf(text, sizeof text,
			"source %s: wipe.require: %s can't be met here: %s%s%s; move the captures to ext4 or xfs, or ask the agency for another requirement",
			s->name, wipe_require_name(s->wipe_require), why,
			why[0] != 0 ? ": at best " : "at best ", wipe_level_name(best));
		say_warning(report, s->where, text);
	}
}

static void print_checked(const struct check_report *report, const struct policy *policy, bool good) {
	const char *plural_d = good && policy->destination_count == 1 ? "" : "s";
	const char *plural_s = good && policy->source_count == 1 ? "" : "s";

	if (report->mistakes != NULL && !good)
		print_json(json_pack("{s:s, s:s, s:b, s:O, s:O}", "schema", "cede-policy-check/1",
			"file", report->name, "ok", 0, "mistakes", report->mistakes, "warnings",
			report->warnings));
	else if (report->mistakes != NULL)
		print_json(json_pack("{s:s, s:s, s:b, s:s, s:I, s:I, s:I, s:O}", "schema",
			"cede-policy-check/1", "file", report->name, "ok", 1, "id", policy->id,
			"serial", (json_int_t)policy->serial, "destinations",
			(json_int_t)policy->destination_count, "sources",
			(json_int_t)policy->source_count, "warnings", report->warnings));
	else if (good)
		(void)printf("%s: ok: id %s, serial %" PRIu64 ", %zu destination%s, %zu source%s\n",
			report->name, policy->id, policy->serial, policy->destination_count,
			plural_d, policy->source_count, plural_s);
}

static int check_signature(const struct policy_words *w, const char *path) {
	CLEANUP(policy_freep) struct policy *policy = NULL;

	return policy_load_for(w, path, &policy);
}

/* Everything but the text itself. */
static int check_deeper(const struct policy_words *w, const char *path, const struct policy *policy,
	struct check_report *report, size_t *ret_bad, struct cede_error *reterr) {
	const struct policy_files_report files = {
		.ctx = report, .mistake = say_mistake, .warning = say_warning};

	CEDE_TRY(policy_files_check(policy, path, w->now_ns, &files, ret_bad, reterr));
	policy_lint(policy, w->now_ns, say_warning, report);
	if (w->host) {
		look_at_own_places(report, w, policy, path, ret_bad);
		look_at_host(report, w, policy);
	}
	if (*ret_bad == 0 && w->config != NULL && check_signature(w, path) != EXIT_FINE)
		*ret_bad = 1;
	return CEDE_OK;
}

int cmd_policy_check(const struct policy_words *w) {
	const char *path = w->rest[0];
	CLEANUP(policy_freep) struct policy *policy = NULL;
	CLEANUP(policy_mistakes_done) struct policy_mistakes mistakes = {NULL, 0};
	struct check_report report = {.name = policy_base_name(path),
		.mistakes = w->json ? json_array() : NULL,
		.warnings = w->json ? json_array() : NULL};
	struct cede_error err = {0};
	size_t bad = 0;

	int r = policy_load(path, &policy, &mistakes, &err);
	for (size_t i = 0; i < mistakes.count; i++)
		add_line(report.mistakes, mistakes.lines[i]);
	if (r == CEDE_OK)
		r = check_deeper(w, path, policy, &report, &bad, &err);
	int code = r < 0 && mistakes.count == 0         ? policy_cannot(w, r, &err)
		: r < 0 || bad > 0                      ? EXIT_INPUT
		: w->strict && report.warning_count > 0 ? EXIT_FINDINGS
							: EXIT_FINE;
	if (r == CEDE_OK || mistakes.count > 0)
		print_checked(&report, policy, r == CEDE_OK && bad == 0);
	json_decref(report.mistakes);
	json_decref(report.warnings);
	return code;
}
