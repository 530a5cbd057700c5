/* SPDX-License-Identifier: Apache-2.0 */
#include "base/html.h"

static const char *entity(uint8_t c) {
	switch (c) {
	case '<':
		return "&lt;";
	case '>':
		return "&gt;";
	case '&':
		return "&amp;";
	case '"':
		return "&quot;";
	case '\'':
		return "&#39;";
	default:
		return (c < ' ' && c != '\n') || c == 0x7f ? "?" : NULL;
	}
}

int html_escape(struct slice text, struct buf *out, struct cede_error *reterr) {
	for (size_t i = 0; i < text.len; i++) {
		const char *as = entity(text.data[i]);
		CEDE_TRY(as != NULL ? buf_add_str(out, as, reterr)
				    : buf_add(out, text.data + i, 1, reterr));
	}
	return CEDE_OK;
}
