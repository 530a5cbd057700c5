/* SPDX-License-Identifier: Apache-2.0
 * What this process uses: CPU time, memory, descriptors. What it reads is opened once, so that it
 * works behind a sandbox that opens nothing.
 *
 * Thread  one at a time. */
#pragma once

#include "base/metric.h"

struct process_probe; /* of this process */

struct process_figures {
	int64_t cpu_ns;
	uint64_t resident_bytes; /* 0: can't be told */
	uint64_t descriptors;    /* 0: can't be told */
	uint64_t descriptors_most;
	int64_t started_ns; /* wall time of process_probe_new() */
};

struct process_probe *process_probe_new(void);    /* NULL: out of memory; process_read() takes it */
void process_probe_free(struct process_probe *p); /* NULL allowed */
void process_read(struct process_probe *p, struct process_figures *ret);
/* cede_<process>_cpu_seconds_total and so on; sandbox: on and missing as in struct sandbox_report. */
void metric_add_process(struct metrics *m, const char *process, const struct process_figures *f,
	uint32_t layers_on, uint32_t layers_missing);
