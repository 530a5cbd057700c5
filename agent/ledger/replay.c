/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/ledger/replay.h"

#include <openssl/evp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "agent/ledger/replay_internal.h"
#include "base/check.h"
#include "base/cleanup.h"
#include "base/hex.h"
#include "base/parse.h"

#define ROWS_MAX   (UINT64_C(1) << 32)
#define WIPES_MOST 16 /* rows wiped, of each event so far: one is told a few times at most */

void replay_contradicted(struct replay *r, uint64_t sequence, const char *why) {
	if (!r->done)
		r->bad(r->ctx, sequence, why);
	r->done = true;
}

int replay_prepare(struct replay *r, const char *sql, sqlite3_stmt **ret, struct cede_error *reterr) {
	return sqlite3_prepare_v2(r->l->db, sql, -1, ret, NULL) == SQLITE_OK
		? CEDE_OK
		: ledger_fail(r->l, "prepare a statement", reterr);
}

int replay_new(struct ledger *l, replay_bad_fn *bad, void *ctx, struct replay **ret,
	struct cede_error *reterr) {
	CLEANUP(replay_freep) struct replay *r = calloc(1, sizeof *r);

	if (r == NULL)
		return CEDE_FAIL_MEMORY(reterr);
	r->l = l;
	r->bad = bad;
	r->ctx = ctx;
	r->text = BUF_INIT(3 * LEDGER_DETAIL_MAX);
	if (getrandom(r->key, sizeof r->key, 0) != (ssize_t)sizeof r->key)
		return CEDE_FAIL_SYS(reterr, "random numbers");
	CEDE_TRY(replay_prepare(r,
		"SELECT id, uuid, source, path, size, born_ns, mtime_ns, first_seen_ns, class "
		"FROM capture ORDER BY id",
		&r->row, reterr));
	CEDE_TRY(replay_prepare(r, "SELECT name FROM source WHERE id = ?1", &r->source, reterr));
	CEDE_TRY(replay_prepare(r,
		"SELECT loaded_ns, policy, serial, sha256, signed FROM policy ORDER BY id",
		&r->policy, reterr));
	CEDE_TRY(replay_prepare(r,
		"SELECT uuid, destination, size, sha256, captures, sealed_ns, receipt, receipted_ns "
		"FROM bundle WHERE id = ?1",
		&r->bundle, reterr));
	CEDE_TRY(replay_prepare(r,
		"SELECT bundle, offset, size, sha256 FROM segment WHERE capture = ?1 AND idx = ?2",
		&r->segment, reterr));
	*ret = CEDE_TAKE(r);
	return CEDE_OK;
}

void replay_free(struct replay *r) {
	if (r == NULL)
		return;
	sqlite3_stmt *statements[] = {r->row, r->policy, r->bundle, r->segment, r->source};
	for (size_t i = 0; i < ARRAY_LENGTH(statements); i++)
		(void)sqlite3_finalize(statements[i]);
	for (uint64_t i = 0; i < r->bundle_room; i++)
		free(r->bundles[i].members);
	for (uint32_t i = 0; i < r->level_count; i++)
		free(r->levels[i]);
	free(r->captures);
	free(r->bundles);
	free(r->wipes);
	free(r->changed);
	buf_done(&r->text);
	free(r);
}

void replay_freep(struct replay **r) {
	replay_free(*r);
	*r = NULL;
}

/* ---- room */

/* Each capture and each bundle had an event of its own: there are no more rows than events. */
bool replay_is_row(const struct replay *r, uint64_t row) {
	return row <= r->sequence && row < ROWS_MAX;
}

static int room_for(const struct replay *r, void **list, uint64_t *room, uint64_t row, size_t each,
	struct cede_error *reterr) {
	uint64_t wanted = *room == 0 ? 1024 : *room;

	if (!replay_is_row(r, row))
		return CEDE_FAIL(reterr, CEDE_ERR_INPUT, "a row number that is none");
	while (wanted <= row)
		wanted *= 2;
	if (wanted == *room)
		return CEDE_OK;
	uint8_t *more = reallocarray(*list, wanted, each);
	if (more == NULL)
		return CEDE_FAIL_MEMORY(reterr);
	memset(more + *room * each, 0, (wanted - *room) * each);
	*list = more;
	*room = wanted;
	return CEDE_OK;
}

