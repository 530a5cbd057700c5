/* SPDX-License-Identifier: Apache-2.0
 * Attempts on their way to the keeper: the same ones (process, program, file) are counted together
 * and told once a second, and no more are told than a ledger bears. None is lost from the counts:
 * what can't be told each is told as a number.
 *
 * Bounded  ATTEMPTS_SLOTS of them, whatever comes.
 * Thread   one at a time. */
#pragma once

#include "agent/guard/wire.h"

#define ATTEMPTS_SLOTS    64
#define ATTEMPTS_BURST    64
#define ATTEMPTS_A_SECOND 20

struct attempts {
	struct guard_attempt list[ATTEMPTS_SLOTS];
	int64_t due_boot_ns[ATTEMPTS_SLOTS]; /* not before */
	size_t count;
	size_t next;                      /* which one attempts_next() gave */
	uint64_t more_denied, more_noted; /* found no slot */

	struct {
		uint64_t hash;
		int64_t at_boot_ns;
	} told[ATTEMPTS_SLOTS]; /* ring: the last ones */

	size_t told_next;
	uint64_t tokens_ns; /* each telling costs a second's ATTEMPTS_A_SECOND-th */
	int64_t filled_boot_ns;
};

void attempts_init(struct attempts *a, int64_t boot_ns);
void attempts_add(struct attempts *a, const struct guard_attempt *attempt, int64_t boot_ns);
/* The one to be told now, or NULL: none, or not yet. */
const struct guard_attempt *attempts_next(struct attempts *a, int64_t boot_ns);
/* The one that attempts_next() gave was told. */
void attempts_told(struct attempts *a, int64_t boot_ns);
/* Takes the numbers of what is not told each; false: none. */
bool attempts_more(struct attempts *a, uint64_t *ret_denied, uint64_t *ret_noted);
