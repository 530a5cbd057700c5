/* SPDX-License-Identifier: Apache-2.0
 * Which captures form the next bundle. */
#include <stdlib.h>
#include <string.h>

#include "agent/ledger/ledger_internal.h"
#include "base/buf.h"
#include "base/cleanup.h"

struct row_list {
	struct ledger_capture *rows; /* slices point into blocks of their own */
	size_t count;
	size_t room;
	uint64_t bytes;
};

static void rows_done(struct row_list *list) {
	for (size_t i = 0; i < list->count; i++)
		free((void *)(uintptr_t)list->rows[i].path.data);
	free(list->rows);
}

static int keep_row(void *ctx, const struct ledger_capture *c, struct cede_error *reterr) {
	struct row_list *list = ctx;

	if (list->count == list->room) {
		size_t room = list->room == 0 ? 64 : list->room * 2;
		struct ledger_capture *rows = reallocarray(list->rows, room, sizeof *rows);
		if (rows == NULL)
			return CEDE_FAIL_MEMORY(reterr);
		list->rows = rows;
		list->room = room;
	}
	uint8_t *block = malloc(c->path.len + c->group.len + 1);
	if (block == NULL)
		return CEDE_FAIL_MEMORY(reterr);
	memcpy(block, c->path.data, c->path.len);
	if (c->group.len > 0)
		memcpy(block + c->path.len, c->group.data, c->group.len);
	struct ledger_capture *row = &list->rows[list->count++];
	*row = *c;
	row->path = slice_of(block, c->path.len);
	row->group = slice_of(block + c->path.len, c->group.len);
	row->source = SLICE_NONE;
	list->bytes += c->identity.size;
	return CEDE_OK;
}

static bool has_row(const struct row_list *list, int64_t row) {
	for (size_t i = 0; i < list->count; i++)
		if (list->rows[i].row == row)
			return true;
	return false;
}

struct others {
	struct row_list *taken;
	struct row_list more;
};

static int keep_other(void *ctx, const struct ledger_capture *c, struct cede_error *reterr) {
	struct others *o = ctx;

	return has_row(o->taken, c->row) ? CEDE_OK : keep_row(&o->more, c, reterr);
}

/* The rest of a capture's group travels with it, as far as it is ready, fits, and does not go in
 * segments. */
static int take_group(struct ledger *l, int64_t source, struct slice group, uint64_t bytes,
	size_t captures, int64_t now_ns, struct row_list *list, struct cede_error *reterr) {
	CLEANUP(buf_done) struct buf end = BUF_INIT(8192);
	struct others o = {.taken = list};
	sqlite3_stmt *st;

	CEDE_TRY(buf_add(&end, group.data, group.len, reterr));
	CEDE_TRY(buf_add(&end, "\xff", 1, reterr));
	CEDE_TRY(ledger_use(l, ST_TAKE_GROUP, &st, reterr));
	LEDGER_TRY_BIND(l, sqlite3_bind_int64(st, 1, source), reterr);
	LEDGER_TRY_BIND(
		l, sqlite3_bind_blob(st, 2, group.data, (int)group.len, SQLITE_STATIC), reterr);
	LEDGER_TRY_BIND(l, sqlite3_bind_blob(st, 3, end.data, (int)end.len, SQLITE_STATIC), reterr);
	LEDGER_TRY_BIND(l, sqlite3_bind_int64(st, 4, now_ns), reterr);
	int r = ledger_each(l, st, keep_other, &o, reterr);
	(void)sqlite3_clear_bindings(st);
	for (size_t i = 0; r == CEDE_OK && i < o.more.count; i++)
		if (o.more.rows[i].segment_count == 1 && list->count < captures &&
			list->bytes + o.more.rows[i].identity.size <= bytes)
			r = keep_row(list, &o.more.rows[i], reterr);
	rows_done(&o.more);
	return r;
}

struct picking {
	struct ledger *ledger;
	int64_t source;
	size_t captures;
	uint64_t bytes;
	int64_t now_ns;
	struct row_list *list;
	enum ledger_large large;
	bool alone; /* what was taken goes in segments, nothing else with it */
};

