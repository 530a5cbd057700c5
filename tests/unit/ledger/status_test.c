/* SPDX-License-Identifier: Apache-2.0 */
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "agent/core/answer.h"
#include "agent/ledger/epoch.h"
#include "agent/status_read.h"
#include "base/check.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "tests/unit/ledger/tool.h"

static const uint8_t first[EPOCH_KEY_SIZE] = {1};
static const uint8_t second[EPOCH_KEY_SIZE] = {2};

/* A complete file of 10 bytes, born so many seconds ago, with an hour to go; key NULL: in the clear. */
static int64_t found(struct ledger *l, const char *name, const uint8_t *key, int64_t age_s) {
	int64_t born = clock_wall_ns() - age_s * NS_PER_SECOND;
	char source[EPOCH_SOURCE_SIZE], path[32];
	static uint64_t inode;
	enum ledger_seen result;
	int64_t row;

	(void)snprintf(source, sizeof source, "%s", name);
	if (key != NULL)
		epoch_source(name, key, source);
	(void)snprintf(path, sizeof path, "%llu.jpg", (unsigned long long)++inode);
	struct ledger_capture c = {.source = slice_str(source),
		.path = slice_str(path),
		.identity = {.dev = 1, .ino = inode, .size = 10, .mtime_ns = born, .ctime_ns = born},
		.born_ns = born,
		.first_seen_ns = born,
		.deadline_ns = born + 3600 * NS_PER_SECOND,
		.segment_count = 1};
	assert_int_equal(id_make(NOW, &c.id, NULL), CEDE_OK);
	begin(l);
	assert_int_equal(ledger_capture_seen(l, &c, NOW, &result, &row, NULL), CEDE_OK);
	commit(l);
	return row;
}

static void unlinked(struct ledger *l, int64_t row) {
	begin(l);
	assert_int_equal(ledger_capture_destroying(l, row, "test", NOW, NULL), CEDE_OK);
	assert_int_equal(
		ledger_capture_wiped(l, row, "removed", EPOCH_PENDING, NOW, true, NULL), CEDE_OK);
	commit(l);
}

static json_t *status_of(void **state) {
	const struct bench *b = *state;
	json_t *all = NULL;

	assert_int_equal(status_read(b->dir, &all, NULL), CEDE_OK);
	return all;
}

/* NULL: there is none; two of one name are one too many. */
static const json_t *source_of(const json_t *all, const char *name) {
	const json_t *one = NULL;
	size_t i;
	json_t *o;

	json_array_foreach(json_object_get(all, "sources"), i, o) {
		if (strcmp(json_string_value(json_object_get(o, "name")), name) != 0)
			continue;
		assert_null(one);
		one = o;
	}
	return one;
}

static int64_t number(const json_t *o, const char *key) {
	return json_integer_value(json_object_get(o, key));
}

static void epochs_are_one_source(void **state) {
	struct ledger *l = of(state);

	unlinked(l, found(l, "faces", first, 9000));
	(void)found(l, "faces", first, 5000);
	(void)found(l, "faces", second, 100);
	(void)found(l, "faces", second, 50);
	(void)found(l, "faces", NULL, 10);
	json_t *all = status_of(state);
	assert_int_equal(json_array_size(json_object_get(all, "sources")), 1);
	const json_t *faces = source_of(all, "faces");
	assert_int_equal(number(faces, "plaintext_files"), 4);
	assert_int_equal(number(faces, "plaintext_bytes"), 40);
	assert_int_equal(number(json_object_get(faces, "files"), "ready"), 4);
	assert_int_equal(number(json_object_get(faces, "files"), "wiped"), 1);
	assert_in_range(number(faces, "oldest_age_seconds"), 5000, 5060);
	assert_int_equal(number(faces, "max_age_seconds"), 3600);
	assert_true(json_is_true(json_object_get(faces, "overdue")));
	assert_int_equal(number(json_object_get(all, "captures"), "ready"), 4);
	json_decref(all);
}

/* ---- with an agent */

#define SAID                                                                     \
	"{\"agent\":{\"running\":true,\"ready\":true,\"unmet\":[]},\"sources\":" \
	"[{\"name\":\"faces\",\"up\":true,\"max_age_seconds\":900,\"oldest_age_seconds\":7}]}"

struct agent {
	int fd;
	pthread_t thread;
};

static void *answer_once(void *arg) {
	const struct agent *a = arg;
	CLEANUP(fd_closep) int fd = accept(a->fd, NULL, NULL);

	if (fd >= 0)
		(void)!send(fd, SAID, sizeof SAID - 1, MSG_NOSIGNAL);
	return NULL;
}

static json_t *status_with_agent(void **state) {
	struct sockaddr_un at = {.sun_family = AF_UNIX};
	struct agent a = {.fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0)};

	char path[128];
	bench_path(*state, ANSWER_SOCKET, path);
	(void)snprintf(at.sun_path, sizeof at.sun_path, "%.100s", path);
	assert_int_equal(bind(a.fd, (const struct sockaddr *)&at, sizeof at), 0);
	assert_int_equal(listen(a.fd, 1), 0);
	assert_int_equal(pthread_create(&a.thread, NULL, answer_once, &a), 0);
	json_t *all = status_of(state);
	assert_int_equal(pthread_join(a.thread, NULL), 0);
	(void)close(a.fd);
	(void)unlink(at.sun_path);
	return all;
}

static void epochs_are_counted_with_the_agents_source(void **state) {
	struct ledger *l = of(state);

	(void)found(l, "faces", first, 1000);
	(void)found(l, "faces", second, 100);
	json_t *all = status_with_agent(state);
	assert_int_equal(json_array_size(json_object_get(all, "sources")), 1);
	const json_t *faces = source_of(all, "faces");
	assert_true(json_is_true(json_object_get(faces, "up")));
	assert_int_equal(number(faces, "plaintext_files"), 2);
	assert_int_equal(number(faces, "max_age_seconds"), 900); /* the agent's word */
	assert_in_range(number(faces, "oldest_age_seconds"), 1000, 1060);
	assert_true(json_is_true(json_object_get(faces, "overdue")));
	assert_false(status_in_order(all));
	json_decref(all);
}

static void a_former_source_is_told_while_anything_of_it_is_there(void **state) {
	struct ledger *l = of(state);

	(void)found(l, "faces", first, 10);
	int64_t row = found(l, "plates", first, 10);
	unlinked(l, found(l, "yard", NULL, 10));
	json_t *all = status_with_agent(state);
	assert_int_equal(json_array_size(json_object_get(all, "sources")), 2);
	assert_int_equal(number(source_of(all, "plates"), "plaintext_files"), 1);
	json_decref(all);
	unlinked(l, row);
	all = status_with_agent(state);
	assert_int_equal(json_array_size(json_object_get(all, "sources")), 1);
	assert_non_null(source_of(all, "faces"));
	assert_int_equal(number(json_object_get(all, "captures"), "wiped"), 2);
	json_decref(all);
	all = status_of(state); /* without the agent nobody knows which are the policy's */
	assert_int_equal(json_array_size(json_object_get(all, "sources")), 3);
	json_decref(all);
}

int main(void) {
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(epochs_are_one_source, bench_open, bench_close),
		cmocka_unit_test_setup_teardown(
			epochs_are_counted_with_the_agents_source, bench_open, bench_close),
		cmocka_unit_test_setup_teardown(a_former_source_is_told_while_anything_of_it_is_there,
			bench_open, bench_close),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
