/* SPDX-License-Identifier: Apache-2.0
 * Why one file is decided as it is. What is shown on the way is looked up; the decision itself
 * comes from decide(), like every other. */
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "agent/cmd_policy_internal.h"
#include "agent/source_places.h"
#include "agent/watch/facts.h"
#include "agent/wipe/storage.h"
#include "base/check.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "policy/show.h"

struct explain {
	const struct policy_words *words;
	const struct policy *policy;
	const struct policy_source *source;
	const char *path;  /* below the source, or below the directory of its epoch */
	const char *epoch; /* that has ended, "" for none */
	struct decide_facts facts;
	struct decide_known known;
	struct decision decision;
	json_t *steps; /* NULL: printed */
};

/* One line, or one object with its step and text. */
static void say(const struct explain *e, const char *step, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));

static void say(const struct explain *e, const char *step, const char *fmt, ...) {
	char text[SHOWN_MAX + 256];
	va_list args;

	va_start(args, fmt);
	(void)vsnprintf(text, sizeof text, fmt, args);
	va_end(args);
	if (e->steps == NULL)
		(void)printf("  %-9s %s\n", step, text);
	else if (json_array_append_new(
			 e->steps, json_pack("{s:s, s:s}", "step", step, "text", text)) < 0)
		(void)fputs("cede policy explain: no room in JSON for a step\n", stderr);
}

/* Absolute; "a/../b" is cleaned as text. */
static bool clean_path(const char *given, char out[PATH_MAX]) {
	char joined[2 * PATH_MAX], *rest = joined, *part;
	size_t used = 0;

	if (given[0] == '/') {
		(void)snprintf(joined, sizeof joined, "%s", given);
	} else {
		char here[PATH_MAX];
		if (getcwd(here, sizeof here) == NULL)
			return false;
		(void)snprintf(joined, sizeof joined, "%s/%s", here, given);
	}
	out[0] = 0;
	while ((part = strsep(&rest, "/")) != NULL) {
		if (part[0] == 0 || strcmp(part, ".") == 0)
			continue;
		if (strcmp(part, "..") == 0) {
			char *slash = strrchr(out, '/');
			used = slash == NULL ? 0 : (size_t)(slash - out);
			out[used] = 0;
			continue;
		}
		if (used + strlen(part) + 2 > PATH_MAX)
			return false;
		used += (size_t)snprintf(out + used, PATH_MAX - used, "/%s", part);
	}
	return used > 0;
}

/* real, with no symbolic link in its directories, under the name that the source's path, or that of
 * the directory above it, where its vault's store is, gives it. */
static bool name_below(
	const char *real, const struct policy_source *source, bool above, char out[PATH_MAX]) {
	const char *end = above ? strrchr(source->path, '/') : strchr(source->path, 0);
	char top[PATH_MAX], there[PATH_MAX];

	(void)snprintf(top, sizeof top, "%.*s/", (int)(end - source->path), source->path);
	if (realpath(top, there) == NULL)
		return false;
	size_t n = there[1] == 0 ? 0 : strlen(there);
	if (strncmp(real, there, n) != 0 || real[n] != '/')
		return false;
	int len =
		snprintf(out, PATH_MAX, "%.*s%s", (int)(end - source->path), source->path, real + n);
	return len >= 0 && len < PATH_MAX;
}

/* The directories' symbolic links followed; the last name may be a link of its own. */
static bool real_path(const char *full, char out[PATH_MAX]) {
	const char *slash = strrchr(full, '/');
	char directory[PATH_MAX];

	(void)snprintf(directory, sizeof directory, "%.*s/", (int)(slash - full), full);
	if (realpath(directory, out) == NULL)
		return false;
	size_t n = out[1] == 0 ? 0 : strlen(out);
	int len = snprintf(out + n, PATH_MAX - n, "%s", slash);
	return len >= 0 && (size_t)len < PATH_MAX - n;
}

/* As the policy spells it; else, where symbolic links lead: *ret borrows from full, which is then
 * the policy's name of it. */
static int find(const struct policy *policy, struct ledger *ledger, char full[PATH_MAX],
	struct source_path *ret, struct cede_error *reterr) {
	char real[PATH_MAX];

	CEDE_TRY(source_path_find(policy, ledger, full, ret, reterr));
	if (ret->source != NULL || !real_path(full, real))
		return CEDE_OK;
	for (size_t i = 0; ret->source == NULL && i < 2 * policy->source_count; i++)
		if (name_below(real, &policy->sources[i / 2], i % 2 != 0, full))
			CEDE_TRY(source_path_find(policy, ledger, full, ret, reterr));
	return CEDE_OK;
}

static void say_patterns(
	const struct explain *e, const char *step, const struct policy_pattern *list, size_t n) {
	char shown[SHOWN_MAX];

	for (size_t i = 0; i < n; i++) {
		bool fits = glob_match(slice_str(list[i].text), slice_str(e->path));
		show_text(list[i].text, shown);
		say(e, step, "line %u: %s: %s", list[i].where.line, shown, fits ? "yes" : "no");
		if (fits)
			return; /* the first one that fits counts */
	}
}

