/* SPDX-License-Identifier: Apache-2.0 */
#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent/ledger/ledger_internal.h"
#include "base/buf.h"
#include "base/check.h"
#include "base/cleanup.h"
#include "base/hex.h"

static void read_bundle(sqlite3_stmt *st, struct ledger_bundle *ret) {
	*ret = (struct ledger_bundle){
		.row = sqlite3_column_int64(st, 0),
		.state = (enum bundle_state)sqlite3_column_int(st, 2),
		.destination =
			slice_of(sqlite3_column_text(st, 3), (size_t)sqlite3_column_bytes(st, 3)),
		.size = (uint64_t)sqlite3_column_int64(st, 4),
		.spooled = sqlite3_column_int(st, 6) != 0,
		.captures = (uint64_t)sqlite3_column_int64(st, 7),
		.sealed_ns = sqlite3_column_int64(st, 8),
		.segment_of = sqlite3_column_int64(st, 9),
	};
	if (sqlite3_column_bytes(st, 1) == ID_SIZE)
		memcpy(ret->id.bytes, sqlite3_column_blob(st, 1), ID_SIZE);
	if (sqlite3_column_bytes(st, 5) == 32)
		memcpy(ret->sha256, sqlite3_column_blob(st, 5), 32);
}

int ledger_bundle_get(
	struct ledger *l, int64_t row, struct ledger_bundle *ret, struct cede_error *reterr) {
	sqlite3_stmt *st;
	bool there;

	CEDE_TRY(ledger_use(l, ST_BUNDLE_ROW, &st, reterr));
	LEDGER_TRY_BIND(l, sqlite3_bind_int64(st, 1, row), reterr);
	CEDE_TRY(ledger_row(l, st, &there, reterr));
	if (!there)
		return CEDE_FAIL(reterr, CEDE_ERR_BUG, "ledger: no such bundle");
	read_bundle(st, ret);
	ret->destination = SLICE_NONE;
	(void)sqlite3_reset(st);
	return CEDE_OK;
}

int ledger_bundle_id(struct ledger *l, int64_t row, struct id *ret, struct cede_error *reterr) {
	struct ledger_bundle b;

	CEDE_TRY(ledger_bundle_get(l, row, &b, reterr));
	*ret = b.id;
	return CEDE_OK;
}

int ledger_bundle_state(
	struct ledger *l, int64_t bundle_row, enum bundle_state *ret, struct cede_error *reterr) {
	struct ledger_bundle b;

	CEDE_TRY(ledger_bundle_get(l, bundle_row, &b, reterr));
	*ret = b.state;
	return CEDE_OK;
}

/* Runs a statement whose only parameter is the bundle. */
static int on_bundle(struct ledger *l, enum statement which, int64_t row, struct cede_error *reterr) {
	sqlite3_stmt *st;

	CEDE_TRY(ledger_use(l, which, &st, reterr));
	LEDGER_TRY_BIND(l, sqlite3_bind_int64(st, 1, row), reterr);
	return ledger_run(l, st, reterr);
}

static int set_state(struct ledger *l, const struct ledger_bundle *b, enum bundle_state to,
	int64_t now_ns, struct cede_error *reterr) {
	sqlite3_stmt *st;

	CEDE_TRY(bundle_move(b->state, to, reterr));
	CEDE_TRY(ledger_use(l, ST_BUNDLE_STATE, &st, reterr));
	LEDGER_TRY_BIND(l, sqlite3_bind_int64(st, 1, b->row), reterr);
	LEDGER_TRY_BIND(l, sqlite3_bind_int(st, 2, (int)to), reterr);
	LEDGER_TRY_BIND(l, sqlite3_bind_int64(st, 3, now_ns), reterr);
	return ledger_run(l, st, reterr);
}

static int seal_captures(struct ledger *l, int64_t bundle, const struct ledger_sealed *captures,
	size_t n, struct cede_error *reterr) {
	for (size_t i = 0; i < n; i++) {
		sqlite3_stmt *st;
		CEDE_TRY(ledger_use(l, ST_CAPTURE_SEALED, &st, reterr));
		LEDGER_TRY_BIND(l, sqlite3_bind_int64(st, 1, captures[i].row), reterr);
		LEDGER_TRY_BIND(l, sqlite3_bind_int64(st, 2, bundle), reterr);
		LEDGER_TRY_BIND(
			l, sqlite3_bind_blob(st, 3, captures[i].sha256, 32, SQLITE_STATIC), reterr);
		CEDE_TRY(ledger_run(l, st, reterr));
		if (sqlite3_changes(l->db) == 1)
			continue;
		struct id id;
		bool over;
		CEDE_TRY(ledger_is_over(l, captures[i].row, &id, &over, reterr));
		if (!over)
			return CEDE_FAIL(
				reterr, CEDE_ERR_BUG, "ledger: a sealed capture was not bundled");
	}
	return CEDE_OK;
}

