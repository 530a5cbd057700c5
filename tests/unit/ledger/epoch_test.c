/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <string.h>

#include "agent/ledger/epoch.h"
#include "base/check.h"
#include "base/cleanup.h"
#include "tests/unit/ledger/tool.h"

static const uint8_t first[EPOCH_KEY_SIZE] = {1};
static const uint8_t second[EPOCH_KEY_SIZE] = {2};

static int64_t turned(struct ledger *l, const uint8_t *key, const uint8_t *before, int64_t at) {
	int64_t row;

	begin(l);
	assert_int_equal(ledger_epoch_turned(l, "faces", key, true, before, at, &row, NULL), CEDE_OK);
	commit(l);
	return row;
}

/* A complete file in an epoch; the same name may be in another. */
static int64_t found(struct ledger *l, const uint8_t *key, const char *path, uint64_t inode) {
	char source[EPOCH_SOURCE_SIZE];
	enum ledger_seen result;
	int64_t row;

	epoch_source("faces", key, source);
	struct ledger_capture c = {.source = slice_str(source),
		.path = slice_str(path),
		.identity = {.dev = 1, .ino = inode, .size = 10, .mtime_ns = NOW, .ctime_ns = NOW},
		.born_ns = NOW,
		.first_seen_ns = NOW,
		.deadline_ns = NOW,
		.segment_count = 1};
	assert_int_equal(id_make(NOW, &c.id, NULL), CEDE_OK);
	begin(l);
	assert_int_equal(ledger_capture_seen(l, &c, NOW, &result, &row, NULL), CEDE_OK);
	commit(l);
	assert_int_equal(result, LEDGER_SEEN_NEW);
	return row;
}

/* Proven by way of "destroy", which asks for no bundle; unlinked. */
static void unlinked(struct ledger *l, int64_t row) {
	begin(l);
	assert_int_equal(ledger_capture_destroying(l, row, "test", NOW, NULL), CEDE_OK);
	assert_int_equal(
		ledger_capture_wiped(l, row, "removed", EPOCH_PENDING, NOW, true, NULL), CEDE_OK);
	commit(l);
}

static int find(void *ctx, const struct ledger_epoch *e, struct cede_error *reterr) {
	struct ledger_epoch *want = ctx;

	(void)reterr;
	if (memcmp(e->key, want->key, sizeof e->key) == 0)
		*want = *e;
	return CEDE_OK;
}

static struct ledger_epoch epoch(struct ledger *l, const uint8_t *key) {
	struct ledger_epoch e = {.row = -1};

	memcpy(e.key, key, sizeof e.key);
	assert_int_equal(ledger_epochs(l, "faces", true, find, &e, NULL), CEDE_OK);
	return e;
}

static int erasing(struct ledger *l, int64_t row) {
	begin(l);
	int r = ledger_epoch_erasing(l, row, NOW, NULL);
	if (r == CEDE_OK)
		commit(l);
	else
		ledger_rollback(l);
	return r;
}

static void names_have_their_epoch(void **state) {
	char source[EPOCH_SOURCE_SIZE];

	(void)state;
	epoch_source("faces", first, source);
	assert_string_equal(source, "faces@01000000000000000000000000000000");
	assert_true(slice_is(epoch_source_name(slice_str(source)), "faces"));
	assert_true(slice_is(epoch_source_name(slice_str("plates")), "plates"));
	assert_int_equal(epoch_source_name(SLICE_NONE).len, 0);
}

static void one_name_in_two_epochs_is_two_captures(void **state) {
	struct ledger *l = of(state);

	int64_t a = turned(l, first, NULL, NOW);
	int64_t b = turned(l, second, first, NOW + 1);
	assert_int_not_equal(found(l, first, "a.jpg", 1), found(l, second, "a.jpg", 2));
	struct ledger_epoch e = epoch(l, first);
	assert_int_equal(e.row, a);
	assert_int_equal(e.state, EPOCH_DRAINING);
	assert_int_equal(e.turned_ns, NOW + 1);
	assert_int_equal(e.live, 1);
	e = epoch(l, second);
	assert_int_equal(e.row, b);
	assert_int_equal(e.state, EPOCH_OPEN);
	assert_true(e.wrapped);
}

