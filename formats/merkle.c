/* SPDX-License-Identifier: Apache-2.0 */
#include "formats/merkle.h"

#include <openssl/evp.h>
#include <string.h>

#include "base/check.h"

int merkle_hasher_init(struct merkle_hasher *h, struct cede_error *reterr) {
	h->md = EVP_MD_fetch(NULL, "SHA256", NULL);
	h->ctx = EVP_MD_CTX_new();
	if (h->md != NULL && h->ctx != NULL)
		return CEDE_OK;
	merkle_hasher_done(h);
	return CEDE_FAIL_MEMORY(reterr);
}

void merkle_hasher_done(struct merkle_hasher *h) {
	EVP_MD_free(h->md);
	EVP_MD_CTX_free(h->ctx);
	h->md = NULL;
	h->ctx = NULL;
}

static int hash(struct merkle_hasher *h, uint8_t prefix, struct slice a, struct slice b,
	uint8_t ret[32], struct cede_error *reterr) {
	if (EVP_DigestInit_ex2(h->ctx, h->md, NULL) != 1 ||
		EVP_DigestUpdate(h->ctx, &prefix, 1) != 1 ||
		EVP_DigestUpdate(h->ctx, a.data, a.len) != 1 ||
		(b.len > 0 && EVP_DigestUpdate(h->ctx, b.data, b.len) != 1) ||
		EVP_DigestFinal_ex(h->ctx, ret, NULL) != 1)
		return CEDE_FAIL(reterr, CEDE_ERR_CRYPTO, "SHA-256 failed");
	return CEDE_OK;
}

int merkle_leaf(
	struct merkle_hasher *h, struct slice entry, uint8_t ret[32], struct cede_error *reterr) {
	return hash(h, 0, entry, SLICE_NONE, ret, reterr);
}

int merkle_node(struct merkle_hasher *h, const uint8_t left[32], const uint8_t right[32],
	uint8_t ret[32], struct cede_error *reterr) {
	return hash(h, 1, slice_of(left, 32), slice_of(right, 32), ret, reterr);
}

int merkle_append(struct merkle_hasher *h, struct merkle_edge *edge, const uint8_t leaf[32],
	merkle_made_fn *made, void *ctx, struct cede_error *reterr) {
	unsigned count = edge->count;
	uint8_t node[32];
	unsigned height = 0;

	memcpy(node, leaf, sizeof node);
	/* each bit that is set at the low end is a subtree that the new one completes */
	for (uint64_t rest = edge->size; (rest & 1) != 0; rest >>= 1) {
		CEDE_TRY(merkle_node(h, edge->nodes[--count], node, node, reterr));
		height++;
		if (made != NULL)
			CEDE_TRY(made(ctx, height, edge->size >> height, node, reterr));
	}
	require(count <= MERKLE_LEVELS);
	memcpy(edge->nodes[count], node, sizeof node);
	edge->count = count + 1;
	edge->size++;
	return CEDE_OK;
}

int merkle_root(struct merkle_hasher *h, const struct merkle_edge *edge, uint8_t ret[32],
	struct cede_error *reterr) {
	if (edge->count == 0) {
		if (EVP_Digest("", 0, ret, NULL, h->md, NULL) != 1)
			return CEDE_FAIL(reterr, CEDE_ERR_CRYPTO, "SHA-256 failed");
		return CEDE_OK;
	}
	memcpy(ret, edge->nodes[edge->count - 1], 32);
	for (unsigned i = edge->count - 1; i > 0; i--)
		CEDE_TRY(merkle_node(h, edge->nodes[i - 1], ret, ret, reterr));
	return CEDE_OK;
}

static unsigned height_of(uint64_t size) {
	return (unsigned)(63 - __builtin_clzll(size));
}

static bool is_power(uint64_t size) {
	return (size & (size - 1)) == 0;
}

