/* SPDX-License-Identifier: Apache-2.0
 * Links of any speed, a second at a time: uploads share them evenly unless a case says otherwise. */
#include "agent/courier/pace.h"
#include "base/check.h"
#include "tests/unit/unit.h"

#define MOST 8

struct upload {
	struct pace pace;
	uint64_t moved;
	bool open;
	enum pace_verdict end;
	int end_s;
};

static void join(struct pace_line *line, struct upload *u, int now) {
	*u = (struct upload){.open = true};
	pace_join(line, &u->pace, now * INT64_C(1000000000));
}

static void end(struct pace_line *line, struct upload *u, enum pace_verdict v, int now) {
	u->open = false;
	u->end = v;
	u->end_s = now;
	pace_leave(line, &u->pace);
}

static int count_open(const struct upload *u, int n) {
	int open = 0;

	for (int i = 0; i < n; i++)
		open += u[i].open;
	return open;
}

/* From second `from` to `to`; the last one looks first if `backwards`. */
static void run(struct pace_line *line, struct upload *u, int n, uint64_t rate, int from, int to,
	bool backwards) {
	for (int s = from + 1; s <= to; s++) {
		int open = count_open(u, n);
		for (int k = 0; k < n; k++) {
			struct upload *one = &u[backwards ? n - 1 - k : k];
			if (!one->open)
				continue;
			one->moved += rate / (uint64_t)open;
			enum pace_verdict v =
				pace_look(line, &one->pace, one->moved, s * INT64_C(1000000000));
			if (v != PACE_ON)
				end(line, one, v, s);
		}
	}
}

static void a_link_that_carries_the_floor_for_each_keeps_all(void **state) {
	struct pace_line line = {0};
	struct upload u[MOST];

	(void)state;
	for (int i = 0; i < MOST; i++)
		join(&line, &u[i], 0);
	run(&line, u, MOST, MOST * (PACE_FLOOR + 40), 0, 7200, false);
	assert_int_equal(count_open(u, MOST), MOST);
}

static void a_lone_upload_gets_on_at_the_floor_and_is_dead_below_it(void **state) {
	struct pace_line line = {0};
	struct upload u[1];

	(void)state;
	join(&line, &u[0], 0);
	run(&line, u, 1, PACE_FLOOR, 0, 7200, false);
	assert_true(u[0].open);
	run(&line, u, 1, PACE_FLOOR - 100, 7200, 7300, false);
	assert_false(u[0].open);
	assert_int_equal(u[0].end, PACE_DEAD);
	assert_in_range(u[0].end_s, 7230, 7262);
}

/* Whatever it carries, some go on to their end, those that began first, and none is called dead. */
static void too_many_are_halved_until_the_rest_gets_on(void **state) {
	static const struct {
		uint64_t rate;
		int left;
	} cases[] = {{7 * PACE_FLOOR, 4}, {5 * PACE_FLOOR, 4}, {3 * PACE_FLOOR, 2},
		{2 * PACE_FLOOR, 2}, {PACE_FLOOR + 100, 1}};

	(void)state;
	for (size_t c = 0; c < ARRAY_LENGTH(cases) * 2; c++) {
		struct pace_line line = {0};
		struct upload u[MOST];
		bool backwards = c % 2 == 1;
		for (int i = 0; i < MOST; i++)
			join(&line, &u[i], 0);
		run(&line, u, MOST, cases[c / 2].rate, 0, 600, backwards);
		assert_int_equal(count_open(u, MOST), cases[c / 2].left);
		for (int i = 0; i < MOST; i++) {
			assert_int_equal(u[i].open, i < cases[c / 2].left);
			assert_true(u[i].open || u[i].end == PACE_YIELDS);
		}
	}
}

/* One more is tried now and then: it is the one that gives way, not the hour's work before it. */
static void the_newcomer_gives_way(void **state) {
	struct pace_line line = {0};
	struct upload u[2];

	(void)state;
	join(&line, &u[0], 0);
	run(&line, u, 1, PACE_FLOOR + 200, 0, 3600, false);
	join(&line, &u[1], 3600);
	run(&line, u, 2, PACE_FLOOR + 200, 3600, 3720, false);
	assert_true(u[0].open);
	assert_int_equal(u[1].end, PACE_YIELDS);
	assert_in_range(u[1].end_s, 3600, 3661);
}

