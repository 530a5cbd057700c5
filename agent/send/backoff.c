/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/send/backoff.h"

uint32_t backoff_ms(unsigned failures, uint32_t random, uint32_t asked_s) {
	uint32_t full = BACKOFF_FIRST_MS;

	for (unsigned i = 1; i < failures && full < BACKOFF_MOST_MS; i++)
		full *= 2;
	if (full > BACKOFF_MOST_MS)
		full = BACKOFF_MOST_MS;
	uint32_t wait = full / 2 + random % (full / 2 + 1);
	uint32_t asked = (asked_s > BACKOFF_ASKED_MOST_S ? BACKOFF_ASKED_MOST_S : asked_s) * 1000;

	return wait > asked ? wait : asked;
}
