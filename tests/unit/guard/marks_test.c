/* SPDX-License-Identifier: Apache-2.0
 * Which marks a source gets; the marks themselves are the end-to-end tests' matter. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "agent/guard/marks.h"
#include "base/check.h"
#include "tests/unit/unit.h"

static char top[64];

static const char *below(const char *name) {
	static char path[4][160];
	static size_t next;

	next = (next + 1) % ARRAY_LENGTH(path);
	(void)snprintf(path[next], sizeof path[next], "%s/%s", top, name);
	return path[next];
}

static void make_dir(const char *name) {
	if (mkdir(below(name), 0755) < 0)
		fail_msg("%s", name);
}

static void add(struct marks *m, const char *name) {
	struct cede_error err;

	assert_int_equal(marks_add(m, below(name), "", &err), CEDE_OK);
	m->list[m->count - 1].resolved = realpath(below(name), NULL);
}

static void only_sources_and_what_leads_to_them(void **state) {
	static struct marks m;

	(void)state;
	(void)snprintf(top, sizeof top, "/tmp/cede-marks-XXXXXX");
	assert_non_null(mkdtemp(top));
	marks_init(&m, -1);
	make_dir("faces");
	make_dir("faces/deep");
	make_dir("more");
	make_dir("more/plates");
	add(&m, "faces");
	assert_false(marks_only_sources(top, &m)); /* "more" is nobody's */
	add(&m, "more/plates");
	assert_true(marks_only_sources(top, &m));
	make_dir("lost+found");
	assert_true(marks_only_sources(top, &m));
	assert_true(marks_only_sources(below("faces"), &m));
	assert_true(marks_only_sources(below("faces/deep"), &m));
	assert_false(marks_only_sources("/tmp", &m));
	assert_false(marks_only_sources(below("lost+found"), &m));
	make_dir("more/else");
	assert_false(marks_only_sources(top, &m));
	assert_int_equal(rmdir(below("more/else")), 0);
	int fd = openat(AT_FDCWD, below("more/notes"), O_WRONLY | O_CREAT, 0600);
	assert_false(marks_only_sources(top, &m));
	(void)close(fd);
	assert_int_equal(unlink(below("more/notes")), 0);
	make_dir("facesaver"); /* begins like a source, and is none */
	assert_false(marks_only_sources(top, &m));

	size_t source;
	const char *name;
	assert_true(marks_find(&m, below("more/plates/a/b.jpg"), &source, &name));
	assert_int_equal(source, 1);
	assert_string_equal(name, "a/b.jpg");
	assert_false(marks_find(&m, below("facesaver/b.jpg"), &source, &name));
	assert_false(marks_find(&m, below("faces"), &source, &name));
	assert_false(marks_find(&m, "(unreachable)/b.jpg", &source, &name));
	marks_done(&m);

	static const char *const all[] = {
		"faces/deep", "faces", "more/plates", "more", "lost+found", "facesaver"};
	for (size_t i = 0; i < ARRAY_LENGTH(all); i++)
		assert_int_equal(rmdir(below(all[i])), 0);
	assert_int_equal(rmdir(top), 0);
}

int main(void) {
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(only_sources_and_what_leads_to_them),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
