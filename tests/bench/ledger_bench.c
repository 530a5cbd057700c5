/* SPDX-License-Identifier: Apache-2.0
 * A ledger of so many events, made by the calls that the agent makes, in a directory; how fast events
 * are appended while it grows, how large it is. Not part of the normal tests: tests/bench/ledger runs it. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include "agent/ledger/ledger.h"
#include "base/check.h"
#include "base/clock.h"
#include "base/parse.h"

#define BUNDLE 256 /* captures in one */
#define GROUP  8   /* bundles in one transaction, as while much is going on */

static int64_t now = INT64_C(1795420347) * NS_PER_SECOND;
static char receipt[420];

static void must(int result, const struct cede_error *err) {
	if (result < 0) {
		(void)fprintf(stderr, "ledger_bench: %s\n", err->text);
		exit(1); /* a tool of the tests */
	}
}

struct taken {
	struct ledger_sealed rows[BUNDLE];
	size_t count;
};

static int keep(void *ctx, const struct ledger_capture *c, struct cede_error *reterr) {
	struct taken *t = ctx;

	(void)reterr;
	t->rows[t->count].row = c->row;
	memset(t->rows[t->count].sha256, (int)(c->row & 0xff), 32);
	memcpy(t->rows[t->count++].sha256, &c->row, sizeof c->row);
	return CEDE_OK;
}

/* One bundle's worth of captures, from found to wiped: each of them as the agent records it. */
static void hand_over(struct ledger *l, uint64_t n) {
	struct cede_error err = {0};
	struct taken taken = {.count = 0};
	struct ledger_bundle b = {
		.destination = SLICE_LIT("agency"), .size = 16U << 20, .captures = BUNDLE};
	char path[64];
	int64_t row;
	bool done;

	for (size_t i = 0; i < BUNDLE; i++) {
		enum ledger_seen result;
		now += 30 * NS_PER_MS;
		(void)snprintf(path, sizeof path, "lane%02u/2026-11-25/%010llu.jpg",
			(unsigned)(i % 16), (unsigned long long)(n * BUNDLE + i));
		struct ledger_capture c = {.source = SLICE_LIT("faces"),
			.path = slice_str(path),
			.classification = SLICE_LIT("SPII"),
			.identity = {.dev = 65024,
				.ino = 131072 + n * BUNDLE + i,
				.size = 123456,
				.mtime_ns = now - 7,
				.ctime_ns = now},
			.born_ns = now - NS_PER_MS,
			.first_seen_ns = now,
			.deadline_ns = now + 900 * NS_PER_SECOND};
		must(id_make(now, &c.id, &err), &err);
		must(ledger_capture_seen(l, &c, now, &result, &row, &err), &err);
	}
	must(ledger_take(l, SLICE_LIT("faces"), BUNDLE, UINT64_MAX, LARGE_FIRST, now, keep, &taken,
		     &err),
		&err);
	require(taken.count == BUNDLE);
	must(id_make(now, &b.id, &err), &err);
	b.sealed_ns = now;
	must(ledger_bundle_sealed(l, &b, taken.rows, taken.count, now, &row, &err), &err);
	must(ledger_bundle_receipted(l, row, slice_of(receipt, sizeof receipt), now, &err), &err);
	for (size_t i = 0; i < taken.count; i++)
		must(ledger_capture_wiped(
			     l, taken.rows[i].row, "overwritten-current", "", now, false, &err),
			&err);
	must(ledger_bundle_done(l, row, now, &done, &err), &err);
	require(done);
}

static uint64_t size_of(const char *dir) {
	uint64_t size = 0;
	struct stat st;
	char path[4200];

	static const char *const names[] = {"", "-wal"};
	for (size_t i = 0; i < ARRAY_LENGTH(names); i++) {
		(void)snprintf(path, sizeof path, "%s/" LEDGER_NAME "%s", dir, names[i]);
		if (stat(path, &st) == 0)
			size += (uint64_t)st.st_size;
	}
	return size;
}

/* Of this process: other work on the machine does not count. */
static int64_t cpu_ns(void) {
	struct timespec ts;

	require(clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &ts) == 0);
	return clock_ns_of(&ts);
}

static uint64_t events_of(const struct ledger *l) {
	uint8_t hash[32];
	uint64_t sequence;

	ledger_head(l, &sequence, hash);
	return sequence;
}

int main(int argc, char **argv) {
	struct ledger *l = NULL;
	struct cede_error err = {0};
	uint64_t want, bundles = 0, step, next, before = 0;

	if (argc != 3 || parse_u64(slice_str(argv[2]), 1, UINT32_MAX, &want, NULL) < 0) {
		(void)fputs("usage: ledger_bench DIRECTORY EVENTS\n", stderr);
		return 2;
	}
	must(ledger_open(argv[1], &l, &err), &err);
	step = next = want / 20;
	int64_t began = clock_boot_ns();
	int64_t cpu_began = cpu_ns();
	while (events_of(l) < want) {
		must(ledger_begin(l, &err), &err);
		for (size_t i = 0; i < GROUP; i++)
			hand_over(l, bundles++);
		must(ledger_commit(l, &err), &err);
		if (events_of(l) < next)
			continue;
		int64_t end = clock_boot_ns();
		(void)printf("%llu events: %.0f events/s, %.2f us of CPU each\n",
			(unsigned long long)events_of(l),
			(double)(events_of(l) - before) * 1e9 / (double)(end - began),
			(double)(cpu_ns() - cpu_began) / 1e3 / (double)(events_of(l) - before));
		(void)fflush(stdout);
		before = events_of(l);
		next += step;
		began = clock_boot_ns();
		cpu_began = cpu_ns();
	}
	uint64_t events = events_of(l);
	ledger_close(l);
	(void)printf("%llu events, %llu captures, %llu bytes: %.0f bytes a capture\n",
		(unsigned long long)events, (unsigned long long)bundles * BUNDLE,
		(unsigned long long)size_of(argv[1]),
		(double)size_of(argv[1]) / (double)(bundles * BUNDLE));
	return 0;
}
