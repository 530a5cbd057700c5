/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/ledger/prune.h"

#include <inttypes.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <string.h>

#include "agent/ledger/ledger_internal.h"
#include "base/check.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/hex.h"

/* Whole bundles go, with all that is in them: done (3 of 4: core/capture.h), every capture wiped
 * (4), all of it before the time. The newest rows stay, so that no number is given twice. A capture
 * in segments goes with all its bundles or not at all. */
static const char candidates[] =
	"PRAGMA secure_delete = ON;"
	"CREATE TEMP TABLE goes(bundle INTEGER PRIMARY KEY);"
	"INSERT INTO goes SELECT id FROM bundle WHERE state = 2 AND done_ns < %" PRId64
	" AND receipt IS NOT NULL AND id < (SELECT max(id) FROM bundle);"
	"DELETE FROM goes WHERE bundle IN (SELECT c.bundle FROM capture c WHERE c.bundle IS NOT NULL"
	"  AND (c.state <> 4 OR c.wiped_ns >= %" PRId64 " OR c.id = (SELECT max(id) FROM capture)));"
	"DELETE FROM goes WHERE bundle IN (SELECT g.bundle FROM segment g JOIN capture c ON c.id = g.capture"
	"  WHERE c.state <> 4 OR c.wiped_ns >= %" PRId64 ");";

static const char whole_captures[] =
	"DELETE FROM goes WHERE bundle IN (SELECT g.bundle FROM segment g WHERE EXISTS"
	"  (SELECT 1 FROM segment h WHERE h.capture = g.capture"
	"    AND h.bundle NOT IN (SELECT bundle FROM goes)));";

static const char subjects[] =
	"CREATE TEMP TABLE subject(uuid BLOB PRIMARY KEY, bundle INTEGER, capture INTEGER) WITHOUT ROWID;"
	"INSERT INTO subject SELECT uuid, id, NULL FROM bundle WHERE id IN (SELECT bundle FROM goes);"
	"INSERT OR IGNORE INTO subject SELECT uuid, bundle, id FROM capture"
	"  WHERE bundle IN (SELECT bundle FROM goes);";

static const char drop_rows[] = "DELETE FROM segment WHERE bundle IN (SELECT bundle FROM goes);"
				"DELETE FROM capture WHERE bundle IN (SELECT bundle FROM goes);"
				"DELETE FROM bundle WHERE id IN (SELECT bundle FROM goes);";

static const char drop_tables[] =
	"DROP TABLE IF EXISTS temp.subject; DROP TABLE IF EXISTS temp.goes;";

static int command(struct ledger *l, const char *sql, struct cede_error *reterr) {
	return sqlite3_exec(l->db, sql, NULL, NULL, NULL) == SQLITE_OK
		? CEDE_OK
		: ledger_fail(l, "prune", reterr);
}

static int prepare(struct ledger *l, const char *sql, sqlite3_stmt **ret, struct cede_error *reterr) {
	return sqlite3_prepare_v2(l->db, sql, -1, ret, NULL) == SQLITE_OK
		? CEDE_OK
		: ledger_fail(l, "prune", reterr);
}

static int find_candidates(struct ledger *l, int64_t before_ns, struct cede_error *reterr) {
	char sql[sizeof candidates + 64];

	(void)snprintf(sql, sizeof sql, candidates, before_ns, before_ns, before_ns);
	CEDE_TRY(command(l, sql, reterr));
	return command(l, whole_captures, reterr);
}

/* What every destination of theirs has acknowledged. */
static int find_covered(struct ledger *l, uint64_t *ret, struct cede_error *reterr) {
	CLEANUP(ledger_finalizep) sqlite3_stmt *st = NULL;
	bool there;

	CEDE_TRY(prepare(l,
		"SELECT coalesce(min(coalesce(a.size, 0)), 0) FROM (SELECT DISTINCT destination FROM bundle "
		"WHERE id IN (SELECT bundle FROM goes)) d LEFT JOIN ack a ON a.destination = d.destination",
		&st, reterr));
	CEDE_TRY(ledger_row(l, st, &there, reterr));
	*ret = there ? (uint64_t)sqlite3_column_int64(st, 0) : 0;
	return CEDE_OK;
}

