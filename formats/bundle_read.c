/* SPDX-License-Identifier: Apache-2.0
 * Only libarchive's tar reader and zstd filter are used. Names of members are not trusted: each
 * must be the one that the manifest, already checked, gives for its place. */
#include <archive.h>
#include <archive_entry.h>
#include <fcntl.h>
#include <locale.h>
#include <openssl/evp.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "certs/ossl.h"
#include "formats/bundle.h"
#include "formats/place.h"

#define READ_SIZE (256 * 1024)

/* What one call of bundle_unpack() holds. */
struct unpack {
	int fd;
	uint64_t offset; /* in fd */
	int read_error;  /* errno of the last read, or 0 */
	struct archive *archive;
	struct manifest_read *manifest;
	struct buf json;
	struct place place;
	uint8_t in[READ_SIZE];
	uint8_t copy[READ_SIZE];
};

static la_ssize_t read_more(struct archive *a, void *ctx, const void **ret) {
	struct unpack *u = ctx;
	struct cede_error err;
	size_t len;

	if (file_pread_full(u->fd, u->in, READ_SIZE, u->offset, &len, &err) < 0) {
		u->read_error = err.sys;
		archive_set_error(a, err.sys, "read");
		return -1;
	}
	u->offset += len;
	*ret = u->in;
	return (la_ssize_t)len;
}

/* libarchive's own words may quote a name (I9): they are not used. */
static int archive_failed(struct unpack *u, const char *what, struct cede_error *reterr) {
	if (u->read_error != 0) {
		errno = u->read_error;
		return CEDE_FAIL_SYS(reterr, "%s", what);
	}
	return CEDE_FAIL(reterr, CEDE_ERR_INPUT, "%s: damaged or cut off", what);
}

static int open_archive(struct unpack *u, struct cede_error *reterr) {
	u->archive = archive_read_new();
	if (u->archive == NULL)
		return CEDE_FAIL_MEMORY(reterr);
	if (archive_read_support_filter_zstd(u->archive) != ARCHIVE_OK ||
		archive_read_support_format_tar(u->archive) != ARCHIVE_OK)
		return CEDE_FAIL(reterr, CEDE_ERR_BUG, "libarchive without zstd or tar");
	if (archive_read_open(u->archive, u, NULL, read_more, NULL) != ARCHIVE_OK)
		return archive_failed(u, "the bundle", reterr);
	return CEDE_OK;
}

/* The next member: a plain file with that name, and with that size unless that is NULL. */
static int next_member(struct unpack *u, struct slice name, const uint64_t *size, size_t number,
	uint64_t *ret_size, struct cede_error *reterr) {
	struct archive_entry *entry;

	if (archive_read_next_header(u->archive, &entry) != ARCHIVE_OK) {
		if (u->read_error != 0)
			return archive_failed(u, "the bundle", reterr);
		return CEDE_FAIL(reterr, CEDE_ERR_INPUT,
			"member %zu of the bundle is missing or damaged", number);
	}
	const char *path = archive_entry_pathname(entry);
	if (archive_entry_filetype(entry) != AE_IFREG || archive_entry_hardlink(entry) != NULL ||
		archive_entry_symlink(entry) != NULL || archive_entry_sparse_count(entry) != 0)
		return CEDE_FAIL(reterr, CEDE_ERR_INPUT,
			"member %zu of the bundle is no plain file", number);
	if (path == NULL || !slice_equal(slice_str(path), name))
		return CEDE_FAIL(reterr, CEDE_ERR_INPUT,
			"member %zu of the bundle is not the one of the manifest", number);
	if (!archive_entry_size_is_set(entry) || archive_entry_size(entry) < 0 ||
		(size != NULL && (uint64_t)archive_entry_size(entry) != *size))
		return CEDE_FAIL(reterr, CEDE_ERR_INPUT,
			"member %zu of the bundle has another size than in the manifest", number);
	*ret_size = (uint64_t)archive_entry_size(entry);
	return CEDE_OK;
}

static int read_manifest(struct unpack *u, struct cede_error *reterr) {
	uint64_t size;
	uint8_t *at;

	CEDE_TRY(next_member(u, SLICE_LIT(MANIFEST_NAME), NULL, 1, &size, reterr));
	if (size == 0 || size > MANIFEST_SIZE_MAX)
		return CEDE_FAIL(reterr, CEDE_ERR_INPUT, "the manifest is empty or too large");
	CEDE_TRY(buf_room(&u->json, (size_t)size, &at, reterr));
	if (archive_read_data(u->archive, at, (size_t)size) != (la_ssize_t)size)
		return archive_failed(u, "the manifest", reterr);
	buf_grew(&u->json, (size_t)size);
	return manifest_read(buf_slice(&u->json), &u->manifest, reterr);
}

