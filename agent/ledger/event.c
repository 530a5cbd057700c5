/* SPDX-License-Identifier: Apache-2.0 */
#include <openssl/evp.h>
#include <string.h>

#include "agent/ledger/ledger_internal.h"
#include "base/check.h"

#define DETAIL_MAX 65536

static const char *const event_names[LEDGER_EVENT_COUNT] = {
#define X(id, name) [LEDGER_##id] = name,
	LEDGER_EVENTS(X)
#undef X
};

const char *ledger_event_name(int kind) {
	return kind >= 0 && kind < LEDGER_EVENT_COUNT ? event_names[kind] : "?";
}

/* "cede-event/1" || previous (32) || sequence || at || then kind's name, subject and detail, each
 * behind its length; numbers are 8 bytes, little-endian */
int ledger_event_hash(struct ledger *l, const uint8_t previous[32], uint64_t sequence,
	int64_t at_ns, int kind, struct slice subject, struct slice detail, uint8_t ret[32],
	struct cede_error *reterr) {
	static const char domain[] = "cede-event/1";
	const char *name = ledger_event_name(kind);
	const struct slice parts[] = {slice_str(name), subject, detail};
	uint8_t head[16];

	put_le64(head, sequence);
	put_le64(head + 8, (uint64_t)at_ns);
	EVP_MD_CTX *md = l->md;
	bool ok = EVP_DigestInit_ex2(md, l->sha256, NULL) == 1 &&
		EVP_DigestUpdate(md, domain, sizeof domain - 1) == 1 &&
		EVP_DigestUpdate(md, previous, 32) == 1 &&
		EVP_DigestUpdate(md, head, sizeof head) == 1;
	for (size_t i = 0; ok && i < ARRAY_LENGTH(parts); i++) {
		uint8_t len[8];
		put_le64(len, parts[i].len);
		ok = EVP_DigestUpdate(md, len, sizeof len) == 1 &&
			(parts[i].len == 0 || EVP_DigestUpdate(md, parts[i].data, parts[i].len) == 1);
	}
	if (!ok || EVP_DigestFinal_ex(md, ret, NULL) != 1)
		return CEDE_FAIL(reterr, CEDE_ERR_CRYPTO, "ledger: SHA-256 failed");
	return CEDE_OK;
}

int ledger_event(struct ledger *l, enum ledger_event kind, const struct id *subject, int64_t now_ns,
	const char *detail, struct cede_error *reterr) {
	struct slice who = subject == NULL ? SLICE_NONE : slice_of(subject->bytes, ID_SIZE);
	struct slice what = slice_str(detail == NULL ? "" : detail);
	uint8_t hash[32];
	sqlite3_stmt *st;

	if (what.len > DETAIL_MAX)
		return CEDE_FAIL(reterr, CEDE_ERR_BUG, "ledger: event too long");
	CEDE_TRY(ledger_event_hash(
		l, l->hash, l->sequence + 1, now_ns, (int)kind, who, what, hash, reterr));
	CEDE_TRY(ledger_use(l, ST_EVENT_ADD, &st, reterr));
	LEDGER_TRY_BIND(l, sqlite3_bind_int64(st, 1, (int64_t)l->sequence + 1), reterr);
	LEDGER_TRY_BIND(l, sqlite3_bind_int64(st, 2, now_ns), reterr);
	LEDGER_TRY_BIND(l, sqlite3_bind_int(st, 3, (int)kind), reterr);
	if (subject != NULL)
		LEDGER_TRY_BIND(l, sqlite3_bind_blob(st, 4, subject->bytes, ID_SIZE, SQLITE_STATIC),
			reterr);
	LEDGER_TRY_BIND(l,
		sqlite3_bind_text(st, 5, (const char *)what.data, (int)what.len, SQLITE_STATIC),
		reterr);
	LEDGER_TRY_BIND(l, sqlite3_bind_blob(st, 6, hash, 32, SQLITE_STATIC), reterr);
	CEDE_TRY(ledger_run(l, st, reterr));
	l->sequence++;
	memcpy(l->hash, hash, 32);
	return CEDE_OK;
}

void ledger_head(const struct ledger *l, uint64_t *ret_sequence, uint8_t ret_hash[32]) {
	*ret_sequence = l->sequence;
	memcpy(ret_hash, l->hash, 32);
}

/* Whether this row is what stands behind the one before it. */
static int verify_row(struct ledger *l, sqlite3_stmt *st, uint64_t expected,
	const uint8_t before[32], bool *ret_good, struct cede_error *reterr) {
	uint8_t hash[32];
	struct slice subject =
		slice_of(sqlite3_column_blob(st, 3), (size_t)sqlite3_column_bytes(st, 3));
	struct slice detail =
		slice_of(sqlite3_column_text(st, 4), (size_t)sqlite3_column_bytes(st, 4));

	CEDE_TRY(ledger_event_hash(l, before, expected, sqlite3_column_int64(st, 1),
		sqlite3_column_int(st, 2), subject, detail, hash, reterr));
	*ret_good = (uint64_t)sqlite3_column_int64(st, 0) == expected &&
		sqlite3_column_bytes(st, 5) == 32 &&
		memcmp(sqlite3_column_blob(st, 5), hash, 32) == 0;
	return CEDE_OK;
}

int ledger_verify(struct ledger *l, uint64_t *ret_events, uint64_t *ret_bad_sequence,
	struct cede_error *reterr) {
	uint8_t before[32] = {0};
	uint64_t n = 0;
	sqlite3_stmt *st;
	bool there, good;

	CEDE_TRY(ledger_use(l, ST_EVENTS, &st, reterr));
	for (;;) {
		CEDE_TRY(ledger_row(l, st, &there, reterr));
		if (!there)
			break;
		CEDE_TRY(verify_row(l, st, n + 1, before, &good, reterr));
		if (!good) {
			*ret_events = n;
			*ret_bad_sequence = n + 1;
			(void)sqlite3_reset(st);
			return CEDE_FAIL(reterr, CEDE_ERR_INPUT,
				"event %llu is not what was recorded: removed, inserted or changed",
				(unsigned long long)n + 1);
		}
		n++;
		memcpy(before, sqlite3_column_blob(st, 5), 32);
	}
	(void)sqlite3_reset(st);
	*ret_events = n;
	*ret_bad_sequence = 0;
	return CEDE_OK;
}

int ledger_events(struct ledger *l, ledger_row_fn *fn, void *ctx, struct cede_error *reterr) {
	sqlite3_stmt *st;
	bool there;
	int r = CEDE_OK;

	CEDE_TRY(ledger_use(l, ST_EVENTS, &st, reterr));
	while (r == CEDE_OK) {
		CEDE_TRY(ledger_row(l, st, &there, reterr));
		if (!there)
			break;
		const struct ledger_row row = {.sequence = (uint64_t)sqlite3_column_int64(st, 0),
			.at_ns = sqlite3_column_int64(st, 1),
			.kind = sqlite3_column_int(st, 2),
			.subject = slice_of(
				sqlite3_column_blob(st, 3), (size_t)sqlite3_column_bytes(st, 3)),
			.detail = slice_of(
				sqlite3_column_text(st, 4), (size_t)sqlite3_column_bytes(st, 4))};
		r = fn(ctx, &row, reterr);
	}
	(void)sqlite3_reset(st);
	return r < 0 ? r : CEDE_OK;
}
