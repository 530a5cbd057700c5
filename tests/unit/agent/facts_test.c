/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "agent/watch/facts.h"
#include "base/check.h"
#include "base/clock.h"
#include "tests/unit/unit.h"

static char directory[] = "/tmp/cede-facts-XXXXXX";
static int dir_fd;

static void make(const char *name, const char *content) {
	int fd = openat(dir_fd, name, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

	assert_true(fd >= 0);
	assert_int_equal(write(fd, content, strlen(content)), strlen(content));
	assert_int_equal(close(fd), 0);
}

static int set_up(void **state) {
	(void)state;
	if (mkdtemp(directory) == NULL)
		return -1;
	dir_fd = openat(AT_FDCWD, directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (dir_fd < 0 || mkdirat(dir_fd, "a", 0700) != 0 || mkdirat(dir_fd, "a/b", 0700) != 0)
		return -1;
	make("x.jpg", "12345");
	make("a/b/y.jpg", "1");
	make("a/b/y.json", "1");
	make("a/b/z.jpg", "1");
	return symlinkat("a", dir_fd, "link") != 0 || symlinkat("x.jpg", dir_fd, "file-link") != 0 ||
			mkfifoat(dir_fd, "fifo", 0600) != 0 ||
			linkat(dir_fd, "a/b/z.jpg", dir_fd, "hard", 0) != 0
		? -1
		: 0;
}

static int tear_down(void **state) {
	static const char *const names[] = {"x.jpg", "a/b/y.jpg", "a/b/y.json", "a/b/z.jpg", "link",
		"file-link", "fifo", "hard"};

	(void)state;
	for (size_t i = 0; i < ARRAY_LENGTH(names); i++)
		(void)unlinkat(dir_fd, names[i], 0);
	(void)unlinkat(dir_fd, "a/b", AT_REMOVEDIR);
	(void)unlinkat(dir_fd, "a", AT_REMOVEDIR);
	(void)close(dir_fd);
	return rmdir(directory);
}

static void each_kind_is_told(void **state) {
	static const struct {
		const char *path;
		enum file_kind kind;
		uint32_t links;
		uint64_t size;
	} table[] = {
		{"x.jpg", FILE_KIND_REGULAR, 1, 5},
		{"a/b/y.jpg", FILE_KIND_REGULAR, 1, 1},
		{"a/b/z.jpg", FILE_KIND_REGULAR, 2, 1},
		{"file-link", FILE_KIND_SYMLINK, 1, 5},
		{"fifo", FILE_KIND_OTHER, 1, 0},
		{"a/b", FILE_KIND_DIRECTORY, 0, 0},
	};
	struct policy_source source = {0};

	(void)state;
	for (size_t i = 0; i < ARRAY_LENGTH(table); i++) {
		struct decide_facts facts;
		struct file_identity identity;
		struct cede_error err;
		struct stat st;

		if (facts_of(dir_fd, table[i].path, &source, clock_wall_ns(), &facts, &identity,
			    &err) < 0)
			fail_msg("%s: %s", table[i].path, err.text);
		assert_int_equal(facts.kind, table[i].kind);
		assert_true(slice_is(facts.path, table[i].path));
		assert_int_equal(fstatat(dir_fd, table[i].path, &st, AT_SYMLINK_NOFOLLOW), 0);
		struct file_identity expected = file_identity_of(&st);
		assert_true(file_identity_equal(&identity, &expected));
		if (table[i].kind == FILE_KIND_DIRECTORY)
			continue;
		assert_int_equal(facts.links, table[i].links);
		assert_int_equal(facts.size, table[i].size);
	}
}

static void nothing_outside_is_looked_at(void **state) {
	static const char *const table[] = {"link/b/y.jpg", "a/../../x", "/etc/passwd"};
	struct policy_source source = {0};

	(void)state;
	for (size_t i = 0; i < ARRAY_LENGTH(table); i++) {
		struct decide_facts facts;
		struct file_identity identity;
		struct cede_error err;
		int r = facts_of(dir_fd, table[i], &source, clock_wall_ns(), &facts, &identity, &err);

		if (r != CEDE_ERR_REFUSED)
			fail_msg("%s: %d", table[i], r);
		assert_null(strstr(err.text, "passwd")); /* I9 */
	}
}

static void a_gone_file_says_so(void **state) {
	struct policy_source source = {0};
	struct decide_facts facts;
	struct file_identity identity;
	struct cede_error err;

	(void)state;
	assert_int_equal(
		facts_of(dir_fd, "a/none.jpg", &source, clock_wall_ns(), &facts, &identity, &err),
		CEDE_ERR_IO);
	assert_int_equal(err.sys, ENOENT);
	assert_int_equal(
		facts_of(dir_fd, "none/x.jpg", &source, clock_wall_ns(), &facts, &identity, &err),
		CEDE_ERR_IO);
	assert_int_equal(err.sys, ENOENT);
}

static int64_t changed_of(const char *path) {
	struct stat st;

	assert_int_equal(fstatat(dir_fd, path, &st, AT_SYMLINK_NOFOLLOW), 0);
	return last_change(clock_ns_of(&st.st_mtim), clock_ns_of(&st.st_ctim), clock_wall_ns());
}

static void groups_are_complete_with_every_required_ending(void **state) {
	char jpg[] = ".jpg";
	char json[] = ".json";
	char *require_list[] = {jpg, json};
	struct policy_source source = {
		.grouped = true, .group_require = require_list, .group_require_count = 2};
	struct timespec future[2] = {{.tv_sec = 4102444800}, {.tv_sec = 4102444800}};
	struct decide_facts facts;
	struct file_identity identity;
	struct cede_error err;

	(void)state;
	assert_int_equal(
		facts_of(dir_fd, "a/b/y.json", &source, clock_wall_ns(), &facts, &identity, &err),
		CEDE_OK);
	assert_true(facts.group_there);
	assert_false(facts.group_open);
	assert_int_equal(facts.group_changed_ns, changed_of("a/b/y.jpg"));
	assert_int_equal(
		facts_of(dir_fd, "a/b/y.json", &source, 1, &facts, &identity, &err), CEDE_OK);
	assert_int_equal(facts.group_changed_ns, INT64_MIN); /* all its times lie in the future */
	assert_int_equal(facts_of(dir_fd, "x.jpg", &source, clock_wall_ns(), &facts, &identity, &err),
		CEDE_OK);
	assert_false(facts.group_there);
	assert_true(facts.group_since_ns > 0);
	/* a future mtime does not move the group's beginning there */
	assert_int_equal(utimensat(dir_fd, "x.jpg", future, 0), 0);
	assert_int_equal(facts_of(dir_fd, "x.jpg", &source, clock_wall_ns(), &facts, &identity, &err),
		CEDE_OK);
	assert_true(facts.group_since_ns < facts.mtime_ns);
}

static void any_year_is_taken(void **state) {
	struct timespec times[2] = {{.tv_sec = INT64_C(9999999999)}, {.tv_sec = INT64_C(9999999999)}};
	struct policy_source source = {0};
	struct decide_facts facts;
	struct file_identity identity;
	struct cede_error err;

	(void)state;
	assert_int_equal(utimensat(dir_fd, "a/b/y.jpg", times, 0), 0);
	assert_int_equal(
		facts_of(dir_fd, "a/b/y.jpg", &source, clock_wall_ns(), &facts, &identity, &err),
		CEDE_OK);
	assert_true(facts.mtime_ns > facts.ctime_ns);
}

int main(void) {
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(each_kind_is_told),
		cmocka_unit_test(nothing_outside_is_looked_at),
		cmocka_unit_test(a_gone_file_says_so),
		cmocka_unit_test(groups_are_complete_with_every_required_ending),
		cmocka_unit_test(any_year_is_taken),
	};

	return cmocka_run_group_tests(tests, set_up, tear_down);
}
