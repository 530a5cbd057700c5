/* SPDX-License-Identifier: Apache-2.0 */
#include "base/metric.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "base/check.h"
#include "base/clock.h"
#include "base/parse.h"

#define US_PER_SECOND 1000000U

static const char *const type_names[] = {"counter", "gauge", "histogram"};

/* From what a hand-over takes when all is well (a fraction of a second) to a day; as OpenMetrics 1.0
 * writes numbers (section "Numbers"), so that a series has one name in both formats. */
static const struct {
	int64_t ms;
	const char *text;
} buckets[HISTOGRAM_BUCKETS] = {{50, "0.05"}, {100, "0.1"}, {250, "0.25"}, {500, "0.5"},
	{1000, "1.0"}, {2500, "2.5"}, {10000, "10.0"}, {60000, "60.0"}, {300000, "300.0"},
	{1800000, "1800.0"}, {14400000, "14400.0"}, {86400000, "86400.0"}};

static void text(struct metrics *m, const char *s, size_t len) {
	if (m->result == CEDE_OK)
		m->result = buf_add(m->out, s, len, &m->err);
}

static void words(struct metrics *m, const char *s) {
	text(m, s, strlen(s));
}

void metric_family(struct metrics *m, enum metric_type type, const char *name, const char *help) {
	m->family = name;
	if (m->result == CEDE_OK)
		m->result = buf_addf(m->out, &m->err, "# HELP %s %s\n# TYPE %s %s\n", name, help,
			name, type_names[type]);
}

static void escaped(struct metrics *m, const char *value) {
	for (const char *c = value; *c != 0; c++)
		if (*c == '\n')
			words(m, "\\n");
		else if (*c == '"' || *c == '\\')
			text(m, (const char[]){'\\', *c}, 2);
		else
			text(m, c, 1);
}

static void label(struct metrics *m, const char **between, const char *name, const char *value) {
	words(m, *between);
	words(m, name);
	words(m, "=\"");
	escaped(m, value);
	words(m, "\"");
	*between = ",";
}

/* family + suffix + labels, with one more label if le is not NULL. */
static void sample(struct metrics *m, const char *suffix, const char *le, va_list labels) {
	const char *between = "{";
	const char *name;

	words(m, m->family);
	words(m, suffix);
	while ((name = va_arg(labels, const char *)) != NULL)
		label(m, &between, name, va_arg(labels, const char *));
	if (le != NULL)
		label(m, &between, "le", le);
	words(m, between[0] == ',' ? "} " : " ");
}

static void number(struct metrics *m, uint64_t value) {
	char digits[32];

	text(m, digits, (size_t)snprintf(digits, sizeof digits, "%llu\n", (unsigned long long)value));
}

/* In units of a second's parts, without zeros at its end. */
static void fraction(struct metrics *m, uint64_t value, uint32_t per_second, int places) {
	char digits[48];
	int n = snprintf(digits, sizeof digits, "%llu.%0*llu",
		(unsigned long long)(value / per_second), places,
		(unsigned long long)(value % per_second));

	while (digits[n - 1] == '0')
		n--;
	if (digits[n - 1] == '.')
		n--;
	text(m, digits, (size_t)n);
	words(m, "\n");
}

void metric_add(struct metrics *m, uint64_t value, ...) {
	va_list labels;

	va_start(labels, value);
	sample(m, "", NULL, labels);
	va_end(labels);
	number(m, value);
}

void metric_add_ns(struct metrics *m, int64_t ns, ...) {
	va_list labels;

	va_start(labels, ns);
	sample(m, "", NULL, labels);
	va_end(labels);
	if (ns < 0)
		words(m, "-");
	fraction(m, ns < 0 ? -(uint64_t)ns : (uint64_t)ns, (uint32_t)NS_PER_SECOND, 9);
}

/* ---- histograms */

void histogram_add(struct histogram *h, int64_t ns) {
	size_t i = 0;

	if (ns < 0)
		ns = 0;
	while (i < HISTOGRAM_BUCKETS && ns > buckets[i].ms * NS_PER_MS)
		i++;
	h->counts[i]++;
	h->sum_us += (uint64_t)ns / 1000;
}

void histogram_merge(struct histogram *to, const struct histogram *from) {
	for (size_t i = 0; i <= HISTOGRAM_BUCKETS; i++)
		to->counts[i] += from->counts[i];
	to->sum_us += from->sum_us;
}

