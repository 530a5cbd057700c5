/* SPDX-License-Identifier: Apache-2.0
 * The Merkle tree over the events' hashes. Whole subtrees of 64 events and more are kept; what is
 * below is made from the events when it is needed. */
#include <string.h>

#include "agent/ledger/ledger_internal.h"

#define STORED_HEIGHT 6

static int store_node(void *ctx, unsigned height, uint64_t index, const uint8_t hash[32],
	struct cede_error *reterr) {
	struct ledger *l = ctx;
	sqlite3_stmt *st;

	if (height < STORED_HEIGHT)
		return CEDE_OK;
	CEDE_TRY(ledger_use(l, ST_TREE_ADD, &st, reterr));
	LEDGER_TRY_BIND(l, sqlite3_bind_int64(st, 1, height), reterr);
	LEDGER_TRY_BIND(l, sqlite3_bind_int64(st, 2, (int64_t)index), reterr);
	LEDGER_TRY_BIND(l, sqlite3_bind_blob(st, 3, hash, 32, SQLITE_STATIC), reterr);
	return ledger_run(l, st, reterr);
}

int ledger_tree_add(struct ledger *l, const uint8_t hash[32], struct cede_error *reterr) {
	uint8_t leaf[32];

	CEDE_TRY(merkle_leaf(&l->hasher, slice_of(hash, 32), leaf, reterr));
	return merkle_append(&l->hasher, &l->edge, leaf, store_node, l, reterr);
}

static int damaged(struct cede_error *reterr, uint64_t sequence) {
	return CEDE_FAIL(reterr, CEDE_ERR_INPUT,
		"ledger: damaged: event %llu or the tree above it; nothing is wiped; see cede ledger verify",
		(unsigned long long)sequence);
}

/* Adds the hashes of events first to last (sequences) to an edge. */
static int add_events(struct ledger *l, uint64_t first, uint64_t last, struct merkle_edge *edge,
	merkle_made_fn *made, struct cede_error *reterr) {
	sqlite3_stmt *st;
	bool there;

	CEDE_TRY(ledger_use(l, ST_HASHES, &st, reterr));
	LEDGER_TRY_BIND(l, sqlite3_bind_int64(st, 1, (int64_t)first), reterr);
	LEDGER_TRY_BIND(l, sqlite3_bind_int64(st, 2, (int64_t)last), reterr);
	for (uint64_t i = first; i <= last; i++) {
		uint8_t leaf[32];
		CEDE_TRY(ledger_row(l, st, &there, reterr));
		if (!there || (uint64_t)sqlite3_column_int64(st, 0) != i ||
			sqlite3_column_bytes(st, 1) != 32)
			return damaged(reterr, i);
		CEDE_TRY(merkle_leaf(
			&l->hasher, slice_of(sqlite3_column_blob(st, 1), 32), leaf, reterr));
		CEDE_TRY(merkle_append(&l->hasher, edge, leaf, made, l, reterr));
	}
	(void)sqlite3_reset(st);
	return CEDE_OK;
}

int ledger_tree_get(
	void *ctx, unsigned height, uint64_t index, uint8_t ret[32], struct cede_error *reterr) {
	struct merkle_edge edge = {0};
	struct ledger *l = ctx;
	sqlite3_stmt *st;
	bool there;

	if (height < STORED_HEIGHT) {
		CEDE_TRY(add_events(
			l, (index << height) + 1, (index + 1) << height, &edge, NULL, reterr));
		return merkle_root(&l->hasher, &edge, ret, reterr);
	}
	CEDE_TRY(ledger_use(l, ST_TREE_GET, &st, reterr));
	LEDGER_TRY_BIND(l, sqlite3_bind_int64(st, 1, height), reterr);
	LEDGER_TRY_BIND(l, sqlite3_bind_int64(st, 2, (int64_t)index), reterr);
	CEDE_TRY(ledger_row(l, st, &there, reterr));
	if (!there || sqlite3_column_bytes(st, 0) != 32)
		return damaged(reterr, (index << height) + 1);
	memcpy(ret, sqlite3_column_blob(st, 0), 32);
	(void)sqlite3_reset(st);
	return CEDE_OK;
}

int ledger_tree_load(struct ledger *l, struct cede_error *reterr) {
	uint64_t start = 0;

	l->edge.size = l->sequence;
	l->edge.count = 0;
	for (unsigned height = MERKLE_LEVELS; height-- > 0;) {
		uint64_t size = UINT64_C(1) << height;
		if ((l->sequence & size) == 0)
			continue;
		CEDE_TRY(ledger_tree_get(
			l, height, start >> height, l->edge.nodes[l->edge.count++], reterr));
		start += size;
	}
	l->committed_edge = l->edge;
	return CEDE_OK;
}

int ledger_tree_build(struct ledger *l, struct cede_error *reterr) {
	l->edge = (struct merkle_edge){0};
	return add_events(l, 1, l->sequence, &l->edge, store_node, reterr);
}
