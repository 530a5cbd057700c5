/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "agent/ledger/verify.h"
#include "base/buf.h"
#include "base/check.h"
#include "base/cleanup.h"
#include "tests/unit/ledger/tool.h"

static void add_events(struct ledger *l, int n) {
	begin(l);
	for (int i = 0; i < n; i++)
		assert_int_equal(
			ledger_event(l, LEDGER_POLICY_LOADED, NULL, NOW + i, "serial=1", NULL),
			CEDE_OK);
	commit(l);
}

static void reopen(struct bench *b) {
	struct cede_error err = {0};

	ledger_closep(&b->ledger);
	assert_int_equal(ledger_open(b->dir, &b->ledger, &err), CEDE_OK);
}

static void execute(const struct bench *b, const char *sql) {
	char path[128];
	sqlite3 *db = NULL;

	bench_path(b, LEDGER_NAME, path);
	assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
	assert_int_equal(sqlite3_exec(db, sql, NULL, NULL, NULL), SQLITE_OK);
	assert_int_equal(sqlite3_close(db), SQLITE_OK);
}

static void verify_names_the_first_bad_event(void **state) {
	static const struct {
		const char *sql;
		uint64_t bad;
	} cases[] = {
		{"UPDATE event SET detail = 'serial=2' WHERE seq = 3", 3},
		{"UPDATE event SET at_ns = at_ns + 1 WHERE seq = 1", 1},
		{"UPDATE event SET kind = kind + 1 WHERE seq = 10", 10},
		{"UPDATE event SET subject = x'00' WHERE seq = 5", 5},
		{"UPDATE event SET hash = zeroblob(32) WHERE seq = 4", 4},
		{"UPDATE event SET hash = x'00' WHERE seq = 4", 4},
		{"DELETE FROM event WHERE seq = 1", 1},
		{"DELETE FROM event WHERE seq = 6", 6},
		{"INSERT INTO event SELECT 11, at_ns, kind, subject, detail, hash FROM event WHERE seq = 10",
			11},
		{"INSERT INTO event SELECT 0, at_ns, kind, subject, detail, hash FROM event WHERE seq = 1",
			1},
		{"DELETE FROM event WHERE seq = 6; UPDATE event SET seq = seq - 1 WHERE seq > 6", 6},
	};

	for (size_t i = 0; i < ARRAY_LENGTH(cases); i++) {
		void *one;
		CLEANUP(ledger_closep) struct ledger *reader = NULL;
		char sql[512];
		uint64_t events = 99, bad = 99;
		struct cede_error err = {0};

		assert_int_equal(bench_open(&one), 0);
		struct bench *b = one;
		add_events(b->ledger, 10);
		assert_int_equal(ledger_verify(b->ledger, &events, &bad, &err), CEDE_OK);
		assert_int_equal(events, 10);
		ledger_closep(&b->ledger);
		(void)snprintf(sql, sizeof sql,
			"DROP TRIGGER event_keeps; DROP TRIGGER event_stays; %s", cases[i].sql);
		execute(b, sql);
		assert_int_equal(ledger_open_reader(b->dir, &reader, &err), CEDE_OK);
		assert_int_equal(ledger_verify(reader, &events, &bad, &err), CEDE_ERR_INPUT);
		assert_int_equal(bad, cases[i].bad);
		assert_int_equal(events, cases[i].bad - 1);
		ledger_closep(&reader);
		assert_int_equal(bench_close(&one), 0);
	}
	(void)state;
}

static void events_refuse_to_change(void **state) {
	static const char *const sql[] = {
		"UPDATE event SET detail = '' WHERE seq = 1", "DELETE FROM event WHERE seq = 1"};
	struct bench *b = *state;
	char path[128];
	sqlite3 *db = NULL;

	add_events(b->ledger, 2);
	bench_path(b, LEDGER_NAME, path);
	assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
	for (size_t i = 0; i < ARRAY_LENGTH(sql); i++)
		assert_int_equal(sqlite3_exec(db, sql[i], NULL, NULL, NULL), SQLITE_CONSTRAINT);
	assert_int_equal(sqlite3_close(db), SQLITE_OK);
}

