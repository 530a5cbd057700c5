/* SPDX-License-Identifier: Apache-2.0 */
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "agent/purge/internal.h"
#include "agent/purge/page.h"
#include "base/check.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/hex.h"
#include "certs/note.h"
#include "formats/statement.h"
#include "version.h"

#define FIELDS_MOST (32 + EARLIER_MOST + TALLY_ROWS + POLICY_SOURCES_MAX)

/* The statement's lines: keys are constants, values lie in one block each. */
struct lines {
	struct statement_field fields[FIELDS_MOST];
	char *values[FIELDS_MOST];
	size_t count;
};

static void lines_done(struct lines *l) {
	for (size_t i = 0; i < l->count; i++)
		free(l->values[i]);
	free(l);
}

static void lines_freep(struct lines **l) {
	if (*l != NULL)
		lines_done(*l);
	*l = NULL;
}

CEDE_MUST_USE static int line(struct lines *l, struct cede_error *reterr, const char *key,
	const char *fmt, ...) CEDE_PRINTF(4, 5);

static int line(struct lines *l, struct cede_error *reterr, const char *key, const char *fmt, ...) {
	va_list ap;

	require(l->count < FIELDS_MOST);
	va_start(ap, fmt);
	int n = vasprintf(&l->values[l->count], fmt, ap);
	va_end(ap);
	if (n < 0)
		return CEDE_FAIL_MEMORY(reterr);
	l->fields[l->count] = (struct statement_field){key, slice_str(l->values[l->count])};
	l->count++;
	return CEDE_OK;
}

static int head(struct lines *l, const struct purge *p, struct cede_error *reterr) {
	char begun[CLOCK_TEXT_SIZE], ended[CLOCK_TEXT_SIZE], hash[65], details[65], copy[65];
	char policy[65];

	clock_text(p->begun_ns, begun);
	clock_text(p->ended_ns, ended);
	hex_print(p->ledger_hash, 32, hash);
	hex_print(p->details_sha256, 32, details);
	hex_print(p->copy_sha256, 32, copy);
	hex_print(p->policy->sha256, 32, policy);
	CEDE_TRY(line(l, reterr, "host", "%s", p->host));
	CEDE_TRY(line(l, reterr, "reason", "%s", p->options->reason));
	CEDE_TRY(line(l, reterr, "operator", "%s", p->options->operator));
	CEDE_TRY(line(l, reterr, "begun", "%s", begun));
	CEDE_TRY(line(l, reterr, "ended", "%s", ended));
	CEDE_TRY(line(l, reterr, "tool", "cede %s", CEDE_VERSION));
	CEDE_TRY(line(l, reterr, "policy", "%s %" PRIu64 " %s", p->policy->id, p->policy->serial,
		policy));
	CEDE_TRY(line(l, reterr, "method",
		"overwritten in place once, flushed, extents compared, unlinked; sealed bundles unlinked"));
	CEDE_TRY(line(l, reterr, "term", "%s",
		"Clear technique applied to files (NIST SP 800-88); no media sanitization"));
	CEDE_TRY(line(l, reterr, "ledger", "%" PRIu64 " %s", p->ledger_sequence, hash));
	CEDE_TRY(p->has_copy ? line(l, reterr, "ledger-copy", "%s %u", copy, p->copy_parts)
			     : line(l, reterr, "ledger-copy", "none"));
	CEDE_TRY(line(l, reterr, "details", "%s", details));
	for (size_t i = 0; i < p->earlier_count; i++) {
		clock_text(p->earlier[i].begun_ns, begun);
		CEDE_TRY(line(l, reterr, "earlier-run", "%s (%s)", begun, p->earlier[i].detail));
	}
	CEDE_TRY(line(l, reterr, "handed-over", "%" PRIu64, p->handed_over));
	for (size_t i = 0; i < p->policy->source_count; i++)
		CEDE_TRY(line(l, reterr, "names", "%s %s", p->policy->sources[i].name, p->names[i]));
	return line(l, reterr, "names", "- %s", p->state_names);
}

/* "wiped: what level reason count", "remains: what reason count" */
static int results(struct lines *l, const struct purge *p, struct cede_error *reterr) {
	const struct tally *t = &p->tally;

	for (size_t i = 0; i < t->row_count; i++) {
		const struct tally_row *r = &t->rows[i];
		if (strcmp(r->level, "remains") != 0)
			CEDE_TRY(line(l, reterr, "wiped", "%s %s %s %" PRIu64,
				tally_what_name(r->what), r->level,
				r->reason[0] != 0 ? r->reason : "-", r->count));
	}
	for (size_t i = 0; i < t->row_count; i++) {
		const struct tally_row *r = &t->rows[i];
		if (strcmp(r->level, "remains") == 0)
			CEDE_TRY(line(l, reterr, "remains", "%s %s %" PRIu64,
				tally_what_name(r->what), r->reason, r->count));
	}
	if (t->remains == 0)
		CEDE_TRY(line(l, reterr, "remains", "nothing"));
	return CEDE_OK;
}

static int write_and_name(struct output *o, struct slice content, struct cede_error *reterr) {
	CEDE_TRY(output_write(o, content, reterr));
	return output_publish(o, reterr);
}

int purge_certify(struct purge *p, struct cede_error *reterr) {
	CLEANUP(lines_freep) struct lines *l = calloc(1, sizeof *l);
	CLEANUP(buf_done) struct buf text = BUF_INIT(NOTE_MAX);
	CLEANUP(buf_done) struct buf note = BUF_INIT(NOTE_MAX);
	CLEANUP(buf_done) struct buf page = BUF_INIT(PAGE_MAX);

	if (l == NULL)
		return CEDE_FAIL_MEMORY(reterr);
	CEDE_TRY(head(l, p, reterr));
	CEDE_TRY(results(l, p, reterr));
	CEDE_TRY(statement_write(
		note_role_type(NOTE_WIPE_CERTIFICATE), l->fields, l->count, &text, reterr));
	CEDE_TRY(note_sign(NOTE_WIPE_CERTIFICATE, buf_slice(&text), p->host, p->key, &note, reterr));
	CEDE_TRY(write_and_name(&p->outputs[OUTPUT_CERTIFICATE], buf_slice(&note), reterr));
	if (p->options->html == NULL)
		return CEDE_OK;
	CEDE_TRY(page_write(l->fields, l->count, buf_slice(&note), &page, reterr));
	return write_and_name(&p->outputs[OUTPUT_PAGE], buf_slice(&page), reterr);
}
