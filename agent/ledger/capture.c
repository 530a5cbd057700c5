/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <string.h>

#include "agent/ledger/ledger_internal.h"
#include "base/buf.h"
#include "base/check.h"
#include "base/cleanup.h"
#include "base/clock.h"

#define WAIT_MOST (60 * NS_PER_SECOND) /* no capture that is ready is put off for longer */

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

int ledger_use_of(struct ledger *l, enum statement which, struct slice source, sqlite3_stmt **ret,
	struct cede_error *reterr) {
	int64_t id;

	*ret = NULL;
	CEDE_TRY(ledger_source(l, source, false, &id, reterr));
	if (id == 0)
		return CEDE_OK;
	CEDE_TRY(ledger_use(l, which, ret, reterr));
	LEDGER_TRY_BIND(l, sqlite3_bind_int64(*ret, 1, id), reterr);
	return CEDE_OK;
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
		.segment_size = (uint64_t)sqlite3_column_int64(st, 18),
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
	int64_t *ret_bundle, struct cede_error *reterr) {
	sqlite3_stmt *st;
	bool there;

	CEDE_TRY(ledger_use(l, ST_CAPTURE_ROW, &st, reterr));
	LEDGER_TRY_BIND(l, sqlite3_bind_int64(st, 1, row), reterr);
	CEDE_TRY(ledger_row(l, st, &there, reterr));
	*ret = there ? (enum capture_state)sqlite3_column_int(st, 0) : CAPTURE_STATE_COUNT;
	if (there && sqlite3_column_bytes(st, 1) == ID_SIZE)
		memcpy(ret_id->bytes, sqlite3_column_blob(st, 1), ID_SIZE);
	if (ret_bundle != NULL)
		*ret_bundle = there ? sqlite3_column_int64(st, 2) : 0;
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

int ledger_move_from(struct ledger *l, int64_t row, enum capture_state from, enum capture_state to,
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

	CEDE_TRY(read_state(l, row, &from, ret_id, NULL, reterr));
	return ledger_move_from(l, row, from, to, not_before_ns, reterr);
}

int ledger_is_over(
	struct ledger *l, int64_t row, struct id *ret_id, bool *ret, struct cede_error *reterr) {
	enum capture_state state = CAPTURE_STATE_COUNT;

	CEDE_TRY(read_state(l, row, &state, ret_id, NULL, reterr));
	*ret = is_over(state);
	return CEDE_OK;
}

/* ---- seen */

struct live { /* the row that has the name now */
	bool there;
	int64_t born_ns, deadline_ns, not_before_ns;
	bool segments; /* some of it may be at the agency already, under this id */
	int64_t row;
	struct id id;
	enum capture_state state;
	struct file_identity identity;
};

/* The same file with other times or rights, after it was sealed: whether its content is what was
 * sealed the wipe finds out. */
static bool is_touched(const struct live *live, const struct file_identity *now) {
	struct file_identity same = *now;

	same.ctime_ns = live->identity.ctime_ns;
	return (live->state == CAPTURE_SEALED || live->state == CAPTURE_HELD ||
		       live->state == CAPTURE_KEPT) &&
		file_identity_equal(&live->identity, &same);
}

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
		ret->segments = sqlite3_column_int64(st, 8) > 1;
		ret->not_before_ns = sqlite3_column_int64(st, 9);
		if (sqlite3_column_bytes(st, 10) == ID_SIZE)
			memcpy(ret->id.bytes, sqlite3_column_blob(st, 10), ID_SIZE);
		ret->born_ns = sqlite3_column_int64(st, 11);
		ret->deadline_ns = sqlite3_column_int64(st, 12);
	}
	(void)sqlite3_reset(st);
	return CEDE_OK;
}

/* By the policy in force, from the earliest time that is known of it. */
static int64_t deadline_now(const struct live *live, const struct ledger_capture *c) {
	int64_t earlier, deadline;

	if (live->born_ns >= c->born_ns || c->deadline_ns == INT64_MAX)
		return c->deadline_ns;
	return __builtin_sub_overflow(c->born_ns, live->born_ns, &earlier) ||
			__builtin_sub_overflow(c->deadline_ns, earlier, &deadline)
		? INT64_MIN
		: deadline;
}

/* What was decided with a clock that has been set since: to be destroyed, or not; by when; a wait
 * that lasts until the former time comes again. */