static void the_chain_goes_on_after_rollback_and_restart(void **state) {
	struct bench *b = *state;
	uint64_t sequence, events, bad;
	uint8_t before[32], hash[32];

	add_events(b->ledger, 3);
	ledger_head(b->ledger, &sequence, before);
	begin(b->ledger);
	assert_int_equal(ledger_event(b->ledger, LEDGER_VIOLATION, NULL, NOW, "lost", NULL), CEDE_OK);
	ledger_rollback(b->ledger);
	ledger_head(b->ledger, &sequence, hash);
	assert_int_equal(sequence, 3);
	assert_memory_equal(hash, before, 32);
	reopen(b);
	ledger_head(b->ledger, &sequence, hash);
	assert_int_equal(sequence, 3);
	assert_memory_equal(hash, before, 32);
	add_events(b->ledger, 1);
	assert_int_equal(ledger_verify(b->ledger, &events, &bad, NULL), CEDE_OK);
	assert_int_equal(events, 4);
}

/* A process that dies keeps what it committed, and nothing else. */
static void death_keeps_what_was_committed(void **state) {
	struct bench *b = *state;
	struct ledger_counts counts;

	for (int committed = 0; committed < 2; committed++) {
		ledger_closep(&b->ledger);
		pid_t child = fork();
		assert_true(child >= 0);
		if (child == 0) {
			struct ledger *l = NULL;
			if (ledger_open(b->dir, &l, NULL) < 0 || ledger_begin(l, NULL) < 0 ||
				ledger_event(l, LEDGER_WATCH_GAP, NULL, NOW, "", NULL) < 0 ||
				(committed && ledger_commit(l, NULL) < 0))
				_exit(1);
			_exit(0);
		}
		int status = -1;
		assert_int_equal(waitpid(child, &status, 0), child);
		assert_int_equal(status, 0);
		assert_int_equal(ledger_open(b->dir, &b->ledger, NULL), CEDE_OK);
		assert_int_equal(ledger_count(b->ledger, &counts, NULL), CEDE_OK);
		assert_int_equal(counts.events, committed);
	}
}

static int last(void *ctx, const struct ledger_row *row, struct cede_error *reterr) {
	struct buf *b = ctx;

	buf_clear(b);
	return buf_add(b, row->detail.data, row->detail.len, reterr);
}

static void a_gap_is_from_the_stop_to_the_start(void **state) {
	CLEANUP(buf_done) struct buf said = BUF_INIT(1000);
	struct bench *b = *state;
	uint64_t sequence;

	begin(b->ledger);
	assert_int_equal(ledger_gap(b->ledger, 5, NULL), CEDE_OK); /* nothing came before */
	assert_int_equal(ledger_event(b->ledger, LEDGER_AGENT_STOPPED, NULL, 7, "", NULL), CEDE_OK);
	assert_int_equal(ledger_gap(b->ledger, 9, NULL), CEDE_OK);
	commit(b->ledger);
	assert_int_equal(ledger_events(b->ledger, 2, last, &said, NULL), CEDE_OK);
	assert_true(slice_is(buf_slice(&said), "cause=agent-down from=7 until=9 stop=clean"));
	begin(b->ledger);
	assert_int_equal(ledger_gap(b->ledger, 11, NULL), CEDE_OK);
	commit(b->ledger);
	assert_int_equal(ledger_events(b->ledger, 3, last, &said, NULL), CEDE_OK);
	assert_true(slice_is(buf_slice(&said), "cause=agent-down from=7 until=11 stop=clean"));
	static const uint64_t first[][2] = {{0, 1}, {7, 1}, {8, 2}, {9, 2}, {11, 3}, {12, 4}};
	for (size_t i = 0; i < ARRAY_LENGTH(first); i++) {
		assert_int_equal(
			ledger_events_since(b->ledger, (int64_t)first[i][0], &sequence, NULL),
			CEDE_OK);
		assert_int_equal(sequence, first[i][1]);
	}
}

