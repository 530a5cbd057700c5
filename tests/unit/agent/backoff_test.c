/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/send/backoff.h"
#include "base/check.h"
#include "tests/unit/unit.h"

static void waits_double_up_to_the_cap_with_jitter(void **state) {
	static const struct {
		unsigned failures;
		uint32_t least, most;
	} cases[] = {{1, 125, 250}, {2, 250, 500}, {3, 500, 1000}, {7, 8000, 16000},
		{8, 15000, 30000}, {9, 15000, 30000}, {4000000000U, 15000, 30000}};

	(void)state;
	for (size_t i = 0; i < ARRAY_LENGTH(cases); i++) {
		assert_int_equal(backoff_ms(cases[i].failures, 0, 0), cases[i].least);
		for (uint32_t random = 1; random < 4000000000U; random += 99999989) {
			uint32_t ms = backoff_ms(cases[i].failures, random, 0);
			assert_in_range(ms, cases[i].least, cases[i].most);
		}
	}
	assert_int_not_equal(backoff_ms(5, 1, 0), backoff_ms(5, 1000, 0));
}

static void what_the_server_asked_for_is_a_floor_within_reason(void **state) {
	(void)state;
	assert_int_equal(backoff_ms(1, 0, 7), 7000);
	assert_int_equal(backoff_ms(8, 15000, 7), 30000);
	assert_int_equal(backoff_ms(1, 0, 4000000000U), BACKOFF_ASKED_MOST_S * 1000);
}

int main(void) {
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(waits_double_up_to_the_cap_with_jitter),
		cmocka_unit_test(what_the_server_asked_for_is_a_floor_within_reason),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
