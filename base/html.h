/* SPDX-License-Identifier: Apache-2.0
 * Text for an HTML page, in content or in a quoted attribute. Thread any. */
#pragma once

#include "base/buf.h"

/* Appends it with < > & " ' escaped; what is neither printable nor a line's end becomes '?'. */
CEDE_MUST_USE int html_escape(struct slice text, struct buf *out, struct cede_error *reterr);
