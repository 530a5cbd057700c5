/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/send/reach.h"
#include "base/check.h"
#include "base/clock.h"
#include "tests/unit/unit.h"

static const struct reach_failure timed_out = {.kind = "timeout", .slow = true};
static const struct reach_failure broken = {.kind = "reset"};

static size_t room(const struct reach *r, int64_t now) {
	int64_t wait = 0;

	return reach_room(r, false, now, &wait);
}

static void all_may_go_from_the_start(void **state) {
	struct reach r;

	(void)state;
	reach_init(&r);
	assert_int_equal(room(&r, 0), REACH_MOST);
	r.underway = 3;
	assert_int_equal(room(&r, 0), REACH_MOST - 3);
	r.rate = 1;
	assert_int_equal(room(&r, 0), 0);
	r.underway = 0;
	assert_int_equal(room(&r, 0), 1);
}

/* All under way fail, in one round; then probes get through one by one. */
static void too_slow_for_all_halves_and_each_bundle_adds_one(void **state) {
	int64_t now = 0;
	struct reach r;

	(void)state;
	reach_init(&r);
	for (size_t most = REACH_MOST; most > 1; most /= 2) {
		assert_int_equal(r.most, most);
		unsigned round = r.round;
		r.underway = most;
		while (r.underway > 0) {
			r.underway--;
			assert_int_equal(reach_failed(&r, round, &timed_out, now, 0),
				r.underway + 1 == most);
		}
		now = r.retry_boot_ns;
		assert_int_equal(room(&r, now), 1);
		assert_true(reach_worked(&r, 0, 0, now)); /* a question: no proof of its speed */
	}
	assert_int_equal(r.most, 1);
	for (size_t most = 1; most <= REACH_MOST + 1; most++) {
		assert_int_equal(r.most, most < REACH_MOST ? most : REACH_MOST);
		assert_false(reach_worked(&r, 1, 1, now));
	}
}

/* So a slow link settles, and what goes on is not thrown away again and again. */
static void one_more_goes_only_where_there_is_room_to_spare(void **state) {
	static const struct {
		size_t most;
		uint64_t rate;
		int64_t took_s;
		bool grows;
	} cases[] = {{1, 3072, 60, true}, {1, 3000, 60, false}, {4, 1920, 600, true},
		{4, 1900, 600, false}, {4, 1100, 600, false}, {4, 1100, 14, true},
		{4, 100, 1, true}, {7, 100 << 20, 16, true}};

	(void)state;
	for (size_t i = 0; i < ARRAY_LENGTH(cases); i++) {
		struct reach r;
		reach_init(&r);
		r.most = cases[i].most;
		(void)reach_worked(&r, cases[i].rate * (uint64_t)cases[i].took_s,
			cases[i].took_s * NS_PER_SECOND, 0);
		assert_int_equal(r.most, cases[i].most + cases[i].grows);
	}
}

static void what_is_not_slowness_halves_nothing(void **state) {
	struct reach r;

	(void)state;
	reach_init(&r);
	r.underway = 7;
	(void)reach_failed(&r, r.round, &broken, 0, 0);
	assert_int_equal(r.most, REACH_MOST);
	r.underway = 0; /* nobody took anything from it: the link is down */
	for (int i = 0; i < 20; i++)
		(void)reach_failed(&r, r.round, &timed_out, 0, 0);
	assert_int_equal(r.most, REACH_MOST);
}

static void what_gave_way_leaves_the_others_alone(void **state) {
	struct reach r;

	(void)state;
	reach_init(&r);
	r.underway = 8;
	for (int i = 0; i < 4; i++) {
		r.underway--;
		reach_gave_way(&r);
		assert_int_equal(room(&r, 0), 0);
	}
	assert_int_equal(r.most, 4);
	assert_false(r.down);
	r.underway = 0;
	reach_gave_way(&r);
	assert_int_equal(r.most, 1);
}

static void one_probe_at_a_time_while_it_is_down(void **state) {
	int64_t wait = 0;
	struct reach r;

	(void)state;
	reach_init(&r);
	r.underway = 5;
	assert_true(reach_failed(&r, 0, &broken, 1000, 0));
	assert_int_equal(reach_room(&r, false, 1000, &wait), 0);
	assert_int_equal(wait, r.retry_boot_ns);
	assert_true(wait > 1000);
	assert_int_equal(room(&r, wait), 1);
	assert_int_equal(reach_room(&r, true, r.retry_boot_ns, &wait), 0);
	int64_t retry = r.retry_boot_ns;
	assert_false(reach_failed(&r, 0, &broken, 2000, 0)); /* of the same link */
	assert_int_equal(r.retry_boot_ns, retry);
	assert_true(reach_worked(&r, 1, 1, retry));
	assert_int_equal(room(&r, retry), REACH_MOST - 5);
}

static void quiet_that_was_asked_for_outlasts_a_success(void **state) {
	const struct reach_failure asked = {.kind = "http-503", .refused = true, .retry_after_s = 60};
	struct reach r;

	(void)state;
	reach_init(&r);
	assert_true(reach_failed(&r, 0, &asked, 0, 0));
	assert_false(reach_worked(&r, 1, 1, NS_PER_SECOND));
	assert_true(r.down);
	assert_int_equal(room(&r, 59 * NS_PER_SECOND), 0);
	assert_int_equal(room(&r, 60 * NS_PER_SECOND), 1);
}

static void doubts_are_for_what_a_new_courier_would_mend(void **state) {
	struct reach r;

	(void)state;
	reach_init(&r);
	for (int i = 0; i < 8; i++)
		reach_doubt(&r, i % 2 == 0 ? "tls" : "resolve");
	assert_false(reach_doubts_courier(&r));
	reach_doubt(&r, "tls");
	assert_true(reach_doubts_courier(&r));
	reach_doubt(&r, "connect");
	assert_false(reach_doubts_courier(&r));
	for (int i = 0; i < 3; i++)
		reach_doubt(&r, "local");
	assert_true(reach_doubts_courier(&r));
}

int main(void) {
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(all_may_go_from_the_start),
		cmocka_unit_test(too_slow_for_all_halves_and_each_bundle_adds_one),
		cmocka_unit_test(one_more_goes_only_where_there_is_room_to_spare),
		cmocka_unit_test(what_is_not_slowness_halves_nothing),
		cmocka_unit_test(what_gave_way_leaves_the_others_alone),
		cmocka_unit_test(one_probe_at_a_time_while_it_is_down),
		cmocka_unit_test(quiet_that_was_asked_for_outlasts_a_success),
		cmocka_unit_test(doubts_are_for_what_a_new_courier_would_mend),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