int replay_capture(struct replay *r, uint64_t row, struct replayed **ret, struct cede_error *reterr) {
	void *list = r->captures;

	CEDE_TRY(room_for(r, &list, &r->capture_room, row, sizeof *r->captures, reterr));
	r->captures = list;
	*ret = &r->captures[row];
	return CEDE_OK;
}

int replay_bundle(struct replay *r, uint64_t row, struct parcel **ret, struct cede_error *reterr) {
	uint64_t before = r->bundle_room;
	void *list = r->bundles;

	CEDE_TRY(room_for(r, &list, &r->bundle_room, row, sizeof *r->bundles, reterr));
	r->bundles = list;
	for (uint64_t i = before; i < r->bundle_room; i++)
		r->bundles[i].state = BUNDLE_STATE_COUNT;
	*ret = &r->bundles[row];
	return CEDE_OK;
}

/* ---- comparing */

static bool is_text(sqlite3_stmt *st, int column, struct slice value) {
	return slice_equal(
		slice_of(sqlite3_column_blob(st, column), (size_t)sqlite3_column_bytes(st, column)),
		value);
}

bool replay_is_number(sqlite3_stmt *st, int column, int64_t value) {
	return sqlite3_column_type(st, column) == SQLITE_INTEGER &&
		sqlite3_column_int64(st, column) == value;
}

/* Whether the column is what the value, decoded, says. */
static int is_coded(struct replay *r, sqlite3_stmt *st, int column, struct slice value, bool *ret,
	struct cede_error *reterr) {
	if (memchr(value.data, '%', value.len) == NULL) {
		*ret = is_text(st, column, value);
		return CEDE_OK;
	}
	buf_clear(&r->text);
	CEDE_TRY(detail_decode(value, &r->text, reterr));
	*ret = is_text(st, column, buf_slice(&r->text));
	return CEDE_OK;
}

/* Whether the column is what the value of this key, decoded, says. */
static int is_value(struct replay *r, sqlite3_stmt *st, int column, struct slice detail,
	const char *key, bool *ret, struct cede_error *reterr) {
	struct slice value = SLICE_NONE;

	*ret = false;
	if (!detail_find(detail, key, &value))
		return CEDE_OK;
	return is_coded(r, st, column, value, ret, reterr);
}

static bool is_hex(sqlite3_stmt *st, int column, struct slice detail, const char *key) {
	struct slice value;
	char text[65];

	if (!detail_find(detail, key, &value) || sqlite3_column_bytes(st, column) != 32)
		return false;
	hex_print(sqlite3_column_blob(st, column), 32, text);
	return slice_is(value, text);
}

static int64_t number_of(struct slice detail, const char *key, int64_t otherwise) {
	int64_t value;

	return detail_i64(detail, key, &value, NULL) == CEDE_OK ? value : otherwise;
}

/* Steps to the row; false: there is none. Rows that were passed over had no event. */
static int step_to(
	struct replay *r, uint64_t row, uint64_t sequence, bool *ret, struct cede_error *reterr) {
	while (r->capture_last < row) {
		bool there;
		CEDE_TRY(ledger_row(r->l, r->row, &there, reterr));
		r->capture_last = there ? (uint64_t)sqlite3_column_int64(r->row, 0) : ROWS_MAX;
		if (r->capture_last < row && r->capture_last > r->old_captures)
			replay_contradicted(r, sequence, NO_EVENT_OF_CAPTURE);
	}
	*ret = r->capture_last == row;
	return CEDE_OK;
}

static int add_changed(struct replay *r, struct replayed *capture, const struct changed *c,
	struct cede_error *reterr) {
	if (r->changed_count == r->changed_room) {
		size_t room = r->changed_room == 0 ? 64 : r->changed_room * 2;
		struct changed *list = reallocarray(r->changed, room, sizeof *list);
		if (list == NULL)
			return CEDE_FAIL_MEMORY(reterr);
		r->changed = list;
		r->changed_room = room;
	}
	r->changed[r->changed_count++] = *c;
	capture->changed = (uint32_t)r->changed_count;
	return CEDE_OK;
}