static void the_second_writer_is_refused(void **state) {
	struct bench *b = *state;
	struct ledger *second = NULL;
	struct cede_error err = {0};

	assert_int_equal(ledger_open(b->dir, &second, &err), CEDE_ERR_BUSY);
	assert_non_null(strstr(err.text, "another cede run"));
	assert_null(second);
}

static void readers_see_what_is_committed(void **state) {
	struct bench *b = *state;
	CLEANUP(ledger_closep) struct ledger *reader = NULL;
	struct ledger_counts counts;
	int64_t row;

	(void)seen(b->ledger, "a", "", 1, 1, NOW, &row);
	assert_int_equal(ledger_open_reader(b->dir, &reader, NULL), CEDE_OK);
	begin(b->ledger);
	assert_int_equal(ledger_capture_move(b->ledger, row, CAPTURE_GONE, 0, NOW, "reason=x", NULL),
		CEDE_OK);
	assert_int_equal(ledger_count(reader, &counts, NULL), CEDE_OK);
	assert_int_equal(counts.captures[CAPTURE_READY], 1);
	commit(b->ledger);
	/* of one moment, the first: what a command says does not contradict itself */
	assert_int_equal(ledger_count(reader, &counts, NULL), CEDE_OK);
	assert_int_equal(counts.captures[CAPTURE_READY], 1);
	ledger_closep(&reader);
	assert_int_equal(ledger_open_reader(b->dir, &reader, NULL), CEDE_OK);
	assert_int_equal(ledger_count(reader, &counts, NULL), CEDE_OK);
	assert_int_equal(counts.captures[CAPTURE_READY], 0);
	assert_int_equal(counts.captures[CAPTURE_GONE], 1);
	/* it can't write */
	assert_true(ledger_event(reader, LEDGER_VIOLATION, NULL, NOW, "", NULL) < 0);
}

static void a_file_with_names_is_the_agents_alone(void **state) {
	static const char *const names[] = {"ledger.db", "ledger.db-wal", "ledger.db-shm", "lock"};
	struct bench *b = *state;

	add_events(b->ledger, 1);
	for (size_t i = 0; i < ARRAY_LENGTH(names); i++) {
		char path[128];
		struct stat st;
		bench_path(b, names[i], path);
		assert_int_equal(stat(path, &st), 0);
		assert_int_equal(st.st_mode & 0777, 0600);
	}
}

static void overwrite(const struct bench *b, off_t at, size_t n) {
	char path[128], junk[8192];

	memset(junk, 0x5a, sizeof junk);
	bench_path(b, LEDGER_NAME, path);
	int fd = open(path, O_WRONLY | O_CLOEXEC);
	assert_true(fd >= 0);
	assert_int_equal(pwrite(fd, junk, n, at), (ssize_t)n);
	assert_int_equal(close(fd), 0);
}

static void a_damaged_ledger_stops_the_agent(void **state) {
	static const struct {
		off_t at;
		size_t n;
	} cases[] = {{0, 100}, {100, 3000}, {4096, 8192}, {16384, 8192}};

	(void)state;
	for (size_t i = 0; i < ARRAY_LENGTH(cases); i++) {
		void *one;
		struct cede_error err = {0};
		assert_int_equal(bench_open(&one), 0);
		struct bench *b = one;
		add_events(b->ledger, 500);
		ledger_closep(&b->ledger);
		overwrite(b, cases[i].at, cases[i].n);
		assert_int_equal(ledger_open(b->dir, &b->ledger, &err), CEDE_ERR_INPUT);
		assert_non_null(strstr(err.text, "damaged"));
		assert_non_null(strstr(err.text, "nothing is wiped"));
		assert_int_equal(bench_close(&one), 0);
	}
}

