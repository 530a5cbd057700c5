/* SPDX-License-Identifier: Apache-2.0 */
#include "receiver/audit.h"

#include <dirent.h>
#include <fcntl.h>
#include <inttypes.h>
#include <jansson.h>
#include <openssl/evp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/check.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/hex.h"
#include "certs/key.h"
#include "formats/checkpoint.h"
#include "formats/detail.h"
#include "receiver/custody.h"

#define LINE_MOST   (4U << 20)
#define STORED_MOST (256U << 20) /* of checkpoints */
#define PIECE       (1U << 20)

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

struct sealed { /* a bundle, as the ledger tells of it */
	struct id id;
	uint64_t size;
	uint8_t sha256[32];
	bool receipted, found;
};

/* Events that were emptied, by the event that says so (docs/ledger.md, "Forgetting"). */
struct pruning {
	uint64_t by; /* sequence of ledger-pruned; 0: it came */
	uint64_t count;
	EVP_MD_CTX *md; /* over their sequences */
};

struct audit {
	const struct audit_options *o;
	struct audit_totals totals;
	struct seen *seen;
	uint64_t seen_room;
	struct sealed *bundles; /* sorted by id once the export was read */
	size_t bundle_room;
	struct merkle_hasher hasher;
	struct merkle_edge edge;
	struct pruning *prunings;
	size_t pruning_count;
	uint8_t hash[32];               /* of the newest event */
	struct checkpoint *checkpoints; /* by size */
	size_t checkpoint_count, checkpoint_next;
	int64_t last_ns;
	uint64_t lines;
	bool broken;
};

static void audit_done(struct audit *a) {
	free(a->seen);
	free(a->bundles);
	free(a->checkpoints);
	for (size_t i = 0; i < a->pruning_count; i++)
		EVP_MD_CTX_free(a->prunings[i].md);
	free(a->prunings);
	merkle_hasher_done(&a->hasher);
}

static void found(struct audit *a, enum audit_finding finding, const char *subject, const char *text) {
	a->totals.findings[finding]++;
	a->o->found(a->o->ctx, finding, subject, text);
}

static void found_id(
	struct audit *a, enum audit_finding finding, const struct id *id, const char *text) {
	char subject[ID_TEXT_SIZE];

	id_print(id, subject);
	found(a, finding, subject, text);
}

/* ---- checkpoints of the agency */

static int by_size(const void *x, const void *y) {
	const struct checkpoint *a = x;
	const struct checkpoint *b = y;

	return (a->size > b->size) - (a->size < b->size);
}

static int add_checkpoint(struct audit *a, const struct checkpoint *c, struct cede_error *reterr) {
	struct checkpoint *list = reallocarray(a->checkpoints, a->checkpoint_count + 1, sizeof *list);

	if (list == NULL)
		return CEDE_FAIL_MEMORY(reterr);
	a->checkpoints = list;
	list[a->checkpoint_count++] = *c;
	return CEDE_OK;
}

static bool exists(int dir, const char *name) {
	struct stat st;

	return fstatat(dir, name, &st, AT_SYMLINK_NOFOLLOW) == 0;
}

