/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/courier/retry_after.h"
#include "base/check.h"
#include "tests/unit/unit.h"

static void seconds_and_dates_are_understood_and_nothing_absurd_is(void **state) {
	static const struct {
		const char *value;
		uint32_t seconds;
	} cases[] = {
		{"0", 0},
		{"7", 7},
		{"007", 7},
		{"86400", 86400},
		{"86401", RETRY_AFTER_MOST_S},
		{"20300101", RETRY_AFTER_MOST_S},
		{"1000000000000", RETRY_AFTER_MOST_S},
		{"99999999999999999999999999999999999999999999999999999999999999999999999999999999",
			RETRY_AFTER_MOST_S},
		{"", 0},
		{"-1", 0},
		{"-1000000000000", 0},
		{"+5", 0},
		{"1.5", 0},
		{"5 seconds", 0},
		{"soon", 0},
		{"Thu, 01 Jan 2026 00:00:09 GMT", 9},
		{"Thu, 01 Jan 2026 00:00:00 GMT", 0},
		{"Wed, 31 Dec 2025 23:59:59 GMT", 0},
		{"Thursday, 01-Jan-26 00:00:09 GMT", 9},
		{"Thu Jan  1 00:00:09 2026", 9},
		{"Fri, 31 Dec 9999 23:59:59 GMT", RETRY_AFTER_MOST_S},
		{"Thu, 01 Jan 1970 00:00:00 GMT", 0},
		{"Thu, 01 Jan 2026 00:00:09 GMT and a tail that is longer than any date", 0},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_LENGTH(cases); i++) {
		uint32_t got = retry_after_s(slice_str(cases[i].value), 1767225600);
		if (got != cases[i].seconds)
			fail_msg("\"%s\": %u, expected %u", cases[i].value, got, cases[i].seconds);
	}
}

int main(void) {
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(seconds_and_dates_are_understood_and_nothing_absurd_is),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
