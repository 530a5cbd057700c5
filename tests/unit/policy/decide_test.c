/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/check.h"
#include "base/clock.h"
#include "base/file.h"
#include "policy/decide.h"
#include "tests/unit/unit.h"

#define S      NS_PER_SECOND
#define NOW    (INT64_C(1800000000) * S)
#define AGO(s) (NOW - (s)*S)

struct decide_case {
	const char *what;
	const char *path;
	int64_t mtime, ctime, btime, first_seen;
	uint64_t size;
	int64_t group_since;
	uint32_t links; /* 0: one */
	enum file_kind kind;
	enum reason reason;
	int64_t not_before, born;
	uint32_t rule; /* line */
	bool open, grouped, there, expired, overdue, destroy;
	bool group_open;
	int64_t group_changed;
	int64_t group_wait; /* 0: 30 s */
	int64_t held_until; /* a hold on captures born in the last 100 s; 0: none */
};

static const struct decide_case table[] = {
	{.what = "settled",
		.path = "a.jpg",
		.mtime = AGO(9),
		.ctime = AGO(9),
		.reason = REASON_READY,
		.born = AGO(9),
		.rule = 20},
	{.what = "settled to the moment",
		.path = "a.jpg",
		.mtime = AGO(2),
		.ctime = AGO(2),
		.reason = REASON_READY,
		.born = AGO(2),
		.rule = 20},
	{.what = "just changed",
		.path = "a.jpg",
		.mtime = AGO(1),
		.ctime = AGO(1),
		.reason = REASON_SETTLING,
		.not_before = NOW + S,
		.born = AGO(1),
		.rule = 20},
	{.what = "moved in a moment ago",
		.path = "a.jpg",
		.mtime = AGO(60),
		.ctime = AGO(1),
		.reason = REASON_SETTLING,
		.not_before = NOW + S,
		.born = AGO(60),
		.rule = 20},
	{.what = "mtime in the future: ctime decides",
		.path = "a.jpg",
		.mtime = NOW + 999 * S,
		.ctime = AGO(9),
		.reason = REASON_READY,
		.born = NOW,
		.rule = 20},
	{.what = "mtime in the future, just changed",
		.path = "a.jpg",
		.mtime = NOW + 999 * S,
		.ctime = AGO(1),
		.reason = REASON_SETTLING,
		.not_before = NOW + S,
		.born = NOW,
		.rule = 20},
	{.what = "ends of time",
		.path = "a.jpg",
		.mtime = INT64_MAX,
		.ctime = INT64_MAX,
		.btime = INT64_MIN,
		.reason = REASON_READY,
		.born = NOW,
		.rule = 20},
	{.what = "before 1970",
		.path = "a.jpg",
		.mtime = INT64_MIN,
		.ctime = AGO(9),
		.reason = REASON_READY,
		.born = NOW,
		.rule = 20},
	{.what = "birth counts",
		.path = "a.jpg",
		.mtime = AGO(9),
		.ctime = AGO(9),
		.btime = AGO(50),
		.reason = REASON_READY,
		.born = AGO(50),
		.rule = 20},
	{.what = "touching makes no younger",
		.path = "a.jpg",
		.mtime = AGO(9),
		.ctime = AGO(9),
		.first_seen = AGO(3600),
		.reason = REASON_OVERDUE,
		.born = AGO(3600),
		.rule = 20,
		.overdue = true},
	{.what = "old mtime",
		.path = "a.jpg",
		.mtime = AGO(3600),
		.ctime = AGO(9),
		.reason = REASON_OVERDUE,
		.born = AGO(3600),
		.rule = 20,
		.overdue = true},
	{.what = "overdue but being written",
		.path = "a.jpg",
		.mtime = AGO(3600),
		.ctime = AGO(1),
		.reason = REASON_SETTLING,
		.not_before = NOW + S,
		.born = AGO(3600),
		.rule = 20,
		.overdue = true},
	{.what = "open",
		.path = "a.jpg",
		.mtime = AGO(9),
		.ctime = AGO(9),
		.open = true,
		.reason = REASON_OPEN,
		.not_before = NOW + 2 * S,
		.born = AGO(9),
		.rule = 20},
	{.what = "below a directory",
		.path = "x/y/a.jpg",
		.mtime = AGO(9),
		.ctime = AGO(9),
		.reason = REASON_READY,
		.born = AGO(9),
		.rule = 20},
	{.what = "second pattern",
		.path = "x/a.json",
		.mtime = AGO(9),
		.ctime = AGO(9),
		.reason = REASON_READY,
		.born = AGO(9),
		.rule = 21},
	{.what = "ignore wins",
		.path = "x/.a.jpg",
		.mtime = AGO(9),
		.ctime = AGO(9),
		.reason = REASON_IGNORED,
		.born = AGO(9),
		.rule = 30},
	{.what = "an ignored link is ignored",
		.path = ".a",
		.kind = FILE_KIND_SYMLINK,
		.mtime = AGO(9),
		.ctime = AGO(9),
		.reason = REASON_IGNORED,
		.born = AGO(9),
		.rule = 30},
	{.what = "unmatched",
		.path = "a.txt",
		.mtime = AGO(9),
		.ctime = AGO(9),
		.reason = REASON_UNMATCHED,
		.born = AGO(9),
		.rule = 10},
	{.what = "unmatched and old",
		.path = "a.txt",
		.mtime = AGO(7200),
		.ctime = AGO(9),
		.reason = REASON_UNMATCHED_OVERDUE,
		.born = AGO(7200),
		.rule = 10,
		.overdue = true},
	{.what = "symlink",
		.path = "a.jpg",
		.kind = FILE_KIND_SYMLINK,
		.mtime = AGO(9),
		.ctime = AGO(9),
		.reason = REASON_SYMLINK,
		.born = AGO(9),
		.rule = 20},
	{.what = "fifo",
		.path = "a.jpg",
		.kind = FILE_KIND_OTHER,
		.mtime = AGO(9),
		.ctime = AGO(9),
		.reason = REASON_SPECIAL,
		.born = AGO(9),
		.rule = 20},
	{.what = "hard link",
		.path = "a.jpg",
		.links = 2,
		.mtime = AGO(9),
		.ctime = AGO(9),
		.reason = REASON_HARD_LINK,
		.born = AGO(9),
		.rule = 20},
	{.what = "unmatched link is refused",
		.path = "a",
		.kind = FILE_KIND_SYMLINK,
		.mtime = AGO(9),
		.ctime = AGO(9),
		.reason = REASON_SYMLINK,
		.born = AGO(9),
		.rule = 10},
	{.what = "largest",
		.path = "a.jpg",
		.size = UINT64_C(1) << 40,
		.mtime = AGO(9),
		.ctime = AGO(9),
		.reason = REASON_READY,
		.born = AGO(9),
		.rule = 20},
	{.what = "too large",
		.path = "a.jpg",
		.size = (UINT64_C(1) << 40) + 1,
		.mtime = AGO(9),
		.ctime = AGO(9),
		.reason = REASON_TOO_LARGE,
		.born = AGO(9),
		.rule = 20},
	{.what = "empty",
		.path = "a.jpg",
		.size = 0,
		.mtime = AGO(9),
		.ctime = AGO(9),
		.reason = REASON_READY,
		.born = AGO(9),
		.rule = 20},
	{.what = "expired",
		.path = "a.jpg",
		.expired = true,
		.mtime = AGO(9),
		.ctime = AGO(9),
		.reason = REASON_POLICY_EXPIRED,
		.born = AGO(9),
		.rule = 20},
	{.what = "expired, symlink",
		.path = "a.jpg",
		.expired = true,
		.kind = FILE_KIND_SYMLINK,
		.mtime = AGO(9),
		.ctime = AGO(9),
		.reason = REASON_SYMLINK,
		.born = AGO(9),
		.rule = 20},
	{.what = "group complete",
		.path = "a.jpg",
		.grouped = true,
		.there = true,
		.group_changed = AGO(9),
		.group_since = AGO(9),
		.mtime = AGO(9),
		.ctime = AGO(9),
		.reason = REASON_READY,
		.born = AGO(9),
		.rule = 20},
	{.what = "group waits",
		.path = "a.jpg",
		.grouped = true,
		.group_since = AGO(9),
		.mtime = AGO(5),
		.ctime = AGO(5),
		.reason = REASON_GROUP_WAITS,
		.not_before = NOW + 21 * S,
		.born = AGO(5),
		.rule = 20},
	{.what = "overdue group waits no longer than wait",
		.path = "a.jpg",
		.grouped = true,
		.group_since = AGO(9),
		.mtime = AGO(3600),
		.ctime = AGO(9),
		.reason = REASON_GROUP_WAITS,
		.not_before = NOW + 21 * S,
		.born = AGO(3600),
		.rule = 20,
		.overdue = true},
	{.what = "group stayed incomplete",
		.path = "a.jpg",
		.grouped = true,
		.group_since = AGO(30),
		.mtime = AGO(9),
		.ctime = AGO(9),
		.reason = REASON_GROUP_INCOMPLETE,
		.born = AGO(9),
		.rule = 20},
	{.what = "a member that is there but not quiet is waited for",
		.path = "a.jpg",
		.grouped = true,
		.there = true,
		.group_since = AGO(9),
		.group_changed = AGO(1),
		.mtime = AGO(9),
		.ctime = AGO(9),
		.reason = REASON_GROUP_WAITS,
		.not_before = NOW + S,
		.born = AGO(9),
		.rule = 20},
	{.what = "a member is quiet to the moment",
		.path = "a.jpg",
		.grouped = true,
		.there = true,
		.group_since = AGO(9),
		.group_changed = AGO(2),
		.mtime = AGO(9),
		.ctime = AGO(9),
		.reason = REASON_READY,
		.born = AGO(9),
		.rule = 20},
	{.what = "nothing that can be believed says that a member changed",
		.path = "a.jpg",
		.grouped = true,
		.there = true,
		.group_since = AGO(9),
		.group_changed = INT64_MIN,
		.mtime = AGO(9),
		.ctime = AGO(9),
		.reason = REASON_READY,
		.born = AGO(9),
		.rule = 20},
	{.what = "a member that is written to again and again is waited for until wait is over",
		.path = "a.jpg",
		.grouped = true,
		.there = true,
		.group_since = AGO(30),
		.group_changed = AGO(1),
		.mtime = AGO(30),
		.ctime = AGO(30),
		.reason = REASON_GROUP_INCOMPLETE,
		.born = AGO(30),
		.rule = 20},
	{.what = "and not longer, however near the end of wait is",
		.path = "a.jpg",
		.grouped = true,
		.there = true,
		.group_since = AGO(29) - S / 2,
		.group_changed = AGO(1),
		.mtime = AGO(29) - S / 2,
		.ctime = AGO(29) - S / 2,
		.reason = REASON_GROUP_WAITS,
		.not_before = NOW + S / 2,
		.born = AGO(29) - S / 2,
		.rule = 20},
	{.what = "a member that is held open is asked for again",
		.path = "a.jpg",
		.grouped = true,
		.there = true,
		.group_open = true,
		.group_since = AGO(20),
		.group_changed = AGO(20),
		.mtime = AGO(20),
		.ctime = AGO(20),
		.reason = REASON_GROUP_WAITS,
		.not_before = NOW + 2 * S,
		.born = AGO(20),
		.rule = 20},
	{.what = "a member that is held open is waited for until wait is over",
		.path = "a.jpg",
		.grouped = true,
		.there = true,
		.group_open = true,
		.group_since = AGO(30),
		.group_changed = AGO(30),
		.mtime = AGO(30),
		.ctime = AGO(30),
		.reason = REASON_GROUP_INCOMPLETE,
		.born = AGO(30),
		.rule = 20},
	{.what = "overdue, beside a member that is held open",
		.path = "a.jpg",
		.grouped = true,
		.there = true,
		.group_open = true,
		.group_since = AGO(900),
		.group_changed = AGO(900),
		.mtime = AGO(900),
		.ctime = AGO(900),
		.reason = REASON_GROUP_INCOMPLETE,
		.born = AGO(900),
		.rule = 20,
		.overdue = true},
	{.what = "destroyed beside a member that is held open",
		.path = "a.jpg",
		.grouped = true,
		.there = true,
		.group_open = true,
		.destroy = true,
		.group_since = AGO(900),
		.group_changed = AGO(900),
		.mtime = AGO(900),
		.ctime = AGO(900),
		.reason = REASON_DESTROYED,
		.born = AGO(900),
		.rule = 20,
		.overdue = true},
	{.what = "a wait shorter than quiet tears no pair apart that was written in one go",
		.path = "a.jpg",
		.grouped = true,
		.there = true,
		.group_wait = 1,
		.group_since = AGO(2),
		.group_changed = AGO(1),
		.mtime = AGO(2),
		.ctime = AGO(2),
		.reason = REASON_GROUP_WAITS,
		.not_before = NOW + S,
		.born = AGO(2),
		.rule = 20},
	{.what = "but the other one has no longer than quiet",
		.path = "a.jpg",
		.grouped = true,
		.there = true,
		.group_wait = 1,
		.group_since = AGO(4),
		.group_changed = AGO(1),
		.mtime = AGO(4),
		.ctime = AGO(4),
		.reason = REASON_GROUP_INCOMPLETE,
		.born = AGO(4),
		.rule = 20},
	{.what = "and none beyond the deadline",
		.path = "a.jpg",
		.grouped = true,
		.there = true,
		.group_wait = 1,
		.group_since = AGO(3),
		.group_changed = AGO(1),
		.mtime = AGO(900),
		.ctime = AGO(3),
		.reason = REASON_GROUP_INCOMPLETE,
		.born = AGO(900),
		.rule = 20,
		.overdue = true},
	{.what = "under a hold",
		.path = "a.jpg",
		.mtime = AGO(50),
		.ctime = AGO(50),
		.held_until = NOW + 1,
		.reason = REASON_HELD,
		.born = AGO(50),
		.rule = 40},
	{.what = "the hold's time is over",
		.path = "a.jpg",
		.mtime = AGO(50),
		.ctime = AGO(50),
		.held_until = NOW,
		.reason = REASON_READY,
		.born = AGO(50),
		.rule = 20},
	{.what = "born when the hold's span is over",
		.path = "a.jpg",
		.mtime = AGO(9),
		.ctime = AGO(9),
		.held_until = NOW + 1,
		.reason = REASON_READY,
		.born = AGO(9),
		.rule = 20},
	{.what = "born before the hold's span",
		.path = "a.jpg",
		.mtime = AGO(101),
		.ctime = AGO(9),
		.held_until = NOW + 1,
		.reason = REASON_READY,
		.born = AGO(101),
		.rule = 20},
	{.what = "overdue where the policy says destroy",
		.path = "a.jpg",
		.mtime = AGO(900),
		.ctime = AGO(1),
		.destroy = true,
		.reason = REASON_DESTROYED,
		.born = AGO(900),
		.rule = 20,
		.overdue = true},
	{.what = "destroy waits for the writer",
		.path = "a.jpg",
		.mtime = AGO(900),
		.ctime = AGO(900),
		.destroy = true,
		.open = true,
		.reason = REASON_OPEN,
		.born = AGO(900),
		.rule = 20,
		.overdue = true},
	{.what = "not overdue: not destroyed",
		.path = "a.jpg",
		.mtime = AGO(899),
		.ctime = AGO(899),
		.destroy = true,
		.reason = REASON_READY,
		.born = AGO(899),
		.rule = 20},
	{.what = "a hold keeps from destruction",
		.path = "b/a.jpg",
		.mtime = AGO(950),
		.ctime = AGO(950),
		.destroy = true,
		.held_until = NOW + 1,
		.reason = REASON_HELD,
		.born = AGO(950),
		.rule = 41,
		.overdue = true},
	{.what = "group settles first",
		.path = "a.jpg",
		.grouped = true,
		.group_since = AGO(99),
		.mtime = AGO(1),
		.ctime = AGO(1),
		.reason = REASON_SETTLING,
		.not_before = NOW + S,
		.born = AGO(1),
		.rule = 20},
};

