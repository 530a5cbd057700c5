/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "base/buf.h"
#include "base/check.h"
#include "base/cleanup.h"
#include "tests/unit/ledger/tool.h"

static void move(struct ledger *l, int64_t row, enum capture_state to) {
	begin(l);
	assert_int_equal(ledger_capture_move(l, row, to, 0, NOW, "reason=test", NULL), CEDE_OK);
	commit(l);
}

static void a_capture_lives_from_seen_to_wiped(void **state) {
	CLEANUP(buf_done) struct buf note = BUF_INIT(100);
	struct ledger *l = of(state);
	struct ledger_counts counts;
	struct id id;
	int64_t row, rows[64];
	uint64_t events, bad;
	bool there;

	assert_int_equal(seen(l, "a.jpg", "", 1, 100, NOW + 5, &row), LEDGER_SEEN_NEW);
	assert_int_equal(take(l, 10, 1000, rows), 1);
	assert_int_equal(rows[0], row);
	assert_int_equal(take(l, 10, 1000, rows + 1), 0); /* taken once */
	int64_t bundle = seal(l, rows, 1, false, &id);
	assert_int_equal(state_of(l, row), CAPTURE_SEALED);
	assert_false(done(l, bundle)); /* no receipt yet */
	assert_int_equal(ledger_receipt(l, &id, &note, &there, NULL), CEDE_OK);
	assert_false(there);
	receipted(l, bundle);
	assert_int_equal(state_of(l, row), CAPTURE_WIPING);
	assert_false(done(l, bundle)); /* plaintext is there */
	wiped(l, row);
	assert_true(done(l, bundle));
	assert_int_equal(ledger_receipt(l, &id, &note, &there, NULL), CEDE_OK);
	assert_true(there);
	assert_int_equal(note.len, 10);
	assert_memory_equal(note.data, "a receipt\n", 10);
	assert_int_equal(ledger_count(l, &counts, NULL), CEDE_OK);
	assert_int_equal(counts.captures[CAPTURE_WIPED], 1);
	assert_int_equal(counts.bundles[BUNDLE_DONE], 1);
	assert_true(counts.oldest_born_ns == INT64_MAX);
	assert_int_equal(ledger_verify(l, &events, &bad, NULL), CEDE_OK);
	assert_int_equal(events, counts.events);
	assert_int_equal(bad, 0);
}

/* kind and detail of each event, one a line; ids and digests are left out */
static int tell(void *ctx, const struct ledger_row *row, struct cede_error *reterr) {
	return buf_addf(ctx, reterr, "%s%s %.*s\n", ledger_event_name(row->kind),
		row->subject.len == ID_SIZE ? " id" : "", (int)row->detail.len,
		(const char *)row->detail.data);
}

static void events_alone_tell_the_life_of_each_capture(void **state) {
	CLEANUP(buf_done) struct buf said = BUF_INIT(10000);
	struct ledger *l = of(state);
	int64_t row, rows[8];
	const char *text;

	(void)seen(l, "a b.jpg", "", 1, 100, NOW + 5, &row);
	(void)seen(l, "b.jpg", "", 2, 100, NOW + 6, &row);
	(void)seen(l, "c.jpg", "", 3, 100, NOW + 7, &row);
	(void)seen(l, "c.jpg", "", 3, 101, NOW + 7, &row);
	assert_int_equal(take(l, 3, 1000, rows), 3);
	int64_t bundle = seal(l, rows, 3, false, NULL);
	receipted(l, bundle);
	begin(l);
	for (size_t i = 0; i < 3; i++)
		assert_int_equal(
			ledger_capture_wiped(l, rows[i], i < 2 ? "overwritten-current" : "unlinked",
				i < 2 ? "" : "copy-on-write", NOW, false, NULL),
			CEDE_OK);
	commit(l);
	assert_true(done(l, bundle));
	assert_int_equal(ledger_events(l, 1, tell, &said, NULL), CEDE_OK);
	assert_int_equal(buf_string(&said, &text, NULL), CEDE_OK);
	static const char *const want[] = {
		"capture-seen id row=1 source=faces size=100 born=1699999999999999991 mtime=5 path=a%20b.jpg\n",
		"capture-changed id reason=written-again row=3 size=101 born=1699999999999999991 mtime=5\n",
		"bundle-sealed id row=1 destination=agency size=",
		" captures=3 members=1:",
		",2:",
		",3:",
		"bundle-wiping id proof=receipt captures=3\n",
		"captures-wiped id level=overwritten-current rows=1-2\n",
		"captures-wiped id level=unlinked reason=copy-on-write rows=3\n",
		"bundle-done id ",
	};
	for (size_t i = 0; i < ARRAY_LENGTH(want); i++) {
		const char *at = strstr(text, want[i]);
		if (at == NULL)
			print_message("not told, or not in order: %s\n%s", want[i], text);
		assert_non_null(at);
		text = at;
	}
}