/* The largest power of two below size, which is at least 2. */
static uint64_t split(uint64_t size) {
	return UINT64_C(1) << height_of(size - 1);
}

int merkle_range(struct merkle_hasher *h, uint64_t start, uint64_t size, merkle_get_fn *get,
	void *ctx, uint8_t ret[32], struct cede_error *reterr) {
	uint8_t left[32];

	require(size > 0);
	if (is_power(size) && (start & (size - 1)) == 0)
		return get(ctx, height_of(size), start >> height_of(size), ret, reterr);
	uint64_t k = split(size);
	CEDE_TRY(merkle_range(h, start, k, get, ctx, left, reterr));
	CEDE_TRY(merkle_range(h, start + k, size - k, get, ctx, ret, reterr));
	return merkle_node(h, left, ret, ret, reterr);
}

int merkle_consistency(struct merkle_hasher *h, uint64_t from, uint64_t size, merkle_get_fn *get,
	void *ctx, struct merkle_proof *ret, struct cede_error *reterr) {
	struct {
		uint64_t start, size;
	} parts[MERKLE_PROOF_MAX];

	uint64_t start = 0;
	bool whole = true; /* the older list is the verifier's own: not in the proof */
	size_t n = 0;

	require(from > 0 && from <= size);
	/* section 2.1.4.1, from the root down; the proof is given from below up */
	while (from != size) {
		uint64_t k = split(size);
		if (from <= k) {
			parts[n].start = start + k;
			parts[n++].size = size - k;
			size = k;
		} else {
			parts[n].start = start;
			parts[n++].size = k;
			start += k;
			from -= k;
			size -= k;
			whole = false;
		}
	}
	ret->count = 0;
	if (!whole)
		CEDE_TRY(merkle_range(h, start, size, get, ctx, ret->hashes[ret->count++], reterr));
	while (n-- > 0)
		CEDE_TRY(merkle_range(h, parts[n].start, parts[n].size, get, ctx,
			ret->hashes[ret->count++], reterr));
	return CEDE_OK;
}

static int refused(struct cede_error *reterr) {
	return CEDE_FAIL(reterr, CEDE_ERR_REFUSED,
		"the proof does not show that one list extends the other");
}

int merkle_check_consistency(struct merkle_hasher *h, uint64_t from, const uint8_t from_root[32],
	uint64_t size, const uint8_t root[32], const struct merkle_proof *proof,
	struct cede_error *reterr) {
	uint8_t older[32], newer[32];
	uint64_t fn, sn;
	size_t at = 0;

	if (from == 0 || from > size || proof->count > MERKLE_PROOF_MAX)
		return refused(reterr);
	if (from == size)
		return proof->count == 0 && memcmp(from_root, root, 32) == 0 ? CEDE_OK
									     : refused(reterr);
	if (is_power(from)) {
		memcpy(older, from_root, sizeof older);
	} else {
		if (proof->count == 0)
			return refused(reterr);
		memcpy(older, proof->hashes[at++], sizeof older);
	}
	memcpy(newer, older, sizeof newer);
	for (fn = from - 1, sn = size - 1; (fn & 1) != 0; fn >>= 1, sn >>= 1)
		continue;
	for (; at < proof->count; at++) {
		const uint8_t *c = proof->hashes[at];
		if (sn == 0)
			return refused(reterr);
		if ((fn & 1) != 0 || fn == sn) {
			CEDE_TRY(merkle_node(h, c, older, older, reterr));
			CEDE_TRY(merkle_node(h, c, newer, newer, reterr));
			for (; fn != 0 && (fn & 1) == 0; fn >>= 1, sn >>= 1)
				continue;
		} else {
			CEDE_TRY(merkle_node(h, newer, c, newer, reterr));
		}
		fn >>= 1;
		sn >>= 1;
	}
	return sn == 0 && memcmp(older, from_root, 32) == 0 && memcmp(newer, root, 32) == 0
		? CEDE_OK
		: refused(reterr);
}
