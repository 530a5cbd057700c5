/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <string.h>

#include "agent/ledger/ledger_internal.h"
#include "base/buf.h"
#include "base/check.h"
#include "base/cleanup.h"

static int remember_source(
	struct ledger *l, struct slice name, int64_t id, struct cede_error *reterr) {
	l->last_source_id = 0;
	buf_clear(&l->last_source);
	CEDE_TRY(buf_add(&l->last_source, name.data, name.len, reterr));
	l->last_source_id = id;
	return CEDE_OK;
}

int ledger_source(
	struct ledger *l, struct slice name, bool add, int64_t *ret_id, struct cede_error *reterr) {
	sqlite3_stmt *st;
	bool there;

	if (l->last_source_id != 0 && slice_equal(buf_slice(&l->last_source), name)) {
		*ret_id = l->last_source_id;
		return CEDE_OK;
	}
	CEDE_TRY(ledger_use(l, ST_SOURCE_FIND, &st, reterr));
	LEDGER_TRY_BIND(l,
		sqlite3_bind_text(st, 1, (const char *)name.data, (int)name.len, SQLITE_STATIC),
		reterr);
	CEDE_TRY(ledger_row(l, st, &there, reterr));
	*ret_id = there ? sqlite3_column_int64(st, 0) : 0;
	(void)sqlite3_reset(st);
	if (there)
		return remember_source(l, name, *ret_id, reterr);
	if (!add)
		return CEDE_OK;
	CEDE_TRY(ledger_use(l, ST_SOURCE_ADD, &st, reterr));
	LEDGER_TRY_BIND(l,
		sqlite3_bind_text(st, 1, (const char *)name.data, (int)name.len, SQLITE_STATIC),
		reterr);
	CEDE_TRY(ledger_run(l, st, reterr));
	*ret_id = sqlite3_last_insert_rowid(l->db);
	return remember_source(l, name, *ret_id, reterr);
}

static struct slice blob(sqlite3_stmt *st, int column) {
	return slice_of(sqlite3_column_blob(st, column), (size_t)sqlite3_column_bytes(st, column));
}

void ledger_read_capture(sqlite3_stmt *st, struct ledger_capture *ret) {
	*ret = (struct ledger_capture){
		.row = sqlite3_column_int64(st, 0),
		.state = (enum capture_state)sqlite3_column_int(st, 2),
		.source = slice_of(sqlite3_column_text(st, 3), (size_t)sqlite3_column_bytes(st, 3)),
		.path = blob(st, 4),
		.group = blob(st, 5),
		.identity = {.dev = (uint64_t)sqlite3_column_int64(st, 6),
			.ino = (uint64_t)sqlite3_column_int64(st, 7),
			.size = (uint64_t)sqlite3_column_int64(st, 8),
			.mtime_ns = sqlite3_column_int64(st, 9),
			.ctime_ns = sqlite3_column_int64(st, 10)},
		.born_ns = sqlite3_column_int64(st, 11),
		.first_seen_ns = sqlite3_column_int64(st, 12),
		.deadline_ns = sqlite3_column_int64(st, 13),
		.not_before_ns = sqlite3_column_int64(st, 14),
		.segment_count = (uint32_t)sqlite3_column_int64(st, 16),
		.bundle_row = sqlite3_column_int64(st, 17),
	};
	if (sqlite3_column_bytes(st, 1) == ID_SIZE)
		memcpy(ret->id.bytes, sqlite3_column_blob(st, 1), ID_SIZE);
	if (sqlite3_column_bytes(st, 15) == 32)
		memcpy(ret->sha256, sqlite3_column_blob(st, 15), 32);
}

int ledger_each(struct ledger *l, sqlite3_stmt *st, ledger_capture_fn *fn, void *ctx,
	struct cede_error *reterr) {
	struct ledger_capture c;
	bool there;
	int r;

	for (;;) {
		CEDE_TRY(ledger_row(l, st, &there, reterr));
		if (!there)
			break;
		ledger_read_capture(st, &c);
		r = fn(ctx, &c, reterr);
		if (r != CEDE_OK) {
			(void)sqlite3_reset(st);
			return r < 0 ? r : CEDE_OK;
		}
	}
	(void)sqlite3_reset(st);
	return CEDE_OK;
}

