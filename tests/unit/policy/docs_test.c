/* SPDX-License-Identifier: Apache-2.0
 * docs/policy.md explains every reason, and every key that the loader knows. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "base/file.h"
#include "policy/decide.h"
#include "tests/unit/unit.h"

static void load(const char *name, struct buf *b, const char **ret) {
	struct cede_error err;
	char path[4096];

	(void)snprintf(path, sizeof path, "%s/%s", getenv("TOP"), name);
	if (file_load(AT_FDCWD, path, b, &err) < 0)
		fail_msg("%s", err.text);
	assert_int_equal(buf_string(b, ret, &err), CEDE_OK);
}

static void every_reason_is_explained(void **state) {
	struct buf b = BUF_INIT(1 << 20);
	const char *text;

	(void)state;
	load("docs/policy.md", &b, &text);
	for (size_t i = 0; i < REASON_COUNT; i++) {
		char marked[64];

		(void)snprintf(marked, sizeof marked, "`%s`%s", reason_name((enum reason)i),
			reason_is_finding((enum reason)i) ? "*" : "");
		if (strstr(text, marked) == NULL)
			fail_msg("docs/policy.md lacks %s", marked);
	}
	buf_done(&b);
}

/* The words between quotes of the "..._keys[] = {" lists in a source file; how many. */
static size_t keys_are_explained(const char *file) {
	struct buf code = BUF_INIT(1 << 20);
	struct buf docs = BUF_INIT(1 << 20);
	const char *source, *text;
	size_t keys = 0;

	load(file, &code, &source);
	load("docs/policy.md", &docs, &text);
	for (const char *list = source; (list = strstr(list, "_keys[] = {")) != NULL; list++) {
		const char *end = strchr(list, ';');
		const char *at = list;

		while ((at = strchr(at, '"')) != NULL && at < end) {
			const char *close = strchr(at + 1, '"');
			char row[64];

			(void)snprintf(row, sizeof row, "| `%.*s` |", (int)(close - at - 1), at + 1);
			if (at[1] != '!' && strstr(text, row) == NULL)
				fail_msg("docs/policy.md lacks %s", row);
			keys += at[1] != '!';
			at = close + 1;
		}
	}
	buf_done(&code);
	buf_done(&docs);
	return keys;
}

static void every_key_is_explained(void **state) {
	(void)state;
	assert_true(keys_are_explained("policy/load.c") >= 30); /* the lists were found */
	assert_true(keys_are_explained("policy/load_guard.c") == 4);
	assert_true(keys_are_explained("policy/load_sandbox.c") == 1);
}

int main(void) {
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_reason_is_explained),
		cmocka_unit_test(every_key_is_explained),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
