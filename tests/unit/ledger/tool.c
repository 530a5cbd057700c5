/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/ledger/tool.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "agent/ledger/ledger_internal.h"

int bench_open(void **state) {
	struct bench *b = calloc(1, sizeof *b);
	struct cede_error err = {0};

	assert_non_null(b);
	(void)snprintf(b->dir, sizeof b->dir, "/tmp/cede-ledger-XXXXXX");
	assert_non_null(mkdtemp(b->dir));
	assert_int_equal(ledger_open(b->dir, &b->ledger, &err), CEDE_OK);
	*state = b;
	return 0;
}

/* The writer's own rows, its open transaction included. */
static int64_t number(const struct bench *b, const char *what, int state) {
	char sql[200];
	sqlite3_stmt *st;
	int64_t value = INT64_MAX; /* no row */

	(void)snprintf(sql, sizeof sql,
		"SELECT %s FROM capture c JOIN source s ON s.id = c.source "
		"WHERE s.name = 'faces' AND live = 1 AND state %s %d",
		what, what[0] == 'm' ? "<>" : "=", state);
	assert_int_equal(sqlite3_prepare_v2(b->ledger->db, sql, -1, &st, NULL), SQLITE_OK);
	assert_int_equal(sqlite3_step(st), SQLITE_ROW);
	if (sqlite3_column_type(st, 0) != SQLITE_NULL)
		value = sqlite3_column_int64(st, 0);
	(void)sqlite3_finalize(st);
	return value;
}

bool tally_agrees(const struct bench *b) {
	struct ledger_tally t;
	bool same = true;

	assert_int_equal(ledger_tally(b->ledger, slice_str("faces"), &t, NULL), CEDE_OK);
	for (int i = 0; i < CAPTURE_STATE_COUNT; i++)
		same = same && (int64_t)t.files[i] == number(b, "count(*)", i) &&
			(int64_t)t.bytes[i] == number(b, "coalesce(sum(size), 0)", i);
	return same && t.oldest_born_ns == number(b, "min(born_ns)", CAPTURE_HELD);
}

int bench_close(void **state) {
	struct bench *b = *state;
	DIR *d = opendir(b->dir);

	if (b->ledger != NULL && b->ledger->tally != NULL)
		assert_true(tally_agrees(b));

	ledger_close(b->ledger);
	for (struct dirent *e; d != NULL && (e = readdir(d)) != NULL;)
		(void)unlinkat(dirfd(d), e->d_name, 0);
	if (d != NULL)
		(void)closedir(d);
	int r = rmdir(b->dir);
	free(b);
	return r;
}

void bench_path(const struct bench *b, const char *name, char out[128]) {
	(void)snprintf(out, 128, "%s/%s", b->dir, name);
}

struct ledger *of(void **state) {
	return ((struct bench *)*state)->ledger;
}

void begin(struct ledger *l) {
	assert_int_equal(ledger_begin(l, NULL), CEDE_OK);
}

void commit(struct ledger *l) {
	assert_int_equal(ledger_commit(l, NULL), CEDE_OK);
}

enum ledger_seen seen(struct ledger *l, const char *path, const char *group, uint64_t inode,
	uint64_t size, int64_t deadline_ns, int64_t *ret_row) {
	struct ledger_capture c = {.source = slice_str("faces"),
		.path = slice_str(path),
		.group = slice_str(group),
		.identity = {.dev = 1, .ino = inode, .size = size, .mtime_ns = 5, .ctime_ns = 6},
		.born_ns = NOW - 9,
		.first_seen_ns = NOW,
		.deadline_ns = deadline_ns};
	enum ledger_seen result = LEDGER_SEEN_NEW;
	struct cede_error err = {0};

	assert_int_equal(id_make(NOW, &c.id, &err), CEDE_OK);
	begin(l);
	assert_int_equal(ledger_capture_seen(l, &c, NOW, &result, ret_row, &err), CEDE_OK);
	commit(l);
	return result;
}

struct rows {
	int64_t *row;
	size_t n;
};

