/* SPDX-License-Identifier: Apache-2.0
 * What keeper and guard may say to each other; packets, readers and writers are agent/ipc's.
 *
 * The keeper gives rules (BEGIN, SOURCE and ALLOW as often as needed, GO) and gets READY or FAILED;
 * rules that failed leave the former ones in force. ADOPT comes before the first BEGIN, if an
 * earlier guard's descriptors are still there.
 *
 * Hostile peer  both ends check everything; the fuzz target is tests/fuzz/agent (guard). */
#pragma once

#include "agent/ipc/message.h"

#define GUARD_PATH_MAX 4096
#define GUARD_EXE_MAX  1024
#define GUARD_WHY_MAX  512
#define GUARD_USER_MAX 64
/* Directories that a source had before a turn of its vault, beside it: agent/vault/place.h */
#define GUARD_VAULT_STORE ".cede-vault"
#define GUARD_NO_SOURCE   0xffff /* the file has no name below a source: a link elsewhere, or moved */

/* id, number (odd: from the guard), largest body, descriptors */
#define GUARD_MESSAGES(X)                                                                        \
	/* allowed, denied, noted, unread; sources not all marked, programs not found */         \
	X(TICK, 1, 4 * 8 + 2 * 2, 0)                                                             \
	/* denied (1) or noted (0), pid, uid, how often, source, device, inode, path, program */ \
	X(ATTEMPT, 3, 1 + 4 + 4 + 8 + 2 + 8 + 8 + 2 + GUARD_PATH_MAX + 2 + GUARD_EXE_MAX, 0)     \
	/* denied, noted: too many to tell each */                                               \
	X(MORE, 5, 2 * 8, 0)                                                                     \
	/* sources: file systems, inodes, not all marked; the descriptor and its table */        \
	X(READY, 7, 2 * 4 + 2, 2)                                                                \
	X(FAILED, 9, 2 + GUARD_WHY_MAX, 0)                                                       \
	/* the fanotify descriptor and its table, of a guard that is gone */                     \
	X(ADOPT, 2, 0, 2)                                                                        \
	/* enforce (1) or report (0), the keeper's pid */                                        \
	X(BEGIN, 4, 1 + 4, 0)                                                                    \
	/* path; where the vault's epochs wait for their end, "": nowhere */                     \
	X(SOURCE, 6, 2 + GUARD_PATH_MAX + 2 + GUARD_PATH_MAX, 0)                                 \
	/* user, path of the program */                                                          \
	X(ALLOW, 8, 2 + GUARD_USER_MAX + 2 + GUARD_PATH_MAX, 0)                                  \
	X(GO, 10, 0, 0)                                                                          \
	/* a listening socket: whoever connects when the keeper is gone gets the descriptors */  \
	X(LISTEN, 14, 0, 1)                                                                      \
	X(STOP, 12, 0, 0)

enum guard_message {

#define X(id, number, max, fds) GUARD_##id = (number),
	GUARD_MESSAGES(X)
#undef X
};

void guard_put(struct ipc_writer *w, enum guard_message type); /* begins one */
CEDE_MUST_USE int guard_get(struct slice packet, size_t fds, bool from_guard,
	enum guard_message *ret_type, struct ipc_reader *ret, struct cede_error *reterr);

/* Somebody who is not allowed to opened, or tried to open, a file of a source. */
struct guard_attempt {
	bool denied;
	uint32_t pid;
	uint32_t uid;
	uint64_t count;  /* of the same program, process and file */
	uint16_t source; /* index, or GUARD_NO_SOURCE */
	uint64_t dev;    /* of the file; 0: not known */
	uint64_t ino;
	char path[GUARD_PATH_MAX]; /* below the source, or whole */
	char exe[GUARD_EXE_MAX];   /* path of the program, or "?" */
};

void guard_put_attempt(struct ipc_writer *w, const struct guard_attempt *a);
CEDE_MUST_USE int guard_get_attempt(
	struct ipc_reader *r, struct guard_attempt *ret, struct cede_error *reterr);
/* A text of the packet as a string. INPUT: it has a NUL or does not fit. */
CEDE_MUST_USE int guard_get_string(
	struct ipc_reader *r, char *out, size_t size, struct cede_error *reterr);
