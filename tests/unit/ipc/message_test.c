/* SPDX-License-Identifier: Apache-2.0 */
#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "agent/ipc/channel.h"
#include "base/check.h"
#include "tests/unit/unit.h"

static struct slice packet_of(const struct ipc_writer *w) {
	return slice_of(w->bytes, w->len);
}

static void what_is_put_is_what_is_got(void **state) {
	struct ipc_writer w;
	struct ipc_reader r;
	struct cede_error err;
	uint8_t id[ID_SIZE] = {1, 2, 3};
	uint8_t back[ID_SIZE];

	(void)state;
	ipc_start(&w, IPC_FAILED);
	ipc_put_bytes(&w, id, sizeof id);
	ipc_put_text(&w, slice_str("http-503"));
	ipc_put_u16(&w, 503);
	ipc_put_u32(&w, 70000);
	ipc_put_u8(&w, 1);
	ipc_put_text(&w, slice_str(""));
	assert_int_equal(ipc_open(packet_of(&w), 0, true, IPC_WORK_PHASE, &r, &err), CEDE_OK);
	ipc_get_bytes(&r, back, sizeof back);
	assert_memory_equal(id, back, sizeof id);
	assert_true(slice_is(ipc_get_text(&r), "http-503"));
	assert_int_equal(ipc_get_u16(&r), 503);
	assert_int_equal(ipc_get_u32(&r), 70000);
	assert_int_equal(ipc_get_u8(&r), 1);
	assert_int_equal(ipc_get_text(&r).len, 0);
	assert_int_equal(ipc_end(&r, &err), CEDE_OK);
}

static void a_bad_packet_never_reaches_a_handler(void **state) {
	static const struct {
		const char *name;
		size_t at;
		uint8_t byte;
		size_t cut; /* bytes taken from the end */
		size_t fds;
		bool from_courier;
		enum ipc_phase phase;
		const char *says;
	} cases[] = {
		{"magic", 0, 'X', 0, 0, true, IPC_WORK_PHASE, "no header"},
		{"version", 4, 9, 0, 0, true, IPC_WORK_PHASE, "different builds"},
		{"unknown type", 6, 99, 0, 0, true, IPC_WORK_PHASE, "not this side's"},
		{"a keeper's type from the courier", 6, IPC_PUT, 0, 0, true, IPC_WORK_PHASE,
			"not this side's"},
		{"a courier's type from the keeper", 6, IPC_ABSENT, 0, 0, false, IPC_WORK_PHASE,
			"not this side's"},
		{"out of turn", 6, IPC_ABSENT, 0, 0, true, IPC_HELLO_PHASE, "out of turn"},
		{"hello twice", 6, IPC_HELLO, 0, 0, true, IPC_WORK_PHASE, "out of turn"},
		{"a descriptor too many", 6, IPC_ABSENT, 0, 1, true, IPC_WORK_PHASE, "descriptors"},
		{"shorter than a header", 6, IPC_ABSENT, 18, 0, true, IPC_WORK_PHASE, "no header"},
	};
	struct ipc_reader r;
	struct cede_error err;

	(void)state;
	for (size_t i = 0; i < ARRAY_LENGTH(cases); i++) {
		struct ipc_writer w;
		ipc_start(&w, IPC_ABSENT);
		ipc_put_bytes(&w, "0123456789abcdef", 16);
		ipc_put_u8(&w, 0);
		w.bytes[cases[i].at] = cases[i].byte;
		int code = ipc_open(slice_of(w.bytes, w.len - cases[i].cut), cases[i].fds,
			cases[i].from_courier, cases[i].phase, &r, &err);
		if (code != CEDE_ERR_INPUT || strstr(err.text, cases[i].says) == NULL)
			fail_msg("%s: %d %s", cases[i].name, code, err.text);
	}
}