static void a_key_does_not_go_while_anything_is_live(void **state) {
	struct ledger *l = of(state);
	bool used;

	int64_t row = turned(l, first, NULL, NOW);
	struct slice source = slice_str("faces@01000000000000000000000000000000");
	assert_int_equal(ledger_epoch_used(l, source, &used, NULL), CEDE_OK);
	assert_false(used);
	int64_t capture = found(l, first, "a.jpg", 1);
	assert_int_equal(erasing(l, row), CEDE_ERR_BUSY);
	assert_int_equal(epoch(l, first).state, EPOCH_OPEN);
	unlinked(l, capture);
	assert_int_equal(ledger_epoch_used(l, source, &used, NULL), CEDE_OK);
	assert_true(used);
	assert_int_equal(erasing(l, row), CEDE_OK);
	assert_int_equal(epoch(l, first).state, EPOCH_ERASING);
}

static void levels_come_with_the_end_and_only_to_its_own(void **state) {
	struct ledger *l = of(state);
	uint64_t captures;
	bool used;

	int64_t row = turned(l, first, NULL, NOW);
	(void)turned(l, second, first, NOW + 1);
	unlinked(l, found(l, first, "a.jpg", 1));
	unlinked(l, found(l, first, "b.jpg", 2));
	unlinked(l, found(l, second, "a.jpg", 3));
	assert_int_equal(erasing(l, row), CEDE_OK);
	struct ledger_epoch e = epoch(l, first);
	begin(l);
	assert_int_equal(ledger_epoch_erased(l, &e, "crypto-erased", "", "turn files=0", NOW + 9,
				 &captures, NULL),
		CEDE_OK);
	commit(l);
	assert_int_equal(captures, 2);
	assert_int_equal(epoch(l, first).state, EPOCH_ERASED);
	assert_int_equal(epoch(l, first).ended_ns, NOW + 9);
	struct slice left = slice_str("faces@02000000000000000000000000000000");
	assert_int_equal(ledger_epoch_used(l, left, &used, NULL), CEDE_OK);
	assert_true(used); /* still pending */
	uint64_t events, bad;
	assert_int_equal(ledger_verify(l, &events, &bad, NULL), CEDE_OK);
}

static int note_taken(void *ctx, const struct ledger_capture *c, struct cede_error *reterr) {
	(void)reterr;
	assert_int_equal(c->row, *(const int64_t *)ctx);
	return CEDE_OK;
}

static void a_lost_key_ends_what_was_unproven(void **state) {
	struct ledger *l = of(state);
	struct ledger_lost lost;

	(void)turned(l, first, NULL, NOW);
	int64_t ready = found(l, first, "ready.jpg", 1);
	int64_t wiping = found(l, first, "wiping.jpg", 2);
	int64_t held = found(l, first, "held.jpg", 3);
	int64_t sealed = found(l, first, "sealed.jpg", 4);
	begin(l);
	assert_int_equal(ledger_capture_destroying(l, wiping, "test", NOW, NULL), CEDE_OK);
	assert_int_equal(ledger_capture_destroying(l, held, "test", NOW, NULL), CEDE_OK);
	assert_int_equal(ledger_capture_held(l, held, NOW, "case", NULL), CEDE_OK);
	assert_int_equal(
		ledger_capture_move(l, ready, CAPTURE_SETTLING, 0, NOW, NULL, NULL), CEDE_OK);
	commit(l);
	struct slice source = slice_str("faces@01000000000000000000000000000000");
	begin(l);
	/* taken into a bundle: it may be at the agency soon */
	assert_int_equal(ledger_take(l, source, 9, 1000, LARGE_FIRST, NOW, note_taken, &sealed, NULL),
		CEDE_OK);
	assert_int_equal(ledger_epoch_lost(l, source, NOW, &lost, NULL), CEDE_OK);
	commit(l);
	assert_int_equal(lost.destroyed, 1);
	assert_int_equal(lost.wiped, 1);
	assert_int_equal(lost.held, 1);
	assert_int_equal(lost.waiting, 1);
	assert_int_equal(state_of(l, ready), CAPTURE_WIPED);
	assert_int_equal(state_of(l, wiping), CAPTURE_WIPED);
	assert_int_equal(state_of(l, held), CAPTURE_GONE);
	assert_int_equal(state_of(l, sealed), CAPTURE_BUNDLED);
	assert_int_equal(epoch(l, first).live, 1);
}

int main(void) {
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(names_have_their_epoch),
		cmocka_unit_test_setup_teardown(
			one_name_in_two_epochs_is_two_captures, bench_open, bench_close),
		cmocka_unit_test_setup_teardown(
			a_key_does_not_go_while_anything_is_live, bench_open, bench_close),
		cmocka_unit_test_setup_teardown(
			levels_come_with_the_end_and_only_to_its_own, bench_open, bench_close),
		cmocka_unit_test_setup_teardown(
			a_lost_key_ends_what_was_unproven, bench_open, bench_close),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