static bool is_of_another_clock(
	const struct live *live, const struct ledger_capture *c, int64_t now_ns) {
	bool destroys = c->not_before_ns == INT64_MAX;
	bool destroyed = live->not_before_ns == INT64_MAX;

	return destroyed != destroys || deadline_now(live, c) < live->deadline_ns ||
		(!destroyed && live->not_before_ns > c->not_before_ns &&
			live->not_before_ns - now_ns > WAIT_MOST);
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

/* All that the history of a capture begins with: what was where, and since when. */
static int detail_of_capture(struct ledger *l, int64_t row, const struct ledger_capture *c,
	int64_t now_ns, struct cede_error *reterr) {
	struct buf *d = &l->detail;

	buf_clear(d);
	CEDE_TRY(detail_add_i64(d, "row", row, reterr));
	CEDE_TRY(detail_add(d, "source", c->source, reterr));
	CEDE_TRY(detail_add_i64(d, "size", (int64_t)c->identity.size, reterr));
	CEDE_TRY(detail_add_i64(d, "born", c->born_ns, reterr));
	if (c->identity.mtime_ns != c->born_ns)
		CEDE_TRY(detail_add_i64(d, "mtime", c->identity.mtime_ns, reterr));
	if (c->first_seen_ns != now_ns)
		CEDE_TRY(detail_add_i64(d, "first", c->first_seen_ns, reterr));
	if (c->classification.len > 0)
		CEDE_TRY(detail_add(d, "class", c->classification, reterr));
	return detail_add(d, "path", c->path, reterr);
}

static int add_capture(struct ledger *l, int64_t source, const struct ledger_capture *c,
	int64_t now_ns, int64_t *ret_row, struct cede_error *reterr) {
	sqlite3_stmt *st;

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
	if (c->classification.len > 0)
		LEDGER_TRY_BIND(l,
			sqlite3_bind_text(st, 14, (const char *)c->classification.data,
				(int)c->classification.len, SQLITE_STATIC),
			reterr);
	CEDE_TRY(ledger_run(l, st, reterr));
	*ret_row = sqlite3_last_insert_rowid(l->db);
	CEDE_TRY(detail_of_capture(l, *ret_row, c, now_ns, reterr));
	return ledger_event_detail(l, LEDGER_CAPTURE_SEEN, &c->id, now_ns, reterr);
}

static int update_capture(struct ledger *l, const struct live *live, const struct ledger_capture *c,
	int64_t now_ns, struct cede_error *reterr) {
	sqlite3_stmt *st;

	if (live->identity.size != c->identity.size ||
		live->identity.mtime_ns != c->identity.mtime_ns) {
		buf_clear(&l->detail);
		CEDE_TRY(detail_add(&l->detail, "reason", slice_str("written-again"), reterr));
		CEDE_TRY(detail_add_i64(&l->detail, "row", live->row, reterr));
		CEDE_TRY(detail_add_i64(&l->detail, "size", (int64_t)c->identity.size, reterr));
		CEDE_TRY(detail_add_i64(&l->detail, "born", c->born_ns, reterr));
		CEDE_TRY(detail_add_i64(&l->detail, "mtime", c->identity.mtime_ns, reterr));
		CEDE_TRY(ledger_event_detail(l, LEDGER_CAPTURE_CHANGED, &live->id, now_ns, reterr));
	}
	CEDE_TRY(ledger_use(l, ST_CAPTURE_AGAIN, &st, reterr));
	LEDGER_TRY_BIND(l, sqlite3_bind_int64(st, 1, live->row), reterr);
	CEDE_TRY(bind_identity(l, st, 2, &c->identity, reterr));
	LEDGER_TRY_BIND(l, sqlite3_bind_int64(st, 7, c->born_ns), reterr);
	LEDGER_TRY_BIND(l, sqlite3_bind_int64(st, 8, deadline_now(live, c)), reterr);
	LEDGER_TRY_BIND(l, sqlite3_bind_int64(st, 9, c->not_before_ns), reterr);
	return ledger_run(l, st, reterr);
}

/* Device numbers are given at mount time: what is live of the source and was on the one is on the
 * other now. */
static int follow_device(struct ledger *l, int64_t source, uint64_t from, uint64_t to,
	int64_t now_ns, struct cede_error *reterr) {
	sqlite3_stmt *st;
	char detail[112];

	CEDE_TRY(ledger_use(l, ST_DEVICE_SET, &st, reterr));
	LEDGER_TRY_BIND(l, sqlite3_bind_int64(st, 1, source), reterr);
	LEDGER_TRY_BIND(l, sqlite3_bind_int64(st, 2, (int64_t)from), reterr);
	LEDGER_TRY_BIND(l, sqlite3_bind_int64(st, 3, (int64_t)to), reterr);
	CEDE_TRY(ledger_run(l, st, reterr));
	int changed = sqlite3_changes(l->db);
	if (changed == 0)
		return CEDE_OK;
	l->remounted = (struct ledger_remount){.happened = true, .from = from, .to = to};
	(void)snprintf(detail, sizeof detail, "source=%lld captures=%d device=%llu was=%llu",
		(long long)source, changed, (unsigned long long)to, (unsigned long long)from);
	return ledger_event(l, LEDGER_SOURCE_REMOUNTED, NULL, now_ns, detail, reterr);
}

/* What is being wiped has other times, and the wipe itself looks at its content. */
static bool is_same_but_device(const struct live *live, const struct file_identity *now) {
	struct file_identity other = *now;

	other.dev = live->identity.dev;
	return live->there && live->identity.dev != now->dev &&
		(file_identity_equal(&live->identity, &other) ||
			(live->state == CAPTURE_WIPING && live->identity.ino == now->ino));
}

int ledger_source_opened(struct ledger *l, struct slice source, const struct file_place *place,
	int64_t now_ns, struct cede_error *reterr) {
	sqlite3_stmt *st;
	int64_t id;
	bool there;

	if (place->dev == 0 || place->born_ns == 0)
		return CEDE_OK; /* says nothing */
	CEDE_TRY(ledger_source(l, source, true, &id, reterr));
	CEDE_TRY(ledger_use(l, ST_PLACE_FIND, &st, reterr));
	LEDGER_TRY_BIND(l, sqlite3_bind_int64(st, 1, id), reterr);
	LEDGER_TRY_BIND(l, sqlite3_bind_int64(st, 2, (int64_t)place->ino), reterr);
	LEDGER_TRY_BIND(l, sqlite3_bind_int64(st, 3, place->born_ns), reterr);
	CEDE_TRY(ledger_row(l, st, &there, reterr));
	uint64_t before = there ? (uint64_t)sqlite3_column_int64(st, 0) : place->dev;
	(void)sqlite3_reset(st);
	if (there && before == place->dev)
		return CEDE_OK;
	CEDE_TRY(ledger_use(l, ST_PLACE_SET, &st, reterr));
	LEDGER_TRY_BIND(l, sqlite3_bind_int64(st, 1, id), reterr);
	LEDGER_TRY_BIND(l, sqlite3_bind_int64(st, 2, (int64_t)place->ino), reterr);
	LEDGER_TRY_BIND(l, sqlite3_bind_int64(st, 3, place->born_ns), reterr);
	LEDGER_TRY_BIND(l, sqlite3_bind_int64(st, 4, (int64_t)place->dev), reterr);
	CEDE_TRY(ledger_run(l, st, reterr));
	return there ? follow_device(l, id, before, place->dev, now_ns, reterr) : CEDE_OK;
}

struct ledger_remount ledger_take_remount(struct ledger *l) {
	struct ledger_remount r = l->remounted;

	l->remounted = (struct ledger_remount){0};
	return r;
}

int ledger_capture_seen(struct ledger *l, const struct ledger_capture *c, int64_t now_ns,
	enum ledger_seen *ret, int64_t *ret_row, struct cede_error *reterr) {
	struct live live = {0};
	int64_t source = 0, first_seen;

	CEDE_TRY(ledger_source(l, c->source, true, &source, reterr));
	CEDE_TRY(find_live(l, source, c->path, &live, &first_seen, reterr));
	if (is_same_but_device(&live, &c->identity)) {
		CEDE_TRY(follow_device(l, source, live.identity.dev, c->identity.dev, now_ns, reterr));
		live.identity.dev = c->identity.dev;
	}
	*ret_row = live.row;
	bool decided_anew = live.state == CAPTURE_READY && is_of_another_clock(&live, c, now_ns);
	if (live.there && live.state != CAPTURE_SETTLING && !decided_anew &&
		file_identity_equal(&live.identity, &c->identity)) {
		*ret = LEDGER_SEEN_KNOWN;
		return CEDE_OK;
	}
	if (live.there && live.state == CAPTURE_WIPING && live.identity.dev == c->identity.dev &&
		live.identity.ino == c->identity.ino) {
		*ret = LEDGER_SEEN_KNOWN; /* our own overwriting changed it */
		return CEDE_OK;
	}
	if (live.there && is_touched(&live, &c->identity)) {
		*ret = LEDGER_SEEN_KNOWN;
		return CEDE_OK;
	}
	bool same = file_identity_equal(&live.identity, &c->identity);
	if (live.there && (live.state == CAPTURE_SETTLING || live.state == CAPTURE_READY) &&
		(same || !live.segments)) { /* segments of two versions never share an id */
		*ret = LEDGER_SEEN_UPDATED;
		return update_capture(l, &live, c, now_ns, reterr);
	}
	if (live.there)
		CEDE_TRY(ledger_capture_move(l, live.row, CAPTURE_REPLACED, 0, now_ns,
			"reason=another-file-has-the-name", reterr));
	*ret = LEDGER_SEEN_NEW;
	return add_capture(l, source, c, now_ns, ret_row, reterr);
}

int ledger_capture_add(struct ledger *l, const struct ledger_capture *c, int64_t now_ns,
	int64_t *ret_row, struct cede_error *reterr) {
	int64_t source = 0;

	CEDE_TRY(ledger_source(l, c->source, true, &source, reterr));
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

/* An event of one capture: which row it is stands behind what else is said. */
static int event_of(struct ledger *l, enum ledger_event kind, const struct id *id, int64_t row,
	int64_t now_ns, const char *detail, struct cede_error *reterr) {
	buf_clear(&l->detail);
	CEDE_TRY(buf_add_str(&l->detail, detail, reterr));
	CEDE_TRY(detail_add_i64(&l->detail, "row", row, reterr));
	return ledger_event_detail(l, kind, id, now_ns, reterr);
}

/* Until then, at the latest, its plaintext was known to be here. */
static int set_ended(struct ledger *l, int64_t row, int64_t now_ns, struct cede_error *reterr) {
	sqlite3_stmt *st;

	CEDE_TRY(ledger_use(l, ST_CAPTURE_ENDED, &st, reterr));
	LEDGER_TRY_BIND(l, sqlite3_bind_int64(st, 1, row), reterr);
	LEDGER_TRY_BIND(l, sqlite3_bind_int64(st, 2, now_ns), reterr);
	return ledger_run(l, st, reterr);
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
	enum capture_state from = CAPTURE_STATE_COUNT;

	if (kinds[to] == 0)
		return CEDE_FAIL(reterr, CEDE_ERR_BUG, "ledger: move to %s has a call of its own",
			capture_state_name(to));
	CEDE_TRY(read_state(l, row, &from, &id, NULL, reterr));
	if (is_over(from))
		return CEDE_OK;
	CEDE_TRY(ledger_move_from(l, row, from, to, not_before_ns, reterr));
	if (is_over(to)) {
		CEDE_TRY(set_ended(l, row, now_ns, reterr));
		/* nothing follows for the bundles that hold segments of it */
		CEDE_TRY(ledger_segments_over(l, row, now_ns, reterr));
	}
	return detail == NULL ? CEDE_OK : event_of(l, kinds[to], &id, row, now_ns, detail, reterr);
}

/* Thousands are wiped at once with one result: one event tells of those of a bundle. */
static int wiped_together(struct ledger *l, int64_t row, int64_t bundle, const char *level,
	const char *reason, int64_t now_ns, struct cede_error *reterr) {
	struct wiped_group *g = &l->wiped;

	if (g->any &&
		(g->bundle_row != bundle || g->at_ns != now_ns || strcmp(g->level, level) != 0 ||
			strcmp(g->reason, reason) != 0))
		CEDE_TRY(ledger_flush_wiped(l, reterr));
	if (!g->any) {
		g->any = true;
		g->bundle_row = bundle;
		g->at_ns = now_ns;
		g->rows = (struct detail_rows){0};
		buf_clear(&g->list);
		(void)snprintf(g->level, sizeof g->level, "%s", level);
		(void)snprintf(g->reason, sizeof g->reason, "%s", reason);
		CEDE_TRY(ledger_bundle_id(l, bundle, &g->bundle, reterr));
	}
	return detail_rows_add(&g->rows, &g->list, (uint64_t)row, reterr);
}

static int say_wiped(struct ledger *l, int64_t row, const struct id *id, int64_t bundle,
	const char *level, const char *reason, int64_t now_ns, struct cede_error *reterr) {
	char detail[512];

	if (bundle != 0)
		return wiped_together(l, row, bundle, level, reason, now_ns, reterr);
	(void)snprintf(detail, sizeof detail, "level=%s%s%s", level,
		reason[0] != 0 ? " reason=" : "", reason);
	return event_of(l, LEDGER_CAPTURE_WIPED, id, row, now_ns, detail, reterr);
}

static int set_level(struct ledger *l, enum statement which, int64_t row, const char *level,
	const char *reason, int64_t now_ns, struct cede_error *reterr) {
	sqlite3_stmt *st;

	CEDE_TRY(ledger_use(l, which, &st, reterr));
	LEDGER_TRY_BIND(l, sqlite3_bind_int64(st, 1, row), reterr);
	LEDGER_TRY_BIND(l, sqlite3_bind_int64(st, 2, now_ns), reterr);
	LEDGER_TRY_BIND(l, sqlite3_bind_text(st, 3, level, -1, SQLITE_STATIC), reterr);
	LEDGER_TRY_BIND(l, sqlite3_bind_text(st, 4, reason, -1, SQLITE_STATIC), reterr);
	return ledger_run(l, st, reterr);
}

int ledger_capture_level(struct ledger *l, int64_t row, const char *level, const char *reason,
	int64_t now_ns, struct cede_error *reterr) {
	enum capture_state from;
	struct id id = {{0}};
	int64_t bundle;

	CEDE_TRY(read_state(l, row, &from, &id, &bundle, reterr));
	if (from != CAPTURE_WIPED && !is_over(from))
		return CEDE_FAIL(reterr, CEDE_ERR_BUG, "ledger: a level for what was not wiped");
	CEDE_TRY(set_level(l, ST_CAPTURE_WIPED, row, level, reason, now_ns, reterr));
	return say_wiped(l, row, &id, bundle, level, reason, now_ns, reterr);
}

int ledger_capture_wiped(struct ledger *l, int64_t row, const char *level, const char *reason,
	int64_t now_ns, bool alone, struct cede_error *reterr) {
	enum capture_state from;
	struct id id = {{0}};
	int64_t bundle = 0;

	CEDE_TRY(read_state(l, row, &from, &id, &bundle, reterr));
	if (from == CAPTURE_STATE_COUNT)
		return CEDE_FAIL(reterr, CEDE_ERR_BUG, "ledger: no such capture");
	if (!is_over(from))
		CEDE_TRY(capture_move(from, CAPTURE_WIPED, reterr));
	CEDE_TRY(set_level(l, is_over(from) ? ST_CAPTURE_WIPED : ST_CAPTURE_END, row, level, reason,
		now_ns, reterr));
	return say_wiped(l, row, &id, alone ? 0 : bundle, level, reason, now_ns, reterr);
}

/* ---- holds, destruction, files that are gone */

static int move_with_event(struct ledger *l, int64_t row, enum capture_state to,
	int64_t not_before_ns, enum ledger_event event, int64_t now_ns, const char *detail,
	struct cede_error *reterr) {
	enum capture_state from = CAPTURE_STATE_COUNT;
	struct id id = {{0}};

	CEDE_TRY(read_state(l, row, &from, &id, NULL, reterr));
	if (is_over(from))
		return CEDE_OK;
	CEDE_TRY(ledger_move_from(l, row, from, to, not_before_ns, reterr));
	return event_of(l, event, &id, row, now_ns, detail, reterr);
}

int ledger_capture_held(struct ledger *l, int64_t row, int64_t now_ns, const char *hold,
	struct cede_error *reterr) {
	char detail[96];

	(void)snprintf(detail, sizeof detail, "hold=%.64s", hold);
	return move_with_event(l, row, CAPTURE_HELD, 0, LEDGER_CAPTURE_HELD, now_ns, detail, reterr);
}

int ledger_capture_kept(struct ledger *l, int64_t row, int64_t now_ns, const char *detail,
	struct cede_error *reterr) {
	return move_with_event(l, row, CAPTURE_KEPT, 0, LEDGER_VIOLATION, now_ns, detail, reterr);
}

int ledger_keep_ended(struct ledger *l, int64_t row, int64_t now_ns, struct cede_error *reterr) {
	return move_with_event(l, row, CAPTURE_WIPING, 0, LEDGER_KEEP_ENDED, now_ns, "", reterr);
}

int ledger_kept(struct ledger *l, int64_t after, ledger_capture_fn *fn, void *ctx,
	struct cede_error *reterr) {
	sqlite3_stmt *st;

	CEDE_TRY(ledger_use(l, ST_KEPT, &st, reterr));
	LEDGER_TRY_BIND(l, sqlite3_bind_int64(st, 1, after), reterr);
	return ledger_each(l, st, fn, ctx, reterr);
}

int ledger_hold_lifted(struct ledger *l, int64_t row, int64_t now_ns, struct cede_error *reterr) {
	return move_with_event(l, row, CAPTURE_WIPING, 0, LEDGER_HOLD_LIFTED, now_ns, "", reterr);
}

int ledger_capture_destroying(struct ledger *l, int64_t row, const char *reason, int64_t now_ns,
	struct cede_error *reterr) {
	char detail[80];

	(void)snprintf(detail, sizeof detail, "reason=%s proof=none", reason);
	/* marked by its time: a receipt that comes meanwhile does not have it wiped twice */
	return move_with_event(l, row, CAPTURE_WIPING, INT64_MAX, LEDGER_CAPTURE_DESTROYED, now_ns,
		detail, reterr);
}

int ledger_capture_absent(struct ledger *l, struct slice source, struct slice path, uint64_t dev,
	int64_t now_ns, bool *ret_was_there, struct cede_error *reterr) {
	struct live live = {0};
	int64_t id, first_seen;

	*ret_was_there = false;
	CEDE_TRY(ledger_source(l, source, false, &id, reterr));
	if (id == 0)
		return CEDE_OK;
	CEDE_TRY(find_live(l, id, path, &live, &first_seen, reterr));
	if (dev != 0 && live.identity.dev != dev)
		return CEDE_OK;
	if (!live.there || (live.state != CAPTURE_READY && live.state != CAPTURE_SETTLING))
		return CEDE_OK;
	*ret_was_there = true;
	return ledger_capture_move(
		l, live.row, CAPTURE_GONE, 0, now_ns, "reason=removed-by-another-program", reterr);
}

int ledger_born_by(struct ledger *l, struct slice source, int64_t born_ns, ledger_capture_fn *fn,
	void *ctx, struct cede_error *reterr) {
	sqlite3_stmt *st;

	CEDE_TRY(ledger_use_of(l, ST_BORN_BY, source, &st, reterr));
	if (st == NULL)
		return CEDE_OK;
	LEDGER_TRY_BIND(l, sqlite3_bind_int64(st, 2, born_ns), reterr);
	return ledger_each(l, st, fn, ctx, reterr);
}

int ledger_settling(struct ledger *l, struct slice source, size_t most, ledger_capture_fn *fn,
	void *ctx, struct cede_error *reterr) {
	sqlite3_stmt *st;

	CEDE_TRY(ledger_use_of(l, ST_SETTLING_OF, source, &st, reterr));
	if (st == NULL)
		return CEDE_OK;
	LEDGER_TRY_BIND(l, sqlite3_bind_int64(st, 2, (int64_t)most), reterr);
	return ledger_each(l, st, fn, ctx, reterr);
}

int ledger_capture_at(struct ledger *l, struct slice source, struct slice path,
	ledger_capture_fn *fn, void *ctx, struct cede_error *reterr) {
	sqlite3_stmt *st;

	CEDE_TRY(ledger_use_of(l, ST_CAPTURE_AT, source, &st, reterr));
	if (st == NULL)
		return CEDE_OK;
	LEDGER_TRY_BIND(l, sqlite3_bind_blob(st, 2, path.data, (int)path.len, SQLITE_STATIC), reterr);
	return ledger_each(l, st, fn, ctx, reterr);
}

int ledger_other_device(
	struct ledger *l, struct slice source, uint64_t dev, bool *ret, struct cede_error *reterr) {
	sqlite3_stmt *st;

	*ret = false;
	CEDE_TRY(ledger_use_of(l, ST_OTHER_DEVICE, source, &st, reterr));
	if (st == NULL)
		return CEDE_OK;
	LEDGER_TRY_BIND(l, sqlite3_bind_int64(st, 2, (int64_t)dev), reterr);
	CEDE_TRY(ledger_row(l, st, ret, reterr));
	(void)sqlite3_reset(st);
	return CEDE_OK;
}
