/* SPDX-License-Identifier: Apache-2.0
 * Is this the agency's receipt for this very bundle? In the keeper, on raw bytes from the courier.
 *
 * Promise 0 only if a key of the destination's receipt keys signed a receipt that names this
 * bundle, this host, this size and this SHA-256. */
#pragma once

#include "formats/receipt.h"

struct confirm_want {
	struct id bundle;
	const char *host;
	uint64_t size;
	uint8_t sha256[32];
};

/* REFUSED or INPUT with the reason in words. */
CEDE_MUST_USE int confirm_receipt(const struct note_keys *keys, const struct confirm_want *want,
	struct slice note, struct cede_error *reterr);
