/* SPDX-License-Identifier: Apache-2.0
 * What a server may ask for with Retry-After (RFC 9110 section 10.2.3): seconds, or a date. */
#pragma once

#include <stdint.h>
#include <time.h>

#include "base/bytes.h"

#define RETRY_AFTER_MOST_S 86400

/* Seconds from `now` on, at most the above; 0 for what is past or no such value. `now`: the
 * server's own idea of it (its Date), so that a clock that is wrong on either side does no harm. */
uint32_t retry_after_s(struct slice value, time_t now);
