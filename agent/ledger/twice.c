/* SPDX-License-Identifier: Apache-2.0
 * Captures that were sealed a second time, since the bundle that has them was lost with its memory
 * and nobody could say whether the agency has it (core/anew.c). */
#include <stdlib.h>
#include <string.h>

#include "agent/ledger/ledger_internal.h"
#include "base/buf.h"
#include "base/cleanup.h"
#include "base/clock.h"

/* ---- out of the lost one */

/* Whether each of them is SEALED in it still. */
static int are_in(struct ledger *l, int64_t bundle_row, const int64_t *rows, size_t n, bool *ret,
	struct cede_error *reterr) {
	*ret = true;
	for (size_t i = 0; i < n && *ret; i++) {
		sqlite3_stmt *st;
		bool there;
		CEDE_TRY(ledger_use(l, ST_CAPTURE_ROW, &st, reterr));
		LEDGER_TRY_BIND(l, sqlite3_bind_int64(st, 1, rows[i]), reterr);
		CEDE_TRY(ledger_row(l, st, &there, reterr));
		*ret = there && sqlite3_column_int(st, 0) == CAPTURE_SEALED &&
			sqlite3_column_int64(st, 2) == bundle_row;
		(void)sqlite3_reset(st);
	}
	return CEDE_OK;
}

static int free_rows(struct ledger *l, int64_t bundle_row, const int64_t *rows, size_t n,
	struct cede_error *reterr) {
	CEDE_TRY(capture_move(CAPTURE_SEALED, CAPTURE_READY, reterr));
	CEDE_TRY(capture_move(CAPTURE_READY, CAPTURE_BUNDLED, reterr));
	for (size_t i = 0; i < n; i++) {
		sqlite3_stmt *st;
		CEDE_TRY(ledger_use(l, ST_FREE, &st, reterr));
		LEDGER_TRY_BIND(l, sqlite3_bind_int64(st, 1, bundle_row), reterr);
		LEDGER_TRY_BIND(l, sqlite3_bind_int64(st, 2, rows[i]), reterr);
		CEDE_TRY(ledger_run(l, st, reterr));
	}
	return CEDE_OK;
}

int ledger_bundle_freed(struct ledger *l, int64_t bundle_row, const int64_t *rows, size_t n,
	int64_t now_ns, bool *ret_freed, struct cede_error *reterr) {
	CLEANUP(buf_done) struct buf list = BUF_INIT(LEDGER_DETAIL_MAX);
	struct detail_rows range = {0};
	struct ledger_bundle b;

	CEDE_TRY(ledger_bundle_get(l, bundle_row, &b, reterr));
	if (b.state != BUNDLE_SEALED || b.spooled || b.segment_of != 0)
		return CEDE_FAIL(reterr, CEDE_ERR_BUG, "ledger: a bundle that can't be freed");
	CEDE_TRY(are_in(l, bundle_row, rows, n, ret_freed, reterr));
	if (!*ret_freed)
		return CEDE_OK;
	CEDE_TRY(free_rows(l, bundle_row, rows, n, reterr));
	for (size_t i = 0; i < n; i++)
		CEDE_TRY(detail_rows_add(&range, &list, (uint64_t)rows[i], reterr));
	CEDE_TRY(detail_rows_end(&range, &list, reterr));
	buf_clear(&l->detail);
	CEDE_TRY(detail_add(&l->detail, "rows", buf_slice(&list), reterr));
	return ledger_event_detail(l, LEDGER_BUNDLE_FREED, &b.id, now_ns, reterr);
}

/* ---- which ones */

#define ID_SLACK_NS \
	(60 * NS_PER_SECOND) /* a bundle's id is older than its event: it is sealed first */

