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
	uint64_t last;  /* of them */
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
	free(e->list);
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
	p->last = sequence;
	put_le64(bytes, sequence);
	return EVP_DigestUpdate(p->md, bytes, sizeof bytes) == 1
		? CEDE_OK
		: CEDE_FAIL(reterr, CEDE_ERR_CRYPTO, "SHA-256 failed");
}

/* A bundle has three events at least, sealed, receipted and done; a capture that it was seen. */
static bool counts_fit(const struct pruned *said, uint64_t events) {
	return said->bundles > 0 && said->bundles <= events / 3 &&
		said->captures <= events - 3 * said->bundles;
}

static const char *contradicted(const struct pruning *p, const struct pruned_event *event,
	const char *digest, struct pruned *ret) {
	struct slice value = SLICE_NONE;
	uint64_t count;

	(void)detail_find(event->detail, "digest", &value);
	if (detail_u64(event->detail, "events", &count, NULL) < 0 || count != p->count ||
		!slice_is(value, digest))
		return "other events were emptied than it says";
	if (detail_u64(event->detail, "captures", &ret->captures, NULL) < 0 ||
		detail_u64(event->detail, "bundles", &ret->bundles, NULL) < 0 ||
		detail_u64(event->detail, "covered", &ret->covered, NULL) < 0 ||
		detail_i64(event->detail, "before", &ret->before_ns, NULL) < 0)
		return "it does not say of what it emptied the events";
	if (!counts_fit(ret, p->count))
		return "so few events can't have told of so many captures and bundles";
	if (p->last > ret->covered)
		return "events were emptied that, as it says, the agency had not acknowledged";
	return ret->covered < event->sequence ? NULL
					      : "it says that it was acknowledged before it was";
}

static int keep(struct emptied *e, const struct pruned *said, struct cede_error *reterr) {
	if (e->count == e->room) {
		size_t room = e->room == 0 ? 16 : e->room * 2;
		struct pruned *list = reallocarray(e->list, room, sizeof *list);
		if (list == NULL)
			return CEDE_FAIL_MEMORY(reterr);
		e->list = list;
		e->room = room;
	}
	e->list[e->count++] = *said;
	return CEDE_OK;
}

int emptied_explain(struct emptied *e, const struct pruned_event *event, uint64_t shown,
	const char **ret_wrong, struct cede_error *reterr) {
	struct pruning *p = find(e, event->sequence);
	struct pruned said = {.sequence = event->sequence};
	uint8_t digest[32];
	char text[65];

	*ret_wrong = "what it says it emptied is there";
	if (p == NULL)
		return CEDE_OK;
	if (EVP_DigestFinal_ex(p->md, digest, NULL) != 1)
		return CEDE_FAIL(reterr, CEDE_ERR_CRYPTO, "SHA-256 failed");
	hex_print(digest, sizeof digest, text);
	*ret_wrong = contradicted(p, event, text, &said);
	(void)tdelete(p, &e->waiting, by_sequence);
	pruning_free(p);
	if (*ret_wrong != NULL)
		return CEDE_OK;
	if (said.before_ns > event->at_ns)
		said.before_ns = event->at_ns;
	said.beyond = said.covered > shown;
	return keep(e, &said, reterr);
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
