/* SPDX-License-Identifier: Apache-2.0 */
#include <fcntl.h>
#include <openssl/evp.h>
#include <stdlib.h>
#include <zstd.h>

#include "agent/purge/internal.h"
#include "base/check.h"
#include "base/cleanup.h"
#include "base/file.h"

#define PIECE     (1U << 20)
#define PART_MOST (48U << 20) /* of zstd in one envelope: what stock tools open in memory */
#define LEVEL     3

struct copy {
	struct purge *p;
	EVP_MD_CTX *digest; /* over all parts, one after the other */
	ZSTD_CCtx *zstd;
	struct sealer *sealer;
	int fd; /* of the part that is being written */
	uint64_t in_part;
	uint8_t *in, *out;
};

static void copy_done(struct copy *c) {
	EVP_MD_CTX_free(c->digest);
	(void)ZSTD_freeCCtx(c->zstd);
	sealer_free(c->sealer);
	fd_closep(&c->fd);
	free(c->in);
	free(c->out);
}

static int begin_part(struct copy *c, struct cede_error *reterr) {
	const struct output *o = &c->p->outputs[OUTPUT_LEDGER];

	if (c->p->copy_parts == 0) {
		CEDE_TRY(file_open_again(o->fd, O_RDWR, &c->fd, reterr));
	} else {
		CLEANUP(freep) char *name = output_part(o, c->p->copy_parts + 1);
		if (name == NULL)
			return CEDE_FAIL_MEMORY(reterr);
		c->fd = openat(
			o->dir_fd, name, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
		if (c->fd < 0)
			return CEDE_FAIL_SYS(reterr, "make part %u", c->p->copy_parts + 1);
	}
	c->p->copy_parts++;
	c->in_part = 0;
	return sealer_new(c->p->copy_to, c->fd, &c->sealer, reterr);
}

static int digest_part(struct copy *c, uint64_t size, struct cede_error *reterr) {
	for (uint64_t at = 0; at < size;) {
		size_t want = size - at < PIECE ? (size_t)(size - at) : PIECE;
		size_t got;
		CEDE_TRY(file_pread_full(c->fd, c->out, want, at, &got, reterr));
		if (got != want || EVP_DigestUpdate(c->digest, c->out, got) != 1)
			return CEDE_FAIL(reterr, CEDE_ERR_IO, "read the copy of the ledger again");
		at += got;
	}
	return CEDE_OK;
}

static int end_part(struct copy *c, struct cede_error *reterr) {
	uint64_t size;
	uint8_t ignored[32];

	CEDE_TRY(sealer_finish(c->sealer, &size, ignored, reterr));
	sealer_freep(&c->sealer);
	CEDE_TRY(file_sync(c->fd, reterr));
	CEDE_TRY(digest_part(c, size, reterr));
	fd_closep(&c->fd);
	return CEDE_OK;
}

static int add(struct copy *c, size_t n, bool last, struct cede_error *reterr) {
	ZSTD_inBuffer in = {c->in, n, 0};
	size_t left;

	do {
		ZSTD_outBuffer out = {c->out, PIECE, 0};
		left = ZSTD_compressStream2(c->zstd, &out, &in, last ? ZSTD_e_end : ZSTD_e_continue);
		if (ZSTD_isError(left))
			return CEDE_FAIL(reterr, CEDE_ERR_IO, "zstd: %s", ZSTD_getErrorName(left));
		if (out.pos == 0)
			continue;
		if (c->sealer == NULL)
			CEDE_TRY(begin_part(c, reterr));
		CEDE_TRY(sealer_write(c->sealer, slice_of(c->out, out.pos), reterr));
		c->in_part += out.pos;
		if (c->in_part > PART_MOST - PIECE)
			CEDE_TRY(end_part(c, reterr));
	} while (last ? left > 0 : in.pos < in.size);
	return CEDE_OK;
}

static int copy_file(struct copy *c, int from, struct cede_error *reterr) {
	size_t got = PIECE;

	for (uint64_t at = 0; got == PIECE; at += got) {
		CEDE_TRY(file_pread_full(from, c->in, PIECE, at, &got, reterr));
		CEDE_TRY(add(c, got, got < PIECE, reterr));
	}
	return c->sealer != NULL ? end_part(c, reterr) : CEDE_OK;
}

static int copy_ledger(struct purge *p, struct cede_error *reterr) {
	CLEANUP(copy_done) struct copy c = {.p = p, .fd = -1};
	CLEANUP(fd_closep) int state = -1;
	CLEANUP(fd_closep) int from = -1;

	require(p->ledger == NULL);
	c.digest = EVP_MD_CTX_new();
	c.zstd = ZSTD_createCCtx();
	c.in = malloc(PIECE);
	c.out = malloc(PIECE);
	if (c.digest == NULL || c.zstd == NULL || c.in == NULL || c.out == NULL)
		return CEDE_FAIL_MEMORY(reterr);
	if (EVP_DigestInit_ex2(c.digest, EVP_sha256(), NULL) != 1 ||
		ZSTD_isError(ZSTD_CCtx_setParameter(c.zstd, ZSTD_c_compressionLevel, LEVEL)))
		return CEDE_FAIL(reterr, CEDE_ERR_BUG, "set up the copy of the ledger");
	CEDE_TRY(file_open_dir(AT_FDCWD, p->config->state, &state, reterr));
	CEDE_TRY(file_open_beneath(state, LEDGER_NAME, O_RDONLY, &from, reterr));
	CEDE_TRY(copy_file(&c, from, reterr));
	if (EVP_DigestFinal_ex(c.digest, p->copy_sha256, NULL) != 1)
		return CEDE_FAIL(reterr, CEDE_ERR_CRYPTO, "SHA-256 failed");
	p->has_copy = true;
	return CEDE_OK;
}

int purge_copy_ledger(struct purge *p, struct cede_error *reterr) {
	int r = copy_ledger(p, reterr);

	if (r < 0)
		cede_error_within(reterr, "%s", p->options->ledger_copy);
	return r;
}