static int load_checkpoints(struct audit *a, struct cede_error *reterr) {
	CLEANUP(buf_done) struct buf notes = BUF_INIT(STORED_MOST);
	CLEANUP(buf_done) struct buf pem = BUF_INIT(KEY_FILE_MAX);
	CLEANUP(key_freep) EVP_PKEY *key = NULL;
	struct note_keys *keys = NULL;
	struct slice rest, note;
	int r = CEDE_OK;

	if (!exists(a->o->host_dir, CUSTODY_CHECKPOINTS))
		return CEDE_OK; /* it never sent one */
	CEDE_TRY(file_load(a->o->host_dir, CUSTODY_CHECKPOINTS, &notes, reterr));
	/* The receiver wrote it, under its own user: whoever audits trusts the store or has no measure. */
	CEDE_TRY(file_load(a->o->host_dir, CUSTODY_KEY, &pem, reterr));
	CEDE_TRY(key_parse_public(buf_slice(&pem), CUSTODY_KEY, &key, reterr));
	CEDE_TRY(note_keys_new(NOTE_CHECKPOINT, &keys, reterr));
	r = note_keys_add(keys, key, reterr);
	for (rest = buf_slice(&notes); r == CEDE_OK && checkpoint_next(&rest, &note);) {
		struct checkpoint c;
		struct cede_error err;
		if (checkpoint_verify(keys, note, &c, &err) < 0)
			found(a, AUDIT_CHECKPOINT_BAD, "-", err.text);
		else
			r = add_checkpoint(a, &c, reterr);
	}
	note_keys_free(keys);
	if (a->checkpoint_count > 1)
		qsort(a->checkpoints, a->checkpoint_count, sizeof *a->checkpoints, by_size);
	a->totals.checkpoints = a->checkpoint_count;
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

static int read_event(json_t *line, uint64_t number, struct event *ret, struct cede_error *reterr) {
	json_int_t sequence, at;
	const char *subject, *detail, *hash;
	size_t detail_len;

	if (json_unpack(line, "{s:I, s:I, s:s, s:s, s:s%, s:s}", "sequence", &sequence, "at_ns",
		    &at, "kind", &ret->kind, "subject", &subject, "detail", &detail, &detail_len,
		    "hash", &hash) < 0 ||
		sequence < 1 || hex_parse(slice_str(hash), ret->hash, 32, NULL) < 0)
		return CEDE_FAIL(reterr, CEDE_ERR_INPUT,
			"line %" PRIu64 ": not an event as cede ledger export writes it", number);
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
		found(a, AUDIT_LEDGER_BROKEN, subject, why);
	}
	a->broken = true;
}

/* The tree as of this event, against what the agency was shown of it. */
static int compare_checkpoints(struct audit *a, struct cede_error *reterr) {
	uint8_t root[32];
	char subject[32];

	while (a->checkpoint_next < a->checkpoint_count &&
		a->checkpoints[a->checkpoint_next].size <= a->edge.size) {
		const struct checkpoint *c = &a->checkpoints[a->checkpoint_next++];
		CEDE_TRY(merkle_root(&a->hasher, &a->edge, root, reterr));
		(void)snprintf(subject, sizeof subject, "%" PRIu64, c->size);
		if (c->size != a->edge.size || memcmp(root, c->root, 32) != 0)
			found(a, AUDIT_LEDGER_REWRITTEN, subject,
				"up to this event the agency was shown another history");
	}
	return CEDE_OK;
}

static struct pruning *pruning_by(struct audit *a, uint64_t by) {
	for (size_t i = 0; i < a->pruning_count; i++)
		if (a->prunings[i].by == by)
			return &a->prunings[i];
	return NULL;
}

static int add_pruning(struct audit *a, uint64_t by, struct pruning **ret, struct cede_error *reterr) {
	struct pruning *list = reallocarray(a->prunings, a->pruning_count + 1, sizeof *list);

	if (list == NULL)
		return CEDE_FAIL_MEMORY(reterr);
	a->prunings = list;
	*ret = &list[a->pruning_count];
	**ret = (struct pruning){.by = by, .md = EVP_MD_CTX_new()};
	if ((*ret)->md == NULL || EVP_DigestInit_ex2((*ret)->md, a->hasher.md, NULL) != 1) {
		EVP_MD_CTX_free((*ret)->md);
		return CEDE_FAIL_MEMORY(reterr);
	}
	a->pruning_count++;
	return CEDE_OK;
}

/* An emptied event has the sequence of the one that says so for its time, and nothing else. */
static int emptied(struct audit *a, const struct event *e, struct cede_error *reterr) {
	uint64_t by = (uint64_t)e->at_ns;
	struct pruning *p = pruning_by(a, by);
	uint8_t sequence[8];

	a->totals.pruned++;
	if (e->at_ns <= 0 || by <= e->sequence || e->has_subject || e->detail.len > 0) {
		broken(a, e->sequence, "an event was emptied by nobody");
		return CEDE_OK;
	}
	if (p == NULL)
		CEDE_TRY(add_pruning(a, by, &p, reterr));
	p->count++;
	put_le64(sequence, e->sequence);
	return EVP_DigestUpdate(p->md, sequence, sizeof sequence) == 1
		? CEDE_OK
		: CEDE_FAIL(reterr, CEDE_ERR_CRYPTO, "SHA-256 failed");
}