static void say_file(const struct explain *e) {
	static const char *const kinds[] = {
		"a regular file", "a directory", "a symbolic link", "no regular file"};
	char size[32];

	show_bytes(e->facts.size, size, sizeof size);
	say(e, "file", "%s, %s, %u name%s", kinds[e->facts.kind], size, e->facts.links,
		e->facts.links == 1 ? "" : "s");
}

static void say_time(const struct explain *e, const char *name, int64_t ns) {
	char text[CLOCK_TEXT_SIZE];

	if (ns == 0) {
		say(e, "time", "%-10s not known", name);
		return;
	}
	clock_text(ns, text);
	say(e, "time", "%-10s %s%s", name, text,
		ns > e->words->now_ns               ? " (in the future: says nothing)"
			: ns == e->decision.born_ns ? "  <- the earliest: the age counts from here"
						    : "");
}

static void say_age(const struct explain *e) {
	char age[24], most[SHOW_TEXT_SIZE], deadline[CLOCK_TEXT_SIZE];
	bool wanted = e->decision.deadline_ns - e->decision.born_ns == e->source->max_age_ns;

	show_span(e->words->now_ns - e->decision.born_ns, age, sizeof age);
	show_duration(wanted ? e->source->max_age_ns : e->policy->unmatched_max_age_ns, most);
	clock_text(e->decision.deadline_ns, deadline);
	say(e, "age", "%s of at most %s (%s); deadline %s%s", age, most,
		wanted ? "max_age" : "unmatched.max_age", deadline,
		e->decision.overdue ? ": over" : "");
}

static void say_group(const struct explain *e) {
	char wait[SHOW_TEXT_SIZE];

	if (!e->source->grouped)
		return;
	const char *state = "a required member is missing";
	if (e->facts.group_there)
		state = e->facts.group_changed_ns > e->words->now_ns - e->source->quiet_ns
			? "every required member is there; another one changed less than quiet ago"
			: "every required member is there";
	show_duration(e->source->group_wait_ns, wait);
	say(e, "group", "%s; an incomplete one goes as it is after %s", state, wait);
}

static void say_holds(const struct explain *e) {
	char until[CLOCK_TEXT_SIZE];

	if (e->decision.hold == NULL) {
		say(e, "hold", "none of %zu covers it now", e->policy->hold_count);
		return;
	}
	clock_text(e->decision.hold->until_ns, until);
	say(e, "hold", "%s (line %u) until %s", e->decision.hold->id, e->decision.hold->where.line,
		until);
}

/* False: it can't be had here, and was said so. */
static bool say_vault(const struct explain *e) {
	char epoch[SHOW_TEXT_SIZE];
	struct cede_error err = {0};

	if (policy_vault_here(e->words, e->source, &err) < 0) {
		say(e, "vault",
			"can't be had here: %s; until it can, overwritten like the captures of any other source",
			err.text);
		return false;
	}
	show_duration(e->source->vault_epoch_ns, epoch);
	say(e, "vault",
		"epochs of %s; unlinked when it is proven, crypto-erased with the key of its epoch",
		epoch);
	return true;
}

/* What its wipe can be worth where it lies now. */
static void say_wipe(const struct explain *e, int source_fd) {
	wipe_reasons reasons;
	char why[WIPE_REASONS_SIZE];
	enum wipe_level best = storage_directory(source_fd, e->source->wipe_scrub_ns != 0, &reasons);
	enum wipe_level least = wipe_required(e->source->wipe_require);

	wipe_reasons_print(reasons, why);
	say(e, "wipe", "%s is required; here at best %s%s%s%s%s",
		wipe_require_name(e->source->wipe_require), wipe_level_name(best),
		why[0] != 0 ? " (" : "", why, why[0] != 0 ? ")" : "",
		best >= least                        ? ""
			: e->source->wipe_keep_below ? ": would be kept, and reported"
						     : ": would be wiped, and reported");
}

/* Who may open it. */
static void say_guard(const struct explain *e) {
	const struct policy_guard *g = &e->policy->guard;
	char exe[SHOWN_MAX];

	if (g->mode == GUARD_OFF) {
		say(e, "guard", "none: whoever has the rights may open it");
		return;
	}
	say(e, "guard", "line %u: besides cede %s; who else opens it %s", g->where.line,
		g->allow_count == 0 ? "nobody may open it" : "these may open it",
		g->mode == GUARD_ENFORCE ? "is denied and recorded" : "is recorded");
	for (size_t i = 0; i < g->allow_count; i++) {
		show_text(g->allow[i].exe, exe);
		say(e, "guard", "line %u: %s as user %s", g->allow[i].where.line, exe,
			g->allow[i].user);
	}
}