/* With the row and digest of each capture that is in it (a segment has an event of its own). */
static int detail_of_bundle(struct ledger *l, int64_t row, const struct ledger_bundle *b,
	const struct ledger_sealed *captures, size_t n, struct cede_error *reterr) {
	CLEANUP(buf_done) struct buf members = BUF_INIT(LEDGER_DETAIL_MAX);
	struct buf *d = &l->detail;
	char sha256[65];

	for (size_t i = 0; i < n; i++)
		CEDE_TRY(detail_member_add(
			&members, (uint64_t)captures[i].row, captures[i].sha256, reterr));
	hex_print(b->sha256, 32, sha256);
	buf_clear(d);
	CEDE_TRY(detail_add_i64(d, "row", row, reterr));
	CEDE_TRY(detail_add(d, "destination", b->destination, reterr));
	CEDE_TRY(detail_add_i64(d, "size", (int64_t)b->size, reterr));
	CEDE_TRY(detail_add(d, "sha256", slice_str(sha256), reterr));
	CEDE_TRY(detail_add_i64(d, "captures", (int64_t)b->captures, reterr));
	return n == 0 ? CEDE_OK : detail_add(d, "members", buf_slice(&members), reterr);
}

int ledger_bundle_sealed(struct ledger *l, const struct ledger_bundle *b,
	const struct ledger_sealed *captures, size_t n, int64_t now_ns, int64_t *ret_row,
	struct cede_error *reterr) {
	sqlite3_stmt *st;

	CEDE_TRY(ledger_use(l, ST_BUNDLE_ADD, &st, reterr));
	LEDGER_TRY_BIND(l, sqlite3_bind_blob(st, 1, b->id.bytes, ID_SIZE, SQLITE_STATIC), reterr);
	LEDGER_TRY_BIND(l,
		sqlite3_bind_text(st, 2, (const char *)b->destination.data, (int)b->destination.len,
			SQLITE_STATIC),
		reterr);
	LEDGER_TRY_BIND(l, sqlite3_bind_int64(st, 3, (int64_t)b->size), reterr);
	LEDGER_TRY_BIND(l, sqlite3_bind_blob(st, 4, b->sha256, 32, SQLITE_STATIC), reterr);
	LEDGER_TRY_BIND(l, sqlite3_bind_int(st, 5, b->spooled), reterr);
	LEDGER_TRY_BIND(l, sqlite3_bind_int64(st, 6, (int64_t)b->captures), reterr);
	LEDGER_TRY_BIND(l, sqlite3_bind_int64(st, 7, now_ns), reterr);
	CEDE_TRY(ledger_run(l, st, reterr));
	*ret_row = sqlite3_last_insert_rowid(l->db);
	CEDE_TRY(seal_captures(l, *ret_row, captures, n, reterr));
	CEDE_TRY(detail_of_bundle(l, *ret_row, b, captures, n, reterr));
	CEDE_TRY(ledger_event_detail(l, LEDGER_BUNDLE_SEALED, &b->id, now_ns, reterr));
	if (!b->spooled)
		return CEDE_OK;
	return ledger_event(l, LEDGER_BUNDLE_SPOOLED, &b->id, now_ns, "", reterr);
}

