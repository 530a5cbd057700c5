/* SPDX-License-Identifier: Apache-2.0 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "agent/ledger/ledger_internal.h"
#include "base/hex.h"

static int read_policy(struct ledger *l, enum statement which, struct ledger_policy *ret,
	bool *ret_there, struct cede_error *reterr) {
	sqlite3_stmt *st;

	*ret = (struct ledger_policy){.serial = 0};
	CEDE_TRY(ledger_use(l, which, &st, reterr));
	CEDE_TRY(ledger_row(l, st, ret_there, reterr));
	if (*ret_there) {
		ret->serial = (uint64_t)sqlite3_column_int64(st, 0);
		if (sqlite3_column_bytes(st, 1) == 32)
			memcpy(ret->sha256, sqlite3_column_blob(st, 1), 32);
		ret->is_signed = sqlite3_column_int(st, 2) != 0;
	}
	(void)sqlite3_reset(st);
	return CEDE_OK;
}

int ledger_policy_highest(
	struct ledger *l, struct ledger_policy *ret, bool *ret_there, struct cede_error *reterr) {
	return read_policy(l, ST_POLICY_HIGHEST, ret, ret_there, reterr);
}

int ledger_policy_last(
	struct ledger *l, struct ledger_policy *ret, bool *ret_there, struct cede_error *reterr) {
	return read_policy(l, ST_POLICY_LAST, ret, ret_there, reterr);
}

static int undecide(struct ledger *l, struct cede_error *reterr) {
	sqlite3_stmt *st;

	CEDE_TRY(ledger_use(l, ST_UNDECIDE, &st, reterr));
	return ledger_run(l, st, reterr);
}

int ledger_policy_loaded(struct ledger *l, const struct ledger_policy *p, int64_t now_ns,
	struct cede_error *reterr) {
	char sha256[65], signer[65] = "none", detail[400];
	sqlite3_stmt *st;

	hex_print(p->sha256, 32, sha256);
	if (p->is_signed)
		hex_print(p->signer, 32, signer);
	(void)snprintf(detail, sizeof detail,
		"policy=%.*s serial=%" PRIu64 " sha256=%s signed=%s signer=%s", (int)p->id.len,
		(const char *)p->id.data, p->serial, sha256, p->is_signed ? "yes" : "no", signer);
	CEDE_TRY(ledger_use(l, ST_POLICY_ADD, &st, reterr));
	LEDGER_TRY_BIND(l, sqlite3_bind_int64(st, 1, now_ns), reterr);
	LEDGER_TRY_BIND(l,
		sqlite3_bind_text(st, 2, (const char *)p->id.data, (int)p->id.len, SQLITE_STATIC),
		reterr);
	LEDGER_TRY_BIND(l, sqlite3_bind_int64(st, 3, (int64_t)p->serial), reterr);
	LEDGER_TRY_BIND(l, sqlite3_bind_blob(st, 4, p->sha256, 32, SQLITE_STATIC), reterr);
	LEDGER_TRY_BIND(l, sqlite3_bind_int(st, 5, p->is_signed), reterr);
	CEDE_TRY(ledger_run(l, st, reterr));
	CEDE_TRY(ledger_event(l, LEDGER_POLICY_LOADED, NULL, now_ns, detail, reterr));
	return undecide(l, reterr);
}
