/* SPDX-License-Identifier: Apache-2.0
 * Packets of a hostile peer, in both directions: each body is read as its handler reads it, and
 * what was read to its end is the whole of it. First byte: descriptors (2 bits), hello phase, from
 * the courier. */
#include <stdint.h>
#include <string.h>

#include "agent/ipc/message.h"
#include "base/check.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void copy_bytes(struct ipc_reader *r, struct ipc_writer *w, size_t len) {
	uint8_t bytes[64];

	ipc_get_bytes(r, bytes, len);
	ipc_put_bytes(w, bytes, len);
}

static void copy_text(struct ipc_reader *r, struct ipc_writer *w) {
	ipc_put_text(w, ipc_get_text(r));
}

static void copy_destination(struct ipc_reader *r, struct ipc_writer *w) {
	ipc_put_u16(w, ipc_get_u16(r));
	copy_text(r, w);
	uint16_t pins = ipc_get_u16(r);
	ipc_put_u16(w, pins);
	for (uint16_t i = 0; i < pins && !r->bad; i++)
		copy_text(r, w);
	uint16_t addresses = ipc_get_u16(r);
	ipc_put_u16(w, addresses);
	for (uint16_t i = 0; i < addresses && !r->bad; i++)
		copy_bytes(r, w, 17);
}

static void copy_failed(struct ipc_reader *r, struct ipc_writer *w) {
	copy_bytes(r, w, ID_SIZE);
	copy_text(r, w);
	ipc_put_u16(w, ipc_get_u16(r));
	ipc_put_u32(w, ipc_get_u32(r));
	ipc_put_u8(w, ipc_get_u8(r));
	copy_text(r, w);
}

static void copy_probed(struct ipc_reader *r, struct ipc_writer *w) {
	ipc_put_u16(w, ipc_get_u16(r));
	ipc_put_u16(w, ipc_get_u16(r));
	ipc_put_u64(w, ipc_get_u64(r));
	copy_text(r, w);
	copy_text(r, w);
}

static void copy_put(struct ipc_reader *r, struct ipc_writer *w) {
	ipc_put_u16(w, ipc_get_u16(r));
	copy_bytes(r, w, ID_SIZE);
	ipc_put_u64(w, ipc_get_u64(r));
	copy_bytes(r, w, 32);
	ipc_put_u64(w, ipc_get_u64(r));
	copy_text(r, w);
}

static void copy_body(struct ipc_reader *r, struct ipc_writer *w) {
	switch (r->type) {
	case IPC_HELLO:
	case IPC_PROBE:
		ipc_put_u16(w, ipc_get_u16(r));
		break;
	case IPC_PROBED:
		copy_probed(r, w);
		break;
	case IPC_RECEIPT:
		copy_bytes(r, w, ID_SIZE);
		copy_text(r, w);
		break;
	case IPC_ABSENT:
		copy_bytes(r, w, ID_SIZE);
		ipc_put_u8(w, ipc_get_u8(r));
		break;
	case IPC_FAILED:
		copy_failed(r, w);
		break;
	case IPC_DESTINATION:
		copy_destination(r, w);
		break;
	case IPC_PUT:
		copy_put(r, w);
		break;
	case IPC_ASK:
		ipc_put_u16(w, ipc_get_u16(r));
		copy_bytes(r, w, ID_SIZE);
		ipc_put_u8(w, ipc_get_u8(r));
		break;
	case IPC_CANCEL:
		copy_bytes(r, w, ID_SIZE);
		break;
	case IPC_METRICS:
		ipc_put_u32(w, ipc_get_u32(r));
		ipc_put_u32(w, ipc_get_u32(r));
		break;
	case IPC_PING:
	case IPC_PONG:
	case IPC_STOP:
		break;
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
	static struct ipc_writer w;
	struct ipc_reader r;

	if (size < 1)
		return 0;
	struct slice packet = slice_of(data + 1, size - 1);
	bool from_courier = (data[0] & 8) != 0;
	enum ipc_phase phase = data[0] & 4 ? IPC_HELLO_PHASE : IPC_WORK_PHASE;
	if (ipc_open(packet, data[0] & 3, from_courier, phase, &r, NULL) < 0)
		return 0;
	require((r.type % 2 == 1) == from_courier);
	require((r.type == IPC_HELLO) == (phase == IPC_HELLO_PHASE));
	ipc_start(&w, r.type);
	copy_body(&r, &w);
	if (ipc_end(&r, NULL) == CEDE_OK)
		require(!w.too_long && slice_equal(slice_of(w.bytes, w.len), packet));
	return 0;
}