/* Content of the current member into fd, hashed on the way. */
static int copy_content(struct unpack *u, int fd, uint64_t size, uint8_t ret_sha256[32],
	struct cede_error *reterr) {
	CLEANUP(ossl_md_ctx_freep) EVP_MD_CTX *ctx = EVP_MD_CTX_new();

	if (ctx == NULL || EVP_DigestInit_ex2(ctx, EVP_sha256(), NULL) != 1)
		return OSSL_FAIL(reterr, "SHA-256");
	while (size > 0) {
		size_t want = size < READ_SIZE ? (size_t)size : READ_SIZE;
		la_ssize_t n = archive_read_data(u->archive, u->copy, want);
		if (n <= 0)
			return archive_failed(u, "a member of the bundle", reterr);
		CEDE_TRY(file_write_all(fd, u->copy, (size_t)n, reterr));
		if (EVP_DigestUpdate(ctx, u->copy, (size_t)n) != 1)
			return OSSL_FAIL(reterr, "SHA-256");
		size -= (uint64_t)n;
	}
	if (EVP_DigestFinal_ex(ctx, ret_sha256, NULL) != 1)
		return OSSL_FAIL(reterr, "SHA-256");
	return CEDE_OK;
}

static int unpack_member(struct unpack *u, const struct manifest_entry *e, size_t number,
	struct cede_error *reterr) {
	CLEANUP(buf_done) struct buf name = BUF_INIT(PLACE_NAME_MAX);
	CLEANUP(place_file_done) struct place_file file = PLACE_FILE_NONE;
	uint8_t sha256[32];
	uint64_t size;

	CEDE_TRY(manifest_member_name(e, &name, reterr));
	CEDE_TRY(next_member(u, buf_slice(&name), &e->segment_size, number, &size, reterr));
	CEDE_TRY(place_file_new(&u->place, e, &file, reterr));
	CEDE_TRY(copy_content(u, file.fd, size, sha256, reterr));
	if (memcmp(sha256, e->sha256, sizeof sha256) != 0)
		return CEDE_FAIL(reterr, CEDE_ERR_INPUT,
			"member %zu of the bundle has another SHA-256 than in the manifest", number);
	return place_file_keep(&u->place, e, &file, reterr);
}

/* Whether a segment of its capture stands here first: each capture is joined once. */
static bool joins(const struct manifest *m, size_t i) {
	if (m->entries[i].segment_count < 2)
		return false;
	for (size_t k = 0; k < i; k++)
		if (m->entries[k].segment_count > 1 &&
			id_equal(&m->entries[k].capture, &m->entries[i].capture))
			return false;
	return true;
}

static int unpack_all(struct unpack *u, struct cede_error *reterr) {
	struct archive_entry *more;

	CEDE_TRY(open_archive(u, reterr));
	CEDE_TRY(read_manifest(u, reterr));
	const struct manifest *m = manifest_peek(u->manifest);
	for (size_t i = 0; i < m->count; i++)
		CEDE_TRY(unpack_member(u, &m->entries[i], i + 2, reterr));
	int r = archive_read_next_header(u->archive, &more);
	if (r != ARCHIVE_EOF)
		return CEDE_FAIL(reterr, CEDE_ERR_INPUT,
			"the bundle has more than its manifest says, or is damaged at its end");
	CEDE_TRY(place_manifest(&u->place, &m->bundle, buf_slice(&u->json), reterr));
	for (size_t i = 0; i < m->count; i++)
		if (joins(m, i))
			CEDE_TRY(place_join(&u->place, &m->entries[i], reterr));
	return place_sync(&u->place, reterr);
}

static int drop_segments(struct unpack *u, struct cede_error *reterr) {
	const struct manifest *m = manifest_peek(u->manifest);

	for (size_t i = 0; i < m->count; i++)
		if (joins(m, i))
			CEDE_TRY(place_drop_segments(&u->place, &m->entries[i], reterr));
	return CEDE_OK;
}

static void unpack_free(struct unpack *u) {
	(void)archive_read_free(u->archive);
	manifest_read_free(u->manifest);
	buf_done(&u->json);
	place_done(&u->place);
	explicit_bzero(u->copy, sizeof u->copy);
	free(u);
}

int bundle_unpack(int fd, int dirfd, struct manifest_read **ret_manifest, struct cede_error *reterr) {
	struct unpack *u = calloc(1, sizeof *u);
	locale_t utf8 = newlocale(LC_CTYPE_MASK, "C.UTF-8", (locale_t)0);

	if (u == NULL || utf8 == (locale_t)0) {
		free(u);
		return CEDE_FAIL_MEMORY(reterr);
	}
	/* with any other character set libarchive would recode the names of pax records */
	locale_t before = uselocale(utf8);
	u->fd = fd;
	u->json = BUF_INIT(MANIFEST_SIZE_MAX);
	place_init(&u->place, dirfd);
	int r = unpack_all(u, reterr);
	if (r < 0)
		place_undo(&u->place);
	else
		r = drop_segments(u, reterr);
	if (r == CEDE_OK && ret_manifest != NULL)
		*ret_manifest = CEDE_TAKE(u->manifest);
	unpack_free(u);
	(void)uselocale(before);
	freelocale(utf8);
	return r;
}
