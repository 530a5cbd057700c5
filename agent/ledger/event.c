/* SPDX-License-Identifier: Apache-2.0 */
#include <openssl/evp.h>
#include <string.h>

#include "agent/ledger/ledger_internal.h"
#include "base/check.h"

static const char *const event_names[LEDGER_EVENT_COUNT] = {
#define X(id, name) [LEDGER_##id] = name,
	LEDGER_EVENTS(X)
#undef X
};

const char *ledger_event_name(int kind) {
	return kind == LEDGER_PRUNED_KIND                ? "pruned"
		: kind >= 0 && kind < LEDGER_EVENT_COUNT ? event_names[kind]
							 : "?";
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
	EVP_MD_CTX *md = l->hasher.ctx;
	bool ok = EVP_DigestInit_ex2(md, l->hasher.md, NULL) == 1 &&
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

static int add(struct ledger *l, enum ledger_event kind, const struct id *subject, int64_t now_ns,
	struct slice what, struct cede_error *reterr) {
	struct slice who = subject == NULL ? SLICE_NONE : slice_of(subject->bytes, ID_SIZE);
	uint8_t hash[32];
	sqlite3_stmt *st;

	if (what.len > LEDGER_DETAIL_MAX)
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
	return ledger_tree_add(l, hash, reterr);
}

int ledger_event(struct ledger *l, enum ledger_event kind, const struct id *subject, int64_t now_ns,
	const char *detail, struct cede_error *reterr) {
	CEDE_TRY(ledger_flush_wiped(l, reterr));
	return add(l, kind, subject, now_ns, slice_str(detail == NULL ? "" : detail), reterr);
}

int ledger_event_detail(struct ledger *l, enum ledger_event kind, const struct id *subject,
	int64_t now_ns, struct cede_error *reterr) {
	struct buf detail = l->detail; /* the flush makes one of its own */

	if (l->wiped.any) {
		l->detail = BUF_INIT(LEDGER_DETAIL_MAX);
		int r = ledger_flush_wiped(l, reterr);
		buf_done(&l->detail);
		l->detail = detail;
		CEDE_TRY(r);
	}
	return add(l, kind, subject, now_ns, buf_slice(&l->detail), reterr);
}

int ledger_flush_wiped(struct ledger *l, struct cede_error *reterr) {
	struct wiped_group *g = &l->wiped;

	if (!g->any)
		return CEDE_OK;
	g->any = false;
	CEDE_TRY(detail_rows_end(&g->rows, &g->list, reterr));
	buf_clear(&l->detail);
	CEDE_TRY(detail_add(&l->detail, "level", slice_str(g->level), reterr));
	if (g->reason[0] != 0)
		CEDE_TRY(detail_add(&l->detail, "reason", slice_str(g->reason), reterr));
	CEDE_TRY(detail_add(&l->detail, "rows", buf_slice(&g->list), reterr));
	return add(l, LEDGER_CAPTURES_WIPED, &g->bundle, g->at_ns, buf_slice(&l->detail), reterr);
}

/* *ret_kind: -1 if there is no such event. */
static int event_time(struct ledger *l, uint64_t sequence, int64_t *ret_ns, int *ret_kind,
	struct cede_error *reterr) {
	sqlite3_stmt *st;
	bool there;

	CEDE_TRY(ledger_use(l, ST_EVENT_TIME, &st, reterr));
	LEDGER_TRY_BIND(l, sqlite3_bind_int64(st, 1, (int64_t)sequence), reterr);
	CEDE_TRY(ledger_row(l, st, &there, reterr));
	*ret_ns = there ? sqlite3_column_int64(st, 0) : 0;
	*ret_kind = there ? sqlite3_column_int(st, 1) : -1;
	(void)sqlite3_reset(st);
	return CEDE_OK;
}

/* Kinds that are written while no agent watches, too: by commands, and before the start is told. */
static bool is_of_no_agent(int kind) {
	return kind == LEDGER_PRUNED_KIND || kind == LEDGER_LEDGER_PRUNED ||
		kind == LEDGER_LEDGER_MIGRATED || kind == LEDGER_KEY_CHANGED ||
		kind == LEDGER_PURGE_BEGUN || kind == LEDGER_PURGE_DONE;
}

/* The newest start or stop; *ret_kind -1: there is none. */
static int last_life(struct ledger *l, int64_t *ret_ns, int *ret_kind, struct cede_error *reterr) {
	sqlite3_stmt *st;
	bool there;

	CEDE_TRY(ledger_use(l, ST_EVENT_LIFE, &st, reterr));
	CEDE_TRY(ledger_row(l, st, &there, reterr));
	*ret_ns = there ? sqlite3_column_int64(st, 0) : 0;
	*ret_kind = there ? sqlite3_column_int(st, 1) : -1;
	(void)sqlite3_reset(st);
	return CEDE_OK;
}

/* Since when nobody has watched. *ret_kind -1: nobody ever did. */
static int last_watched(struct ledger *l, int64_t *ret_ns, int *ret_kind, struct cede_error *reterr) {
	CEDE_TRY(last_life(l, ret_ns, ret_kind, reterr));
	if (*ret_kind < 0 || *ret_kind == LEDGER_AGENT_STOPPED)
		return CEDE_OK;
	for (uint64_t at = l->sequence; at > 0; at--) { /* it ended without a word */
		CEDE_TRY(event_time(l, at, ret_ns, ret_kind, reterr));
		if (*ret_kind >= 0 && !is_of_no_agent(*ret_kind))
			break;
	}
	return CEDE_OK;
}

int ledger_gap(struct ledger *l, int64_t now_ns, struct cede_error *reterr) {
	int64_t from;
	int kind;

	CEDE_TRY(last_watched(l, &from, &kind, reterr));
	if (kind < 0)
		return CEDE_OK;
	buf_clear(&l->detail);
	CEDE_TRY(detail_add(&l->detail, "cause", slice_str("agent-down"), reterr));
	CEDE_TRY(detail_add_i64(&l->detail, "from", from, reterr));
	CEDE_TRY(detail_add_i64(&l->detail, "until", now_ns, reterr));
	CEDE_TRY(detail_add(&l->detail, "stop",
		slice_str(kind == LEDGER_AGENT_STOPPED ? "clean" : "unclean"), reterr));
	return ledger_event_detail(l, LEDGER_WATCH_GAP, NULL, now_ns, reterr);
}

int ledger_events_since(
	struct ledger *l, int64_t at_ns, uint64_t *ret_sequence, struct cede_error *reterr) {
	uint64_t low = 1; /* all before it are older */
	uint64_t high = l->sequence + 1;

	while (low < high) {
		uint64_t middle = low + (high - low) / 2;
		int64_t at;
		int kind;
		CEDE_TRY(event_time(l, middle, &at, &kind, reterr));
		if (kind >= 0 && at < at_ns)
			low = middle + 1;
		else
			high = middle;
	}
	*ret_sequence = low;
	return CEDE_OK;
}

void ledger_head(const struct ledger *l, uint64_t *ret_sequence, uint8_t ret_hash[32]) {
	*ret_sequence = l->sequence;
	memcpy(ret_hash, l->hash, 32);
}

int ledger_events(
	struct ledger *l, uint64_t from, ledger_row_fn *fn, void *ctx, struct cede_error *reterr) {
	sqlite3_stmt *st;
	bool there;
	int r = CEDE_OK;

	if (from > INT64_MAX)
		return CEDE_OK;
	CEDE_TRY(ledger_use(l, ST_EVENTS, &st, reterr));
	LEDGER_TRY_BIND(l, sqlite3_bind_int64(st, 1, (int64_t)from), reterr);
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
				sqlite3_column_text(st, 4), (size_t)sqlite3_column_bytes(st, 4)),
			.hash = sqlite3_column_blob(st, 5)};
		if (sqlite3_column_bytes(st, 5) != 32)
			r = CEDE_FAIL(reterr, CEDE_ERR_INPUT, "event %llu: its hash is damaged",
				(unsigned long long)row.sequence);
		else
			r = fn(ctx, &row, reterr);
	}
	(void)sqlite3_reset(st);
	return r < 0 ? r : CEDE_OK;
}
