/* SPDX-License-Identifier: Apache-2.0 */
#include "base/parse.h"

#include <time.h>

#include "base/check.h"
#include "base/clock.h"

static bool is_digit(uint8_t c) {
	return c >= '0' && c <= '9';
}

int parse_u64(
	struct slice text, uint64_t min, uint64_t max, uint64_t *ret, struct cede_error *reterr) {
	uint64_t v = 0;

	if (text.len == 0 || (text.len > 1 && text.data[0] == '0'))
		return CEDE_FAIL(reterr, CEDE_ERR_INPUT, "a whole number expected");
	for (size_t i = 0; i < text.len; i++) {
		if (!is_digit(text.data[i]))
			return CEDE_FAIL(reterr, CEDE_ERR_INPUT, "a whole number expected");
		if (__builtin_mul_overflow(v, 10U, &v) ||
			__builtin_add_overflow(v, (uint64_t)(text.data[i] - '0'), &v))
			return CEDE_FAIL(reterr, CEDE_ERR_INPUT, "number too large");
	}
	if (v < min || v > max)
		return CEDE_FAIL(reterr, CEDE_ERR_INPUT, "must be %llu to %llu",
			(unsigned long long)min, (unsigned long long)max);
	*ret = v;
	return CEDE_OK;
}

struct unit {
	const char *name;
	uint64_t factor;
};

static int with_unit(struct slice text, const struct unit *units, const char *expected,
	uint64_t *ret, struct cede_error *reterr) {
	size_t digits = 0;
	uint64_t v;

	while (digits < text.len && is_digit(text.data[digits]))
		digits++;
	struct slice rest = slice_of(text.data + digits, text.len - digits);
	for (const struct unit *u = units; u->name != NULL; u++) {
		if (!slice_is(rest, u->name))
			continue;
		CEDE_TRY(parse_u64(slice_of(text.data, digits), 0, UINT64_MAX, &v, reterr));
		if (__builtin_mul_overflow(v, u->factor, &v) || v > INT64_MAX)
			return CEDE_FAIL(reterr, CEDE_ERR_INPUT, "number too large");
		*ret = v;
		return CEDE_OK;
	}
	return CEDE_FAIL(reterr, CEDE_ERR_INPUT, "%s expected", expected);
}

int parse_duration(struct slice text, int64_t *ret_ns, struct cede_error *reterr) {
	static const struct unit units[] = {{"ms", 1000000}, {"s", 1000000000}, {"m", 60000000000},
		{"h", 3600000000000}, {"d", 86400000000000}, {NULL, 0}};
	uint64_t v;

	CEDE_TRY(with_unit(text, units,
		"a duration with its unit (ms, s, m, h or d: 90s, 15m, 24h)", &v, reterr));
	*ret_ns = (int64_t)v;
	return CEDE_OK;
}

int parse_size(struct slice text, uint64_t *ret_bytes, struct cede_error *reterr) {
	static const struct unit units[] = {{"B", 1}, {"KiB", 1 << 10}, {"MiB", 1 << 20},
		{"GiB", 1 << 30}, {"TiB", INT64_C(1) << 40}, {NULL, 0}};

	return with_unit(text, units, "a size with its unit (B, KiB, MiB, GiB or TiB: 16MiB)",
		ret_bytes, reterr);
}

static bool two(const uint8_t *at, int *ret) {
	if (!is_digit(at[0]) || !is_digit(at[1]))
		return false;
	*ret = (at[0] - '0') * 10 + at[1] - '0';
	return true;
}

/* ".123456789" behind the seconds, or nothing; then Z and the end. */
static bool fraction(struct slice rest, int64_t *ret_ns) {
	int64_t ns = 0;
	int64_t place = 100000000;
	size_t i = 0;

	if (rest.len > 0 && rest.data[0] == '.') {
		for (i = 1; i < rest.len && i <= 9 && is_digit(rest.data[i]); i++, place /= 10)
			ns += (rest.data[i] - '0') * place;
		if (i == 1)
			return false;
	}
	*ret_ns = ns;
	return rest.len == i + 1 && rest.data[i] == 'Z';
}

