/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>

#include "agent/ledger/ledger_internal.h"

static struct slice text(sqlite3_stmt *st, int column) {
	return slice_of(sqlite3_column_text(st, column), (size_t)sqlite3_column_bytes(st, column));
}

int ledger_overview_captures(
	struct ledger *l, ledger_overview_fn *fn, void *ctx, struct cede_error *reterr) {
	sqlite3_stmt *st;
	bool there;
	int r = CEDE_OK;

	CEDE_TRY(ledger_use(l, ST_OVERVIEW_CAPTURES, &st, reterr));
	while (r == CEDE_OK) {
		CEDE_TRY(ledger_row(l, st, &there, reterr));
		if (!there)
			break;
		const struct ledger_overview o = {.name = text(st, 0),
			.state = sqlite3_column_int(st, 1),
			.count = (uint64_t)sqlite3_column_int64(st, 2),
			.bytes = (uint64_t)sqlite3_column_int64(st, 3),
			.born_ns = sqlite3_column_int64(st, 4),
			.deadline_ns = sqlite3_column_int64(st, 5)};
		r = fn(ctx, &o, reterr);
	}
	(void)sqlite3_reset(st);
	return r;
}

int ledger_overview_bundles(
	struct ledger *l, ledger_overview_fn *fn, void *ctx, struct cede_error *reterr) {
	sqlite3_stmt *st;
	bool there;
	int r = CEDE_OK;

	CEDE_TRY(ledger_use(l, ST_OVERVIEW_BUNDLES, &st, reterr));
	while (r == CEDE_OK) {
		CEDE_TRY(ledger_row(l, st, &there, reterr));
		if (!there)
			break;
		const struct ledger_overview o = {.name = text(st, 0),
			.state = sqlite3_column_int(st, 1),
			.count = (uint64_t)sqlite3_column_int64(st, 2),
			.bytes = (uint64_t)sqlite3_column_int64(st, 3),
			.receipt_ns = sqlite3_column_int64(st, 4)};
		r = fn(ctx, &o, reterr);
	}
	(void)sqlite3_reset(st);
	return r;
}

int ledger_overview_policy(struct ledger *l, char *id, size_t size, struct ledger_policy *ret,
	bool *ret_there, struct cede_error *reterr) {
	sqlite3_stmt *st;

	CEDE_TRY(ledger_policy_last(l, ret, ret_there, reterr));
	CEDE_TRY(ledger_use(l, ST_OVERVIEW_POLICY, &st, reterr));
	CEDE_TRY(ledger_row(l, st, ret_there, reterr));
	if (*ret_there)
		(void)snprintf(id, size, "%s", (const char *)sqlite3_column_text(st, 0));
	(void)sqlite3_reset(st);
	return CEDE_OK;
}
