/* SPDX-License-Identifier: Apache-2.0
 * The wipe: overwrite in place, flush once for many, unlink. wipe.c holds the only unlink of a
 * capture in the product. What it was worth is said for each file (agent/wipe/levels.h).
 *
 * Promise a file is touched only if, on the open descriptor and with every other program shut out
 *         (a write lease, where the file system has leases), it is still the file that was sealed
 *         (I3): same device, inode, size, mtime, ctime, one link. Nothing is unlinked before its
 *         overwriting was flushed and the flush succeeded.
 *         What is written is a fixed pseudo-random stream, so that a wipe that was cut short can be
 *         told from new content of the same inode.
 *         While a program has the file open for reading there is no lease; then writers are asked
 *         for before and after the overwriting, and one that came between gets WIPE_REPLACED.
 * Needs   SIGIO ignored by the process; the files' owner or CAP_LEASE (without leases, as on
 * network file systems, the comparing alone has to do). Thread  any; blocking (a pool job). */
#pragma once

#include "agent/wipe/levels.h"
#include "base/error.h"
#include "base/file.h"

enum wipe_outcome {
	WIPE_DONE,   /* overwritten as level says, flushed, unlinked, directory flushed */
	WIPE_ABSENT, /* no file of that name (and its file system is there); after a crash in the
			midst of wiping: it was done */
	/* Another file, or changed since: not touched. With the reason WRITTEN_WHILE_WIPED a
	 * program got at it during the overwriting: what is there now is that program's. */
	WIPE_REPLACED,
	WIPE_BUSY, /* a program has it open for writing (or holds it in a way that excludes us): not touched, try again */
	WIPE_HELD, /* still the file that was sealed, and `held`: not touched */
	WIPE_KEPT, /* the same, and here a wipe would be worth less than `least`: not touched */
	WIPE_FAILED, /* the system refused, or the file can't be reached now: try again; touched
			says whether what is there may be overwritten in part */
};

struct wipe_item {
	/* in */
	int source_fd;    /* directory of the source; borrowed */
	const char *path; /* relative to it; borrowed */
	struct file_identity want;
	uint8_t sha256[32]; /* of the content that was sealed, or over the digests of its segments */
	uint64_t segment_size; /* 0: it went whole */
	/* An earlier wipe of it was cut short: its times may differ. It is still ours if its
	 * content is what was sealed, or if our own overwriting is seen in it; a camera that wrote
	 * the same inode anew since then gets WIPE_REPLACED. */
	bool begun;
	/* Its content is encrypted under a key that will be destroyed: it is unlinked and not
	 * overwritten; level WIPE_REMOVED, reason "pending-erase". */
	bool key_goes;
	/* A legal hold covers it: it is left alone, unless an earlier wipe of it has begun. */
	bool held;
	/* Nothing is touched that would not reach this (unless an earlier wipe of it got to it);
	 * WIPE_REMOVED: whatever the storage allows. */
	enum wipe_level least;
	bool watched; /* its whole life was seen: agent/watch/lives.h */
	/* ALL: read it back from the device; SAMPLE: the same, where that can be done */
	enum wipe_verify verify;
	bool scrub; /* the journal may be emptied, where what was journalled of it would stay */
	/* out */
	enum wipe_outcome outcome;
	bool touched;          /* its overwriting began */
	enum wipe_level level; /* what it was worth; with WIPE_KEPT, what it could be at best */
	wipe_reasons reasons;  /* why it is not better */
	bool scrubbed;         /* its name went from the journal as well, if it had a name here */
	int64_t scrub_took_ns; /* with the first of a file system; how long its writers waited */
	struct cede_error err; /* with WIPE_FAILED */
};

/* Wipes all of them; one flush (syncfs) per file system and round of open files, not per file, and
 * one scrub at the end where one is needed. Each item has its outcome; the call itself fails only
 * on BUG or memory, with nothing touched. */
CEDE_MUST_USE int wipe_batch(struct wipe_item *items, size_t n, struct cede_error *reterr);
