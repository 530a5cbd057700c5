/* SPDX-License-Identifier: Apache-2.0 */
#include "policy/lint.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/check.h"
#include "base/clock.h"

#define EPOCH_SHORT_NS (60 * NS_PER_SECOND)
#define SOON_NS        (30 * 86400 * NS_PER_SECOND)

struct lint {
	const struct policy *policy;
	int64_t now_ns;
	policy_warning_fn *warn;
	void *ctx;
};

static void say(const struct lint *l, struct policy_where where, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));

static void say(const struct lint *l, struct policy_where where, const char *fmt, ...) {
	char text[512];
	va_list args;

	va_start(args, fmt);
	(void)vsnprintf(text, sizeof text, fmt, args);
	va_end(args);
	cede_plain(text);
	l->warn(l->ctx, where, text);
}

/* ---- patterns */

static bool is_literal(struct slice text) {
	for (size_t i = 0; i < text.len; i++)
		if (strchr("*?[\\", text.data[i]) != NULL)
			return false;
	return true;
}

static struct slice last_part(struct slice pattern) {
	size_t from = pattern.len;

	while (from > 0 && pattern.data[from - 1] != '/')
		from--;
	return slice_of(pattern.data + from, pattern.len - from);
}

/* Whether each name that b matches is matched by a; both without a slash. */
static bool part_covers(struct slice a, struct slice b) {
	if (slice_equal(a, b) || slice_is(a, "*"))
		return true;
	if (a.len > 1 && a.data[0] == '*') { /* "*.tmp" */
		struct slice end = slice_of(a.data + 1, a.len - 1);
		return is_literal(end) && b.len >= end.len &&
			slice_equal(end, slice_of(b.data + b.len - end.len, end.len)) &&
			memchr(b.data, '[', b.len) == NULL && memchr(b.data, '\\', b.len) == NULL;
	}
	if (a.len > 1 && a.data[a.len - 1] == '*') { /* ".*" */
		struct slice head = slice_of(a.data, a.len - 1);
		return is_literal(head) && b.len >= head.len &&
			slice_equal(head, slice_of(b.data, head.len));
	}
	return false;
}

bool pattern_covers(struct slice a, struct slice b) {
	if (slice_equal(a, b) || slice_is(a, "**") || slice_is(a, "**/*"))
		return true;
	struct slice rest = a;
	if (!slice_starts(a, "**/"))
		return false;
	rest = slice_of(a.data + 3, a.len - 3);
	struct slice last = last_part(b);
	return memchr(rest.data, '/', rest.len) == NULL && !slice_is(rest, "**") &&
		!slice_is(last, "**") && part_covers(rest, last);
}

static void lint_patterns(const struct lint *l, const struct policy_source *s) {
	for (size_t i = 0; i < s->match_count; i++) {
		const struct policy_pattern *m = &s->match[i];
		for (size_t k = 0; k < s->ignore_count; k++)
			if (pattern_covers(slice_str(s->ignore[k].text), slice_str(m->text)))
				say(l, m->where,
					"match %s can never match: ignore %s (line %u) leaves all of it alone",
					m->text, s->ignore[k].text, s->ignore[k].where.line);
		for (size_t k = 0; k < s->match_count; k++) {
			bool same = strcmp(s->match[k].text, m->text) == 0;
			if (k == i || (same && k > i) ||
				!pattern_covers(slice_str(s->match[k].text), slice_str(m->text)))
				continue;
			say(l, m->where, "match %s adds nothing: %s (line %u) matches all of it",
				m->text, s->match[k].text, s->match[k].where.line);
			break;
		}
	}
}

/* ---- the rest */

static void lint_source(const struct lint *l, const struct policy_source *s) {
	lint_patterns(l, s);
	if (s->grouped && s->group_wait_ns >= s->max_age_ns)
		say(l, s->where,
			"source %s: group.wait is not shorter than max_age: an incomplete group is overdue before it goes",
			s->name);
	else if (s->quiet_ns > s->max_age_ns / 2)
		say(l, s->where,
			"source %s: quiet is more than half of max_age: little time is left for handing over",
			s->name);
	if (s->at_max_age == AT_MAX_AGE_DESTROY)
		say(l, s->where,
			"source %s: at_max_age: destroy wipes what the agency may never have got, and at once what arrives older than max_age",
			s->name);
	if (s->wipe_require == WIPE_REQUIRE_CRYPTO_ERASED && s->vault_epoch_ns == 0)
		say(l, s->where,
			"source %s: wipe.require: crypto-erased is met only by a vault, and this source has none",
			s->name);
	if (s->wipe_require == WIPE_REQUIRE_NONE)
		say(l, s->where,
			"source %s: wipe.require: none counts a wipe as good whatever the storage can promise",
			s->name);
}

