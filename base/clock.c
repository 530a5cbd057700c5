/* SPDX-License-Identifier: Apache-2.0 */
#include "base/clock.h"

#include <stdio.h>
#include <time.h>

#include "base/check.h"

int64_t clock_ns_of(const struct timespec *ts) {
	int64_t ns;

	/* a file may bear any year: what does not fit stops at the ends */
	if (__builtin_mul_overflow((int64_t)ts->tv_sec, NS_PER_SECOND, &ns) ||
		__builtin_add_overflow(ns, (int64_t)ts->tv_nsec, &ns))
		return ts->tv_sec < 0 ? INT64_MIN : INT64_MAX;
	return ns;
}

static int64_t read_clock(clockid_t id) {
	struct timespec ts;

	require(clock_gettime(id, &ts) == 0);
	return clock_ns_of(&ts);
}

int64_t clock_wall_ns(void) {
	return read_clock(CLOCK_REALTIME);
}

int64_t clock_boot_ns(void) {
	return read_clock(CLOCK_BOOTTIME);
}

static int64_t floor_seconds(int64_t ns) {
	return ns / NS_PER_SECOND - (ns % NS_PER_SECOND < 0);
}

static void text(int64_t wall_ns, char *out, int fraction) {
	time_t seconds = (time_t)floor_seconds(wall_ns);
	unsigned rest = (unsigned)(wall_ns - (int64_t)seconds * NS_PER_SECOND);
	struct tm tm;
	char day[32];

	if (gmtime_r(&seconds, &tm) == NULL || tm.tm_year > 9999 - 1900 || tm.tm_year < -1900 ||
		strftime(day, sizeof day, "%Y-%m-%dT%H:%M:%S", &tm) == 0) {
		(void)snprintf(out, CLOCK_TEXT_SIZE, "9999-12-31T23:59:59Z");
		return;
	}
	if (fraction)
		(void)snprintf(out, CLOCK_TEXT_SIZE, "%.20s.%09uZ", day, rest % 1000000000U);
	else
		(void)snprintf(out, CLOCK_TEXT_SIZE, "%.20sZ", day);
}

void clock_text(int64_t wall_ns, char out[CLOCK_TEXT_SIZE]) {
	text(wall_ns, out, 0);
}

void clock_text_ns(int64_t wall_ns, char out[CLOCK_TEXT_SIZE]) {
	text(wall_ns, out, 1);
}
