/* SPDX-License-Identifier: Apache-2.0
 * Time as nanoseconds since 1970 UTC (wall) and since boot (monotonic, counts sleep). */
#pragma once

#include <stdint.h>

#define NS_PER_MS     INT64_C(1000000)
#define NS_PER_SECOND INT64_C(1000000000)

struct timespec;

int64_t clock_wall_ns(void);
int64_t clock_boot_ns(void);
int64_t clock_ns_of(const struct timespec *ts);

#define CLOCK_TEXT_SIZE 40
/* RFC 3339, UTC: "2026-11-23T07:52:27Z", or with nine digits of a second behind a dot. */
void clock_text(int64_t wall_ns, char out[CLOCK_TEXT_SIZE]);
void clock_text_ns(int64_t wall_ns, char out[CLOCK_TEXT_SIZE]);
