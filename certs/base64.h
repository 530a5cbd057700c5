/* SPDX-License-Identifier: Apache-2.0
 * Base64 (RFC 4648 section 4), padded, in one form only: what base64_decode() accepts is exactly
 * what base64_encode() writes.
 *
 * Fails   INPUT (another form), IO (memory). */
#pragma once

#include "base/buf.h"
#include "base/bytes.h"
#include "base/error.h"

#define BASE64_MAX (1U << 20) /* bytes of data or of text */

CEDE_MUST_USE int base64_encode(struct slice data, struct buf *out, struct cede_error *reterr);
CEDE_MUST_USE int base64_decode(struct slice text, struct buf *out, struct cede_error *reterr);
