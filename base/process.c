/* SPDX-License-Identifier: Apache-2.0 */
#include "base/process.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/check.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/parse.h"
#include "base/sandbox.h"

struct process_probe {
	int memory; /* /proc/self/statm, or -1 */
	DIR *descriptors;
	int64_t started_ns;
};

struct process_probe *process_probe_new(void) {
	struct process_probe *p = calloc(1, sizeof *p);

	if (p == NULL)
		return NULL;
	p->started_ns = clock_wall_ns();
	p->memory = openat(AT_FDCWD, "/proc/self/statm", O_RDONLY | O_CLOEXEC);
	p->descriptors = opendir("/proc/self/fd");
	return p;
}

void process_probe_free(struct process_probe *p) {
	if (p == NULL)
		return;
	fd_closep(&p->memory);
	if (p->descriptors != NULL)
		(void)closedir(p->descriptors);
	free(p);
}

/* "size resident shared ...", in pages */
static uint64_t resident(int fd) {
	uint8_t text[128];
	struct slice rest, word;
	uint64_t pages;
	ssize_t n = pread(fd, text, sizeof text, 0);

	if (n <= 0 || !slice_cut(slice_of(text, (size_t)n), ' ', &word, &rest) ||
		!slice_cut(rest, ' ', &word, &rest) ||
		parse_u64(word, 0, UINT32_MAX, &pages, NULL) < 0)
		return 0;
	return pages * (uint64_t)sysconf(_SC_PAGESIZE);
}

static uint64_t open_descriptors(DIR *d) {
	uint64_t n = 0;

	rewinddir(d);
	for (struct dirent *e; (e = readdir(d)) != NULL;)
		n += e->d_name[0] != '.';
	return n;
}

static int64_t ns_of(const struct timeval *t) {
	return (int64_t)t->tv_sec * NS_PER_SECOND + (int64_t)t->tv_usec * 1000;
}

void process_read(struct process_probe *p, struct process_figures *ret) {
	struct rusage used;
	struct rlimit files;

	*ret = (struct process_figures){0};
	if (getrusage(RUSAGE_SELF, &used) == 0)
		ret->cpu_ns = ns_of(&used.ru_utime) + ns_of(&used.ru_stime);
	if (getrlimit(RLIMIT_NOFILE, &files) == 0)
		ret->descriptors_most = files.rlim_cur;
	if (p == NULL)
		return;
	ret->started_ns = p->started_ns;
	if (p->memory >= 0)
		ret->resident_bytes = resident(p->memory);
	if (p->descriptors != NULL)
		ret->descriptors = open_descriptors(p->descriptors);
}

void metric_add_process(struct metrics *m, const char *process, const struct process_figures *f,
	uint32_t layers_on, uint32_t layers_missing) {
	const struct {
		const char *name;
		enum metric_type type;
		int64_t ns; /* or */
		uint64_t value;
		const char *help;
	} list[] = {
		{"cpu_seconds_total", METRIC_COUNTER, f->cpu_ns, 0, "CPU time used."},
		{"start_time_seconds", METRIC_GAUGE, f->started_ns, 0, "When it was started."},
		{"resident_memory_bytes", METRIC_GAUGE, 0, f->resident_bytes, "Memory in use."},
		{"open_fds", METRIC_GAUGE, 0, f->descriptors, "Open descriptors."},
		{"max_fds", METRIC_GAUGE, 0, f->descriptors_most, "Most descriptors it may open."},
	};

	for (size_t i = 0; i < ARRAY_LENGTH(list); i++) {
		char name[80];
		(void)snprintf(name, sizeof name, "cede_%s_%s", process, list[i].name);
		metric_family(m, list[i].type, name, list[i].help);
		if (i < 2)
			metric_add_ns(m, list[i].ns, NULL);
		else
			metric_add(m, list[i].value, NULL);
	}

	char layer[80];
	(void)snprintf(layer, sizeof layer, "cede_%s_sandbox_layer", process);
	metric_family(m, METRIC_GAUGE, layer,
		"1 if this layer of its sandbox is on, 0 if this host does not have it.");
	for (unsigned i = 0; i < SANDBOX_LAYER_COUNT; i++)
		if (((layers_on | layers_missing) >> i & 1) != 0)
			metric_add(m, layers_on >> i & 1, "layer",
				sandbox_layer_name((enum sandbox_layer)i), NULL);
}
