/* SPDX-License-Identifier: Apache-2.0
 * Ids of bundles and captures: UUID version 7 (RFC 9562 section 5.7): 48 bits of milliseconds since
 * 1970, then random bits, so that they sort by time and their day can be read from them. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/bytes.h"
#include "base/error.h"
#include "certs/host_id.h" /* HOST_ID_MAX, host_id_valid() */

#define ID_SIZE      16
#define ID_TEXT_SIZE 37 /* "0193577c-…": 36 characters and a NUL */

struct id {
	uint8_t bytes[ID_SIZE];
};

CEDE_MUST_USE int id_make(int64_t wall_ns, struct id *ret, struct cede_error *reterr);
/* So many at once with one call for random numbers; at most ID_BATCH. */
#define ID_BATCH 16
CEDE_MUST_USE int id_make_many(int64_t wall_ns, struct id *ret, size_t n, struct cede_error *reterr);
bool id_equal(const struct id *a, const struct id *b);
void id_print(const struct id *id, char out[ID_TEXT_SIZE]);
/* Exactly the lower-case form with version 7 and variant 2, and a time before the year 10000. */
CEDE_MUST_USE int id_parse(struct slice text, struct id *ret, struct cede_error *reterr);
/* When it was made: milliseconds since 1970 as nanoseconds. */
int64_t id_time_ns(const struct id *id);

#define ID_DAY_SIZE 11
/* "2026/11/23" (UTC), the folder of the receiver's store. */
void id_day(const struct id *id, char out[ID_DAY_SIZE]);
