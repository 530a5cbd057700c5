/* SPDX-License-Identifier: Apache-2.0 */
#include "receiver/audit.h"

#include <inttypes.h>
#include <jansson.h>
#include <openssl/evp.h>
#include <search.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/check.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/hex.h"
#include "formats/detail.h"
#include "formats/json_bound.h"
#include "receiver/audit_internal.h"

#define LINE_MOST  (4U << 20)
#define WIPES_MOST 16 /* of one capture: in a vault, and as its level rises */

static const char *const levels[] = {
	"removed", "unproven", "overwritten-current", "overwritten-watched", "crypto-erased"};

const char *audit_finding_name(enum audit_finding finding) {
	static const char *const names[] = {
#define X(id, name) name,
		AUDIT_FINDINGS(X)
#undef X
	};

	return names[finding];
}

int audit_level(const char *name) {
	for (size_t i = 0; i < ARRAY_LENGTH(levels); i++)
		if (strcmp(levels[i], name) == 0)
			return (int)i;
	return -1;
}

struct seen { /* a capture, by its row */
	struct id id;
	int64_t born_ns;
	int64_t ended_ns; /* 0: not yet */
	bool there;
	bool pending; /* unlinked in a vault: its content goes with the key of its epoch */
};

static void audit_done(struct audit *a) {
	free(a->seen);
	free(a->bundles);
	free(a->receipts);
	free(a->store.unnamed);
	tdestroy(a->by_name, free);
	checkpoints_close(a->checkpoints);
	emptied_done(&a->emptied);
	merkle_hasher_done(&a->hasher);
}

void audit_found(struct audit *a, enum audit_finding finding, const char *subject, const char *text) {
	a->totals.findings[finding]++;
	a->o->found(a->o->ctx, finding, subject, text);
}

void audit_found_id(
	struct audit *a, enum audit_finding finding, const struct id *id, const char *text) {
	char subject[ID_TEXT_SIZE];

	id_print(id, subject);
	audit_found(a, finding, subject, text);
}

/* ---- checkpoints of the agency */

/* The next that the agency was shown; those that are none are findings. */
static int next_shown(struct audit *a, struct cede_error *reterr) {
	struct cede_error err = {0};
	int r;

	while ((r = checkpoints_next(a->checkpoints, &a->shown, &a->more_shown, &err)) ==
		CEDE_ERR_INPUT)
		audit_found(a, AUDIT_CHECKPOINT_BAD, "-", err.text);
	if (r < 0 && reterr != NULL)
		*reterr = err;
	if (r == CEDE_OK && a->more_shown) {
		a->totals.checkpoints++;
		a->kept = a->shown;
	}
	return r;
}

/* ---- the export */

struct event { /* borrowed from the line's JSON */
	uint64_t sequence;
	int64_t at_ns;
	const char *kind;
	struct slice detail;
	struct id subject;
	bool has_subject;
	uint8_t hash[32];
};

static int no_event(uint64_t number, struct cede_error *reterr) {
	return CEDE_FAIL(reterr, CEDE_ERR_INPUT,
		"line %" PRIu64 ": not an event as cede ledger export writes it", number);
}

static int read_event(json_t *line, uint64_t number, struct event *ret, struct cede_error *reterr) {
	json_int_t sequence, at;
	const char *subject, *detail, *hash;
	size_t detail_len;

	if (json_unpack(line, "{s:I, s:I, s:s, s:s, s:s%, s:s}", "sequence", &sequence, "at_ns",
		    &at, "kind", &ret->kind, "subject", &subject, "detail", &detail, &detail_len,
		    "hash", &hash) < 0 ||
		sequence < 1 || hex_parse(slice_str(hash), ret->hash, 32, NULL) < 0)
		return no_event(number, reterr);
	ret->sequence = (uint64_t)sequence;
	ret->at_ns = at;
	ret->detail = slice_of(detail, detail_len);
	ret->has_subject = subject[0] != 0;
	if (ret->has_subject && id_parse(slice_str(subject), &ret->subject, NULL) < 0)
		return CEDE_FAIL(reterr, CEDE_ERR_INPUT, "line %" PRIu64 ": subject: no id", number);
	return CEDE_OK;
}

static bool digest_add(EVP_MD_CTX *md, struct slice part) {
	uint8_t len[8];

	put_le64(len, part.len);
	return EVP_DigestUpdate(md, len, sizeof len) == 1 &&
		(part.len == 0 || EVP_DigestUpdate(md, part.data, part.len) == 1);
}