/* The capture's room is there. */
static int note_changed(
	struct replay *r, uint64_t row, struct slice detail, struct cede_error *reterr) {
	struct replayed *capture = &r->captures[row];
	int64_t born = number_of(detail, "born", 0);
	const struct changed now = {row, r->sequence, number_of(detail, "size", -1), born,
		number_of(detail, "mtime", born)};

	if (capture->changed == 0)
		return add_changed(r, capture, &now, reterr);
	struct changed *c = &r->changed[capture->changed - 1];
	c->born = now.born < c->born ? now.born : c->born;
	c->size = now.size;
	c->mtime = now.mtime;
	c->sequence = now.sequence;
	return CEDE_OK;
}

/* ---- events of captures */

/* What a capture-seen says, found in one pass: there are millions. Missing ones stay as they are. */
struct seen_detail {
	struct slice source, path, class;
	int64_t size, born, mtime, first;
};

static void take_number(struct slice value, int64_t *ret) {
	bool negative = value.len > 1 && value.data[0] == '-';
	uint64_t n;

	if (negative)
		value = slice_of(value.data + 1, value.len - 1);
	if (parse_u64(value, 0, INT64_MAX, &n, NULL) == CEDE_OK)
		*ret = negative ? -(int64_t)n : (int64_t)n;
}

static void read_seen(struct slice detail, struct seen_detail *d) {
	const struct {
		const char *key;
		struct slice *text;
		int64_t *number;
	} keys[] = {{"source=", &d->source, NULL}, {"size=", NULL, &d->size},
		{"born=", NULL, &d->born}, {"mtime=", NULL, &d->mtime}, {"first=", NULL, &d->first},
		{"class=", &d->class, NULL}, {"path=", &d->path, NULL}};

	for (struct slice rest = detail; rest.len > 0;) {
		struct slice part = rest;
		struct slice tail = SLICE_NONE;
		(void)slice_cut(rest, ' ', &part, &tail);
		rest = tail;
		for (size_t i = 0; i < ARRAY_LENGTH(keys); i++) {
			if (!slice_starts(part, keys[i].key))
				continue;
			size_t n = strlen(keys[i].key);
			struct slice value = slice_of(part.data + n, part.len - n);
			if (keys[i].text != NULL)
				*keys[i].text = value;
			else
				take_number(value, keys[i].number);
			break;
		}
	}
}

/* The names of sources, by row: few, and each capture has one. */
static int source_is(
	struct replay *r, int64_t id, struct slice coded, bool *ret, struct cede_error *reterr) {
	bool there;

	if (id != r->source_id) {
		(void)sqlite3_reset(r->source);
		LEDGER_TRY_BIND(r->l, sqlite3_bind_int64(r->source, 1, id), reterr);
		CEDE_TRY(ledger_row(r->l, r->source, &there, reterr));
		r->source_id = there ? id : -1;
		*ret = false;
		if (!there)
			return CEDE_OK;
	}
	return is_coded(r, r->source, 0, coded, ret, reterr);
}

static int names_fit(
	struct replay *r, const struct seen_detail *d, bool *ret, struct cede_error *reterr) {
	CEDE_TRY(source_is(r, sqlite3_column_int64(r->row, 2), d->source, ret, reterr));
	if (*ret)
		CEDE_TRY(is_coded(r, r->row, 3, d->path, ret, reterr));
	if (*ret && d->class.len > 0)
		CEDE_TRY(is_coded(r, r->row, 8, d->class, ret, reterr));
	*ret = *ret && (d->class.len > 0 || sqlite3_column_bytes(r->row, 8) == 0);
	return CEDE_OK;
}