/* Where the capture is now; CAPTURE_STATE_COUNT: no such row. */
static int read_state(struct ledger *l, int64_t row, enum capture_state *ret, struct id *ret_id,
	struct cede_error *reterr) {
	sqlite3_stmt *st;
	bool there;

	CEDE_TRY(ledger_use(l, ST_CAPTURE_ROW, &st, reterr));
	LEDGER_TRY_BIND(l, sqlite3_bind_int64(st, 1, row), reterr);
	CEDE_TRY(ledger_row(l, st, &there, reterr));
	*ret = there ? (enum capture_state)sqlite3_column_int(st, 0) : CAPTURE_STATE_COUNT;
	if (there && sqlite3_column_bytes(st, 1) == ID_SIZE)
		memcpy(ret_id->bytes, sqlite3_column_blob(st, 1), ID_SIZE);
	(void)sqlite3_reset(st);
	return CEDE_OK;
}

static bool is_over(enum capture_state state) {
	return state == CAPTURE_REPLACED || state == CAPTURE_GONE;
}

static enum statement statement_for(enum capture_state to) {
	if (to == CAPTURE_READY || to == CAPTURE_SETTLING)
		return ST_CAPTURE_RESET;
	return to == CAPTURE_GONE || to == CAPTURE_REPLACED ? ST_CAPTURE_OVER : ST_CAPTURE_STATE;
}

static int move(struct ledger *l, int64_t row, enum capture_state from, enum capture_state to,
	int64_t not_before_ns, struct cede_error *reterr) {
	sqlite3_stmt *st;

	if (from == CAPTURE_STATE_COUNT)
		return CEDE_FAIL(reterr, CEDE_ERR_BUG, "ledger: no such capture");
	CEDE_TRY(capture_move(from, to, reterr));
	CEDE_TRY(ledger_use(l, statement_for(to), &st, reterr));
	LEDGER_TRY_BIND(l, sqlite3_bind_int64(st, 1, row), reterr);
	LEDGER_TRY_BIND(l, sqlite3_bind_int(st, 2, (int)to), reterr);
	LEDGER_TRY_BIND(l, sqlite3_bind_int64(st, 3, not_before_ns), reterr);
	return ledger_run(l, st, reterr);
}

int ledger_move(struct ledger *l, int64_t row, enum capture_state to, int64_t not_before_ns,
	struct id *ret_id, struct cede_error *reterr) {
	enum capture_state from;

	CEDE_TRY(read_state(l, row, &from, ret_id, reterr));
	return move(l, row, from, to, not_before_ns, reterr);
}

int ledger_is_over(struct ledger *l, int64_t row, bool *ret, struct cede_error *reterr) {
	enum capture_state state;
	struct id id;

	CEDE_TRY(read_state(l, row, &state, &id, reterr));
	*ret = is_over(state);
	return CEDE_OK;
}

/* ---- seen */

struct live { /* the row that has the name now */
	bool there;
	int64_t row;
	enum capture_state state;
	struct file_identity identity;
};

static int find_live(struct ledger *l, int64_t source, struct slice path, struct live *ret,
	int64_t *ret_first_seen, struct cede_error *reterr) {
	sqlite3_stmt *st;

	CEDE_TRY(ledger_use(l, ST_CAPTURE_LIVE, &st, reterr));
	LEDGER_TRY_BIND(l, sqlite3_bind_int64(st, 1, source), reterr);
	LEDGER_TRY_BIND(l, sqlite3_bind_blob(st, 2, path.data, (int)path.len, SQLITE_STATIC), reterr);
	CEDE_TRY(ledger_row(l, st, &ret->there, reterr));
	if (ret->there) {
		ret->row = sqlite3_column_int64(st, 0);
		ret->state = (enum capture_state)sqlite3_column_int(st, 1);
		ret->identity = (struct file_identity){.dev = (uint64_t)sqlite3_column_int64(st, 2),
			.ino = (uint64_t)sqlite3_column_int64(st, 3),
			.size = (uint64_t)sqlite3_column_int64(st, 4),
			.mtime_ns = sqlite3_column_int64(st, 5),
			.ctime_ns = sqlite3_column_int64(st, 6)};
		*ret_first_seen = sqlite3_column_int64(st, 7);
	}
	(void)sqlite3_reset(st);
	return CEDE_OK;
}

static int bind_identity(struct ledger *l, sqlite3_stmt *st, int first,
	const struct file_identity *i, struct cede_error *reterr) {
	LEDGER_TRY_BIND(l, sqlite3_bind_int64(st, first, (int64_t)i->dev), reterr);
	LEDGER_TRY_BIND(l, sqlite3_bind_int64(st, first + 1, (int64_t)i->ino), reterr);
	LEDGER_TRY_BIND(l, sqlite3_bind_int64(st, first + 2, (int64_t)i->size), reterr);
	LEDGER_TRY_BIND(l, sqlite3_bind_int64(st, first + 3, i->mtime_ns), reterr);
	LEDGER_TRY_BIND(l, sqlite3_bind_int64(st, first + 4, i->ctime_ns), reterr);
	return CEDE_OK;
}