/* docs/ledger.md, "The chain" */
static bool hash_fits(struct audit *a, const struct event *e) {
	static const char domain[] = "cede-event/1";
	EVP_MD_CTX *md = a->hasher.ctx;
	uint8_t head[16], hash[32];

	put_le64(head, e->sequence);
	put_le64(head + 8, (uint64_t)e->at_ns);
	return EVP_DigestInit_ex2(md, a->hasher.md, NULL) == 1 &&
		EVP_DigestUpdate(md, domain, sizeof domain - 1) == 1 &&
		EVP_DigestUpdate(md, a->hash, 32) == 1 &&
		EVP_DigestUpdate(md, head, sizeof head) == 1 && digest_add(md, slice_str(e->kind)) &&
		digest_add(md, e->has_subject ? slice_of(e->subject.bytes, ID_SIZE) : SLICE_NONE) &&
		digest_add(md, e->detail) && EVP_DigestFinal_ex(md, hash, NULL) == 1 &&
		memcmp(hash, e->hash, 32) == 0;
}

static void broken(struct audit *a, uint64_t sequence, const char *why) {
	char subject[32];

	if (!a->broken) {
		(void)snprintf(subject, sizeof subject, "%" PRIu64, sequence);
		audit_found(a, AUDIT_LEDGER_BROKEN, subject, why);
	}
	a->broken = true;
}

/* The tree as of this event, against what the agency was shown of it. */
static int compare_checkpoints(struct audit *a, struct cede_error *reterr) {
	uint8_t root[32];
	char subject[32];

	while (a->more_shown && a->shown.size <= a->edge.size) {
		CEDE_TRY(merkle_root(&a->hasher, &a->edge, root, reterr));
		a->compared = true;
		(void)snprintf(subject, sizeof subject, "%" PRIu64, a->shown.size);
		if (a->shown.size == a->edge.size && memcmp(root, a->shown.root, 32) == 0) {
			a->totals.anchored = a->shown.size;
			a->totals.anchored_ns = a->shown.at_ns;
		} else
			audit_found(a, AUDIT_LEDGER_REWRITTEN, subject,
				"up to this event the agency was shown another history");
		CEDE_TRY(next_shown(a, reterr));
	}
	return CEDE_OK;
}

/* An emptied event has the sequence of the one that says so for its time, and nothing else. */
static int emptied(struct audit *a, const struct event *e, struct cede_error *reterr) {
	uint64_t by = (uint64_t)e->at_ns;

	a->totals.pruned++;
	if (e->at_ns <= 0 || by <= e->sequence || e->has_subject || e->detail.len > 0) {
		broken(a, e->sequence, "an event was emptied by nobody");
		return CEDE_OK;
	}
	return emptied_add(&a->emptied, a->hasher.md, e->sequence, by, reterr);
}

static int explain_emptied(struct audit *a, const struct event *e, struct cede_error *reterr) {
	const struct pruned_event pruned = {e->sequence, e->at_ns, e->detail};
	const char *wrong = NULL;

	/* a host that came from another agency, or began anew, may have pruned before this agency
	 * was shown anything: nothing contradicts it */
	uint64_t shown = a->compared ? a->totals.anchored : UINT64_MAX;
	CEDE_TRY(emptied_explain(&a->emptied, &pruned, shown, &wrong, reterr));
	if (wrong != NULL)
		broken(a, e->sequence, wrong);
	return CEDE_OK;
}

static int chain(struct audit *a, const struct event *e, struct cede_error *reterr) {
	uint8_t leaf[32];
	bool pruned = strcmp(e->kind, "pruned") == 0;

	if (e->sequence != a->totals.events + 1)
		broken(a, a->totals.events + 1, "an event is missing here");
	else if (!pruned && !hash_fits(a, e))
		broken(a, e->sequence,
			"its hash is not that of what it says behind the one before it");
	memcpy(a->hash, e->hash, 32);
	a->totals.events = e->sequence;
	if (pruned)
		CEDE_TRY(emptied(a, e, reterr));
	else if (strcmp(e->kind, "ledger-pruned") == 0)
		CEDE_TRY(explain_emptied(a, e, reterr));
	if (!pruned)
		a->last_ns = e->at_ns;
	CEDE_TRY(merkle_leaf(&a->hasher, slice_of(e->hash, 32), leaf, reterr));
	CEDE_TRY(merkle_append(&a->hasher, &a->edge, leaf, NULL, NULL, reterr));
	return compare_checkpoints(a, reterr);
}

