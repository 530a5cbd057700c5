/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>

#include "agent/guard/wire.h"
#include "base/check.h"
#include "tests/unit/unit.h"

static struct ipc_writer w;

static struct slice packet(void) {
	return slice_of(w.bytes, w.len);
}

static void an_attempt_comes_out_as_it_went_in(void **state) {
	static struct guard_attempt in = {.denied = true,
		.pid = 4711,
		.uid = UINT32_MAX,
		.count = UINT64_MAX,
		.source = GUARD_NO_SOURCE,
		.dev = 1,
		.ino = 2};
	static struct guard_attempt out;
	enum guard_message type;
	struct ipc_reader r;
	struct cede_error err;

	(void)state;
	memset(in.path, 'p', sizeof in.path - 1);
	memset(in.exe, 'e', sizeof in.exe - 1);
	guard_put_attempt(&w, &in);
	assert_false(w.too_long);
	assert_int_equal(guard_get(packet(), 0, true, &type, &r, &err), CEDE_OK);
	assert_int_equal(type, GUARD_ATTEMPT);
	assert_int_equal(guard_get_attempt(&r, &out, &err), CEDE_OK);
	assert_memory_equal(&in, &out, sizeof in);
}

static void a_bad_packet_never_reaches_a_handler(void **state) {
	static const struct {
		const char *name;
		uint16_t type;
		size_t body, fds;
		bool from_guard;
		const char *says;
	} cases[] = {
		{"a keeper's type from the guard", GUARD_GO, 0, 0, true, "not this side's"},
		{"a guard's type from the keeper", GUARD_TICK, 36, 0, false, "not this side's"},
		{"a courier's type", 9999, 0, 0, true, "not this side's"},
		{"descriptors where none belong", GUARD_STOP, 0, 1, false, "with 1 descriptors"},
		{"one descriptor of two", GUARD_ADOPT, 0, 1, false, "with 1 descriptors"},
		{"READY without descriptors", GUARD_READY, 8, 0, true, "with 0 descriptors"},
		{"a body that is too long", GUARD_BEGIN, 6, 0, false, "too long"},
		{"a path that is too long", GUARD_SOURCE, 2 * (2 + GUARD_PATH_MAX) + 1, 0, false,
			"too long"},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_LENGTH(cases); i++) {
		enum guard_message type;
		struct ipc_reader r;
		struct cede_error err = {0};
		ipc_start_number(&w, cases[i].type);
		for (size_t k = 0; k < cases[i].body; k++)
			ipc_put_u8(&w, 0);
		int code = guard_get(packet(), cases[i].fds, cases[i].from_guard, &type, &r, &err);
		if (code != CEDE_ERR_INPUT || strstr(err.text, cases[i].says) == NULL)
			fail_msg("%s: %d %s", cases[i].name, code, err.text);
	}
}

static void a_text_is_a_text(void **state) {
	static const struct {
		const char *bytes;
		size_t len, room;
		bool good;
	} cases[] = {
		{"/a", 2, 3, true}, {"/a", 2, 2, false}, {"/a\0b", 4, 10, false}, {"", 0, 1, true}};

	(void)state;
	for (size_t i = 0; i < ARRAY_LENGTH(cases); i++) {
		enum guard_message type;
		struct ipc_reader r;
		struct cede_error err;
		char out[16];
		guard_put(&w, GUARD_SOURCE);
		ipc_put_text(&w, slice_of(cases[i].bytes, cases[i].len));
		assert_int_equal(guard_get(packet(), 0, false, &type, &r, &err), CEDE_OK);
		int code = guard_get_string(&r, out, cases[i].room, &err);
		assert_int_equal(code, cases[i].good ? CEDE_OK : CEDE_ERR_INPUT);
	}
}

/* Cut anywhere, or with another first byte: never taken for an attempt. */
static void half_an_attempt_is_none(void **state) {
	static struct guard_attempt a = {.count = 1, .path = "a", .exe = "b"}, out;
	enum guard_message type;
	struct ipc_reader r;
	struct cede_error err;

	(void)state;
	guard_put_attempt(&w, &a);
	for (size_t len = IPC_HEADER; len < w.len; len++) {
		assert_int_equal(
			guard_get(slice_of(w.bytes, len), 0, true, &type, &r, &err), CEDE_OK);
		assert_int_equal(guard_get_attempt(&r, &out, &err), CEDE_ERR_INPUT);
	}
	w.bytes[IPC_HEADER] = 2;
	assert_int_equal(guard_get(packet(), 0, true, &type, &r, &err), CEDE_OK);
	assert_int_equal(guard_get_attempt(&r, &out, &err), CEDE_ERR_INPUT);
	a.count = 0;
	guard_put_attempt(&w, &a);
	assert_int_equal(guard_get(packet(), 0, true, &type, &r, &err), CEDE_OK);
	assert_int_equal(guard_get_attempt(&r, &out, &err), CEDE_ERR_INPUT);
}

int main(void) {
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(an_attempt_comes_out_as_it_went_in),
		cmocka_unit_test(a_bad_packet_never_reaches_a_handler),
		cmocka_unit_test(a_text_is_a_text),
		cmocka_unit_test(half_an_attempt_is_none),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
