/* SPDX-License-Identifier: Apache-2.0 */
#include <dirent.h>
#include <fcntl.h>
#include <inttypes.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/parse.h"
#include "formats/receipt.h"
#include "receiver/audit_internal.h"

#define PIECE           (1U << 20)
#define CLOCKS_APART_S  3600        /* the host's and the agency's, at most */
#define SEALED_WITHIN_S 600         /* from a bundle's id to the event of it, at most */
#define ANCHOR_WITHIN_S (24 * 3600) /* each push brings a checkpoint */

/* Of both lists: a bundle begins with its id. */
static int by_id(const void *x, const void *y) {
	return memcmp(x, y, ID_SIZE);
}

static void match_receipts(struct audit *a) {
	if (a->totals.bundles > 1)
		qsort(a->bundles, a->totals.bundles, sizeof *a->bundles, by_id);
	if (a->receipt_count > 1)
		qsort(a->receipts, a->receipt_count, sizeof *a->receipts, by_id);
	for (size_t i = 0; i < a->totals.bundles && a->receipt_count > 0; i++) {
		struct sealed *b = &a->bundles[i];
		b->receipted =
			bsearch(&b->id, a->receipts, a->receipt_count, sizeof b->id, by_id) != NULL;
		a->totals.receipted += b->receipted;
	}
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

	b->found = b->to->found = true;
	CEDE_TRY(file_open_beneath(dir, name, O_RDONLY, &fd, reterr));
	if (fstat(fd, &st) < 0)
		return CEDE_FAIL_SYS(reterr, "stat of a bundle");
	if ((uint64_t)st.st_size != b->size) {
		audit_found_id(a, AUDIT_DIFFERENT, &b->id, "another size than the ledger says");
		return CEDE_OK;
	}
	if (!a->o->deep)
		return CEDE_OK;
	CEDE_TRY(hash_file(a, fd, hash, reterr));
	if (memcmp(hash, b->sha256, 32) != 0)
		audit_found_id(a, AUDIT_DIFFERENT, &b->id, "another digest than the ledger says");
	return CEDE_OK;
}

/* ---- when a bundle came, and what was known of the ledger then */

/* The value of a line of a receipt. */
static bool receipt_line(struct slice text, const char *key, struct slice *ret) {
	const char *at = memmem(text.data, text.len, key, strlen(key));

	if (at == NULL)
		return false;
	size_t before = (size_t)((const uint8_t *)at - text.data) + strlen(key);
	*ret = slice_of(text.data + before, text.len - before);
	const uint8_t *end = memchr(ret->data, '\n', ret->len);
	ret->len = end == NULL ? ret->len : (size_t)(end - ret->data);
	return true;
}

/* The receipt beside it, if there is one: the receiver's own word, as all in the store is. */
static bool received(struct audit *a, int dir, const char *name, int64_t *ret_ns) {
	CLEANUP(buf_done) struct buf text = BUF_INIT(RECEIPT_MAX);
	char receipt[ID_TEXT_SIZE + 16];
	struct slice value, size, root;
	uint64_t events;

	(void)snprintf(receipt, sizeof receipt, "%.*s.receipt", ID_TEXT_SIZE - 1, name);
	if (file_load(dir, receipt, &text, NULL) < 0)
		return false;
	if (receipt_line(buf_slice(&text), "\ncheckpoint: ", &value) &&
		slice_cut(value, ' ', &size, &root) &&
		parse_u64(size, 1, INT64_MAX, &events, NULL) == CEDE_OK &&
		events > a->store.receipts_know)
		a->store.receipts_know = events;
	return receipt_line(buf_slice(&text), "\nreceived: ", &value) &&
		parse_time(value, ret_ns, NULL) == CEDE_OK;
}

/* Newer bundles are not in the export yet: an id is made when packing begins, and the ledger tells of
 * the bundle when it is sealed. An id's time is its sender's word; when the file came is the
 * receiver's. */