/* What the wipe compares with when the file's times have changed. */
static int digest_segments(struct ledger *l, int64_t row, struct cede_error *reterr) {
	uint8_t digest[32];
	sqlite3_stmt *st;
	bool there;

	CEDE_TRY(ledger_use(l, ST_SEGMENT_DIGESTS, &st, reterr));
	LEDGER_TRY_BIND(l, sqlite3_bind_int64(st, 1, row), reterr);
	bool ok = EVP_DigestInit_ex2(l->hasher.ctx, l->hasher.md, NULL) == 1;
	for (;;) {
		CEDE_TRY(ledger_row(l, st, &there, reterr));
		if (!there)
			break;
		ok = ok && sqlite3_column_bytes(st, 0) == 32 &&
			EVP_DigestUpdate(l->hasher.ctx, sqlite3_column_blob(st, 0), 32) == 1;
	}
	(void)sqlite3_reset(st);
	if (!ok || EVP_DigestFinal_ex(l->hasher.ctx, digest, NULL) != 1)
		return CEDE_FAIL(reterr, CEDE_ERR_CRYPTO, "ledger: SHA-256 failed");
	CEDE_TRY(ledger_use(l, ST_SEGMENTS_DIGEST, &st, reterr));
	LEDGER_TRY_BIND(l, sqlite3_bind_int64(st, 1, row), reterr);
	LEDGER_TRY_BIND(l, sqlite3_bind_blob(st, 2, digest, 32, SQLITE_STATIC), reterr);
	return ledger_run(l, st, reterr);
}

static int segment_event(struct ledger *l, const struct id *capture, int64_t row,
	int64_t bundle_row, const struct ledger_segment *s, struct cede_error *reterr) {
	struct ledger_bundle b;
	struct buf *d = &l->detail;
	char sha256[65];

	CEDE_TRY(ledger_bundle_get(l, bundle_row, &b, reterr));
	hex_print(s->sha256, 32, sha256);
	buf_clear(d);
	CEDE_TRY(detail_add_i64(d, "row", row, reterr));
	CEDE_TRY(detail_add_i64(d, "bundle", bundle_row, reterr));
	CEDE_TRY(detail_add_i64(d, "index", (int64_t)s->index, reterr));
	CEDE_TRY(detail_add_i64(d, "count", (int64_t)s->count, reterr));
	CEDE_TRY(detail_add_i64(d, "offset", (int64_t)s->offset, reterr));
	CEDE_TRY(detail_add_i64(d, "size", (int64_t)s->size, reterr));
	CEDE_TRY(detail_add(d, "sha256", slice_str(sha256), reterr));
	return ledger_event_detail(l, LEDGER_SEGMENT_SEALED, capture, b.sealed_ns, reterr);
}

static int add_segment(struct ledger *l, int64_t row, int64_t bundle_row,
	const struct ledger_segment *s, struct cede_error *reterr) {
	sqlite3_stmt *st;

	CEDE_TRY(ledger_use(l, ST_SEGMENT_ADD, &st, reterr));
	LEDGER_TRY_BIND(l, sqlite3_bind_int64(st, 1, row), reterr);
	LEDGER_TRY_BIND(l, sqlite3_bind_int64(st, 2, (int64_t)s->index), reterr);
	LEDGER_TRY_BIND(l, sqlite3_bind_int64(st, 3, bundle_row), reterr);
	LEDGER_TRY_BIND(l, sqlite3_bind_int64(st, 4, (int64_t)s->offset), reterr);
	LEDGER_TRY_BIND(l, sqlite3_bind_int64(st, 5, (int64_t)s->size), reterr);
	LEDGER_TRY_BIND(l, sqlite3_bind_blob(st, 6, s->sha256, 32, SQLITE_STATIC), reterr);
	CEDE_TRY(ledger_run(l, st, reterr));
	CEDE_TRY(ledger_use(l, ST_SEGMENTS_SET, &st, reterr));
	LEDGER_TRY_BIND(l, sqlite3_bind_int64(st, 1, row), reterr);
	LEDGER_TRY_BIND(l, sqlite3_bind_int64(st, 2, (int64_t)s->count), reterr);
	LEDGER_TRY_BIND(l, sqlite3_bind_int64(st, 3, bundle_row), reterr);
	return ledger_run(l, st, reterr);
}

int ledger_segment_sealed(struct ledger *l, int64_t row, int64_t bundle_row,
	const struct ledger_segment *segment, struct cede_error *reterr) {
	struct ledger_segments all;
	struct id id;
	bool over;

	CEDE_TRY(ledger_is_over(l, row, &id, &over, reterr));
	if (over)
		return CEDE_OK;
	CEDE_TRY(segment_event(l, &id, row, bundle_row, segment, reterr));
	CEDE_TRY(add_segment(l, row, bundle_row, segment, reterr));
	CEDE_TRY(ledger_segments_of(l, row, &all, reterr));
	if (all.count < segment->count)
		return segment->more ? CEDE_OK : ledger_move(l, row, CAPTURE_READY, 0, &id, reterr);
	CEDE_TRY(digest_segments(l, row, reterr));
	return ledger_move(l, row, CAPTURE_SEALED, 0, &id, reterr);
}

