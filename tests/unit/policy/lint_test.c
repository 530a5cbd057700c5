/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "base/clock.h"
#include "policy/decide.h"
#include "policy/lint.h"
#include "tests/unit/unit.h"

#define NOW (INT64_C(1795420347) * NS_PER_SECOND) /* 2026-11-23 */

struct said {
	char text[16][600];
	size_t count;
};

static void note(void *ctx, struct policy_where where, const char *text) {
	struct said *s = ctx;

	assert_true(s->count < ARRAY_LENGTH(s->text));
	(void)snprintf(s->text[s->count++], sizeof s->text[0], "%u: %s", where.line, text);
}

/* A policy without a warning, with these lines instead of its own. */
static void lint(const char *expires, const char *destination, const char *source,
	const char *holds, struct said *ret) {
	char text[4096];
	struct policy *p = NULL;
	struct policy_mistakes mistakes;
	struct cede_error err = {0};

	(void)snprintf(text, sizeof text,
		"version: 1\nid: p\nserial: 1\nexpires: %s\ndestinations:\n  a:\n    url: https://h.example/\n"
		"    ca: c\n    seal_to: [s]\n    receipts: [r]\n%ssources:\n  - name: f\n    path: /c\n"
		"    destination: a\n%s%s",
		expires, destination, source, holds);
	if (policy_parse(slice_str(text), "p", &p, &mistakes, &err) < 0)
		fail_msg("%s", mistakes.count > 0 ? mistakes.lines[0] : err.text);
	*ret = (struct said){.count = 0};
	policy_lint(p, NOW, note, ret);
	policy_free(p);
	policy_mistakes_done(&mistakes);
}

#define FAR    "2028-01-01T00:00:00Z"
#define PLACE  "    addresses: [192.0.2.0/24]\n"
#define SOURCE "    match: [\"**/*.jpg\"]\n    max_age: 15m\n"