static char *text_of(const char *s) {
	char *copy = strdup(s);

	assert_non_null(copy);
	return copy;
}

static void check_case(const struct decide_case *c) {
	struct policy_pattern match[] = {
		{text_of("**/*.jpg"), {20, 1}}, {text_of("**/*.json"), {21, 1}}};
	struct policy_pattern ignore[] = {{text_of("**/.*"), {30, 1}}};
	char *name = text_of("faces");
	struct policy_source source = {.match = match,
		.match_count = 2,
		.ignore = ignore,
		.ignore_count = 1,
		.quiet_ns = 2 * S,
		.grouped = c->grouped,
		.group_wait_ns = c->group_wait != 0 ? c->group_wait : 30 * S,
		.name = name,
		.max_age_ns = 900 * S,
		.at_max_age = c->destroy ? AT_MAX_AGE_DESTROY : AT_MAX_AGE_SEAL,
		.max_size = POLICY_CAPTURE_MAX,
		.where = {10, 1}};
	char *sources[] = {text_of("other"), name};
	struct policy_pattern in_b[] = {{text_of("b/**"), {41, 9}}};
	struct policy_hold holds[] = {
		{.from_ns = AGO(100), .to_ns = AGO(10), .until_ns = c->held_until, .where = {40, 1}},
		{.sources = sources,
			.source_count = 2,
			.match = in_b,
			.match_count = 1,
			.from_ns = INT64_MIN,
			.to_ns = INT64_MAX,
			.until_ns = c->held_until,
			.where = {41, 1}},
		{.sources = sources, /* of another source: never */
			.source_count = 1,
			.from_ns = INT64_MIN,
			.to_ns = INT64_MAX,
			.until_ns = INT64_MAX,
			.where = {42, 1}}};
	struct policy policy = {.expires_ns = c->expired ? NOW : NOW + 1,
		.sources = &source,
		.source_count = 1,
		.unmatched_max_age_ns = 3600 * S,
		.holds = holds,
		.hold_count = ARRAY_LENGTH(holds)};
	struct decide_facts facts = {.path = slice_str(c->path),
		.kind = c->kind,
		.size = c->size,
		.links = c->links != 0 ? c->links : 1,
		.mtime_ns = c->mtime,
		.ctime_ns = c->ctime,
		.btime_ns = c->btime,
		.open_for_writing = c->open,
		.group_there = c->there,
		.group_open = c->group_open,
		.group_changed_ns = c->group_changed,
		.group_since_ns = c->group_since};
	struct decide_known known = {.first_seen_ns = c->first_seen};
	struct decision d = decide(&policy, &source, &facts, &known, NOW);

	if (d.reason != c->reason || d.overdue != c->overdue || d.born_ns != c->born ||
		d.rule.line != c->rule)
		fail_msg("%s: %s, overdue %d, born %lld s ago, line %u", c->what,
			reason_name(d.reason), d.overdue, (long long)((NOW - d.born_ns) / S),
			d.rule.line);
	if (c->not_before != 0 && d.not_before_ns != c->not_before)
		fail_msg("%s: again in %lld ms", c->what,
			(long long)((d.not_before_ns - NOW) / 1000000));
	if (d.action == ACTION_WAIT)
		assert_true(d.not_before_ns > NOW); /* asking again at once would spin */
	free(match[0].text);
	free(match[1].text);
	free(ignore[0].text);
	free(sources[0]);
	free(in_b[0].text);
	free(name);
}

