/* SPDX-License-Identifier: Apache-2.0
 * What the receiver parses itself of a request: path, Repr-Digest, the subject that a front tells. */
#include <stdint.h>
#include <string.h>

#include "base/check.h"
#include "formats/digest.h"
#include "receiver/request.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* An id has one spelling, and its folder is a day. */
static void must_be_spelt_so(struct slice url, const struct id *id, bool receipt) {
	static const char prefix[] = "/v1/bundles/";
	char text[ID_TEXT_SIZE], day[ID_DAY_SIZE];
	size_t at = sizeof prefix - 1;

	id_print(id, text);
	require(url.len == at + ID_TEXT_SIZE - 1 + (receipt ? sizeof "/receipt" - 1 : 0));
	require(memcmp(url.data, prefix, at) == 0 &&
		memcmp(url.data + at, text, ID_TEXT_SIZE - 1) == 0);
	id_day(id, day);
	require(strlen(day) == ID_DAY_SIZE - 1 && strspn(day, "0123456789/") == strlen(day));
}

static void must_read_again(const uint8_t sha256[32]) {
	char field[DIGEST_FIELD_SIZE];
	uint8_t again[32];

	digest_field_print(sha256, field);
	require(digest_field_parse(slice_str(field), again, NULL) == CEDE_OK);
	require(memcmp(again, sha256, sizeof again) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
	char host[HOST_ID_MAX + 1];
	uint8_t sha256[32];
	struct id id;
	bool receipt;
	struct slice all = slice_of(data, size);

	if (digest_field_parse(all, sha256, NULL) == CEDE_OK)
		must_read_again(sha256);
	if (request_path(all, &id, &receipt, NULL) == CEDE_OK)
		must_be_spelt_so(all, &id, receipt);
	if (peer_subject(all, host, NULL) == CEDE_OK)
		require(host_id_valid(slice_str(host))); /* it could leave its folder */
	return 0;
}
