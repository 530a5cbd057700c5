/* SPDX-License-Identifier: Apache-2.0 */
#include "formats/utf8.h"

/* Length of the character at the start of s, 0 if there is none. RFC 3629 section 4. */
static size_t character(struct slice s, uint32_t *ret) {
	static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
	uint8_t first = s.data[0];
	size_t len = first < 0x80 ? 1 : first < 0xc2 ? 0 : first < 0xe0 ? 2 : first < 0xf0 ? 3 : 4;

	if (len == 0 || first > 0xf4 || s.len < len)
		return 0;
	uint32_t c = len == 1 ? first : first & (0x7fU >> len);
	for (size_t i = 1; i < len; i++) {
		if ((s.data[i] & 0xc0) != 0x80)
			return 0;
		c = c << 6 | (s.data[i] & 0x3f);
	}
	if (c < least[len] || c > 0x10ffff || (c >= 0xd800 && c <= 0xdfff))
		return 0;
	*ret = c;
	return len;
}

bool utf8_plain(struct slice s) {
	while (s.len > 0) {
		uint32_t c;
		size_t len = character(s, &c);

		if (len == 0 || c < 0x20 || (c >= 0x7f && c < 0xa0))
			return false;
		s = slice_of(s.data + len, s.len - len);
	}
	return true;
}