static void decisions(void **state) {
	(void)state;
	for (size_t i = 0; i < ARRAY_LENGTH(table); i++)
		check_case(&table[i]);
}

/* 2027-01-15T08:00:00Z is a Friday. */
static void rates_follow_the_windows(void **state) {
	struct policy_window windows[] = {
		{.days = 0x1f, .from_m = 480, .to_m = 1080, .rate = 100}, /* working hours */
		{.days = 0x60, .from_m = 0, .to_m = 1440, .rate = 300},   /* weekends */
		{.days = 0x7f, .from_m = 1380, .to_m = 1440, .rate = 900}};
	const struct policy_destination d = {.rate = 200, .windows = windows, .window_count = 3};
	const struct policy_destination none = {.rate = 0};

	static const struct {
		int64_t after_s;
		uint64_t rate;
	} cases[] = {{0, 100}, {-1, 200}, {10 * 3600 - 1, 100}, {10 * 3600, 200},
		{15 * 3600 - 1, 200}, {15 * 3600, 900}, {16 * 3600, 300},
		{16 * 3600 + 23 * 3600, 300}, {2 * 86400, 300}, {3 * 86400, 100}, {-4 * 86400, 100},
		{-5 * 86400, 300}};

	(void)state;
	for (size_t i = 0; i < ARRAY_LENGTH(cases); i++)
		if (destination_rate(&d, NOW + cases[i].after_s * S) != cases[i].rate)
			fail_msg("after %lld s: %llu", (long long)cases[i].after_s,
				(unsigned long long)destination_rate(&d, NOW + cases[i].after_s * S));
	assert_int_equal(destination_rate(&none, NOW), 0);
}