static void each_warning_and_its_opposite(void **state) {
	static const struct {
		const char *expires, *destination, *source, *holds, *warning;
	} cases[] = {
		{FAR, PLACE, SOURCE, "", NULL},
		{"2026-11-01T00:00:00Z", PLACE, SOURCE, "", "4: expires: over"},
		{"2026-12-01T00:00:00Z", PLACE, SOURCE, "", "4: expires: in less than 30 days"},
		{FAR, "", SOURCE, "", "6: destination a: neither pins nor addresses"},
		{FAR, PLACE "  b: {url: https://b/, ca: c, addresses: [192.0.2.1], seal_to: [s], receipts: [r]}\n",
			SOURCE, "", "12: destination b: no source uses it"},
		{FAR, PLACE, "    match: [\"**/*.tmp\"]\n    max_age: 15m\n", "",
			"16: match **/*.tmp can never match: ignore **/*.tmp"},
		{FAR, PLACE, "    match: [\"a/**/x.part\"]\n    max_age: 15m\n", "",
			"16: match a/**/x.part can never match: ignore **/*.part"},
		{FAR, PLACE, "    match: [\".x\"]\n    max_age: 15m\n", "",
			"16: match .x can never match: ignore **/.*"},
		{FAR, PLACE, "    match: [\"*.tmp.jpg\"]\n    max_age: 15m\n", "", NULL},
		{FAR, PLACE, "    match: [\"**/*.jpg\", \"a/*.jpg\"]\n    max_age: 15m\n", "",
			"16: match a/*.jpg adds nothing: **/*.jpg (line 16)"},
		{FAR, PLACE, "    match: [\"a/*.jpg\", \"**/*.jpg\"]\n    max_age: 15m\n", "",
			"16: match a/*.jpg adds nothing: **/*.jpg (line 16)"},
		{FAR, PLACE, "    match: [\"a/*\", \"a/*\"]\n    max_age: 15m\n", "",
			"16: match a/* adds nothing: a/* (line 16)"},
		{FAR, PLACE, "    match: [\"a/*.jpg\", \"b/*.jpg\"]\n    max_age: 15m\n", "", NULL},
		{FAR, PLACE, SOURCE "    group: {by: stem, require: [.jpg], wait: 15m}\n", "",
			"13: source f: group.wait is not shorter"},
		{FAR, PLACE, SOURCE "    group: {by: stem, require: [.jpg], wait: 14m}\n", "", NULL},
		{FAR, PLACE, SOURCE "    quiet: 8m\n", "", "13: source f: quiet is more than half"},
		{FAR, PLACE, SOURCE "    quiet: 7m\n", "", NULL},
		{FAR, PLACE, SOURCE "    at_max_age: destroy\n", "",
			"13: source f: at_max_age: destroy"},
		{FAR, PLACE, SOURCE "    wipe: {require: none}\n", "",
			"13: source f: wipe.require: none"},
		{FAR, PLACE, SOURCE, "holds: [{id: h, until: 2026-11-01T00:00:00Z}]\n",
			"18: hold h: its time is over"},
		{FAR, PLACE, SOURCE, "holds: [{id: h, until: " FAR "}]\n", NULL},
		{FAR, PLACE, SOURCE, "guard: {mode: enforce}\n", "18: guard: enforce without allow"},
		{FAR, PLACE, SOURCE, "guard: {mode: report}\n", NULL},
		{FAR, PLACE, SOURCE,
			"guard: {mode: enforce, allow: [{exe: /bin/cam, user: cam}]}\n", NULL},
		{FAR, PLACE, SOURCE,
			"guard: {mode: enforce, allow: [{exe: /usr/bin/python3.11, user: cam}]}\n",
			"18: guard: /usr/bin/python3.11 runs any program"},
		{FAR, PLACE, SOURCE, "guard: {mode: report, allow: [{exe: /bin/sh, user: cam}]}\n",
			"18: guard: /bin/sh runs any program"},
		{FAR, PLACE, SOURCE,
			"guard: {mode: report, allow: [{exe: /lib/ld-linux-x86-64.so.2, user: cam}]}\n",
			"18: guard: /lib/ld-linux-x86-64.so.2 runs any program"},
		{FAR, PLACE, SOURCE,
			"guard: {mode: report, allow: [{exe: /bin/shoot, user: cam}]}\n", NULL},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_LENGTH(cases); i++) {
		struct said s;
		lint(cases[i].expires, cases[i].destination, cases[i].source, cases[i].holds, &s);
		const char *want = cases[i].warning;
		if (s.count != (want != NULL) ||
			(want != NULL && strncmp(s.text[0], want, strlen(want)) != 0))
			fail_msg("case %zu: %zu warnings, %s; expected %s", i, s.count,
				s.count > 0 ? s.text[0] : "none", want != NULL ? want : "none");
	}
}

/* What covers() says is true of every path of a small world. */
static void covering_is_never_claimed_wrongly(void **state) {
	static const char *const patterns[] = {"**", "**/*", "*", "**/*.j", "*.j", "a/*.j", "a/**",
		"**/.*", ".*", "a/.x", "**/x", "x", "**/a*", "ab", "a?", "[ab]x", "**/[!a]*",
		"a/**/x.j", "**/*x", "*x", "\\*", "**/\\x", "**/*\\.j", "a/*"};
	static const char *const names[] = {
		"x", "a", "ab", "ax", "bx", ".x", ".", "x.j", "a.j", ".j", "*", "\\x", "a.j.x"};
	static const char *const folders[] = {"", "a/", "b/", "a/b/", ".d/"};

	(void)state;
	size_t claims = 0;
	for (size_t i = 0; i < ARRAY_LENGTH(patterns); i++)
		for (size_t k = 0; k < ARRAY_LENGTH(patterns); k++) {
			struct slice a = slice_str(patterns[i]), b = slice_str(patterns[k]);
			if (!pattern_covers(a, b))
				continue;
			claims++;
			for (size_t n = 0; n < ARRAY_LENGTH(names) * ARRAY_LENGTH(folders); n++) {
				char path[32];
				(void)snprintf(path, sizeof path, "%s%s",
					folders[n / ARRAY_LENGTH(names)],
					names[n % ARRAY_LENGTH(names)]);
				if (glob_match(b, slice_str(path)) && !glob_match(a, slice_str(path)))
					fail_msg("%s does not cover %s: %s", patterns[i],
						patterns[k], path);
			}
		}
	assert_true(claims > ARRAY_LENGTH(patterns) + 40);
}

int main(void) {
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(each_warning_and_its_opposite),
		cmocka_unit_test(covering_is_never_claimed_wrongly),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
