/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/ledger/verify.h"

#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent/ledger/replay.h"
#include "base/buf.h"
#include "base/check.h"
#include "base/cleanup.h"
#include "base/hex.h"
#include "base/parse.h"
#include "certs/base64.h"
#include "formats/checkpoint.h"

/* Events that were emptied, by the event that says so. */
struct pruning {
	uint64_t by; /* sequence of ledger-pruned */
	uint64_t count;
	EVP_MD_CTX *md; /* over their sequences */
};

/* A signed note that is to be compared when the walk has come to its size. */
struct signed_note {
	uint64_t size;
	struct slice note;
	bool agency;
};

struct walk {
	struct ledger *l;
	struct ledger_check *check;
	struct merkle_hasher hasher; /* the ledger's own is used for the events */
	struct merkle_edge edge;
	struct signed_note *notes;
	size_t note_count, next_note;
	struct buf own;         /* the notes of the ledger's table */
	struct note_keys *keys; /* whose signatures count; NULL: of nobody yet */
	bool keys_given;
	struct slice state_key;
	uint64_t key_sequence; /* of the event that named the key */
	uint64_t good;         /* size of the last checkpoint that fitted */
	struct pruning *prunings;
	size_t pruning_count;
	struct replay *replay;
};

static void bad(void *ctx, uint64_t sequence, const char *why) {
	struct walk *w = ctx;

	/* the first one counts; a table can contradict an event that stands before the newest walked */
	if (w->check->bad_sequence != 0)
		return;
	w->check->bad_sequence = sequence;
	(void)snprintf(w->check->why, sizeof w->check->why, "%.390s", why);
}

static bool is_bad(const struct walk *w) {
	return w->check->bad_sequence != 0;
}

/* ---- checkpoints */

static int note_size(struct slice note, uint64_t *ret, struct cede_error *reterr) {
	struct slice line, rest;

	if (!slice_cut(note, '\n', &line, &rest) || !slice_cut(rest, '\n', &line, &rest))
		return CEDE_FAIL(reterr, CEDE_ERR_INPUT, "a checkpoint without lines");
	return parse_u64(line, 1, INT64_MAX, ret, reterr);
}

static int add_notes(struct walk *w, struct slice notes, bool agency, struct cede_error *reterr) {
	struct slice note;

	while (checkpoint_next(&notes, &note)) {
		uint64_t size;
		struct signed_note *list = reallocarray(w->notes, w->note_count + 1, sizeof *list);
		if (list == NULL)
			return CEDE_FAIL_MEMORY(reterr);
		w->notes = list;
		CEDE_TRY(note_size(note, &size, reterr));
		list[w->note_count++] = (struct signed_note){size, note, agency};
	}
	return CEDE_OK;
}

static int by_size(const void *a, const void *b) {
	const struct signed_note *x = a;
	const struct signed_note *y = b;

	return (x->size > y->size) - (x->size < y->size);
}

static int load_notes(struct walk *w, struct slice agency, struct cede_error *reterr) {
	sqlite3_stmt *st;
	bool there;

	CEDE_TRY(ledger_use(w->l, ST_CHECKPOINTS, &st, reterr));
	for (;;) {
		CEDE_TRY(ledger_row(w->l, st, &there, reterr));
		if (!there)
			break;
		CEDE_TRY(buf_add(&w->own, sqlite3_column_blob(st, 1),
			(size_t)sqlite3_column_bytes(st, 1), reterr));
		CEDE_TRY(buf_add(&w->own, "\n", 1, reterr));
	}
	(void)sqlite3_reset(st);
	if (add_notes(w, buf_slice(&w->own), false, reterr) < 0) {
		bad(w, 1, "the checkpoints' table has something else than checkpoints");
		w->note_count = 0;
	}
	CEDE_TRY(add_notes(w, agency, true, reterr));
	if (w->note_count > 1)
		qsort(w->notes, w->note_count, sizeof *w->notes, by_size);
	return CEDE_OK;
}

/* At the event that it covers as the last one. */
static int compare_note(struct walk *w, const struct signed_note *n, struct cede_error *reterr) {
	struct checkpoint c;
	uint8_t root[32];
	char why[300];
	const char *whose = n->agency ? "the agency's checkpoint" : "its own checkpoint";

	CEDE_TRY(merkle_root(&w->hasher, &w->edge, root, reterr));
	if (w->keys == NULL || checkpoint_verify(w->keys, n->note, &c, NULL) < 0) {
		(void)snprintf(why, sizeof why,
			"%s of %llu events is not signed with this ledger's key: forged, or of another ledger",
			whose, (unsigned long long)n->size);
		bad(w, n->agency ? (w->key_sequence != 0 ? w->key_sequence : 1) : n->size, why);
		return CEDE_OK;
	}
	if (memcmp(c.root, root, sizeof root) != 0) {
		(void)snprintf(why, sizeof why,
			"%s of %llu events does not fit: what was recorded since event %llu was rewritten",
			whose, (unsigned long long)n->size, (unsigned long long)w->good);
		bad(w, w->good + 1, why);
		return CEDE_OK;
	}
	w->good = n->size;
	w->check->checkpoints++;
	if (n->agency)
		w->check->seen = n->size;
	return CEDE_OK;
}

