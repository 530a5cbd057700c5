/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <stdlib.h>

#include "agent/ledger/epoch.h"
#include "agent/purge/internal.h"
#include "base/check.h"
#include "base/cleanup.h"
#include "base/file.h"

int purge_count_left(struct purge *p, struct cede_error *reterr) {
	struct ledger_counts n;

	CEDE_TRY(ledger_count(p->ledger, &n, reterr));
	p->left = (struct purge_left){.unsent = n.captures[CAPTURE_READY] +
			n.captures[CAPTURE_BUNDLED] + n.captures[CAPTURE_SETTLING] +
			n.captures[CAPTURE_SEALED],
		.held = n.captures[CAPTURE_HELD],
		.bundles = n.bundles[BUNDLE_SEALED]};
	return CEDE_OK;
}

/* ---- purges before this one */

static int note_earlier(void *ctx, const struct ledger_row *row, struct cede_error *reterr) {
	struct purge *p = ctx;

	(void)reterr;
	if (row->kind != LEDGER_PURGE_BEGUN)
		return CEDE_OK;
	if (p->earlier_count == EARLIER_MOST)
		return 1;
	struct earlier_run *e = &p->earlier[p->earlier_count++];
	e->begun_ns = row->at_ns;
	(void)snprintf(e->detail, sizeof e->detail, "%.*s", (int)row->detail.len,
		(const char *)row->detail.data);
	for (char *c = e->detail; *c != 0; c++) /* a ledger that somebody wrote into */
		if (*c < ' ' || *c > '~')
			*c = '?';
	return CEDE_OK;
}

int purge_find_earlier(struct purge *p, struct cede_error *reterr) {
	return ledger_events(p->ledger, 1, note_earlier, p, reterr);
}

/* ---- live captures without a file */

/* Why its file could not even be looked for; NULL: it is no more. */
static const char *out_of_reach(
	const struct purge *p, struct slice source, const struct ledger_capture *c) {
	for (size_t i = 0; i < p->policy->source_count; i++)
		if (slice_is(source, p->policy->sources[i].name))
			return file_is_elsewhere(p->source_fds[i], c->identity.dev)
				? "other-file-system"
				: NULL;
	return "source-not-there";
}

static int name_missing(void *ctx, const struct ledger_capture *c, struct cede_error *reterr) {
	struct purge *p = ctx;
	char source[POLICY_NAME_SIZE];
	struct slice name = epoch_source_name(c->source);
	const char *why = out_of_reach(p, name, c);

	if (why == NULL && (c->state == CAPTURE_WIPING || c->state == CAPTURE_KEPT))
		return CEDE_OK; /* it was met, and what became of it is told */
	(void)snprintf(source, sizeof source, "%.*s", (int)name.len, (const char *)name.data);
	return tally_add(&p->tally, purge_what(c->state), &c->id, source, c->identity.size,
		why == NULL ? wipe_level_name(WIPE_UNPROVEN) : "remains",
		why == NULL ? "removed-by-another-program" : why, reterr);
}

int purge_missing(struct purge *p, struct cede_error *reterr) {
	static const enum capture_state states[] = {CAPTURE_READY, CAPTURE_SETTLING, CAPTURE_SEALED,
		CAPTURE_HELD, CAPTURE_WIPING, CAPTURE_KEPT};

	for (size_t i = 0; i < ARRAY_LENGTH(states); i++)
		CEDE_TRY(ledger_captures(p->ledger, states[i], name_missing, p, reterr));
	return CEDE_OK;
}

/* ---- bundles without a receipt */

static int name_sealed(void *ctx, const struct ledger_capture *c, struct cede_error *reterr) {
	struct purge *p = ctx;
	char source[POLICY_NAME_SIZE];

	if (c->state != CAPTURE_WIPED)
		return CEDE_OK; /* its file is still here and is told of by itself */
	struct slice name = epoch_source_name(c->source);

	(void)snprintf(source, sizeof source, "%.*s", (int)name.len, (const char *)name.data);
	return tally_add(&p->tally, TALLY_UNSENT, &c->id, source, c->identity.size,
		wipe_level_name(WIPE_REMOVED), "sealed-only", reterr);
}

struct bundles {
	struct ledger_bundle list[PURGE_BATCH];
	size_t count;
	int64_t after; /* rows up to this were seen */
};

static int some_bundles(void *ctx, const struct ledger_bundle *b, struct cede_error *reterr) {
	struct bundles *list = ctx;

	(void)reterr;
	if (b->row <= list->after)
		return CEDE_OK;
	if (list->count == PURGE_BATCH)
		return 1;
	list->list[list->count++] = *b;
	return CEDE_OK;
}

int purge_bundles(struct purge *p, struct cede_error *reterr) {
	CLEANUP(freep) struct bundles *some = calloc(1, sizeof *some);

	if (some == NULL)
		return CEDE_FAIL_MEMORY(reterr);
	do {
		some->count = 0;
		CEDE_TRY(ledger_bundles(p->ledger, BUNDLE_SEALED, some_bundles, some, reterr));
		for (size_t i = 0; i < some->count; i++) {
			const struct ledger_bundle *b = &some->list[i];
			/* ciphertext: unlinked with the rest of the spool */
			CEDE_TRY(tally_add(&p->tally, TALLY_BUNDLE, &b->id, "", b->size,
				wipe_level_name(WIPE_REMOVED), "sealed", reterr));
			CEDE_TRY(ledger_bundle_captures(
				p->ledger, b->row, CAPTURE_STATE_COUNT, name_sealed, p, reterr));
			some->after = b->row;
		}
	} while (some->count == PURGE_BATCH);
	return CEDE_OK;
}