static void seen_knows_updates_and_replaces(void **state) {
	static const struct {
		enum capture_state in; /* of the row that has the name */
		bool same;             /* same file */
		enum ledger_seen want;
		enum capture_state then; /* of the old row */
	} cases[] = {
		{CAPTURE_READY, true, LEDGER_SEEN_KNOWN, CAPTURE_READY},
		{CAPTURE_READY, false, LEDGER_SEEN_UPDATED, CAPTURE_READY},
		{CAPTURE_SETTLING, true, LEDGER_SEEN_UPDATED, CAPTURE_READY},
		{CAPTURE_SETTLING, false, LEDGER_SEEN_UPDATED, CAPTURE_READY},
		{CAPTURE_BUNDLED, true, LEDGER_SEEN_KNOWN, CAPTURE_BUNDLED},
		{CAPTURE_BUNDLED, false, LEDGER_SEEN_NEW, CAPTURE_REPLACED},
		{CAPTURE_SEALED, true, LEDGER_SEEN_KNOWN, CAPTURE_SEALED},
		{CAPTURE_SEALED, false, LEDGER_SEEN_NEW, CAPTURE_REPLACED},
		{CAPTURE_WIPING, true, LEDGER_SEEN_KNOWN, CAPTURE_WIPING},
		{CAPTURE_WIPING, false, LEDGER_SEEN_NEW, CAPTURE_REPLACED},
		{CAPTURE_WIPED, true, LEDGER_SEEN_NEW, CAPTURE_WIPED},
		{CAPTURE_GONE, true, LEDGER_SEEN_NEW, CAPTURE_GONE},
		{CAPTURE_REPLACED, true, LEDGER_SEEN_NEW, CAPTURE_REPLACED},
	};
	struct ledger *l = of(state);

	for (size_t i = 0; i < ARRAY_LENGTH(cases); i++) {
		char path[] = "a/x.jpg";
		int64_t row, again, rows[64];
		path[0] = (char)('a' + (int)i);
		assert_int_equal(seen(l, path, "", 1, 100, NOW, &row), LEDGER_SEEN_NEW);
		enum capture_state in = cases[i].in;
		if (in == CAPTURE_SETTLING || in == CAPTURE_GONE || in == CAPTURE_REPLACED)
			move(l, row, in);
		else if (in != CAPTURE_READY) {
			assert_int_equal(take(l, 1, 100, rows), 1);
			assert_int_equal(rows[0], row);
			if (in != CAPTURE_BUNDLED) {
				int64_t bundle = seal(l, rows, 1, false, NULL);
				if (in != CAPTURE_SEALED)
					receipted(l, bundle);
				if (in == CAPTURE_WIPED)
					wiped(l, row);
			}
		}
		assert_int_equal(state_of(l, row), in);
		assert_int_equal(
			seen(l, path, "", cases[i].same ? 1 : 2, 100, NOW, &again), cases[i].want);
		assert_int_equal(state_of(l, row), cases[i].then);
		assert_int_equal(again == row, cases[i].want != LEDGER_SEEN_NEW);
		while (take(l, 64, UINT32_MAX, rows) > 0) /* the next case finds nothing READY */
			continue;
	}
}

/* Every call of ledger_capture_move() is as the table says; what is over stays over. */
/* As seen() of tool.c says it, but for the ctime. */
static enum ledger_seen seen_touched(struct ledger *l, const char *path, int64_t *ret_row) {
	struct ledger_capture c = {.source = slice_str("faces"),
		.path = slice_str(path),
		.identity = {.dev = 1, .ino = 1, .size = 100, .mtime_ns = 5, .ctime_ns = 7},
		.born_ns = NOW - 9,
		.first_seen_ns = NOW,
		.deadline_ns = NOW};
	enum ledger_seen result = LEDGER_SEEN_NEW;

