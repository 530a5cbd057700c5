/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/ledger/epoch.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent/ledger/ledger_internal.h"
#include "base/hex.h"

const char *epoch_state_name(enum epoch_state state) {
	static const char *const names[] = {"open", "draining", "erasing", "erased"};

	return names[state];
}

void epoch_source(const char *name, const uint8_t key[EPOCH_KEY_SIZE], char out[EPOCH_SOURCE_SIZE]) {
	char hex[2 * EPOCH_KEY_SIZE + 1];

	hex_print(key, EPOCH_KEY_SIZE, hex);
	(void)snprintf(out, EPOCH_SOURCE_SIZE, "%.64s@%s", name, hex);
}

struct slice epoch_source_name(struct slice ledger_source) {
	struct slice name = ledger_source;
	struct slice rest;

	(void)slice_cut(ledger_source, '@', &name, &rest);
	return name;
}

static int set_state(struct ledger *l, int64_t row, enum epoch_state state, int64_t turned_ns,
	int64_t ended_ns, struct cede_error *reterr) {
	sqlite3_stmt *st;

	CEDE_TRY(ledger_use(l, ST_EPOCH_STATE, &st, reterr));
	LEDGER_TRY_BIND(l, sqlite3_bind_int64(st, 1, row), reterr);
	LEDGER_TRY_BIND(l, sqlite3_bind_int(st, 2, (int)state), reterr);
	LEDGER_TRY_BIND(l, sqlite3_bind_int64(st, 3, turned_ns), reterr);
	LEDGER_TRY_BIND(l, sqlite3_bind_int64(st, 4, ended_ns), reterr);
	return ledger_run(l, st, reterr);
}

static int row_of(struct ledger *l, const char *name, const uint8_t *key, int64_t *ret,
	struct cede_error *reterr) {
	char source[EPOCH_SOURCE_SIZE];

	epoch_source(name, key, source);
	return ledger_source(l, slice_str(source), false, ret, reterr);
}

static int say_turned(struct ledger *l, const char *name, const uint8_t *key, bool wrapped,
	const uint8_t *before, int64_t now_ns, struct cede_error *reterr) {
	char was[2 * EPOCH_KEY_SIZE + 1] = "none";
	char hex[2 * EPOCH_KEY_SIZE + 1];
	char detail[256];

	hex_print(key, EPOCH_KEY_SIZE, hex);
	if (before != NULL)
		hex_print(before, EPOCH_KEY_SIZE, was);
	(void)snprintf(detail, sizeof detail, "source=%.64s epoch=%s was=%s keys=%s", name, hex,
		was, wrapped ? "wrapped" : "memory");
	return ledger_event(l, LEDGER_VAULT_TURNED, NULL, now_ns, detail, reterr);
}

int ledger_epoch_turned(struct ledger *l, const char *name, const uint8_t key[EPOCH_KEY_SIZE],
	bool wrapped, const uint8_t *before, int64_t now_ns, int64_t *ret_row,
	struct cede_error *reterr) {
	char source[EPOCH_SOURCE_SIZE];
	sqlite3_stmt *st;
	int64_t row;

	if (before != NULL) {
		CEDE_TRY(row_of(l, name, before, &row, reterr));
		CEDE_TRY(set_state(l, row, EPOCH_DRAINING, now_ns, 0, reterr));
	}
	epoch_source(name, key, source);
	CEDE_TRY(ledger_source(l, slice_str(source), true, &row, reterr));
	CEDE_TRY(ledger_use(l, ST_EPOCH_ADD, &st, reterr));
	LEDGER_TRY_BIND(l, sqlite3_bind_int64(st, 1, row), reterr);
	LEDGER_TRY_BIND(l, sqlite3_bind_blob(st, 2, key, EPOCH_KEY_SIZE, SQLITE_STATIC), reterr);
	LEDGER_TRY_BIND(l, sqlite3_bind_int(st, 3, wrapped), reterr);
	LEDGER_TRY_BIND(l, sqlite3_bind_int64(st, 4, now_ns), reterr);
	CEDE_TRY(ledger_run(l, st, reterr));
	*ret_row = row;
	return say_turned(l, name, key, wrapped, before, now_ns, reterr);
}

int ledger_epoch_is_open(struct ledger *l, const struct ledger_epoch *e, bool open, int64_t now_ns,
	struct cede_error *reterr) {
	return set_state(l, e->row, open ? EPOCH_OPEN : EPOCH_DRAINING, open ? 0 : now_ns, 0, reterr);
}