static int seen(
	struct replay *r, const struct ledger_row *e, uint64_t row, struct cede_error *reterr) {
	struct seen_detail d = {.size = -1, .mtime = INT64_MIN, .first = e->at_ns};
	struct replayed *c;
	bool there, same;

	read_seen(e->detail, &d);
	if (d.path.data == NULL) { /* of schema 1, which did not tell everything */
		r->old_captures = row > r->old_captures ? row : r->old_captures;
		return CEDE_OK;
	}
	CEDE_TRY(replay_capture(r, row, &c, reterr));
	c->stage = STAGE_OPEN;
	CEDE_TRY(step_to(r, row, e->sequence, &there, reterr));
	if (!there) {
		replay_contradicted(
			r, e->sequence, "the captures' table lacks the capture that was seen");
		return CEDE_OK;
	}
	CEDE_TRY(names_fit(r, &d, &same, reterr));
	if (!same || !is_text(r->row, 1, e->subject) || !replay_is_number(r->row, 7, d.first)) {
		replay_contradicted(
			r, e->sequence, "the captures' table names another capture than was seen");
		return CEDE_OK;
	}
	if (replay_is_number(r->row, 4, d.size) && replay_is_number(r->row, 5, d.born) &&
		replay_is_number(r->row, 6, d.mtime == INT64_MIN ? d.born : d.mtime))
		return CEDE_OK;
	return note_changed(r, row, e->detail, reterr);
}

static int level_of(struct replay *r, struct slice detail, uint32_t *ret, struct cede_error *reterr) {
	struct slice level = SLICE_NONE;
	struct slice reason = SLICE_NONE;
	const char *text;

	(void)detail_find(detail, "level", &level);
	(void)detail_find(detail, "reason", &reason);
	buf_clear(&r->text);
	CEDE_TRY(detail_decode(level, &r->text, reterr));
	CEDE_TRY(buf_add(&r->text, "\n", 1, reterr));
	CEDE_TRY(detail_decode(reason, &r->text, reterr));
	CEDE_TRY(buf_string(&r->text, &text, reterr));
	for (*ret = 0; *ret < r->level_count; (*ret)++)
		if (strcmp(r->levels[*ret], text) == 0)
			return CEDE_OK;
	if (r->level_count == LEVELS_MAX)
		return CEDE_FAIL(reterr, CEDE_ERR_INPUT, "too many levels of wiping");
	r->levels[r->level_count] = strdup(text);
	if (r->levels[r->level_count] == NULL)
		return CEDE_FAIL_MEMORY(reterr);
	r->level_count++;
	return CEDE_OK;
}

static int add_end(struct replay *r, const struct ledger_row *e, struct cede_error *reterr) {
	if (r->wipe_count == r->wipe_room) {
		size_t room = r->wipe_room == 0 ? 256 : r->wipe_room * 2;
		struct wipe *list = reallocarray(r->wipes, room, sizeof *list);
		if (list == NULL)
			return CEDE_FAIL_MEMORY(reterr);
		r->wipes = list;
		r->wipe_room = room;
	}
	struct wipe *w = &r->wipes[r->wipe_count++];
	*w = (struct wipe){.at_ns = e->at_ns, .sequence = e->sequence, .level = NOT_WIPED};
	return CEDE_OK;
}

static int add_wipe(struct replay *r, const struct ledger_row *e, struct cede_error *reterr) {
	CEDE_TRY(add_end(r, e, reterr));
	return level_of(r, e->detail, &r->wipes[r->wipe_count - 1].level, reterr);
}

/* Gone, or replaced: it ended without a wipe. */
static int ended(struct replay *r, struct replayed *c, uint8_t stage, const struct ledger_row *e,
	struct cede_error *reterr) {
	c->stage = stage;
	CEDE_TRY(add_end(r, e, reterr));
	c->wipe = (uint32_t)r->wipe_count;
	return CEDE_OK;
}

static int wiped(struct replay *r, uint64_t row, struct cede_error *reterr) {
	struct replayed *c;

	CEDE_TRY(replay_capture(r, row, &c, reterr));
	if (c->stage != STAGE_GONE && c->stage != STAGE_REPLACED)
		c->stage = STAGE_WIPED;
	c->wipe = (uint32_t)r->wipe_count;
	return CEDE_OK;
}

