/* SPDX-License-Identifier: Apache-2.0
 * The list of levels and reasons, and docs/wiping.md, which explains each. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent/wipe/levels.h"
#include "base/buf.h"
#include "base/file.h"
#include "tests/unit/unit.h"

static void the_page_explains_each(void **state) {
	struct buf b = BUF_INIT(1 << 20);
	struct cede_error err;
	const char *text;
	char path[4096], row[400];

	(void)state;
	(void)snprintf(path, sizeof path, "%s/docs/wiping.md", getenv("TOP"));
	assert_int_equal(file_load(AT_FDCWD, path, &b, &err), CEDE_OK);
	assert_int_equal(buf_string(&b, &text, &err), CEDE_OK);
	for (int i = 0; i < WIPE_LEVEL_COUNT; i++) {
		const char *at;
		(void)snprintf(row, sizeof row, "| `%s` | ", wipe_level_name((enum wipe_level)i));
		at = strstr(text, row);
		if (at == NULL)
			fail_msg("docs/wiping.md lacks %s", row);
		const char *end = strchr(at, '\n');
		(void)snprintf(row, sizeof row, " | %s |\n", wipe_level_term((enum wipe_level)i));
		if (end == NULL || strstr(at, row) != end + 1 - strlen(row))
			fail_msg("docs/wiping.md says another term than%s", row);
	}
	for (int i = 0; i < WIPE_REASON_COUNT; i++) {
		const char *at;
		/* behind the sentence it may say more */
		(void)snprintf(row, sizeof row, "| `%s` | %s", wipe_reason_name((enum wipe_reason)i),
			wipe_reason_text((enum wipe_reason)i));
		at = strstr(text, row);
		if (at == NULL)
			fail_msg("docs/wiping.md lacks %s", row);
		(void)snprintf(row, sizeof row, " | `%s` |\n",
			wipe_level_name(wipe_best(UINT32_C(1) << i)));
		if (strstr(at, row) == NULL || strstr(at, row) > strchr(at, '\n'))
			fail_msg("docs/wiping.md says another level for %s",
				wipe_reason_name((enum wipe_reason)i));
	}
	buf_done(&b);
}

static void the_worst_reason_decides(void **state) {
	static const struct {
		wipe_reasons reasons, decisive;
		enum wipe_level best;
	} cases[] = {
		{0, 0, WIPE_OVERWRITTEN_WATCHED},
		{WIPE_BIT(HISTORY_UNKNOWN), WIPE_BIT(HISTORY_UNKNOWN), WIPE_OVERWRITTEN_CURRENT},
		{WIPE_BIT(HISTORY_UNKNOWN) | WIPE_BIT(MOVED), WIPE_BIT(MOVED), WIPE_UNPROVEN},
		{WIPE_BIT(MOVED) | WIPE_BIT(DATA_JOURNALLED),
			WIPE_BIT(MOVED) | WIPE_BIT(DATA_JOURNALLED), WIPE_UNPROVEN},
	};

	char text[WIPE_REASONS_SIZE];

	(void)state;
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		assert_int_equal(wipe_best(cases[i].reasons), cases[i].best);
		assert_int_equal(wipe_decisive(cases[i].reasons), cases[i].decisive);
	}
	wipe_reasons_print(cases[3].reasons, text);
	assert_string_equal(text, "data-journalled,moved");
	wipe_reasons_print(0, text);
	assert_string_equal(text, "");
	/* all at once still fit */
	wipe_reasons_print((wipe_reasons)((UINT64_C(1) << WIPE_REASON_COUNT) - 1), text);
	assert_true(strlen(text) < WIPE_REASONS_SIZE);
}

static void no_overwriting_meets_what_only_a_key_can(void **state) {
	(void)state;
	assert_true(wipe_best(0) < wipe_required(WIPE_REQUIRE_CRYPTO_ERASED));
	assert_true(wipe_best(0) >= wipe_required(WIPE_REQUIRE_WATCHED));
	assert_true(wipe_best(WIPE_BIT(HISTORY_UNKNOWN)) < wipe_required(WIPE_REQUIRE_WATCHED));
	assert_true(wipe_best(WIPE_BIT(HISTORY_UNKNOWN)) >= wipe_required(WIPE_REQUIRE_OVERWRITTEN));
	assert_true(wipe_best(WIPE_BIT(MOVED)) < wipe_required(WIPE_REQUIRE_OVERWRITTEN));
	assert_true(wipe_best(WIPE_BIT(MOVED)) >= wipe_required(WIPE_REQUIRE_NONE));
}

int main(void) {
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_page_explains_each),
		cmocka_unit_test(the_worst_reason_decides),
		cmocka_unit_test(no_overwriting_meets_what_only_a_key_can),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