static int keep(void *ctx, const struct ledger_capture *c, struct cede_error *reterr) {
	struct rows *r = ctx;

	(void)reterr;
	assert_int_equal(c->state, CAPTURE_BUNDLED);
	assert_true(r->n < 64);
	r->row[r->n++] = c->row;
	return CEDE_OK;
}

static size_t take_as(
	struct ledger *l, size_t captures, uint64_t bytes, enum ledger_large large, int64_t *rows) {
	struct rows r = {.row = rows};

	begin(l);
	assert_int_equal(
		ledger_take(l, slice_str("faces"), captures, bytes, large, NOW, keep, &r, NULL),
		CEDE_OK);
	commit(l);
	return r.n;
}

size_t take(struct ledger *l, size_t captures, uint64_t bytes, int64_t *rows) {
	return take_as(l, captures, bytes, LARGE_FIRST, rows);
}

size_t take_beside(struct ledger *l, enum ledger_large large, uint64_t bytes, int64_t *rows) {
	return take_as(l, 64, bytes, large, rows);
}

int64_t seal(struct ledger *l, const int64_t *rows, size_t n, bool spooled, struct id *ret_id) {
	struct ledger_bundle b = {.destination = slice_str("agency"),
		.size = 1000,
		.spooled = spooled,
		.captures = n,
		.sha256 = {0xaa},
		.sealed_ns = NOW};
	struct ledger_sealed captures[64] = {{0}};
	int64_t row = 0;

	assert_true(n <= 64);
	assert_int_equal(id_make(NOW, &b.id, NULL), CEDE_OK);
	for (size_t i = 0; i < n; i++) {
		captures[i].row = rows[i];
		captures[i].sha256[0] = (uint8_t)(i + 1);
	}
	begin(l);
	assert_int_equal(ledger_bundle_sealed(l, &b, captures, n, NOW, &row, NULL), CEDE_OK);
	commit(l);
	if (ret_id != NULL)
		*ret_id = b.id;
	return row;
}

void receipted(struct ledger *l, int64_t bundle) {
	begin(l);
	assert_int_equal(
		ledger_bundle_receipted(l, bundle, slice_str("a receipt\n"), NOW, NULL), CEDE_OK);
	commit(l);
}

bool done(struct ledger *l, int64_t bundle) {
	bool is = false;

	begin(l);
	assert_int_equal(ledger_bundle_done(l, bundle, NOW, &is, NULL), CEDE_OK);
	commit(l);
	return is;
}

struct wanted {
	int64_t row;
	int found;
};

static int match(void *ctx, const struct ledger_capture *c, struct cede_error *reterr) {
	struct wanted *w = ctx;

	(void)reterr;
	if (c->row == w->row)
		w->found = (int)c->state;
	return CEDE_OK;
}

enum capture_state state_of(struct ledger *l, int64_t row) {
	struct wanted w = {.row = row, .found = -1};

	for (int s = 0; s < CAPTURE_STATE_COUNT; s++)
		assert_int_equal(ledger_captures(l, (enum capture_state)s, match, &w, NULL), CEDE_OK);
	assert_true(w.found >= 0);
	return (enum capture_state)w.found;
}

void wiped(struct ledger *l, int64_t row) {
	begin(l);
	assert_int_equal(
		ledger_capture_wiped(l, row, "overwritten-current", "", NOW, false, NULL), CEDE_OK);
	commit(l);
}

void one_segment(struct ledger *l, int64_t row, int64_t bundle, uint32_t i, uint32_t n) {
	const struct ledger_segment segment = {
		.index = i, .count = n, .offset = UINT64_C(100) * i, .size = 100, .sha256 = {7}};

	begin(l);
	assert_int_equal(ledger_segment_sealed(l, row, bundle, &segment, NULL), CEDE_OK);
	commit(l);
}

void abandon(struct ledger *l, int64_t bundle) {
	bool undecided;

	begin(l);
	assert_int_equal(ledger_bundle_abandoned(l, bundle, NOW, &undecided, NULL), CEDE_OK);
	commit(l);
}