static int wiped_rows(struct replay *r, const struct ledger_row *e, struct cede_error *reterr) {
	struct slice rest = SLICE_NONE;
	uint64_t from, to;

	CEDE_TRY(add_wipe(r, e, reterr));
	(void)detail_find(e->detail, "rows", &rest);
	while (rest.len > 0) {
		CEDE_TRY(detail_rows_next(&rest, &from, &to, reterr));
		if (!replay_is_row(r, to))
			return CEDE_FAIL(reterr, CEDE_ERR_INPUT, "a row number that is none");
		r->wiped_count += to - from + 1;
		if (r->wiped_count > WIPES_MOST * r->sequence)
			return CEDE_FAIL(
				reterr, CEDE_ERR_INPUT, "the same rows are wiped again and again");
		for (; from <= to; from++)
			CEDE_TRY(wiped(r, from, reterr));
	}
	return CEDE_OK;
}

/* ---- events of bundles */

uint64_t replay_digest(const struct replay *r, const uint8_t sha256[32]) {
	uint64_t a = r->key[16];
	uint64_t b = r->key[17];

	for (size_t i = 0; i < 8; i++) {
		uint64_t word = get_le32(sha256 + 4 * i);
		a += r->key[i] * word;
		b += r->key[8 + i] * word;
	}
	return (a & 0xffffffff00000000) | b >> 32;
}

static int add_member(struct replay *r, struct parcel *b, uint64_t bundle, uint64_t row,
	const uint8_t sha256[32], struct cede_error *reterr) {
	struct replayed *c;

	CEDE_TRY(replay_capture(r, row, &c, reterr));
	if (c->stage == STAGE_OPEN) {
		c->stage = STAGE_SEALED;
		c->bundle = (uint32_t)bundle;
		c->digest = replay_digest(r, sha256);
	}
	b->members[b->count++] = (uint32_t)row;
	return CEDE_OK;
}

static int add_members(struct replay *r, struct parcel *b, uint64_t bundle,
	const struct ledger_row *e, struct cede_error *reterr) {
	struct slice rest = SLICE_NONE;
	uint8_t sha256[32];
	uint64_t row;

	if (!detail_find(e->detail, "members", &rest))
		return CEDE_OK;
	b->members = calloc(rest.len / 40 + 1, sizeof *b->members);
	if (b->members == NULL)
		return CEDE_FAIL_MEMORY(reterr);
	while (rest.len > 0) {
		CEDE_TRY(detail_member_next(&rest, &row, sha256, reterr));
		CEDE_TRY(add_member(r, b, bundle, row, sha256, reterr));
	}
	return CEDE_OK;
}

/* The bundle's row in the table; false: not there. */
static int bundle_row(struct replay *r, uint64_t row, bool *ret, struct cede_error *reterr) {
	(void)sqlite3_reset(r->bundle);
	LEDGER_TRY_BIND(r->l, sqlite3_bind_int64(r->bundle, 1, (int64_t)row), reterr);
	return ledger_row(r->l, r->bundle, ret, reterr);
}

static int sealed(
	struct replay *r, const struct ledger_row *e, uint64_t row, struct cede_error *reterr) {
	struct slice d = e->detail;
	struct parcel *b;
	bool there, same;

	CEDE_TRY(replay_bundle(r, row, &b, reterr));
	if (b->state != BUNDLE_STATE_COUNT) {
		replay_contradicted(r, e->sequence, "two bundles of one row");
		return CEDE_OK;
	}
	*b = (struct parcel){.state = BUNDLE_SEALED, .sequence = e->sequence};
	r->bundle_last = row > r->bundle_last ? row : r->bundle_last;
	CEDE_TRY(bundle_row(r, row, &there, reterr));
	if (!there) {
		replay_contradicted(
			r, e->sequence, "the bundles' table lacks the bundle that was sealed");
		return CEDE_OK;
	}
	CEDE_TRY(is_value(r, r->bundle, 1, d, "destination", &same, reterr));
	if (!same || !is_text(r->bundle, 0, e->subject) ||
		!replay_is_number(r->bundle, 2, number_of(d, "size", -1)) ||
		!is_hex(r->bundle, 3, d, "sha256") ||
		!replay_is_number(r->bundle, 4, number_of(d, "captures", -1)) ||
		!replay_is_number(r->bundle, 5, e->at_ns))
		replay_contradicted(
			r, e->sequence, "the bundles' table has another bundle than was sealed");
	return add_members(r, b, row, e, reterr);
}