/* One more in order of deadlines: the first that does not fit ends it, and goes first next time. */
static int pick(void *ctx, const struct ledger_capture *c, struct cede_error *reterr) {
	struct picking *p = ctx;
	struct row_list *list = p->list;

	bool large = c->segment_count > 1 || c->identity.size > p->bytes;
	bool fits = !large && list->bytes + c->identity.size <= p->bytes;
	if (large && p->large == LARGE_PASSED)
		return CEDE_OK;
	if (list->count >= p->captures || p->alone ||
		(!fits && (list->count > 0 || p->large == LARGE_ENDS)))
		return LEDGER_ENOUGH;
	p->alone = large;
	if (c->group.len > 0 && has_row(list, c->row))
		return CEDE_OK;
	CEDE_TRY(keep_row(list, c, reterr));
	if (c->group.len == 0 || large || list->bytes >= p->bytes)
		return CEDE_OK;
	return take_group(
		p->ledger, p->source, c->group, p->bytes, p->captures, p->now_ns, list, reterr);
}

static int pick_all(struct picking *p, struct cede_error *reterr) {
	struct ledger *l = p->ledger;
	sqlite3_stmt *st;

	CEDE_TRY(ledger_use(l, ST_TAKE, &st, reterr));
	LEDGER_TRY_BIND(l, sqlite3_bind_int64(st, 1, p->source), reterr);
	LEDGER_TRY_BIND(l, sqlite3_bind_int64(st, 2, p->now_ns), reterr);
	LEDGER_TRY_BIND(l, sqlite3_bind_int64(st, 3, (int64_t)p->captures), reterr);
	return ledger_each(l, st, pick, p, reterr);
}

int ledger_take(struct ledger *l, struct slice source, size_t captures, uint64_t bytes,
	enum ledger_large large, int64_t now_ns, ledger_capture_fn *fn, void *ctx,
	struct cede_error *reterr) {
	struct row_list list = {0};
	int64_t id;

	CEDE_TRY(ledger_source(l, source, false, &id, reterr));
	if (id == 0 || captures == 0)
		return CEDE_OK;
	struct picking p = {.ledger = l,
		.source = id,
		.captures = captures,
		.bytes = bytes,
		.now_ns = now_ns,
		.list = &list,
		.large = large};
	int r = pick_all(&p, reterr);
	for (size_t i = 0; r == CEDE_OK && i < list.count; i++) {
		r = ledger_move_from(l, list.rows[i].row, CAPTURE_READY, CAPTURE_BUNDLED, 0, reterr);
		list.rows[i].state = CAPTURE_BUNDLED;
		list.rows[i].source = source;
		if (r == CEDE_OK)
			r = fn(ctx, &list.rows[i], reterr);
	}
	rows_done(&list);
	return r;
}

static int minimum(struct ledger *l, enum statement which, int64_t source, int64_t now_ns,
	int64_t *ret, struct cede_error *reterr) {
	sqlite3_stmt *st;
	bool there;

	CEDE_TRY(ledger_use(l, which, &st, reterr));
	LEDGER_TRY_BIND(l, sqlite3_bind_int64(st, 1, source), reterr);
	LEDGER_TRY_BIND(l, sqlite3_bind_int64(st, 2, now_ns), reterr);
	CEDE_TRY(ledger_row(l, st, &there, reterr));
	*ret = there && sqlite3_column_type(st, 0) != SQLITE_NULL ? sqlite3_column_int64(st, 0)
								  : INT64_MAX;
	(void)sqlite3_reset(st);
	return CEDE_OK;
}

int ledger_next(struct ledger *l, struct slice source, int64_t now_ns, int64_t *ret_deadline_ns,
	int64_t *ret_not_before_ns, struct cede_error *reterr) {
	int64_t id;

	*ret_deadline_ns = *ret_not_before_ns = INT64_MAX;
	CEDE_TRY(ledger_source(l, source, false, &id, reterr));
	if (id == 0)
		return CEDE_OK;
	CEDE_TRY(minimum(l, ST_NEXT_DEADLINE, id, now_ns, ret_deadline_ns, reterr));
	return minimum(l, ST_NEXT_TIME, id, now_ns, ret_not_before_ns, reterr);
}