/* Adds the members that its event tells; none if it tells none any more. */
static int find_members(
	struct ledger *l, const struct id *bundle, struct buf *ret, struct cede_error *reterr) {
	struct slice members = SLICE_NONE;
	sqlite3_stmt *st;
	uint64_t from;
	bool there = false;

	CEDE_TRY(ledger_events_since(l, id_time_ns(bundle) - ID_SLACK_NS, &from, reterr));
	for (;; from = 1) { /* the clock may have been set */
		CEDE_TRY(ledger_use(l, ST_SEALED_DETAIL, &st, reterr));
		LEDGER_TRY_BIND(l, sqlite3_bind_int64(st, 1, (int64_t)from), reterr);
		LEDGER_TRY_BIND(l, sqlite3_bind_int(st, 2, LEDGER_BUNDLE_SEALED), reterr);
		LEDGER_TRY_BIND(
			l, sqlite3_bind_blob(st, 3, bundle->bytes, ID_SIZE, SQLITE_STATIC), reterr);
		CEDE_TRY(ledger_row(l, st, &there, reterr));
		if (there || from <= 1)
			break;
	}
	if (there &&
		detail_find(slice_of(sqlite3_column_text(st, 0), (size_t)sqlite3_column_bytes(st, 0)),
			"members", &members))
		CEDE_TRY(buf_add(ret, members.data, members.len, reterr));
	(void)sqlite3_reset(st);
	return CEDE_OK;
}

/* rest: of the members, behind the last one that was found: both lists are much in the same order. */
static int is_member(struct slice members, struct slice *rest, int64_t row,
	const uint8_t sha256[32], bool *ret, struct cede_error *reterr) {
	uint8_t digest[32];
	uint64_t member;

	*ret = false;
	for (int pass = 0; pass < 2 && !*ret; pass++) {
		while (!*ret && rest->len > 0) {
			CEDE_TRY(detail_member_next(rest, &member, digest, reterr));
			*ret = member == (uint64_t)row && memcmp(digest, sha256, 32) == 0;
		}
		if (!*ret)
			*rest = members;
	}
	return CEDE_OK;
}

/* Whether it has captures, and each of them is among these. */
static int is_within(struct ledger *l, const struct ledger_bundle *b, struct slice members,
	bool *ret, struct cede_error *reterr) {
	struct slice rest = members;
	uint64_t n = 0;
	sqlite3_stmt *st;
	bool there;

	*ret = true;
	CEDE_TRY(ledger_use(l, ST_MEMBERS, &st, reterr));
	LEDGER_TRY_BIND(l, sqlite3_bind_int64(st, 1, b->row), reterr);
	for (; *ret; n++) {
		CEDE_TRY(ledger_row(l, st, &there, reterr));
		if (!there)
			break;
		*ret = sqlite3_column_bytes(st, 1) == 32;
		if (*ret)
			CEDE_TRY(is_member(members, &rest, sqlite3_column_int64(st, 0),
				sqlite3_column_blob(st, 1), ret, reterr));
	}
	(void)sqlite3_reset(st);
	*ret = *ret && n == b->captures;
	return CEDE_OK;
}

struct later { /* spooled bundles that were sealed after one */
	struct ledger_bundle of;
	struct ledger_bundle *list;
	size_t count;
};

static int list_later(void *ctx, const struct ledger_bundle *b, struct cede_error *reterr) {
	struct later *later = ctx;

	if (b->row <= later->of.row || !b->spooled || b->segment_of != 0)
		return CEDE_OK;
	struct ledger_bundle *list = reallocarray(later->list, later->count + 1, sizeof *list);
	if (list == NULL)
		return CEDE_FAIL_MEMORY(reterr);
	later->list = list;
	list[later->count] = *b;
	list[later->count++].destination = SLICE_NONE;
	return CEDE_OK;
}

static int tell_duplicates(struct ledger *l, const struct later *later, ledger_bundle_fn *fn,
	void *ctx, struct cede_error *reterr) {
	CLEANUP(buf_done) struct buf members = BUF_INIT(LEDGER_DETAIL_MAX);
	bool within;

	if (later->count > 0)
		CEDE_TRY(find_members(l, &later->of.id, &members, reterr));
	for (size_t i = 0; i < later->count; i++) {
		CEDE_TRY(is_within(l, &later->list[i], buf_slice(&members), &within, reterr));
		if (within)
			CEDE_TRY(fn(ctx, &later->list[i], reterr));
	}
	return CEDE_OK;
}

int ledger_bundle_duplicates(struct ledger *l, int64_t bundle_row, ledger_bundle_fn *fn, void *ctx,
	struct cede_error *reterr) {
	struct later later = {.count = 0};

	CEDE_TRY(ledger_bundle_get(l, bundle_row, &later.of, reterr));
	int r = ledger_bundles(l, BUNDLE_SEALED, list_later, &later, reterr);
	if (r == CEDE_OK)
		r = tell_duplicates(l, &later, fn, ctx, reterr);
	free(later.list);
	return r;
}