static bool is_of_the_export(const struct audit *a, int64_t id_ns, int64_t file_ns) {
	int64_t end_s = a->end_ns / NS_PER_SECOND;

	return id_ns / NS_PER_SECOND <= end_s - SEALED_WITHIN_S ||
		file_ns / NS_PER_SECOND < end_s - CLOCKS_APART_S;
}

/* True: the export must know it. */
static bool look_when(struct audit *a, int dir, const char *name, const struct id *id) {
	int64_t id_ns = id_time_ns(id);
	int64_t file_ns = INT64_MAX;
	int64_t came_ns;
	struct stat st;

	if (fstatat(dir, name, &st, AT_SYMLINK_NOFOLLOW) == 0)
		file_ns = clock_ns_of(&st.st_mtim);
	if (!received(a, dir, name, &came_ns))
		came_ns = id_ns < file_ns ? id_ns : file_ns;
	if (came_ns > a->store.newest_ns)
		a->store.newest_ns = came_ns;
	bool must = is_of_the_export(a, id_ns, file_ns);
	a->store.of_the_export |= must;
	return must;
}

/* The newest bundle behind the newest checkpoint. */
static int64_t seconds_behind(const struct audit *a) {
	return a->store.newest_ns / NS_PER_SECOND - a->kept.at_ns / NS_PER_SECOND;
}

/* A bundle that came while the store was walked has a receipt that names a newer checkpoint than
 * those that were read before. That one was kept before the receipt was made: it is there by now. */
static int read_later_ones(struct audit *a, struct cede_error *reterr) {
	CLEANUP(checkpoints_closep) struct checkpoints *again = NULL;
	struct checkpoint c;
	bool there = true;

	if (a->store.receipts_know <= a->kept.size && seconds_behind(a) <= ANCHOR_WITHIN_S)
		return CEDE_OK;
	CEDE_TRY(checkpoints_open(a->o->host_dir, &again, reterr));
	while (there) {
		int r = checkpoints_next(again, &c, &there, reterr);
		if (r == CEDE_ERR_INPUT)
			there = true; /* told when they were read first */
		else
			CEDE_TRY(r);
		if (r == CEDE_OK && there && c.size > a->kept.size)
			a->kept = c;
	}
	return CEDE_OK;
}

/* What the agency was not shown, or can't tell any more, whoever has root on the host can invent. */
static void look_for_anchor(struct audit *a) {
	char text[160];

	if (a->totals.findings[AUDIT_CHECKPOINT_BAD] == 0 && a->store.receipts_know > a->kept.size)
		(void)snprintf(text, sizeof text,
			"receipts in the store name a checkpoint of %" PRIu64
			" events, and it is not among the checkpoints: they were cut off or removed",
			a->store.receipts_know);
	else if (a->totals.checkpoints == 0 && a->store.of_the_export)
		(void)snprintf(text, sizeof text,
			"there are bundles in the store and no checkpoint: any history would do");
	else if (a->totals.checkpoints > 0 && seconds_behind(a) > ANCHOR_WITHIN_S)
		(void)snprintf(text, sizeof text,
			"the newest bundle came %" PRId64
			" hours after the newest checkpoint: later events are the host's word alone",
			seconds_behind(a) / 3600);
	else
		return;
	audit_found(a, AUDIT_UNANCHORED, "-", text);
}

/* ---- what the ledger does not name */

static int add_unnamed(struct audit *a, const struct id *id, struct cede_error *reterr) {
	if (a->store.unnamed_count == a->store.unnamed_room) {
		size_t room = a->store.unnamed_room == 0 ? 256 : a->store.unnamed_room * 2;
		struct unnamed *list = reallocarray(a->store.unnamed, room, sizeof *list);
		if (list == NULL)
			return CEDE_FAIL_MEMORY(reterr);
		a->store.unnamed = list;
		a->store.unnamed_room = room;
	}
	a->store.unnamed[a->store.unnamed_count++] = (struct unnamed){id_time_ns(id), *id};
	return CEDE_OK;
}