	assert_int_equal(id_make(NOW, &c.id, NULL), CEDE_OK);
	begin(l);
	assert_int_equal(ledger_capture_seen(l, &c, NOW, &result, ret_row, NULL), CEDE_OK);
	commit(l);
	return result;
}

static void other_times_after_sealing_are_for_the_wipe_to_judge(void **state) {
	struct ledger *l = of(state);
	int64_t row, again, rows[8];

	assert_int_equal(seen(l, "a", "", 1, 100, NOW, &row), LEDGER_SEEN_NEW);
	assert_int_equal(seen_touched(l, "a", &again), LEDGER_SEEN_UPDATED); /* not sealed yet */
	assert_int_equal(seen(l, "a", "", 1, 100, NOW, &row), LEDGER_SEEN_UPDATED);
	assert_int_equal(take(l, 1, 100, rows), 1);
	(void)seal(l, rows, 1, false, NULL);
	assert_int_equal(seen_touched(l, "a", &again), LEDGER_SEEN_KNOWN);
	assert_int_equal(again, row);
	assert_int_equal(state_of(l, row), CAPTURE_SEALED);
}

static void what_is_on_another_device_is_not_gone(void **state) {
	struct ledger *l = of(state);
	struct slice faces = slice_str("faces");
	bool there = true, other = true;
	int64_t row;

	assert_int_equal(seen(l, "a", "", 1, 100, NOW, &row), LEDGER_SEEN_NEW);
	begin(l);
	assert_int_equal(ledger_other_device(l, slice_str("nobody"), 2, &other, NULL), CEDE_OK);
	assert_false(other);
	assert_int_equal(ledger_other_device(l, faces, 1, &other, NULL), CEDE_OK);
	assert_false(other);
	assert_int_equal(ledger_other_device(l, faces, 2, &other, NULL), CEDE_OK);
	assert_true(other);
	assert_int_equal(
		ledger_capture_absent(l, faces, slice_str("a"), 2, NOW, &there, NULL), CEDE_OK);
	assert_false(there);
	assert_int_equal(
		ledger_capture_absent(l, faces, slice_str("a"), 1, NOW, &there, NULL), CEDE_OK);
	assert_true(there);
	assert_int_equal(ledger_other_device(l, faces, 2, &other, NULL), CEDE_OK);
	assert_false(other); /* none is live any more */
	commit(l);
	assert_int_equal(state_of(l, row), CAPTURE_GONE);
}

static void moves_follow_the_table(void **state) {
	static const enum capture_state froms[] = {CAPTURE_READY, CAPTURE_BUNDLED, CAPTURE_SEALED,
		CAPTURE_WIPING, CAPTURE_WIPED, CAPTURE_SETTLING, CAPTURE_GONE, CAPTURE_REPLACED};
	struct ledger *l = of(state);
	int n = 0;

	for (size_t f = 0; f < ARRAY_LENGTH(froms); f++)
		for (int to = 0; to < CAPTURE_STATE_COUNT; to++) {
			char path[8] = {(char)('a' + n / 20), (char)('a' + n % 20), 0};
			int64_t row, rows[64];
			enum capture_state from = froms[f];
			bool over = from == CAPTURE_GONE || from == CAPTURE_REPLACED;
			bool own = to == CAPTURE_SETTLING || to == CAPTURE_READY ||
				to == CAPTURE_GONE || to == CAPTURE_REPLACED;
			n++;
			while (take(l, 64, UINT32_MAX, rows) > 0)
				continue;
			assert_int_equal(seen(l, path, "", 1, 1, NOW, &row), LEDGER_SEEN_NEW);
			if (from == CAPTURE_SETTLING || over) {
				move(l, row, from);
			} else if (from != CAPTURE_READY) {
				assert_int_equal(take(l, 1, 1, rows), 1);
				int64_t bundle =
					from == CAPTURE_BUNDLED ? 0 : seal(l, rows, 1, false, NULL);
				if (from == CAPTURE_WIPING || from == CAPTURE_WIPED)
					receipted(l, bundle);
				if (from == CAPTURE_WIPED)
					wiped(l, row);
			}
			bool allowed = own &&
				(over || capture_move(from, (enum capture_state)to, NULL) == CEDE_OK);
			begin(l);
			int r = ledger_capture_move(
				l, row, (enum capture_state)to, 0, NOW, "reason=test", NULL);
			assert_int_equal(r, allowed ? CEDE_OK : CEDE_ERR_BUG);
			commit(l);
			assert_int_equal(
				state_of(l, row), allowed && !over ? (enum capture_state)to : from);
		}
}