static void lint_vault(const struct lint *l, const struct policy_source *s) {
	if (s->vault_epoch_ns == 0)
		return;
	if (s->vault_keys_in_memory)
		say(l, s->where,
			"source %s: vault.keys: memory: a restart of the system destroys every capture of it that the agency has not got",
			s->name);
	if (s->vault_keys_in_memory && l->policy->hold_count > 0)
		say(l, s->where,
			"source %s: vault.keys: memory: what a hold keeps goes with a restart of the system as well",
			s->name);
	if (s->vault_epoch_ns < EPOCH_SHORT_NS)
		say(l, s->where,
			"source %s: vault.epoch: shorter than a minute: a directory and two ledger events for each",
			s->name);
}

static void lint_destination(const struct lint *l, size_t number) {
	const struct policy_destination *d = &l->policy->destinations[number];
	bool used = false;

	for (size_t i = 0; i < l->policy->source_count; i++)
		used = used || l->policy->sources[i].destination == number;
	if (!used)
		say(l, d->where, "destination %s: no source uses it", d->name);
	if (d->pin_count == 0 && d->address_count == 0)
		say(l, d->where,
			"destination %s: neither pins nor addresses: any server for %s with a certificate of the CA will do",
			d->name, d->host);
}

static void lint_hold(const struct lint *l, const struct policy_hold *h) {
	if (h->until_ns <= l->now_ns)
		say(l, h->where, "hold %s: its time is over: it holds nothing any more", h->id);
}

/* A program that runs whatever it is given: to allow it is to allow everything. */
static bool is_interpreter(const char *exe) {
	static const char *const names[] = {"ash", "awk", "bash", "busybox", "csh", "dash", "env",
		"fish", "gawk", "gdb", "guile", "java", "ksh", "ld-", "ld.so", "lua", "mawk", "mksh",
		"node", "perl", "php", "python", "ruby", "rbash", "sh", "strace", "tclsh", "zsh"};
	const char *slash = strrchr(exe, '/');
	const char *name = slash == NULL ? exe : slash + 1;

	for (size_t i = 0; i < ARRAY_LENGTH(names); i++) {
		size_t n = strlen(names[i]);
		/* "python3.11", "ld-linux-x86-64.so.2", and not "shoot" */
		if (strncmp(name, names[i], n) == 0 &&
			(names[i][n - 1] == '-' ||
				strspn(name + n, "0123456789.-") == strlen(name + n)))
			return true;
	}
	return false;
}

static void lint_guard(const struct lint *l, const struct policy_guard *g) {
	if (g->mode == GUARD_ENFORCE && g->allow_count == 0)
		say(l, g->where,
			"guard: enforce without allow: only cede may open captures, so no camera can write one");
	for (size_t i = 0; i < g->allow_count; i++)
		if (is_interpreter(g->allow[i].exe))
			say(l, g->allow[i].where,
				"guard: %s runs any program that user %s gives it: allow the camera's own program",
				g->allow[i].exe, g->allow[i].user);
}

void policy_lint(const struct policy *policy, int64_t now_ns, policy_warning_fn *warn, void *ctx) {
	const struct lint l = {policy, now_ns, warn, ctx};
	if (policy->expires_ns <= now_ns)
		say(&l, policy->expires_where,
			"expires: over: nothing is handed over or wiped any more");
	else if (policy->expires_ns - now_ns < SOON_NS)
		say(&l, policy->expires_where,
			"expires: in less than 30 days: after that nothing is handed over or wiped");
	for (size_t i = 0; i < policy->destination_count; i++)
		lint_destination(&l, i);
	for (size_t i = 0; i < policy->source_count; i++)
		lint_source(&l, &policy->sources[i]);
	for (size_t i = 0; i < policy->source_count; i++)
		lint_vault(&l, &policy->sources[i]);
	for (size_t i = 0; i < policy->hold_count; i++)
		lint_hold(&l, &policy->holds[i]);
	lint_guard(&l, &policy->guard);
}
