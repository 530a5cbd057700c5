/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/ledger/tally.h"

#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"

struct row {
	int64_t source;
	struct ledger_tally now;
	/* No live capture of the source that is not held was born before this. Only what enters
	 * lowers it; the query for the oldest starts here, so that it passes each held one once. */
	int64_t floor_ns;
};

struct tally {
	struct row *rows;
	struct row *committed; /* what a rollback goes back to */
	size_t count, committed_count, room;
	bool changed;
	bool failed; /* a change was not followed */
};

static bool is_live(int64_t state) {
	return state >= 0 && state < CAPTURE_STATE_COUNT && state != CAPTURE_WIPED &&
		state != CAPTURE_GONE && state != CAPTURE_REPLACED;
}

static struct row *find(struct tally *t, int64_t source) {
	for (size_t i = 0; i < t->count; i++)
		if (t->rows[i].source == source)
			return &t->rows[i];
	return NULL;
}

static struct row *find_or_add(struct tally *t, int64_t source) {
	struct row *row = find(t, source);

	if (row != NULL)
		return row;
	if (t->count == t->room) {
		size_t room = t->room == 0 ? 16 : t->room * 2;
		struct row *rows = reallocarray(t->rows, room, sizeof *rows);
		if (rows == NULL)
			return NULL;
		t->rows = rows;
		rows = reallocarray(t->committed, room, sizeof *rows);
		if (rows == NULL)
			return NULL;
		t->committed = rows;
		t->room = room;
	}
	row = &t->rows[t->count++];
	*row = (struct row){.source = source, .floor_ns = INT64_MAX};
	return row;
}

static void leave(struct row *row, int64_t state, uint64_t size) {
	if (!is_live(state))
		return;
	row->now.files[state]--;
	row->now.bytes[state] -= size;
}

static void enter(struct row *row, int64_t state, uint64_t size, int64_t born_ns) {
	if (!is_live(state))
		return;
	row->now.files[state]++;
	row->now.bytes[state] += size;
	if (state != CAPTURE_HELD && born_ns < row->floor_ns)
		row->floor_ns = born_ns;
}

/* The columns of `capture` that count, by their number (schema.h); a test compares. */
enum { COLUMN_STATE = 2, COLUMN_SOURCE = 3, COLUMN_SIZE = 8, COLUMN_BORN = 11 };

struct values {
	int64_t source, state, size, born_ns;
};

typedef int read_fn(sqlite3 *db, int column, sqlite3_value **ret);

static bool read_column(sqlite3 *db, read_fn *read, int column, int64_t *ret) {
	sqlite3_value *value;

	if (read(db, column, &value) != SQLITE_OK)
		return false;
	*ret = sqlite3_value_int64(value);
	return true;
}

static bool read_values(sqlite3 *db, read_fn *read, struct values *ret) {
	return read_column(db, read, COLUMN_SOURCE, &ret->source) &&
		read_column(db, read, COLUMN_STATE, &ret->state) &&
		read_column(db, read, COLUMN_SIZE, &ret->size) &&
		read_column(db, read, COLUMN_BORN, &ret->born_ns);
}

static bool is_same(const struct values *a, const struct values *b) {
	return a->source == b->source && a->state == b->state && a->size == b->size &&
		a->born_ns == b->born_ns;
}

static bool follow(struct tally *t, sqlite3 *db, int operation) {
	struct values was, now;
	struct row *row;

	if (operation != SQLITE_INSERT && !read_values(db, sqlite3_preupdate_old, &was))
		return false;
	if (operation != SQLITE_DELETE && !read_values(db, sqlite3_preupdate_new, &now))
		return false;
	if (operation == SQLITE_UPDATE && is_same(&was, &now))
		return true;
	t->changed = true;
	if (operation != SQLITE_INSERT) {
		if ((row = find_or_add(t, was.source)) == NULL)
			return false;
		leave(row, was.state, (uint64_t)was.size);
	}
	if (operation != SQLITE_DELETE) {
		if ((row = find_or_add(t, now.source)) == NULL)
			return false;
		enter(row, now.state, (uint64_t)now.size, now.born_ns);
	}
	return true;
}

/* Before a row of any table changes. What fails here can't stop the change: it stops the commit. */
static void on_change(void *ctx, sqlite3 *db, int operation, const char *database,
	const char *table, sqlite3_int64 row, sqlite3_int64 new_row) {
	struct tally *t = ctx;

	(void)database;
	(void)row;
	(void)new_row;
	if (strcmp(table, "capture") == 0 && !follow(t, db, operation))
		t->failed = true;
}