static int compare_notes(struct walk *w, struct cede_error *reterr) {
	while (!is_bad(w) && w->next_note < w->note_count &&
		w->notes[w->next_note].size == w->edge.size)
		CEDE_TRY(compare_note(w, &w->notes[w->next_note++], reterr));
	return CEDE_OK;
}

/* ---- events */

/* The ledger's own key, from the event that named it. */
static int take_key(struct walk *w, const struct ledger_row *e, struct cede_error *reterr) {
	CLEANUP(buf_done) struct buf der = BUF_INIT(2 * CHECKPOINT_KEY_MAX);
	struct slice role, text;

	if (!detail_find(e->detail, "role", &role) || !slice_is(role, "ledger") ||
		!detail_find(e->detail, "key", &text) || base64_decode(text, &der, NULL) < 0)
		return CEDE_OK;
	w->key_sequence = e->sequence;
	w->check->key_len = (uint8_t)(der.len <= sizeof w->check->key ? der.len : 0);
	if (w->check->key_len > 0)
		memcpy(w->check->key, der.data, der.len);
	if (w->keys_given)
		return CEDE_OK;
	note_keys_free(w->keys);
	w->keys = NULL;
	(void)!checkpoint_keys(buf_slice(&der), &w->keys, reterr); /* else no signature will fit */
	return CEDE_OK;
}

static int is_pruning(struct ledger *l, uint64_t sequence, bool *ret, struct cede_error *reterr) {
	sqlite3_stmt *st;
	bool there;

	CEDE_TRY(ledger_use(l, ST_EVENT_TIME, &st, reterr));
	LEDGER_TRY_BIND(l, sqlite3_bind_int64(st, 1, (int64_t)sequence), reterr);
	CEDE_TRY(ledger_row(l, st, &there, reterr));
	*ret = there && sqlite3_column_int(st, 1) == LEDGER_LEDGER_PRUNED;
	(void)sqlite3_reset(st);
	return CEDE_OK;
}

static int pruned(struct walk *w, const struct ledger_row *e, struct cede_error *reterr) {
	uint64_t by = (uint64_t)e->at_ns;
	uint8_t sequence[8];
	size_t i = 0;

	w->check->pruned++;
	while (i < w->pruning_count && w->prunings[i].by != by)
		i++;
	bool explained = by > e->sequence && e->subject.len + e->detail.len == 0;
	if (explained && (i == w->pruning_count || w->prunings[i].by != by))
		CEDE_TRY(is_pruning(w->l, by, &explained, reterr));
	if (!explained) {
		bad(w, e->sequence, "an event was emptied by nobody");
		return CEDE_OK;
	}
	if (i == w->pruning_count) {
		struct pruning *list = reallocarray(w->prunings, i + 1, sizeof *list);
		if (list == NULL)
			return CEDE_FAIL_MEMORY(reterr);
		w->prunings = list;
		list[i] = (struct pruning){.by = by, .md = EVP_MD_CTX_new()};
		w->pruning_count++;
		if (list[i].md == NULL || EVP_DigestInit_ex2(list[i].md, w->hasher.md, NULL) != 1)
			return CEDE_FAIL_MEMORY(reterr);
	}
	put_le64(sequence, e->sequence);
	w->prunings[i].count++;
	return EVP_DigestUpdate(w->prunings[i].md, sequence, sizeof sequence) == 1
		? CEDE_OK
		: CEDE_FAIL(reterr, CEDE_ERR_CRYPTO, "SHA-256 failed");
}

/* Says how many it emptied, and over which sequences. */
static int explain_pruned(struct walk *w, const struct ledger_row *e, struct cede_error *reterr) {
	struct slice value = SLICE_NONE;
	uint8_t digest[32];
	char text[65];
	uint64_t count;

	for (size_t i = 0; i < w->pruning_count; i++) {
		struct pruning *p = &w->prunings[i];
		if (p->by != e->sequence)
			continue;
		if (EVP_DigestFinal_ex(p->md, digest, NULL) != 1)
			return CEDE_FAIL(reterr, CEDE_ERR_CRYPTO, "SHA-256 failed");
		hex_print(digest, sizeof digest, text);
		(void)detail_find(e->detail, "digest", &value);
		if (detail_u64(e->detail, "events", &count, NULL) < 0 || count != p->count ||
			!slice_is(value, text))
			bad(w, e->sequence, "other events were emptied than it says");
		p->by = 0;
	}
	return CEDE_OK;
}

