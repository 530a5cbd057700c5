/* SPDX-License-Identifier: Apache-2.0
 * The machine itself: where plaintext could go (swap, core dumps), the clock, the kernel's limits. */
#include <fcntl.h>
#include <fts.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/timex.h>

#include "agent/doctor/internal.h"
#include "base/buf.h"
#include "base/cleanup.h"
#include "base/file.h"
#include "base/parse.h"

#define TEXT_MAX      65536
#define DIRS_MOST     4000000 /* counted at most */
#define FILES_WANTED  8192    /* descriptors (agent/core/keeper.c) */
#define QUEUE_WANTED  16384
#define CLOCK_WEAK_US 500000

/* A file of /proc or /sys; false: it can't be read. */
static bool load_text(const char *path, struct buf *b, const char **ret) {
	return file_load(AT_FDCWD, path, b, NULL) == CEDE_OK && buf_string(b, ret, NULL) == CEDE_OK;
}

static bool load_number(const char *path, uint64_t *ret) {
	CLEANUP(buf_done) struct buf b = BUF_INIT(TEXT_MAX);
	const char *text;

	if (!load_text(path, &b, &text))
		return false;
	struct slice s = buf_slice(&b);
	while (s.len > 0 && s.data[s.len - 1] == '\n')
		s.len--;
	return parse_u64(s, 0, INT64_MAX, ret, NULL) == CEDE_OK;
}

/* ---- swap */

/* Compressed memory, or a device of the device mapper that encrypts. */
static bool is_safe_swap(const char *device) {
	CLEANUP(buf_done) struct buf b = BUF_INIT(TEXT_MAX);
	char path[128];
	const char *text;
	struct stat st;

	if (strncmp(device, "/dev/zram", 9) == 0)
		return true;
	if (stat(device, &st) < 0 || !S_ISBLK(st.st_mode))
		return false;
	(void)snprintf(path, sizeof path, "/sys/dev/block/%u:%u/dm/uuid", major(st.st_rdev),
		minor(st.st_rdev));
	return load_text(path, &b, &text) && strncmp(text, "CRYPT-", 6) == 0;
}

void check_swap(struct doctor *d) {
	CLEANUP(buf_done) struct buf b = BUF_INIT(TEXT_MAX);
	const char *text;
	unsigned areas = 0;
	unsigned unsafe = 0;

	if (!load_text("/proc/swaps", &b, &text)) {
		doctor_say(d, "swap", "", DOCTOR_WEAK, "mount /proc", "/proc/swaps can't be read");
		return;
	}
	const char *line = strchr(text, '\n'); /* the first one is a heading */
	while (line != NULL && line[1] != 0) {
		char device[256];
		size_t n = strcspn(line + 1, " \t\n");
		(void)snprintf(device, sizeof device, "%.*s", (int)n, line + 1);
		line = strchr(line + 1, '\n');
		areas++;
		if (is_safe_swap(device))
			continue;
		unsafe++;
		doctor_say(d, "swap", device, DOCTOR_WEAK,
			"swapoff it, or encrypt it with a key of each boot (crypttab: swap)",
			"plaintext that a camera's program holds in memory can be written here in the clear");
	}
	if (unsafe == 0)
		doctor_say(d, "swap", "", DOCTOR_OK, "",
			areas == 0 ? "off" : "only in memory, or encrypted");
}

/* ---- core dumps */

void check_core(struct doctor *d) {
	CLEANUP(buf_done) struct buf b = BUF_INIT(TEXT_MAX);
	struct rlimit core;
	const char *text;

	if (!load_text("/proc/sys/kernel/core_pattern", &b, &text)) {
		doctor_say(d, "core-dumps", "", DOCTOR_WEAK, "mount /proc",
			"kernel.core_pattern can't be read");
		return;
	}
	bool limited = getrlimit(RLIMIT_CORE, &core) == 0 && core.rlim_cur == 0;
	if (text[0] == '|')
		doctor_say(d, "core-dumps", "", DOCTOR_WEAK,
			"keep it from storing them (systemd-coredump: Storage=none), or sysctl kernel.core_pattern=core with a limit of 0",
			"a crash of a camera's program hands its memory to another program, which may store captures");
	else if (text[0] != '\n' && text[0] != 0 && !limited)
		doctor_say(d, "core-dumps", "", DOCTOR_WEAK,
			"set the limit to 0 (limits.conf: * hard core 0; units: LimitCORE=0)",
			"a crash of a camera's program can write captures to a core file");
	else
		doctor_say(d, "core-dumps", "", DOCTOR_OK, "",
			"none are written (the agent itself never writes one)");
}