static void every_reason_but_none_more_is_decided(void **state) {
	/* these come from walks alone */
	bool seen[REASON_COUNT] = {
		[REASON_MOUNT_POINT] = true, [REASON_PATH_TOO_LONG] = true, [REASON_UNREADABLE] = true};

	(void)state;
	for (size_t i = 0; i < ARRAY_LENGTH(table); i++)
		seen[table[i].reason] = true;
	for (size_t i = 0; i < REASON_COUNT; i++)
		if (!seen[i])
			fail_msg("no case ends in %s", reason_name((enum reason)i));
}

static void reasons_are_the_golden_ones(void **state) {
	static const enum action of[REASON_COUNT] = {

#define X(id, action, finding, name, text) [REASON_##id] = action,
		DECIDE_REASONS(X)
#undef X
	};
	struct buf now = BUF_INIT(65536);
	struct buf golden = BUF_INIT(65536);
	struct cede_error err;
	char path[4096];

	(void)state;
	(void)snprintf(path, sizeof path, "%s/tests/golden/reasons.txt", getenv("TOP"));
	if (file_load(-100 /* AT_FDCWD */, path, &golden, &err) < 0)
		fail_msg("%s", err.text);
	for (size_t i = 0; i < REASON_COUNT; i++)
		assert_int_equal(buf_addf(&now, &err, "%s %s%s: %s\n", reason_name((enum reason)i),
					 action_name(of[i]),
					 reason_is_finding((enum reason)i) ? " finding" : "",
					 reason_text((enum reason)i)),
			CEDE_OK);
	if (!slice_equal(buf_slice(&now), buf_slice(&golden)))
		fail_msg("tests/golden/reasons.txt says otherwise; reasons are now\n%.*s",
			(int)now.len, (const char *)now.data);
	buf_done(&now);
	buf_done(&golden);
}