static int segment(
	struct replay *r, const struct ledger_row *e, uint64_t row, struct cede_error *reterr) {
	struct slice d = e->detail;
	struct replayed *c;
	uint64_t bundle;
	bool there;

	CEDE_TRY(replay_capture(r, row, &c, reterr));
	CEDE_TRY(detail_u64(d, "bundle", &bundle, reterr));
	c->segments = true;
	(void)sqlite3_reset(r->segment);
	LEDGER_TRY_BIND(r->l, sqlite3_bind_int64(r->segment, 1, (int64_t)row), reterr);
	LEDGER_TRY_BIND(r->l, sqlite3_bind_int64(r->segment, 2, number_of(d, "index", -1)), reterr);
	CEDE_TRY(ledger_row(r->l, r->segment, &there, reterr));
	if (there && replay_is_number(r->segment, 0, (int64_t)bundle) &&
		(!replay_is_number(r->segment, 1, number_of(d, "offset", -1)) ||
			!replay_is_number(r->segment, 2, number_of(d, "size", -1)) ||
			!is_hex(r->segment, 3, d, "sha256")))
		replay_contradicted(
			r, e->sequence, "the segments' table has another segment than was sealed");
	return CEDE_OK;
}

/* Bundles are told by id; the newest ones are asked for most. */
static int find_bundle(struct replay *r, const struct ledger_row *e, uint64_t *ret,
	struct parcel **ret_bundle, struct cede_error *reterr) {
	sqlite3_stmt *st;
	bool there;

	*ret_bundle = NULL;
	CEDE_TRY(ledger_use(r->l, ST_BUNDLE_OF_ID, &st, reterr));
	LEDGER_TRY_BIND(r->l,
		sqlite3_bind_blob(st, 1, e->subject.data, (int)e->subject.len, SQLITE_STATIC),
		reterr);
	CEDE_TRY(ledger_row(r->l, st, &there, reterr));
	*ret = there ? (uint64_t)sqlite3_column_int64(st, 0) : 0;
	(void)sqlite3_reset(st);
	if (!there) {
		replay_contradicted(r, e->sequence, "the bundles' table lacks a bundle");
		return CEDE_OK;
	}
	if (*ret <= r->old_bundles)
		return CEDE_OK; /* of before the events told everything */
	CEDE_TRY(replay_bundle(r, *ret, ret_bundle, reterr));
	if ((*ret_bundle)->state == BUNDLE_STATE_COUNT) {
		replay_contradicted(
			r, e->sequence, "something happened to a bundle that was never sealed");
		*ret_bundle = NULL;
	}
	return CEDE_OK;
}

static int old_bundle(struct replay *r, const struct ledger_row *e, struct cede_error *reterr) {
	struct parcel *b;
	uint64_t row, old = r->old_bundles;

	r->old_bundles = ROWS_MAX; /* nothing is compared */
	int result = find_bundle(r, e, &row, &b, reterr);
	r->old_bundles = row > old ? row : old;
	return result;
}

static int receipted(
	struct replay *r, const struct ledger_row *e, uint64_t row, struct cede_error *reterr) {
	char want[65];
	uint8_t digest[32];
	struct slice value = SLICE_NONE;
	bool there;

	CEDE_TRY(bundle_row(r, row, &there, reterr));
	if (!there)
		return CEDE_OK; /* told already */
	if (EVP_Digest(sqlite3_column_blob(r->bundle, 6), (size_t)sqlite3_column_bytes(r->bundle, 6),
		    digest, NULL, r->l->hasher.md, NULL) != 1)
		return CEDE_FAIL(reterr, CEDE_ERR_CRYPTO, "SHA-256 failed");
	hex_print(digest, sizeof digest, want);
	if (!detail_find(e->detail, "sha256", &value) || !slice_is(value, want) ||
		!replay_is_number(r->bundle, 7, e->at_ns))
		replay_contradicted(
			r, e->sequence, "the bundles' table has another receipt than came");
	return CEDE_OK;
}

