/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/ledger/exposure.h"

#include <assert.h>

#include "agent/ledger/epoch.h"
#include "agent/ledger/ledger_internal.h"

/* LEDGER_WATCH_KINDS of schema.h is part of an index: these numbers never change. */
static_assert(LEDGER_AGENT_STARTED == 0 && LEDGER_AGENT_STOPPED == 1 && LEDGER_POLICY_LOADED == 16 &&
		LEDGER_WATCH_GAP == 17 && LEDGER_SOURCE_MISSING == 22 && LEDGER_SOURCE_BACK == 23 &&
		LEDGER_CLOCK_STEPPED == 25 && LEDGER_GUARD_STARTED == 32 &&
		LEDGER_GUARD_LOST == 33 && LEDGER_GUARD_DENIED == 34 && LEDGER_GUARD_NOTED == 35,
	"LEDGER_WATCH_KINDS");
static_assert(LEDGER_CAPTURE_REFUSED == 6 && LEDGER_PURGE_DONE == 38, "LEDGER_REFUSAL_KINDS");

static struct slice text_at(sqlite3_stmt *st, int column) {
	const void *data = sqlite3_column_blob(st, column);

	return data == NULL ? SLICE_NONE : slice_of(data, (size_t)sqlite3_column_bytes(st, column));
}

static bool id_at(sqlite3_stmt *st, int column, struct id *ret) {
	struct slice s = text_at(st, column);

	if (s.len != ID_SIZE)
		return false;
	memcpy(ret->bytes, s.data, ID_SIZE);
	return true;
}

static int64_t time_at(sqlite3_stmt *st, int column) {
	return sqlite3_column_type(st, column) == SQLITE_NULL ? INT64_MAX
							      : sqlite3_column_int64(st, column);
}

static const char *plain_end(enum capture_state state) {
	return state == CAPTURE_WIPED       ? "wiped"
		: state == CAPTURE_GONE     ? "gone"
		: state == CAPTURE_REPLACED ? "replaced"
					    : "";
}

static void read_item(sqlite3_stmt *st, enum exposure_form form, struct exposure_item *ret) {
	struct slice digest = text_at(st, 5);

	*ret = (struct exposure_item){.form = form,
		.source = epoch_source_name(text_at(st, 1)),
		.path = text_at(st, 2),
		.classification = text_at(st, 3),
		.size = (uint64_t)sqlite3_column_int64(st, 4),
		.has_sha256 = digest.len == 32,
		.from_ns = sqlite3_column_int64(st, 6),
		.to_ns = time_at(st, 7),
		.level = text_at(st, 9)};
	(void)id_at(st, 0, &ret->id);
	if (ret->has_sha256)
		memcpy(ret->sha256, digest.data, 32);
	ret->has_bundle = id_at(st, 10, &ret->bundle);
	int state = sqlite3_column_int(st, 8);
	ret->end = form == EXPOSURE_PLAIN && ret->to_ns == INT64_MAX ? ""
		: form == EXPOSURE_PLAIN    ? plain_end((enum capture_state)state)
		: ret->to_ns == INT64_MAX   ? ""
		: state == BUNDLE_ABANDONED ? "abandoned"
					    : "receipted";
}

static int each(struct ledger *l, enum statement which, enum exposure_form form, int64_t from_ns,
	int64_t to_ns, struct slice source, exposure_fn *fn, void *ctx, struct cede_error *reterr) {
	sqlite3_stmt *st;
	bool there;

	CEDE_TRY(ledger_use(l, which, &st, reterr));
	LEDGER_TRY_BIND(l, sqlite3_bind_int64(st, 1, from_ns), reterr);
	LEDGER_TRY_BIND(l, sqlite3_bind_int64(st, 2, to_ns), reterr);
	LEDGER_TRY_BIND(l,
		source.len == 0 ? sqlite3_bind_null(st, 3)
				: sqlite3_bind_text(st, 3, (const char *)source.data,
					  (int)source.len, SQLITE_STATIC),
		reterr);
	for (;;) {
		struct exposure_item item;
		CEDE_TRY(ledger_row(l, st, &there, reterr));
		if (!there)
			break;
		read_item(st, form, &item);
		int r = fn(ctx, &item, reterr);
		if (r < 0) {
			(void)sqlite3_reset(st);
			return r;
		}
	}
	(void)sqlite3_reset(st);
	return CEDE_OK;
}

int ledger_exposure(struct ledger *l, int64_t from_ns, int64_t to_ns, struct slice source,
	exposure_fn *fn, void *ctx, struct cede_error *reterr) {
	CEDE_TRY(each(l, ST_EXPOSED_PLAIN, EXPOSURE_PLAIN, from_ns, to_ns, source, fn, ctx, reterr));
	return each(l, ST_EXPOSED_SEALED, EXPOSURE_SEALED, from_ns, to_ns, source, fn, ctx, reterr);
}