/* A file may be replaced while its job reads it: the bundle is recorded all the same. */
static void replaced_while_being_read(void **state) {
	struct ledger *l = of(state);
	int64_t a, b, again, rows[64];

	(void)seen(l, "a", "", 1, 10, NOW, &a);
	(void)seen(l, "b", "", 2, 10, NOW + 1, &b);
	assert_int_equal(take(l, 10, 100, rows), 2);
	assert_int_equal(seen(l, "a", "", 3, 10, NOW, &again), LEDGER_SEEN_NEW);
	int64_t bundle = seal(l, rows, 2, false, NULL);
	assert_int_equal(state_of(l, a), CAPTURE_REPLACED);
	assert_int_equal(state_of(l, b), CAPTURE_SEALED);
	move(l, a, CAPTURE_SETTLING); /* the job's "changed" comes late */
	assert_int_equal(state_of(l, a), CAPTURE_REPLACED);
	receipted(l, bundle);
	assert_int_equal(state_of(l, a), CAPTURE_REPLACED);
	assert_int_equal(state_of(l, again), CAPTURE_READY);
	/* and while it is being wiped */
	assert_int_equal(seen(l, "b", "", 9, 10, NOW, &again), LEDGER_SEEN_NEW);
	wiped(l, b);
	assert_int_equal(state_of(l, b), CAPTURE_REPLACED);
	assert_true(done(l, bundle));
}

static void only_what_was_bundled_is_sealed(void **state) {
	struct ledger_sealed sealed = {0};
	struct ledger_bundle b = {.destination = slice_str("agency"), .captures = 1};
	struct ledger *l = of(state);
	int64_t bundle;

	(void)seen(l, "a", "", 1, 10, NOW, &sealed.row);
	begin(l);
	assert_int_equal(ledger_bundle_sealed(l, &b, &sealed, 1, NOW, &bundle, NULL), CEDE_ERR_BUG);
	ledger_rollback(l);
	assert_int_equal(state_of(l, sealed.row), CAPTURE_READY);
}

static void take_goes_by_deadline_bytes_and_count(void **state) {
	struct ledger *l = of(state);
	int64_t late, soon, big, rows[64];

	(void)seen(l, "late", "", 1, 50, NOW + 30, &late);
	(void)seen(l, "soon", "", 2, 50, NOW + 10, &soon);
	(void)seen(l, "big", "", 3, 500, NOW + 20, &big);
	assert_int_equal(take(l, 10, 100, rows), 1); /* big does not fit and is not passed */
	assert_int_equal(rows[0], soon);
	assert_int_equal(take(l, 10, 100, rows), 1); /* at least one is taken */
	assert_int_equal(rows[0], big);
	assert_int_equal(take(l, 0, 100, rows), 0);
	assert_int_equal(take(l, 1, 100, rows), 1);
	assert_int_equal(rows[0], late);
}

static void take_waits_for_not_before(void **state) {
	struct ledger *l = of(state);
	int64_t row, rows[64], deadline, not_before;

	(void)seen(l, "a", "", 1, 50, NOW + 30, &row);
	assert_int_equal(take(l, 1, 100, rows), 1);
	begin(l);
	assert_int_equal(ledger_capture_move(l, row, CAPTURE_READY, NOW + 7, NOW, "reason=x", NULL),
		CEDE_OK);
	commit(l);
	assert_int_equal(take(l, 1, 100, rows), 0);
	assert_int_equal(
		ledger_next(l, slice_str("faces"), NOW, &deadline, &not_before, NULL), CEDE_OK);
	assert_true(deadline == INT64_MAX && not_before == NOW + 7);
	assert_int_equal(
		ledger_next(l, slice_str("faces"), NOW + 7, &deadline, &not_before, NULL), CEDE_OK);
	assert_true(deadline == NOW + 30 && not_before == INT64_MAX);
}

