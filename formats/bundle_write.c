/* SPDX-License-Identifier: Apache-2.0
 * The tar is written by hand: names up to 100 bytes (255 with a fitting '/') stand as they are in a
 * plain ustar header, so that every tar restores their very bytes; the others get a pax record.
 * libarchive (1.4 us a member, fast enough) recodes names by the locale.
 *
 * The tar is compressed as one zstd frame after another (RFC 8878, section 3: frames that follow
 * each other are one stream), each in one call over memory: the streaming call copies its input
 * first, and is half as fast with what can't be compressed. */
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zstd.h>

#include "base/check.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "formats/bundle.h"

#define BLOCK       512
#define FRAME_SIZE  (256 * 1024)          /* of tar in one zstd frame, at most */
#define DIRECT_SIZE (64 * 1024)           /* content from here on is compressed where it lies */
#define TIME_MAX    INT64_C(077777777777) /* eleven octal digits */
#define MEMBER_MAX  INT64_C(077777777777)
#define RECORDS_MAX (MANIFEST_PATH_MAX + 1024)

/* POSIX.1-2001, "ustar Interchange Format" */
struct header {
	char name[100];
	char mode[8];
	char uid[8];
	char gid[8];
	char size[12];
	char mtime[12];
	char checksum[8];
	char type;
	char link[100];
	char magic[6];
	char version[2];
	char user[32];
	char group[32];
	char major[8];
	char minor[8];
	char prefix[155];
	char rest[12];
};

_Static_assert(sizeof(struct header) == BLOCK, "a tar header is one block");

struct bundle_writer {
	const struct manifest *manifest;
	size_t next;
	bool finished;
	ZSTD_CCtx *zstd;
	bundle_sink *sink;
	void *ctx;
	struct buf name;
	size_t filled; /* of gathered */
	uint8_t gathered[FRAME_SIZE];
	uint8_t out[ZSTD_COMPRESSBOUND(FRAME_SIZE)];
};

/* At most FRAME_SIZE bytes as one frame. */
static int put_frame(struct bundle_writer *w, struct slice bytes, struct cede_error *reterr) {
	size_t n = ZSTD_compress2(w->zstd, w->out, sizeof w->out, bytes.data, bytes.len);

	if (ZSTD_isError(n))
		return CEDE_FAIL(reterr, CEDE_ERR_IO, "zstd: %s", ZSTD_getErrorName(n));
	return w->sink(w->ctx, slice_of(w->out, n), reterr);
}

static int drain(struct bundle_writer *w, struct cede_error *reterr) {
	if (w->filled == 0)
		return CEDE_OK;
	struct slice all = slice_of(w->gathered, w->filled);
	w->filled = 0;
	return put_frame(w, all, reterr);
}

static int put(struct bundle_writer *w, struct slice bytes, struct cede_error *reterr) {
	if (bytes.len >= DIRECT_SIZE)
		CEDE_TRY(drain(w, reterr));
	while (bytes.len >= DIRECT_SIZE) {
		size_t n = bytes.len < FRAME_SIZE ? bytes.len : FRAME_SIZE;
		CEDE_TRY(put_frame(w, slice_of(bytes.data, n), reterr));
		bytes = slice_of(bytes.data + n, bytes.len - n);
	}
	if (bytes.len > FRAME_SIZE - w->filled)
		CEDE_TRY(drain(w, reterr));
	if (bytes.len > 0)
		memcpy(w->gathered + w->filled, bytes.data, bytes.len);
	w->filled += bytes.len;
	return CEDE_OK;
}

/* Bytes and zeros up to the next block. */
static int put_padded(struct bundle_writer *w, struct slice bytes, struct cede_error *reterr) {
	static const uint8_t zeros[BLOCK];

	CEDE_TRY(put(w, bytes, reterr));
	return put(w, slice_of(zeros, (BLOCK - bytes.len % BLOCK) % BLOCK), reterr);
}