static void over(struct parcel *b) {
	free(b->members);
	b->members = NULL;
	b->count = 0;
}

static void move_members(
	struct replay *r, const struct parcel *b, uint64_t bundle, enum stage from, enum stage to) {
	for (uint32_t i = 0; i < b->count; i++) {
		struct replayed *c = &r->captures[b->members[i]];
		if (c->stage != from || c->bundle != bundle)
			continue;
		c->stage = (uint8_t)to;
		if (to == STAGE_OPEN)
			c->bundle = 0;
	}
}

/* Sealed anew in another one. */
static int freed(struct replay *r, const struct ledger_row *e, const struct parcel *b,
	uint64_t bundle, struct cede_error *reterr) {
	struct slice rest = SLICE_NONE;
	uint64_t from, to, n = 0;

	(void)detail_find(e->detail, "rows", &rest);
	while (rest.len > 0) {
		CEDE_TRY(detail_rows_next(&rest, &from, &to, reterr));
		if (!replay_is_row(r, to))
			return CEDE_FAIL(reterr, CEDE_ERR_INPUT, "a row number that is none");
		n += to - from + 1;
		if (n > b->count) {
			replay_contradicted(
				r, e->sequence, "more captures leave a bundle than it has");
			return CEDE_OK;
		}
		for (; from <= to; from++) {
			struct replayed *c;
			CEDE_TRY(replay_capture(r, from, &c, reterr));
			if (c->stage != STAGE_SEALED || c->bundle != bundle)
				continue;
			c->stage = STAGE_OPEN;
			c->bundle = 0;
		}
	}
	return CEDE_OK;
}

static int bundle_event(struct replay *r, const struct ledger_row *e, struct cede_error *reterr) {
	struct parcel *b;
	uint64_t row;

	CEDE_TRY(find_bundle(r, e, &row, &b, reterr));
	if (b == NULL)
		return CEDE_OK;
	switch (e->kind) {
	case LEDGER_BUNDLE_SPOOLED:
		b->spooled = true;
		break;
	case LEDGER_BUNDLE_RECEIPTED:
		b->state = BUNDLE_RECEIPTED;
		return receipted(r, e, row, reterr);
	case LEDGER_BUNDLE_WIPING:
		move_members(r, b, row, STAGE_SEALED, STAGE_WIPING);
		break;
	case LEDGER_BUNDLE_FREED:
		return freed(r, e, b, row, reterr);
	case LEDGER_BUNDLE_ABANDONED:
		b->state = BUNDLE_ABANDONED;
		move_members(r, b, row, STAGE_SEALED, STAGE_OPEN);
		move_members(r, b, row, STAGE_HELD, STAGE_OPEN); /* sealed again */
		move_members(r, b, row, STAGE_KEPT, STAGE_OPEN);
		over(b);
		break;
	case LEDGER_BUNDLE_DONE:
		b->state = BUNDLE_DONE;
		over(b);
		break;
	default:
		break;
	}
	return CEDE_OK;
}

/* ---- events of the host */

static int policy_loaded(struct replay *r, const struct ledger_row *e, struct cede_error *reterr) {
	struct slice value = SLICE_NONE;
	bool there, same;

	CEDE_TRY(ledger_row(r->l, r->policy, &there, reterr));
	if (!there) {
		replay_contradicted(
			r, e->sequence, "the policies' table lacks one that was in force");
		return CEDE_OK;
	}
	(void)detail_find(e->detail, "signed", &value);
	CEDE_TRY(is_value(r, r->policy, 1, e->detail, "policy", &same, reterr));
	if (!same || !replay_is_number(r->policy, 0, e->at_ns) ||
		!replay_is_number(r->policy, 2, number_of(e->detail, "serial", -1)) ||
		!is_hex(r->policy, 3, e->detail, "sha256") ||
		!replay_is_number(r->policy, 4, slice_is(value, "yes")))
		replay_contradicted(
			r, e->sequence, "the policies' table has another one than was in force");
	return CEDE_OK;
}

