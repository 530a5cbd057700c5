/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/courier/retry_after.h"

#include <curl/curl.h>
#include <stdbool.h>
#include <string.h>

static bool seconds_of(struct slice value, uint64_t *ret) {
	uint64_t seconds = 0;

	for (size_t i = 0; i < value.len; i++) {
		if (value.data[i] < '0' || value.data[i] > '9')
			return false;
		if (seconds <= RETRY_AFTER_MOST_S) /* any number of digits: it is too many then */
			seconds = seconds * 10 + (uint64_t)(value.data[i] - '0');
	}
	*ret = seconds;
	return value.len > 0;
}

uint32_t retry_after_s(struct slice value, time_t now) {
	char text[64];
	uint64_t seconds;

	if (!seconds_of(value, &seconds)) {
		if (value.len >= sizeof text)
			return 0;
		memcpy(text, value.data, value.len);
		text[value.len] = 0;
		time_t when = curl_getdate(text, NULL);
		seconds = when > now ? (uint64_t)(when - now) : 0;
	}
	return (uint32_t)(seconds > RETRY_AFTER_MOST_S ? RETRY_AFTER_MOST_S : seconds);
}