static bool read_time(struct slice text, int64_t *ret_wall_ns) {
	static const char form[] = "dddd-dd-ddTdd:dd:dd";
	size_t base = sizeof form - 1;
	const uint8_t *p = text.data;
	int century, year, month, day, hour, minute, second;
	int64_t ns;

	if (text.len <= base)
		return false;
	for (size_t i = 0; i < base; i++)
		if (form[i] != 'd' && p[i] != (uint8_t)form[i])
			return false;
	if (!two(p, &century) || !two(p + 2, &year) || !two(p + 5, &month) || !two(p + 8, &day) ||
		!two(p + 11, &hour) || !two(p + 14, &minute) || !two(p + 17, &second) ||
		!fraction(slice_of(p + base, text.len - base), &ns))
		return false;
	struct tm tm = {.tm_year = century * 100 + year - 1900,
		.tm_mon = month - 1,
		.tm_mday = day,
		.tm_hour = hour,
		.tm_min = minute,
		.tm_sec = second};
	struct tm check = tm;
	time_t seconds = timegm(&check);
	/* timegm turns 31 June into 1 July: then it was no date */
	if (check.tm_mon != tm.tm_mon || check.tm_mday != tm.tm_mday || check.tm_hour != tm.tm_hour ||
		check.tm_min != tm.tm_min || check.tm_sec != tm.tm_sec ||
		check.tm_year < 1970 - 1900 || check.tm_year > 2261 - 1900)
		return false;
	*ret_wall_ns = (int64_t)seconds * NS_PER_SECOND + ns;
	return true;
}

int parse_time(struct slice text, int64_t *ret_wall_ns, struct cede_error *reterr) {
	if (!read_time(text, ret_wall_ns))
		return CEDE_FAIL(
			reterr, CEDE_ERR_INPUT, "a time in UTC expected (2027-06-30T00:00:00Z)");
	return CEDE_OK;
}

int parse_rate(struct slice text, uint64_t *ret_bytes_per_s, struct cede_error *reterr) {
	static const struct unit bytes[] = {
		{"B/s", 1}, {"KiB/s", 1 << 10}, {"MiB/s", 1 << 20}, {"GiB/s", 1 << 30}, {NULL, 0}};
	static const struct unit bits[] = {{"bit/s", 1}, {"kbit/s", 1000}, {"Mbit/s", 1000000},
		{"Gbit/s", 1000000000}, {NULL, 0}};
	static const char what[] =
		"a rate with its unit (kbit/s, Mbit/s, Gbit/s, KiB/s, MiB/s: 200Mbit/s)";

	if (with_unit(text, bytes, what, ret_bytes_per_s, reterr) == CEDE_OK)
		return CEDE_OK;
	CEDE_TRY(with_unit(text, bits, what, ret_bytes_per_s, reterr));
	*ret_bytes_per_s /= 8;
	return CEDE_OK;
}

int parse_minute(struct slice text, uint32_t *ret, struct cede_error *reterr) {
	bool form = text.len == 5 && text.data[2] == ':';

	for (size_t i = 0; form && i < 5; i++)
		form = i == 2 || (text.data[i] >= '0' && text.data[i] <= '9');
	uint32_t hour =
		form ? (uint32_t)(text.data[0] - '0') * 10 + (uint32_t)(text.data[1] - '0') : 99;
	uint32_t minute =
		form ? (uint32_t)(text.data[3] - '0') * 10 + (uint32_t)(text.data[4] - '0') : 99;
	if (minute > 59 || hour * 60 + minute > 24 * 60)
		return CEDE_FAIL(reterr, CEDE_ERR_INPUT, "a time of day in UTC expected (08:00)");
	*ret = hour * 60 + minute;
	return CEDE_OK;
}
