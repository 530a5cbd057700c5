/* SPDX-License-Identifier: Apache-2.0
 * The YAML project's own test suite through the loader (tests/data/yaml-test-suite): each document
 * is accepted or refused cleanly, what is accepted is what the suite says it is, and a list of
 * outcomes shows every change. */
#include <fcntl.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/yaml.h"
#include "policy/policy.h"
#include "tests/unit/unit.h"

#define CASES_LEAST 400

static void load(const char *name, struct buf *b, const char **ret) {
	struct cede_error err;
	char path[4096];

	(void)snprintf(path, sizeof path, "%s/tests/data/yaml-test-suite/%s", getenv("TOP"), name);
	if (file_load(AT_FDCWD, path, b, &err) < 0)
		fail_msg("%s", err.text);
	assert_int_equal(buf_string(b, ret, &err), CEDE_OK);
}

static size_t lines_in(const char *text) {
	size_t n = 1;

	for (const char *c = text; *c != 0; c++)
		n += *c == '\n';
	return n;
}

/* Whether our tree is the suite's JSON: maps, lists and texts. A scalar that JSON has as a number,
 * a truth value or null is text for us. */
static bool same(const struct yaml_node *n, const json_t *j) {
	size_t i = 0;

	if (n == NULL)
		return json_is_null(j);
	if (json_is_object(j)) {
		if (n->kind != YAML_MAP)
			return false;
		for (const struct yaml_node *m = n->first; m != NULL; m = m->next, i++) {
			const json_t *value = json_object_get(j, m->key->text);
			if (value == NULL || !same(m, value))
				return false;
		}
		return i == json_object_size(j);
	}
	if (json_is_array(j)) {
		if (n->kind != YAML_LIST)
			return false;
		for (const struct yaml_node *m = n->first; m != NULL; m = m->next, i++)
			if (i >= json_array_size(j) || !same(m, json_array_get(j, i)))
				return false;
		return i == json_array_size(j);
	}
	return n->kind == YAML_SCALAR &&
		(!json_is_string(j) || strcmp(n->text, json_string_value(j)) == 0);
}

/* A mistake "f.yaml:LINE:COLUMN: text" whose place is in the document, or right behind it. */
static void check_place(const char *id, const char *line, const char *yaml) {
	unsigned row, column;
	int used = 0;

	if (sscanf(line, "f.yaml:%u:%u: %n", &row, &column, &used) != 2 || used == 0)
		fail_msg("%s: no place: %s", id, line);
	if (row == 0 || column == 0 || row > lines_in(yaml) + 1)
		fail_msg("%s: no place in the document: %s", id, line);
}

static void check_policy(const char *id, const char *yaml) {
	struct policy_mistakes mistakes;
	struct policy *p = NULL;
	struct cede_error err;

	if (policy_parse(slice_str(yaml), "f.yaml", &p, &mistakes, &err) != CEDE_ERR_INPUT)
		fail_msg("%s: is no policy, and was taken for one", id);
	assert_true(mistakes.count > 0);
	for (size_t i = 0; i < mistakes.count; i++)
		check_place(id, mistakes.lines[i], yaml);
	policy_mistakes_done(&mistakes);
}

static void one_case(const json_t *c, struct buf *outcomes) {
	const char *id = json_string_value(json_object_get(c, "id"));
	const char *yaml = json_string_value(json_object_get(c, "yaml"));
	const char *wanted = json_string_value(json_object_get(c, "json"));
	struct yaml *y = NULL;
	struct cede_error err;
	size_t count = 0;

	assert_non_null(yaml);
	assert_int_equal(yaml_parse(slice_str(yaml), "f.yaml", &y, &err), CEDE_OK);
	char **lines = yaml_mistakes(y, &count);
	if (count == 0) {
		json_t *j = wanted == NULL
			? NULL
			: json_loads(wanted, JSON_DECODE_ANY | JSON_DISABLE_EOF_CHECK, NULL);
		bool otherwise = j != NULL && !same(yaml_root(y), j);
		json_decref(j);
		const char *how = json_is_true(json_object_get(c, "fail"))
			? " although it is no YAML 1.2"
			: otherwise ? " and read otherwise than YAML 1.2 does"
				    : "";
		assert_int_equal(buf_addf(outcomes, &err, "%s accepted%s\n", id, how), CEDE_OK);
	} else {
		check_place(id, lines[0], yaml);
		assert_int_equal(buf_addf(outcomes, &err, "%s refused %s\n", id,
					 lines[0] + strlen("f.yaml:")),
			CEDE_OK);
	}
	for (size_t i = 0; lines != NULL && lines[i] != NULL; i++)
		free(lines[i]);
	free(lines);
	yaml_free(y);
	check_policy(id, yaml);
}

static void each_case_is_accepted_or_refused_cleanly(void **state) {
	struct buf cases = BUF_INIT(1 << 20);
	struct buf golden = BUF_INIT(1 << 20);
	struct buf outcomes = BUF_INIT(1 << 20);
	const char *text, *want, *now;
	struct cede_error err;
	size_t n = 0;

	(void)state;
	load("cases.jsonl", &cases, &text);
	load("outcomes.txt", &golden, &want);
	for (const char *at = text; *at != 0; n++) {
		const char *end = strchr(at, '\n');
		assert_non_null(end);
		json_t *c = json_loadb(at, (size_t)(end - at), JSON_ALLOW_NUL, NULL);
		assert_non_null(c);
		one_case(c, &outcomes);
		json_decref(c);
		at = end + 1;
	}
	assert_true(n >= CASES_LEAST);
	assert_int_equal(buf_string(&outcomes, &now, &err), CEDE_OK);
	if (strcmp(now, want) != 0) {
		(void)fputs(now, stderr); /* fail_msg() has no room for it */
		fail_msg("tests/data/yaml-test-suite/outcomes.txt says otherwise; the outcomes are now as above");
	}
	buf_done(&cases);
	buf_done(&golden);
	buf_done(&outcomes);
}

int main(void) {
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(each_case_is_accepted_or_refused_cleanly)};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
