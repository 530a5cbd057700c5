/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
/* cmocka.h needs the four above first */
#include <cmocka.h>

#include "base/check.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/metric.h"

static void assert_text(struct buf *b, const char *want) {
	const char *got;

	assert_int_equal(buf_string(b, &got, NULL), CEDE_OK);
	assert_string_equal(got, want);
}

static void samples_have_labels_and_seconds(void **state) {
	CLEANUP(buf_done) struct buf b = BUF_INIT(4096);
	struct metrics m = {.out = &b};

	(void)state;
	metric_family(&m, METRIC_COUNTER, "a_total", "Help.");
	metric_add(&m, UINT64_MAX, NULL);
	metric_add(&m, 1, "source", "q\"b\\n\nx", "state", "ready", NULL);
	metric_family(&m, METRIC_GAUGE, "t_seconds", "Time.");
	metric_add_ns(&m, 1500000000, NULL);
	metric_add_ns(&m, 1, NULL);
	metric_add_ns(&m, 0, NULL);
	metric_add_ns(&m, -2 * NS_PER_SECOND, NULL);
	metric_add_ns(&m, INT64_MIN, NULL);
	assert_int_equal(m.result, CEDE_OK);
	assert_text(&b,
		"# HELP a_total Help.\n# TYPE a_total counter\n"
		"a_total 18446744073709551615\n"
		"a_total{source=\"q\\\"b\\\\n\\nx\",state=\"ready\"} 1\n"
		"# HELP t_seconds Time.\n# TYPE t_seconds gauge\n"
		"t_seconds 1.5\nt_seconds 0.000000001\nt_seconds 0\nt_seconds -2\n"
		"t_seconds -9223372036.854775808\n");
}

static void histograms_count_upwards(void **state) {
	CLEANUP(buf_done) struct buf b = BUF_INIT(4096);
	struct metrics m = {.out = &b};
	struct histogram h = {0};

	(void)state;
	histogram_add(&h, -5);
	histogram_add(&h, 50 * NS_PER_MS); /* the limit belongs to its bucket */
	histogram_add(&h, 50 * NS_PER_MS + 1);
	histogram_add(&h, 200000 * NS_PER_SECOND);
	metric_family(&m, METRIC_HISTOGRAM, "h_seconds", "H.");
	metric_add_histogram(&m, &h, "source", "a", NULL);
	assert_int_equal(m.result, CEDE_OK);
	assert_text(&b,
		"# HELP h_seconds H.\n# TYPE h_seconds histogram\n"
		"h_seconds_bucket{source=\"a\",le=\"0.05\"} 2\n"
		"h_seconds_bucket{source=\"a\",le=\"0.1\"} 3\n"
		"h_seconds_bucket{source=\"a\",le=\"0.25\"} 3\n"
		"h_seconds_bucket{source=\"a\",le=\"0.5\"} 3\n"
		"h_seconds_bucket{source=\"a\",le=\"1.0\"} 3\n"
		"h_seconds_bucket{source=\"a\",le=\"2.5\"} 3\n"
		"h_seconds_bucket{source=\"a\",le=\"10.0\"} 3\n"
		"h_seconds_bucket{source=\"a\",le=\"60.0\"} 3\n"
		"h_seconds_bucket{source=\"a\",le=\"300.0\"} 3\n"
		"h_seconds_bucket{source=\"a\",le=\"1800.0\"} 3\n"
		"h_seconds_bucket{source=\"a\",le=\"14400.0\"} 3\n"
		"h_seconds_bucket{source=\"a\",le=\"86400.0\"} 3\n"
		"h_seconds_bucket{source=\"a\",le=\"+Inf\"} 4\n"
		"h_seconds_sum{source=\"a\"} 200000.1\n"
		"h_seconds_count{source=\"a\"} 4\n");
}

static void a_full_buffer_is_told_once_at_the_end(void **state) {
	CLEANUP(buf_done) struct buf b = BUF_INIT(60);
	struct metrics m = {.out = &b};

	(void)state;
	metric_family(&m, METRIC_GAUGE, "a", "Help.");
	for (int i = 0; i < 40; i++)
		metric_add(&m, 1, "source", "name", NULL);
	assert_int_equal(m.result, CEDE_ERR_INPUT);
	assert_true(b.len <= 60);
}

static void openmetrics_names_counters_without_their_total(void **state) {
	static const char in[] =
		"# HELP a_total Of a_total b.\n# TYPE a_total counter\na_total 1\n"
		"# HELP _total X.\n# TYPE g gauge\ng{s=\"# TYPE x_total\"} 2\n# HELP\n";
	CLEANUP(buf_done) struct buf b = BUF_INIT(4096);

	(void)state;
	assert_int_equal(metric_openmetrics(slice_str(in), &b, NULL), CEDE_OK);
	assert_text(&b,
		"# HELP a Of a_total b.\n# TYPE a counter\na_total 1\n"
		"# HELP _total X.\n# TYPE g gauge\ng{s=\"# TYPE x_total\"} 2\n# HELP\n# EOF\n");
}

static void the_accept_header_decides(void **state) {
	static const struct {
		const char *accept;
		bool want;
	} cases[] = {
		{NULL, false},
		{"", false},
		{"*/*", false},
		{"text/plain", false},
		{"application/openmetrics-text", true},
		{"Application/OpenMetrics-Text; Version=1.0.0; charset=utf-8", true},
		/* what Prometheus 2.42 sends */
		{"application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,"
		 "text/plain;version=0.0.4;q=0.5,*/*;q=0.1",
			true},
		/* a scraper that takes only an older one */
		{"application/openmetrics-text;version=0.0.1;q=0.75,text/plain;version=0.0.4;q=0.5",
			false},
		{"application/openmetrics-text;q=0.5,text/plain;q=0.6", false},
		{"application/openmetrics-text;q=0.5,text/plain;q=0.5", true},
		{"application/openmetrics-text;q=0", false},
		{"application/openmetrics-text;q=0.000", false},
		{"application/openmetrics-text;q=2", false},
		{"application/openmetrics-text;q=1.001", false},
		{"application/openmetrics-text;q=-1", false},
		{"application/openmetrics-text;q=0.0001", false},
		{"application/openmetrics-text;q=x", false},
		{"application/openmetrics-text;q", true},
		{"application/openmetrics-text;q=", false},
		{",,;;,=;q=1", false},
		{"application/openmetrics-texts", false},
		{"application/openmetrics-tex", false},
		{"\t application/openmetrics-text \t;\tq = 1", true},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_LENGTH(cases); i++)
		if (metric_wants_openmetrics(cases[i].accept) != cases[i].want)
			fail_msg("Accept: %s", cases[i].accept);
}

int main(void) {
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(samples_have_labels_and_seconds),
		cmocka_unit_test(histograms_count_upwards),
		cmocka_unit_test(a_full_buffer_is_told_once_at_the_end),
		cmocka_unit_test(openmetrics_names_counters_without_their_total),
		cmocka_unit_test(the_accept_header_decides),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
