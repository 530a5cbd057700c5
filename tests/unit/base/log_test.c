/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
/* cmocka.h needs these above */
#include <cmocka.h>

#include "base/check.h"
#include "base/clock.h"
#include "base/log.h"

static int64_t now_ns = 1000 * NS_PER_SECOND;

int64_t __wrap_clock_boot_ns(void); /* the linker puts it in the place of clock_boot_ns() */

int64_t __wrap_clock_boot_ns(void) {
	return now_ns;
}

static char said[1 << 20];

/* Runs fn with standard error in memory; what it said is in said. */
static void listen_to(void (*fn)(void)) {
	int before = dup(STDERR_FILENO);
	int memory = memfd_create("log", MFD_CLOEXEC);

	assert_true(before >= 0 && memory >= 0);
	assert_true(dup2(memory, STDERR_FILENO) >= 0);
	fn();
	assert_true(dup2(before, STDERR_FILENO) >= 0);
	ssize_t n = pread(memory, said, sizeof said - 1, 0);
	assert_true(n >= 0);
	said[n] = 0;
	(void)close(memory);
	(void)close(before);
}

static size_t lines(const char *with) {
	size_t n = 0;

	for (const char *at = said; (at = strstr(at, with)) != NULL; at++)
		n++;
	return n;
}

static void flood(void) {
	for (int i = 0; i < 1000; i++)
		log_event(LOG_LEVEL_WARNING, "test.flood", "number=%d", i);
	log_event(LOG_LEVEL_WARNING, "test.other", "number=1");
	log_flush(); /* not yet */
}

static void a_flood_is_limited_and_counted(void **state) {
	(void)state;
	log_setup("cede", LOG_LEVEL_INFO);
	listen_to(flood);
	assert_int_equal(lines("test.flood"), 50);
	assert_int_equal(lines("test.other"), 1); /* others are not */
	assert_int_equal(lines("log.limited"), 0);
	now_ns += 11 * NS_PER_SECOND;
	listen_to(log_flush);
	assert_string_equal(said, "cede: warning: log.limited event=test.flood lines=950\n");
	listen_to(log_flush);
	assert_string_equal(said, ""); /* once */
}

static void again(void) {
	log_event(LOG_LEVEL_WARNING, "test.flood", "number=again");
}

static void the_next_line_says_it_as_well(void **state) {
	(void)state;
	now_ns += 11 * NS_PER_SECOND;
	listen_to(flood);
	now_ns += 11 * NS_PER_SECOND;
	listen_to(again);
	assert_string_equal(said, "cede: warning: test.flood number=again left_out=950\n");
}

static void levels_and_lies(void) {
	log_event(LOG_LEVEL_DEBUG, "test.debug", "x=1");
	log_event(LOG_LEVEL_ERROR, "test.lie", "error=\"%s\"", "a\ncede: info: agent.ready\033[2J");
}

static void a_line_stays_a_line(void **state) {
	(void)state;
	now_ns += 11 * NS_PER_SECOND;
	listen_to(levels_and_lies);
	assert_string_equal(said, "cede: error: test.lie error=\"a?cede: info: agent.ready?[2J\"\n");
}

static void a_line_for_the_journal_has_its_priority(void **state) {
	(void)state;
	now_ns += 11 * NS_PER_SECOND;
	assert_int_equal(setenv("JOURNAL_STREAM", "8:1", 1), 0);
	log_setup("cede", LOG_LEVEL_DEBUG);
	listen_to(levels_and_lies);
	assert_int_equal(unsetenv("JOURNAL_STREAM"), 0);
	log_setup("cede", LOG_LEVEL_INFO);
	assert_string_equal(said,
		"<7>cede: debug: test.debug x=1\n"
		"<3>cede: error: test.lie error=\"a?cede: info: agent.ready?[2J\"\n");
}

int main(void) {
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_flood_is_limited_and_counted),
		cmocka_unit_test(the_next_line_says_it_as_well),
		cmocka_unit_test(a_line_stays_a_line),
		cmocka_unit_test(a_line_for_the_journal_has_its_priority),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
