/* SPDX-License-Identifier: Apache-2.0
 * LD_PRELOAD: a wall clock that a test sets while the program runs. CEDE_CLOCK names a file of eight
 * bytes, the nanoseconds (little-endian, signed) that are added to the true time; it is mapped, so a
 * write to it counts at once. The other clocks stay true, as they do when a clock is set.
 * CEDE_CLOCK_ALL: eight more bytes are added to them, as if so much time had passed; waits for a
 * condition (by CLOCK_MONOTONIC, as everywhere here) last as long as they were meant to.
 * CEDE_CLOCK_KEPT=1 or 0: what the kernel says of whether a time service keeps the clock right. */
#include <dlfcn.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/timex.h>
#include <time.h>
#include <unistd.h>

#define BILLION INT64_C(1000000000)
#define EXPORT  __attribute__((visibility("default")))

static const volatile int64_t *offset;
static bool all;

__attribute__((constructor)) static void map_offset(void) {
	const char *path = getenv("CEDE_CLOCK");
	int fd = path == NULL ? -1 : open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return;
	all = getenv("CEDE_CLOCK_ALL") != NULL;
	void *at = mmap(NULL, 2 * sizeof *offset, PROT_READ, MAP_SHARED, fd, 0);
	if (at != MAP_FAILED)
		offset = at;
	(void)close(fd);
}

EXPORT int clock_gettime(clockid_t id, struct timespec *ts) {
	int r = (int)syscall(SYS_clock_gettime, id, ts);

	bool wall = id == CLOCK_REALTIME || id == CLOCK_REALTIME_COARSE;
	bool passing = id == CLOCK_MONOTONIC || id == CLOCK_MONOTONIC_COARSE || id == CLOCK_BOOTTIME;
	if (r == 0 && offset != NULL && (wall || (all && passing))) {
		int64_t ns = (int64_t)ts->tv_sec * BILLION + ts->tv_nsec + offset[wall ? 0 : 1];
		ts->tv_sec = (time_t)(ns / BILLION);
		ts->tv_nsec = (long)(ns % BILLION);
	}
	return r;
}

EXPORT int pthread_cond_timedwait(pthread_cond_t *restrict cond, pthread_mutex_t *restrict mutex,
	const struct timespec *restrict end) {
	typedef int timedwait_fn(pthread_cond_t *, pthread_mutex_t *, const struct timespec *);
	static timedwait_fn *real;
	struct timespec true_end = *end;

	if (real == NULL)
		*(void **)&real = dlsym(RTLD_NEXT, "pthread_cond_timedwait");
	if (offset != NULL && all) {
		int64_t ns = (int64_t)end->tv_sec * BILLION + end->tv_nsec - offset[1];
		true_end = (struct timespec){
			.tv_sec = (time_t)(ns / BILLION), .tv_nsec = (long)(ns % BILLION)};
	}
	return real(cond, mutex, &true_end);
}

EXPORT time_t time(time_t *ret) {
	struct timespec ts;

	(void)clock_gettime(CLOCK_REALTIME, &ts);
	if (ret != NULL)
		*ret = ts.tv_sec;
	return ts.tv_sec;
}

EXPORT int gettimeofday(struct timeval *restrict tv, void *restrict zone) {
	struct timespec ts;

	(void)zone;
	(void)clock_gettime(CLOCK_REALTIME, &ts);
	tv->tv_sec = ts.tv_sec;
	tv->tv_usec = (suseconds_t)(ts.tv_nsec / 1000);
	return 0;
}

EXPORT int adjtimex(struct timex *t) {
	const char *kept = getenv("CEDE_CLOCK_KEPT");

	if (kept == NULL)
		return (int)syscall(SYS_adjtimex, t);
	*t = (struct timex){.status = kept[0] == '1' ? 0 : STA_UNSYNC};
	return kept[0] == '1' ? TIME_OK : TIME_ERROR;
}
