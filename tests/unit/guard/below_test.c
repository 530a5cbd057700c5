/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "agent/guard/below.h"
#include "tests/unit/unit.h"

static struct below *below(struct below *parent, const char *name) {
	struct cede_error err;
	struct below *b = NULL;

	assert_int_equal(below_new(parent, name, &b, &err), CEDE_OK);
	return b;
}

static void paths(void **state) {
	struct cede_error err;
	struct below *top;
	char path[PATH_MAX];

	(void)state;
	assert_int_equal(below_top(&top, &err), CEDE_OK);
	struct below *a = below(top, "a");
	struct below *b = below(a, "bc");
	assert_true(below_is_top(top));
	assert_false(below_is_top(a));
	below_drop(top); /* goes with the last that is in it */
	below_drop(a);
	struct below *c = below(b, "d");
	below_path(b, path);
	assert_string_equal(path, "a/bc");
	below_drop(b);
	below_path(c, path);
	assert_string_equal(path, "a/bc/d");
	below_drop(below_use(c));
	below_path(c, path);
	assert_string_equal(path, "a/bc/d");
	below_drop(c);
	below_drop(NULL);
	assert_int_equal(below_top(&top, &err), CEDE_OK);
	below_path(top, path);
	assert_string_equal(path, ".");
	below_drop(top);
}

static void as_long_as_a_path_can_be(void **state) {
	struct cede_error err;
	struct below *at;
	struct below *too_long = NULL;
	char path[PATH_MAX];

	(void)state;
	assert_int_equal(below_top(&at, &err), CEDE_OK);
	for (int i = 0; i < 2048; i++) { /* "a/a/...", 4,095 bytes */
		struct below *next = below(at, "a");
		below_drop(at);
		at = next;
	}
	below_path(at, path);
	assert_int_equal(strlen(path), PATH_MAX - 1);
	assert_string_equal(path + PATH_MAX - 4, "a/a");
	assert_int_equal(below_new(at, "a", &too_long, &err), CEDE_ERR_REFUSED);
	assert_null(too_long);
	below_drop(at);
}

int main(void) {
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(paths),
		cmocka_unit_test(as_long_as_a_path_can_be),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
