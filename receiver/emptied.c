/* SPDX-License-Identifier: Apache-2.0 */
#include "receiver/emptied.h"

#include <openssl/evp.h>
#include <search.h>
#include <stdlib.h>

#include "base/bytes.h"
#include "base/cleanup.h"
#include "base/hex.h"
#include "formats/detail.h"

struct pruning {
	uint64_t by; /* sequence of its ledger-pruned */
	uint64_t count;
	EVP_MD_CTX *md; /* over their sequences */
};

static int by_sequence(const void *x, const void *y) {
	const struct pruning *a = x;
	const struct pruning *b = y;

	return (a->by > b->by) - (a->by < b->by);
}

static void pruning_free(void *p) {
	EVP_MD_CTX_free(((struct pruning *)p)->md);
	free(p);
}

void emptied_done(struct emptied *e) {
	tdestroy(e->waiting, pruning_free);
	e->waiting = NULL;
}

static struct pruning *find(const struct emptied *e, uint64_t by) {
	const struct pruning want = {.by = by};
	struct pruning *const *at = tfind(&want, &e->waiting, by_sequence);

	return at == NULL ? NULL : *at;
}

static int begin(struct emptied *e, const EVP_MD *md, uint64_t by, struct pruning **ret,
	struct cede_error *reterr) {
	struct pruning *p = calloc(1, sizeof *p);

	if (p == NULL)
		return CEDE_FAIL_MEMORY(reterr);
	p->by = by;
	p->md = EVP_MD_CTX_new();
	if (p->md == NULL || EVP_DigestInit_ex2(p->md, md, NULL) != 1 ||
		tsearch(p, &e->waiting, by_sequence) == NULL) {
		pruning_free(p);
		return CEDE_FAIL_MEMORY(reterr);
	}
	*ret = p;
	return CEDE_OK;
}

int emptied_add(struct emptied *e, const EVP_MD *md, uint64_t sequence, uint64_t by,
	struct cede_error *reterr) {
	struct pruning *p = find(e, by);
	uint8_t bytes[8];

	if (p == NULL)
		CEDE_TRY(begin(e, md, by, &p, reterr));
	p->count++;
	put_le64(bytes, sequence);
	return EVP_DigestUpdate(p->md, bytes, sizeof bytes) == 1
		? CEDE_OK
		: CEDE_FAIL(reterr, CEDE_ERR_CRYPTO, "SHA-256 failed");
}

int emptied_explain(struct emptied *e, uint64_t sequence, struct slice detail,
	const char **ret_wrong, struct cede_error *reterr) {
	struct pruning *p = find(e, sequence);
	struct slice value = SLICE_NONE;
	uint8_t digest[32];
	uint64_t count = 0;
	char text[65];

	*ret_wrong = "what it says it emptied is there";
	if (p == NULL)
		return CEDE_OK;
	if (EVP_DigestFinal_ex(p->md, digest, NULL) != 1)
		return CEDE_FAIL(reterr, CEDE_ERR_CRYPTO, "SHA-256 failed");
	hex_print(digest, sizeof digest, text);
	(void)detail_find(detail, "digest", &value);
	bool right = detail_u64(detail, "events", &count, NULL) == CEDE_OK && count == p->count &&
		slice_is(value, text);
	*ret_wrong = right ? NULL : "other events were emptied than it says";
	(void)tdelete(p, &e->waiting, by_sequence);
	pruning_free(p);
	return CEDE_OK;
}

static void look_for_least(const void *node, VISIT visit, void *ctx) {
	const struct pruning *p = *(struct pruning *const *)node;
	uint64_t *least = ctx;

	if ((visit == postorder || visit == leaf) && (*least == 0 || p->by < *least))
		*least = p->by;
}

bool emptied_unexplained(const struct emptied *e, uint64_t *ret_by) {
	uint64_t least = 0;

	twalk_r(e->waiting, look_for_least, &least);
	*ret_by = least;
	return least != 0;
}