/* ledger-pruned says how many it emptied, and which. */
static int explain_emptied(struct audit *a, const struct event *e, struct cede_error *reterr) {
	struct pruning *p = pruning_by(a, e->sequence);
	struct slice value = SLICE_NONE;
	uint8_t digest[32];
	uint64_t count = 0;
	char text[65];

	if (p == NULL) {
		broken(a, e->sequence, "what it says it emptied is there");
		return CEDE_OK;
	}
	if (EVP_DigestFinal_ex(p->md, digest, NULL) != 1)
		return CEDE_FAIL(reterr, CEDE_ERR_CRYPTO, "SHA-256 failed");
	hex_print(digest, sizeof digest, text);
	(void)detail_find(e->detail, "digest", &value);
	if (detail_u64(e->detail, "events", &count, NULL) < 0 || count != p->count ||
		!slice_is(value, text))
		broken(a, e->sequence, "other events were emptied than it says");
	p->by = 0;
	return CEDE_OK;
}

static void unexplained(struct audit *a) {
	for (size_t i = 0; i < a->pruning_count; i++)
		if (a->prunings[i].by != 0)
			broken(a, a->prunings[i].by,
				"events were emptied in its name, and it is no ledger-pruned");
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
	a->last_ns = pruned ? a->last_ns : e->at_ns;
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

	c->ended_ns = until_ns;
	if (a->o->max_age_ns == 0 || !c->there || until_ns - c->born_ns <= a->o->max_age_ns)
		return;
	(void)snprintf(text, sizeof text, "in the clear for %" PRId64 " s",
		(until_ns - c->born_ns) / NS_PER_SECOND);
	found_id(a, AUDIT_OVERSTAYED, &c->id, text);
}

static void wiped(struct audit *a, struct seen *c, const struct event *e) {
	struct slice level = SLICE_NONE;
	struct slice reason = SLICE_NONE;
	char text[64];

	(void)detail_find(e->detail, "level", &level);
	(void)detail_find(e->detail, "reason", &reason);
	c->pending = slice_is(reason, "pending-erase");
	if (c->pending) /* the end of its key is another event */
		return;
	(void)snprintf(text, sizeof text, "%.*s", (int)level.len, (const char *)level.data);
	stayed(a, c, e->at_ns);
	if (a->o->require >= 0 && audit_level(text) < a->o->require)
		found_id(a, AUDIT_WEAK_WIPE, &c->id, text);
}

static int wiped_rows(struct audit *a, const struct event *e, struct cede_error *reterr) {
	struct slice rest = SLICE_NONE;
	uint64_t from, to;
	struct seen *c;

	(void)detail_find(e->detail, "rows", &rest);
	while (rest.len > 0) {
		CEDE_TRY(detail_rows_next(&rest, &from, &to, reterr));
		if (to > a->lines)
			return CEDE_FAIL(reterr, CEDE_ERR_INPUT, "a row number that is none");
		for (; from <= to; from++) {
			CEDE_TRY(row_of(a, from, &c, reterr));
			wiped(a, c, e);
		}
	}
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
	CEDE_TRY(detail_u64(e->detail, "size", &b->size, reterr));
	if (!detail_find(e->detail, "sha256", &digest))
		return CEDE_FAIL(reterr, CEDE_ERR_INPUT, "bundle-sealed without a digest");
	return hex_parse(digest, b->sha256, 32, reterr);
}

/* Receipts come soon after the sealing: from the newest on. */
static void receipted(struct audit *a, const struct event *e) {
	for (size_t i = a->totals.bundles; i > 0; i--)
		if (id_equal(&a->bundles[i - 1].id, &e->subject)) {
			a->bundles[i - 1].receipted = true;
			a->totals.receipted++;
			return;
		}
}

