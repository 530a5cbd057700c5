/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "base/cleanup.h"
#include "base/journal.h"
#include "tests/unit/unit.h"

#define HEAD "PRIORITY=6\nSYSLOG_IDENTIFIER=cede\nCEDE_EVENT=bundle.stored\nMESSAGE=bundle.stored "

static void ids_become_fields_and_others_words_do_not(void **state) {
	static const struct {
		const char *words, *fields;
	} table[] = {
		{"", ""},
		{"host=lanes-1 bundle=01a2", "CEDE_HOST=lanes-1\nCEDE_BUNDLE=01a2\n"},
		{"bundle=01a2 error=\"refused\"", "CEDE_BUNDLE=01a2\n"},
		{"bundle=01a2 error=\"x\" bundle=forged", "CEDE_BUNDLE=01a2\n"},
		{"bundle=01a2 error=\"x bundle=forged", "CEDE_BUNDLE=01a2\n"},
		{"bundle=01a2\"bundle=forged", ""},
		{"\"bundle=forged", ""},
		{"left_out=3 spool2=b", "CEDE_LEFT_OUT=3\nCEDE_SPOOL2=b\n"},
		{"Bundle=a b-c=d e.f=g =h i= j k==l", "CEDE_K==l\n"},
		{"a=1  b=2 ", "CEDE_A=1\nCEDE_B=2\n"},
		{"abcdefghijklmnopqrstuvwxyz0123456789=1 b=2", "CEDE_B=2\n"},
		{"message=x priority=0", "CEDE_MESSAGE=x\nCEDE_PRIORITY=0\n"},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_LENGTH(table); i++) {
		CLEANUP(buf_done) struct buf out = BUF_INIT(4096);
		char want[1024];
		const char *got;
		(void)snprintf(want, sizeof want, HEAD "%s\n%s", table[i].words, table[i].fields);
		assert_int_equal(
			journal_fields(&out, 6, "cede", "bundle.stored", table[i].words, NULL),
			CEDE_OK);
		assert_int_equal(buf_string(&out, &got, NULL), CEDE_OK);
		assert_string_equal(got, want);
	}
}

static void what_does_not_fit_is_said_another_way(void **state) {
	CLEANUP(buf_done) struct buf out = BUF_INIT(64);

	(void)state;
	assert_int_not_equal(
		journal_fields(&out, 6, "cede", "bundle.stored", "host=lanes-1", NULL), CEDE_OK);
	assert_false(journal_send(-1, buf_slice(&out)));
}

static void another_stream_is_not_the_journal(void **state) {
	static const char *const table[] = {NULL, "", "1:2", "x", "0:0"};

	(void)state;
	for (size_t i = 0; i < ARRAY_LENGTH(table); i++) {
		if (table[i] == NULL)
			(void)unsetenv("JOURNAL_STREAM");
		else
			(void)setenv("JOURNAL_STREAM", table[i], 1);
		assert_int_equal(journal_open(), -1);
	}
	(void)unsetenv("JOURNAL_STREAM");
}

int main(void) {
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(ids_become_fields_and_others_words_do_not),
		cmocka_unit_test(what_does_not_fit_is_said_another_way),
		cmocka_unit_test(another_stream_is_not_the_journal),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
