/* SPDX-License-Identifier: Apache-2.0 */
#include "base/bytes.h"

struct slice slice_of(const void *data, size_t len) {
	return (struct slice){data, len};
}

struct slice slice_str(const char *s) {
	return (struct slice){(const uint8_t *)s, strlen(s)};
}

bool slice_equal(struct slice a, struct slice b) {
	return a.len == b.len && (a.len == 0 || memcmp(a.data, b.data, a.len) == 0);
}

bool slice_is(struct slice a, const char *s) {
	return slice_equal(a, slice_str(s));
}

bool slice_starts(struct slice a, const char *prefix) {
	size_t len = strlen(prefix);

	return a.len >= len && (len == 0 || memcmp(a.data, prefix, len) == 0);
}

bool slice_cut(struct slice a, uint8_t c, struct slice *head, struct slice *tail) {
	const uint8_t *at = a.len == 0 ? NULL : memchr(a.data, c, a.len);

	if (at == NULL)
		return false;
	size_t n = (size_t)(at - a.data);
	*head = slice_of(a.data, n);
	*tail = slice_of(at + 1, a.len - n - 1);
	return true;
}

void put_le16(uint8_t *at, uint16_t v) {
	at[0] = (uint8_t)v;
	at[1] = (uint8_t)(v >> 8);
}

void put_le32(uint8_t *at, uint32_t v) {
	put_le16(at, (uint16_t)v);
	put_le16(at + 2, (uint16_t)(v >> 16));
}

void put_le64(uint8_t *at, uint64_t v) {
	put_le32(at, (uint32_t)v);
	put_le32(at + 4, (uint32_t)(v >> 32));
}

uint16_t get_le16(const uint8_t *at) {
	return (uint16_t)(at[0] | at[1] << 8);
}

uint32_t get_le32(const uint8_t *at) {
	return get_le16(at) | (uint32_t)get_le16(at + 2) << 16;
}

uint64_t get_le64(const uint8_t *at) {
	return get_le32(at) | (uint64_t)get_le32(at + 4) << 32;
}

bool bytes_equal_constant_time(const void *a, const void *b, size_t len) {
	const volatile uint8_t *x = a;
	const volatile uint8_t *y = b;
	uint8_t differ = 0;

	for (size_t i = 0; i < len; i++)
		differ |= (uint8_t)(x[i] ^ y[i]);
	return differ == 0;
}