/* ---- what the events tell */

static int row_of(struct audit *a, uint64_t row, struct seen **ret, struct cede_error *reterr) {
	/* each capture had an event when it was seen: there are no more rows than lines */
	if (row > a->lines)
		return CEDE_FAIL(reterr, CEDE_ERR_INPUT, "a row number that is none");
	if (row >= a->seen_room) {
		uint64_t room = a->seen_room == 0 ? 4096 : a->seen_room;
		while (room <= row)
			room *= 2;
		struct seen *list = reallocarray(a->seen, room, sizeof *list);
		if (list == NULL)
			return CEDE_FAIL_MEMORY(reterr);
		memset(list + a->seen_room, 0, (room - a->seen_room) * sizeof *list);
		a->seen = list;
		a->seen_room = room;
	}
	*ret = &a->seen[row];
	return CEDE_OK;
}

static void stayed(struct audit *a, struct seen *c, int64_t until_ns) {
	char text[120];
	int64_t stay;

	c->ended_ns = until_ns;
	if (__builtin_sub_overflow(until_ns, c->born_ns, &stay))
		stay = c->born_ns < 0 ? INT64_MAX : 0;
	if (a->o->max_age_ns == 0 || !c->there || stay <= a->o->max_age_ns)
		return;
	(void)snprintf(text, sizeof text, "in the clear for %" PRId64 " s", stay / NS_PER_SECOND);
	audit_found_id(a, AUDIT_OVERSTAYED, &c->id, text);
}

struct wipe {
	int64_t at_ns;
	bool pending;
	int rank; /* of audit_level() */
	char level[64];
};

/* Once for all rows of the event: their list is long. */
static struct wipe wipe_of(const struct event *e) {
	struct slice level = SLICE_NONE;
	struct slice reason = SLICE_NONE;
	struct wipe w = {.at_ns = e->at_ns};

	(void)detail_find(e->detail, "level", &level);
	(void)detail_find(e->detail, "reason", &reason);
	w.pending = slice_is(reason, "pending-erase");
	(void)snprintf(w.level, sizeof w.level, "%.*s", (int)level.len, (const char *)level.data);
	w.rank = audit_level(w.level);
	return w;
}

static void wiped(struct audit *a, struct seen *c, const struct wipe *w) {
	c->pending = w->pending;
	if (c->pending) /* the end of its key is another event */
		return;
	stayed(a, c, w->at_ns);
	if (a->o->require >= 0 && w->rank < a->o->require)
		audit_found_id(a, AUDIT_WEAK_WIPE, &c->id,
			w->rank < 0 ? "no level that there is" : w->level);
}

static int wiped_rows(struct audit *a, const struct event *e, struct cede_error *reterr) {
	const struct wipe w = wipe_of(e);
	struct slice rest = SLICE_NONE;
	uint64_t from, to;
	struct seen *c;

	(void)detail_find(e->detail, "rows", &rest);
	while (rest.len > 0) {
		CEDE_TRY(detail_rows_next(&rest, &from, &to, reterr));
		if (to > a->lines)
			return CEDE_FAIL(reterr, CEDE_ERR_INPUT, "a row number that is none");
		a->wipes += to - from + 1;
		if (a->wipes > a->lines * WIPES_MOST)
			return CEDE_FAIL(reterr, CEDE_ERR_INPUT,
				"line %" PRIu64 ": the same rows are wiped again and again",
				a->lines);
		for (; from <= to; from++) {
			CEDE_TRY(row_of(a, from, &c, reterr));
			wiped(a, c, &w);
		}
	}
	return CEDE_OK;
}

static int by_name(const void *x, const void *y) {
	const struct destination *a = x;
	const struct destination *b = y;

	return strcmp(a->name, b->name);
}

static int take_destination(struct audit *a, const struct event *e, struct destination **ret,
	struct cede_error *reterr) {
	struct slice name = SLICE_NONE;

	(void)detail_find(e->detail, "destination", &name);
	CLEANUP(freep) struct destination *new = calloc(1, sizeof *new + name.len + 1);
	if (new == NULL)
		return CEDE_FAIL_MEMORY(reterr);
	if (name.len > 0)
		memcpy(new->name, name.data, name.len);
	struct destination **at = tsearch(new, &a->by_name, by_name);
	if (at == NULL)
		return CEDE_FAIL_MEMORY(reterr);
	*ret = *at;
	if (*at != new) /* known */
		return CEDE_OK;
	new->next = a->destinations;
	a->destinations = CEDE_TAKE(new);
	return CEDE_OK;
}