static void octal(char *field, size_t size, uint64_t value) {
	field[size - 1] = 0;
	for (size_t i = size - 1; i-- > 0; value >>= 3)
		field[i] = (char)('0' + (value & 7));
}

/* Divides the name between prefix and name at a '/', or says that it doesn't fit. */
static bool place_name(struct header *h, struct slice name) {
	if (name.len <= sizeof h->name) {
		memcpy(h->name, name.data, name.len);
		return true;
	}
	size_t first = name.len - sizeof h->name - 1; /* smallest prefix that leaves 100 bytes */
	for (size_t at = first; at <= sizeof h->prefix && at + 1 < name.len; at++) {
		if (name.data[at] != '/' || at == 0)
			continue;
		memcpy(h->prefix, name.data, at);
		memcpy(h->name, name.data + at + 1, name.len - at - 1);
		return true;
	}
	return false;
}

static void fill_header(struct header *h, char type, uint64_t size, int64_t mtime_ns) {
	int64_t seconds = mtime_ns / NS_PER_SECOND;
	unsigned sum = 0;

	octal(h->mode, sizeof h->mode, 0600);
	octal(h->uid, sizeof h->uid, 0);
	octal(h->gid, sizeof h->gid, 0);
	octal(h->size, sizeof h->size, size);
	octal(h->mtime, sizeof h->mtime,
		seconds < 0 ? 0 : (uint64_t)(seconds > TIME_MAX ? TIME_MAX : seconds));
	octal(h->major, sizeof h->major, 0);
	octal(h->minor, sizeof h->minor, 0);
	h->type = type;
	memcpy(h->magic, "ustar", 6);
	memcpy(h->version, "00", 2);
	memset(h->checksum, ' ', sizeof h->checksum);
	const uint8_t *bytes = (const uint8_t *)h;
	for (size_t i = 0; i < sizeof *h; i++)
		sum += bytes[i];
	octal(h->checksum, 7, sum);
}

/* "<length> path=<name>\n", where the length counts itself. */
static int add_record(
	struct buf *out, const char *key, struct slice value, struct cede_error *reterr) {
	size_t body = strlen(key) + value.len + 3;
	size_t len = body + 1;
	char digits[24];

	while (body + (size_t)snprintf(digits, sizeof digits, "%zu", len) != len)
		len = body + (size_t)snprintf(digits, sizeof digits, "%zu", len);
	CEDE_TRY(buf_addf(out, reterr, "%zu %s=", len, key));
	CEDE_TRY(buf_add(out, value.data, value.len, reterr));
	return buf_add(out, "\n", 1, reterr);
}

static bool is_ascii(struct slice s) {
	for (size_t i = 0; i < s.len; i++)
		if (s.data[i] >= 0x80)
			return false;
	return true;
}

/* A pax header that names the next member. */
static int put_long_name(
	struct bundle_writer *w, struct slice name, int64_t mtime_ns, struct cede_error *reterr) {
	CLEANUP(buf_done) struct buf records = BUF_INIT(RECORDS_MAX);
	struct header h = {.name = "PaxHeader"};

	/* without it libarchive would compose letters and accents (NFC); GNU tar passes over it
	 * with a warning */
	if (!is_ascii(name))
		CEDE_TRY(add_record(&records, "hdrcharset", SLICE_LIT("BINARY"), reterr));
	CEDE_TRY(add_record(&records, "path", name, reterr));
	fill_header(&h, 'x', records.len, mtime_ns);
	CEDE_TRY(put_padded(w, slice_of(&h, sizeof h), reterr));
	return put_padded(w, buf_slice(&records), reterr);
}