static int take(struct audit *a, const struct event *e, struct cede_error *reterr) {
	bool of_capture = strncmp(e->kind, "capture-", 8) == 0 && e->has_subject;
	struct seen *c = NULL;
	uint64_t row;

	if (strcmp(e->kind, "captures-wiped") == 0)
		return wiped_rows(a, e, reterr);
	if (strcmp(e->kind, "bundle-sealed") == 0)
		return sealed(a, e, reterr);
	if (strcmp(e->kind, "bundle-receipted") == 0)
		receipted(a, e);
	if (!of_capture || detail_u64(e->detail, "row", &row, NULL) < 0)
		return CEDE_OK;
	CEDE_TRY(row_of(a, row, &c, reterr));
	if (strcmp(e->kind, "capture-seen") == 0) {
		*c = (struct seen){.id = e->subject, .there = true};
		a->totals.captures++;
		return detail_i64(e->detail, "born", &c->born_ns, reterr);
	}
	if (strcmp(e->kind, "capture-wiped") == 0)
		wiped(a, c, e);
	if (strcmp(e->kind, "capture-destroyed") == 0)
		found_id(a, AUDIT_DESTROYED, &c->id, "the policy, or a purge, said so");
	if (strcmp(e->kind, "capture-gone") == 0) {
		found_id(a, AUDIT_REMOVED, &c->id, "by another program; where it is nobody knows");
		stayed(a, c, e->at_ns);
	}
	if (strcmp(e->kind, "capture-replaced") == 0)
		stayed(a, c, e->at_ns);
	return CEDE_OK;
}

static int read_line(
	struct audit *a, const char *line, size_t len, uint64_t number, struct cede_error *reterr) {
	json_error_t bad;
	json_t *object = json_loadb(line, len, JSON_REJECT_DUPLICATES, &bad);
	struct event e;

	if (object == NULL)
		return CEDE_FAIL(
			reterr, CEDE_ERR_INPUT, "line %" PRIu64 ": no JSON: %s", number, bad.text);
	int r = read_event(object, number, &e, reterr);
	if (r == CEDE_OK)
		r = chain(a, &e, reterr);
	if (r == CEDE_OK && strcmp(e.kind, "pruned") != 0)
		r = take(a, &e, reterr);
	json_decref(object);
	return r;
}

static int read_export(struct audit *a, struct cede_error *reterr) {
	CLEANUP(freep) char *line = NULL;
	size_t room = 0;
	ssize_t n;

	for (uint64_t number = 1; (n = getline(&line, &room, a->o->export_file)) >= 0; number++) {
		a->lines = number;
		if ((size_t)n > LINE_MOST)
			return CEDE_FAIL(
				reterr, CEDE_ERR_INPUT, "line %" PRIu64 ": too long", number);
		CEDE_TRY(read_line(a, line, (size_t)n, number, reterr));
	}
	if (ferror(a->o->export_file))
		return CEDE_FAIL_SYS(reterr, "read the export");
	return CEDE_OK;
}

/* ---- the store */

static int by_id(const void *x, const void *y) {
	const struct sealed *a = x;
	const struct sealed *b = y;

	return memcmp(a->id.bytes, b->id.bytes, ID_SIZE);
}

static int hash_file(struct audit *a, int fd, uint8_t ret[32], struct cede_error *reterr) {
	CLEANUP(freep) uint8_t *piece = malloc(PIECE);
	size_t got = PIECE;

	if (piece == NULL)
		return CEDE_FAIL_MEMORY(reterr);
	bool ok = EVP_DigestInit_ex2(a->hasher.ctx, a->hasher.md, NULL) == 1;
	for (uint64_t at = 0; ok && got == PIECE; at += got) {
		CEDE_TRY(file_pread_full(fd, piece, PIECE, at, &got, reterr));
		ok = EVP_DigestUpdate(a->hasher.ctx, piece, got) == 1;
	}
	return ok && EVP_DigestFinal_ex(a->hasher.ctx, ret, NULL) == 1
		? CEDE_OK
		: CEDE_FAIL(reterr, CEDE_ERR_CRYPTO, "SHA-256 failed");
}

static int compare_bundle(
	struct audit *a, int dir, const char *name, struct sealed *b, struct cede_error *reterr) {
	CLEANUP(fd_closep) int fd = -1;
	uint8_t hash[32];
	struct stat st;

	b->found = true;
	CEDE_TRY(file_open_beneath(dir, name, O_RDONLY, &fd, reterr));
	if (fstat(fd, &st) < 0)
		return CEDE_FAIL_SYS(reterr, "stat of a bundle");
	if ((uint64_t)st.st_size != b->size) {
		found_id(a, AUDIT_DIFFERENT, &b->id, "another size than the ledger says");
		return CEDE_OK;
	}
	if (!a->o->deep)
		return CEDE_OK;
	CEDE_TRY(hash_file(a, fd, hash, reterr));
	if (memcmp(hash, b->sha256, 32) != 0)
		found_id(a, AUDIT_DIFFERENT, &b->id, "another digest than the ledger says");
	return CEDE_OK;
}