void metric_add_histogram(struct metrics *m, const struct histogram *h, ...) {
	va_list labels, copy;
	uint64_t all = 0;

	va_start(labels, h);
	for (size_t i = 0; i <= HISTOGRAM_BUCKETS; i++) {
		all += h->counts[i];
		va_copy(copy, labels);
		sample(m, "_bucket", i < HISTOGRAM_BUCKETS ? buckets[i].text : "+Inf", copy);
		va_end(copy);
		number(m, all);
	}
	va_copy(copy, labels);
	sample(m, "_sum", NULL, copy);
	va_end(copy);
	fraction(m, h->sum_us, US_PER_SECOND, 6);
	sample(m, "_count", NULL, labels);
	va_end(labels);
	number(m, all);
}

/* ---- OpenMetrics */

/* "# HELP x_total ..." and "# TYPE x_total counter" name the family: x. */
static int convert_line(struct slice line, struct buf *out, struct cede_error *reterr) {
	static const char total[] = "_total";
	const size_t head = 7; /* "# HELP " */
	struct slice name, rest;

	if ((slice_starts(line, "# HELP ") || slice_starts(line, "# TYPE ")) &&
		slice_cut(slice_of(line.data + head, line.len - head), ' ', &name, &rest) &&
		name.len > sizeof total - 1 &&
		memcmp(name.data + name.len - (sizeof total - 1), total, sizeof total - 1) == 0) {
		CEDE_TRY(buf_add(out, line.data, head + name.len - (sizeof total - 1), reterr));
		CEDE_TRY(buf_add(out, " ", 1, reterr));
		CEDE_TRY(buf_add(out, rest.data, rest.len, reterr));
	} else {
		CEDE_TRY(buf_add(out, line.data, line.len, reterr));
	}
	return buf_add(out, "\n", 1, reterr);
}

int metric_openmetrics(struct slice all, struct buf *out, struct cede_error *reterr) {
	struct slice line;

	while (slice_cut(all, '\n', &line, &all))
		CEDE_TRY(convert_line(line, out, reterr));
	return buf_add_str(out, "# EOF\n", reterr);
}

static struct slice trim(struct slice s) {
	while (s.len > 0 && (s.data[0] == ' ' || s.data[0] == '\t'))
		s = slice_of(s.data + 1, s.len - 1);
	while (s.len > 0 && (s.data[s.len - 1] == ' ' || s.data[s.len - 1] == '\t'))
		s.len--;
	return s;
}

static bool next_part(struct slice *rest, uint8_t c, struct slice *ret) {
	if (rest->data == NULL)
		return false;
	if (!slice_cut(*rest, c, ret, rest)) {
		*ret = *rest;
		*rest = SLICE_NONE;
	}
	*ret = trim(*ret);
	return true;
}

/* "1", "0.75" as thousandths; what is no weight counts as none. */
static unsigned weight(struct slice s) {
	unsigned thousandths = 0, unit = 1000;

	if (s.len == 0 || s.len > 5 || (s.len > 1 && s.data[1] != '.'))
		return 0;
	for (size_t i = 0; i < s.len; i++) {
		if (i == 1)
			continue;
		if (s.data[i] < '0' || s.data[i] > '9')
			return 0;
		thousandths += unit * (unsigned)(s.data[i] - '0');
		unit /= 10;
	}
	return thousandths > 1000 ? 0 : thousandths;
}

static bool same_word(struct slice s, const char *word) {
	return s.len == strlen(word) && strncasecmp((const char *)s.data, word, s.len) == 0;
}

bool metric_wants_openmetrics(const char *accept) {
	struct slice rest = slice_str(accept == NULL ? "" : accept);
	unsigned open = 0, plain = 0;
	struct slice range, parameter;

	while (next_part(&rest, ',', &range)) {
		struct slice type;
		unsigned q = 1000;
		bool other_version = false;
		if (!next_part(&range, ';', &type))
			continue;
		while (next_part(&range, ';', &parameter)) {
			struct slice key, value;
			if (!slice_cut(parameter, '=', &key, &value))
				continue;
			if (same_word(trim(key), "q"))
				q = weight(trim(value));
			else if (same_word(trim(key), "version"))
				other_version = !slice_is(trim(value), "1.0.0");
		}
		if (same_word(type, "application/openmetrics-text") && !other_version && q > open)
			open = q;
		if (same_word(type, "text/plain") && q > plain)
			plain = q;
	}
	return open > 0 && open >= plain;
}