/* Bundles of which anything was told after what is covered stay. */
static int keep_uncovered(struct ledger *l, uint64_t covered, struct cede_error *reterr) {
	char sql[256];

	(void)snprintf(sql, sizeof sql,
		"DELETE FROM goes WHERE bundle IN (SELECT s.bundle FROM event e JOIN subject s "
		"ON s.uuid = e.subject WHERE e.seq > %" PRIu64 ");",
		covered);
	return command(l, sql, reterr);
}

static int has_all(sqlite3_stmt *member, struct ledger *l, struct slice list, int64_t bundle,
	bool *ret, struct cede_error *reterr) {
	uint8_t sha256[32];
	uint64_t row;

	*ret = true;
	while (*ret && list.len > 0) {
		CEDE_TRY(detail_member_next(&list, &row, sha256, reterr));
		(void)sqlite3_reset(member);
		LEDGER_TRY_BIND(l, sqlite3_bind_int64(member, 1, (int64_t)row), reterr);
		LEDGER_TRY_BIND(l, sqlite3_bind_int64(member, 2, bundle), reterr);
		CEDE_TRY(ledger_row(l, member, ret, reterr));
	}
	(void)sqlite3_reset(member);
	return CEDE_OK;
}

/* A bundle that holds more than what was wiped with it (a capture that was replaced meanwhile)
 * stays: its event is all that tells what was sealed. */
static int keep_odd(struct ledger *l, struct cede_error *reterr) {
	CLEANUP(ledger_finalizep) sqlite3_stmt *sealed = NULL;
	CLEANUP(ledger_finalizep) sqlite3_stmt *member = NULL;
	CLEANUP(ledger_finalizep) sqlite3_stmt *keep = NULL;
	char sql[200];
	bool there;

	(void)snprintf(sql, sizeof sql,
		"SELECT e.detail, s.bundle FROM event e JOIN subject s ON s.uuid = e.subject "
		"WHERE e.kind = %d AND s.capture IS NULL",
		LEDGER_BUNDLE_SEALED);
	CEDE_TRY(prepare(l, sql, &sealed, reterr));
	CEDE_TRY(prepare(l, "SELECT 1 FROM capture WHERE id = ?1 AND bundle = ?2 AND state = 4",
		&member, reterr));
	CEDE_TRY(prepare(l, "DELETE FROM goes WHERE bundle = ?1", &keep, reterr));
	for (;;) {
		struct slice list = SLICE_NONE;
		bool all;
		CEDE_TRY(ledger_row(l, sealed, &there, reterr));
		if (!there)
			return CEDE_OK;
		(void)detail_find(slice_of(sqlite3_column_text(sealed, 0),
					  (size_t)sqlite3_column_bytes(sealed, 0)),
			"members", &list);
		int64_t bundle = sqlite3_column_int64(sealed, 1);
		CEDE_TRY(has_all(member, l, list, bundle, &all, reterr));
		if (all)
			continue;
		(void)sqlite3_reset(keep);
		LEDGER_TRY_BIND(l, sqlite3_bind_int64(keep, 1, bundle), reterr);
		CEDE_TRY(ledger_run(l, keep, reterr));
	}
}

/* Empties them in order; what is emptied is told by its number and a digest over the sequences. */
static int empty_events(
	struct ledger *l, struct ledger_prune *done, char digest[65], struct cede_error *reterr) {
	CLEANUP(ledger_finalizep) sqlite3_stmt *find = NULL;
	CLEANUP(ledger_finalizep) sqlite3_stmt *empty = NULL;
	uint8_t sha256[32], sequence[8];
	bool there;

	CEDE_TRY(prepare(l,
		"SELECT e.seq FROM event e JOIN subject s ON s.uuid = e.subject "
		"WHERE s.bundle IN (SELECT bundle FROM goes) ORDER BY e.seq",
		&find, reterr));
	CEDE_TRY(prepare(l,
		"UPDATE event SET kind = -1, subject = NULL, detail = '', at_ns = ?2 WHERE seq = ?1",
		&empty, reterr));
	EVP_MD_CTX *md = EVP_MD_CTX_new();
	int r = md != NULL && EVP_DigestInit_ex2(md, l->hasher.md, NULL) == 1
		? CEDE_OK
		: CEDE_FAIL_MEMORY(reterr);
	while (r == CEDE_OK) {
		r = ledger_row(l, find, &there, reterr);
		if (r < 0 || !there)
			break;
		int64_t seq = sqlite3_column_int64(find, 0);
		put_le64(sequence, (uint64_t)seq);
		(void)sqlite3_reset(empty);
		if (EVP_DigestUpdate(md, sequence, sizeof sequence) != 1 ||
			sqlite3_bind_int64(empty, 1, seq) != SQLITE_OK ||
			sqlite3_bind_int64(empty, 2, (int64_t)l->sequence + 1) != SQLITE_OK)
			r = ledger_fail(l, "prune", reterr);
		else
			r = ledger_run(l, empty, reterr);
		done->events++;
	}
	if (r == CEDE_OK && EVP_DigestFinal_ex(md, sha256, NULL) != 1)
		r = CEDE_FAIL(reterr, CEDE_ERR_CRYPTO, "SHA-256 failed");
	EVP_MD_CTX_free(md);
	if (r == CEDE_OK)
		hex_print(sha256, sizeof sha256, digest);
	return r;
}

