/* SPDX-License-Identifier: Apache-2.0
 * What a wipe can be worth, and why it is not worth more: two lists of stable identifiers. They
 * stand in the ledger, in metrics, in reports and in docs/wiping.md.
 *
 * Thread  pure. */
#pragma once

#include <stdint.h>

#include "policy/policy.h"

/* id, name, term of NIST SP 800-88 that may be used for it; from the weakest to the strongest */
#define WIPE_LEVELS(X)                                                                      \
	/* the name is gone; data may remain */                                             \
	X(REMOVED, "removed", "none")                                                       \
	/* overwritten, and the storage keeps, or may keep, other copies */                 \
	X(UNPROVEN, "unproven", "none")                                                     \
	/* every block that the file has now was overwritten where it is */                 \
	X(OVERWRITTEN_CURRENT, "overwritten-current",                                       \
		"Clear technique applied to the file; not Clear of the medium")             \
	/* the same, and the agent saw its whole life: it never had other blocks */         \
	X(OVERWRITTEN_WATCHED, "overwritten-watched",                                       \
		"Clear technique applied to the file; not Clear of the medium")             \
	/* only ciphertext was ever on the disk, and every copy of its key was destroyed */ \
	X(CRYPTO_ERASED, "crypto-erased",                                                   \
		"Cryptographic Erase, where the custody of the key is documented")

enum wipe_level {

#define X(id, name, term) WIPE_##id,
	WIPE_LEVELS(X)
#undef X
		WIPE_LEVEL_COUNT
};

/* id, the best level that it leaves, name, sentence */
#define WIPE_REASONS(X)                                                                               \
	X(PENDING_ERASE, REMOVED, "pending-erase",                                                    \
		"only ciphertext was ever on the disk, and the key of its epoch is still there")      \
	X(UNKNOWN_FILE_SYSTEM, UNPROVEN, "unknown-file-system",                                       \
		"whether this file system overwrites in place is not known")                          \
	X(COPY_ON_WRITE, UNPROVEN, "copy-on-write",                                                   \
		"the file system writes what is new elsewhere and leaves what was there")             \
	X(OVERLAY, UNPROVEN, "overlay", "an overlay may keep the original in a lower layer")          \
	X(MEMORY, UNPROVEN, "memory", "a file system in memory, which may have been swapped out")     \
	X(NETWORK, UNPROVEN, "network", "the blocks are another machine's")                           \
	X(UNKNOWN_MOUNT, UNPROVEN, "unknown-mount", "the options of its mount can't be read")         \
	X(DATA_JOURNALLED, UNPROVEN, "data-journalled",                                               \
		"the journal has a copy of the content, and it was not scrubbed")                     \
	X(INLINE_DATA, UNPROVEN, "inline-data",                                                       \
		"its content lay in the inode, of which the journal has copies that were not "        \
		"scrubbed")                                                                           \
	X(SHARED_EXTENTS, UNPROVEN, "shared-extents",                                                 \
		"a clone or snapshot shares its blocks, and keeps them")                              \
	X(ENCODED_EXTENTS, UNPROVEN, "encoded-extents", "its blocks are compressed or packed")        \
	X(EXTENTS_UNKNOWN, UNPROVEN, "extents-unknown", "the file system does not tell its blocks")   \
	X(TOO_MANY_EXTENTS, UNPROVEN, "too-many-extents",                                             \
		"in too many pieces (more than 256) for each of them to be compared")                 \
	X(MOVED, UNPROVEN, "moved", "it was written to other blocks than it had")                     \
	X(USER_ATTRIBUTES, UNPROVEN, "user-attributes",                                               \
		"it had user attributes; they were overwritten and removed, copies may stay")         \
	X(READ_BACK_UNAVAILABLE, UNPROVEN, "read-back-unavailable",                                   \
		"the policy wants each read back from the device, which can't be done here")          \
	X(WRITTEN_WHILE_WIPED, UNPROVEN, "written-while-wiped",                                       \
		"another program wrote to it in the midst")                                           \
	X(RENAMED_WHILE_WIPED, UNPROVEN, "renamed-while-wiped",                                       \
		"another program renamed it in the midst; it is overwritten and empty")               \
	X(INTERRUPTED, UNPROVEN, "interrupted",                                                       \
		"an earlier process overwrote it; what it found was lost with it")                    \
	X(HARD_LINK, UNPROVEN, "hard-link", "it has another name")                                    \
	X(HISTORY_UNKNOWN, OVERWRITTEN_CURRENT, "history-unknown",                                    \
		"blocks that it had earlier are not known: it was not watched from its creation on, " \
		"or was written more than once")

enum wipe_reason {

#define X(id, best, name, text) WIPE_REASON_##id,
	WIPE_REASONS(X)
#undef X
		WIPE_REASON_COUNT
};

/* Several reasons are a set of bits. */
typedef uint32_t wipe_reasons;
#define WIPE_BIT(id) (UINT32_C(1) << WIPE_REASON_##id)

/* What emptying the journal after the overwriting makes good. */
#define WIPE_SCRUB_LIFTS (WIPE_BIT(DATA_JOURNALLED) | WIPE_BIT(INLINE_DATA))

#define WIPE_REASONS_SIZE 400 /* all of them fit */

const char *wipe_level_name(enum wipe_level level);
const char *wipe_level_term(enum wipe_level level);
const char *wipe_reason_name(enum wipe_reason reason);
const char *wipe_reason_text(enum wipe_reason reason);
/* The least level that meets a requirement of the policy. */
enum wipe_level wipe_required(enum wipe_require require);
/* The best level that these reasons leave to an overwriting. */
enum wipe_level wipe_best(wipe_reasons reasons);
/* Of these, the ones that leave no more than that level. */
wipe_reasons wipe_decisive(wipe_reasons reasons);
/* Their names with commas between, "" for none. */
void wipe_reasons_print(wipe_reasons reasons, char out[WIPE_REASONS_SIZE]);
