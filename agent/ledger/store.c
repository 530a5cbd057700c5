/* SPDX-License-Identifier: Apache-2.0 */
#include <fcntl.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#include "agent/ledger/ledger_internal.h"
#include "agent/ledger/schema.h"
#include "agent/ledger/statements.h"
#include "base/cleanup.h"

#define MEND                                                                                     \
	"nothing is wiped; keep a copy of the state directory, restore ledger.db from the last " \
	"backup or ask the agency before starting with an empty one"

int ledger_fail(struct ledger *l, const char *what, struct cede_error *reterr) {
	int code = sqlite3_errcode(l->db) & 0xff;

	switch (code) {
	case SQLITE_CORRUPT:
	case SQLITE_NOTADB:
		return CEDE_FAIL(reterr, CEDE_ERR_INPUT, "ledger: %s: damaged: %s; %s", what,
			sqlite3_errmsg(l->db), MEND);
	case SQLITE_BUSY:
	case SQLITE_LOCKED:
		return CEDE_FAIL(
			reterr, CEDE_ERR_BUSY, "ledger: %s: %s", what, sqlite3_errmsg(l->db));
	case SQLITE_CONSTRAINT:
	case SQLITE_MISUSE:
	case SQLITE_RANGE:
		return CEDE_FAIL(reterr, CEDE_ERR_BUG, "ledger: %s: %s", what, sqlite3_errmsg(l->db));
	default:
		return CEDE_FAIL(reterr, CEDE_ERR_IO, "ledger: %s: %s", what, sqlite3_errmsg(l->db));
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

static int migrate(struct ledger *l, struct cede_error *reterr) {
	int64_t version, application;
	char stamp[128];

	CEDE_TRY(number(l, "PRAGMA user_version", &version, reterr));
	CEDE_TRY(number(l, "PRAGMA application_id", &application, reterr));
	if (version == LEDGER_SCHEMA_VERSION && application == LEDGER_APPLICATION_ID)
		return CEDE_OK;
	if (version != 0 || application != 0)
		return CEDE_FAIL(reterr, CEDE_ERR_REFUSED,
			"ledger: schema %lld of application %llx is not of this version of cede",
			(long long)version, (unsigned long long)application);
	CEDE_TRY(command(l, "BEGIN IMMEDIATE", reterr));
	CEDE_TRY(command(l, ledger_schema, reterr));
	(void)snprintf(stamp, sizeof stamp, "PRAGMA application_id = %d; PRAGMA user_version = %d",
		LEDGER_APPLICATION_ID, LEDGER_SCHEMA_VERSION);
	CEDE_TRY(command(l, stamp, reterr));
	return command(l, "COMMIT", reterr);
}

static int open_db(struct ledger *l, const char *path, int flags, struct cede_error *reterr) {
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
	l->lock_fd = openat(dir, "lock", O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (l->lock_fd < 0)
		return CEDE_FAIL_SYS(reterr, "%s/lock", state_dir);
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
	CEDE_TRY(migrate(l, reterr));
	CEDE_TRY(check_quickly(l, reterr));
	return load_head(l, reterr);
}

static int make(struct ledger **ret, struct cede_error *reterr) {
	struct ledger *l = calloc(1, sizeof *l);

	if (l == NULL)
		return CEDE_FAIL_MEMORY(reterr);
	l->lock_fd = -1;
	l->last_source = BUF_INIT(4096);
	l->sha256 = EVP_MD_fetch(NULL, "SHA256", NULL);
	l->md = EVP_MD_CTX_new();
	*ret = l;
	if (l->md == NULL || l->sha256 == NULL)
		return CEDE_FAIL_MEMORY(reterr);
	return CEDE_OK;
}

int ledger_open(const char *state_dir, struct ledger **ret, struct cede_error *reterr) {
	CLEANUP(ledger_closep) struct ledger *l = NULL;

	CEDE_TRY(make(&l, reterr));
	CEDE_TRY(open_writer(l, state_dir, reterr));
	*ret = CEDE_TAKE(l);
	return CEDE_OK;
}

static bool has_content(const char *path, const char *ending) {
	char name[4200];
	struct stat st;

	(void)snprintf(name, sizeof name, "%s%s", path, ending);
	return stat(name, &st) == 0 && st.st_size > 0;
}

/* The file as a URI, so that reading makes no file beside it: while the agent runs, its own -wal
 * and -shm are read; when it has stopped there is neither, and nothing else changes the file. Only
 * after a power failure there is a -wal without its -shm: then SQLite makes one. */
static int reader_uri(const char *path, char *out, size_t size, struct cede_error *reterr) {
	size_t used = (size_t)snprintf(out, size, "file:");

	for (const char *c = path; *c != 0; c++) {
		if (used + 64 > size)
			return CEDE_FAIL(reterr, CEDE_ERR_INPUT, "state directory: name too long");
		bool plain = (*c >= 'a' && *c <= 'z') || (*c >= 'A' && *c <= 'Z') ||
			(*c >= '0' && *c <= '9') || strchr("/._-", *c) != NULL;
		used += (size_t)snprintf(
			out + used, size - used, plain ? "%c" : "%%%02x", (unsigned char)*c);
	}
	(void)snprintf(out + used, size - used, "?mode=ro%s",
		!has_content(path, "-wal")          ? "&immutable=1"
			: has_content(path, "-shm") ? "&readonly_shm=1"
						    : "");
	return CEDE_OK;
}

int ledger_open_reader(const char *state_dir, struct ledger **ret, struct cede_error *reterr) {
	CLEANUP(ledger_closep) struct ledger *l = NULL;
	char path[4096], uri[3 * 4096];
	int64_t version;

	CEDE_TRY(make(&l, reterr));
	if (snprintf(path, sizeof path, "%s/%s", state_dir, LEDGER_NAME) >= (int)sizeof path)
		return CEDE_FAIL(reterr, CEDE_ERR_INPUT, "state directory: name too long");
	if (access(path, F_OK) < 0 && errno == ENOENT)
		return CEDE_FAIL(reterr, CEDE_ERR_BUSY,
			"no ledger yet in %s: the agent has not run here", state_dir);
	CEDE_TRY(reader_uri(path, uri, sizeof uri, reterr));
	int r = open_db(l, uri, SQLITE_OPEN_READONLY | SQLITE_OPEN_URI, reterr);
	if (r < 0) {
		cede_error_within(reterr, "%s", path);
		return r;
	}
	(void)sqlite3_db_config(l->db, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, NULL);
	CEDE_TRY(number(l, "PRAGMA user_version", &version, reterr));
	if (version == 0)
		return CEDE_FAIL(
			reterr, CEDE_ERR_BUSY, "no ledger yet in %s: it is being made", state_dir);
	if (version != LEDGER_SCHEMA_VERSION)
		return CEDE_FAIL(reterr, CEDE_ERR_REFUSED,
			"%s: schema %lld is not of this version of cede", path, (long long)version);
	CEDE_TRY(load_head(l, reterr));
	*ret = CEDE_TAKE(l);
	return CEDE_OK;
}

void ledger_close(struct ledger *l) {
	if (l == NULL)
		return;
	for (size_t i = 0; i < ST_COUNT; i++)
		(void)sqlite3_finalize(l->statements[i]);
	(void)sqlite3_close(l->db);
	EVP_MD_CTX_free(l->md);
	EVP_MD_free(l->sha256);
	buf_done(&l->last_source);
	fd_closep(&l->lock_fd);
	free(l);
}

void ledger_closep(struct ledger **ledger) {
	ledger_close(*ledger);
	*ledger = NULL;
}

int ledger_begin(struct ledger *l, struct cede_error *reterr) {
	sqlite3_stmt *st;

	CEDE_TRY(ledger_use(l, ST_BEGIN, &st, reterr));
	return ledger_run(l, st, reterr);
}

int ledger_commit(struct ledger *l, struct cede_error *reterr) {
	sqlite3_stmt *st;

	CEDE_TRY(ledger_use(l, ST_COMMIT, &st, reterr));
	CEDE_TRY(ledger_run(l, st, reterr));
	l->committed_sequence = l->sequence;
	memcpy(l->committed_hash, l->hash, 32);
	return CEDE_OK;
}

void ledger_rollback(struct ledger *l) {
	for (size_t i = 0; i < ST_COUNT; i++)
		(void)sqlite3_reset(l->statements[i]);
	if (sqlite3_get_autocommit(l->db) == 0)
		(void)sqlite3_exec(l->db, "ROLLBACK", NULL, NULL, NULL);
	l->last_source_id = 0; /* its row may be gone */
	l->sequence = l->committed_sequence;
	memcpy(l->hash, l->committed_hash, 32);
}
