/* SPDX-License-Identifier: Apache-2.0
 * Opens files in every way that there is, for the tests of the guard; a copy of it is another
 * program to the guard. Exit status 0: opened; 13: refused (EPERM, EACCES); 1: anything else. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define REFUSED 13

static int said(const char *what) {
	int sys = errno;

	(void)printf("%s: %s\n", what, strerror(sys));
	return sys == EPERM || sys == EACCES ? REFUSED : 1;
}

static int show(int fd) {
	char text[65536];

	if (fd < 0)
		return said("open");
	ssize_t n = read(fd, text, sizeof text);
	if (n < 0)
		return said("read");
	(void)printf("read %zd bytes\n", n);
	(void)close(fd);
	return 0;
}

static int by_map(const char *path) {
	struct stat st;
	int fd = open(path, O_RDONLY);

	if (fd < 0 || fstat(fd, &st) < 0)
		return said("open");
	const char *at = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
	if (at == MAP_FAILED)
		return said("mmap");
	(void)printf("mapped, first byte %d\n", at[0]);
	return 0;
}

static int by_o_path(const char *path) {
	char again[64];
	int fd = open(path, O_PATH);

	if (fd < 0)
		return said("open O_PATH");
	(void)snprintf(again, sizeof again, "/proc/self/fd/%d", fd);
	return show(open(again, O_RDONLY));
}

static int by_handle(const char *path, const char *mount) {
	union {
		struct file_handle h;
		char room[sizeof(struct file_handle) + MAX_HANDLE_SZ];
	} handle = {.h.handle_bytes = MAX_HANDLE_SZ};

	int id;

	int at = open(mount, O_RDONLY | O_DIRECTORY);
	if (at < 0 || name_to_handle_at(AT_FDCWD, path, &handle.h, &id, 0) < 0)
		return said("handle");
	return show(open_by_handle_at(at, &handle.h, O_RDONLY));
}

/* As a camera does: a temporary name, then its own. */
static int write_file(const char *path) {
	char hidden[4096], text[65536];
	const char *slash = strrchr(path, '/');
	ssize_t n;

	(void)snprintf(
		hidden, sizeof hidden, "%.*s/.new-%d", (int)(slash - path), path, (int)getpid());
	int fd = open(hidden, O_WRONLY | O_CREAT | O_EXCL, 0644);
	if (fd < 0)
		return said("create");
	while ((n = read(0, text, sizeof text)) > 0)
		if (write(fd, text, (size_t)n) != n)
			return said("write");
	if (close(fd) < 0 || rename(hidden, path) < 0)
		return said("rename");
	return 0;
}

static int64_t now_ns(void) {
	struct timespec t;

	(void)clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * INT64_C(1000000000) + t.tv_nsec;
}

static int by_size(const void *a, const void *b) {
	uint64_t x = *(const uint64_t *)a;
	uint64_t y = *(const uint64_t *)b;

	return (x > y) - (x < y);
}

/* Opens it so many times, at this rate a second (0: as fast as it goes), and says how each went. */
static int many(const char *path, size_t count, double rate) {
	size_t opened = 0, refused = 0, other = 0;
	int error = 0;
	uint64_t *took = calloc(count, sizeof *took);
	int64_t start = now_ns();

	if (took == NULL)
		return said("memory");
	for (size_t i = 0; i < count; i++) {
		int64_t due = rate > 0 ? start + (int64_t)((double)i * 1e9 / rate) : 0;
		for (int64_t wait = due - now_ns(); wait > 0; wait = due - now_ns())
			if (wait > 100000) { /* sleeping overshoots: the last bit is spun */
				const struct timespec t = {
					.tv_nsec = (long)(wait - 80000) % 999999999};
				(void)nanosleep(&t, NULL);
			}
		int64_t before = now_ns();
		int fd = open(path, O_RDONLY | O_CLOEXEC);
		int sys = errno;
		took[i] = (uint64_t)(now_ns() - before);
		if (fd >= 0)
			(void)close(fd);
		opened += fd >= 0;
		refused += fd < 0 && sys == EPERM;
		other += fd < 0 && sys != EPERM;
		error = fd < 0 && sys != EPERM ? sys : error;
	}
	double seconds = (double)(now_ns() - start) / 1e9;
	qsort(took, count, sizeof *took, by_size);
	(void)printf("{\"opened\": %zu, \"refused\": %zu, \"other\": %zu, \"error\": \"%s\", \"seconds\": %.3f, "
		     "\"p50_us\": %.2f, \"p90_us\": %.2f, \"p99_us\": %.2f, \"max_us\": %.2f}\n",
		opened, refused, other, error == 0 ? "" : strerror(error), seconds,
		(double)took[count / 2] / 1e3, (double)took[count * 9 / 10] / 1e3,
		(double)took[count * 99 / 100] / 1e3, (double)took[count - 1] / 1e3);
	free(took);
	return other > 0;
}

/* Holds a lease, as the wipe does, until its standard input ends. */
static int lease(const char *path) {
	char byte;
	int fd = open(path, O_RDWR);

	(void)signal(SIGIO, SIG_IGN); /* somebody wants to open it */

	if (fd < 0 || fcntl(fd, F_SETLEASE, F_WRLCK) < 0)
		return said("lease");
	(void)printf("leased\n");
	(void)fflush(stdout);
	return read(0, &byte, 1) < 0;
}

int main(int argc, char **argv) {
	const char *how = argc > 2 ? argv[1] : "";

	if (strcmp(how, "read") == 0)
		return show(open(argv[2], O_RDONLY));
	if (strcmp(how, "map") == 0)
		return by_map(argv[2]);
	if (strcmp(how, "o-path") == 0)
		return by_o_path(argv[2]);
	if (strcmp(how, "handle") == 0 && argc > 3)
		return by_handle(argv[2], argv[3]);
	if (strcmp(how, "write") == 0)
		return write_file(argv[2]);
	if (strcmp(how, "lease") == 0)
		return lease(argv[2]);
	if (strcmp(how, "many") == 0 && argc > 4)
		return many(argv[2], strtoul(argv[3], NULL, 10), strtod(argv[4], NULL));
	(void)fputs(
		"usage: opener read|map|o-path|write|lease FILE, handle FILE MOUNT, many FILE COUNT RATE\n",
		stderr);
	return 2;
}