static int add_capture(struct ledger *l, int64_t source, const struct ledger_capture *c,
	int64_t now_ns, int64_t *ret_row, struct cede_error *reterr) {
	sqlite3_stmt *st;
	char detail[128];

	CEDE_TRY(ledger_use(l, ST_CAPTURE_ADD, &st, reterr));
	LEDGER_TRY_BIND(l, sqlite3_bind_blob(st, 1, c->id.bytes, ID_SIZE, SQLITE_STATIC), reterr);
	LEDGER_TRY_BIND(l, sqlite3_bind_int64(st, 2, source), reterr);
	LEDGER_TRY_BIND(
		l, sqlite3_bind_blob(st, 3, c->path.data, (int)c->path.len, SQLITE_STATIC), reterr);
	if (c->group.len > 0)
		LEDGER_TRY_BIND(l,
			sqlite3_bind_blob(st, 4, c->group.data, (int)c->group.len, SQLITE_STATIC),
			reterr);
	CEDE_TRY(bind_identity(l, st, 5, &c->identity, reterr));
	LEDGER_TRY_BIND(l, sqlite3_bind_int64(st, 10, c->born_ns), reterr);
	LEDGER_TRY_BIND(l, sqlite3_bind_int64(st, 11, c->first_seen_ns), reterr);
	LEDGER_TRY_BIND(l, sqlite3_bind_int64(st, 12, c->deadline_ns), reterr);
	LEDGER_TRY_BIND(l, sqlite3_bind_int64(st, 13, c->not_before_ns), reterr);
	CEDE_TRY(ledger_run(l, st, reterr));
	*ret_row = sqlite3_last_insert_rowid(l->db);
	/* the name is in the row; the event pins which row it was and what the file was */
	(void)snprintf(detail, sizeof detail, "row=%lld size=%llu mtime=%lld", (long long)*ret_row,
		(unsigned long long)c->identity.size, (long long)c->identity.mtime_ns);
	return ledger_event(l, LEDGER_CAPTURE_SEEN, &c->id, now_ns, detail, reterr);
}

static int update_capture(
	struct ledger *l, int64_t row, const struct ledger_capture *c, struct cede_error *reterr) {
	sqlite3_stmt *st;

	CEDE_TRY(ledger_use(l, ST_CAPTURE_AGAIN, &st, reterr));
	LEDGER_TRY_BIND(l, sqlite3_bind_int64(st, 1, row), reterr);
	CEDE_TRY(bind_identity(l, st, 2, &c->identity, reterr));
	LEDGER_TRY_BIND(l, sqlite3_bind_int64(st, 7, c->born_ns), reterr);
	LEDGER_TRY_BIND(l, sqlite3_bind_int64(st, 8, c->deadline_ns), reterr);
	LEDGER_TRY_BIND(l, sqlite3_bind_int64(st, 9, c->not_before_ns), reterr);
	return ledger_run(l, st, reterr);
}

int ledger_capture_seen(struct ledger *l, const struct ledger_capture *c, int64_t now_ns,
	enum ledger_seen *ret, int64_t *ret_row, struct cede_error *reterr) {
	struct live live = {0};
	int64_t source, first_seen;

	CEDE_TRY(ledger_source(l, c->source, true, &source, reterr));
	CEDE_TRY(find_live(l, source, c->path, &live, &first_seen, reterr));
	*ret_row = live.row;
	if (live.there && live.state != CAPTURE_SETTLING &&
		file_identity_equal(&live.identity, &c->identity)) {
		*ret = LEDGER_SEEN_KNOWN;
		return CEDE_OK;
	}
	if (live.there && live.state == CAPTURE_WIPING && live.identity.dev == c->identity.dev &&
		live.identity.ino == c->identity.ino) {
		*ret = LEDGER_SEEN_KNOWN; /* our own overwriting changed it */
		return CEDE_OK;
	}
	if (live.there && (live.state == CAPTURE_SETTLING || live.state == CAPTURE_READY)) {
		*ret = LEDGER_SEEN_UPDATED;
		return update_capture(l, live.row, c, reterr);
	}
	if (live.there)
		CEDE_TRY(ledger_capture_move(l, live.row, CAPTURE_REPLACED, 0, now_ns,
			"reason=another-file-has-the-name", reterr));
	*ret = LEDGER_SEEN_NEW;
	return add_capture(l, source, c, now_ns, ret_row, reterr);
}

