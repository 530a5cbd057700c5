/* SPDX-License-Identifier: Apache-2.0
 * What keeper and courier may say to each other: one table of messages (number, who sends it, when,
 * largest body, descriptors), and typed readers and writers for the bodies.
 *
 * A packet is: magic "CEDE" (4 bytes), version (2), type (2), then the body; numbers are
 * little-endian; texts are 2 bytes of length and the bytes. Everything is read to its end.
 *
 * Hostile peer  both ends treat the other as hostile; the fuzz target is tests/fuzz/ipc. */
#pragma once

#include <stdbool.h>

#include "base/bytes.h"
#include "base/error.h"
#include "formats/id.h"

#define IPC_VERSION    1
#define IPC_HEADER     8
#define IPC_BODY_MAX   16384
#define IPC_PACKET_MAX (IPC_HEADER + IPC_BODY_MAX)
#define IPC_FDS_MAX    3
#define IPC_NOTE_MAX   8192 /* a receipt */
#define IPC_FIELD_MAX  7000 /* a checkpoint, as it stands in a header */
/* The exposition text; it travels as a memory file. The largest policy that there can be, with
 * every number as long as it gets, fits: tests/unit/agent/meters_test.c. */
#define IPC_METRICS_MAX (4U << 20)

enum ipc_phase { IPC_HELLO_PHASE = 1, IPC_WORK_PHASE = 2 };

/* id, number (odd: from the courier), phase, largest body, descriptors */
#define IPC_MESSAGES(X)                                                                           \
	X(HELLO, 1, IPC_HELLO_PHASE, 2 + 4 + 4, 0)                                                \
	X(RECEIPT, 3, IPC_WORK_PHASE, 16 + 2 + IPC_NOTE_MAX, 0)                                   \
	X(ABSENT, 5, IPC_WORK_PHASE, 17, 0)                                                       \
	X(FAILED, 7, IPC_WORK_PHASE, 16 + 2 + 32 + 2 + 4 + 1 + 2 + 512, 0)                        \
	/* index, url, pins, prefixes; CA, certificate and key as memory files */                 \
	X(DESTINATION, 2, IPC_WORK_PHASE, IPC_BODY_MAX, 3)                                        \
	/* destination, id, size, sha256, bytes a second (0: any), checkpoint or nothing; the     \
	 * sealed bundle */                                                                       \
	X(PUT, 4, IPC_WORK_PHASE, 2 + 16 + 8 + 32 + 8 + 2 + IPC_FIELD_MAX, 1)                     \
	/* destination, id, 1: if it is absent, make sure it stays so (DELETE) */                 \
	X(ASK, 6, IPC_WORK_PHASE, 2 + 16 + 1, 0)                                                  \
	X(CANCEL, 8, IPC_WORK_PHASE, 16, 0)                                                       \
	/* length of the exposition text (0: it could not be told); conditions that are not met   \
	 * (readiness.h); the text */                                                             \
	X(METRICS, 10, IPC_WORK_PHASE, 8, 1)                                                      \
	X(STOP, 12, IPC_WORK_PHASE, 0, 0)                                                         \
	/* destination: can it be reached, and does it know us? */                                \
	X(PROBE, 14, IPC_WORK_PHASE, 2, 0)                                                        \
	/* are you there? - yes */                                                                \
	X(PING, 16, IPC_WORK_PHASE, 0, 0)                                                         \
	X(PONG, 11, IPC_WORK_PHASE, 0, 0)                                                         \
	/* destination, status or 0, the server's clock (seconds since 1970, 0: untold), kind ("" \
	 * if all is well), text */                                                               \
	X(PROBED, 9, IPC_WORK_PHASE, 2 + 2 + 8 + 2 + 32 + 2 + 512, 0)

enum ipc_type {

#define X(id, number, phase, max, fds) IPC_##id = (number),
	IPC_MESSAGES(X)
#undef X
};

struct ipc_rule { /* a line of such a table */
	uint16_t type;
	uint16_t phase;
	uint32_t max;
	uint32_t fds;
};

struct ipc_writer {
	uint8_t bytes[IPC_PACKET_MAX];
	size_t len;
	bool too_long;
};

void ipc_start(struct ipc_writer *w, enum ipc_type type);
void ipc_start_number(struct ipc_writer *w, uint16_t type); /* of another table */
void ipc_put_u8(struct ipc_writer *w, uint8_t v);
void ipc_put_u16(struct ipc_writer *w, uint16_t v);
void ipc_put_u32(struct ipc_writer *w, uint32_t v);
void ipc_put_u64(struct ipc_writer *w, uint64_t v);
void ipc_put_bytes(struct ipc_writer *w, const void *data, size_t len);
void ipc_put_text(struct ipc_writer *w, struct slice text);

struct ipc_reader {
	enum ipc_type type; /* with ipc_open() */
	uint16_t number;    /* the same, of whatever table */
	struct slice rest;
	bool bad;
};

/* Checks magic, version, type, direction, phase, body size and the number of descriptors: all
 * before any handler sees it. INPUT says which. */
CEDE_MUST_USE int ipc_open(struct slice packet, size_t fds, bool from_courier, enum ipc_phase phase,
	struct ipc_reader *ret, struct cede_error *reterr);
/* The same by another table; from_child: odd numbers are expected. */
CEDE_MUST_USE int ipc_open_by(const struct ipc_rule *rules, size_t n, struct slice packet, size_t fds,
	bool from_child, enum ipc_phase phase, struct ipc_reader *ret, struct cede_error *reterr);
uint8_t ipc_get_u8(struct ipc_reader *r);
uint16_t ipc_get_u16(struct ipc_reader *r);
uint32_t ipc_get_u32(struct ipc_reader *r);
uint64_t ipc_get_u64(struct ipc_reader *r);
void ipc_get_bytes(struct ipc_reader *r, void *to, size_t len);
struct slice ipc_get_text(struct ipc_reader *r); /* borrowed from the packet */
/* Whether everything was there and nothing is left. */
CEDE_MUST_USE int ipc_end(const struct ipc_reader *r, struct cede_error *reterr);
