/* SPDX-License-Identifier: Apache-2.0
 * The certificate as a page to print and sign by hand: one self-contained HTML file without a
 * script, modelled on the sample certificate of NIST SP 800-88 (appendix G).
 *
 * Promise it says what the signed statement says, field by field, and carries the note itself.
 * Thread  any. */
#pragma once

#include "base/buf.h"
#include "formats/statement.h"

#define PAGE_MAX 262144

/* Appends the page to out. */
CEDE_MUST_USE int page_write(const struct statement_field *fields, size_t count, struct slice note,
	struct buf *out, struct cede_error *reterr);
