/* SPDX-License-Identifier: Apache-2.0
 * Large captures, which go in segments. */
#include "base/cleanup.h"
#include "tests/unit/ledger/tool.h"

static void a_large_capture_waits_for_all_its_receipts(void **state) {
	struct ledger *l = of(state);
	int64_t row, rows[64];

	(void)seen(l, "large", "", 1, 200, NOW, &row);
	assert_int_equal(take(l, 1, 100, rows), 1);
	int64_t first = seal(l, NULL, 0, false, NULL);
	one_segment(l, row, first, 0, 2);
	assert_int_equal(state_of(l, row), CAPTURE_READY); /* for its next one */
	assert_int_equal(take(l, 1, 100, rows), 1);
	int64_t second = seal(l, NULL, 0, false, NULL);
	one_segment(l, row, second, 1, 2);
	assert_int_equal(state_of(l, row), CAPTURE_SEALED);
	receipted(l, second);
	assert_int_equal(state_of(l, row), CAPTURE_SEALED);
	assert_false(done(l, second));
	receipted(l, first);
	assert_int_equal(state_of(l, row), CAPTURE_WIPING);
	wiped(l, row);
	assert_true(done(l, first));
	assert_false(done(l, second)); /* the first one's end was its end too */
}

static void next_segment_is(struct ledger *l, int64_t row, uint64_t index, uint64_t size) {
	struct ledger_segments all;

	assert_int_equal(ledger_segments_of(l, row, &all, NULL), CEDE_OK);
	assert_int_equal(all.next, index);
	assert_int_equal(all.size, size);
}

static void recover(struct ledger *l) {
	begin(l);
	assert_int_equal(ledger_recover(l, NULL), CEDE_OK);
	commit(l);
}

static void a_large_capture_goes_on_where_it_was(void **state) {
	struct ledger *l = of(state);
	int64_t row, rows[64], bundles[4];

	(void)seen(l, "large", "", 1, 350, NOW, &row);
	next_segment_is(l, row, 0, 0);
	for (uint32_t i = 0; i < 3; i++) {
		assert_int_equal(take(l, 1, 100, rows), 1);
		bundles[i] = seal(l, NULL, 0, false, NULL);
		one_segment(l, row, bundles[i], i, 4);
	}
	next_segment_is(l, row, 3, 100);
	assert_int_equal(take(l, 1, 100, rows), 1); /* being read when the process dies */
	recover(l);
	assert_int_equal(state_of(l, row), CAPTURE_READY);
	next_segment_is(l, row, 3, 100);
	receipted(l, bundles[0]);
	receipted(l, bundles[2]);
	assert_false(done(l, bundles[0]));
	abandon(l, bundles[1]); /* lost with the process: only this one goes again */
	next_segment_is(l, row, 1, 100);
	assert_int_equal(take(l, 1, 100, rows), 1);
	bundles[1] = seal(l, NULL, 0, false, NULL);
	one_segment(l, row, bundles[1], 1, 4);
	next_segment_is(l, row, 3, 100);
	assert_int_equal(take(l, 1, 100, rows), 1);
	bundles[3] = seal(l, NULL, 0, false, NULL);
	one_segment(l, row, bundles[3], 3, 4);
	assert_int_equal(state_of(l, row), CAPTURE_SEALED);
	receipted(l, bundles[1]);
	assert_int_equal(state_of(l, row), CAPTURE_SEALED);
	receipted(l, bundles[3]);
	assert_int_equal(state_of(l, row), CAPTURE_WIPING);
	wiped(l, row);
	assert_true(done(l, bundles[3]));
}

static void a_segment_lost_while_another_is_read(void **state) {
	struct ledger *l = of(state);
	int64_t row, rows[64];

	(void)seen(l, "large", "", 1, 200, NOW, &row);
	assert_int_equal(take(l, 1, 100, rows), 1);
	int64_t first = seal(l, NULL, 0, false, NULL);
	one_segment(l, row, first, 0, 2);
	assert_int_equal(take(l, 1, 100, rows), 1);
	abandon(l, first);
	assert_int_equal(state_of(l, row), CAPTURE_BUNDLED); /* the reader is not disturbed */
	one_segment(l, row, seal(l, NULL, 0, false, NULL), 1, 2);
	assert_int_equal(state_of(l, row), CAPTURE_READY);
	next_segment_is(l, row, 0, 100);
}

static void a_large_capture_that_lost_all_fits_one_bundle(void **state) {
	struct ledger *l = of(state);
	int64_t row, rows[64];

	(void)seen(l, "large", "", 1, 200, NOW, &row);
	assert_int_equal(take(l, 1, 100, rows), 1);
	int64_t bundle = seal(l, NULL, 0, false, NULL);
	one_segment(l, row, bundle, 0, 2);
	abandon(l, bundle);
	next_segment_is(l, row, 0, 0);
	assert_int_equal(take(l, 1, 200, rows), 1); /* the next policy has larger bundles */
	bundle = seal(l, rows, 1, false, NULL);
	receipted(l, bundle);
	assert_int_equal(state_of(l, row), CAPTURE_WIPING);
}