static void a_group_travels_together(void **state) {
	struct ledger *l = of(state);
	int64_t row, jpg, json, rows[64];

	(void)seen(l, "d/1.jpg", "d/1", 1, 50, NOW + 10, &jpg);
	(void)seen(l, "d/2.jpg", "d/2", 2, 50, NOW + 20, &row);
	(void)seen(l, "d/10.jpg", "d/10", 3, 50, NOW + 25, &row);
	(void)seen(l, "d/1.json", "d/1", 4, 5, NOW + 90, &json);
	assert_int_equal(take(l, 2, 1000, rows), 2);
	assert_int_equal(rows[0], jpg);
	assert_int_equal(rows[1], json);
}

static void a_remounted_source_keeps_its_captures(void **state) {
	struct ledger *l = of(state);
	struct ledger_capture c = {.source = slice_str("faces"),
		.path = slice_str("a"),
		.identity = {.dev = 99, .ino = 7, .size = 10, .mtime_ns = 5, .ctime_ns = 6}};
	int64_t row, other, again, rows[64];
	enum ledger_seen how;

	(void)seen(l, "a", "", 7, 10, NOW, &row);
	(void)seen(l, "b", "", 8, 10, NOW, &other);
	assert_int_equal(take(l, 2, 100, rows), 2);
	(void)seal(l, rows, 2, false, NULL);
	assert_false(ledger_take_remount(l).happened);
	begin(l);
	assert_int_equal(ledger_capture_seen(l, &c, NOW, &how, &again, NULL), CEDE_OK);
	assert_int_equal(how, LEDGER_SEEN_KNOWN);
	assert_int_equal(again, row);
	ledger_rollback(l); /* as if it had not been */
	assert_false(ledger_take_remount(l).happened);
	begin(l);
	assert_int_equal(ledger_capture_seen(l, &c, NOW, &how, &again, NULL), CEDE_OK);
	struct ledger_remount remount = ledger_take_remount(l);
	assert_true(remount.happened);
	assert_int_equal(remount.from, 1);
	assert_int_equal(remount.to, 99);
	c.path = slice_str("b"); /* the evidence of one counts for all */
	c.identity.ino = 8;
	assert_int_equal(ledger_capture_seen(l, &c, NOW, &how, &again, NULL), CEDE_OK);
	assert_int_equal(how, LEDGER_SEEN_KNOWN);
	assert_int_equal(again, other);
	assert_false(ledger_take_remount(l).happened);
	c.identity = (struct file_identity){
		.dev = 50, .ino = 8, .size = 10, .mtime_ns = 5, .ctime_ns = 7};
	assert_int_equal(ledger_capture_seen(l, &c, NOW, &how, &again, NULL), CEDE_OK);
	assert_int_equal(how, LEDGER_SEEN_NEW); /* not the same file in all but the device */
	commit(l);
}

static void wipe_after_seal_needs_the_spool(void **state) {
	struct ledger *l = of(state);
	int64_t row, rows[64];

	(void)seen(l, "a", "", 1, 10, NOW, &row);
	assert_int_equal(take(l, 1, 100, rows), 1);
	int64_t bundle = seal(l, rows, 1, false, NULL);
	begin(l);
	assert_int_equal(ledger_bundle_wiping(l, bundle, NOW, NULL), CEDE_ERR_REFUSED);
	assert_int_equal(ledger_bundle_spooled(l, bundle, NOW, NULL), CEDE_OK);
	assert_int_equal(ledger_bundle_wiping(l, bundle, NOW, NULL), CEDE_OK);
	commit(l);
	assert_int_equal(state_of(l, row), CAPTURE_WIPING);
	wiped(l, row);
	assert_false(done(l, bundle));
	receipted(l, bundle);
	assert_int_equal(state_of(l, row), CAPTURE_WIPED);
	assert_true(done(l, bundle));
}

static int count_one(void *ctx, const struct ledger_capture *c, struct cede_error *reterr) {
	(void)c;
	(void)reterr;
	++*(size_t *)ctx;
	return CEDE_OK;
}

static size_t to_wipe(struct ledger *l, int64_t bundle) {
	size_t count = 0;

	assert_int_equal(ledger_bundle_captures(l, bundle, CAPTURE_WIPING, count_one, &count, NULL),
		CEDE_OK);
	return count;
}

