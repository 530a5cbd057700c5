/* SPDX-License-Identifier: Apache-2.0
 * Packets of a hostile peer, in both directions: everything a handler may do with one. */
#include <stdint.h>

#include "agent/ipc/message.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static volatile size_t sink;

static void read_all(struct ipc_reader *r) {
	uint8_t id[ID_SIZE];

	ipc_get_bytes(r, id, sizeof id);
	for (int i = 0; i < 8 && r->rest.len > 0; i++) {
		struct slice text = ipc_get_text(r);
		for (size_t k = 0; k < text.len; k++)
			sink += text.data[k];
		sink += ipc_get_u8(r) + ipc_get_u16(r) + ipc_get_u32(r) + ipc_get_u64(r);
	}
	sink += (size_t)ipc_end(r, NULL);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
	if (size < 1)
		return 0;
	struct slice packet = slice_of(data + 1, size - 1);
	struct ipc_reader r;
	enum ipc_phase phase = data[0] & 4 ? IPC_HELLO_PHASE : IPC_WORK_PHASE;

	if (ipc_open(packet, data[0] & 3, (data[0] & 8) != 0, phase, &r, NULL) == CEDE_OK)
		read_all(&r);
	return 0;
}