int ledger_live(struct ledger *l, struct slice source, uint64_t *ret_live, uint64_t *ret_held,
	struct cede_error *reterr) {
	sqlite3_stmt *st;
	bool there;

	*ret_live = *ret_held = 0;
	CEDE_TRY(ledger_use_of(l, ST_LIVE_COUNT, source, &st, reterr));
	if (st == NULL)
		return CEDE_OK;
	CEDE_TRY(ledger_row(l, st, &there, reterr));
	*ret_live = (uint64_t)sqlite3_column_int64(st, 0);
	*ret_held = (uint64_t)sqlite3_column_int64(st, 1);
	(void)sqlite3_reset(st);
	return CEDE_OK;
}

static int is_live(struct ledger *l, int64_t row, bool *ret, struct cede_error *reterr) {
	sqlite3_stmt *st;

	CEDE_TRY(ledger_use(l, ST_LIVE_ANY, &st, reterr));
	LEDGER_TRY_BIND(l, sqlite3_bind_int64(st, 1, row), reterr);
	CEDE_TRY(ledger_row(l, st, ret, reterr));
	(void)sqlite3_reset(st);
	return CEDE_OK;
}

int ledger_epoch_erasing(struct ledger *l, int64_t row, int64_t now_ns, struct cede_error *reterr) {
	bool live;

	CEDE_TRY(is_live(l, row, &live, reterr));
	if (live)
		return CEDE_FAIL(reterr, CEDE_ERR_BUSY, "an epoch still has captures");
	return set_state(l, row, EPOCH_ERASING, now_ns, 0, reterr);
}

int ledger_epoch_used(struct ledger *l, struct slice source, bool *ret, struct cede_error *reterr) {
	sqlite3_stmt *st;
	int64_t row;

	*ret = false;
	CEDE_TRY(ledger_source(l, source, false, &row, reterr));
	if (row == 0)
		return CEDE_OK;
	CEDE_TRY(is_live(l, row, ret, reterr));
	if (*ret)
		return CEDE_OK;
	CEDE_TRY(ledger_use(l, ST_PENDING_ANY, &st, reterr));
	LEDGER_TRY_BIND(l, sqlite3_bind_int64(st, 1, row), reterr);
	CEDE_TRY(ledger_row(l, st, ret, reterr));
	(void)sqlite3_reset(st);
	return CEDE_OK;
}

struct epoch_row {
	int64_t row, bundle;
	enum capture_state state;
};

struct epoch_rows {
	struct epoch_row *rows;
	size_t count;
	size_t room;
};

static int note_row(void *ctx, const struct ledger_capture *c, struct cede_error *reterr) {
	struct epoch_rows *s = ctx;

	if (s->count == s->room) {
		size_t room = s->room == 0 ? 64 : s->room * 2;
		struct epoch_row *rows = reallocarray(s->rows, room, sizeof *rows);
		if (rows == NULL)
			return CEDE_FAIL_MEMORY(reterr);
		s->rows = rows;
		s->room = room;
	}
	s->rows[s->count++] = (struct epoch_row){c->row, c->bundle_row, c->state};
	return CEDE_OK;
}

/* Each row has its event: whoever replays them comes to the same level. */
static int give_level(struct ledger *l, int64_t row, const char *level, const char *reason,
	int64_t now_ns, uint64_t *ret, struct cede_error *reterr) {
	struct epoch_rows s = {0};
	sqlite3_stmt *st;

	CEDE_TRY(ledger_use(l, ST_PENDING_OF, &st, reterr));
	LEDGER_TRY_BIND(l, sqlite3_bind_int64(st, 1, row), reterr);
	int r = ledger_each(l, st, note_row, &s, reterr);
	for (size_t i = 0; r == CEDE_OK && i < s.count; i++)
		r = ledger_capture_level(l, s.rows[i].row, level, reason, now_ns, reterr);
	*ret = s.count;
	free(s.rows);
	return r;
}

int ledger_epoch_erased(struct ledger *l, const struct ledger_epoch *e, const char *level,
	const char *reason, const char *cause, int64_t now_ns, uint64_t *ret_captures,
	struct cede_error *reterr) {
	struct slice name = epoch_source_name(slice_str(e->source));
	char hex[2 * EPOCH_KEY_SIZE + 1];
	char detail[384];

	CEDE_TRY(give_level(l, e->row, level, reason, now_ns, ret_captures, reterr));
	CEDE_TRY(set_state(l, e->row, EPOCH_ERASED, 0, now_ns, reterr));
	hex_print(e->key, sizeof e->key, hex);
	(void)snprintf(detail, sizeof detail,
		"source=%.*s epoch=%s captures=%llu level=%s%s%s cause=%s", (int)name.len,
		(const char *)name.data, hex, (unsigned long long)*ret_captures, level,
		reason[0] != 0 ? " reason=" : "", reason, cause);
	return ledger_event(l, LEDGER_VAULT_ERASED, NULL, now_ns, detail, reterr);
}