static int take_event(struct walk *w, const struct ledger_row *e, struct cede_error *reterr) {
	switch (e->kind) {
	case LEDGER_PRUNED_KIND:
		return pruned(w, e, reterr);
	case LEDGER_KEY_CHANGED:
		return take_key(w, e, reterr);
	case LEDGER_LEDGER_PRUNED:
		return explain_pruned(w, e, reterr);
	case LEDGER_LEDGER_MIGRATED:
		return replay_migrated(w->replay, e, reterr);
	default:
		break;
	}
	/* a detail that can't be read is not what was recorded */
	struct cede_error err = {0};
	int r = replay_event(w->replay, e, &err);
	if (r == CEDE_ERR_INPUT && err.sys == 0) {
		bad(w, e->sequence, err.text);
		return CEDE_OK;
	}
	if (r < 0 && reterr != NULL)
		*reterr = err;
	return r;
}

/* Whether this row is what stands behind the one before it. */
static int is_recorded(struct ledger *l, sqlite3_stmt *st, uint64_t expected,
	const uint8_t before[32], bool *ret_good, struct cede_error *reterr) {
	uint8_t hash[32];
	struct slice subject =
		slice_of(sqlite3_column_blob(st, 3), (size_t)sqlite3_column_bytes(st, 3));
	struct slice detail =
		slice_of(sqlite3_column_text(st, 4), (size_t)sqlite3_column_bytes(st, 4));
	int kind = sqlite3_column_int(st, 2);

	*ret_good = (uint64_t)sqlite3_column_int64(st, 0) == expected &&
		sqlite3_column_bytes(st, 5) == 32 && kind >= LEDGER_PRUNED_KIND &&
		kind < LEDGER_EVENT_COUNT;
	if (!*ret_good || kind == LEDGER_PRUNED_KIND)
		return CEDE_OK;
	CEDE_TRY(ledger_event_hash(l, before, expected, sqlite3_column_int64(st, 1), kind, subject,
		detail, hash, reterr));
	*ret_good = memcmp(sqlite3_column_blob(st, 5), hash, 32) == 0;
	return CEDE_OK;
}

static int walk_events(struct walk *w, struct cede_error *reterr) {
	uint8_t before[32] = {0}, leaf[32];
	sqlite3_stmt *st;
	bool there, good;

	CEDE_TRY(ledger_use(w->l, ST_EVENTS, &st, reterr));
	LEDGER_TRY_BIND(w->l, sqlite3_bind_int64(st, 1, INT64_MIN), reterr);
	while (!is_bad(w)) {
		CEDE_TRY(ledger_row(w->l, st, &there, reterr));
		if (!there)
			break;
		uint64_t sequence = w->edge.size + 1;
		CEDE_TRY(is_recorded(w->l, st, sequence, before, &good, reterr));
		if (!good) {
			bad(w, sequence,
				"the event is not what was recorded: removed, inserted or changed");
			break;
		}
		memcpy(before, sqlite3_column_blob(st, 5), 32);
		CEDE_TRY(merkle_leaf(&w->hasher, slice_of(before, 32), leaf, reterr));
		CEDE_TRY(merkle_append(&w->hasher, &w->edge, leaf, NULL, NULL, reterr));
		const struct ledger_row row = {.sequence = sequence,
			.at_ns = sqlite3_column_int64(st, 1),
			.kind = sqlite3_column_int(st, 2),
			.subject = slice_of(
				sqlite3_column_blob(st, 3), (size_t)sqlite3_column_bytes(st, 3)),
			.detail = slice_of(
				sqlite3_column_text(st, 4), (size_t)sqlite3_column_bytes(st, 4)),
			.hash = before};
		CEDE_TRY(take_event(w, &row, reterr));
		CEDE_TRY(compare_notes(w, reterr));
	}
	(void)sqlite3_reset(st);
	w->check->events = w->edge.size;
	memcpy(w->check->hash, before, sizeof before);
	return CEDE_OK;
}

/* ---- the end */

static void end_notes(struct walk *w) {
	char why[300];

	if (is_bad(w) || w->next_note == w->note_count)
		return;
	const struct signed_note *n = &w->notes[w->note_count - 1];
	if (n->size <= w->edge.size) { /* only of size 0, which is none */
		bad(w, n->size, "a checkpoint of no event");
		return;
	}
	(void)snprintf(why, sizeof why,
		"%s has %llu events: what came behind is missing (cut off, or the file was put back to an older one)",
		n->agency ? "the agency's checkpoint" : "its own checkpoint",
		(unsigned long long)n->size);
	bad(w, w->edge.size + 1, why);
}

