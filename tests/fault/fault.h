/* SPDX-License-Identifier: Apache-2.0
 * The page that a test shares with a program it breaks (fault.c); lib/faults.py has the same layout. */
#pragma once

#include <stdatomic.h>
#include <stdint.h>

#define FAULT_MAGIC 0x746c7561U

/* id, name: what is counted, and can be broken, one by one */
#define FAULT_CALLS(X)                                                  \
	X(OPEN, "open") /* also of directories and beneath (openat2) */ \
	X(CREATE, "create")                                             \
	X(READ, "read")   /* of files */                                \
	X(WRITE, "write") /* of files and memory files */               \
	X(SYNC, "fsync")                                                \
	X(LINK, "rename") /* and link */                                \
	X(UNLINK, "unlink")                                             \
	X(RESIZE, "truncate") /* and fallocate */                       \
	X(MAP, "mmap")                                                  \
	X(ALLOC, "malloc")                                              \
	X(SEND, "send")       /* of sockets */                          \
	X(RECEIVE, "receive") /* of sockets */                          \
	X(MKDIR, "mkdir")                                               \
	X(STAT, "stat")                                                 \
	X(LEASE, "lease")                                               \
	X(KEY, "key") /* of a file system's encryption, and policies */

enum fault_call {

#define X(id, name) FAULT_##id,
	FAULT_CALLS(X)
#undef X
		FAULT_CALL_COUNT
};

enum fault_action { FAULT_NOTHING, FAULT_KILL, FAULT_FAIL };

struct fault_page {
	uint32_t magic;
	uint32_t action; /* enum fault_action */
	int32_t error;   /* errno of FAULT_FAIL */
	uint32_t mask;   /* 1 << enum fault_call: what matches */
	uint64_t at;     /* the call that is hit, counted from 1 among those that match */
	_Atomic uint64_t matched;
	_Atomic uint32_t fired;
	int32_t fired_call;
	_Atomic uint64_t count[FAULT_CALL_COUNT];
	uint32_t distinct; /* of calls from the same place (call stack) only the first matches */
};