static char *read_file(const char *name, size_t *ret_len) {
	char path[512];
	const char *top = getenv("TOP");
	struct stat st;

	assert_non_null(top);
	(void)snprintf(path, sizeof path, "%s/tests/unit/ledger/%s", top, name);
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	assert_true(fd >= 0 && fstat(fd, &st) == 0);
	char *text = calloc(1, (size_t)st.st_size + 1);
	assert_non_null(text);
	assert_int_equal(read(fd, text, (size_t)st.st_size), st.st_size);
	assert_int_equal(close(fd), 0);
	*ret_len = (size_t)st.st_size;
	return text;
}

static int add_sql(void *ctx, int columns, char **values, char **names) {
	(void)columns;
	(void)names;
	return buf_addf(ctx, NULL, "%s;\n", values[0]);
}

/* What a version of the schema is never changes: a ledger of that number may be out there. */
static void the_schema_is_what_its_number_says(void **state) {
	CLEANUP(buf_done) struct buf is = BUF_INIT(65536);
	struct bench *b = *state;
	sqlite3 *db = NULL;
	char path[128];
	size_t len;

	ledger_closep(&b->ledger);
	bench_path(b, LEDGER_NAME, path);
	assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
	assert_int_equal(sqlite3_exec(db,
				 "SELECT sql FROM sqlite_schema WHERE sql IS NOT NULL ORDER BY name;"
				 "PRAGMA user_version; PRAGMA application_id",
				 add_sql, &is, NULL),
		SQLITE_OK);
	assert_int_equal(sqlite3_close(db), SQLITE_OK);
	char *want = read_file("schema-2.txt", &len);
	if (is.len != len || memcmp(is.data, want, len) != 0) {
		struct slice line, rest = buf_slice(&is);
		print_message("a changed schema needs a new number and a migration; it is now:\n");
		while (slice_cut(rest, '\n', &line, &rest))
			print_message("%.*s\n", (int)line.len, (const char *)line.data);
	}
	assert_int_equal(is.len, len);
	assert_memory_equal(is.data, want, len);
	free(want);
}

/* Ledgers as earlier versions left them: everything that was there is there, the chain goes on, and
 * all of it can be verified. */
static void earlier_schemas_are_carried_on(void **state) {
	static const struct {
		const char *file;
		uint64_t events, captures;
	} cases[] = {{"schema-1.sql", 30, 7}};

	(void)state;
	for (size_t i = 0; i < ARRAY_LENGTH(cases); i++) {
		CLEANUP(buf_done) struct buf said = BUF_INIT(10000);
		CLEANUP(ledger_closep) struct ledger *reader = NULL;
		struct cede_error err = {0};
		struct ledger_counts counts;
		struct ledger_check check;
		uint64_t captures = 0;
		size_t len;
		void *one;
		assert_int_equal(bench_open(&one), 0);
		struct bench *b = one;
		char path[128];
		ledger_closep(&b->ledger);
		static const char *const names[] = {
			LEDGER_NAME, LEDGER_NAME "-wal", LEDGER_NAME "-shm"};
		for (size_t k = 0; k < ARRAY_LENGTH(names); k++) {
			bench_path(b, names[k], path);
			assert_true(unlink(path) == 0 || errno == ENOENT);
		}
		char *sql = read_file(cases[i].file, &len);
		execute(b, sql);
		free(sql);
		assert_int_equal(ledger_open_reader(b->dir, &reader, &err), CEDE_ERR_REFUSED);
		int opened = ledger_open(b->dir, &b->ledger, &err);
		if (opened < 0)
			print_message("%s\n", err.text);
		assert_int_equal(opened, CEDE_OK);
		assert_int_equal(ledger_count(b->ledger, &counts, &err), CEDE_OK);
		assert_int_equal(counts.events, cases[i].events + 1);
		for (size_t k = 0; k < CAPTURE_STATE_COUNT; k++)
			captures += counts.captures[k];
		assert_int_equal(captures, cases[i].captures);
		assert_int_equal(ledger_events(b->ledger, counts.events, last, &said, NULL), CEDE_OK);
		assert_memory_equal(said.data, "from=1 to=2 captures=7 bundles=", 31);
		begin(b->ledger);
		for (size_t k = 0; k < 200; k++)
			assert_int_equal(
				ledger_event(b->ledger, LEDGER_WATCH_GAP, NULL, NOW, "", NULL),
				CEDE_OK);
		commit(b->ledger);
		reopen(b);
		assert_int_equal(
			ledger_check(b->ledger, SLICE_NONE, SLICE_NONE, SLICE_NONE, &check, &err),
			CEDE_OK);
		if (check.bad_sequence != 0)
			print_message(
				"%llu: %s\n", (unsigned long long)check.bad_sequence, check.why);
		assert_int_equal(check.bad_sequence, 0);
		assert_int_equal(check.events, 201 + cases[i].events);
		assert_int_equal(bench_close(&one), 0);
	}
}

