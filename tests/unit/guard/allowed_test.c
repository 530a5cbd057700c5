/* SPDX-License-Identifier: Apache-2.0 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "agent/guard/allowed.h"
#include "base/check.h"
#include "base/log.h"
#include "tests/unit/unit.h"

static char folder[64];
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static int make_folder(void **state) {
	(void)state;
	log_setup("test", LOG_LEVEL_ERROR);
	(void)snprintf(folder, sizeof folder, "/tmp/cede-allowed-XXXXXX");
	return mkdtemp(folder) == NULL ? -1 : 0;
}

static int remove_folder(void **state) {
	static const char *const names[] = {"camera", "new", "open/camera", "open", "link"};
	char path[128];

	(void)state;
	for (size_t i = 0; i < ARRAY_LENGTH(names); i++) {
		(void)snprintf(path, sizeof path, "%s/%s", folder, names[i]);
		if (unlink(path) < 0)
			(void)rmdir(path);
	}
	return rmdir(folder);
}

static const char *below(const char *name) {
	static char path[128];

	(void)snprintf(path, sizeof path, "%s/%s", folder, name);
	return path;
}

static struct who make(const char *name, mode_t mode) {
	struct stat st;

	int fd = openat(AT_FDCWD, below(name), O_WRONLY | O_CREAT, mode);
	assert_true(fd >= 0);
	assert_int_equal(fchmod(fd, mode), 0);
	assert_int_equal(fstat(fd, &st), 0);
	(void)close(fd);
	return (struct who){.pid = 1, .dev = st.st_dev, .ino = st.st_ino, .uid = 7};
}

static void needs_root(void) {
	if (geteuid() != 0)
		skip(); /* only what root alone can change is taken */
}

static void a_program_and_its_user(void **state) {
	static struct allowed a;
	struct cede_error err;

	(void)state;
	needs_root();
	a = (struct allowed){0};
	assert_int_equal(allowed_add(&a, "lp", below("camera"), &err), CEDE_OK);
	assert_int_equal(allowed_find_users(&a, &err), CEDE_OK);
	allowed_refresh(&a, &lock);
	assert_int_equal(allowed_missing(&a), 1);
	struct who camera = make("camera", 0755);
	assert_false(allowed_has(&a, &camera)); /* not looked at yet */
	allowed_refresh(&a, &lock);
	assert_int_equal(allowed_missing(&a), 0);
	assert_true(allowed_has(&a, &camera));
	struct who other = camera;
	other.uid = 0;
	assert_false(allowed_has(&a, &other));
	other = camera;
	other.ino++;
	assert_false(allowed_has(&a, &other));
	other = (struct who){.uid = 7}; /* not known */
	assert_false(allowed_has(&a, &other));
	allowed_done(&a);
}

static void a_user_must_be_there(void **state) {
	static struct allowed a;
	struct cede_error err;

	(void)state;
	a = (struct allowed){0};
	assert_int_equal(allowed_add(&a, "no-such-user", "/bin/cat", &err), CEDE_OK);
	assert_int_equal(allowed_find_users(&a, &err), CEDE_ERR_INPUT);
	assert_non_null(strstr(err.text, "no-such-user"));
	struct who unknown = {.uid = UINT32_MAX};
	assert_false(allowed_has(&a, &unknown));
	allowed_done(&a);
}

/* The file that was replaced stays open here: its inode is nobody else's while it is allowed. */
static void after_an_upgrade_both_are_allowed(void **state) {
	static struct allowed a;
	struct cede_error err;
	struct who seen[8];
	char new[128];

	(void)state;
	needs_root();
	a = (struct allowed){0};
	assert_int_equal(allowed_add(&a, "lp", below("camera"), &err), CEDE_OK);
	assert_int_equal(allowed_find_users(&a, &err), CEDE_OK);
	for (size_t i = 0; i < ARRAY_LENGTH(seen); i++) {
		seen[i] = make("new", 0755);
		(void)snprintf(new, sizeof new, "%s", below("new"));
		assert_int_equal(renameat(AT_FDCWD, new, AT_FDCWD, below("camera")), 0);
		allowed_refresh(&a, &lock);
		for (size_t k = 0; k <= i; k++) {
			bool again = false; /* what is let go of may be another file's inode now */
			for (size_t n = k + 1; n <= i; n++)
				again = again || seen[n].ino == seen[k].ino;
			assert_false(again && k + ALLOWED_FORMER > i);
			assert_int_equal(allowed_has(&a, &seen[k]), again || k + ALLOWED_FORMER > i);
		}
	}
	assert_int_equal(unlink(below("camera")), 0);
	allowed_refresh(&a, &lock);
	assert_int_equal(allowed_missing(&a), 1);
	assert_true(allowed_has(&a, &seen[7])); /* in the midst of an upgrade */
	allowed_done(&a);
}