/* Both: the newest first. */
static int by_time(const void *x, const void *y) {
	const struct unnamed *a = x;
	const struct unnamed *b = y;

	return (a->id_ns < b->id_ns) - (a->id_ns > b->id_ns);
}

static int by_before(const void *x, const void *y) {
	const struct pruned *a = x;
	const struct pruned *b = y;

	return (a->before_ns < b->before_ns) - (a->before_ns > b->before_ns);
}

/* Each bundle that was pruned was of before a time, and there were so many of them. The newest has
 * the fewest prunings that can be its own, so it takes its place first: what finds none was never
 * sealed, however the others are shared out. */
static void judge_unnamed(struct audit *a) {
	const struct pruned *said = a->emptied.list;
	uint64_t places = 0;
	size_t next = 0;

	if (a->emptied.count > 1)
		qsort(a->emptied.list, a->emptied.count, sizeof *said, by_before);
	if (a->store.unnamed_count > 1)
		qsort(a->store.unnamed, a->store.unnamed_count, sizeof *a->store.unnamed, by_time);
	for (size_t i = 0; i < a->store.unnamed_count; i++) {
		const struct unnamed *u = &a->store.unnamed[i];
		for (; next < a->emptied.count && said[next].before_ns > u->id_ns; next++)
			places += said[next].beyond ? 0 : said[next].bundles;
		if (places > 0)
			places--;
		else
			audit_found_id(a, AUDIT_UNKNOWN, &u->id,
				next == 0
					? "the ledger never sealed it"
					: "the ledger does not name it, and has pruned fewer bundles than it lacks");
	}
}

/* ---- what the store does not have */

/* A host with several agencies has receipts of each, and which of their names is this agency's the
 * ledger does not say: it is one of which something is here. Of the others the host's word is told
 * in the totals. */
static void look_for_lacking(struct audit *a) {
	bool any = false;
	char text[160];

	for (const struct destination *to = a->destinations; to != NULL; to = to->next)
		any = any || to->found;
	for (size_t i = 0; i < a->totals.bundles; i++) {
		const struct sealed *b = &a->bundles[i];
		if (!b->receipted || b->found)
			continue;
		if (audit_several(a) && !b->to->found)
			a->totals.elsewhere++;
		else
			audit_found_id(a, AUDIT_LACKING, &b->id,
				"the host's ledger has a receipt for it, and it is not in the store");
	}
	if (any || a->totals.elsewhere == 0)
		return;
	(void)snprintf(text, sizeof text,
		"the host has receipts for %" PRIu64
		" bundles, for several destinations, and none of them is in the store",
		a->totals.elsewhere);
	audit_found(a, AUDIT_LACKING, "-", text);
}

/* ---- the walk */

/* "<id>.cms": one that the ledger knows, or not. */
static int take_stored(struct audit *a, int dir, const char *name, struct cede_error *reterr) {
	size_t n = strlen(name);
	struct sealed want;

	if (n != ID_TEXT_SIZE - 1 + 4 || strcmp(name + n - 4, ".cms") != 0 ||
		id_parse(slice_of(name, n - 4), &want.id, NULL) < 0)
		return CEDE_OK;
	a->totals.in_store++;
	bool must = look_when(a, dir, name, &want.id);
	struct sealed *b = a->totals.bundles == 0
		? NULL
		: bsearch(&want, a->bundles, a->totals.bundles, sizeof *b, by_id);
	if (b != NULL)
		return compare_bundle(a, dir, name, b, reterr);
	return must ? add_unnamed(a, &want.id, reterr) : CEDE_OK;
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

int audit_store(struct audit *a, struct cede_error *reterr) {
	match_receipts(a);
	CEDE_TRY(walk_store(a, a->o->host_dir, 0, reterr));
	judge_unnamed(a);
	CEDE_TRY(read_later_ones(a, reterr));
	look_for_anchor(a);
	look_for_lacking(a);
	return CEDE_OK;
}