static void globs(void **state) {
	static const struct {
		const char *pattern, *path;
		bool match;
	} cases[] = {
		{"**/*.jpg", "x.jpg", true},
		{"**/*.jpg", "a/x.jpg", true},
		{"**/*.jpg", "a/b/c/x.jpg", true},
		{"**/*.jpg", "x.jpg.tmp", false},
		{"**/*.jpg", "x.JPG", false},
		{"**/*.jpg", ".jpg", true},
		{"*.jpg", "a/x.jpg", false},
		{"*", "a", true},
		{"*", "a/b", false},
		{"*", "", true},
		{"?", "", false},
		{"?", "/", false},
		{"a?c", "abc", true},
		{"a/**", "a/b", true},
		{"a/**", "a/b/c", true},
		{"a/**", "ab", false},
		{"a/**/z", "a/z", true},
		{"a/**/z", "a/b/c/z", true},
		{"a/**/z", "a/b/cz", false},
		{"**/a/**/b", "x/a/y/a/z/b", true},
		{"**/a/*/b", "a/x/c/a/y/b", true},
		{"**", "a/b/c", true},
		{"**/.*", "a/.hidden", true},
		{"**/.*", ".hidden/a", false},
		{"[a-c]x", "bx", true},
		{"[a-c]x", "dx", false},
		{"[!a-c]x", "dx", true},
		{"[!a-c]x", "ax", false},
		{"[!a]b", "/b", false},
		{"[]]", "]", true},
		{"[a-]", "-", true},
		{"x[0-\\]].jpg", "x5.jpg", true},
		{"x[0-\\]].jpg", "x].jpg", true},
		{"x[0-\\]].jpg", "x\\.jpg", true}, /* '\' lies between '0' and ']' */
		{"x[0-\\]].jpg", "x5].jpg", false},
		{"x[0-\\]].jpg", "x^.jpg", false},
		{"[\\[-\\]]", "\\", true},
		{"[\\[-\\]]", "-", false},
		{"[0-\\9]", "5", true},
		{"[0-\\9]", "\\", false},
		{"[a\\-c]", "b", false},
		{"[a\\-c]", "-", true},
		{"[", "[", true},
		{"a[b", "a[b", true},
		{"\\*", "*", true},
		{"\\*", "a", false},
		{"\\[a]", "[a]", true},
		{"*a*b*c", "xxaxxbxxc", true},
		{"*a*b*c", "xxaxxcxxb", false},
		{"\xff*", "\xff\xfe", true},
		{"a", "a/", false},
		{"", "", true},
		{"", "a", false},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_LENGTH(cases); i++)
		if (glob_match(slice_str(cases[i].pattern), slice_str(cases[i].path)) !=
			cases[i].match)
			fail_msg("%s %s %s", cases[i].pattern,
				cases[i].match ? "should match" : "should not match", cases[i].path);
}

