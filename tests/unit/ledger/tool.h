/* SPDX-License-Identifier: Apache-2.0
 * What the ledger's tests share: a state directory of their own and short words for captures. */
#pragma once

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* cmocka.h needs the four above first */
#include <cmocka.h>

#include "agent/ledger/ledger.h"

#define NOW INT64_C(1700000000000000000)

struct bench { /* one test's own ledger */
	char dir[64];
	struct ledger *ledger;
};

/* cmocka's set-up and tear-down; *state is a struct bench. */
int bench_open(void **state);
int bench_close(void **state);
/* The path of a file of the state directory. */
void bench_path(const struct bench *b, const char *name, char out[128]);

/* Whether ledger_tally() says what the rows say, and which capture is the oldest. bench_close()
 * asks it after every test. */
bool tally_agrees(const struct bench *b);

struct ledger *of(void **state); /* the bench's ledger */
void begin(struct ledger *l);
void commit(struct ledger *l);
/* Records a complete file in a transaction of its own; inode tells files of one name apart. */
enum ledger_seen seen(struct ledger *l, const char *path, const char *group, uint64_t inode,
	uint64_t size, int64_t deadline_ns, int64_t *ret_row);
/* Takes as ledger_take() does; returns how many, their rows in rows (room for 64). */
size_t take(struct ledger *l, size_t captures, uint64_t bytes, int64_t *rows);
/* The same with company, or while a large one is under way. */
size_t take_beside(struct ledger *l, enum ledger_large large, uint64_t bytes, int64_t *rows);
/* Seals these rows into a new bundle. */
int64_t seal(struct ledger *l, const int64_t *rows, size_t n, bool spooled, struct id *ret_id);
void receipted(struct ledger *l, int64_t bundle);
bool done(struct ledger *l, int64_t bundle);
void wiped(struct ledger *l, int64_t row);
/* Segment i of n, 100 bytes each, is in the bundle. */
void one_segment(struct ledger *l, int64_t row, int64_t bundle, uint32_t i, uint32_t n);
void abandon(struct ledger *l, int64_t bundle);
enum capture_state state_of(struct ledger *l, int64_t row);
