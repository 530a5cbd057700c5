/* SPDX-License-Identifier: Apache-2.0 */
#include "formats/detail.h"

#include <inttypes.h>
#include <openssl/evp.h>
#include <string.h>

#include "base/hex.h"
#include "base/parse.h"
#include "certs/base64.h"

static bool is_plain(uint8_t c) {
	return c > 0x20 && c < 0x7f && c != '%' && c != '"' && c != '\\';
}

int detail_add(struct buf *detail, const char *key, struct slice value, struct cede_error *reterr) {
	size_t plain = 0;

	CEDE_TRY(buf_addf(detail, reterr, detail->len > 0 ? " %s=" : "%s=", key));
	for (size_t i = 0; i < value.len; i++) {
		if (is_plain(value.data[i]))
			continue;
		CEDE_TRY(buf_add(detail, value.data + plain, i - plain, reterr));
		CEDE_TRY(buf_addf(detail, reterr, "%%%02x", value.data[i]));
		plain = i + 1;
	}
	return value.len == plain ? CEDE_OK
				  : buf_add(detail, value.data + plain, value.len - plain, reterr);
}

int detail_add_i64(struct buf *detail, const char *key, int64_t value, struct cede_error *reterr) {
	return buf_addf(detail, reterr, detail->len > 0 ? " %s=%" PRId64 : "%s=%" PRId64, key, value);
}

bool detail_find(struct slice detail, const char *key, struct slice *ret) {
	size_t n = strlen(key);
	struct slice rest = detail;

	while (rest.len > 0) {
		struct slice part = rest;
		struct slice tail = SLICE_NONE;
		(void)slice_cut(rest, ' ', &part, &tail);
		if (part.len > n && memcmp(part.data, key, n) == 0 && part.data[n] == '=') {
			*ret = slice_of(part.data + n + 1, part.len - n - 1);
			return true;
		}
		rest = tail;
	}
	return false;
}

int detail_decode(struct slice value, struct buf *out, struct cede_error *reterr) {
	for (size_t i = 0; i < value.len; i++) {
		uint8_t c = value.data[i];
		if (c == '%') {
			if (value.len - i < 3 ||
				hex_parse(slice_of(value.data + i + 1, 2), &c, 1, NULL) < 0 ||
				is_plain(c))
				return CEDE_FAIL(reterr, CEDE_ERR_INPUT,
					"a %% without its two digits, or for what needs none");
			i += 2;
		} else if (!is_plain(c)) {
			return CEDE_FAIL(reterr, CEDE_ERR_INPUT, "a byte that must stand as %%xx");
		}
		CEDE_TRY(buf_add(out, &c, 1, reterr));
	}
	return CEDE_OK;
}

int detail_u64(struct slice detail, const char *key, uint64_t *ret, struct cede_error *reterr) {
	struct slice value;

	if (!detail_find(detail, key, &value))
		return CEDE_FAIL(reterr, CEDE_ERR_INPUT, "no %s in the detail of an event", key);
	int r = parse_u64(value, 0, UINT64_MAX, ret, reterr);
	if (r < 0)
		cede_error_within(reterr, "%s of an event", key);
	return r;
}

int detail_i64(struct slice detail, const char *key, int64_t *ret, struct cede_error *reterr) {
	struct slice value;
	uint64_t magnitude;

	if (!detail_find(detail, key, &value))
		return CEDE_FAIL(reterr, CEDE_ERR_INPUT, "no %s in the detail of an event", key);
	bool negative = value.len > 1 && value.data[0] == '-';
	if (negative)
		value = slice_of(value.data + 1, value.len - 1);
	int r = parse_u64(value, negative ? 1 : 0, INT64_MAX, &magnitude, reterr);
	if (r < 0)
		cede_error_within(reterr, "%s of an event", key);
	else
		*ret = negative ? -(int64_t)magnitude : (int64_t)magnitude;
	return r;
}

/* ---- rows */

int detail_rows_end(struct detail_rows *rows, struct buf *out, struct cede_error *reterr) {
	if (!rows->any)
		return CEDE_OK;
	rows->any = false;
	const char *comma = rows->more ? "," : "";
	rows->more = true;
	return rows->from == rows->to
		? buf_addf(out, reterr, "%s%" PRIu64, comma, rows->from)
		: buf_addf(out, reterr, "%s%" PRIu64 "-%" PRIu64, comma, rows->from, rows->to);
}

int detail_rows_add(
	struct detail_rows *rows, struct buf *out, uint64_t row, struct cede_error *reterr) {
	if (rows->any && row == rows->to + 1) {
		rows->to = row;
		return CEDE_OK;
	}
	CEDE_TRY(detail_rows_end(rows, out, reterr));
	rows->any = true;
	rows->from = rows->to = row;
	return CEDE_OK;
}

/* The part before the next comma. */
static struct slice next_part(struct slice *rest) {
	struct slice part = *rest;
	struct slice tail = SLICE_NONE;

	if (slice_cut(*rest, ',', &part, &tail) && tail.len == 0)
		part.len = 0; /* a comma at the end: no number will be found */
	*rest = tail;
	return part;
}

int detail_rows_next(
	struct slice *rest, uint64_t *ret_from, uint64_t *ret_to, struct cede_error *reterr) {
	struct slice part = next_part(rest);
	struct slice from = part;
	struct slice to = part;

	bool range = slice_cut(part, '-', &from, &to);
	CEDE_TRY(parse_u64(from, 1, INT64_MAX, ret_from, reterr));
	*ret_to = *ret_from;
	return range ? parse_u64(to, *ret_from + 1, INT64_MAX, ret_to, reterr) : CEDE_OK;
}

/* ---- members */

int detail_member_add(
	struct buf *out, uint64_t row, const uint8_t sha256[32], struct cede_error *reterr) {
	CEDE_TRY(buf_addf(out, reterr, out->len > 0 ? ",%" PRIu64 ":" : "%" PRIu64 ":", row));
	return base64_encode(slice_of(sha256, 32), out, reterr);
}

/* As certs/base64.h, without its memory: there are millions. */
static int read_digest(struct slice text, uint8_t ret[32], struct cede_error *reterr) {
	uint8_t bytes[33], again[45];

	/* 32 bytes are 44 letters, the last of them '='; only one form may stand for them */
	if (text.len != 44 || EVP_DecodeBlock(bytes, text.data, 44) != 33 ||
		EVP_EncodeBlock(again, bytes, 32) != 44 || memcmp(again, text.data, 44) != 0)
		return CEDE_FAIL(reterr, CEDE_ERR_INPUT,
			"a list of captures: a digest is the base64 of 32 bytes");
	memcpy(ret, bytes, 32);
	return CEDE_OK;
}

int detail_member_next(
	struct slice *rest, uint64_t *ret_row, uint8_t ret_sha256[32], struct cede_error *reterr) {
	struct slice part = next_part(rest);
	struct slice row, text;

	if (!slice_cut(part, ':', &row, &text))
		return CEDE_FAIL(reterr, CEDE_ERR_INPUT, "a list of captures: row:digest expected");
	CEDE_TRY(parse_u64(row, 1, INT64_MAX, ret_row, reterr));
	return read_digest(text, ret_sha256, reterr);
}