/* ---- the clock */

void check_clock(struct doctor *d) {
	struct timex t = {.modes = 0};

	/* the kernel itself says whether something keeps it right */
	int state = adjtimex(&t);
	if (state < 0 || state == TIME_ERROR || (t.status & STA_UNSYNC) != 0)
		doctor_say(d, "clock", "", DOCTOR_WEAK,
			"run chrony, systemd-timesyncd or ntpsec, and let it reach a server",
			"nothing keeps it right: ages, expiries and the ledger's times depend on it");
	else if (t.esterror > CLOCK_WEAK_US)
		doctor_say(d, "clock", "", DOCTOR_WEAK, "look at the time service",
			"kept right, with an estimated error of %ld ms", t.esterror / 1000);
	else
		doctor_say(d, "clock", "", DOCTOR_OK, "", "kept right by a time service");
}

/* ---- the kernel's limits */

static uint64_t count_directories(const char *path) {
	CLEANUP(freep) char *copy = strdup(path);
	char *paths[] = {copy, NULL};
	uint64_t n = 0;
	FTS *fts = copy == NULL ? NULL : fts_open(paths, FTS_PHYSICAL | FTS_XDEV | FTS_NOSTAT, NULL);
	const FTSENT *entry;

	while (fts != NULL && n < DIRS_MOST && (entry = fts_read(fts)) != NULL)
		n += entry->fts_info == FTS_D;
	if (fts != NULL)
		(void)fts_close(fts);
	return n;
}

static void check_inotify(struct doctor *d) {
	uint64_t watches, queue, instances;
	uint64_t directories = 0;

	if (!load_number("/proc/sys/fs/inotify/max_user_watches", &watches) ||
		!load_number("/proc/sys/fs/inotify/max_queued_events", &queue) ||
		!load_number("/proc/sys/fs/inotify/max_user_instances", &instances)) {
		doctor_say(d, "inotify", "", DOCTOR_WEAK, "mount /proc", "its limits can't be read");
		return;
	}
	for (size_t i = 0; d->policy != NULL && i < d->policy->source_count; i++)
		directories += count_directories(d->policy->sources[i].path);
	if (watches <= directories)
		doctor_say(d, "inotify", "", DOCTOR_BROKEN,
			"raise it: sysctl fs.inotify.max_user_watches=524288",
			"%llu watches for %llu directories: what is written in the others is found by scans alone",
			(unsigned long long)watches, (unsigned long long)directories);
	else if (watches < 2 * directories || instances < 16)
		doctor_say(d, "inotify", "", DOCTOR_WEAK,
			"raise them: sysctl fs.inotify.max_user_watches=524288 fs.inotify.max_user_instances=128",
			"%llu watches for %llu directories, %llu instances",
			(unsigned long long)watches, (unsigned long long)directories,
			(unsigned long long)instances);
	else if (queue < QUEUE_WANTED)
		doctor_say(d, "inotify", "", DOCTOR_WEAK,
			"raise it: sysctl fs.inotify.max_queued_events=16384",
			"a queue of %llu events: a burst costs a scan", (unsigned long long)queue);
	else
		doctor_say(d, "inotify", "", DOCTOR_OK, "", "%llu watches for %llu directories",
			(unsigned long long)watches, (unsigned long long)directories);
}

void check_watches(struct doctor *d) {
	struct rlimit files;

	check_inotify(d);
	if (getrlimit(RLIMIT_NOFILE, &files) == 0 && files.rlim_max < FILES_WANTED)
		doctor_say(d, "descriptors", "", DOCTOR_WEAK, "raise it (units: LimitNOFILE=8192)",
			"at most %llu open files: large directories are handled in smaller pieces",
			(unsigned long long)files.rlim_max);
	else
		doctor_say(d, "descriptors", "", DOCTOR_OK, "", "enough");
}
