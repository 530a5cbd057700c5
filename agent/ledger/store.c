/* SPDX-License-Identifier: Apache-2.0 */
#include <fcntl.h>
#include <openssl/evp.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#include "agent/ledger/ledger_internal.h"
#include "agent/ledger/schema.h"
#include "agent/ledger/statements.h"
#include "agent/ledger/tally.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/escape.h"
#include "formats/checkpoint.h"

#define LOCK_NAME "lock"
#define MEND                                                                                   \
	"nothing is wiped; stop the agent, keep the state directory as it is for the agency, " \
	"and begin with an empty one; never put an older copy back"

int ledger_unreadable(int code) {
	return code == CEDE_ERR_INPUT ? CEDE_ERR_IO : code;
}

int ledger_fail(struct ledger *l, const char *what, struct cede_error *reterr) {
	int code = sqlite3_errcode(l->db) & 0xff;
	char why[200];

	escape_line(slice_str(sqlite3_errmsg(l->db)), why,
		sizeof why); /* names of a file that may be anything */
	switch (code) {
	case SQLITE_CORRUPT:
	case SQLITE_NOTADB:
		return CEDE_FAIL(
			reterr, CEDE_ERR_INPUT, "ledger: %s: damaged: %s; %s", what, why, MEND);
	case SQLITE_BUSY:
	case SQLITE_LOCKED:
		return CEDE_FAIL(reterr, CEDE_ERR_BUSY, "ledger: %s: %s", what, why);
	case SQLITE_CONSTRAINT:
	case SQLITE_MISUSE:
	case SQLITE_RANGE:
		return CEDE_FAIL(reterr, CEDE_ERR_BUG, "ledger: %s: %s", what, why);
	default:
		return CEDE_FAIL(reterr, CEDE_ERR_IO, "ledger: %s: %s", what, why);
	}
}

int ledger_use(struct ledger *l, enum statement which, sqlite3_stmt **ret, struct cede_error *reterr) {
	sqlite3_stmt *st = l->statements[which];

	if (st == NULL) {
		if (sqlite3_prepare_v3(l->db, ledger_sql[which], -1, SQLITE_PREPARE_PERSISTENT, &st,
			    NULL) != SQLITE_OK)
			return ledger_fail(l, "prepare a statement", reterr);
		l->statements[which] = st;
	}
	(void)sqlite3_reset(st);
	(void)sqlite3_clear_bindings(st);
	*ret = st;
	return CEDE_OK;
}

void ledger_finalizep(sqlite3_stmt **st) {
	(void)sqlite3_finalize(*st);
	*st = NULL;
}

int ledger_row(struct ledger *l, sqlite3_stmt *st, bool *ret_there, struct cede_error *reterr) {
	int r = sqlite3_step(st);

	if (r != SQLITE_ROW && r != SQLITE_DONE)
		return ledger_fail(l, "read or write", reterr);
	*ret_there = r == SQLITE_ROW;
	return CEDE_OK;
}

int ledger_run(struct ledger *l, sqlite3_stmt *st, struct cede_error *reterr) {
	bool there;

	CEDE_TRY(ledger_row(l, st, &there, reterr));
	(void)sqlite3_reset(st);
	return CEDE_OK;
}

static int command(struct ledger *l, const char *sql, struct cede_error *reterr) {
	if (sqlite3_exec(l->db, sql, NULL, NULL, NULL) != SQLITE_OK)
		return ledger_fail(l, "set up", reterr);
	return CEDE_OK;
}

static int number(struct ledger *l, const char *sql, int64_t *ret, struct cede_error *reterr) {
	sqlite3_stmt *st = NULL;

	if (sqlite3_prepare_v2(l->db, sql, -1, &st, NULL) != SQLITE_OK ||
		sqlite3_step(st) != SQLITE_ROW) {
		int r = ledger_fail(l, "read", reterr);
		(void)sqlite3_finalize(st);
		return r;
	}
	*ret = sqlite3_column_int64(st, 0);
	(void)sqlite3_finalize(st);
	return CEDE_OK;
}

