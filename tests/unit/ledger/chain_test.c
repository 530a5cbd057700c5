/* SPDX-License-Identifier: Apache-2.0 */
#include <fcntl.h>
#include <sqlite3.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

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
		WITH_LEDGER(the_second_writer_is_refused),
		WITH_LEDGER(readers_see_what_is_committed),
		WITH_LEDGER(a_file_with_names_is_the_agents_alone),
		cmocka_unit_test(a_damaged_ledger_stops_the_agent),
		WITH_LEDGER(another_schema_is_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
