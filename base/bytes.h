/* SPDX-License-Identifier: Apache-2.0
 * Slices of borrowed bytes, little-endian numbers, comparison in constant time. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* Borrowed bytes; not terminated. */
struct slice {
	const uint8_t *data;
	size_t len;
};

#define SLICE_NONE   ((struct slice){NULL, 0})
#define SLICE_LIT(s) ((struct slice){(const uint8_t *)(s), sizeof(s) - 1})

struct slice slice_of(const void *data, size_t len);
struct slice slice_str(const char *s); /* without the terminator */
bool slice_equal(struct slice a, struct slice b);
bool slice_is(struct slice a, const char *s);
bool slice_starts(struct slice a, const char *prefix);
/* Cuts a at the first byte c: *head is before it, *tail behind it. False if there is no c. */
bool slice_cut(struct slice a, uint8_t c, struct slice *head, struct slice *tail);

void put_le16(uint8_t *at, uint16_t v);
void put_le32(uint8_t *at, uint32_t v);
void put_le64(uint8_t *at, uint64_t v);
uint16_t get_le16(const uint8_t *at);
uint32_t get_le32(const uint8_t *at);
uint64_t get_le64(const uint8_t *at);

/* Takes the same time wherever the first difference is. */
bool bytes_equal_constant_time(const void *a, const void *b, size_t len);
