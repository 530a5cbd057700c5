/* SPDX-License-Identifier: Apache-2.0
 * Packets between keeper and guard, of a hostile peer, in both directions; and the text of
 * /proc/PID/status, in which a process chooses its name. First byte: descriptors (2 bits), from the
 * guard. */
#include <stdint.h>
#include <string.h>

#include "agent/guard/who.h"
#include "agent/guard/wire.h"
#include "base/check.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void try_status(const uint8_t *data, size_t size) {
	char text[2048];
	size_t n = size < sizeof text - 1 ? size : sizeof text - 1;

	memcpy(text, data, n);
	text[n] = 0;
	(void)who_uid_in(text);
}

/* What is read to its end is the whole of it. */
static void try_attempt(struct ipc_reader *r, struct slice packet) {
	static struct guard_attempt a;
	static struct ipc_writer w;

	if (guard_get_attempt(r, &a, NULL) < 0)
		return;
	require(a.count > 0 && memchr(a.path, 0, sizeof a.path) != NULL &&
		memchr(a.exe, 0, sizeof a.exe) != NULL);
	guard_put_attempt(&w, &a);
	require(!w.too_long && slice_equal(slice_of(w.bytes, w.len), packet));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
	static char text[GUARD_PATH_MAX];
	enum guard_message type;
	struct ipc_reader r;

	if (size < 1)
		return 0;
	struct slice packet = slice_of(data + 1, size - 1);
	bool from_guard = (data[0] & 4) != 0;
	try_status(packet.data, packet.len);
	if (guard_get(packet, data[0] & 3, from_guard, &type, &r, NULL) < 0)
		return 0;
	require((type % 2 == 1) == from_guard);
	if (type == GUARD_ATTEMPT)
		try_attempt(&r, packet);
	if (type == GUARD_SOURCE && guard_get_string(&r, text, sizeof text, NULL) == CEDE_OK)
		require(memchr(text, 0, sizeof text) != NULL);
	return 0;
}