int ledger_first_seen(struct ledger *l, struct slice source, struct slice path, int64_t *ret_ns,
	struct cede_error *reterr) {
	struct live live = {0};
	int64_t id;

	*ret_ns = 0;
	CEDE_TRY(ledger_source(l, source, false, &id, reterr));
	return id == 0 ? CEDE_OK : find_live(l, id, path, &live, ret_ns, reterr);
}

/* ---- take */

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

/* The rest of a capture's group travels with it, as far as it is ready and fits. */
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
		if (list->count < captures && list->bytes + o.more.rows[i].identity.size <= bytes)
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
};

/* One more in order of deadlines: the first that does not fit ends it, and goes first next time. */
static int pick(void *ctx, const struct ledger_capture *c, struct cede_error *reterr) {
	struct picking *p = ctx;
	struct row_list *list = p->list;

	if (list->count >= p->captures ||
		(list->count > 0 && list->bytes + c->identity.size > p->bytes))
		return LEDGER_ENOUGH;
	if (c->group.len > 0 && has_row(list, c->row))
		return CEDE_OK;
	CEDE_TRY(keep_row(list, c, reterr));
	if (c->group.len == 0 || list->bytes >= p->bytes)
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
	int64_t now_ns, ledger_capture_fn *fn, void *ctx, struct cede_error *reterr) {
	struct row_list list = {0};
	int64_t id;

	CEDE_TRY(ledger_source(l, source, false, &id, reterr));
	if (id == 0 || captures == 0)
		return CEDE_OK;
	struct picking p = {l, id, captures, bytes, now_ns, &list};
	int r = pick_all(&p, reterr);
	for (size_t i = 0; r == CEDE_OK && i < list.count; i++) {
		r = move(l, list.rows[i].row, CAPTURE_READY, CAPTURE_BUNDLED, 0, reterr);
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

int ledger_capture_move(struct ledger *l, int64_t row, enum capture_state to, int64_t not_before_ns,
	int64_t now_ns, const char *detail, struct cede_error *reterr) {
	static const enum ledger_event kinds[CAPTURE_STATE_COUNT] = {
		[CAPTURE_SETTLING] = LEDGER_CAPTURE_CHANGED,
		[CAPTURE_READY] = LEDGER_CAPTURE_CHANGED,
		[CAPTURE_GONE] = LEDGER_CAPTURE_GONE,
		[CAPTURE_REPLACED] = LEDGER_CAPTURE_REPLACED,
	};
	struct id id = {{0}};
	sqlite3_stmt *st;
	enum capture_state from;

	if (kinds[to] == 0)
		return CEDE_FAIL(reterr, CEDE_ERR_BUG, "ledger: move to %s has a call of its own",
			capture_state_name(to));
	CEDE_TRY(read_state(l, row, &from, &id, reterr));
	if (is_over(from))
		return CEDE_OK;
	CEDE_TRY(move(l, row, from, to, not_before_ns, reterr));
	if (to == CAPTURE_READY || to == CAPTURE_SETTLING) { /* begins again with its first segment */
		CEDE_TRY(ledger_use(l, ST_CAPTURE_PARTS, &st, reterr));
		LEDGER_TRY_BIND(l, sqlite3_bind_int64(st, 1, row), reterr);
		CEDE_TRY(ledger_run(l, st, reterr));
	}
	return detail == NULL ? CEDE_OK : ledger_event(l, kinds[to], &id, now_ns, detail, reterr);
}

int ledger_capture_wiped(struct ledger *l, int64_t row, const char *level, const char *reason,
	int64_t now_ns, bool alone, struct cede_error *reterr) {
	sqlite3_stmt *st;
	enum capture_state from;
	struct id id = {{0}};

	CEDE_TRY(read_state(l, row, &from, &id, reterr));
	if (from == CAPTURE_STATE_COUNT)
		return CEDE_FAIL(reterr, CEDE_ERR_BUG, "ledger: no such capture");
	if (!is_over(from))
		CEDE_TRY(capture_move(from, CAPTURE_WIPED, reterr));
	CEDE_TRY(ledger_use(l, is_over(from) ? ST_CAPTURE_WIPED : ST_CAPTURE_END, &st, reterr));
	LEDGER_TRY_BIND(l, sqlite3_bind_int64(st, 1, row), reterr);
	LEDGER_TRY_BIND(l, sqlite3_bind_int64(st, 2, now_ns), reterr);
	LEDGER_TRY_BIND(l, sqlite3_bind_text(st, 3, level, -1, SQLITE_STATIC), reterr);
	LEDGER_TRY_BIND(l, sqlite3_bind_text(st, 4, reason, -1, SQLITE_STATIC), reterr);
	CEDE_TRY(ledger_run(l, st, reterr));
	if (!alone)
		return CEDE_OK;
	char detail[128];
	(void)snprintf(detail, sizeof detail, "level=%s%s%s", level,
		reason[0] != 0 ? " reason=" : "", reason);
	return ledger_event(l, LEDGER_CAPTURE_WIPED, &id, now_ns, detail, reterr);
}

/* ---- holds, destruction, files that are gone */

static int move_with_event(struct ledger *l, int64_t row, enum capture_state to,
	enum ledger_event event, int64_t now_ns, const char *detail, struct cede_error *reterr) {
	enum capture_state from;
	struct id id = {{0}};

	CEDE_TRY(read_state(l, row, &from, &id, reterr));
	if (is_over(from))
		return CEDE_OK;
	CEDE_TRY(move(l, row, from, to, 0, reterr));
	return ledger_event(l, event, &id, now_ns, detail, reterr);
}

int ledger_capture_held(struct ledger *l, int64_t row, int64_t now_ns, const char *hold,
	struct cede_error *reterr) {
	char detail[96];

	(void)snprintf(detail, sizeof detail, "hold=%.64s", hold);
	return move_with_event(l, row, CAPTURE_HELD, LEDGER_CAPTURE_HELD, now_ns, detail, reterr);
}

int ledger_hold_lifted(struct ledger *l, int64_t row, int64_t now_ns, struct cede_error *reterr) {
	return move_with_event(l, row, CAPTURE_WIPING, LEDGER_HOLD_LIFTED, now_ns, "", reterr);
}

int ledger_capture_destroying(
	struct ledger *l, int64_t row, int64_t now_ns, struct cede_error *reterr) {
	return move_with_event(l, row, CAPTURE_WIPING, LEDGER_CAPTURE_DESTROYED, now_ns,
		"reason=max-age proof=none", reterr);
}

int ledger_capture_absent(struct ledger *l, struct slice source, struct slice path, int64_t now_ns,
	bool *ret_was_there, struct cede_error *reterr) {
	struct live live = {0};
	int64_t id, first_seen;

	*ret_was_there = false;
	CEDE_TRY(ledger_source(l, source, false, &id, reterr));
	if (id == 0)
		return CEDE_OK;
	CEDE_TRY(find_live(l, id, path, &live, &first_seen, reterr));
	if (!live.there || (live.state != CAPTURE_READY && live.state != CAPTURE_SETTLING))
		return CEDE_OK;
	*ret_was_there = true;
	return ledger_capture_move(
		l, live.row, CAPTURE_GONE, 0, now_ns, "reason=removed-by-another-program", reterr);
}

int ledger_past_deadline(struct ledger *l, struct slice source, int64_t now_ns,
	ledger_capture_fn *fn, void *ctx, struct cede_error *reterr) {
	sqlite3_stmt *st;
	int64_t id;

	CEDE_TRY(ledger_source(l, source, false, &id, reterr));
	if (id == 0)
		return CEDE_OK;
	CEDE_TRY(ledger_use(l, ST_PAST_DEADLINE, &st, reterr));
	LEDGER_TRY_BIND(l, sqlite3_bind_int64(st, 1, id), reterr);
	LEDGER_TRY_BIND(l, sqlite3_bind_int64(st, 2, now_ns), reterr);
	return ledger_each(l, st, fn, ctx, reterr);
}

int ledger_settling(struct ledger *l, struct slice source, size_t most, ledger_capture_fn *fn,
	void *ctx, struct cede_error *reterr) {
	sqlite3_stmt *st;
	int64_t id;

	CEDE_TRY(ledger_source(l, source, false, &id, reterr));
	if (id == 0)
		return CEDE_OK;
	CEDE_TRY(ledger_use(l, ST_SETTLING_OF, &st, reterr));
	LEDGER_TRY_BIND(l, sqlite3_bind_int64(st, 1, id), reterr);
	LEDGER_TRY_BIND(l, sqlite3_bind_int64(st, 2, (int64_t)most), reterr);
	return ledger_each(l, st, fn, ctx, reterr);
}