/* "<id>.cms": one that the ledger knows, or not. */
static int take_stored(struct audit *a, int dir, const char *name, struct cede_error *reterr) {
	size_t n = strlen(name);
	struct sealed want;

	if (n != ID_TEXT_SIZE - 1 + 4 || strcmp(name + n - 4, ".cms") != 0 ||
		id_parse(slice_of(name, n - 4), &want.id, NULL) < 0)
		return CEDE_OK;
	a->totals.in_store++;
	struct sealed *b = a->totals.bundles == 0
		? NULL
		: bsearch(&want, a->bundles, a->totals.bundles, sizeof *b, by_id);
	if (b != NULL)
		return compare_bundle(a, dir, name, b, reterr);
	/* of emptied events it can't be said any more; newer ones are not in the export yet */
	if (a->totals.pruned == 0 && id_time_ns(&want.id) <= a->last_ns)
		found_id(a, AUDIT_UNKNOWN, &want.id, "the ledger never sealed it");
	return CEDE_OK;
}

/* <yyyy>/<mm>/<dd>/ */
static int walk_store(struct audit *a, int dir, unsigned depth, struct cede_error *reterr) {
	CLEANUP(fd_closep) int again = -1;
	CLEANUP(dir_closep) DIR *list = NULL;
	const struct dirent *entry;

	CEDE_TRY(file_open_beneath(dir, ".", O_RDONLY | O_DIRECTORY, &again, reterr));
	list = fdopendir(again);
	if (list == NULL)
		return CEDE_FAIL_MEMORY(reterr);
	(void)CEDE_TAKE_FD(again);
	while ((entry = readdir(list)) != NULL) {
		CLEANUP(fd_closep) int below = -1;
		if (entry->d_name[0] == '.')
			continue;
		if (depth == 3)
			CEDE_TRY(take_stored(a, dir, entry->d_name, reterr));
		else if (file_open_beneath(dir, entry->d_name, O_RDONLY | O_DIRECTORY, &below,
				 NULL) == CEDE_OK)
			CEDE_TRY(walk_store(a, below, depth + 1, reterr));
	}
	return CEDE_OK;
}

static void still_here(struct audit *a) {
	for (uint64_t row = 0; row < a->seen_room; row++) {
		struct seen *c = &a->seen[row];
		if (c->there && c->ended_ns == 0)
			stayed(a, c, a->last_ns); /* as of the export's end */
		if (c->pending && a->o->require >= 0 && audit_level("removed") < a->o->require)
			found_id(a, AUDIT_WEAK_WIPE, &c->id,
				"removed, and the key of its epoch is there");
	}
}

int audit_run(
	const struct audit_options *options, struct audit_totals *ret, struct cede_error *reterr) {
	CLEANUP(audit_done) struct audit a = {.o = options};
	char subject[32];

	CEDE_TRY(merkle_hasher_init(&a.hasher, reterr));
	CEDE_TRY(load_checkpoints(&a, reterr));
	CEDE_TRY(read_export(&a, reterr));
	unexplained(&a);
	if (a.checkpoint_next < a.checkpoint_count) {
		(void)snprintf(subject, sizeof subject, "%" PRIu64, a.totals.events + 1);
		found(&a, AUDIT_LEDGER_SHORT, subject,
			"the agency has seen this event and later ones; the export ends before");
	}
	still_here(&a);
	if (a.totals.bundles > 1)
		qsort(a.bundles, a.totals.bundles, sizeof *a.bundles, by_id);
	CEDE_TRY(walk_store(&a, options->host_dir, 0, reterr));
	for (size_t i = 0; i < a.totals.bundles; i++)
		if (a.bundles[i].receipted && !a.bundles[i].found)
			found_id(&a, AUDIT_LACKING, &a.bundles[i].id,
				"the host's ledger has a receipt for it, and it is not in the store");
	*ret = a.totals;
	return CEDE_OK;
}
