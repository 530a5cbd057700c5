/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "base/cleanup.h"
#include "base/yaml.h"
#include "tests/unit/mistakes.h"
#include "tests/unit/unit.h"

struct broken {
	const char *text;
	size_t len; /* 0: strlen(text) */
	const char *mistake;
};

static char **lines_of(struct slice text) {
	struct yaml *y = NULL;
	struct cede_error err;
	size_t count;

	assert_int_equal(yaml_parse(text, "f.yaml", &y, &err), CEDE_OK);
	char **lines = yaml_mistakes(y, &count);
	if (lines != NULL)
		assert_null(yaml_root(y)); /* a broken tree is not walked */
	yaml_free(y);
	return lines;
}

static void broken_texts_are_named_with_their_place(void **state) {
	static const struct broken table[] = {
		{"a: &x 1\nb: 2\n", 0, "f.yaml:1:4: anchors"},
		{"a: 1\nb: *x\n", 0, "f.yaml:2:4:"},
		{"a: !!str 1\n", 0, "f.yaml:1:4: tags"},
		{"a: !x [1]\n", 0, "f.yaml:1:4: tags"},
		{"a: 1\n---\nb: 2\n", 0, "f.yaml:2:1: a second document"},
		{"a: 1\nb: 2\na: 3\n", 0, "f.yaml:3:1: key \"a\" stands here a second time"},
		{"a: {b: 1, b: 2}\n", 0, "f.yaml:1:11: key \"b\""},
		{"a:\n\t- b\n", 0, "f.yaml:2:1: no valid YAML"},
		{"a: [1, 2\n", 0, "f.yaml:2:1: no valid YAML"},
		{"a: \"\\0\"\n", 0, "f.yaml:1:4: a NUL"},
		{"a: \xff\n", 0, "1:4: not UTF-8"},
		{"a: 1\n# \xc3\xa4\nb: \xc3\xa4 \x1b[8m\n", 0,
			"3:6: control characters are not allowed (byte "},
		{"a: \xc3\x28\n", 0, "not UTF-8"},
		{"a: \0b\n", 6, "f.yaml:1:"},
		{"? {a: 1}\n: b\n", 0, "f.yaml:1:3: a key must be"},
		{"", 0, "f.yaml:1:1: the file is empty"},
		{"# only words\n", 0, "f.yaml:1:1: the file is empty"},
		{"[[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]]\n", 0, "f.yaml:1:17: nested deeper than 16"},
		{"a: b: c\n", 0, "f.yaml:1:5: no valid YAML"},
		{"\"\\e[31m\": 1\n\"\\e[31m\": 2\n", 0, "key \"?[31m\" stands"},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_LENGTH(table); i++) {
		size_t len = table[i].len != 0 ? table[i].len : strlen(table[i].text);
		char **lines = lines_of(slice_of(table[i].text, len));

		if (lines == NULL || strstr(lines[0], table[i].mistake) == NULL)
			fail_msg("%s\nsays %s\nnot  %s", table[i].text,
				lines == NULL ? "nothing" : lines[0], table[i].mistake);
		free_lines(lines);
	}
}

static void size_and_nodes_are_bounded(void **state) {
	size_t len = YAML_FILE_MAX + 1;
	char *text = malloc(len);

	(void)state;
	assert_non_null(text);
	memset(text, '#', len);
	char **lines = lines_of(slice_of(text, len));
	assert_non_null(lines);
	assert_non_null(strstr(lines[0], "larger than"));
	free_lines(lines);

	size_t at = 0;
	text[at++] = '[';
	for (size_t i = 0; i <= YAML_NODES_MAX; i++) {
		text[at++] = '1';
		text[at++] = ',';
	}
	text[at++] = ']';
	lines = lines_of(slice_of(text, at));
	assert_non_null(lines);
	assert_non_null(strstr(lines[0], "more than 20000 values"));
	free_lines(lines);
	free(text);
}

