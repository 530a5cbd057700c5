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

/* id, identifier: why a receipt is not one */
#define CONFIRM_REFUSALS(X)       \
	X(MALFORMED, "malformed") \
	X(SIGNATURE, "signature") \
	X(BUNDLE, "other-bundle") \
	X(HOST, "other-host")     \
	X(SIZE, "other-size")     \
	X(DIGEST, "other-digest")

enum confirm_refusal {

#define X(id, name) CONFIRM_REFUSAL_##id,
	CONFIRM_REFUSALS(X)
#undef X
		CONFIRM_REFUSAL_COUNT
};

const char *confirm_refusal_name(enum confirm_refusal r);

/* REFUSED or INPUT with the reason in words, and in *ret_why (also on failure).
 * ret: what it says. */
CEDE_MUST_USE int confirm_receipt(const struct note_keys *keys, const struct confirm_want *want,
	struct slice note, struct receipt *ret, enum confirm_refusal *ret_why,
	struct cede_error *reterr);
