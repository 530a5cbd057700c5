/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "agent/core/capture.h"
#include "tests/unit/unit.h"

/* The whole square, as docs/states.md draws it: a row is a state, a letter the states it may go to. */
static const char *const allowed[CAPTURE_STATE_COUNT] = {
	[CAPTURE_READY] = "ready bundled settling wiping gone replaced",
	[CAPTURE_BUNDLED] = "sealed ready settling gone replaced",
	[CAPTURE_SEALED] = "wiping ready replaced gone",
	[CAPTURE_WIPING] = "wiped held kept replaced gone",
	[CAPTURE_WIPED] = "",
	[CAPTURE_SETTLING] = "ready wiping gone replaced",
	[CAPTURE_GONE] = "",
	[CAPTURE_REPLACED] = "",
	[CAPTURE_HELD] = "wiping ready gone replaced",
	[CAPTURE_KEPT] = "wiping ready gone replaced",
};

static bool has_word(const char *list, const char *word) {
	size_t len = strlen(word);

	for (const char *at = list; (at = strstr(at, word)) != NULL; at += len)
		if ((at == list || at[-1] == ' ') && (at[len] == 0 || at[len] == ' '))
			return true;
	return false;
}

static void only_the_moves_of_the_picture_are_allowed(void **state) {
	(void)state;
	for (int from = 0; from < CAPTURE_STATE_COUNT; from++)
		for (int to = 0; to < CAPTURE_STATE_COUNT; to++) {
			bool want =
				has_word(allowed[from], capture_state_name((enum capture_state)to));
			int r = capture_move((enum capture_state)from, (enum capture_state)to, NULL);
			assert_int_equal(r, want ? CEDE_OK : CEDE_ERR_BUG);
		}
}

static void nothing_is_wiped_but_through_wiping(void **state) {
	(void)state;
	for (int from = 0; from < CAPTURE_STATE_COUNT; from++)
		if (from != CAPTURE_WIPING)
			assert_int_equal(capture_move((enum capture_state)from, CAPTURE_WIPED, NULL),
				CEDE_ERR_BUG);
	for (int from = 0; from < CAPTURE_STATE_COUNT; from++)
		if (from != CAPTURE_SEALED && from != CAPTURE_HELD && from != CAPTURE_KEPT &&
			from != CAPTURE_READY && from != CAPTURE_SETTLING) /* the last two: destroy */
			assert_int_equal(capture_move((enum capture_state)from, CAPTURE_WIPING, NULL),
				CEDE_ERR_BUG);
}

static void a_bundle_goes_from_sealed_to_receipted_to_done(void **state) {
	struct cede_error err;

	(void)state;
	assert_int_equal(bundle_move(BUNDLE_SEALED, BUNDLE_RECEIPTED, &err), CEDE_OK);
	assert_int_equal(bundle_move(BUNDLE_RECEIPTED, BUNDLE_DONE, &err), CEDE_OK);
	assert_int_equal(bundle_move(BUNDLE_SEALED, BUNDLE_DONE, &err), CEDE_ERR_BUG);
	assert_int_equal(bundle_move(BUNDLE_RECEIPTED, BUNDLE_ABANDONED, &err), CEDE_ERR_BUG);
	assert_non_null(strstr(err.text, "receipted -> abandoned"));
}

int main(void) {
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(only_the_moves_of_the_picture_are_allowed),
		cmocka_unit_test(nothing_is_wiped_but_through_wiping),
		cmocka_unit_test(a_bundle_goes_from_sealed_to_receipted_to_done),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
