/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/confirm/confirm.h"

#include <string.h>

int confirm_receipt(const struct note_keys *keys, const struct confirm_want *want,
	struct slice note, struct cede_error *reterr) {
	struct receipt got;

	CEDE_TRY(receipt_verify(keys, note, &got, reterr));
	if (!id_equal(&got.bundle, &want->bundle))
		return CEDE_FAIL(reterr, CEDE_ERR_REFUSED, "the receipt is for another bundle");
	if (strcmp(got.host, want->host) != 0)
		return CEDE_FAIL(reterr, CEDE_ERR_REFUSED, "the receipt is for another host");
	if (got.size != want->size)
		return CEDE_FAIL(reterr, CEDE_ERR_REFUSED,
			"the receipt states another size than was sealed");
	if (memcmp(got.sha256, want->sha256, sizeof got.sha256) != 0)
		return CEDE_FAIL(reterr, CEDE_ERR_REFUSED,
			"the receipt states another SHA-256 than was sealed");
	return CEDE_OK;
}
