/* SPDX-License-Identifier: Apache-2.0 */
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "agent/guard/who.h"
#include "base/check.h"
#include "base/cleanup.h"
#include "tests/unit/unit.h"

static void the_effective_user_is_found(void **state) {
	static const struct {
		const char *text;
		uint32_t uid;
	} cases[] = {
		{"Name:\tcat\nUmask:\t0022\nUid:\t1000\t33\t1000\t1000\nGid:\t0\t0\t0\t0\n", 33},
		{"Name:\tcat\nUid:\t0\t0\t0\t0\n", 0},
		{"Name:\tcat\nUid:\t0\t4294967294\t0\t0\n", UINT32_MAX - 1},
		{"Name:\tUid:\t0\t0\n", UINT32_MAX}, /* not at the beginning of a line */
		{"Name:\ta\nUid:\t5\n", UINT32_MAX},
		{"Name:\ta\nUid:\t5\tx\n", UINT32_MAX},
		{"Name:\ta\nUid:\t5\t4294967296\t0\n", UINT32_MAX},
		{"Name:\ta\nUid:\t5\t-1\t0\n", UINT32_MAX},
		{"", UINT32_MAX},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_LENGTH(cases); i++)
		if (who_uid_in(cases[i].text) != cases[i].uid)
			fail_msg("case %zu: %u", i, who_uid_in(cases[i].text));
}

static void a_process_is_known_by_its_program(void **state) {
	CLEANUP(fd_closep) int proc = -1;
	struct cede_error err;
	struct stat st;
	char name[4096];

	(void)state;
	assert_int_equal(who_open(&proc, &err), CEDE_OK);
	assert_int_equal(stat("/proc/self/exe", &st), 0);
	struct who who = who_is(proc, getpid());
	assert_true(who.dev == st.st_dev && who.ino == st.st_ino);
	assert_int_equal(who.uid, geteuid());
	who_program(proc, getpid(), name, sizeof name);
	assert_non_null(strstr(name, "guard_who_test"));
	/* a kernel thread, a number of no process, a process of a namespace that is not ours */
	for (pid_t pid = -1; pid <= 2; pid += pid == 0 ? 2 : 1) {
		who = who_is(proc, pid);
		assert_true(who.ino == 0 && who.dev == 0);
		who_program(proc, pid, name, sizeof name);
		if (pid != 2 || geteuid() != 0)
			assert_string_equal(name, "?");
	}
}

int main(void) {
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_effective_user_is_found),
		cmocka_unit_test(a_process_is_known_by_its_program),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
