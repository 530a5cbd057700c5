/* SPDX-License-Identifier: Apache-2.0
 * Merkle trees as in RFC 9162 section 2.1 (and RFC 6962): the root over a list that only grows, and
 * short proofs that a longer list begins with a shorter one. SHA-256.
 *
 * Thread  a struct merkle_hasher belongs to one thread at a time. Fails   CRYPTO. */
#pragma once

#include <openssl/types.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/bytes.h"
#include "base/error.h"

#define MERKLE_LEVELS    63
#define MERKLE_PROOF_MAX 64 /* hashes in a proof */

struct merkle_hasher {
	EVP_MD *md; /* fetched once: each look-up by name takes a lock */
	EVP_MD_CTX *ctx;
};

CEDE_MUST_USE int merkle_hasher_init(struct merkle_hasher *h, struct cede_error *reterr);
void merkle_hasher_done(struct merkle_hasher *h);

/* SHA-256(0x00 || entry), SHA-256(0x01 || left || right) */
CEDE_MUST_USE int merkle_leaf(
	struct merkle_hasher *h, struct slice entry, uint8_t ret[32], struct cede_error *reterr);
CEDE_MUST_USE int merkle_node(struct merkle_hasher *h, const uint8_t left[32],
	const uint8_t right[32], uint8_t ret[32], struct cede_error *reterr);

/* The whole subtrees that a list of this size consists of, the largest first: enough to go on. */
struct merkle_edge {
	uint64_t size;
	unsigned count; /* of nodes: bits set in size */
	uint8_t nodes[MERKLE_LEVELS + 1][32];
};

/* Called for each whole subtree that the new leaf completes, from height 1 on. */
typedef int merkle_made_fn(void *ctx, unsigned height, uint64_t index, const uint8_t hash[32],
	struct cede_error *reterr);
CEDE_MUST_USE int merkle_append(struct merkle_hasher *h, struct merkle_edge *edge,
	const uint8_t leaf[32], merkle_made_fn *made /* or NULL */, void *ctx,
	struct cede_error *reterr);
/* The root of what the edge holds; of nothing: SHA-256 of nothing. */
CEDE_MUST_USE int merkle_root(struct merkle_hasher *h, const struct merkle_edge *edge,
	uint8_t ret[32], struct cede_error *reterr);

/* Lends the whole subtree of this height over the leaves index * 2^height and on. */
typedef int merkle_get_fn(
	void *ctx, unsigned height, uint64_t index, uint8_t ret[32], struct cede_error *reterr);
/* The root over the leaves from start on, so many. */
CEDE_MUST_USE int merkle_range(struct merkle_hasher *h, uint64_t start, uint64_t size,
	merkle_get_fn *get, void *ctx, uint8_t ret[32], struct cede_error *reterr);

struct merkle_proof {
	size_t count;
	uint8_t hashes[MERKLE_PROOF_MAX][32];
};

/* That the list of `size` begins with the one of `from` (1 <= from <= size). */
CEDE_MUST_USE int merkle_consistency(struct merkle_hasher *h, uint64_t from, uint64_t size,
	merkle_get_fn *get, void *ctx, struct merkle_proof *ret, struct cede_error *reterr);
/* Section 2.1.4.2. REFUSED: it does not prove it. */
CEDE_MUST_USE int merkle_check_consistency(struct merkle_hasher *h, uint64_t from,
	const uint8_t from_root[32], uint64_t size, const uint8_t root[32],
	const struct merkle_proof *proof, struct cede_error *reterr);