static int count_live(struct ledger *l, struct cede_error *reterr) {
	sqlite3_stmt *st;
	bool there;

	CEDE_TRY(ledger_use(l, ST_TALLY, &st, reterr));
	for (;;) {
		CEDE_TRY(ledger_row(l, st, &there, reterr));
		if (!there)
			break;
		struct row *row = find_or_add(l->tally, sqlite3_column_int64(st, 0));
		int64_t state = sqlite3_column_int64(st, 1);
		if (row == NULL)
			return CEDE_FAIL_MEMORY(reterr);
		row->floor_ns = INT64_MIN;
		if (!is_live(state))
			continue;
		row->now.files[state] = (uint64_t)sqlite3_column_int64(st, 2);
		row->now.bytes[state] = (uint64_t)sqlite3_column_int64(st, 3);
	}
	(void)sqlite3_reset(st);
	return CEDE_OK;
}

int tally_start(struct ledger *l, struct cede_error *reterr) {
	l->tally = calloc(1, sizeof *l->tally);
	if (l->tally == NULL)
		return CEDE_FAIL_MEMORY(reterr);
	(void)sqlite3_preupdate_hook(l->db, on_change, l->tally);
	CEDE_TRY(count_live(l, reterr));
	l->tally->changed = true;
	tally_commit(l->tally);
	return CEDE_OK;
}

void tally_commit(struct tally *t) {
	if (t == NULL || !t->changed)
		return;
	/* Before the first source there is no room to copy from or to. */
	if (t->count > 0)
		memcpy(t->committed, t->rows, t->count * sizeof *t->rows);
	t->committed_count = t->count;
	t->changed = false;
}

bool tally_failed(const struct tally *t) {
	return t != NULL && t->failed;
}

void tally_rollback(struct tally *t) {
	if (t == NULL || !(t->changed || t->failed))
		return;
	if (t->committed_count > 0)
		memcpy(t->rows, t->committed, t->committed_count * sizeof *t->rows);
	t->count = t->committed_count;
	t->changed = t->failed = false;
}

void tally_free(struct tally *t) {
	if (t == NULL)
		return;
	free(t->rows);
	free(t->committed);
	free(t);
}

int ledger_tally(struct ledger *l, struct slice source, struct ledger_tally *ret,
	struct cede_error *reterr) {
	sqlite3_stmt *st;
	int64_t id;
	bool there;

	*ret = (struct ledger_tally){.oldest_born_ns = INT64_MAX};
	CEDE_TRY(ledger_source(l, source, false, &id, reterr));
	struct row *row = find(l->tally, id);
	if (row == NULL)
		return CEDE_OK;
	CEDE_TRY(ledger_use(l, ST_TALLY_OLDEST, &st, reterr));
	LEDGER_TRY_BIND(l, sqlite3_bind_int64(st, 1, id), reterr);
	LEDGER_TRY_BIND(l, sqlite3_bind_int64(st, 2, row->floor_ns), reterr);
	CEDE_TRY(ledger_row(l, st, &there, reterr));
	row->floor_ns = there ? sqlite3_column_int64(st, 0) : INT64_MAX;
	(void)sqlite3_reset(st);
	l->tally->changed = true;
	*ret = row->now;
	ret->oldest_born_ns = row->floor_ns;
	return CEDE_OK;
}

static int time_of(struct ledger *l, enum statement which, int64_t *ret, struct cede_error *reterr) {
	sqlite3_stmt *st;
	bool there;

	CEDE_TRY(ledger_use(l, which, &st, reterr));
	CEDE_TRY(ledger_row(l, st, &there, reterr));
	*ret = there ? sqlite3_column_int64(st, 0) : 0; /* NULL: 0 */
	(void)sqlite3_reset(st);
	return CEDE_OK;
}

int ledger_signed_ns(struct ledger *l, int64_t *ret_signed_ns, int64_t *ret_acknowledged_ns,
	struct cede_error *reterr) {
	CEDE_TRY(time_of(l, ST_SIGNED_NS, ret_signed_ns, reterr));
	return time_of(l, ST_ACKNOWLEDGED_NS, ret_acknowledged_ns, reterr);
}