static int count(struct ledger *l, const char *sql, uint64_t *ret, struct cede_error *reterr) {
	CLEANUP(ledger_finalizep) sqlite3_stmt *st = NULL;
	bool there;

	CEDE_TRY(prepare(l, sql, &st, reterr));
	CEDE_TRY(ledger_row(l, st, &there, reterr));
	*ret = there ? (uint64_t)sqlite3_column_int64(st, 0) : 0;
	return CEDE_OK;
}

static int say_pruned(struct ledger *l, int64_t before_ns, int64_t now_ns,
	const struct ledger_prune *done, const char *digest, struct cede_error *reterr) {
	struct buf *d = &l->detail;

	buf_clear(d);
	CEDE_TRY(detail_add_i64(d, "before", before_ns, reterr));
	CEDE_TRY(detail_add_i64(d, "captures", (int64_t)done->captures, reterr));
	CEDE_TRY(detail_add_i64(d, "bundles", (int64_t)done->bundles, reterr));
	CEDE_TRY(detail_add_i64(d, "events", (int64_t)done->events, reterr));
	CEDE_TRY(detail_add(d, "digest", slice_str(digest), reterr));
	CEDE_TRY(detail_add_i64(d, "covered", (int64_t)done->covered, reterr));
	CEDE_TRY(ledger_event_detail(l, LEDGER_LEDGER_PRUNED, NULL, now_ns, reterr));
	return ledger_checkpoint_keep(l, false, now_ns, reterr);
}

static int prune(struct ledger *l, int64_t before_ns, int64_t now_ns, struct ledger_prune *done,
	struct cede_error *reterr) {
	char digest[65];

	CEDE_TRY(find_candidates(l, before_ns, reterr));
	CEDE_TRY(find_covered(l, &done->covered, reterr));
	CEDE_TRY(command(l, subjects, reterr));
	CEDE_TRY(keep_uncovered(l, done->covered, reterr));
	CEDE_TRY(keep_odd(l, reterr));
	CEDE_TRY(command(l, whole_captures, reterr));
	CEDE_TRY(count(l, "SELECT count(*) FROM goes", &done->bundles, reterr));
	CEDE_TRY(count(l, "SELECT count(*) FROM capture WHERE bundle IN (SELECT bundle FROM goes)",
		&done->captures, reterr));
	if (done->bundles == 0)
		return CEDE_OK;
	CEDE_TRY(empty_events(l, done, digest, reterr));
	CEDE_TRY(command(l, drop_rows, reterr));
	return say_pruned(l, before_ns, now_ns, done, digest, reterr);
}

int ledger_prune(struct ledger *l, int64_t before_ns, int64_t now_ns, struct ledger_prune *ret,
	struct cede_error *reterr) {
	*ret = (struct ledger_prune){.captures = 0};
	CEDE_TRY(ledger_begin(l, reterr));
	int r = prune(l, before_ns, now_ns, ret, reterr);
	if (r == CEDE_OK)
		r = command(l, drop_tables, reterr);
	if (r == CEDE_OK)
		r = ledger_commit(l, reterr);
	if (r < 0) {
		ledger_rollback(l);
		return r;
	}
	if (ret->bundles == 0)
		return CEDE_OK;
	/* what was deleted is gone from the file and from its log only after this */
	return command(l, "VACUUM; PRAGMA wal_checkpoint(TRUNCATE);", reterr);
}
