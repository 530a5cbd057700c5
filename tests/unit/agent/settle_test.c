/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <stdlib.h>

#include "agent/watch/settle.h"
#include "tests/unit/unit.h"

static struct settle *make(void) {
	struct settle *s = NULL;
	struct cede_error err;

	assert_int_equal(settle_new(&s, &err), CEDE_OK);
	return s;
}

static void add(struct settle *s, size_t source, const char *path, int64_t due) {
	struct cede_error err;

	assert_int_equal(settle_add(s, source, path, due, &err), CEDE_OK);
}

static void expect(struct settle *s, int64_t now, size_t source, const char *path) {
	size_t got_source;
	char *got;

	assert_true(settle_take(s, now, &got_source, &got));
	assert_int_equal(got_source, source);
	assert_string_equal(got, path);
	free(got);
}

static void names_come_in_order_of_their_due_time(void **state) {
	struct settle *s = make();
	size_t source;
	char *path;

	(void)state;
	add(s, 0, "c", 30);
	add(s, 0, "a", 10);
	add(s, 1, "a", 20);
	assert_int_equal(settle_next(s), 10);
	assert_false(settle_take(s, 9, &source, &path));
	expect(s, 100, 0, "a");
	expect(s, 100, 1, "a");
	expect(s, 100, 0, "c");
	assert_int_equal(settle_next(s), INT64_MAX);
	settle_free(s);
}

static void asking_again_moves_the_due_time_both_ways(void **state) {
	struct settle *s = make();

	(void)state;
	add(s, 0, "a", 10);
	add(s, 0, "b", 20);
	add(s, 0, "a", 30);
	assert_int_equal(settle_count(s), 2);
	expect(s, 100, 0, "b");
	add(s, 0, "c", 25);
	add(s, 0, "a", 5);
	expect(s, 100, 0, "a");
	expect(s, 100, 0, "c");
	settle_free(s);
}

static void it_is_bounded_and_says_so(void **state) {
	struct settle *s = make();
	struct cede_error err;
	char path[32];

	(void)state;
	for (int i = 0; i < SETTLE_MAX; i++) {
		(void)snprintf(path, sizeof path, "n%d", i);
		add(s, 0, path, (int64_t)i * 7919 % SETTLE_MAX);
	}
	assert_int_equal(settle_add(s, 0, "one more", 1, &err), CEDE_ERR_BUSY);
	add(s, 0, "n7", 99); /* a known name still moves */
	int64_t last = -1;
	size_t source;
	char *got;
	size_t n = 0;
	while (settle_next(s) != INT64_MAX) {
		int64_t due = settle_next(s);
		assert_true(due >= last);
		last = due;
		assert_true(settle_take(s, INT64_MAX, &source, &got));
		free(got);
		n++;
	}
	assert_int_equal(n, SETTLE_MAX);
	settle_free(s);
}

int main(void) {
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(names_come_in_order_of_their_due_time),
		cmocka_unit_test(asking_again_moves_the_due_time_both_ways),
		cmocka_unit_test(it_is_bounded_and_says_so),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
