/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/ledger/ledger_internal.h"

static int first_id(struct ledger *l, sqlite3_stmt *st, struct id *ret, bool *ret_there,
	struct cede_error *reterr) {
	CEDE_TRY(ledger_row(l, st, ret_there, reterr));
	if (*ret_there && sqlite3_column_bytes(st, 0) == ID_SIZE)
		memcpy(ret->bytes, sqlite3_column_blob(st, 0), ID_SIZE);
	return CEDE_OK;
}

int ledger_which(struct ledger *l, struct slice source, struct slice path, uint64_t dev,
	uint64_t ino, struct id *ret, bool *ret_there, struct cede_error *reterr) {
	sqlite3_stmt *st;
	int64_t id = 0;

	*ret_there = false;
	if (source.len > 0)
		CEDE_TRY(ledger_source(l, source, false, &id, reterr));
	if (id != 0) {
		CEDE_TRY(ledger_use(l, ST_WHICH_NAMED, &st, reterr));
		LEDGER_TRY_BIND(l, sqlite3_bind_int64(st, 1, id), reterr);
		LEDGER_TRY_BIND(l,
			sqlite3_bind_blob(st, 2, path.data, (int)path.len, SQLITE_STATIC), reterr);
		CEDE_TRY(first_id(l, st, ret, ret_there, reterr));
	}
	if (*ret_there || ino == 0)
		return CEDE_OK;
	CEDE_TRY(ledger_use(l, ST_WHICH_INODE, &st, reterr));
	LEDGER_TRY_BIND(l, sqlite3_bind_int64(st, 1, (int64_t)ino), reterr);
	LEDGER_TRY_BIND(l, sqlite3_bind_int64(st, 2, (int64_t)dev), reterr);
	return first_id(l, st, ret, ret_there, reterr);
}