static int load_head(struct ledger *l, struct cede_error *reterr) {
	sqlite3_stmt *st;
	bool there;

	CEDE_TRY(ledger_use(l, ST_EVENT_LAST, &st, reterr));
	CEDE_TRY(ledger_row(l, st, &there, reterr));
	l->sequence = 0;
	memset(l->hash, 0, sizeof l->hash);
	if (there) {
		if (sqlite3_column_bytes(st, 1) != 32)
			return CEDE_FAIL(reterr, CEDE_ERR_INPUT, "ledger: damaged event; " MEND);
		l->sequence = (uint64_t)sqlite3_column_int64(st, 0);
		memcpy(l->hash, sqlite3_column_blob(st, 1), 32);
	}
	(void)sqlite3_reset(st);
	l->committed_sequence = l->sequence;
	memcpy(l->committed_hash, l->hash, 32);
	return CEDE_OK;
}

static int check_quickly(struct ledger *l, struct cede_error *reterr) {
	sqlite3_stmt *st = NULL;
	int r = CEDE_OK;

	if (sqlite3_prepare_v2(l->db, "PRAGMA quick_check(1)", -1, &st, NULL) != SQLITE_OK ||
		sqlite3_step(st) != SQLITE_ROW)
		r = ledger_fail(l, "check", reterr);
	else if (strcmp((const char *)sqlite3_column_text(st, 0), "ok") != 0)
		r = CEDE_FAIL(reterr, CEDE_ERR_INPUT, "ledger: damaged: %s; %s",
			(const char *)sqlite3_column_text(st, 0), MEND);
	(void)sqlite3_finalize(st);
	return r;
}

/* Which rows the events of before did not tell everything of. */
static int migrated(struct ledger *l, int64_t version, struct cede_error *reterr) {
	int64_t captures, bundles;

	CEDE_TRY(load_head(l, reterr));
	if (version < 2)
		CEDE_TRY(ledger_tree_build(l, reterr));
	CEDE_TRY(number(l, "SELECT coalesce(max(id), 0) FROM capture", &captures, reterr));
	CEDE_TRY(number(l, "SELECT coalesce(max(id), 0) FROM bundle", &bundles, reterr));
	buf_clear(&l->detail);
	CEDE_TRY(detail_add_i64(&l->detail, "from", version, reterr));
	CEDE_TRY(detail_add_i64(&l->detail, "to", LEDGER_SCHEMA_VERSION, reterr));
	CEDE_TRY(detail_add_i64(&l->detail, "captures", captures, reterr));
	CEDE_TRY(detail_add_i64(&l->detail, "bundles", bundles, reterr));
	return ledger_event_detail(l, LEDGER_LEDGER_MIGRATED, NULL, clock_wall_ns(), reterr);
}

int ledger_must_be_proven(struct ledger *l, int64_t row, struct cede_error *reterr) {
	sqlite3_stmt *st;
	bool proven;

	CEDE_TRY(ledger_use(l, ST_PROVEN, &st, reterr));
	LEDGER_TRY_BIND(l, sqlite3_bind_int64(st, 1, row), reterr);
	LEDGER_TRY_BIND(l, sqlite3_bind_int(st, 2, LEDGER_CAPTURE_DESTROYED), reterr);
	CEDE_TRY(ledger_row(l, st, &proven, reterr));
	(void)sqlite3_reset(st);
	return proven
		? CEDE_OK
		: CEDE_FAIL(reterr, CEDE_ERR_INPUT,
			  "ledger: damaged: a capture is to be wiped without a proof; %s", MEND);
}

static int migrate(struct ledger *l, struct cede_error *reterr) {
	int64_t version, application;
	char stamp[128];

	CEDE_TRY(number(l, "PRAGMA user_version", &version, reterr));
	CEDE_TRY(number(l, "PRAGMA application_id", &application, reterr));
	if (version == LEDGER_SCHEMA_VERSION && application == LEDGER_APPLICATION_ID)
		return CEDE_OK;
	if (version < 0 || version > LEDGER_SCHEMA_VERSION ||
		application != (version == 0 ? 0 : LEDGER_APPLICATION_ID))
		return CEDE_FAIL(reterr, CEDE_ERR_REFUSED,
			"ledger: schema %lld of application %llx is not of this version of cede",
			(long long)version, (unsigned long long)application);
	CEDE_TRY(command(l, "BEGIN IMMEDIATE", reterr));
	for (int64_t i = version; i < LEDGER_SCHEMA_VERSION; i++)
		CEDE_TRY(command(l, ledger_schema[i], reterr));
	(void)snprintf(stamp, sizeof stamp, "PRAGMA application_id = %d; PRAGMA user_version = %d",
		LEDGER_APPLICATION_ID, LEDGER_SCHEMA_VERSION);
	CEDE_TRY(command(l, stamp, reterr));
	if (version > 0)
		CEDE_TRY(migrated(l, version, reterr));
	return command(l, "COMMIT", reterr);
}

