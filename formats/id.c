/* SPDX-License-Identifier: Apache-2.0 */
#include "formats/id.h"

#include <stdio.h>
#include <string.h>
#include <sys/random.h>

#include "base/check.h"
#include "base/clock.h"
#include "base/hex.h"

#define LAST_MS INT64_C(253402300799999) /* 9999-12-31T23:59:59.999Z */

int id_make_many(int64_t wall_ns, struct id *ret, size_t n, struct cede_error *reterr) {
	int64_t ms = wall_ns / NS_PER_MS;

	require(n <= ID_BATCH); /* up to 256 bytes come whole or not at all (getrandom(2)) */
	if (ms < 0 || ms > LAST_MS)
		return CEDE_FAIL(
			reterr, CEDE_ERR_INPUT, "the clock is outside the years 1970 to 9999");
	if (getrandom(ret, n * sizeof *ret, 0) != (ssize_t)(n * sizeof *ret))
		return CEDE_FAIL_SYS(reterr, "random numbers");
	for (struct id *id = ret; id < ret + n; id++) {
		for (int i = 0; i < 6; i++)
			id->bytes[i] = (uint8_t)(ms >> (40 - 8 * i));
		id->bytes[6] = (uint8_t)(0x70 | (id->bytes[6] & 0x0f));
		id->bytes[8] = (uint8_t)(0x80 | (id->bytes[8] & 0x3f));
	}
	return CEDE_OK;
}

int id_make(int64_t wall_ns, struct id *ret, struct cede_error *reterr) {
	return id_make_many(wall_ns, ret, 1, reterr);
}

bool id_equal(const struct id *a, const struct id *b) {
	return memcmp(a->bytes, b->bytes, ID_SIZE) == 0;
}

void id_print(const struct id *id, char out[ID_TEXT_SIZE]) {
	static const uint8_t groups[] = {4, 2, 2, 2, 6};
	const uint8_t *in = id->bytes;

	for (size_t g = 0; g < sizeof groups; g++) {
		if (g > 0)
			*out++ = '-';
		hex_print(in, groups[g], out);
		in += groups[g];
		out += 2 * groups[g];
	}
}

static int64_t milliseconds(const struct id *id) {
	uint64_t ms = 0;

	for (int i = 0; i < 6; i++)
		ms = ms << 8 | id->bytes[i];
	return (int64_t)ms;
}

int id_parse(struct slice text, struct id *ret, struct cede_error *reterr) {
	static const uint8_t dashes[] = {8, 13, 18, 23};
	uint8_t digits[2 * ID_SIZE];
	size_t n = 0;
	struct id id;

	if (text.len != ID_TEXT_SIZE - 1)
		goto bad;
	for (size_t i = 0; i < sizeof dashes; i++)
		if (text.data[dashes[i]] != '-')
			goto bad;
	for (size_t i = 0; i < text.len; i++)
		if (i != 8 && i != 13 && i != 18 && i != 23)
			digits[n++] = text.data[i];
	if (hex_parse(slice_of(digits, n), id.bytes, ID_SIZE, NULL) < 0)
		goto bad;
	if (id.bytes[6] >> 4 != 7 || id.bytes[8] >> 6 != 2 || milliseconds(&id) > LAST_MS)
		goto bad;
	*ret = id;
	return CEDE_OK;
bad:
	return CEDE_FAIL(reterr, CEDE_ERR_INPUT,
		"an id expected: a UUID of version 7 in lower-case letters (RFC 9562)");
}

int64_t id_time_ns(const struct id *id) {
	int64_t ms = milliseconds(id);

	return ms > INT64_MAX / NS_PER_MS ? INT64_MAX : ms * NS_PER_MS;
}

void id_day(const struct id *id, char out[ID_DAY_SIZE]) {
	char text[CLOCK_TEXT_SIZE];

	clock_text(id_time_ns(id), text);
	memcpy(out, text, ID_DAY_SIZE - 1);
	out[4] = out[7] = '/';
	out[ID_DAY_SIZE - 1] = 0;
}
