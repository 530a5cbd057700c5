/* SPDX-License-Identifier: Apache-2.0 */
#include "formats/statement.h"

bool statement_value_valid(struct slice v) {
	if (v.len == 0 || v.len > STATEMENT_VALUE_MAX || v.data[0] == ' ' || v.data[v.len - 1] == ' ')
		return false;
	for (size_t i = 0; i < v.len; i++)
		if (v.data[i] < ' ' || v.data[i] > '~')
			return false;
	return true;
}

int statement_write(const char *type, const struct statement_field *fields, size_t count,
	struct buf *out, struct cede_error *reterr) {
	CEDE_TRY(buf_add_str(out, type, reterr));
	CEDE_TRY(buf_add_str(out, "\n", reterr));
	for (size_t i = 0; i < count; i++) {
		if (!statement_value_valid(fields[i].value))
			return CEDE_FAIL(reterr, CEDE_ERR_INPUT,
				"%s: \"%.*s\": 1 to %d characters of printable ASCII expected, without a space at an end",
				fields[i].key,
				(int)(fields[i].value.len < 160 ? fields[i].value.len : 160),
				(const char *)fields[i].value.data, STATEMENT_VALUE_MAX);
		CEDE_TRY(buf_add_str(out, fields[i].key, reterr));
		CEDE_TRY(buf_add_str(out, ": ", reterr));
		CEDE_TRY(buf_add(out, fields[i].value.data, fields[i].value.len, reterr));
		CEDE_TRY(buf_add_str(out, "\n", reterr));
	}
	return CEDE_OK;
}

/* "key: value" -> value */
static bool read_line(struct slice line, const char *key, struct slice *ret_value) {
	size_t len = strlen(key);

	if (!slice_starts(line, key) || line.len < len + 2 || line.data[len] != ':' ||
		line.data[len + 1] != ' ')
		return false;
	*ret_value = slice_of(line.data + len + 2, line.len - len - 2);
	return statement_value_valid(*ret_value);
}

int statement_read(struct slice text, const char *type, struct statement_field *fields,
	size_t count, struct cede_error *reterr) {
	struct slice line, rest = text;

	if (!slice_cut(rest, '\n', &line, &rest) || !slice_is(line, type))
		return CEDE_FAIL(reterr, CEDE_ERR_INPUT, "line 1: \"%s\" expected", type);
	for (size_t i = 0; i < count; i++)
		if (!slice_cut(rest, '\n', &line, &rest) ||
			!read_line(line, fields[i].key, &fields[i].value))
			return CEDE_FAIL(reterr, CEDE_ERR_INPUT, "line %zu: \"%s: …\" expected",
				i + 2, fields[i].key);
	if (rest.len > 0)
		return CEDE_FAIL(reterr, CEDE_ERR_INPUT, "line %zu: the end expected", count + 2);
	return CEDE_OK;
}