/* Once, before the library's first use: it counts no memory (a lock and a sum at each allocation). */
static void configure(void) {
	(void)sqlite3_config(SQLITE_CONFIG_MEMSTATUS, 0);
}

static int open_db(struct ledger *l, const char *path, int flags, struct cede_error *reterr) {
	static pthread_once_t once = PTHREAD_ONCE_INIT;

	(void)pthread_once(&once, configure);
	if (sqlite3_open_v2(path, &l->db, flags | SQLITE_OPEN_NOMUTEX | SQLITE_OPEN_EXRESCODE,
		    NULL) != SQLITE_OK) {
		if (l->db == NULL)
			return CEDE_FAIL_MEMORY(reterr);
		return ledger_fail(l, "open", reterr);
	}
	(void)sqlite3_busy_timeout(l->db, 5000);
	(void)sqlite3_db_config(l->db, SQLITE_DBCONFIG_DEFENSIVE, 1, NULL);
	(void)sqlite3_db_config(l->db, SQLITE_DBCONFIG_TRUSTED_SCHEMA, 0, NULL);
	return command(l,
		"PRAGMA cell_size_check = ON; PRAGMA mmap_size = 0; PRAGMA foreign_keys = ON",
		reterr);
}

static int lock(struct ledger *l, const char *state_dir, struct cede_error *reterr) {
	CLEANUP(fd_closep) int dir = -1;

	CEDE_TRY(file_open_dir(AT_FDCWD, state_dir, &dir, reterr));
	l->lock_fd = openat(dir, LOCK_NAME, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (l->lock_fd < 0)
		return CEDE_FAIL_SYS(reterr, "%s/" LOCK_NAME, state_dir);
	if (flock(l->lock_fd, LOCK_EX | LOCK_NB) < 0)
		return CEDE_FAIL(reterr, CEDE_ERR_BUSY,
			"another cede run uses the state directory %s", state_dir);
	/* with names in it, for nobody else; SQLite gives its other files the same mode */
	CLEANUP(fd_closep)
	int db = openat(dir, LEDGER_NAME, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (db < 0)
		return CEDE_FAIL_SYS(reterr, "%s/%s", state_dir, LEDGER_NAME);
	return CEDE_OK;
}

static int open_writer(struct ledger *l, const char *state_dir, struct cede_error *reterr) {
	char path[4096];

	CEDE_TRY(lock(l, state_dir, reterr));
	if (snprintf(path, sizeof path, "%s/%s", state_dir, LEDGER_NAME) >= (int)sizeof path)
		return CEDE_FAIL(reterr, CEDE_ERR_INPUT, "state directory: name too long");
	CEDE_TRY(open_db(l, path, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE, reterr));
	/* FULL: a commit is on the disk when it returns (I8). One connection writes and
	 * checkpoints: SQLite before 3.51.3 can lose commits when two do. */
	CEDE_TRY(command(l,
		"PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA wal_autocheckpoint = 4000; "
		"PRAGMA journal_size_limit = 67108864; PRAGMA cache_size = -16384; "
		"PRAGMA temp_store = MEMORY",
		reterr));
	/* its files stay when it is closed: a reader finds them, and makes none of its own */
	int keep = 1;
	if (sqlite3_file_control(l->db, NULL, SQLITE_FCNTL_PERSIST_WAL, &keep) != SQLITE_OK)
		return ledger_fail(l, "keep the -wal", reterr);
	CEDE_TRY(migrate(l, reterr));
	CEDE_TRY(check_quickly(l, reterr));
	CEDE_TRY(load_head(l, reterr));
	CEDE_TRY(ledger_tree_load(l, reterr));
	return tally_start(l, reterr);
}

static int make(struct ledger **ret, struct cede_error *reterr) {
	struct ledger *l = calloc(1, sizeof *l);

	if (l == NULL)
		return CEDE_FAIL_MEMORY(reterr);
	l->lock_fd = -1;
	l->last_source = BUF_INIT(4096);
	l->wiped.list = BUF_INIT(LEDGER_DETAIL_MAX);
	l->detail = BUF_INIT(LEDGER_DETAIL_MAX);
	l->signer.key_der = BUF_INIT(CHECKPOINT_KEY_MAX);
	l->signer.note = BUF_INIT(CHECKPOINT_MAX);
	*ret = l;
	return merkle_hasher_init(&l->hasher, reterr);
}

int ledger_open(const char *state_dir, struct ledger **ret, struct cede_error *reterr) {
	CLEANUP(ledger_closep) struct ledger *l = NULL;

	CEDE_TRY(make(&l, reterr));
	CEDE_TRY(open_writer(l, state_dir, reterr));
	*ret = CEDE_TAKE(l);
	return CEDE_OK;
}

static bool is_there(const char *state_dir, const char *name, int mode) {
	char path[4200];

	return snprintf(path, sizeof path, "%s/%s", state_dir, name) < (int)sizeof path &&
		access(path, mode) == 0;
}

/* How a command reads:
 * BESIDE with the index that the agent keeps (ledger.db-shm), or without an agent one of its own in
 *        memory, under SQLite's locks either way: nothing is written, and agents may start and stop.
 * MENDS  where the index is missing or half made (an agent starts or died), SQLite makes it, under
 *        locks that it shares with the agent.
 * ALONE  a copy, or a file system that is read-only, without the agent's other files: no agent can
 *        start, the ledger is all there is, and no file is made beside it. */
enum reading { READING_BESIDE, READING_MENDS, READING_ALONE };

static enum reading reading_of(const char *state_dir) {
	bool wal = is_there(state_dir, LEDGER_NAME "-wal", F_OK);

	if (wal && is_there(state_dir, LEDGER_NAME "-shm", F_OK))
		return READING_BESIDE;
	return wal || is_there(state_dir, LOCK_NAME, W_OK) ? READING_MENDS : READING_ALONE;
}

static int reader_uri(
	const char *path, enum reading reading, char *out, size_t size, struct cede_error *reterr) {
	static const char *const how[] = {
		[READING_BESIDE] = "&readonly_shm=1",
		[READING_MENDS] = "",
		[READING_ALONE] = "&immutable=1",
	};
	size_t used = (size_t)snprintf(out, size, "file:");

	for (const char *c = path; *c != 0; c++) {
		if (used + 64 > size)
			return CEDE_FAIL(reterr, CEDE_ERR_INPUT, "state directory: name too long");
		bool plain = (*c >= 'a' && *c <= 'z') || (*c >= 'A' && *c <= 'Z') ||
			(*c >= '0' && *c <= '9') || strchr("/._-", *c) != NULL;
		used += (size_t)snprintf(
			out + used, size - used, plain ? "%c" : "%%%02x", (unsigned char)*c);
	}
	(void)snprintf(out + used, size - used, "?mode=ro%s", how[reading]);
	return CEDE_OK;
}

/* A rollback journal is there only while the agent makes the ledger; if it died then, the next
 * start goes on. */
static int read_version(struct ledger *l, const char *state_dir, struct cede_error *reterr) {
	int64_t version = 0;
	int r = number(l, "PRAGMA user_version", &version, reterr);

	if (version == 0 &&
		(r == CEDE_OK || sqlite3_extended_errcode(l->db) == SQLITE_READONLY_ROLLBACK))
		return CEDE_FAIL(
			reterr, CEDE_ERR_BUSY, "no ledger yet in %s: it is being made", state_dir);
	CEDE_TRY(r);
	if (version != LEDGER_SCHEMA_VERSION)
		return CEDE_FAIL(reterr, CEDE_ERR_REFUSED,
			"%s/%s: schema %lld is not of this version of cede", state_dir, LEDGER_NAME,
			(long long)version);
	return CEDE_OK;
}

/* One transaction until it is closed: what a command says is of one moment. */
static int open_reader(
	struct ledger *l, const char *state_dir, enum reading reading, struct cede_error *reterr) {
	char path[4096], uri[3 * 4096];

	if (snprintf(path, sizeof path, "%s/%s", state_dir, LEDGER_NAME) >= (int)sizeof path)
		return CEDE_FAIL(reterr, CEDE_ERR_INPUT, "state directory: name too long");
	CEDE_TRY(reader_uri(path, reading, uri, sizeof uri, reterr));
	int r = open_db(l, uri, SQLITE_OPEN_READONLY | SQLITE_OPEN_URI, reterr);
	if (r < 0) {
		cede_error_within(reterr, "%s", path);
		return r;
	}
	(void)sqlite3_db_config(l->db, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, NULL);
	CEDE_TRY(command(l, "BEGIN", reterr));
	CEDE_TRY(read_version(l, state_dir, reterr));
	return load_head(l, reterr);
}

int ledger_open_reader(const char *state_dir, struct ledger **ret, struct cede_error *reterr) {
	CLEANUP(ledger_closep) struct ledger *l = NULL;

	CEDE_TRY(make(&l, reterr));
	if (!is_there(state_dir, LEDGER_NAME, F_OK) && errno == ENOENT)
		return CEDE_FAIL(reterr, CEDE_ERR_BUSY,
			"no ledger yet in %s: the agent has not run here", state_dir);
	if (!is_there(state_dir, LEDGER_NAME, R_OK) && errno == EACCES)
		return CEDE_FAIL(reterr, CEDE_ERR_IO,
			"%s/" LEDGER_NAME
			": Permission denied; run this as root or as the agent's user",
			state_dir);
	int r = open_reader(l, state_dir, reading_of(state_dir), reterr);
	if (r == CEDE_ERR_IO && (sqlite3_errcode(l->db) & 0xff) == SQLITE_READONLY) {
		/* the agent that keeps the index has only begun with it */
		ledger_closep(&l);
		CEDE_TRY(make(&l, reterr));
		r = open_reader(l, state_dir, READING_MENDS, reterr);
	}
	CEDE_TRY(r);
	*ret = CEDE_TAKE(l);
	return CEDE_OK;
}

void ledger_close(struct ledger *l) {
	if (l == NULL)
		return;
	for (size_t i = 0; i < ST_COUNT; i++)
		(void)sqlite3_finalize(l->statements[i]);
	if (l->lock_fd >= 0 && l->db != NULL)
		ledger_scrub_wal(l);
	(void)sqlite3_close(l->db);
	merkle_hasher_done(&l->hasher);
	ledger_signer_done(&l->signer);
	tally_free(l->tally);
	buf_done(&l->last_source);
	buf_done(&l->wiped.list);
	buf_done(&l->detail);
	fd_closep(&l->lock_fd);
	free(l);
}

void ledger_closep(struct ledger **ledger) {
	ledger_close(*ledger);
	*ledger = NULL;
}

int ledger_read_begin(struct ledger *l, struct cede_error *reterr) {
	if (sqlite3_get_autocommit(l->db) != 0) /* else it was opened to read: of one moment already */
		CEDE_TRY(command(l, "BEGIN", reterr));
	return load_head(l, reterr);
}

int ledger_begin(struct ledger *l, struct cede_error *reterr) {
	sqlite3_stmt *st;

	CEDE_TRY(ledger_use(l, ST_BEGIN, &st, reterr));
	return ledger_run(l, st, reterr);
}

int ledger_commit(struct ledger *l, struct cede_error *reterr) {
	sqlite3_stmt *st;

	CEDE_TRY(ledger_flush_wiped(l, reterr));
	if (tally_failed(l->tally))
		return CEDE_FAIL_MEMORY(reterr);
	CEDE_TRY(ledger_use(l, ST_COMMIT, &st, reterr));
	CEDE_TRY(ledger_run(l, st, reterr));
	l->committed_sequence = l->sequence;
	memcpy(l->committed_hash, l->hash, 32);
	l->committed_edge = l->edge;
	tally_commit(l->tally);
	return CEDE_OK;
}

void ledger_rollback(struct ledger *l) {
	for (size_t i = 0; i < ST_COUNT; i++)
		(void)sqlite3_reset(l->statements[i]);
	if (sqlite3_get_autocommit(l->db) == 0)
		(void)sqlite3_exec(l->db, "ROLLBACK", NULL, NULL, NULL);
	l->last_source_id = 0; /* its row may be gone */
	l->remounted = (struct ledger_remount){0};
	l->wiped.any = false;
	l->edge = l->committed_edge;
	if (l->signer.note_size > l->committed_sequence)
		l->signer.note_size = 0;
	l->sequence = l->committed_sequence;
	memcpy(l->hash, l->committed_hash, 32);
	tally_rollback(l->tally);
}