static void good_text_is_a_tree_with_places(void **state) {
	static const char text[] = "a: 1\nb:\n  - x\n  - 'null'\nc: {d: 5m, e: 2MiB}\n";
	struct yaml *y = NULL;
	struct cede_error err;
	uint64_t number = 0;
	uint64_t size = 0;
	int64_t ns = 0;

	(void)state;
	assert_int_equal(yaml_parse(SLICE_LIT(text), "f.yaml", &y, &err), CEDE_OK);
	const struct yaml_node *root = yaml_root(y);
	assert_non_null(root);
	assert_true(yaml_get_number(y, root, "a", true, 1, 9, &number));
	assert_int_equal(number, 1);
	const struct yaml_node *list = yaml_get_list(y, root, "b", true);
	assert_non_null(list);
	assert_int_equal(list->first->line, 3);
	assert_int_equal(list->first->column, 5);
	assert_string_equal(yaml_text(y, list->first->next), "null");
	const struct yaml_node *map = yaml_get_map(y, root, "c", true);
	assert_true(yaml_get_duration(y, map, "d", true, &ns));
	assert_int_equal(ns, INT64_C(300000000000));
	assert_true(yaml_get_size(y, map, "e", true, &size));
	assert_int_equal(size, 2 << 20);
	assert_int_equal(yaml_mistake_count(y), 0);
	yaml_free(y);
}

static void all_mistakes_come_in_order_of_place(void **state) {
	static const char text[] = "mach: 1\nnum: x\ntext: null\nempty:\nword: c\nlater: 1\n";
	static const char *const words[] = {"a", "!b", NULL};
	static const char *const known[] = {"match", "num", "text", "empty", "word", "!later", NULL};
	static const char *const expected[] = {
		"f.yaml:1:1: unknown key \"mach\"; did you mean \"match\"?",
		"f.yaml:1:1: key \"missing\" is missing",
		"f.yaml:2:6: num: a whole number expected",
		"f.yaml:3:7: text: a text expected",
		"f.yaml:4:7: empty: a text expected",
		"f.yaml:5:7: word: one of a, b expected, found \"c\"",
		"f.yaml:6:1: later: not supported yet",
	};
	struct yaml *y = NULL;
	struct cede_error err;
	uint64_t number;
	size_t which, count;

	(void)state;
	assert_int_equal(yaml_parse(SLICE_LIT(text), "f.yaml", &y, &err), CEDE_OK);
	const struct yaml_node *root = yaml_root(y);
	assert_false(yaml_get_word(y, root, "word", true, words, &which));
	assert_null(yaml_get_text(y, root, "text", true));
	assert_null(yaml_get_text(y, root, "empty", false));
	assert_false(yaml_get_number(y, root, "num", true, 0, 9, &number));
	yaml_only(y, root, known);
	assert_null(yaml_get(y, root, "missing", true));
	char **lines = yaml_mistakes(y, &count);
	assert_non_null(lines);
	for (size_t i = 0; i < ARRAY_LENGTH(expected) && lines[i] != NULL; i++)
		assert_string_equal(lines[i], expected[i]);
	assert_int_equal(count, ARRAY_LENGTH(expected));
	free_lines(lines);
	yaml_free(y);
}

static void mistakes_beyond_the_maximum_are_said(void **state) {
	struct yaml *y = NULL;
	struct cede_error err;
	size_t count;

	(void)state;
	assert_int_equal(yaml_parse(SLICE_LIT("a: 1\n"), "f.yaml", &y, &err), CEDE_OK);
	for (int i = 0; i < YAML_MISTAKES_MAX + 5; i++)
		yaml_mistake(y, NULL, "number %d", i);
	char **lines = yaml_mistakes(y, &count);
	assert_int_equal(count, YAML_MISTAKES_MAX + 1);
	assert_non_null(strstr(lines[count - 1], "more mistakes"));
	free_lines(lines);
	yaml_free(y);
}

int main(void) {
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(broken_texts_are_named_with_their_place),
		cmocka_unit_test(size_and_nodes_are_bounded),
		cmocka_unit_test(good_text_is_a_tree_with_places),
		cmocka_unit_test(all_mistakes_come_in_order_of_place),
		cmocka_unit_test(mistakes_beyond_the_maximum_are_said),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