static void on_a_link_that_died_all_are_dead_within_two_windows(void **state) {
	struct pace_line line = {0};
	struct upload u[MOST];

	(void)state;
	for (int i = 0; i < MOST; i++)
		join(&line, &u[i], 0);
	run(&line, u, MOST, 100 << 20, 0, 7, false);
	run(&line, u, MOST, 0, 7, 7 + 2 * PACE_WINDOW_S + 1, false);
	assert_int_equal(count_open(u, MOST), 0);
	assert_int_equal(u[0].end, PACE_DEAD);
}

/* One that hangs, or crawls, beside others that do well: it alone ends. */
static void one_that_does_badly_alone_ends_alone(void **state) {
	static const struct {
		uint64_t crawl;
		enum pace_verdict end;
	} cases[] = {{0, PACE_DEAD}, {500, PACE_YIELDS}};

	(void)state;
	for (size_t c = 0; c < ARRAY_LENGTH(cases); c++) {
		struct pace_line line = {0};
		struct upload u[4], bad;
		join(&line, &bad, 0);
		for (int i = 0; i < 4; i++)
			join(&line, &u[i], 0);
		for (int s = 0; s < 300; s++) {
			run(&line, u, 4, 1 << 20, s, s + 1, false);
			if (!bad.open)
				continue;
			bad.moved += cases[c].crawl;
			enum pace_verdict v = pace_look(
				&line, &bad.pace, bad.moved, (s + 1) * INT64_C(1000000000));
			if (v != PACE_ON)
				end(&line, &bad, v, s + 1);
		}
		assert_int_equal(count_open(u, 4), 4);
		assert_false(bad.open);
		assert_int_equal(bad.end, cases[c].end);
		assert_in_range(bad.end_s, PACE_WINDOW_S, PACE_WINDOW_S + 1);
	}
}

/* The kernel's buffer was taken for the other end; then it is known how little has arrived. */
/* A connection that lost its packets on a link that is too thin: no sign that the link is down. */
static void one_that_is_starved_gives_way(void **state) {
	struct pace_line line = {0};
	struct upload u[2], starved;

	(void)state;
	join(&line, &starved, 0);
	for (int i = 0; i < 2; i++)
		join(&line, &u[i], 0);
	run(&line, u, 2, 2 * PACE_FLOOR + 200, 0, PACE_WINDOW_S, false);
	assert_int_equal(pace_look(&line, &starved.pace, 0, PACE_WINDOW_S * INT64_C(1000000000)),
		PACE_YIELDS);
	pace_leave(&line, &starved.pace);
	run(&line, u, 2, 2 * PACE_FLOOR + 200, PACE_WINDOW_S, 300, false);
	assert_int_equal(count_open(u, 2), 2);
}

static void what_was_counted_too_early_counts_when_it_arrives(void **state) {
	struct pace_line line = {0};
	struct upload u[1];

	(void)state;
	join(&line, &u[0], 0);
	u[0].moved = 4 << 20;
	run(&line, u, 1, PACE_FLOOR, 0, 1, false);
	u[0].moved = PACE_FLOOR;
	run(&line, u, 1, PACE_FLOOR + 100, 1, 300, false);
	assert_true(u[0].open);
	run(&line, u, 1, 0, 300, 331, false);
	assert_int_equal(u[0].end, PACE_DEAD);
}

static void what_ended_is_out_of_the_line(void **state) {
	struct pace_line line = {0};
	struct upload u[3];

	(void)state;
	for (int i = 0; i < 3; i++)
		join(&line, &u[i], 0);
	pace_leave(&line, &u[1].pace);
	pace_leave(&line, &u[1].pace); /* unknown: fine */
	assert_ptr_equal(line.first, &u[0].pace);
	assert_ptr_equal(line.first->next, &u[2].pace);
	pace_leave(&line, &u[0].pace);
	pace_leave(&line, &u[2].pace);
	assert_null(line.first);
}

int main(void) {
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_link_that_carries_the_floor_for_each_keeps_all),
		cmocka_unit_test(a_lone_upload_gets_on_at_the_floor_and_is_dead_below_it),
		cmocka_unit_test(too_many_are_halved_until_the_rest_gets_on),
		cmocka_unit_test(the_newcomer_gives_way),
		cmocka_unit_test(on_a_link_that_died_all_are_dead_within_two_windows),
		cmocka_unit_test(one_that_does_badly_alone_ends_alone),
		cmocka_unit_test(one_that_is_starved_gives_way),
		cmocka_unit_test(what_was_counted_too_early_counts_when_it_arrives),
		cmocka_unit_test(what_ended_is_out_of_the_line),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
