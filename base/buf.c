/* SPDX-License-Identifier: Apache-2.0 */
#include "base/buf.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/check.h"

int buf_room(struct buf *b, size_t len, uint8_t **ret_at, struct cede_error *reterr) {
	if (len > b->max - b->len)
		return CEDE_FAIL(reterr, CEDE_ERR_INPUT, "more than the %zu bytes allowed", b->max);
	if (len > b->cap - b->len) {
		size_t want = b->cap < 256 ? 256 : b->cap * 2;

		if (want < b->len + len)
			want = b->len + len;
		if (want > b->max)
			want = b->max;
		/* not realloc: the old copy is cleansed before it goes back */
		uint8_t *data = malloc(want);
		if (data == NULL)
			return CEDE_FAIL_MEMORY(reterr);
		if (b->len > 0)
			memcpy(data, b->data, b->len);
		if (b->data != NULL)
			explicit_bzero(b->data, b->cap);
		free(b->data);
		b->data = data;
		b->cap = want;
	}
	*ret_at = b->data + b->len;
	return CEDE_OK;
}

void buf_grew(struct buf *b, size_t len) {
	require(len <= b->cap - b->len);
	b->len += len;
}

int buf_add(struct buf *b, const void *data, size_t len, struct cede_error *reterr) {
	uint8_t *at;

	if (len == 0)
		return CEDE_OK;
	CEDE_TRY(buf_room(b, len, &at, reterr));
	memcpy(at, data, len);
	b->len += len;
	return CEDE_OK;
}

int buf_add_str(struct buf *b, const char *s, struct cede_error *reterr) {
	return buf_add(b, s, strlen(s), reterr);
}

int buf_addf(struct buf *b, struct cede_error *reterr, const char *fmt, ...) {
	char small[512];
	va_list ap;

	va_start(ap, fmt);
	int n = vsnprintf(small, sizeof small, fmt, ap);
	va_end(ap);
	if (n < 0)
		return CEDE_FAIL(reterr, CEDE_ERR_BUG, "bad format");
	if ((size_t)n < sizeof small)
		return buf_add(b, small, (size_t)n, reterr);

	char *large = malloc((size_t)n + 1);
	if (large == NULL)
		return CEDE_FAIL_MEMORY(reterr);
	va_start(ap, fmt);
	(void)vsnprintf(large, (size_t)n + 1, fmt, ap);
	va_end(ap);
	int r = buf_add(b, large, (size_t)n, reterr);
	explicit_bzero(large, (size_t)n);
	free(large);
	return r;
}

int buf_string(struct buf *b, const char **ret_s, struct cede_error *reterr) {
	uint8_t *at;

	CEDE_TRY(buf_room(b, 1, &at, reterr));
	*at = 0;
	*ret_s = (const char *)b->data;
	return CEDE_OK;
}

struct slice buf_slice(const struct buf *b) {
	return slice_of(b->data, b->len);
}

void buf_clear(struct buf *b) {
	if (b->data != NULL)
		explicit_bzero(b->data, b->len);
	b->len = 0;
}

void buf_done(struct buf *b) {
	if (b->data != NULL)
		explicit_bzero(b->data, b->cap);
	free(b->data);
	b->data = NULL;
	b->len = b->cap = 0;
}
