/* SPDX-License-Identifier: Apache-2.0
 * Metrics as exposition text: Prometheus text format 0.0.4, and the same as OpenMetrics 1.0.
 *
 * A family is begun, then its samples are added, each with its value and its labels:
 *
 *   metric_family(&m, METRIC_GAUGE, "cede_spool_bytes", "Bytes of sealed bundles on the disk.");
 *   metric_add(&m, 17, "source", "faces", NULL);
 *
 * Promise the first failure (memory, the buffer's maximum) stays in m->result and all that follows
 *         does nothing: the caller looks once, at the end. Labels are escaped.
 * Thread  any; what it is given belongs to the caller. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"

enum metric_type { METRIC_COUNTER, METRIC_GAUGE, METRIC_HISTOGRAM };

struct metrics {
	struct buf *out; /* borrowed */
	const char *family;
	int result;
	struct cede_error err;
};

/* Names are checked by `promtool check metrics` in tests: counters end in _total, units are base
 * units. Both texts live as long as the call. */
void metric_family(struct metrics *m, enum metric_type type, const char *name, const char *help);
/* Label name, label value, ..., NULL. */
void metric_add(struct metrics *m, uint64_t value, ...) __attribute__((sentinel));
/* Nanoseconds, written as seconds. */
void metric_add_ns(struct metrics *m, int64_t ns, ...) __attribute__((sentinel));

#define HISTOGRAM_BUCKETS 12

/* Durations, counted in buckets; zeroed is empty. The limits are the same for all. */
struct histogram {
	uint64_t counts[HISTOGRAM_BUCKETS + 1]; /* each in the first bucket that holds it */
	uint64_t sum_us;
};

void histogram_add(struct histogram *h, int64_t ns); /* negative (the clock was set): as 0 */
void histogram_merge(struct histogram *to, const struct histogram *from);
void metric_add_histogram(struct metrics *m, const struct histogram *h, ...)
	__attribute__((sentinel));

/* Turns a whole text of format 0.0.4 into OpenMetrics 1.0: counters are named without their _total
 * in HELP and TYPE, and "# EOF" ends it. */
CEDE_MUST_USE int metric_openmetrics(struct slice text, struct buf *out, struct cede_error *reterr);

/* Whether an Accept header (NULL: none) asks for OpenMetrics 1.0 at least as much as for the text
 * format. Anything that can't be understood does not. */
bool metric_wants_openmetrics(const char *accept);

#define METRIC_TEXT_TYPE        "text/plain; version=0.0.4; charset=utf-8"
#define METRIC_OPENMETRICS_TYPE "application/openmetrics-text; version=1.0.0; charset=utf-8"
