/* SPDX-License-Identifier: Apache-2.0 */
#include <dirent.h>
#include <fcntl.h>
#include <openssl/evp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/file.h"
#include "receiver/audit_internal.h"

#define PIECE           (1U << 20)
#define CLOCKS_APART_S  3600 /* the host's and the agency's, at most */
#define SEALED_WITHIN_S 600  /* from a bundle's id to the event of it, at most */

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

	b->found = true;
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

/* Newer bundles are not in the export yet: an id is made when packing begins, and the ledger tells of
 * the bundle when it is sealed. An id's time is its sender's word; when the file came is the
 * receiver's. */
static bool is_of_the_export(const struct audit *a, int dir, const char *name, const struct id *id) {
	int64_t end_s = a->last_ns / NS_PER_SECOND;
	struct stat st;

	return id_time_ns(id) / NS_PER_SECOND <= end_s - SEALED_WITHIN_S ||
		(fstatat(dir, name, &st, AT_SYMLINK_NOFOLLOW) == 0 &&
			st.st_mtim.tv_sec < end_s - CLOCKS_APART_S);
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
	/* of emptied events it can't be said any more */
	if (a->totals.pruned == 0 && is_of_the_export(a, dir, name, &want.id))
		audit_found_id(a, AUDIT_UNKNOWN, &want.id, "the ledger never sealed it");
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

int audit_store(struct audit *a, struct cede_error *reterr) {
	match_receipts(a);
	CEDE_TRY(walk_store(a, a->o->host_dir, 0, reterr));
	for (size_t i = 0; i < a->totals.bundles; i++)
		if (a->bundles[i].receipted && !a->bundles[i].found)
			audit_found_id(a, AUDIT_LACKING, &a->bundles[i].id,
				"the host's ledger has a receipt for it, and it is not in the store");
	return CEDE_OK;
}