/* ---- reading */

static bool is_of(const struct ledger_epoch *e, const char *name) {
	return name == NULL || slice_is(epoch_source_name(slice_str(e->source)), name);
}

int ledger_epochs(struct ledger *l, const char *name, bool all, ledger_epoch_fn *fn, void *ctx,
	struct cede_error *reterr) {
	sqlite3_stmt *st;
	bool there;

	CEDE_TRY(ledger_use(l, ST_EPOCHS, &st, reterr));
	LEDGER_TRY_BIND(l, sqlite3_bind_int(st, 1, all ? EPOCH_ERASED : EPOCH_ERASING), reterr);
	for (;;) {
		struct ledger_epoch e = {0};
		CEDE_TRY(ledger_row(l, st, &there, reterr));
		if (!there)
			break;
		e.row = sqlite3_column_int64(st, 0);
		(void)snprintf(
			e.source, sizeof e.source, "%s", (const char *)sqlite3_column_text(st, 1));
		if (sqlite3_column_bytes(st, 2) == EPOCH_KEY_SIZE)
			memcpy(e.key, sqlite3_column_blob(st, 2), EPOCH_KEY_SIZE);
		e.state = (enum epoch_state)sqlite3_column_int(st, 3);
		e.wrapped = sqlite3_column_int(st, 4) != 0;
		e.made_ns = sqlite3_column_int64(st, 5);
		e.turned_ns = sqlite3_column_int64(st, 6);
		e.ended_ns = sqlite3_column_int64(st, 7);
		e.live = (uint64_t)sqlite3_column_int64(st, 8);
		e.held = (uint64_t)sqlite3_column_int64(st, 9);
		int r = is_of(&e, name) ? fn(ctx, &e, reterr) : CEDE_OK;
		if (r != CEDE_OK) {
			(void)sqlite3_reset(st);
			return r < 0 ? r : CEDE_OK;
		}
	}
	(void)sqlite3_reset(st);
	return CEDE_OK;
}

/* ---- the key is lost */

static int lose_one(struct ledger *l, int64_t row, enum capture_state state, int64_t now_ns,
	struct ledger_lost *ret, struct cede_error *reterr) {
	switch (state) {
	case CAPTURE_READY:
	case CAPTURE_SETTLING:
		ret->destroyed++;
		CEDE_TRY(ledger_capture_destroying(l, row, "key-lost", now_ns, reterr));
		break;
	case CAPTURE_KEPT:
		ret->wiped++;
		CEDE_TRY(ledger_keep_ended(l, row, now_ns, reterr));
		break;
	case CAPTURE_WIPING:
		ret->wiped++;
		break;
	case CAPTURE_HELD: /* what the hold was to keep here; the agency has it */
		ret->held++;
		return ledger_capture_move(
			l, row, CAPTURE_GONE, 0, now_ns, "reason=key-lost held=yes", reterr);
	case CAPTURE_BUNDLED:
	case CAPTURE_SEALED:
		ret->waiting++;
		return CEDE_OK;
	case CAPTURE_WIPED:
	case CAPTURE_GONE:
	case CAPTURE_REPLACED:
	case CAPTURE_STATE_COUNT:
		return CEDE_OK;
	}
	return ledger_capture_wiped(l, row, "crypto-erased", "key-lost", now_ns, true, reterr);
}

int ledger_epoch_lost(struct ledger *l, struct slice source, int64_t now_ns,
	struct ledger_lost *ret, struct cede_error *reterr) {
	struct epoch_rows s = {0};
	sqlite3_stmt *st;
	bool done;

	*ret = (struct ledger_lost){0};
	CEDE_TRY(ledger_use_of(l, ST_LIVE_OF, source, &st, reterr));
	if (st == NULL)
		return CEDE_OK;
	int r = ledger_each(l, st, note_row, &s, reterr);
	for (size_t i = 0; r == CEDE_OK && i < s.count; i++)
		r = lose_one(l, s.rows[i].row, s.rows[i].state, now_ns, ret, reterr);
	for (size_t i = 0; r == CEDE_OK && i < s.count; i++)
		if (s.rows[i].bundle != 0 && (i == 0 || s.rows[i].bundle != s.rows[i - 1].bundle))
			r = ledger_bundle_done(l, s.rows[i].bundle, now_ns, &done, reterr);
	free(s.rows);
	return r;
}