static void end_prunings(struct walk *w) {
	for (size_t i = 0; i < w->pruning_count; i++)
		if (!is_bad(w) && w->prunings[i].by != 0)
			bad(w, w->prunings[i].by, "events were emptied, and no event says so");
}

static void end_key(struct walk *w) {
	if (is_bad(w) || w->state_key.len == 0 || w->check->key_len == 0)
		return;
	if (!slice_equal(w->state_key, slice_of(w->check->key, w->check->key_len)))
		bad(w, w->key_sequence,
			"the key beside the ledger is not the one that the ledger names: one of the two is another host's");
}

/* Nodes that are kept must be those of the events; the tree can't be longer either. */
static int end_tree(struct walk *w, struct cede_error *reterr) {
	uint8_t root[32];

	CEDE_TRY(merkle_root(&w->hasher, &w->edge, w->check->root, reterr));
	if (is_bad(w) || w->edge.size == 0)
		return CEDE_OK;
	struct cede_error err = {0};
	int r = merkle_range(&w->hasher, 0, w->edge.size, ledger_tree_get, w->l, root, &err);
	if (r == CEDE_ERR_INPUT || (r == CEDE_OK && memcmp(root, w->check->root, 32) != 0)) {
		bad(w, w->good + 1, "the tree that is kept beside the events is not theirs");
		return CEDE_OK;
	}
	if (r < 0 && reterr != NULL)
		*reterr = err;
	return r;
}

static int walk_all(struct walk *w, struct slice notes, struct cede_error *reterr) {
	CEDE_TRY(load_notes(w, notes, reterr));
	CEDE_TRY(walk_events(w, reterr));
	end_notes(w);
	end_prunings(w);
	end_key(w);
	CEDE_TRY(end_tree(w, reterr));
	if (!is_bad(w))
		CEDE_TRY(replay_end(
			w->replay, w->edge.size, &w->check->captures, &w->check->bundles, reterr));
	return CEDE_OK;
}

static void walk_done(struct walk *w) {
	for (size_t i = 0; i < w->pruning_count; i++)
		EVP_MD_CTX_free(w->prunings[i].md);
	free(w->prunings);
	free(w->notes);
	buf_done(&w->own);
	note_keys_free(w->keys);
	merkle_hasher_done(&w->hasher);
	replay_free(w->replay);
}

int ledger_check(struct ledger *l, struct slice notes, struct slice key, struct slice state_key,
	struct ledger_check *ret, struct cede_error *reterr) {
	struct walk w = {.l = l,
		.check = ret,
		.own = BUF_INIT(UINT32_MAX),
		.keys_given = key.len > 0,
		.state_key = state_key};

	*ret = (struct ledger_check){.events = 0};
	int r = merkle_hasher_init(&w.hasher, reterr);
	if (r == CEDE_OK && w.keys_given)
		r = checkpoint_keys(key, &w.keys, reterr);
	if (r == CEDE_OK)
		r = replay_new(l, bad, &w, &w.replay, reterr);
	/* one that was opened to read is of one moment already */
	bool own = sqlite3_get_autocommit(l->db) != 0;
	if (r == CEDE_OK && own && sqlite3_exec(l->db, "BEGIN", NULL, NULL, NULL) != SQLITE_OK)
		r = ledger_fail(l, "begin to read", reterr);
	if (r == CEDE_OK)
		r = walk_all(&w, notes, reterr);
	walk_done(&w);
	if (own)
		(void)sqlite3_exec(l->db, "COMMIT", NULL, NULL, NULL);
	return r;
}

int ledger_verify(struct ledger *l, uint64_t *ret_events, uint64_t *ret_bad_sequence,
	struct cede_error *reterr) {
	uint8_t before[32] = {0};
	uint64_t n = 0;
	sqlite3_stmt *st;
	bool there, good;

	CEDE_TRY(ledger_use(l, ST_EVENTS, &st, reterr));
	LEDGER_TRY_BIND(l, sqlite3_bind_int64(st, 1, INT64_MIN), reterr);
	for (;; n++) {
		CEDE_TRY(ledger_row(l, st, &there, reterr));
		if (!there)
			break;
		CEDE_TRY(is_recorded(l, st, n + 1, before, &good, reterr));
		if (!good) {
			*ret_events = n;
			*ret_bad_sequence = n + 1;
			(void)sqlite3_reset(st);
			return CEDE_FAIL(reterr, CEDE_ERR_INPUT,
				"event %llu is not what was recorded: removed, inserted or changed",
				(unsigned long long)n + 1);
		}
		memcpy(before, sqlite3_column_blob(st, 5), 32);
	}
	(void)sqlite3_reset(st);
	*ret_events = n;
	*ret_bad_sequence = 0;
	return CEDE_OK;
}