static void what_others_can_change_is_not_taken(void **state) {
	static const struct {
		mode_t file, directory;
		uid_t owner;
		bool good;
	} cases[] = {
		{0755, 0755, 0, true},
		{0500, 0700, 0, true},
		{0775, 0755, 0, false},
		{0757, 0755, 0, false},
		{0755, 0775, 0, false},
		{0755, 0757, 0, false},
		{0755, 01777, 0, true}, /* like /tmp: root's entries stay */
		{0755, 0755, 7, false},
	};

	(void)state;
	needs_root();
	assert_int_equal(mkdir(below("open"), 0755), 0);
	for (size_t i = 0; i < ARRAY_LENGTH(cases); i++) {
		static struct allowed a;
		struct cede_error err;
		a = (struct allowed){0};
		struct who who = make("open/camera", cases[i].file);
		assert_int_equal(chown(below("open/camera"), cases[i].owner, 0), 0);
		assert_int_equal(chmod(below("open"), cases[i].directory), 0);
		assert_int_equal(allowed_add(&a, "lp", below("open/camera"), &err), CEDE_OK);
		assert_int_equal(allowed_find_users(&a, &err), CEDE_OK);
		allowed_refresh(&a, &lock);
		if (allowed_has(&a, &who) != cases[i].good)
			fail_msg("case %zu", i);
		allowed_done(&a);
		assert_int_equal(unlink(below("open/camera")), 0);
	}
}

/* Rights that change later count as well: at the path, on the way to it, and of a file that was
 * replaced and may still run. What is mended is allowed again. */
static void what_others_can_change_by_now_is_let_go(void **state) {
	static const struct {
		const char *name;
		mode_t bad, good;
	} cases[] = {{"open/camera", 0777, 0755}, {"open/camera", 0775, 0755}, {"open", 0777, 0755}};
	static struct allowed a;
	struct cede_error err;

	(void)state;
	needs_root();
	a = (struct allowed){0};
	assert_true(mkdir(below("open"), 0755) == 0 || errno == EEXIST);
	assert_int_equal(chmod(below("open"), 0755), 0);
	struct who who = make("open/camera", 0755);
	assert_int_equal(allowed_add(&a, "lp", below("open/camera"), &err), CEDE_OK);
	assert_int_equal(allowed_find_users(&a, &err), CEDE_OK);
	allowed_refresh(&a, &lock);
	for (size_t i = 0; i < ARRAY_LENGTH(cases); i++) {
		assert_int_equal(chmod(below(cases[i].name), cases[i].bad), 0);
		allowed_refresh(&a, &lock);
		if (allowed_has(&a, &who) || allowed_missing(&a) != 1)
			fail_msg("case %zu", i);
		assert_int_equal(chmod(below(cases[i].name), cases[i].good), 0);
		allowed_refresh(&a, &lock);
		if (!allowed_has(&a, &who) || allowed_missing(&a) != 0)
			fail_msg("case %zu, mended", i);
	}
	struct who new = make("new", 0755);
	char from[128];
	(void)snprintf(from, sizeof from, "%s", below("new"));
	int former = openat(AT_FDCWD, below("open/camera"), O_RDONLY | O_CLOEXEC);
	assert_true(former >= 0);
	assert_int_equal(renameat(AT_FDCWD, from, AT_FDCWD, below("open/camera")), 0);
	allowed_refresh(&a, &lock);
	assert_true(allowed_has(&a, &who) && allowed_has(&a, &new));
	assert_int_equal(fchown(former, 7, 0), 0);
	allowed_refresh(&a, &lock);
	assert_true(!allowed_has(&a, &who) && allowed_has(&a, &new));
	(void)close(former);
	allowed_done(&a);
}

/* A symlink is resolved, and every directory on the real way must be root's. */
static void symlinks_lead_to_the_real_file(void **state) {
	static struct allowed a;
	struct cede_error err;

	(void)state;
	needs_root();
	a = (struct allowed){0};
	struct who who = make("new", 0755);
	assert_int_equal(symlink("new", below("link")), 0);
	assert_int_equal(allowed_add(&a, "lp", below("link"), &err), CEDE_OK);
	assert_int_equal(allowed_find_users(&a, &err), CEDE_OK);
	allowed_refresh(&a, &lock);
	assert_true(allowed_has(&a, &who));
	allowed_done(&a);
	assert_int_equal(allowed_add(&a, "lp", folder, &err), CEDE_OK);
	assert_int_equal(allowed_find_users(&a, &err), CEDE_OK);
	allowed_refresh(&a, &lock);
	assert_int_equal(allowed_missing(&a), 1); /* a directory is no program */
	allowed_done(&a);
}

int main(void) {
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_program_and_its_user),
		cmocka_unit_test(a_user_must_be_there),
		cmocka_unit_test(after_an_upgrade_both_are_allowed),
		cmocka_unit_test(what_others_can_change_is_not_taken),
		cmocka_unit_test(what_others_can_change_by_now_is_let_go),
		cmocka_unit_test(symlinks_lead_to_the_real_file),
	};

	return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