int ledger_segments_of(
	struct ledger *l, int64_t row, struct ledger_segments *ret, struct cede_error *reterr) {
	sqlite3_stmt *st;
	bool there;

	*ret = (struct ledger_segments){0};
	CEDE_TRY(ledger_use(l, ST_SEGMENTS_OF, &st, reterr));
	LEDGER_TRY_BIND(l, sqlite3_bind_int64(st, 1, row), reterr);
	CEDE_TRY(ledger_row(l, st, &there, reterr));
	if (there)
		*ret = (struct ledger_segments){.count = (uint64_t)sqlite3_column_int64(st, 0),
			.next = (uint64_t)sqlite3_column_int64(st, 1),
			.size = (uint64_t)sqlite3_column_int64(st, 2)};
	(void)sqlite3_reset(st);
	return CEDE_OK;
}

int ledger_bundle_spooled(
	struct ledger *l, int64_t bundle_row, int64_t now_ns, struct cede_error *reterr) {
	struct ledger_bundle b;

	CEDE_TRY(ledger_bundle_get(l, bundle_row, &b, reterr));
	CEDE_TRY(on_bundle(l, ST_BUNDLE_SPOOLED, bundle_row, reterr));
	return ledger_event(l, LEDGER_BUNDLE_SPOOLED, &b.id, now_ns, "", reterr);
}

static int start_wiping(struct ledger *l, const struct ledger_bundle *b, const char *proof,
	int64_t now_ns, struct cede_error *reterr) {
	char detail[64];
	int changed;

	CEDE_TRY(on_bundle(l, ST_WIPING, b->row, reterr));
	changed = sqlite3_changes(l->db);
	/* one in segments: when each of its bundles is receipted or in the spool */
	CEDE_TRY(on_bundle(l, ST_WIPING_SEGMENTS, b->row, reterr));
	changed += sqlite3_changes(l->db);
	if (changed == 0)
		return CEDE_OK;
	(void)snprintf(detail, sizeof detail, "proof=%s captures=%d", proof, changed);
	return ledger_event(l, LEDGER_BUNDLE_WIPING, &b->id, now_ns, detail, reterr);
}

/* of: the bundle that the receipt names, if it is not this one. */
static int take_receipt(struct ledger *l, int64_t bundle_row, const struct id *of,
	struct slice receipt, int64_t now_ns, struct cede_error *reterr) {
	struct ledger_bundle b;
	sqlite3_stmt *st;
	uint8_t digest[32];
	char detail[160] = "sha256=";

	CEDE_TRY(ledger_bundle_get(l, bundle_row, &b, reterr));
	CEDE_TRY(bundle_move(b.state, BUNDLE_RECEIPTED, reterr));
	CEDE_TRY(ledger_use(l, ST_BUNDLE_RECEIPT, &st, reterr));
	LEDGER_TRY_BIND(l, sqlite3_bind_int64(st, 1, bundle_row), reterr);
	LEDGER_TRY_BIND(
		l, sqlite3_bind_blob(st, 2, receipt.data, (int)receipt.len, SQLITE_STATIC), reterr);
	LEDGER_TRY_BIND(l, sqlite3_bind_int64(st, 3, now_ns), reterr);
	CEDE_TRY(ledger_run(l, st, reterr));
	if (EVP_Digest(receipt.data, receipt.len, digest, NULL, EVP_sha256(), NULL) != 1)
		return CEDE_FAIL(reterr, CEDE_ERR_CRYPTO, "ledger: SHA-256 failed");
	hex_print(digest, sizeof digest, detail + strlen(detail));
	if (of != NULL) {
		char text[ID_TEXT_SIZE];
		size_t n = strlen(detail);
		id_print(of, text);
		(void)snprintf(detail + n, sizeof detail - n, " of=%s", text);
	}
	CEDE_TRY(ledger_event(l, LEDGER_BUNDLE_RECEIPTED, &b.id, now_ns, detail, reterr));
	return start_wiping(l, &b, "receipt", now_ns, reterr);
}

int ledger_bundle_receipted(struct ledger *l, int64_t bundle_row, struct slice receipt,
	int64_t now_ns, struct cede_error *reterr) {
	return take_receipt(l, bundle_row, NULL, receipt, now_ns, reterr);
}