/* 20 of each would take a backtracking matcher longer than the universe is old. */
static void no_pattern_is_slow(void **state) {
	static const char *const parts[] = {"*a", "**/", "*/", "a*", "?*", "[a-z]*", "**/*a"};
	char path[4096];

	(void)state;
	memset(path, 'a', sizeof path);
	for (size_t step = 1; step <= 256; step *= 4) {
		for (size_t i = step; i < sizeof path - 1; i += step + 1)
			path[i] = '/';
		for (size_t k = 0; k < ARRAY_LENGTH(parts); k++) {
			char pattern[512] = "**/";
			size_t used = 3;
			size_t len = strlen(parts[k]);

			for (; used + len + 1 < sizeof pattern; used += len)
				memcpy(pattern + used, parts[k], len);
			pattern[used++] = 'Z';
			int64_t began = clock_boot_ns();
			assert_false(glob_match(
				slice_of(pattern, used), slice_of(path, sizeof path - 1)));
			if (clock_boot_ns() - began > 5 * S)
				fail_msg("%s... took more than 5 s", parts[k]);
		}
		memset(path, 'a', sizeof path);
	}
}

static void stems(void **state) {
	static const struct {
		const char *path, *stem;
	} cases[] = {{"faces/a/x.jpg", "faces/a/x"}, {"x.tar.gz", "x.tar"}, {"x", "x"}, {".x", ".x"},
		{"a.b/x", "a.b/x"}, {"a/.x", "a/.x"}, {"a/.x.jpg", "a/.x"}, {"x.", "x"}, {"", ""}};

	(void)state;
	for (size_t i = 0; i < ARRAY_LENGTH(cases); i++)
		if (!slice_is(group_stem(slice_str(cases[i].path)), cases[i].stem))
			fail_msg("%s", cases[i].path);
}

int main(void) {
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(decisions),
		cmocka_unit_test(rates_follow_the_windows),
		cmocka_unit_test(every_reason_but_none_more_is_decided),
		cmocka_unit_test(reasons_are_the_golden_ones),
		cmocka_unit_test(globs),
		cmocka_unit_test(no_pattern_is_slow),
		cmocka_unit_test(stems),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
