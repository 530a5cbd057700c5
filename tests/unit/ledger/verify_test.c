/* SPDX-License-Identifier: Apache-2.0
 * What a ledger may make `cede ledger verify` do: anybody can write one. */
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "agent/ledger/ledger_internal.h"
#include "agent/ledger/verify.h"
#include "base/check.h"
#include "base/clock.h"
#include "tests/unit/ledger/tool.h"

#define MANY 60000

static struct ledger_check verified(struct ledger *l) {
	struct ledger_check check;
	struct cede_error err = {0};

	assert_int_equal(ledger_check(l, SLICE_NONE, SLICE_NONE, SLICE_NONE, &check, &err), CEDE_OK);
	return check;
}

static void event(struct ledger *l, enum ledger_event kind, const char *detail) {
	begin(l);
	assert_int_equal(ledger_event(l, kind, NULL, NOW, detail, NULL), CEDE_OK);
	commit(l);
}

static void execute(struct ledger *l, const char *sql) {
	assert_int_equal(sqlite3_exec(l->db, sql, NULL, NULL, NULL), SQLITE_OK);
}

/* Room is made only for rows that there can be: each had an event when it came. */
static void rows_that_there_can_not_be_are_named(void **state) {
	static const struct {
		enum ledger_event kind;
		const char *detail, *why;
	} cases[] = {
		{LEDGER_CAPTURES_WIPED, "level=removed rows=1-3000000", "row number"},
		{LEDGER_CAPTURES_WIPED, "level=removed rows=1,3000000", "row number"},
		{LEDGER_CAPTURE_WIPED, "level=removed row=3000000", "row number"},
		{LEDGER_CAPTURE_SEEN, "row=3000000 source=faces size=1 born=1 path=a.jpg",
			"row number"},
		{LEDGER_BUNDLE_SEALED, "row=3000000 destination=agency size=1 captures=1",
			"row number"},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_LENGTH(cases); i++) {
		void *one;
		int64_t row;
		assert_int_equal(bench_open(&one), 0);
		(void)seen(of(&one), "a.jpg", "", 1, 10, NOW, &row);
		event(of(&one), cases[i].kind, cases[i].detail);
		struct ledger_check check = verified(of(&one));
		if (check.bad_sequence != 2 || strstr(check.why, cases[i].why) == NULL)
			fail_msg("%s: event %llu: %s", cases[i].detail,
				(unsigned long long)check.bad_sequence, check.why);
		assert_int_equal(bench_close(&one), 0);
	}
}

static void rows_that_are_wiped_again_and_again_are_named(void **state) {
	struct ledger *l = of(state);
	char detail[1024];
	int64_t row;

	(void)seen(l, "a.jpg", "", 1, 10, NOW, &row);
	int n = snprintf(detail, sizeof detail, "level=removed rows=1");
	for (size_t i = 0; i < 60; i++)
		n += snprintf(detail + n, sizeof detail - (size_t)n, ",1-2");
	event(l, LEDGER_CAPTURES_WIPED, detail);
	struct ledger_check check = verified(l);
	assert_int_equal(check.bad_sequence, 2);
	assert_non_null(strstr(check.why, "again and again"));
}

/* ---- captures that were written again */

static void write_all(struct ledger *l, uint64_t size, enum ledger_seen want) {
	begin(l);
	for (uint64_t i = 0; i < MANY; i++) {
		enum ledger_seen result;
		int64_t row;
		char path[32];
		(void)snprintf(path, sizeof path, "%llu.jpg", (unsigned long long)i);
		struct ledger_capture c = {.source = slice_str("faces"),
			.path = slice_str(path),
			.identity = {.dev = 1, .ino = i + 1, .size = size, .mtime_ns = NOW},
			.born_ns = NOW - 9,
			.first_seen_ns = NOW,
			.deadline_ns = NOW};
		assert_int_equal(id_make(NOW, &c.id, NULL), CEDE_OK);
		assert_int_equal(ledger_capture_seen(l, &c, NOW, &result, &row, NULL), CEDE_OK);
		assert_int_equal(result, want);
	}
	commit(l);
}

