/* SPDX-License-Identifier: Apache-2.0
 * After the last event: what the tables say against what the events told. */
#include <stdio.h>
#include <string.h>

#include "agent/ledger/replay_internal.h"
#include "base/cleanup.h"

static bool is_open(const struct replayed *c, enum capture_state state) {
	return state == CAPTURE_READY || state == CAPTURE_BUNDLED || state == CAPTURE_SETTLING ||
		(c->segments && (state == CAPTURE_SEALED || state == CAPTURE_WIPING));
}

static bool fits(const struct replayed *c, enum capture_state state) {
	switch (c->stage) {
	case STAGE_OPEN:
		return is_open(c, state);
	case STAGE_SEALED:
		return state == CAPTURE_SEALED;
	case STAGE_WIPING:
		return state == CAPTURE_WIPING;
	case STAGE_WIPED:
		return state == CAPTURE_WIPED;
	case STAGE_GONE:
		return state == CAPTURE_GONE;
	case STAGE_REPLACED:
		return state == CAPTURE_REPLACED;
	case STAGE_HELD: /* or the bundle of a segment was lost, and it goes again */
		return state == CAPTURE_HELD || (c->segments && is_open(c, state));
	case STAGE_KEPT:
		return state == CAPTURE_KEPT || (c->segments && is_open(c, state));
	default:
		return false;
	}
}

static bool wipe_fits(const struct replay *r, const struct replayed *c, sqlite3_stmt *st) {
	char text[1024];

	if (c->wipe == 0)
		return sqlite3_column_type(st, 3) == SQLITE_NULL &&
			sqlite3_column_type(st, 4) == SQLITE_NULL;
	const struct wipe *w = &r->wipes[c->wipe - 1];
	if (w->level == NOT_WIPED)
		return replay_is_number(st, 3, w->at_ns) && sqlite3_column_type(st, 4) == SQLITE_NULL;
	(void)snprintf(text, sizeof text, "%s\n%s", (const char *)sqlite3_column_text(st, 4),
		sqlite3_column_type(st, 5) == SQLITE_NULL ? ""
							  : (const char *)sqlite3_column_text(st, 5));
	return replay_is_number(st, 3, w->at_ns) && strcmp(text, r->levels[w->level]) == 0;
}

static bool bundle_fits(const struct replayed *c, sqlite3_stmt *st) {
	bool in_one = !c->segments && c->bundle != 0 &&
		(c->stage == STAGE_SEALED || c->stage == STAGE_WIPING || c->stage == STAGE_WIPED);

	return !in_one || replay_is_number(st, 2, (int64_t)c->bundle);
}

/* What was sealed anew stands there with its last bundle. */
static bool digest_fits(const struct replay *r, const struct replayed *c, sqlite3_stmt *st) {
	if (c->segments || c->bundle == 0 || !replay_is_number(st, 2, (int64_t)c->bundle))
		return true;
	return sqlite3_column_bytes(st, 6) == 32 &&
		replay_digest(r, sqlite3_column_blob(st, 6)) == c->digest;
}

