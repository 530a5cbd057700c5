/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "base/check.h"
#include "base/cleanup.h"
#include "formats/detail.h"
#include "tests/unit/unit.h"

static void values_come_back_as_they_were(void **state) {
	static const char *const values[] = {
		"", "a", "lane 1/\xff\n\"\\%=.jpg", "%41", "100%", "=", "é"};

	(void)state;
	for (size_t i = 0; i < ARRAY_LENGTH(values); i++) {
		CLEANUP(buf_done) struct buf detail = BUF_INIT(1000);
		CLEANUP(buf_done) struct buf out = BUF_INIT(1000);
		struct slice raw;
		int64_t n;
		assert_int_equal(detail_add_i64(&detail, "row", -7, NULL), CEDE_OK);
		assert_int_equal(detail_add(&detail, "path", slice_str(values[i]), NULL), CEDE_OK);
		assert_int_equal(detail_add_i64(&detail, "size", INT64_MAX, NULL), CEDE_OK);
		for (size_t k = 0; k < detail.len; k++)
			assert_true(detail.data[k] >= 0x20 && detail.data[k] < 0x7f);
		assert_true(detail_find(buf_slice(&detail), "path", &raw));
		assert_int_equal(detail_decode(raw, &out, NULL), CEDE_OK);
		assert_true(slice_is(buf_slice(&out), values[i]));
		assert_int_equal(detail_i64(buf_slice(&detail), "row", &n, NULL), CEDE_OK);
		assert_int_equal(n, -7);
		assert_int_equal(detail_i64(buf_slice(&detail), "size", &n, NULL), CEDE_OK);
		assert_true(n == INT64_MAX);
		assert_false(detail_find(buf_slice(&detail), "ath", &raw));
	}
}

static void what_is_not_written_so_is_refused(void **state) {
	static const char *const values[] = {
		"%", "%4", "%41", "%4G", "%FF", "\"", "\\", "\xff", "\t"};
	static const char *const numbers[] = {
		"n=", "n=01", "n=-0", "n=--1", "n=9223372036854775808", "m=1"};

	(void)state;
	for (size_t i = 0; i < ARRAY_LENGTH(values); i++) {
		CLEANUP(buf_done) struct buf out = BUF_INIT(100);
		assert_int_equal(detail_decode(slice_str(values[i]), &out, NULL), CEDE_ERR_INPUT);
	}
	for (size_t i = 0; i < ARRAY_LENGTH(numbers); i++) {
		int64_t n;
		assert_int_equal(detail_i64(slice_str(numbers[i]), "n", &n, NULL), CEDE_ERR_INPUT);
	}
}

static void rows_are_ranges(void **state) {
	static const struct {
		uint64_t rows[8];
		const char *text;
	} cases[] = {
		{{1}, "1"},
		{{1, 2, 3}, "1-3"},
		{{3, 4, 9, 7, 8}, "3-4,9,7-8"},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_LENGTH(cases); i++) {
		CLEANUP(buf_done) struct buf out = BUF_INIT(100);
		struct detail_rows rows = {0};
		size_t n = 0;
		for (; cases[i].rows[n] != 0; n++)
			assert_int_equal(
				detail_rows_add(&rows, &out, cases[i].rows[n], NULL), CEDE_OK);
		assert_int_equal(detail_rows_end(&rows, &out, NULL), CEDE_OK);
		assert_true(slice_is(buf_slice(&out), cases[i].text));
		struct slice rest = buf_slice(&out);
		for (size_t k = 0; rest.len > 0;) {
			uint64_t from, to;
			assert_int_equal(detail_rows_next(&rest, &from, &to, NULL), CEDE_OK);
			for (; from <= to; from++)
				assert_int_equal(cases[i].rows[k++], from);
		}
	}
}

static void bad_lists_are_refused(void **state) {
	static const char *const rows[] = {"0", "1,", ",1", "2-1", "1-1", "1-", "-1", "1-2-3", "a",
		"1 ", "9223372036854775808"};
	static const char *const members[] = {"1", "1:", ":AAAA", "1:AAAA",
		"0:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=",
		"1:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=,",
		"1:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAB="};

	(void)state;
	for (size_t i = 0; i < ARRAY_LENGTH(rows); i++) {
		struct slice rest = slice_str(rows[i]);
		uint64_t from, to;
		int r = CEDE_OK;
		while (r == CEDE_OK && rest.len > 0)
			r = detail_rows_next(&rest, &from, &to, NULL);
		assert_int_equal(r, CEDE_ERR_INPUT);
	}
	for (size_t i = 0; i < ARRAY_LENGTH(members); i++) {
		struct slice rest = slice_str(members[i]);
		uint8_t sha256[32];
		uint64_t row;
		int r = CEDE_OK;
		while (r == CEDE_OK && rest.len > 0)
			r = detail_member_next(&rest, &row, sha256, NULL);
		assert_int_equal(r, CEDE_ERR_INPUT);
	}
}

static void members_come_back(void **state) {
	CLEANUP(buf_done) struct buf out = BUF_INIT(200);
	uint8_t one[32] = {1}, two[32] = {2}, got[32];
	uint64_t row;

	(void)state;
	assert_int_equal(detail_member_add(&out, 17, one, NULL), CEDE_OK);
	assert_int_equal(detail_member_add(&out, 5, two, NULL), CEDE_OK);
	struct slice rest = buf_slice(&out);
	assert_int_equal(detail_member_next(&rest, &row, got, NULL), CEDE_OK);
	assert_int_equal(row, 17);
	assert_memory_equal(got, one, 32);
	assert_int_equal(detail_member_next(&rest, &row, got, NULL), CEDE_OK);
	assert_int_equal(row, 5);
	assert_memory_equal(got, two, 32);
	assert_int_equal(rest.len, 0);
}

int main(void) {
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(values_come_back_as_they_were),
		cmocka_unit_test(what_is_not_written_so_is_refused),
		cmocka_unit_test(rows_are_ranges),
		cmocka_unit_test(bad_lists_are_refused),
		cmocka_unit_test(members_come_back),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
