/* SPDX-License-Identifier: Apache-2.0 */
#include "base/hex.h"

void hex_print(const void *data, size_t len, char *out) {
	static const char digits[] = "0123456789abcdef";
	const uint8_t *in = data;

	for (size_t i = 0; i < len; i++) {
		*out++ = digits[in[i] >> 4];
		*out++ = digits[in[i] & 15];
	}
	*out = 0;
}

static int digit(uint8_t c) {
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	return -1;
}

int hex_parse(struct slice text, uint8_t *ret_data, size_t len, struct cede_error *reterr) {
	if (text.len != 2 * len)
		return CEDE_FAIL(reterr, CEDE_ERR_INPUT,
			"%zu hexadecimal digits expected, found %zu", 2 * len, text.len);
	for (size_t i = 0; i < text.len; i++)
		if (digit(text.data[i]) < 0)
			return CEDE_FAIL(reterr, CEDE_ERR_INPUT,
				"a lower-case hexadecimal digit expected at place %zu", i + 1);
	for (size_t i = 0; i < len; i++)
		ret_data[i] = (uint8_t)(digit(text.data[2 * i]) << 4 | digit(text.data[2 * i + 1]));
	return CEDE_OK;
}