static void what_is_destroyed_meanwhile_is_not_wiped_twice(void **state) {
	struct ledger *l = of(state);
	int64_t rows[64], row;

	(void)seen(l, "a", "", 1, 10, NOW, &row);
	(void)seen(l, "b", "", 2, 10, NOW, &row);
	assert_int_equal(take(l, 2, 100, rows), 2);
	int64_t bundle = seal(l, rows, 2, false, NULL);
	begin(l);
	assert_int_equal(ledger_capture_destroying(l, rows[0], "max-age", NOW, NULL), CEDE_OK);
	commit(l);
	receipted(l, bundle);
	assert_int_equal(state_of(l, rows[0]), CAPTURE_WIPING);
	assert_int_equal(state_of(l, rows[1]), CAPTURE_WIPING);
	assert_int_equal(to_wipe(l, bundle), 1);
	assert_false(done(l, bundle)); /* both must be gone for that */
	wiped(l, rows[0]);
	wiped(l, rows[1]);
	assert_true(done(l, bundle));
}

/* Sealed to the spool and held; the spool loses it, and the agency never had it. */
static void what_is_held_is_sealed_again_when_its_bundle_is_lost(void **state) {
	struct ledger *l = of(state);
	int64_t rows[64], large, row;

	(void)seen(l, "a", "", 1, 10, NOW, &row);
	(void)seen(l, "b", "", 2, 10, NOW, &row);
	assert_int_equal(take(l, 2, 100, rows), 2);
	int64_t bundle = seal(l, rows, 2, true, NULL);
	(void)seen(l, "large", "", 3, 200, NOW, &large);
	int64_t parts[2];
	for (uint32_t i = 0; i < 2; i++) {
		int64_t taken[64];
		assert_int_equal(take(l, 1, 100, taken), 1);
		parts[i] = seal(l, NULL, 0, true, NULL);
		one_segment(l, large, parts[i], i, 2);
	}
	begin(l);
	assert_int_equal(ledger_bundle_wiping(l, bundle, NOW, NULL), CEDE_OK);
	assert_int_equal(ledger_bundle_wiping(l, parts[1], NOW, NULL), CEDE_OK);
	assert_int_equal(ledger_capture_held(l, rows[0], NOW, "case-1", NULL), CEDE_OK);
	assert_int_equal(ledger_capture_kept(l, rows[1], NOW, "reason=x", NULL), CEDE_OK);
	commit(l);
	abandon(l, bundle);
	assert_int_equal(state_of(l, rows[0]), CAPTURE_READY);
	assert_int_equal(state_of(l, rows[1]), CAPTURE_READY);
	/* what is being wiped was proven when that began: the ledger is not damaged */
	assert_int_equal(state_of(l, large), CAPTURE_WIPING);
	abandon(l, parts[0]);
	assert_int_equal(ledger_must_be_proven(l, large, NULL), CEDE_OK);
}

static void receipts_come_once_and_in_order(void **state) {
	struct ledger *l = of(state);
	int64_t row, rows[64];
	struct cede_error err;
	bool undecided;

	(void)seen(l, "a", "", 1, 10, NOW, &row);
	assert_int_equal(take(l, 1, 100, rows), 1);
	int64_t bundle = seal(l, rows, 1, false, NULL);
	begin(l);
	assert_int_equal(ledger_bundle_abandoned(l, bundle, NOW, &undecided, &err), CEDE_OK);
	assert_int_equal(ledger_bundle_receipted(l, bundle, slice_str("x"), NOW, &err), CEDE_ERR_BUG);
	ledger_rollback(l);
	assert_int_equal(state_of(l, row), CAPTURE_SEALED);
	receipted(l, bundle);
	begin(l);
	assert_int_equal(ledger_bundle_receipted(l, bundle, slice_str("x"), NOW, &err), CEDE_ERR_BUG);
	assert_int_equal(ledger_bundle_abandoned(l, bundle, NOW, &undecided, &err), CEDE_ERR_BUG);
	assert_int_equal(ledger_bundle_receipted(l, 999, slice_str("x"), NOW, &err), CEDE_ERR_BUG);
	ledger_rollback(l);
}

struct noted {
	int64_t rows[8];
	size_t n;
};

static int note(void *ctx, const struct ledger_bundle *b, struct cede_error *reterr) {
	struct noted *t = ctx;

	(void)reterr;
	assert_true(t->n < 8);
	t->rows[t->n++] = b->row;
	return CEDE_OK;
}

