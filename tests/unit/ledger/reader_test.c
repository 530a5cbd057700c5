/* SPDX-License-Identifier: Apache-2.0 */
#include <dirent.h>
#include <fcntl.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/check.h"
#include "base/cleanup.h"
#include "base/file.h"
#include "tests/unit/ledger/tool.h"

#define BEGINNINGS 8
#define LIVES      8

static const char *const FILES[] = {"ledger.db", "ledger.db-wal", "ledger.db-shm", "lock"};

/* What a command does: CEDE_OK, or what the reader says. */
static int read_all(const struct bench *b, struct cede_error *err) {
	CLEANUP(ledger_closep) struct ledger *reader = NULL;
	struct ledger_counts counts;
	uint64_t events, bad;

	CEDE_TRY(ledger_open_reader(b->dir, &reader, err));
	CEDE_TRY(ledger_count(reader, &counts, err));
	return ledger_verify(reader, &events, &bad, err);
}

static void forget_files(const struct bench *b) {
	for (size_t i = 0; i < ARRAY_LENGTH(FILES); i++) {
		char path[128];
		bench_path(b, FILES[i], path);
		(void)unlink(path);
	}
}

static int live(const struct bench *b, int number) {
	struct ledger *l = NULL;

	CEDE_TRY(ledger_open(b->dir, &l, NULL));
	for (int i = 0; i < 3; i++) {
		CEDE_TRY(ledger_begin(l, NULL));
		CEDE_TRY(ledger_event(l, LEDGER_WATCH_GAP, NULL, NOW, "", NULL));
		CEDE_TRY(ledger_commit(l, NULL));
	}
	if (number % 2 == 0)
		ledger_closep(&l); /* else it dies without */
	return CEDE_OK;
}

/* Each in a process of its own, as it is: its end takes locks and mappings with it. */
static void live_often(const struct bench *b) {
	for (int i = 0; i < LIVES; i++) {
		int status = -1;
		pid_t one = fork();
		if (one == 0)
			_exit(live(b, i) == CEDE_OK ? 0 : 1);
		if (one < 0 || waitpid(one, &status, 0) != one || status != 0)
			_exit(1);
	}
	_exit(0);
}

static void read_while_agents_live(const struct bench *b, unsigned *read) {
	int status = -1;
	pid_t agents = fork();

	assert_true(agents >= 0);
	if (agents == 0)
		live_often(b);
	while (waitpid(agents, &status, WNOHANG) == 0) {
		struct cede_error err = {0};
		int r = read_all(b, &err);
		if (r == CEDE_OK)
			(*read)++;
		else if (r != CEDE_ERR_BUSY || strstr(err.text, "no ledger yet") == NULL)
			fail_msg("after %u good looks: %s", *read, err.text);
	}
	assert_int_equal(status, 0);
}

static void a_reader_works_while_agents_start_stop_and_die(void **state) {
	unsigned read = 0;

	(void)state;
	for (int i = 0; i < BEGINNINGS; i++) {
		struct bench b = {.dir = "/tmp/cede-ledger-XXXXXX"};
		assert_non_null(mkdtemp(b.dir));
		read_while_agents_live(&b, &read);
		forget_files(&b);
		assert_int_equal(rmdir(b.dir), 0);
	}
	assert_true(read > 0);
}

/* The names in the state directory, sorted, in one text. */
static void names_of(const char *dir, char out[256]) {
	struct dirent **found = NULL;
	int n = scandir(dir, &found, NULL, alphasort);

	assert_true(n >= 0);
	out[0] = 0;
	for (int i = 0; i < n; i++) {
		if (found[i]->d_name[0] != '.')
			(void)snprintf(out + strlen(out), 256 - strlen(out), "%s ", found[i]->d_name);
		free(found[i]);
	}
	free(found);
}

static void reading_a_stopped_ledger_makes_no_file(void **state) {
	struct bench *b = *state;
	struct cede_error err = {0};
	char names[256];

	ledger_closep(&b->ledger);
	assert_int_equal(read_all(b, &err), CEDE_OK);
	names_of(b->dir, names);
	assert_string_equal(names, "ledger.db ledger.db-shm ledger.db-wal lock ");
}