int ledger_bundle_duplicate(struct ledger *l, int64_t bundle_row, const struct id *of,
	struct slice receipt, int64_t now_ns, struct cede_error *reterr) {
	return take_receipt(l, bundle_row, of, receipt, now_ns, reterr);
}

int ledger_bundle_wiping(
	struct ledger *l, int64_t bundle_row, int64_t now_ns, struct cede_error *reterr) {
	struct ledger_bundle b;

	CEDE_TRY(ledger_bundle_get(l, bundle_row, &b, reterr));
	if (!b.spooled)
		return CEDE_FAIL(reterr, CEDE_ERR_REFUSED,
			"ledger: a bundle that is not in the spool proves nothing");
	return start_wiping(l, &b, "spool", now_ns, reterr);
}

/* Another policy may have come into force since they were sealed. */
static int state_after_abandon(
	struct ledger *l, int64_t bundle_row, int *ret, struct cede_error *reterr) {
	sqlite3_stmt *st;
	bool there;

	CEDE_TRY(ledger_use(l, ST_ABANDON_TO, &st, reterr));
	LEDGER_TRY_BIND(l, sqlite3_bind_int64(st, 1, bundle_row), reterr);
	CEDE_TRY(ledger_row(l, st, &there, reterr));
	*ret = there ? sqlite3_column_int(st, 0) : CAPTURE_READY;
	(void)sqlite3_reset(st);
	return CEDE_OK;
}

int ledger_bundle_abandoned(struct ledger *l, int64_t bundle_row, int64_t now_ns,
	bool *ret_undecided, struct cede_error *reterr) {
	static const enum statement steps[] = {ST_ABANDON_SEGMENTS, ST_ABANDON};
	struct ledger_bundle b;
	sqlite3_stmt *st;
	int to = CAPTURE_READY;

	CEDE_TRY(ledger_bundle_get(l, bundle_row, &b, reterr));
	CEDE_TRY(set_state(l, &b, BUNDLE_ABANDONED, now_ns, reterr));
	CEDE_TRY(state_after_abandon(l, bundle_row, &to, reterr));
	for (size_t i = 0; i < ARRAY_LENGTH(steps); i++) {
		CEDE_TRY(ledger_use(l, steps[i], &st, reterr));
		LEDGER_TRY_BIND(l, sqlite3_bind_int64(st, 1, bundle_row), reterr);
		LEDGER_TRY_BIND(l, sqlite3_bind_int(st, 2, to), reterr);
		CEDE_TRY(ledger_run(l, st, reterr));
	}
	CEDE_TRY(on_bundle(l, ST_ABANDON_PARTS, bundle_row, reterr));
	*ret_undecided = to == CAPTURE_SETTLING;
	return ledger_event(l, LEDGER_BUNDLE_ABANDONED, &b.id, now_ns, "", reterr);
}

static int wiped_levels(
	struct ledger *l, int64_t bundle_row, struct buf *detail, struct cede_error *reterr) {
	sqlite3_stmt *st;
	bool there;

	CEDE_TRY(ledger_use(l, ST_LEVELS, &st, reterr));
	LEDGER_TRY_BIND(l, sqlite3_bind_int64(st, 1, bundle_row), reterr);
	for (;;) {
		CEDE_TRY(ledger_row(l, st, &there, reterr));
		if (!there)
			break;
		CEDE_TRY(buf_addf(detail, reterr, "%s%s=%lld", detail->len > 0 ? " " : "",
			(const char *)sqlite3_column_text(st, 0),
			(long long)sqlite3_column_int64(st, 1)));
	}
	(void)sqlite3_reset(st);
	return CEDE_OK;
}

static int finish_bundle(struct ledger *l, int64_t bundle_row, int64_t now_ns, bool *ret_done,
	struct cede_error *reterr) {
	CLEANUP(buf_done) struct buf detail = BUF_INIT(1024);
	struct ledger_bundle b;
	sqlite3_stmt *st;
	const char *text;
	bool there;

	*ret_done = false;
	CEDE_TRY(ledger_bundle_get(l, bundle_row, &b, reterr));
	if (b.state != BUNDLE_RECEIPTED)
		return CEDE_OK;
	CEDE_TRY(ledger_use(l, ST_UNDONE, &st, reterr));
	LEDGER_TRY_BIND(l, sqlite3_bind_int64(st, 1, bundle_row), reterr);
	CEDE_TRY(ledger_row(l, st, &there, reterr));
	int64_t undone = there ? sqlite3_column_int64(st, 0) : 0;
	(void)sqlite3_reset(st);
	if (undone > 0)
		return CEDE_OK;
	CEDE_TRY(set_state(l, &b, BUNDLE_DONE, now_ns, reterr));
	CEDE_TRY(wiped_levels(l, bundle_row, &detail, reterr));
	CEDE_TRY(buf_string(&detail, &text, reterr));
	CEDE_TRY(ledger_event(l, LEDGER_BUNDLE_DONE, &b.id, now_ns, text, reterr));
	*ret_done = true;
	return CEDE_OK;
}

