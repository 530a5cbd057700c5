/* SPDX-License-Identifier: Apache-2.0
 * Numbers, durations, sizes, rates and times, strictly: the whole text or INPUT with the reason. */
#pragma once

#include <stdint.h>

#include "base/bytes.h"
#include "base/error.h"

/* Decimal, no sign, no leading zero, min..max. */
CEDE_MUST_USE int parse_u64(
	struct slice text, uint64_t min, uint64_t max, uint64_t *ret, struct cede_error *reterr);
/* "500ms" "90s" "15m" "24h" "7d" -> nanoseconds. A number without a unit is an error; "0s" is fine. */
CEDE_MUST_USE int parse_duration(struct slice text, int64_t *ret_ns, struct cede_error *reterr);
/* "512B" "64KiB" "16MiB" "2GiB" -> bytes. */
CEDE_MUST_USE int parse_size(struct slice text, uint64_t *ret_bytes, struct cede_error *reterr);
/* "64KiB/s" "5MiB/s", "256kbit/s" "200Mbit/s" "1Gbit/s" (a kbit is 1000 bits) -> bytes a second. */
CEDE_MUST_USE int parse_rate(struct slice text, uint64_t *ret_bytes_per_s, struct cede_error *reterr);
/* "08:00" "24:00" -> minutes since midnight. */
CEDE_MUST_USE int parse_minute(struct slice text, uint32_t *ret, struct cede_error *reterr);
/* RFC 3339 section 5.6 with the zone Z: "2027-06-30T00:00:00Z", a fraction of up to nine digits. */
CEDE_MUST_USE int parse_time(struct slice text, int64_t *ret_wall_ns, struct cede_error *reterr);