static int put_member(struct bundle_writer *w, struct slice name, struct slice content,
	int64_t mtime_ns, struct cede_error *reterr) {
	struct header h = {0};

	if (content.len > MEMBER_MAX)
		return CEDE_FAIL(reterr, CEDE_ERR_INPUT, "too large for a bundle");
	if (!place_name(&h, name)) {
		CEDE_TRY(put_long_name(w, name, mtime_ns, reterr));
		memcpy(h.name, "long-name", 9); /* for readers that know no pax records */
	}
	fill_header(&h, '0', content.len, mtime_ns);
	CEDE_TRY(put_padded(w, slice_of(&h, sizeof h), reterr));
	return put_padded(w, content, reterr);
}

static int begin(struct bundle_writer *w, int level, struct cede_error *reterr) {
	CLEANUP(buf_done) struct buf json = BUF_INIT(MANIFEST_SIZE_MAX);

	w->zstd = ZSTD_createCCtx();
	if (w->zstd == NULL)
		return CEDE_FAIL_MEMORY(reterr);
	if (ZSTD_isError(ZSTD_CCtx_setParameter(w->zstd, ZSTD_c_compressionLevel, level)) ||
		ZSTD_isError(ZSTD_CCtx_setParameter(w->zstd, ZSTD_c_checksumFlag, 1)))
		return CEDE_FAIL(reterr, CEDE_ERR_BUG, "zstd parameters");
	CEDE_TRY(manifest_write(w->manifest, &json, reterr));
	return put_member(
		w, SLICE_LIT(MANIFEST_NAME), buf_slice(&json), w->manifest->created_ns, reterr);
}

int bundle_writer_new(const struct manifest *manifest, int level, bundle_sink *sink, void *ctx,
	struct bundle_writer **ret, struct cede_error *reterr) {
	CLEANUP(bundle_writer_freep) struct bundle_writer *w = calloc(1, sizeof *w);

	if (w == NULL)
		return CEDE_FAIL_MEMORY(reterr);
	w->manifest = manifest;
	w->sink = sink;
	w->ctx = ctx;
	w->name = BUF_INIT(2 * MANIFEST_PATH_MAX);
	CEDE_TRY(begin(w, level, reterr));
	*ret = CEDE_TAKE(w);
	return CEDE_OK;
}

int bundle_writer_add(struct bundle_writer *w, const struct manifest_entry *entry,
	struct slice content, struct cede_error *reterr) {
	if (w->next == w->manifest->count || w->finished)
		return CEDE_FAIL(reterr, CEDE_ERR_BUG, "more members than the manifest has");
	const struct manifest_entry *expected = &w->manifest->entries[w->next];
	if (!id_equal(&entry->capture, &expected->capture) ||
		entry->segment_index != expected->segment_index ||
		content.len != expected->segment_size)
		return CEDE_FAIL(reterr, CEDE_ERR_BUG,
			"member %zu of the bundle is not what the manifest says", w->next + 1);
	buf_clear(&w->name);
	CEDE_TRY(manifest_member_name(expected, &w->name, reterr));
	CEDE_TRY(put_member(w, buf_slice(&w->name), content, expected->mtime_ns, reterr));
	w->next++;
	return CEDE_OK;
}

int bundle_writer_finish(struct bundle_writer *w, struct cede_error *reterr) {
	static const uint8_t end[2 * BLOCK];

	if (w->next != w->manifest->count || w->finished)
		return CEDE_FAIL(reterr, CEDE_ERR_BUG, "%zu members of the manifest are missing",
			w->manifest->count - w->next);
	CEDE_TRY(put(w, slice_of(end, sizeof end), reterr));
	w->finished = true;
	return drain(w, reterr);
}

void bundle_writer_free(struct bundle_writer *w) {
	if (w == NULL)
		return;
	ZSTD_freeCCtx(w->zstd);
	buf_done(&w->name);
	explicit_bzero(w->gathered, sizeof w->gathered);
	explicit_bzero(w->out, sizeof w->out);
	free(w);
}

void bundle_writer_freep(struct bundle_writer **w) {
	bundle_writer_free(*w);
	*w = NULL;
}
