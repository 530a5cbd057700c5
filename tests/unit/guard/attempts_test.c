/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>

#include "agent/guard/attempts.h"
#include "base/check.h"
#include "base/clock.h"
#include "tests/unit/unit.h"

static struct guard_attempt attempt_of(uint32_t pid, const char *path) {
	struct guard_attempt a = {.denied = true, .pid = pid, .uid = 0, .count = 1, .source = 0};

	(void)snprintf(a.path, sizeof a.path, "%s", path);
	(void)snprintf(a.exe, sizeof a.exe, "/bin/cat");
	return a;
}

/* Tells what may be told; how many attempts that were, and rows. */
static uint64_t tell(struct attempts *a, int64_t now, size_t *ret_rows) {
	const struct guard_attempt *next;
	uint64_t sum = 0;

	*ret_rows = 0;
	while ((next = attempts_next(a, now)) != NULL) {
		sum += next->count;
		*ret_rows += 1;
		attempts_told(a, now);
	}
	return sum;
}

static void the_first_is_told_at_once_and_the_same_once_a_second(void **state) {
	static struct attempts a;
	struct guard_attempt cat = attempt_of(7, "a.jpg");
	int64_t now = NS_PER_SECOND;
	size_t rows;

	(void)state;
	attempts_init(&a, now);
	assert_null(attempts_next(&a, now));
	attempts_add(&a, &cat, now);
	assert_int_equal(tell(&a, now, &rows), 1);
	for (int i = 0; i < 1000; i++)
		attempts_add(&a, &cat, now + i);
	assert_int_equal(tell(&a, now + NS_PER_SECOND - 1, &rows), 0);
	assert_int_equal(tell(&a, now + NS_PER_SECOND, &rows), 1000);
	assert_int_equal(rows, 1);
	struct guard_attempt other = attempt_of(8, "a.jpg"); /* another process: at once */
	attempts_add(&a, &cat, now + NS_PER_SECOND);
	attempts_add(&a, &other, now + NS_PER_SECOND);
	assert_int_equal(tell(&a, now + NS_PER_SECOND, &rows), 1);
	assert_int_equal(attempts_next(&a, now + 3 * NS_PER_SECOND)->pid, 7);
}

static void what_differs_in_anything_is_another(void **state) {
	static struct attempts a;
	struct guard_attempt first = attempt_of(7, "a");

	(void)state;
	attempts_init(&a, NS_PER_SECOND);
	attempts_add(&a, &first, NS_PER_SECOND);
	for (int i = 0; i < 7; i++) {
		struct guard_attempt b = first;
		b.denied = i != 0;
		b.uid += i == 1;
		b.source = i == 2 ? GUARD_NO_SOURCE : b.source;
		b.dev += i == 3;
		b.ino += i == 4;
		b.path[0] = i == 5 ? 'b' : 'a';
		b.exe[1] = i == 6 ? 'B' : 'b';
		attempts_add(&a, &b, NS_PER_SECOND);
	}
	assert_int_equal(a.count, 8);
}

/* Whatever comes: never more than the rate, and the sum of all that is told is what was added. */
static void a_flood_is_counted_exactly(void **state) {
	static struct attempts a;
	uint64_t added = 0, told = 0, denied, noted;
	size_t rows = 0, all_rows = 0;
	uint32_t random = 1;
	int64_t start = NS_PER_SECOND, now = start;

	(void)state;
	attempts_init(&a, now);
	for (int i = 0; i < 100000; i++) {
		random = random * 1664525 + 1013904223;
		struct guard_attempt one = attempt_of(random >> 22, random >> 31 ? "a" : "b");
		one.denied = (random >> 8 & 1) != 0;
		attempts_add(&a, &one, now);
		added++;
		now += 100 * 1000;
		told += tell(&a, now, &rows);
		all_rows += rows;
		assert_true(a.count <= ATTEMPTS_SLOTS);
	}
	uint64_t most =
		ATTEMPTS_BURST + (uint64_t)((now - start) / NS_PER_SECOND + 1) * ATTEMPTS_A_SECOND;
	assert_true(all_rows <= most);
	assert_true(all_rows > most / 2);
	for (int i = 0; i < 100; i++) {
		now += NS_PER_SECOND;
		told += tell(&a, now, &rows);
	}
	assert_true(attempts_more(&a, &denied, &noted));
	assert_true(denied > 0 && noted > 0);
	assert_int_equal(told + denied + noted, added);
	assert_false(attempts_more(&a, &denied, &noted));
}

int main(void) {
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_first_is_told_at_once_and_the_same_once_a_second),
		cmocka_unit_test(what_differs_in_anything_is_another),
		cmocka_unit_test(a_flood_is_counted_exactly),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
