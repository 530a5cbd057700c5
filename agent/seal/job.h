/* SPDX-License-Identifier: Apache-2.0
 * Reads captures, each once and whole under a read lease, and makes one sealed bundle of those that
 * are still what they were when they were found complete.
 *
 * Promise no capture is read while a program has it open for writing (a read lease, where the file
 *         system has leases), and none is sealed whose identity changed before or while it was read.
 *         No plaintext leaves memory.
 * Thread  seal_run() on a pool thread; a struct seal_job belongs to one thread at a time. */
#pragma once

#include <stdatomic.h>

#include "base/file.h"
#include "certs/seal.h"
#include "formats/id.h"
#include "policy/policy.h"

enum seal_outcome {
	SEAL_DONE,    /* in the bundle */
	SEAL_CHANGED, /* another file or content than was found: look at it again */
	SEAL_BUSY,    /* a program has it open for writing: look again later */
	SEAL_GONE,    /* no file of that name */
	SEAL_FAILED,  /* could not be read, or its file system is not mounted: try again later */
	SEAL_RESIZED, /* its segments are larger than what may be read at once now */
	SEAL_LEFT,    /* not reached: the job failed or was stopped */
};

struct seal_item {
	/* in; strings are owned by the item */
	int64_t row;
	struct id id;
	size_t source;
	int source_fd; /* borrowed */
	char *path;
	char *group; /* or "" */
	struct file_identity identity;
	bool again; /* reading it failed before */
	bool anew;  /* sealed before: if its content is this one, another ctime does not count */
	uint8_t sealed_sha256[32];
	uint64_t offset; /* of the segment; 0 for a whole capture */
	uint64_t length; /* bytes to take */
	uint32_t segment_index;
	uint32_t segment_count;
	/* out */
	enum seal_outcome outcome;
	int sys; /* errno with SEAL_FAILED */
	uint8_t sha256[32];
};

struct seal_job {
	/* in */
	const struct policy *policy;
	const struct sealer_keys *keys;
	const char *host;
	struct id bundle;
	int64_t now_ns;
	uint64_t ledger_sequence;
	uint8_t ledger_hash[32];
	struct slice checkpoint; /* signed, of all before; borrowed; or empty */
	struct seal_item *items; /* owned */
	size_t count;
	uint8_t *buffer; /* borrowed; room for the lengths of all items */
	size_t buffer_size;
	int spool_fd; /* directory to spool into, or -1: a memory file */
	const _Atomic bool *stop;
	/* out */
	int result; /* CEDE_OK also when no capture was left to seal: then fd is -1 */
	struct cede_error err;
	int fd;
	uint64_t size;
	uint8_t sha256[32];
	size_t sealed; /* items with SEAL_DONE */
};

void seal_run(struct seal_job *job);
void seal_items_free(struct seal_item *items, size_t n);