static int sealed(struct audit *a, const struct event *e, struct cede_error *reterr) {
	struct slice digest;

	if (a->totals.bundles == a->bundle_room) {
		size_t room = a->bundle_room == 0 ? 256 : a->bundle_room * 2;
		struct sealed *list = reallocarray(a->bundles, room, sizeof *list);
		if (list == NULL)
			return CEDE_FAIL_MEMORY(reterr);
		a->bundles = list;
		a->bundle_room = room;
	}
	struct sealed *b = &a->bundles[a->totals.bundles++];
	*b = (struct sealed){.id = e->subject};
	CEDE_TRY(take_destination(a, e, &b->to, reterr));
	CEDE_TRY(detail_u64(e->detail, "size", &b->size, reterr));
	if (!detail_find(e->detail, "sha256", &digest))
		return CEDE_FAIL(reterr, CEDE_ERR_INPUT, "bundle-sealed without a digest");
	return hex_parse(digest, b->sha256, 32, reterr);
}

static int receipted(struct audit *a, const struct event *e, struct cede_error *reterr) {
	if (a->receipt_count == a->receipt_room) {
		size_t room = a->receipt_room == 0 ? 256 : a->receipt_room * 2;
		struct id *list = reallocarray(a->receipts, room, sizeof *list);
		if (list == NULL)
			return CEDE_FAIL_MEMORY(reterr);
		a->receipts = list;
		a->receipt_room = room;
	}
	struct slice of; /* what it holds came in another bundle, whose receipt this is */
	struct id *id = &a->receipts[a->receipt_count++];
	*id = e->subject;
	return detail_find(e->detail, "of", &of) ? id_parse(of, id, reterr) : CEDE_OK;
}

static int take(struct audit *a, const struct event *e, struct cede_error *reterr) {
	bool of_capture = strncmp(e->kind, "capture-", 8) == 0 && e->has_subject;
	struct seen *c = NULL;
	uint64_t row;

	if (strcmp(e->kind, "captures-wiped") == 0)
		return wiped_rows(a, e, reterr);
	if (strcmp(e->kind, "bundle-sealed") == 0)
		return sealed(a, e, reterr);
	if (strcmp(e->kind, "bundle-receipted") == 0 && e->has_subject)
		return receipted(a, e, reterr);
	if (!of_capture || detail_u64(e->detail, "row", &row, NULL) < 0)
		return CEDE_OK;
	CEDE_TRY(row_of(a, row, &c, reterr));
	if (strcmp(e->kind, "capture-seen") == 0) {
		*c = (struct seen){.id = e->subject, .there = true};
		a->totals.captures++;
		return detail_i64(e->detail, "born", &c->born_ns, reterr);
	}
	if (strcmp(e->kind, "capture-wiped") == 0) {
		const struct wipe w = wipe_of(e);
		wiped(a, c, &w);
	}
	if (strcmp(e->kind, "capture-destroyed") == 0)
		audit_found_id(a, AUDIT_DESTROYED, &c->id, "the policy, or a purge, said so");
	if (strcmp(e->kind, "capture-gone") == 0) {
		audit_found_id(
			a, AUDIT_REMOVED, &c->id, "by another program; where it is nobody knows");
		stayed(a, c, e->at_ns);
	}
	if (strcmp(e->kind, "capture-replaced") == 0)
		stayed(a, c, e->at_ns);
	return CEDE_OK;
}

static int read_line(
	struct audit *a, const char *line, size_t len, uint64_t number, struct cede_error *reterr) {
	json_error_t bad;
	struct event e = {.has_subject = false};

	if (json_bound(slice_of(line, len), 1, 32, NULL) < 0)
		return no_event(number, reterr);
	json_t *object = json_loadb(line, len, JSON_REJECT_DUPLICATES, &bad);
	if (object == NULL) /* jansson's words quote the text: not for a terminal */
		return CEDE_FAIL(reterr, CEDE_ERR_INPUT, "line %" PRIu64 ", column %d: no JSON",
			number, bad.column);
	int r = read_event(object, number, &e, reterr);
	if (r == CEDE_OK)
		r = chain(a, &e, reterr);
	if (r == CEDE_OK && strcmp(e.kind, "pruned") != 0)
		r = take(a, &e, reterr);
	json_decref(object);
	return r;
}

