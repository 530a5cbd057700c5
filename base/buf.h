/* SPDX-License-Identifier: Apache-2.0
 * A growing buffer that has its maximum from birth and is cleansed when freed.
 *
 * Fails   IO when memory is short, INPUT when the content would pass the maximum; the content is
 *         unchanged then. */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "base/bytes.h"
#include "base/error.h"

struct buf {
	uint8_t *data;
	size_t len;
	size_t cap;
	size_t max;
};

#define BUF_INIT(maximum) ((struct buf){NULL, 0, 0, (maximum)})

CEDE_MUST_USE int buf_add(struct buf *b, const void *data, size_t len, struct cede_error *reterr);
CEDE_MUST_USE int buf_add_str(struct buf *b, const char *s, struct cede_error *reterr);
CEDE_MUST_USE int buf_addf(struct buf *b, struct cede_error *reterr, const char *fmt, ...)
	CEDE_PRINTF(3, 4);
/* Makes room for len more bytes and sets *ret_at to the place; buf_grew(n) then counts them in. */
CEDE_MUST_USE int buf_room(struct buf *b, size_t len, uint8_t **ret_at, struct cede_error *reterr);
void buf_grew(struct buf *b, size_t len);
/* Puts a NUL behind the content (not counted) and lends it as a string until the next call. */
CEDE_MUST_USE int buf_string(struct buf *b, const char **ret_s, struct cede_error *reterr);
struct slice buf_slice(const struct buf *b); /* valid until the next call that adds */
void buf_clear(struct buf *b);               /* keeps the memory */
void buf_done(struct buf *b);                /* cleanses and frees; usable again afterwards */
