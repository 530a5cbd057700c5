/* SPDX-License-Identifier: Apache-2.0 */
#include "formats/digest.h"

#include <openssl/evp.h>
#include <stdbool.h>
#include <stdio.h>

#include "base/cleanup.h"
#include "certs/base64.h"

void digest_field_print(const uint8_t sha256[32], char out[DIGEST_FIELD_SIZE]) {
	unsigned char text[45];

	(void)EVP_EncodeBlock(text, sha256, 32);
	(void)snprintf(out, DIGEST_FIELD_SIZE, "sha-256=:%s:", (const char *)text);
}

static struct slice trimmed(struct slice s) {
	while (s.len > 0 && (s.data[0] == ' ' || s.data[0] == '\t'))
		s = slice_of(s.data + 1, s.len - 1);
	while (s.len > 0 && (s.data[s.len - 1] == ' ' || s.data[s.len - 1] == '\t'))
		s.len--;
	return s;
}

static int parse_member(struct slice value, uint8_t ret[32], struct cede_error *reterr) {
	CLEANUP(buf_done) struct buf bytes = BUF_INIT(64);

	if (value.len != 46 || value.data[0] != ':' || value.data[45] != ':' ||
		base64_decode(slice_of(value.data + 1, 44), &bytes, NULL) < 0 || bytes.len != 32)
		return CEDE_FAIL(reterr, CEDE_ERR_INPUT,
			"Repr-Digest: sha-256=:<base64 of 32 bytes>: expected");
	memcpy(ret, bytes.data, 32);
	return CEDE_OK;
}

int digest_field_parse(struct slice field, uint8_t ret_sha256[32], struct cede_error *reterr) {
	uint8_t digest[32];
	bool found = false;

	if (field.len > 1024)
		return CEDE_FAIL(reterr, CEDE_ERR_INPUT, "Repr-Digest: too long");
	for (bool more = true; more;) {
		struct slice member = field;
		struct slice rest = SLICE_NONE;
		struct slice key, value;
		more = slice_cut(field, ',', &member, &rest);
		field = rest;
		member = trimmed(member);
		if (!slice_cut(member, '=', &key, &value))
			return CEDE_FAIL(
				reterr, CEDE_ERR_INPUT, "Repr-Digest: algorithm=:value: expected");
		if (!slice_is(key, "sha-256"))
			continue;
		if (found)
			return CEDE_FAIL(reterr, CEDE_ERR_INPUT, "Repr-Digest: sha-256 twice");
		CEDE_TRY(parse_member(value, digest, reterr));
		found = true;
	}
	if (!found)
		return CEDE_FAIL(reterr, CEDE_ERR_INPUT, "Repr-Digest: no sha-256");
	memcpy(ret_sha256, digest, sizeof digest);
	return CEDE_OK;
}
