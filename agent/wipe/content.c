/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/wipe/content.h"

#include <errno.h>
#include <fcntl.h>
#include <openssl/evp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"

#define SECTOR      512U /* what may reach the disk alone */
#define MATCH_LEAST 16U  /* bytes of the stream that can't be there by chance */

/* AES-256-CTR under a key that is no secret: incompressible, and the same for ever, so that a block
 * of it is known again after a crash. */
static int make_stream(uint8_t *out, struct cede_error *reterr) {
	static const uint8_t key[32] = "cede wipes with this fixed key.";
	static const uint8_t iv[16] = {0};
	EVP_CIPHER_CTX *ctx = EVP_CIPHER_CTX_new();
	int n = 0;

	memset(out, 0, CONTENT_STREAM);
	bool ok = ctx != NULL && EVP_EncryptInit_ex2(ctx, EVP_aes_256_ctr(), key, iv, NULL) == 1 &&
		EVP_EncryptUpdate(ctx, out, &n, out, (int)CONTENT_STREAM) == 1 &&
		n == (int)CONTENT_STREAM;
	EVP_CIPHER_CTX_free(ctx);
	return ok ? CEDE_OK : CEDE_FAIL(reterr, CEDE_ERR_CRYPTO, "AES-256-CTR failed");
}

int content_init(struct content *ret, struct cede_error *reterr) {
	*ret = (struct content){.stream = aligned_alloc(CONTENT_BLOCK, CONTENT_STREAM),
		.scratch = aligned_alloc(CONTENT_BLOCK, CONTENT_STREAM)};
	if (ret->stream == NULL || ret->scratch == NULL) {
		content_done(ret);
		return CEDE_FAIL_MEMORY(reterr);
	}
	int r = make_stream(ret->stream, reterr);
	if (r < 0)
		content_done(ret);
	return r;
}

void content_done(struct content *c) {
	free(c->stream);
	free(c->scratch);
	*c = (struct content){0};
}

uint64_t content_rounded(uint64_t size) {
	return (size + CONTENT_BLOCK - 1) / CONTENT_BLOCK * CONTENT_BLOCK;
}

/* ---- the blocks of a file */

/* One piece, which lies within one repetition of the stream. */
typedef int piece_fn(
	const struct content *c, int fd, uint64_t at, size_t n, struct cede_error *reterr);

static int each_piece(const struct content *c, int fd, uint64_t from, uint64_t to, piece_fn *fn,
	struct cede_error *reterr) {
	while (from < to) {
		uint64_t room = CONTENT_STREAM - from % CONTENT_STREAM;
		size_t n = (size_t)(to - from < room ? to - from : room);
		CEDE_TRY(fn(c, fd, from, n, reterr));
		from += n;
	}
	return CEDE_OK;
}

/* SEEK_DATA tells where there are blocks; those that were never written hold none of its content. */
static int each_extent(
	const struct content *c, int fd, uint64_t size, piece_fn *fn, struct cede_error *reterr) {
	for (uint64_t at = 0; at < size;) {
		off_t from = lseek(fd, (off_t)at, SEEK_DATA);
		if (from < 0 && errno == ENXIO)
			return CEDE_OK; /* a hole up to its end */
		off_t to = from < 0 ? from : lseek(fd, from, SEEK_HOLE);
		if (to < 0)
			return CEDE_FAIL_SYS(reterr, "look for its blocks");
		uint64_t first = (uint64_t)from / CONTENT_BLOCK * CONTENT_BLOCK;
		at = content_rounded((uint64_t)to);
		CEDE_TRY(each_piece(c, fd, first, at < size ? at : size, fn, reterr));
	}
	return CEDE_OK;
}

static int each(const struct content *c, int fd, uint64_t size, bool sparse, piece_fn *fn,
	struct cede_error *reterr) {
	uint64_t end = content_rounded(size);

	return sparse ? each_extent(c, fd, end, fn, reterr) : each_piece(c, fd, 0, end, fn, reterr);
}

static int write_piece(
	const struct content *c, int fd, uint64_t at, size_t n, struct cede_error *reterr) {
	return file_pwrite_all(fd, c->stream + at % CONTENT_STREAM, n, at, reterr);
}

int content_overwrite(
	const struct content *c, int fd, uint64_t size, bool sparse, struct cede_error *reterr) {
	return each(c, fd, size, sparse, write_piece, reterr);
}

/* ---- reading back */

static int read_piece(
	const struct content *c, int fd, uint64_t at, size_t n, struct cede_error *reterr) {
	size_t got;

	CEDE_TRY(file_pread_full(fd, c->scratch, n, at, &got, reterr));
	if (got != n || memcmp(c->scratch, c->stream + at % CONTENT_STREAM, n) != 0)
		return CEDE_FAIL(reterr, CEDE_ERR_IO,
			"what was written over it is not what the device gives back");
	return CEDE_OK;
}

/* Where a file system takes O_DIRECT and reads from the page cache all the same (ext4 with data in
 * its journal, encrypted files) its alignment is 0; kernels before 6.1 do not tell. */
static bool go_direct(int fd, bool doubtful) {
	int flags = fcntl(fd, F_GETFL);

#ifdef STATX_DIOALIGN
	struct statx st;
	if (statx(fd, "", AT_EMPTY_PATH, STATX_DIOALIGN, &st) == 0 &&
		(st.stx_mask & STATX_DIOALIGN) != 0)
		doubtful = st.stx_dio_offset_align == 0 || st.stx_dio_offset_align > CONTENT_BLOCK;
#endif
	return !doubtful && flags >= 0 && fcntl(fd, F_SETFL, flags | O_DIRECT) == 0;
}

