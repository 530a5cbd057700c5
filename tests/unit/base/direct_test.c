/* SPDX-License-Identifier: Apache-2.0
 * Writing past the page cache: what was put is what is there, whatever the sizes, and whatever the
 * system does on the way. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/check.h"
#include "base/cleanup.h"
#include "base/direct.h"
#include "base/file.h"
#include "tests/unit/unit.h"

ssize_t __real_write(int fd, const void *data, size_t len);
ssize_t __wrap_write(int fd, const void *data, size_t len);

static struct {
	int fd; /* whose writes are counted */
	unsigned calls;
	unsigned fail_at; /* this call fails with sys; 0: none */
	int sys;
	unsigned short_at; /* this call writes 700 bytes only */
} fault;

ssize_t __wrap_write(int fd, const void *data, size_t len) {
	if (fd != fault.fd)
		return __real_write(fd, data, len);
	fault.calls++;
	if (fault.calls == fault.fail_at) {
		errno = fault.sys;
		return -1;
	}
	if (fault.calls == fault.short_at && len > 700) {
		/* a direct write of 700 bytes would be refused: as a full disk would give it back */
		int flags = fcntl(fd, F_GETFL);
		assert_int_equal(fcntl(fd, F_SETFL, flags & ~O_DIRECT), 0);
		ssize_t n = __real_write(fd, data, 700);
		assert_int_equal(fcntl(fd, F_SETFL, flags), 0);
		return n;
	}
	return __real_write(fd, data, len);
}

static uint8_t *content;
#define CONTENT ((size_t)(3 << 20) + 17)

static int set_up(void **state) {
	(void)state;
	content = malloc(CONTENT);
	if (content == NULL)
		return -1;
	for (size_t i = 0; i < CONTENT; i++)
		content[i] = (uint8_t)(i * 131 + (i >> 11));
	return 0;
}

static int tear_down(void **state) {
	(void)state;
	free(content);
	return 0;
}

static int on_disk(void) {
	int fd = open("/var/tmp", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);

	assert_true(fd >= 0);
	return fd;
}

static int write_it(int fd, size_t size, size_t piece, struct cede_error *err) {
	CLEANUP(direct_end) struct direct d = {0};

	fault.fd = fd;
	fault.calls = 0;
	int r = direct_start(&d, fd, err);
	for (size_t at = 0; r == CEDE_OK && at < size; at += piece)
		r = direct_put(&d, content + at, size - at < piece ? size - at : piece, err);
	if (r == CEDE_OK)
		r = direct_finish(&d, err);
	fault.fd = -1;
	return r;
}

static void must_hold(int fd, size_t size) {
	CLEANUP(freep) uint8_t *back = malloc(size + 1);
	struct cede_error err;
	size_t got;

	assert_non_null(back);
	assert_int_equal(file_pread_full(fd, back, size + 1, 0, &got, &err), CEDE_OK);
	assert_int_equal(got, size);
	assert_memory_equal(back, content, size);
}

static void every_size_is_written_whole(void **state) {
	static const size_t sizes[] = {0, 1, 4095, 4096, 4097, (512 << 10) - 1, 512 << 10,
		(512 << 10) + 1, (1 << 20) + 4096, CONTENT};
	static const size_t pieces[] = {CONTENT, 16384, 4096, 1999};
	struct cede_error err;

	(void)state;
	fault.fail_at = fault.short_at = 0;
	for (size_t i = 0; i < ARRAY_LENGTH(sizes); i++)
		for (size_t k = 0; k < ARRAY_LENGTH(pieces); k++) {
			CLEANUP(fd_closep) int disk = on_disk();
			CLEANUP(fd_closep) int memory = memfd_create("direct", MFD_CLOEXEC);
			assert_int_equal(write_it(disk, sizes[i], pieces[k], &err), CEDE_OK);
			must_hold(disk, sizes[i]);
			assert_int_equal(write_it(memory, sizes[i], pieces[k], &err), CEDE_OK);
			must_hold(memory, sizes[i]);
		}
}

static void what_the_system_does_on_the_way_loses_nothing(void **state) {
	struct cede_error err;

	(void)state;
	for (unsigned at = 1; at <= 4; at++) {
		CLEANUP(fd_closep) int refused = on_disk();
		fault.fail_at = at;
		fault.sys = EINVAL; /* this file system has no direct writes after all */
		assert_int_equal(write_it(refused, CONTENT, 16384, &err), CEDE_OK);
		must_hold(refused, CONTENT);
		CLEANUP(fd_closep) int interrupted = on_disk();
		fault.sys = EINTR;
		assert_int_equal(write_it(interrupted, CONTENT, 16384, &err), CEDE_OK);
		must_hold(interrupted, CONTENT);
		fault.fail_at = 0;
		CLEANUP(fd_closep) int cut = on_disk();
		fault.short_at = at;
		assert_int_equal(write_it(cut, CONTENT, 16384, &err), CEDE_OK);
		must_hold(cut, CONTENT);
		fault.short_at = 0;
	}
}

static void an_error_is_told(void **state) {
	static const int numbers[] = {ENOSPC, EDQUOT, EIO, EFBIG};
	struct cede_error err;

	(void)state;
	for (size_t i = 0; i < ARRAY_LENGTH(numbers); i++) {
		CLEANUP(fd_closep) int fd = on_disk();
		fault.fail_at = 2;
		fault.sys = numbers[i];
		assert_int_equal(write_it(fd, CONTENT, 16384, &err), CEDE_ERR_IO);
		assert_int_equal(err.sys, numbers[i]);
	}
	fault.fail_at = 0;
}

int main(void) {
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_size_is_written_whole),
		cmocka_unit_test(what_the_system_does_on_the_way_loses_nothing),
		cmocka_unit_test(an_error_is_told),
	};

	return cmocka_run_group_tests(tests, set_up, tear_down);
}