static int end_captures(struct replay *r, uint64_t last, uint64_t *ret, struct cede_error *reterr) {
	CLEANUP(ledger_finalizep) sqlite3_stmt *st = NULL;
	bool there = true;

	CEDE_TRY(replay_prepare(r,
		"SELECT id, state, coalesce(bundle, 0), wiped_ns, level, reason, sha256 FROM capture ORDER BY id",
		&st, reterr));
	for (*ret = 0;; ++*ret) {
		CEDE_TRY(ledger_row(r->l, st, &there, reterr));
		if (!there || r->done)
			return CEDE_OK;
		uint64_t row = (uint64_t)sqlite3_column_int64(st, 0);
		if (row <= r->old_captures)
			continue;
		struct replayed none = {.stage = STAGE_NONE};
		struct replayed *c = &none;
		if (replay_is_row(r, row))
			CEDE_TRY(replay_capture(r, row, &c, reterr));
		enum capture_state state = (enum capture_state)sqlite3_column_int(st, 1);
		uint64_t sequence = c->wipe > 0 ? r->wipes[c->wipe - 1].sequence : last;
		if (c->stage == STAGE_NONE)
			replay_contradicted(r, last, NO_EVENT_OF_CAPTURE);
		else if (!fits(c, state))
			replay_contradicted(r, sequence,
				"the captures' table has another state than the events");
		else if (!wipe_fits(r, c, st))
			replay_contradicted(r, sequence,
				"the captures' table has another wipe than the events");
		else if (!bundle_fits(c, st))
			replay_contradicted(r, r->bundles[c->bundle].sequence,
				"the captures' table has a capture in another bundle than the events");
		else if (!digest_fits(r, c, st))
			replay_contradicted(r, r->bundles[c->bundle].sequence,
				"the captures' table has another digest than was sealed");
	}
}

static int end_bundles(struct replay *r, uint64_t last, uint64_t *ret, struct cede_error *reterr) {
	CLEANUP(ledger_finalizep) sqlite3_stmt *st = NULL;
	bool there;

	CEDE_TRY(replay_prepare(r, "SELECT id, state, spooled FROM bundle ORDER BY id", &st, reterr));
	for (*ret = 0;; ++*ret) {
		CEDE_TRY(ledger_row(r->l, st, &there, reterr));
		if (!there || r->done)
			return CEDE_OK;
		uint64_t row = (uint64_t)sqlite3_column_int64(st, 0);
		struct parcel *b = NULL;
		if (row <= r->old_bundles)
			continue;
		if (replay_is_row(r, row))
			CEDE_TRY(replay_bundle(r, row, &b, reterr));
		if (b == NULL || b->state == BUNDLE_STATE_COUNT)
			replay_contradicted(
				r, last, "the bundles' table has a row that no event tells of");
		else if (!replay_is_number(st, 1, b->state) || !replay_is_number(st, 2, b->spooled))
			replay_contradicted(r, b->sequence,
				"the bundles' table has another state than the events");
	}
}

static int end_changed(struct replay *r, struct cede_error *reterr) {
	CLEANUP(ledger_finalizep) sqlite3_stmt *st = NULL;
	bool there;

	CEDE_TRY(replay_prepare(
		r, "SELECT size, born_ns, mtime_ns FROM capture WHERE id = ?1", &st, reterr));
	for (size_t i = 0; i < r->changed_count && !r->done; i++) {
		const struct changed *c = &r->changed[i];
		(void)sqlite3_reset(st);
		LEDGER_TRY_BIND(r->l, sqlite3_bind_int64(st, 1, (int64_t)c->row), reterr);
		CEDE_TRY(ledger_row(r->l, st, &there, reterr));
		if (there && (!replay_is_number(st, 0, c->size) || !replay_is_number(st, 2, c->mtime)))
			replay_contradicted(r, c->sequence,
				"the captures' table has another size or time than the events");
		else if (there && sqlite3_column_int64(st, 1) > c->born)
			replay_contradicted(r, c->sequence,
				"the captures' table has a younger capture than the events");
	}
	return CEDE_OK;
}

int replay_end(struct replay *r, uint64_t sequence, uint64_t *ret_captures, uint64_t *ret_bundles,
	struct cede_error *reterr) {
	bool there;

	r->sequence = sequence;
	CEDE_TRY(end_captures(r, sequence, ret_captures, reterr));
	CEDE_TRY(end_bundles(r, sequence, ret_bundles, reterr));
	CEDE_TRY(end_changed(r, reterr));
	CEDE_TRY(ledger_row(r->l, r->policy, &there, reterr));
	if (there)
		replay_contradicted(
			r, sequence, "the policies' table has one that no event tells of");
	return CEDE_OK;
}