int content_verify(const struct content *c, int fd, uint64_t size, bool sparse, bool doubtful,
	bool *ret_direct, struct cede_error *reterr) {
	*ret_direct = go_direct(fd, doubtful);
	return *ret_direct ? each(c, fd, size, sparse, read_piece, reterr) : CEDE_OK;
}

/* ---- is it still the content that was sealed? */

/* One piece of a file whose wipe was cut short. */
struct look {
	bool stream_seen;  /* some of our stream is in it */
	bool tail_is_zero; /* nothing stands behind the end that it had */
};

static void look_at_piece(
	const struct content *c, uint64_t at, size_t n, uint64_t end, struct look *look) {
	for (size_t i = 0; i < n; i += SECTOR) {
		size_t m = n - i < SECTOR ? n - i : SECTOR;
		look->stream_seen = look->stream_seen ||
			(m >= MATCH_LEAST && memcmp(c->scratch + i, c->stream + i, m) == 0);
	}
	for (size_t i = end > at ? (size_t)(end - at) : 0; i < n; i++)
		look->tail_is_zero = look->tail_is_zero && c->scratch[i] == 0;
}

/* The digest that was sealed: of the whole content, or (a capture in segments) over the digests of
 * its segments. */
struct sealed_digest {
	EVP_MD_CTX *of_segment;
	EVP_MD_CTX *of_digests; /* with segments alone */
	uint64_t segment_size;  /* 0: whole */
	uint64_t in_segment;    /* bytes of the present one */
};

static void digest_done(struct sealed_digest *d) {
	EVP_MD_CTX_free(d->of_segment);
	EVP_MD_CTX_free(d->of_digests);
}

static bool digest_init(struct sealed_digest *d, uint64_t segment_size) {
	*d = (struct sealed_digest){.of_segment = EVP_MD_CTX_new(),
		.of_digests = EVP_MD_CTX_new(),
		.segment_size = segment_size};
	return d->of_segment != NULL && d->of_digests != NULL &&
		EVP_DigestInit_ex2(d->of_segment, EVP_sha256(), NULL) == 1 &&
		EVP_DigestInit_ex2(d->of_digests, EVP_sha256(), NULL) == 1;
}

static bool end_segment(struct sealed_digest *d) {
	uint8_t digest[32];

	d->in_segment = 0;
	return EVP_DigestFinal_ex(d->of_segment, digest, NULL) == 1 &&
		EVP_DigestUpdate(d->of_digests, digest, sizeof digest) == 1 &&
		EVP_DigestInit_ex2(d->of_segment, EVP_sha256(), NULL) == 1;
}

static bool digest_add(struct sealed_digest *d, const uint8_t *data, size_t size) {
	while (size > 0) {
		uint64_t room = d->segment_size == 0 ? size : d->segment_size - d->in_segment;
		size_t n = room < size ? (size_t)room : size;
		if (EVP_DigestUpdate(d->of_segment, data, n) != 1)
			return false;
		data += n;
		size -= n;
		d->in_segment += n;
		if (d->in_segment == d->segment_size && !end_segment(d))
			return false;
	}
	return true;
}

static bool digest_end(struct sealed_digest *d, uint8_t ret[32]) {
	if (d->segment_size == 0)
		return EVP_DigestFinal_ex(d->of_segment, ret, NULL) == 1;
	return (d->in_segment == 0 || end_segment(d)) &&
		EVP_DigestFinal_ex(d->of_digests, ret, NULL) == 1;
}

static bool read_through(const struct content *c, int fd, const struct wipe_item *item,
	uint64_t size, struct look *look, uint8_t digest[32], struct cede_error *err) {
	uint64_t end = item->want.size;
	struct sealed_digest d;
	bool ok = digest_init(&d, item->segment_size);

	for (uint64_t at = 0; ok && at < size; at += CONTENT_STREAM) {
		size_t want = size - at < CONTENT_STREAM ? (size_t)(size - at) : CONTENT_STREAM;
		size_t sealed = at >= end ? 0 : end - at < want ? (size_t)(end - at) : want;
		size_t got;
		ok = file_pread_full(fd, c->scratch, want, at, &got, err) == CEDE_OK &&
			got == want && digest_add(&d, c->scratch, sealed);
		if (ok)
			look_at_piece(c, at, want, end, look);
	}
	ok = ok && digest_end(&d, digest);
	digest_done(&d);
	return ok;
}

/* Times alone do not make another capture of it: chmod, chattr, or a rename there and back change
 * them. The same file with the very content that was sealed is what was proven; and, if its wipe
 * was cut short, with our stream in it, or with zeros up to the end of its last block: after a
 * power failure the new size can be on the disk and nothing of the stream. */
enum content_is content_compare(const struct content *c, int fd, const struct wipe_item *item,
	uint64_t size, struct cede_error *reterr) {
	struct look look = {.tail_is_zero = true};
	struct cede_error err = {0};
	uint8_t digest[32];

	if (!read_through(c, fd, item, size, &look, digest, &err)) {
		if (err.code == CEDE_OK)
			(void)CEDE_FAIL(&err, CEDE_ERR_IO, "its content could not be read");
		*reterr = err;
		return CONTENT_UNREADABLE;
	}
	bool sealed = look.tail_is_zero && memcmp(digest, item->sha256, 32) == 0;
	if (sealed && size == item->want.size)
		return CONTENT_SEALED;
	bool ours = item->begun && (sealed || look.stream_seen || size == 0);
	return ours ? CONTENT_OURS : CONTENT_OTHER;
}