int ledger_sources(struct ledger *l, exposure_source_fn *fn, void *ctx, struct cede_error *reterr) {
	sqlite3_stmt *st;
	bool there;

	CEDE_TRY(ledger_use(l, ST_SOURCES, &st, reterr));
	for (;;) {
		CEDE_TRY(ledger_row(l, st, &there, reterr));
		if (!there)
			break;
		int r = fn(ctx, text_at(st, 0), reterr);
		if (r < 0) {
			(void)sqlite3_reset(st);
			return r;
		}
	}
	(void)sqlite3_reset(st);
	return CEDE_OK;
}

static int each_event(struct ledger *l, sqlite3_stmt *st, ledger_row_fn *fn, void *ctx,
	struct cede_error *reterr) {
	bool there;

	for (;;) {
		CEDE_TRY(ledger_row(l, st, &there, reterr));
		if (!there)
			break;
		const struct ledger_row row = {.sequence = (uint64_t)sqlite3_column_int64(st, 0),
			.at_ns = sqlite3_column_int64(st, 1),
			.kind = sqlite3_column_int(st, 2),
			.subject = text_at(st, 3),
			.detail = text_at(st, 4)};
		int r = fn(ctx, &row, reterr);
		if (r < 0) {
			(void)sqlite3_reset(st);
			return r;
		}
	}
	(void)sqlite3_reset(st);
	return CEDE_OK;
}

int ledger_watch_events(struct ledger *l, ledger_row_fn *fn, void *ctx, struct cede_error *reterr) {
	sqlite3_stmt *st;

	CEDE_TRY(ledger_use(l, ST_WATCH_EVENTS, &st, reterr));
	return each_event(l, st, fn, ctx, reterr);
}

int ledger_refusals(struct ledger *l, ledger_row_fn *fn, void *ctx, struct cede_error *reterr) {
	sqlite3_stmt *st;

	CEDE_TRY(ledger_use(l, ST_REFUSALS, &st, reterr));
	return each_event(l, st, fn, ctx, reterr);
}

int ledger_prunings(struct ledger *l, ledger_row_fn *fn, void *ctx, struct cede_error *reterr) {
	sqlite3_stmt *st;
	bool there;

	CEDE_TRY(ledger_use(l, ST_NEVER_PRUNED, &st, reterr));
	CEDE_TRY(ledger_row(l, st, &there, reterr));
	bool never = there && sqlite3_column_int(st, 0) != 0;
	(void)sqlite3_reset(st);
	if (never)
		return CEDE_OK;
	CEDE_TRY(ledger_use(l, ST_PRUNINGS, &st, reterr));
	LEDGER_TRY_BIND(l, sqlite3_bind_int(st, 1, LEDGER_LEDGER_PRUNED), reterr);
	return each_event(l, st, fn, ctx, reterr);
}

int ledger_lost_sealed(struct ledger *l, int64_t from_ns, int64_t to_ns, exposure_lost_fn *fn,
	void *ctx, struct cede_error *reterr) {
	sqlite3_stmt *st;
	bool there;

	CEDE_TRY(ledger_use(l, ST_LOST_SEALED, &st, reterr));
	LEDGER_TRY_BIND(l, sqlite3_bind_int64(st, 1, from_ns), reterr);
	LEDGER_TRY_BIND(l, sqlite3_bind_int64(st, 2, to_ns), reterr);
	LEDGER_TRY_BIND(l, sqlite3_bind_int(st, 3, BUNDLE_ABANDONED), reterr);
	for (;;) {
		struct exposure_lost lost = {.captures = 0};
		CEDE_TRY(ledger_row(l, st, &there, reterr));
		if (!there)
			break;
		(void)id_at(st, 0, &lost.bundle);
		lost.captures = (uint64_t)sqlite3_column_int64(st, 1);
		lost.sealed_ns = sqlite3_column_int64(st, 2);
		lost.ended_ns = time_at(st, 3);
		int r = fn(ctx, &lost, reterr);
		if (r < 0) {
			(void)sqlite3_reset(st);
			return r;
		}
	}
	(void)sqlite3_reset(st);
	return CEDE_OK;
}

int ledger_last_ns(struct ledger *l, int64_t *ret, struct cede_error *reterr) {
	sqlite3_stmt *st;
	bool there;

	CEDE_TRY(ledger_use(l, ST_LAST_TIME, &st, reterr));
	CEDE_TRY(ledger_row(l, st, &there, reterr));
	*ret = there ? sqlite3_column_int64(st, 0) : 0;
	(void)sqlite3_reset(st);
	return CEDE_OK;
}