static int capture_event(struct replay *r, const struct ledger_row *e, struct cede_error *reterr) {
	struct replayed *c;
	uint64_t row;

	if (detail_u64(e->detail, "row", &row, NULL) < 0)
		return CEDE_OK; /* of a ledger of before */
	if (row <= r->old_captures)
		return CEDE_OK;
	CEDE_TRY(replay_capture(r, row, &c, reterr));
	if (e->kind == LEDGER_CAPTURE_SEEN)
		return seen(r, e, row, reterr);
	if (c->stage == STAGE_NONE) {
		replay_contradicted(
			r, e->sequence, "something happened to a capture that was never seen");
		return CEDE_OK;
	}
	switch (e->kind) {
	case LEDGER_CAPTURE_CHANGED:
		return number_of(e->detail, "size", -1) >= 0
			? note_changed(r, row, e->detail, reterr)
			: CEDE_OK;
	case LEDGER_CAPTURE_REPLACED:
		return ended(r, c, STAGE_REPLACED, e, reterr);
	case LEDGER_CAPTURE_GONE:
		return ended(r, c, STAGE_GONE, e, reterr);
	case LEDGER_CAPTURE_HELD:
		c->stage = STAGE_HELD;
		break;
	case LEDGER_VIOLATION: /* of one capture: it is kept for its storage */
		c->stage = STAGE_KEPT;
		break;
	case LEDGER_HOLD_LIFTED:
	case LEDGER_KEEP_ENDED:
	case LEDGER_CAPTURE_DESTROYED:
		c->stage = STAGE_WIPING;
		break;
	case LEDGER_CAPTURE_WIPED:
		CEDE_TRY(add_wipe(r, e, reterr));
		return wiped(r, row, reterr);
	case LEDGER_SEGMENT_SEALED:
		return segment(r, e, row, reterr);
	default:
		break;
	}
	return CEDE_OK;
}

int replay_migrated(struct replay *r, const struct ledger_row *e, struct cede_error *reterr) {
	uint64_t captures, bundles;

	r->sequence = e->sequence;
	CEDE_TRY(detail_u64(e->detail, "captures", &captures, reterr));
	CEDE_TRY(detail_u64(e->detail, "bundles", &bundles, reterr));
	r->old_captures = captures;
	r->old_bundles = bundles;
	return CEDE_OK;
}

int replay_event(struct replay *r, const struct ledger_row *e, struct cede_error *reterr) {
	uint64_t row;

	if (r->done)
		return CEDE_OK;
	r->sequence = e->sequence;
	switch (e->kind) {
	case LEDGER_CAPTURE_SEEN:
	case LEDGER_CAPTURE_CHANGED:
	case LEDGER_CAPTURE_REPLACED:
	case LEDGER_CAPTURE_GONE:
	case LEDGER_CAPTURE_HELD:
	case LEDGER_HOLD_LIFTED:
	case LEDGER_KEEP_ENDED:
	case LEDGER_CAPTURE_DESTROYED:
	case LEDGER_CAPTURE_WIPED:
	case LEDGER_SEGMENT_SEALED:
		return capture_event(r, e, reterr);
	case LEDGER_VIOLATION:
		return e->subject.len > 0 ? capture_event(r, e, reterr) : CEDE_OK;
	case LEDGER_CAPTURES_WIPED:
		return wiped_rows(r, e, reterr);
	case LEDGER_BUNDLE_SEALED:
		if (detail_u64(e->detail, "row", &row, NULL) < 0)
			return old_bundle(r, e, reterr);
		return row <= r->old_bundles ? CEDE_OK : sealed(r, e, row, reterr);
	case LEDGER_BUNDLE_SPOOLED:
	case LEDGER_BUNDLE_RECEIPTED:
	case LEDGER_BUNDLE_ABANDONED:
	case LEDGER_BUNDLE_FREED:
	case LEDGER_BUNDLE_WIPING:
	case LEDGER_BUNDLE_DONE:
		return bundle_event(r, e, reterr);
	case LEDGER_POLICY_LOADED:
		return policy_loaded(r, e, reterr);
	default:
		return CEDE_OK;
	}
}