/* SQLite tells nothing of a value that another one was written over. */
static void what_is_to_be_wiped_has_a_proof(void **state) {
	struct bench *b = *state;
	struct cede_error err = {0};
	int64_t rows[4];

	for (uint64_t i = 0; i < 4; i++) {
		char name[8];
		(void)snprintf(name, sizeof name, "%d", (int)i);
		(void)seen(b->ledger, name, "", i + 1, 1, NOW, &rows[i]);
	}
	assert_int_equal(take(b->ledger, 1, 1, rows), 1);
	receipted(b->ledger, seal(b->ledger, rows, 1, false, NULL));
	assert_int_equal(take(b->ledger, 1, 1, rows + 1), 1);
	int64_t spooled = seal(b->ledger, rows + 1, 1, true, NULL);
	begin(b->ledger);
	assert_int_equal(ledger_bundle_wiping(b->ledger, spooled, NOW, NULL), CEDE_OK);
	commit(b->ledger);
	assert_int_equal(take(b->ledger, 1, 1, rows + 2), 1);
	(void)seal(b->ledger, rows + 2, 1, false, NULL);
	begin(b->ledger);
	assert_int_equal(
		ledger_capture_destroying(b->ledger, rows[3], "max-age", NOW, NULL), CEDE_OK);
	commit(b->ledger);
	ledger_closep(&b->ledger);
	execute(b, "UPDATE capture SET state = 3 WHERE state = 2"); /* the third */
	reopen(b);
	for (size_t i = 0; i < ARRAY_LENGTH(rows); i++) {
		assert_int_equal(state_of(b->ledger, rows[i]), CAPTURE_WIPING);
		assert_int_equal(ledger_must_be_proven(b->ledger, rows[i], &err),
			i == 2 ? CEDE_ERR_INPUT : CEDE_OK);
	}
	assert_non_null(strstr(err.text, "nothing is wiped"));
}

static void another_schema_is_refused(void **state) {
	struct bench *b = *state;

	ledger_closep(&b->ledger);
	execute(b, "PRAGMA user_version = 99");
	assert_int_equal(ledger_open(b->dir, &b->ledger, NULL), CEDE_ERR_REFUSED);
	assert_int_equal(ledger_open_reader(b->dir, &b->ledger, NULL), CEDE_ERR_REFUSED);
}

#define WITH_LEDGER(f) cmocka_unit_test_setup_teardown(f, bench_open, bench_close)

int main(void) {
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(verify_names_the_first_bad_event),
		WITH_LEDGER(events_refuse_to_change),
		WITH_LEDGER(the_chain_goes_on_after_rollback_and_restart),
		WITH_LEDGER(death_keeps_what_was_committed),
		WITH_LEDGER(a_gap_is_from_the_stop_to_the_start),
		WITH_LEDGER(the_second_writer_is_refused),
		WITH_LEDGER(readers_see_what_is_committed),
		WITH_LEDGER(a_file_with_names_is_the_agents_alone),
		cmocka_unit_test(a_damaged_ledger_stops_the_agent),
		WITH_LEDGER(the_schema_is_what_its_number_says),
		cmocka_unit_test(earlier_schemas_are_carried_on),
		WITH_LEDGER(what_is_to_be_wiped_has_a_proof),
		WITH_LEDGER(another_schema_is_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