static void copy(const struct bench *from, const struct bench *to, const char *name) {
	char path[128];
	uint8_t bytes[65536];
	ssize_t n;

	bench_path(from, name, path);
	CLEANUP(fd_closep) int in = open(path, O_RDONLY | O_CLOEXEC);
	bench_path(to, name, path);
	CLEANUP(fd_closep) int out = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
	assert_true(in >= 0 && out >= 0);
	while ((n = read(in, bytes, sizeof bytes)) > 0)
		assert_int_equal(write(out, bytes, (size_t)n), n);
	assert_int_equal(n, 0);
}

/* An investigator's copy: of the ledger alone, or of what an agent that died left. */
static void a_copy_is_read_as_it_lies(void **state) {
	static const struct {
		bool alive;
		size_t files; /* the first so many of FILES */
		const char *names;
	} cases[] = {{false, 1, "ledger.db "}, {true, 3, "ledger.db ledger.db-shm ledger.db-wal "}};
	struct bench *b = *state;

	for (size_t i = 0; i < ARRAY_LENGTH(cases); i++) {
		struct bench there = {.dir = "/tmp/cede-ledger-XXXXXX"};
		char names[256];
		struct cede_error err = {0};
		if (b->ledger == NULL)
			assert_int_equal(ledger_open(b->dir, &b->ledger, &err), CEDE_OK);
		begin(b->ledger);
		assert_int_equal(
			ledger_event(b->ledger, LEDGER_WATCH_GAP, NULL, NOW, "", NULL), CEDE_OK);
		commit(b->ledger);
		if (!cases[i].alive)
			ledger_closep(&b->ledger);
		assert_non_null(mkdtemp(there.dir));
		for (size_t f = 0; f < cases[i].files; f++)
			copy(b, &there, FILES[f]);
		if (read_all(&there, &err) != CEDE_OK)
			fail_msg("%s", err.text);
		names_of(there.dir, names);
		assert_string_equal(names, cases[i].names);
		forget_files(&there);
		assert_int_equal(rmdir(there.dir), 0);
	}
}

/* The first pages are written with a rollback journal; a process that dies there leaves it. */
static void die_while_making(const char *path) {
	sqlite3 *db = NULL;

	if (sqlite3_open(path, &db) != SQLITE_OK ||
		sqlite3_exec(db,
			"PRAGMA cache_size = 1; BEGIN; CREATE TABLE t(x); "
			"WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 200) "
			"INSERT INTO t SELECT randomblob(2000) FROM n",
			NULL, NULL, NULL) != SQLITE_OK)
		_exit(1);
	_exit(0);
}

static void a_ledger_half_made_is_none_yet(void **state) {
	struct bench *b = *state;
	struct cede_error err = {0};
	char path[128], journal[160];
	struct stat st;
	int status = -1;

	ledger_closep(&b->ledger);
	bench_path(b, LEDGER_NAME, path);
	for (size_t i = 0; i < 3; i++) { /* the lock stays: an agent lived here */
		char name[128];
		bench_path(b, FILES[i], name);
		assert_int_equal(unlink(name), 0);
	}
	pid_t child = fork();
	assert_true(child >= 0);
	if (child == 0)
		die_while_making(path);
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_int_equal(status, 0);
	(void)snprintf(journal, sizeof journal, "%s-journal", path);
	assert_int_equal(stat(journal, &st), 0);
	assert_true(stat(path, &st) == 0 && st.st_size > 0);
	assert_int_equal(read_all(b, &err), CEDE_ERR_BUSY);
	assert_non_null(strstr(err.text, "no ledger yet"));
	assert_int_equal(ledger_open(b->dir, &b->ledger, &err), CEDE_OK);
	assert_int_equal(read_all(b, &err), CEDE_OK);
}

#define WITH_LEDGER(f) cmocka_unit_test_setup_teardown(f, bench_open, bench_close)

int main(void) {
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_reader_works_while_agents_start_stop_and_die),
		WITH_LEDGER(reading_a_stopped_ledger_makes_no_file),
		WITH_LEDGER(a_copy_is_read_as_it_lies),
		WITH_LEDGER(a_ledger_half_made_is_none_yet),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