/* The next line without its end; false: there is none, or it is too long (*ret_len is LINE_MOST). */
static bool next_line(FILE *from, char *line, size_t *ret_len) {
	size_t n = 0;
	int c = EOF;

	while (n < LINE_MOST && (c = getc_unlocked(from)) != EOF && c != '\n')
		line[n++] = (char)c;
	*ret_len = n;
	return n < LINE_MOST && (n > 0 || c != EOF);
}

static int read_export(struct audit *a, struct cede_error *reterr) {
	CLEANUP(freep) char *line = malloc(LINE_MOST);
	uint64_t number = 1;
	size_t len;

	if (line == NULL)
		return CEDE_FAIL_MEMORY(reterr);
	for (; next_line(a->o->export_file, line, &len); number++) {
		a->lines = number;
		CEDE_TRY(read_line(a, line, len, number, reterr));
	}
	if (ferror(a->o->export_file))
		return CEDE_FAIL_SYS(reterr, "read the export");
	return len < LINE_MOST
		? CEDE_OK
		: CEDE_FAIL(reterr, CEDE_ERR_INPUT, "line %" PRIu64 ": too long", number);
}

static void still_here(struct audit *a) {
	for (uint64_t row = 0; row < a->seen_room; row++) {
		struct seen *c = &a->seen[row];
		if (c->there && c->ended_ns == 0)
			stayed(a, c, a->end_ns);
		if (c->pending && a->o->require >= 0 && audit_level("removed") < a->o->require)
			audit_found_id(a, AUDIT_WEAK_WIPE, &c->id,
				"removed, and the key of its epoch is there");
	}
}

/* What was emptied is the word of an event. What the agency was shown contradicts it if the host
 * says that the agency had acknowledged more; unless the bundles may have been for another agency,
 * which this one can't know. Then it explains nothing that is in the store. */
static void look_at_prunings(struct audit *a) {
	char subject[32], before[CLOCK_TEXT_SIZE], text[200];

	for (size_t i = 0; i < a->emptied.count; i++) {
		const struct pruned *p = &a->emptied.list[i];
		if (p->beyond && !audit_several(a)) {
			broken(a, p->sequence,
				"events were emptied that the agency had not acknowledged then");
			continue;
		}
		a->totals.pruned_captures += p->captures;
		a->totals.pruned_bundles += p->bundles;
		if (p->before_ns > a->totals.pruned_before_ns)
			a->totals.pruned_before_ns = p->before_ns;
		if (a->o->allow_pruned && !p->beyond)
			continue;
		(void)snprintf(subject, sizeof subject, "%" PRIu64, p->sequence);
		clock_text(p->before_ns, before);
		(void)snprintf(text, sizeof text,
			"%" PRIu64 " captures in %" PRIu64
			" bundles of before %s were pruned: of these nothing can be said%s",
			p->captures, p->bundles, before,
			p->beyond ? ", and this agency had not acknowledged them" : "");
		audit_found(a, AUDIT_EMPTIED, subject, text);
	}
}

int audit_run(
	const struct audit_options *options, struct audit_totals *ret, struct cede_error *reterr) {
	CLEANUP(audit_done) struct audit a = {.o = options};
	char subject[32];
	uint64_t by;

	CEDE_TRY(merkle_hasher_init(&a.hasher, reterr));
	CEDE_TRY(checkpoints_open(options->host_dir, &a.checkpoints, reterr));
	CEDE_TRY(next_shown(&a, reterr));
	CEDE_TRY(read_export(&a, reterr));
	if (emptied_unexplained(&a.emptied, &by))
		broken(&a, by, "events were emptied in its name, and it is no ledger-pruned");
	look_at_prunings(&a);
	if (a.more_shown) {
		(void)snprintf(subject, sizeof subject, "%" PRIu64, a.totals.events + 1);
		audit_found(&a, AUDIT_LEDGER_SHORT, subject,
			"the agency has seen this event and later ones; the export ends before");
	}
	while (a.more_shown)
		CEDE_TRY(next_shown(&a, reterr));
	a.end_ns = a.last_ns > a.totals.anchored_ns ? a.last_ns : a.totals.anchored_ns;
	still_here(&a);
	CEDE_TRY(audit_store(&a, reterr));
	*ret = a.totals;
	return CEDE_OK;
}
