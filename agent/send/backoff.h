/* SPDX-License-Identifier: Apache-2.0
 * Waiting times as a pure function. */
#pragma once

#include <stdint.h>

#define BACKOFF_FIRST_MS     250
#define BACKOFF_MOST_MS      30000
#define BACKOFF_ASKED_MOST_S 300 /* Retry-After counts up to this */

/* Milliseconds to wait after so many failures in a row (at least 1): doubling, capped, 50 to 100 %
 * of it by `random`; never less than the server asked for (Retry-After, seconds; 0: nothing). */
uint32_t backoff_ms(unsigned failures, uint32_t random, uint32_t asked_s);
