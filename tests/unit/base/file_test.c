/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/check.h"
#include "base/cleanup.h"
#include "base/file.h"
#include "tests/unit/unit.h"

static unsigned flushes, fail_flush; /* the Nth fails, 0: none */

int __real_fsync(int fd);
int __wrap_fsync(int fd);

int __wrap_fsync(int fd) {
	if (++flushes != fail_flush)
		return __real_fsync(fd);
	errno = EDQUOT;
	return -1;
}

static int link_once(int dirfd, struct cede_error *err) {
	CLEANUP(fd_closep) int fd = openat(dirfd, ".", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);

	assert_true(fd >= 0);
	assert_int_equal(file_write_all(fd, "content", 7, err), CEDE_OK);
	flushes = 0;
	return file_link_new(fd, dirfd, "name", err);
}

/* A name that is not promised would be in the way of the next try, or be taken for a promise. */
static void a_name_that_is_not_durable_does_not_stay(void **state) {
	char path[] = "/tmp/cede-file-XXXXXX";
	struct cede_error err = {0};
	struct stat st;

	(void)state;
	assert_non_null(mkdtemp(path));
	CLEANUP(fd_closep) int dirfd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	for (fail_flush = 1; fail_flush <= 2; fail_flush++) { /* the content's, the directory's */
		assert_int_equal(link_once(dirfd, &err), CEDE_ERR_IO);
		assert_int_equal(err.sys, EDQUOT);
		assert_int_equal(fstatat(dirfd, "name", &st, 0), -1);
	}
	assert_int_equal(link_once(dirfd, &err), CEDE_OK);
	assert_int_equal(fstatat(dirfd, "name", &st, 0), 0);
	assert_int_equal(link_once(dirfd, &err), CEDE_ERR_BUSY); /* taken: another's stays */
	assert_int_equal(fstatat(dirfd, "name", &st, 0), 0);
	assert_int_equal(unlinkat(dirfd, "name", 0), 0);
	assert_int_equal(rmdir(path), 0);
}

int main(void) {
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_name_that_is_not_durable_does_not_stay),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