/* Lost in memory, and the agency can't be asked whether it has it. */
static void what_a_lost_bundle_held_is_sealed_anew_and_proven_by_its_receipt(void **state) {
	struct ledger *l = of(state);
	int64_t rows[64], mixed[2], row;
	struct noted told = {.n = 0};
	enum bundle_state state_of_it;
	bool freed = false;
	struct id id;

	for (int i = 0; i < 3; i++)
		(void)seen(l, (const char *[]){"a", "b", "c"}[i], "", (uint64_t)i + 1, 10, NOW, &row);
	assert_int_equal(take(l, 3, 100, rows), 3);
	int64_t lost = seal(l, rows, 3, false, &id);
	begin(l);
	assert_int_equal(ledger_bundle_freed(l, lost, rows, 2, NOW, &freed, NULL), CEDE_OK);
	commit(l);
	assert_true(freed);
	for (int i = 0; i < 3; i++)
		assert_int_equal(state_of(l, rows[i]), i < 2 ? CAPTURE_BUNDLED : CAPTURE_SEALED);
	begin(l); /* all or none */
	assert_int_equal(ledger_bundle_freed(l, lost, &rows[1], 2, NOW, &freed, NULL), CEDE_OK);
	assert_false(freed);
	assert_int_equal(state_of(l, rows[2]), CAPTURE_SEALED);
	assert_int_equal(ledger_bundle_freed(l, lost, &rows[2], 1, NOW, &freed, NULL), CEDE_OK);
	commit(l);
	assert_true(freed);
	int64_t anew = seal(l, rows, 2, true, NULL);
	(void)seen(l, "d", "", 4, 10, NOW, &mixed[1]);
	assert_int_equal(take(l, 1, 100, &mixed[1]), 1);
	mixed[0] = rows[2];
	int64_t company = seal(l, mixed, 2, true, NULL);
	begin(l);
	assert_int_equal(ledger_bundle_freed(l, anew, rows, 1, NOW, &freed, NULL), CEDE_ERR_BUG);
	ledger_rollback(l);
	begin(l);
	assert_int_equal(ledger_bundle_wiping(l, anew, NOW, NULL), CEDE_OK);
	commit(l);
	wiped(l, rows[0]);
	receipted(l, lost);
	assert_true(done(l, lost));
	assert_int_equal(ledger_bundle_duplicates(l, lost, note, &told, NULL), CEDE_OK);
	assert_int_equal(told.n, 1);
	assert_int_equal(told.rows[0], anew);
	begin(l);
	assert_int_equal(ledger_bundle_duplicate(l, anew, &id, slice_str("a receipt\n"), NOW, NULL),
		CEDE_OK);
	commit(l);
	assert_int_equal(ledger_bundle_state(l, anew, &state_of_it, NULL), CEDE_OK);
	assert_int_equal(state_of_it, BUNDLE_RECEIPTED);
	assert_false(done(l, anew));
	wiped(l, rows[1]);
	assert_true(done(l, anew));
	assert_int_equal(ledger_bundle_duplicates(l, company, note, &told, NULL), CEDE_OK);
	assert_int_equal(told.n, 1);
}

#define WITH_LEDGER(f) cmocka_unit_test_setup_teardown(f, bench_open, bench_close)

int main(void) {
	const struct CMUnitTest tests[] = {
		WITH_LEDGER(a_capture_lives_from_seen_to_wiped),
		WITH_LEDGER(events_alone_tell_the_life_of_each_capture),
		WITH_LEDGER(seen_knows_updates_and_replaces),
		WITH_LEDGER(other_times_after_sealing_are_for_the_wipe_to_judge),
		WITH_LEDGER(what_is_on_another_device_is_not_gone),
		WITH_LEDGER(moves_follow_the_table),
		WITH_LEDGER(replaced_while_being_read),
		WITH_LEDGER(only_what_was_bundled_is_sealed),
		WITH_LEDGER(take_goes_by_deadline_bytes_and_count),
		WITH_LEDGER(take_waits_for_not_before),
		WITH_LEDGER(a_group_travels_together),
		WITH_LEDGER(a_remounted_source_keeps_its_captures),
		WITH_LEDGER(wipe_after_seal_needs_the_spool),
		WITH_LEDGER(what_is_destroyed_meanwhile_is_not_wiped_twice),
		WITH_LEDGER(what_is_held_is_sealed_again_when_its_bundle_is_lost),
		WITH_LEDGER(what_a_lost_bundle_held_is_sealed_anew_and_proven_by_its_receipt),
		WITH_LEDGER(receipts_come_once_and_in_order),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