/* Another receipted bundle that holds a segment of a capture of this one; 0: none. */
static int sibling(struct ledger *l, int64_t bundle_row, int64_t after, int64_t *ret,
	struct cede_error *reterr) {
	sqlite3_stmt *st;
	bool there;

	CEDE_TRY(ledger_use(l, ST_SIBLING, &st, reterr));
	LEDGER_TRY_BIND(l, sqlite3_bind_int64(st, 1, bundle_row), reterr);
	LEDGER_TRY_BIND(l, sqlite3_bind_int64(st, 2, after), reterr);
	CEDE_TRY(ledger_row(l, st, &there, reterr));
	*ret = there ? sqlite3_column_int64(st, 0) : 0;
	(void)sqlite3_reset(st);
	return CEDE_OK;
}

int ledger_bundle_done(struct ledger *l, int64_t bundle_row, int64_t now_ns, bool *ret_done,
	struct cede_error *reterr) {
	int64_t other = 0;
	bool done;

	CEDE_TRY(finish_bundle(l, bundle_row, now_ns, ret_done, reterr));
	if (!*ret_done)
		return CEDE_OK;
	/* the end of a large capture is the end of all its bundles */
	for (;;) {
		CEDE_TRY(sibling(l, bundle_row, other, &other, reterr));
		if (other == 0)
			return CEDE_OK;
		CEDE_TRY(finish_bundle(l, other, now_ns, &done, reterr));
	}
}

int ledger_segments_over(struct ledger *l, int64_t row, int64_t now_ns, struct cede_error *reterr) {
	int64_t bundle = 0;

	for (;;) {
		sqlite3_stmt *st;
		bool there, done;
		CEDE_TRY(ledger_use(l, ST_SEGMENT_BUNDLE, &st, reterr));
		LEDGER_TRY_BIND(l, sqlite3_bind_int64(st, 1, row), reterr);
		LEDGER_TRY_BIND(l, sqlite3_bind_int64(st, 2, bundle), reterr);
		CEDE_TRY(ledger_row(l, st, &there, reterr));
		bundle = there ? sqlite3_column_int64(st, 0) : 0;
		(void)sqlite3_reset(st);
		if (bundle == 0)
			return CEDE_OK;
		CEDE_TRY(finish_bundle(l, bundle, now_ns, &done, reterr));
	}
}

/* ---- reads */

int ledger_bundles(struct ledger *l, enum bundle_state state, ledger_bundle_fn *fn, void *ctx,
	struct cede_error *reterr) {
	sqlite3_stmt *st;
	bool there;

	CEDE_TRY(ledger_use(l, ST_BUNDLES, &st, reterr));
	LEDGER_TRY_BIND(l, sqlite3_bind_int(st, 1, (int)state), reterr);
	for (;;) {
		struct ledger_bundle b;
		CEDE_TRY(ledger_row(l, st, &there, reterr));
		if (!there)
			break;
		read_bundle(st, &b);
		int r = fn(ctx, &b, reterr);
		if (r < 0) {
			(void)sqlite3_reset(st);
			return r;
		}
	}
	(void)sqlite3_reset(st);
	return CEDE_OK;
}

int ledger_bundle_captures(struct ledger *l, int64_t bundle_row, enum capture_state state,
	ledger_capture_fn *fn, void *ctx, struct cede_error *reterr) {
	sqlite3_stmt *st;

	CEDE_TRY(ledger_use(l, ST_BUNDLE_CAPTURES, &st, reterr));
	LEDGER_TRY_BIND(l, sqlite3_bind_int64(st, 1, bundle_row), reterr);
	LEDGER_TRY_BIND(
		l, sqlite3_bind_int(st, 2, state == CAPTURE_STATE_COUNT ? -1 : (int)state), reterr);
	return ledger_each(l, st, fn, ctx, reterr);
}