static void bodies_are_read_to_their_end_and_no_further(void **state) {
	struct ipc_writer w;
	struct ipc_reader r;
	struct cede_error err;

	(void)state;
	for (size_t size = 0; size < 17; size++) { /* ABSENT is 17 bytes */
		struct id id;
		ipc_start(&w, IPC_ABSENT);
		for (size_t i = 0; i < size; i++)
			ipc_put_u8(&w, 7);
		assert_int_equal(ipc_open(packet_of(&w), 0, true, IPC_WORK_PHASE, &r, &err), CEDE_OK);
		ipc_get_bytes(&r, id.bytes, ID_SIZE);
		(void)ipc_get_u8(&r);
		assert_int_equal(ipc_end(&r, &err), CEDE_ERR_INPUT);
	}
	ipc_start(&w, IPC_ABSENT);
	for (size_t i = 0; i < 18; i++)
		ipc_put_u8(&w, 7);
	assert_int_equal(ipc_open(packet_of(&w), 0, true, IPC_WORK_PHASE, &r, &err), CEDE_ERR_INPUT);
	/* a text that says it is longer than the packet */
	ipc_start(&w, IPC_RECEIPT);
	ipc_put_bytes(&w, "0123456789abcdef", 16);
	ipc_put_u16(&w, 500);
	ipc_put_bytes(&w, "short", 5);
	assert_int_equal(ipc_open(packet_of(&w), 0, true, IPC_WORK_PHASE, &r, &err), CEDE_OK);
	uint8_t id[ID_SIZE];
	ipc_get_bytes(&r, id, sizeof id);
	assert_int_equal(ipc_get_text(&r).len, 0);
	assert_int_equal(ipc_end(&r, &err), CEDE_ERR_INPUT);
}

static void a_writer_that_is_full_says_so(void **state) {
	struct ipc_writer w;
	static const uint8_t block[4096];

	(void)state;
	ipc_start(&w, IPC_DESTINATION);
	for (int i = 0; i < 4; i++)
		ipc_put_bytes(&w, block, sizeof block);
	assert_false(w.too_long);
	ipc_put_u8(&w, 1);
	assert_true(w.too_long);
	assert_int_equal(w.len, IPC_PACKET_MAX);
}

static void descriptors_travel_and_too_many_are_closed(void **state) {
	struct ipc_writer w;
	struct ipc_packet packet;
	struct cede_error err;
	int pair[2];
	int fds[IPC_FDS_MAX];

	(void)state;
	assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK, 0, pair), 0);
	for (size_t i = 0; i < IPC_FDS_MAX; i++)
		assert_true((fds[i] = openat(AT_FDCWD, "/dev/null", O_RDONLY | O_CLOEXEC)) >= 0);
	ipc_start(&w, IPC_DESTINATION);
	ipc_put_u16(&w, 0);
	assert_int_equal(channel_send(pair[0], &w, fds, IPC_FDS_MAX, &err), CEDE_OK);
	assert_int_equal(channel_receive(pair[1], &packet, &err), CEDE_OK);
	assert_int_equal(packet.fd_count, IPC_FDS_MAX);
	assert_true(fcntl(packet.fds[0], F_GETFD) & FD_CLOEXEC);
	int first = packet.fds[0];
	channel_discard(&packet);
	assert_int_equal(fcntl(first, F_GETFD), -1);
	assert_int_equal(channel_receive(pair[1], &packet, &err), CEDE_ERR_BUSY);

	/* five descriptors: more than any message has */
	union {
		struct cmsghdr align;
		char bytes[CMSG_SPACE(5 * sizeof(int))];
	} control = {0};

	int five[5] = {fds[0], fds[0], fds[0], fds[0], fds[0]};
	struct iovec part = {.iov_base = w.bytes, .iov_len = w.len};
	struct msghdr m = {.msg_iov = &part,
		.msg_iovlen = 1,
		.msg_control = control.bytes,
		.msg_controllen = sizeof control.bytes};
	struct cmsghdr *c = CMSG_FIRSTHDR(&m);
	c->cmsg_level = SOL_SOCKET;
	c->cmsg_type = SCM_RIGHTS;
	c->cmsg_len = CMSG_LEN(sizeof five);
	memcpy(CMSG_DATA(c), five, sizeof five);
	assert_true(sendmsg(pair[0], &m, 0) > 0);
	int before = dup(fds[0]);
	assert_int_equal(channel_receive(pair[1], &packet, &err), CEDE_ERR_INPUT);
	int after = dup(fds[0]);
	assert_int_equal(after, before + 1); /* none of the five stayed open */

	(void)close(pair[0]);
	assert_int_equal(channel_receive(pair[1], &packet, &err), CEDE_ERR_REFUSED);
	assert_int_equal(channel_send(pair[1], &w, NULL, 0, &err), CEDE_ERR_REFUSED);
	(void)close(pair[1]);
	(void)close(before);
	(void)close(after);
	for (size_t i = 0; i < IPC_FDS_MAX; i++)
		(void)close(fds[i]);
}

int main(void) {
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_is_put_is_what_is_got),
		cmocka_unit_test(a_bad_packet_never_reaches_a_handler),
		cmocka_unit_test(bodies_are_read_to_their_end_and_no_further),
		cmocka_unit_test(a_writer_that_is_full_says_so),
		cmocka_unit_test(descriptors_travel_and_too_many_are_closed),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