static void segments_of_two_versions_never_share_an_id(void **state) {
	struct ledger *l = of(state);
	int64_t row, other, rows[64];

	(void)seen(l, "large", "", 1, 200, NOW, &row);
	assert_int_equal(take(l, 1, 100, rows), 1);
	int64_t bundle = seal(l, NULL, 0, false, NULL);
	one_segment(l, row, bundle, 0, 2);
	receipted(l, bundle);
	assert_int_equal(seen(l, "large", "", 1, 200, NOW, &other), LEDGER_SEEN_KNOWN);
	assert_int_equal(other, row);
	assert_int_equal(seen(l, "large", "", 2, 200, NOW, &other), LEDGER_SEEN_NEW);
	assert_int_not_equal(other, row);
	assert_int_equal(state_of(l, row), CAPTURE_REPLACED);
	assert_false(done(l, bundle)); /* its end came with the capture's */
}

static void a_large_capture_can_be_wiped_after_seal(void **state) {
	struct ledger *l = of(state);
	int64_t row, rows[64], bundles[2];

	(void)seen(l, "large", "", 1, 200, NOW, &row);
	for (uint32_t i = 0; i < 2; i++) {
		assert_int_equal(take(l, 1, 100, rows), 1);
		bundles[i] = seal(l, NULL, 0, true, NULL);
		one_segment(l, row, bundles[i], i, 2);
		begin(l);
		assert_int_equal(ledger_bundle_wiping(l, bundles[i], NOW, NULL), CEDE_OK);
		commit(l);
		assert_int_equal(state_of(l, row), i == 0 ? CAPTURE_READY : CAPTURE_WIPING);
	}
	wiped(l, row);
	receipted(l, bundles[0]);
	receipted(l, bundles[1]);
	assert_true(done(l, bundles[0]) || done(l, bundles[1]));
}

static void a_large_capture_stays_while_its_next_segment_is_sealed(void **state) {
	struct ledger_segment segment = {.count = 3, .size = 100, .more = true};
	struct ledger *l = of(state);
	int64_t row, rows[64];

	(void)seen(l, "large", "", 1, 300, NOW, &row);
	assert_int_equal(take(l, 1, 100, rows), 1);
	for (uint32_t i = 0; i < 3; i++) {
		int64_t bundle = seal(l, NULL, 0, false, NULL);
		segment.index = i;
		segment.offset = UINT64_C(100) * i;
		segment.more = i < 2;
		begin(l);
		assert_int_equal(ledger_segment_sealed(l, row, bundle, &segment, NULL), CEDE_OK);
		commit(l);
		assert_int_equal(state_of(l, row), i < 2 ? CAPTURE_BUNDLED : CAPTURE_SEALED);
		if (i == 0)
			assert_int_equal(take(l, 1, 100, rows), 0);
	}
}

static void large_ones_are_passed_or_end_what_is_taken(void **state) {
	struct ledger *l = of(state);
	int64_t large, small, rows[64];

	(void)seen(l, "large", "", 1, 300, NOW, &large);
	(void)seen(l, "small", "", 2, 50, NOW + 1, &small);
	assert_int_equal(take_beside(l, LARGE_ENDS, 100, rows), 0);
	assert_int_equal(take_beside(l, LARGE_PASSED, 100, rows), 1);
	assert_int_equal(rows[0], small);
	assert_int_equal(take_beside(l, LARGE_PASSED, 100, rows), 0);
	assert_int_equal(take_beside(l, LARGE_FIRST, 100, rows), 1);
	assert_int_equal(rows[0], large);
}

/* The next policy has larger bundles: what was begun in segments goes on in them, alone. */
static void what_goes_in_segments_is_no_company(void **state) {
	struct ledger *l = of(state);
	int64_t large, small, rows[64];

	(void)seen(l, "a.mp4", "a", 1, 200, NOW + 5, &large);
	assert_int_equal(take(l, 10, 100, rows), 1);
	one_segment(l, large, seal(l, NULL, 0, false, NULL), 0, 2);
	(void)seen(l, "a.jpg", "a", 2, 50, NOW, &small);
	assert_int_equal(take(l, 10, 1000, rows), 1);
	assert_int_equal(rows[0], small);
	assert_int_equal(take(l, 10, 1000, rows), 1);
	assert_int_equal(rows[0], large);
}

#define WITH_LEDGER(f) cmocka_unit_test_setup_teardown(f, bench_open, bench_close)

int main(void) {
	const struct CMUnitTest tests[] = {
		WITH_LEDGER(a_large_capture_waits_for_all_its_receipts),
		WITH_LEDGER(a_large_capture_goes_on_where_it_was),
		WITH_LEDGER(a_segment_lost_while_another_is_read),
		WITH_LEDGER(a_large_capture_that_lost_all_fits_one_bundle),
		WITH_LEDGER(segments_of_two_versions_never_share_an_id),
		WITH_LEDGER(a_large_capture_can_be_wiped_after_seal),
		WITH_LEDGER(a_large_capture_stays_while_its_next_segment_is_sealed),
		WITH_LEDGER(large_ones_are_passed_or_end_what_is_taken),
		WITH_LEDGER(what_goes_in_segments_is_no_company),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