int ledger_captures(struct ledger *l, enum capture_state state, ledger_capture_fn *fn, void *ctx,
	struct cede_error *reterr) {
	sqlite3_stmt *st;

	CEDE_TRY(ledger_use(l, ST_CAPTURES, &st, reterr));
	LEDGER_TRY_BIND(l, sqlite3_bind_int(st, 1, (int)state), reterr);
	return ledger_each(l, st, fn, ctx, reterr);
}

int ledger_count_receipted(struct ledger *l, uint64_t *ret, struct cede_error *reterr) {
	sqlite3_stmt *st;
	bool there;

	CEDE_TRY(ledger_use(l, ST_COUNT_RECEIPTED, &st, reterr));
	CEDE_TRY(ledger_row(l, st, &there, reterr));
	*ret = there ? (uint64_t)sqlite3_column_int64(st, 0) : 0;
	(void)sqlite3_reset(st);
	return CEDE_OK;
}

int ledger_receipt(struct ledger *l, const struct id *bundle, struct buf *out, bool *ret_there,
	struct cede_error *reterr) {
	sqlite3_stmt *st;

	CEDE_TRY(ledger_use(l, ST_RECEIPT, &st, reterr));
	LEDGER_TRY_BIND(l, sqlite3_bind_blob(st, 1, bundle->bytes, ID_SIZE, SQLITE_STATIC), reterr);
	CEDE_TRY(ledger_row(l, st, ret_there, reterr));
	if (*ret_there)
		CEDE_TRY(buf_add(out, sqlite3_column_blob(st, 0),
			(size_t)sqlite3_column_bytes(st, 0), reterr));
	(void)sqlite3_reset(st);
	return CEDE_OK;
}

int ledger_wipe_untouched(struct ledger *l, int64_t row, struct cede_error *reterr) {
	sqlite3_stmt *st;

	CEDE_TRY(ledger_use(l, ST_UNTOUCHED, &st, reterr));
	LEDGER_TRY_BIND(l, sqlite3_bind_int64(st, 1, row), reterr);
	LEDGER_TRY_BIND(l, sqlite3_bind_int64(st, 2, LEDGER_UNTOUCHED), reterr);
	return ledger_run(l, st, reterr);
}

int ledger_wipes_begin(struct ledger *l, struct cede_error *reterr) {
	sqlite3_stmt *st;

	CEDE_TRY(ledger_use(l, ST_TOUCHED, &st, reterr));
	LEDGER_TRY_BIND(l, sqlite3_bind_int64(st, 1, LEDGER_UNTOUCHED), reterr);
	return ledger_run(l, st, reterr);
}

int ledger_recover(struct ledger *l, struct cede_error *reterr) {
	sqlite3_stmt *st;

	CEDE_TRY(ledger_use(l, ST_RECOVER, &st, reterr));
	return ledger_run(l, st, reterr);
}

static int count_states(struct ledger *l, enum statement which, uint64_t *counts, size_t n,
	struct cede_error *reterr) {
	sqlite3_stmt *st;
	bool there;

	CEDE_TRY(ledger_use(l, which, &st, reterr));
	for (;;) {
		CEDE_TRY(ledger_row(l, st, &there, reterr));
		if (!there)
			break;
		int64_t state = sqlite3_column_int64(st, 0);
		if (state >= 0 && state < (int64_t)n)
			counts[state] = (uint64_t)sqlite3_column_int64(st, 1);
	}
	(void)sqlite3_reset(st);
	return CEDE_OK;
}

int ledger_count(struct ledger *l, struct ledger_counts *ret, struct cede_error *reterr) {
	sqlite3_stmt *st;
	bool there;

	*ret = (struct ledger_counts){.oldest_born_ns = INT64_MAX, .events = l->sequence};
	CEDE_TRY(count_states(l, ST_COUNT_CAPTURES, ret->captures, CAPTURE_STATE_COUNT, reterr));
	CEDE_TRY(count_states(l, ST_COUNT_BUNDLES, ret->bundles, BUNDLE_STATE_COUNT, reterr));
	CEDE_TRY(ledger_use(l, ST_OLDEST, &st, reterr));
	CEDE_TRY(ledger_row(l, st, &there, reterr));
	if (there && sqlite3_column_type(st, 0) != SQLITE_NULL)
		ret->oldest_born_ns = sqlite3_column_int64(st, 0);
	(void)sqlite3_reset(st);
	return CEDE_OK;
}
