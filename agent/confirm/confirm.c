/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/confirm/confirm.h"

#include <string.h>

static const char *const refusal_names[CONFIRM_REFUSAL_COUNT] = {
#define X(id, name) [CONFIRM_REFUSAL_##id] = name,
	CONFIRM_REFUSALS(X)
#undef X
};

const char *confirm_refusal_name(enum confirm_refusal r) {
	return refusal_names[r];
}

int confirm_receipt(const struct note_keys *keys, const struct confirm_want *want, struct slice note,
	struct receipt *ret, enum confirm_refusal *ret_why, struct cede_error *reterr) {
	struct receipt got;

	int r = receipt_verify(keys, note, &got, reterr);
	*ret_why = r == CEDE_ERR_INPUT ? CONFIRM_REFUSAL_MALFORMED : CONFIRM_REFUSAL_SIGNATURE;
	CEDE_TRY(r);
	*ret_why = CONFIRM_REFUSAL_BUNDLE;
	if (!id_equal(&got.bundle, &want->bundle))
		return CEDE_FAIL(reterr, CEDE_ERR_REFUSED, "the receipt is for another bundle");
	*ret_why = CONFIRM_REFUSAL_HOST;
	if (strcmp(got.host, want->host) != 0)
		return CEDE_FAIL(reterr, CEDE_ERR_REFUSED, "the receipt is for another host");
	*ret_why = CONFIRM_REFUSAL_SIZE;
	if (got.size != want->size)
		return CEDE_FAIL(reterr, CEDE_ERR_REFUSED,
			"the receipt states another size than was sealed");
	*ret_why = CONFIRM_REFUSAL_DIGEST;
	if (memcmp(got.sha256, want->sha256, sizeof got.sha256) != 0)
		return CEDE_FAIL(reterr, CEDE_ERR_REFUSED,
			"the receipt states another SHA-256 than was sealed");
	*ret = got;
	return CEDE_OK;
}