static void say_next(const struct explain *e) {
	const struct policy_destination *d = &e->policy->destinations[e->source->destination];
	char when[CLOCK_TEXT_SIZE];

	switch (e->decision.action) {
	case ACTION_HAND_OVER:
		say(e, "next", "sealed to %s, pushed to %s; %s", d->name, d->url,
			e->decision.hold != NULL ? "kept after the receipt, while a hold covers it"
				: e->source->wipe_after_seal
				? "wiped once the sealed bundle is on the disk"
				: "wiped after the verified receipt");
		break;
	case ACTION_WAIT:
		clock_text(e->decision.not_before_ns, when);
		say(e, "next", "looked at again at %s", when);
		break;
	case ACTION_DESTROY:
		say(e, "next", "overwritten and removed; the agency does not get it");
		break;
	case ACTION_IGNORE:
		say(e, "next", "nothing: it is left alone");
		break;
	case ACTION_HOLD:
	case ACTION_REFUSE:
		say(e, "next", "nothing is done to it; it is reported until somebody acts");
		break;
	}
}

static void say_all(const struct explain *e, int source_fd) {
	char shown[SHOWN_MAX];

	show_path(e->path, shown);
	say(e, "source", "%s (line %u), path %s%s%s", e->source->name, e->source->where.line, shown,
		e->epoch[0] != 0 ? ", in an epoch of its vault that has ended: " : "", e->epoch);
	say_patterns(e, "ignore", e->source->ignore, e->source->ignore_count);
	say_patterns(e, "match", e->source->match, e->source->match_count);
	say_file(e);
	say_time(e, "birth", e->facts.btime_ns);
	say_time(e, "modified", e->facts.mtime_ns);
	say_time(e, "first seen", e->known.first_seen_ns);
	say_age(e);
	char changed[CLOCK_TEXT_SIZE], quiet[SHOW_TEXT_SIZE];
	clock_text(e->facts.ctime_ns, changed);
	show_duration(e->source->quiet_ns, quiet);
	say(e, "settled", "status changed %s; quiet is %s", changed, quiet);
	say_group(e);
	say_holds(e);
	say_guard(e);
	say(e, "decision", "%s: %s (line %u): %s", action_name(e->decision.action),
		reason_name(e->decision.reason), e->decision.rule.line,
		reason_text(e->decision.reason));
	bool goes = e->decision.action == ACTION_HAND_OVER || e->decision.action == ACTION_DESTROY;
	if (goes && (e->source->vault_epoch_ns == 0 || !say_vault(e)))
		say_wipe(e, source_fd);
	say_next(e);
}

static int look(struct explain *e, const struct source_place *place, struct ledger *ledger,
	struct cede_error *reterr) {
	struct file_identity identity;

	CEDE_TRY(facts_of(
		place->fd, e->path, e->source, e->words->now_ns, &e->facts, &identity, reterr));
	return ledger == NULL ? CEDE_OK
			      : ledger_first_seen(ledger, slice_str(place->ledger),
					slice_str(e->path), &e->known.first_seen_ns, reterr);
}

static int explain(
	struct explain *e, const struct source_path *at, const char *full, struct ledger *ledger) {
	CLEANUP(fd_closep) int fd = -1;
	struct source_place place;
	struct cede_error err = {0};
	char shown[SHOWN_MAX];

	e->source = at->source;
	e->path = at->path;
	e->epoch = at->epoch;
	int r = source_place_open(at, &place, &err);
	if (r == CEDE_OK) {
		fd = place.fd;
		r = look(e, &place, ledger, &err);
	}
	show_path(full, shown);
	if (r < 0) {
		cede_error_within(&err, "%.300s", shown);
		return policy_cannot(e->words, r, &err);
	}
	e->decision = decide(e->policy, e->source, &e->facts, &e->known, e->words->now_ns);
	if (e->words->json)
		e->steps = json_array();
	else
		(void)printf("%s\n", shown);
	say_all(e, fd);
	if (e->steps != NULL)
		print_json(json_pack("{s:s, s:s, s:s, s:s, s:s, s:i, s:o}", "schema",
			"cede-policy-explain/1", "path", shown, "source", e->source->name, "action",
			action_name(e->decision.action), "reason", reason_name(e->decision.reason),
			"line", (int)e->decision.rule.line, "steps", e->steps));
	if (fflush(stdout) != 0)
		return EXIT_CANNOT;
	return reason_is_finding(e->decision.reason) ? EXIT_FINDINGS : EXIT_FINE;
}

int cmd_policy_explain(const struct policy_words *w) {
	CLEANUP(policy_freep) struct policy *policy = NULL;
	CLEANUP(ledger_closep) struct ledger *ledger = NULL;
	struct explain e = {.words = w};
	struct source_path at = {0};
	struct cede_error err = {0};
	char full[PATH_MAX];
	int code = policy_load_for(w, w->policy, &policy);

	if (policy == NULL)
		return code;
	e.policy = policy;
	code = policy_ledger_for(w, &ledger);
	if (code != EXIT_FINE)
		return code;
	if (clean_path(w->rest[0], full)) {
		int r = find(policy, ledger, full, &at, &err);
		if (r < 0)
			return policy_cannot(w, r, &err);
	}
	if (at.source != NULL)
		return explain(&e, &at, full, ledger);
	(void)fprintf(stderr,
		"cede policy explain: the file is in no source of the policy: cede never touches it\n");
	return EXIT_INPUT;
}
