/* SPDX-License-Identifier: Apache-2.0 */
#include "certs/base64.h"

#include <openssl/evp.h>

#include "base/cleanup.h"

/* EVP_EncodeBlock puts a NUL behind what it says it wrote. */
static size_t encoded_size(size_t len) {
	return (len + 2) / 3 * 4;
}

int base64_encode(struct slice data, struct buf *out, struct cede_error *reterr) {
	uint8_t *at;

	if (data.len > BASE64_MAX)
		return CEDE_FAIL(reterr, CEDE_ERR_INPUT, "too long for base64");
	CEDE_TRY(buf_room(out, encoded_size(data.len) + 1, &at, reterr));
	buf_grew(out, (size_t)EVP_EncodeBlock(at, data.data, (int)data.len));
	return CEDE_OK;
}

static size_t padding_of(struct slice text) {
	size_t n = 0;

	while (n < 2 && text.data[text.len - 1 - n] == '=')
		n++;
	return n;
}

int base64_decode(struct slice text, struct buf *out, struct cede_error *reterr) {
	CLEANUP(buf_done) struct buf again = BUF_INIT(BASE64_MAX + 8);
	uint8_t *at;

	if (text.len == 0 || text.len % 4 != 0 || text.len > BASE64_MAX)
		return CEDE_FAIL(reterr, CEDE_ERR_INPUT, "not base64: wrong length");
	CEDE_TRY(buf_room(out, text.len / 4 * 3, &at, reterr));
	int n = EVP_DecodeBlock(at, text.data, (int)text.len);
	if (n < 0 || (size_t)n != text.len / 4 * 3)
		return CEDE_FAIL(reterr, CEDE_ERR_INPUT, "not base64");
	size_t len = (size_t)n - padding_of(text);
	/* the decoder lets white space and stray bits through: only one form may stand for the data */
	CEDE_TRY(base64_encode(slice_of(at, len), &again, reterr));
	if (!slice_equal(text, buf_slice(&again)))
		return CEDE_FAIL(reterr, CEDE_ERR_INPUT, "not base64 in its one form");
	buf_grew(out, len);
	return CEDE_OK;
}
