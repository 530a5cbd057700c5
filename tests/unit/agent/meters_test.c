/* SPDX-License-Identifier: Apache-2.0
 * The keeper's page of the largest policy that there can be. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* cmocka.h needs the four above first */
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent/core/meters.h"
#include "agent/ipc/message.h"
#include "base/check.h"
#include "base/cleanup.h"
#include "policy/policy.h"

#define NAME "a-name-of-64-letters-as-long-as-the-names-of-a-policy-can-be-%03zu"

struct largest {
	struct policy policy;
	struct policy_source sources[POLICY_SOURCES_MAX];
	struct policy_destination destinations[POLICY_DESTINATIONS_MAX];
	struct figures figures;
	struct meters meters;
};

static char *long_name(size_t i) {
	char *name;

	assert_int_equal(asprintf(&name, NAME, i), 64);
	return name;
}

static void fill(struct largest *l) {
	/* every counter as long as it gets, every flag set */
	memset(&l->figures, 0xff, sizeof l->figures);
	l->policy.sources = l->sources;
	l->policy.source_count = POLICY_SOURCES_MAX;
	l->policy.destinations = l->destinations;
	l->policy.destination_count = POLICY_DESTINATIONS_MAX;
	l->policy.serial = UINT64_MAX;
	l->policy.expires_ns = INT64_MAX;
	for (size_t i = 0; i < POLICY_SOURCES_MAX; i++) {
		l->sources[i].name = long_name(i);
		l->sources[i].max_age_ns = INT64_MAX;
		struct source_figures *f = &l->figures.sources[i];
		f->missing = f->unwatched = true;
		f->tally.oldest_born_ns = f->oldest_other_ns = 0;
		f->scanned_ns = INT64_MAX;
	}
	for (size_t i = 0; i < POLICY_DESTINATIONS_MAX; i++) {
		l->destinations[i].name = long_name(i);
		l->figures.destinations[i].up = true;
		l->figures.destinations[i].receipt_ns = INT64_MAX;
	}
	struct flow_figures *f = &l->figures.flow;
	f->guard_wanted = f->guard_active = f->spool_full = f->ledger_failing = f->recovered =
		f->expired = true;
	f->checkpoint_ns = f->acknowledged_ns = INT64_MAX;
	f->vault_oldest_ns = INT64_MAX - 1;
	f->unwritten_ns = 1;
	l->meters = (struct meters){.policy = &l->policy,
		.figures = &l->figures,
		.now_ns = INT64_MAX,
		.reloads = UINT64_MAX,
		.bad_reloads = UINT64_MAX,
		.reload_ns = INT64_MAX,
		.courier_starts = UINT64_MAX,
		.ledger_bytes = UINT64_MAX,
		.certificate_count = METERS_CERTIFICATES_MAX,
		.layers_on = UINT32_MAX,
		.layers_missing = UINT32_MAX,
		.unmet = UINT32_MAX};
	memset(&l->meters.process, 0x7f, sizeof l->meters.process);
	for (size_t i = 0; i < METERS_CERTIFICATES_MAX; i++)
		l->meters.certificates[i] = (struct meters_certificate){.role = "server-ca",
			.destination = l->destinations[i % POLICY_DESTINATIONS_MAX].name,
			.until_ns = INT64_MAX};
}

static void the_page_of_the_largest_policy_fits(void **state) {
	CLEANUP(buf_done) struct buf text = BUF_INIT(IPC_METRICS_MAX);
	CLEANUP(buf_done) struct buf open = BUF_INIT(IPC_METRICS_MAX);
	struct largest *l = calloc(1, sizeof *l);
	struct cede_error err = {0};

	(void)state;
	assert_non_null(l);
	fill(l);
	if (meters_text(&l->meters, &text, &err) < 0)
		fail_msg("%s", err.text);
	print_message("%zu bytes of at most %u\n", text.len, IPC_METRICS_MAX);
	/* room for what is counted one day */
	assert_true(text.len < IPC_METRICS_MAX / 4 * 3);
	assert_int_equal(metric_openmetrics(buf_slice(&text), &open, NULL), CEDE_OK);
	for (size_t i = 0; i < POLICY_SOURCES_MAX; i++)
		free(l->sources[i].name);
	for (size_t i = 0; i < POLICY_DESTINATIONS_MAX; i++)
		free(l->destinations[i].name);
	free(l);
}

static void while_nothing_is_recorded_the_age_grows(void **state) {
	struct largest *l = calloc(1, sizeof *l);

	(void)state;
	assert_non_null(l);
	l->meters = (struct meters){.figures = &l->figures, .now_ns = 1000};
	struct source_figures *s = &l->figures.sources[0];
	s->tally.oldest_born_ns = s->oldest_other_ns = INT64_MAX;
	assert_int_equal(meters_oldest_age_ns(&l->meters, 0), 0);
	l->figures.flow.unwritten_ns = 400;
	assert_int_equal(meters_oldest_age_ns(&l->meters, 0), 600);
	s->oldest_other_ns = 300; /* known from before */
	assert_int_equal(meters_oldest_age_ns(&l->meters, 0), 700);
	s->oldest_other_ns = 500;
	assert_int_equal(meters_oldest_age_ns(&l->meters, 0), 600);
	l->figures.flow.unwritten_ns = 0;
	assert_int_equal(meters_oldest_age_ns(&l->meters, 0), 500);
	free(l);
}

int main(void) {
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_page_of_the_largest_policy_fits),
		cmocka_unit_test(while_nothing_is_recorded_the_age_grows),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
