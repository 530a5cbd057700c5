/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>

#include "base/check.h"
#include "base/cleanup.h"
#include "tests/unit/ledger/tool.h"

#define CAPTURES 40

static struct ledger_tally tally_of(struct ledger *l) {
	struct ledger_tally t;

	assert_int_equal(ledger_tally(l, slice_str("faces"), &t, NULL), CEDE_OK);
	return t;
}

/* In a transaction that is there: the name tells the capture, the birth its age. */
static int64_t add(struct ledger *l, unsigned name, int64_t born_ns) {
	char path[32];
	struct ledger_capture c = {.source = slice_str("faces"),
		.identity = {.dev = 1, .ino = name, .size = 10 + name, .mtime_ns = 5, .ctime_ns = 6},
		.born_ns = born_ns,
		.first_seen_ns = NOW,
		.deadline_ns = NOW + 5};
	enum ledger_seen seen_as;
	int64_t row;

	(void)snprintf(path, sizeof path, "%u.jpg", name);
	c.path = slice_str(path);
	assert_int_equal(id_make(NOW, &c.id, NULL), CEDE_OK);
	assert_int_equal(ledger_capture_seen(l, &c, NOW, &seen_as, &row, NULL), CEDE_OK);
	return row;
}

static void follow_each_state(void **state) {
	struct bench *b = *state;
	struct ledger *l = b->ledger;
	int64_t rows[64];
	struct id id;

	begin(l);
	(void)add(l, 1, NOW - 9);
	(void)add(l, 2, NOW - 7);
	commit(l);
	assert_int_equal(tally_of(l).files[CAPTURE_READY], 2);
	assert_int_equal(tally_of(l).bytes[CAPTURE_READY], 23);
	assert_true(tally_of(l).oldest_born_ns == NOW - 9);
	size_t n = take(l, 10, 1000, rows);
	assert_int_equal(n, 2);
	assert_int_equal(tally_of(l).files[CAPTURE_BUNDLED], 2);
	int64_t bundle = seal(l, rows, n, false, &id);
	assert_int_equal(tally_of(l).files[CAPTURE_SEALED], 2);
	receipted(l, bundle); /* one statement moves both */
	assert_int_equal(tally_of(l).files[CAPTURE_WIPING], 2);
	begin(l);
	assert_int_equal(ledger_capture_held(l, rows[0], NOW, "case-7", NULL), CEDE_OK);
	assert_int_equal(ledger_capture_wiped(l, rows[1], "removed", "", NOW, false, NULL), CEDE_OK);
	assert_true(tally_agrees(b)); /* within the transaction as well */
	commit(l);
	assert_int_equal(tally_of(l).files[CAPTURE_HELD], 1);
	assert_int_equal(tally_of(l).files[CAPTURE_WIPED], 0);
	assert_true(tally_of(l).oldest_born_ns == INT64_MAX); /* what a hold keeps is not overdue */
	begin(l);
	assert_int_equal(ledger_hold_lifted(l, rows[0], NOW, NULL), CEDE_OK);
	commit(l);
	assert_true(tally_of(l).oldest_born_ns == NOW - (rows[0] == 1 ? 9 : 7));
	assert_true(tally_agrees(b));
}

static void a_rollback_takes_back_what_it_counted(void **state) {
	struct bench *b = *state;
	struct ledger *l = b->ledger;

	begin(l);
	int64_t old = add(l, 1, NOW - 100);
	commit(l);
	begin(l);
	(void)add(l, 2, NOW - 200);
	assert_int_equal(
		ledger_capture_move(l, old, CAPTURE_GONE, 0, NOW, "reason=test", NULL), CEDE_OK);
	assert_true(tally_of(l).oldest_born_ns == NOW - 200);
	ledger_rollback(l);
	assert_int_equal(tally_of(l).files[CAPTURE_READY], 1);
	assert_true(tally_of(l).oldest_born_ns == NOW - 100);
	begin(l);
	assert_int_equal(
		ledger_capture_move(l, old, CAPTURE_GONE, 0, NOW, "reason=test", NULL), CEDE_OK);
	assert_true(tally_of(l).oldest_born_ns == INT64_MAX);
	ledger_rollback(l); /* the oldest was looked for in what is not true any more */
	assert_true(tally_of(l).oldest_born_ns == NOW - 100);
	assert_true(tally_agrees(b));
}

static void it_is_counted_again_when_opened(void **state) {
	struct bench *b = *state;
	int64_t rows[64];
	struct id id;

	begin(b->ledger);
	for (unsigned i = 0; i < 6; i++)
		(void)add(b->ledger, i, NOW - 50 + i);
	commit(b->ledger);
	(void)seal(b->ledger, rows, take(b->ledger, 2, 1000, rows), true, &id);
	ledger_closep(&b->ledger);
	assert_int_equal(ledger_open(b->dir, &b->ledger, NULL), CEDE_OK);
	assert_int_equal(tally_of(b->ledger).files[CAPTURE_SEALED], 2);
	assert_int_equal(tally_of(b->ledger).files[CAPTURE_READY], 4);
	assert_true(tally_of(b->ledger).oldest_born_ns == NOW - 50);
	assert_true(tally_agrees(b));
}

/* Any sequence of moves, some rolled back: the tally and the table say the same after each. */
static void any_sequence_agrees_with_the_table(void **state) {
	struct bench *b = *state;
	struct ledger *l = b->ledger;
	uint32_t dice = 7; /* deterministic */
	int64_t rows[CAPTURES] = {0};

	for (unsigned step = 0; step < 600; step++) {
		dice = dice * 1664525U + 1013904223U;
		unsigned which = (dice >> 8) % CAPTURES;

		static const enum capture_state to[] = {
			CAPTURE_SETTLING, CAPTURE_READY, CAPTURE_GONE, CAPTURE_REPLACED};

		int r = CEDE_OK;
		begin(l);
		if (rows[which] == 0 || (dice >> 20) % 3 == 0)
			rows[which] = add(l, which, NOW - (int64_t)((dice >> 12) % 1000));
		else if ((dice >> 20) % 7 == 1)
			r = ledger_capture_destroying(l, rows[which], "max-age", NOW, NULL);
		else if ((dice >> 20) % 7 == 2)
			r = ledger_capture_held(l, rows[which], NOW, "h", NULL);
		else if ((dice >> 20) % 7 == 3)
			r = ledger_capture_wiped(l, rows[which], "removed", "", NOW, true, NULL);
		else
			r = ledger_capture_move(
				l, rows[which], to[(dice >> 24) % 4], 0, NOW, "x", NULL);
		assert_true(r == CEDE_OK || r == CEDE_ERR_BUG); /* a move that is none */
		(void)tally_of(l); /* looks for the oldest in the midst */
		if ((dice >> 28) % 4 == 0) {
			ledger_rollback(l);
			if (step < CAPTURES * 2) /* its row may be gone */
				rows[which] = 0;
		} else {
			commit(l);
		}
		if (!tally_agrees(b))
			fail_msg("step %u", step);
	}
}

#define WITH_LEDGER(f) cmocka_unit_test_setup_teardown(f, bench_open, bench_close)

int main(void) {
	const struct CMUnitTest tests[] = {
		WITH_LEDGER(follow_each_state),
		WITH_LEDGER(a_rollback_takes_back_what_it_counted),
		WITH_LEDGER(it_is_counted_again_when_opened),
		WITH_LEDGER(any_sequence_agrees_with_the_table),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