static int64_t cpu_ns(struct ledger *l) {
	struct timespec before, after;

	(void)clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &before);
	struct ledger_check check = verified(l);
	(void)clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &after);
	assert_int_equal(check.bad_sequence, 0);
	assert_int_equal(check.captures, MANY);
	return (after.tv_sec - before.tv_sec) * NS_PER_SECOND + after.tv_nsec - before.tv_nsec;
}

static void captures_that_were_written_again_cost_no_more_than_others(void **state) {
	struct ledger *l = of(state);

	write_all(l, 10, LEDGER_SEEN_NEW);
	int64_t plain = cpu_ns(l);
	write_all(l, 11, LEDGER_SEEN_UPDATED);
	write_all(l, 12, LEDGER_SEEN_UPDATED);
	int64_t again = cpu_ns(l);
	print_message("verified in %lld ms, with all written again twice in %lld ms\n",
		(long long)(plain / NS_PER_MS), (long long)(again / NS_PER_MS));
	assert_true(again < 8 * plain); /* three times the events */
}

static void what_was_written_again_is_compared_with_its_last_event(void **state) {
	struct ledger *l = of(state);
	int64_t first, second;

	(void)seen(l, "a.jpg", "", 1, 10, NOW, &first);
	(void)seen(l, "b.jpg", "", 2, 10, NOW, &second);
	for (uint64_t size = 11; size < 14; size++) {
		assert_int_equal(seen(l, "b.jpg", "", 2, size, NOW, &second), LEDGER_SEEN_UPDATED);
		assert_int_equal(seen(l, "a.jpg", "", 1, size, NOW, &first), LEDGER_SEEN_UPDATED);
	}
	assert_int_equal(verified(l).bad_sequence, 0);
	execute(l, "UPDATE capture SET size = 12 WHERE id = 2");
	struct ledger_check check = verified(l);
	assert_int_equal(check.bad_sequence, 7);
	assert_non_null(strstr(check.why, "another size or time"));
	execute(l, "UPDATE capture SET size = 13 WHERE id = 2");
	execute(l, "UPDATE capture SET id = 3000000 WHERE id = 2");
	check = verified(l);
	assert_int_equal(check.bad_sequence, 2); /* the table lacks what was seen */
}

/* Kept, since the proof of one of its segments was taken away; and that one was lost. */
static void a_segment_that_goes_again_is_no_contradiction(void **state) {
	struct ledger *l = of(state);
	int64_t row, bundles[2], rows[64];

	(void)seen(l, "large", "", 1, 200, NOW, &row);
	for (uint32_t i = 0; i < 2; i++) {
		assert_int_equal(take(l, 1, 100, rows), 1);
		bundles[i] = seal(l, NULL, 0, true, NULL);
		one_segment(l, row, bundles[i], i, 2);
		begin(l);
		assert_int_equal(ledger_bundle_spooled(l, bundles[i], NOW, NULL), CEDE_OK);
		assert_int_equal(ledger_bundle_wiping(l, bundles[i], NOW, NULL), CEDE_OK);
		commit(l);
	}
	assert_int_equal(state_of(l, row), CAPTURE_WIPING);
	begin(l);
	assert_int_equal(
		ledger_capture_kept(l, row, NOW, "reason=spooled-bundle-missing effect=kept", NULL),
		CEDE_OK);
	commit(l);
	abandon(l, bundles[1]);
	assert_int_equal(state_of(l, row), CAPTURE_READY);
	struct ledger_check check = verified(l);
	if (check.bad_sequence != 0)
		fail_msg("event %llu: %s", (unsigned long long)check.bad_sequence, check.why);
}

int main(void) {
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(rows_that_there_can_not_be_are_named),
		cmocka_unit_test_setup_teardown(
			a_segment_that_goes_again_is_no_contradiction, bench_open, bench_close),
		cmocka_unit_test_setup_teardown(
			rows_that_are_wiped_again_and_again_are_named, bench_open, bench_close),
		cmocka_unit_test_setup_teardown(
			captures_that_were_written_again_cost_no_more_than_others, bench_open,
			bench_close),
		cmocka_unit_test_setup_teardown(what_was_written_again_is_compared_with_its_last_event,
			bench_open, bench_close),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
