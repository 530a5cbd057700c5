/* SPDX-License-Identifier: Apache-2.0 */
#include "base/escape.h"

static bool is_printable(uint8_t c) {
	return c >= 0x20 && c < 0x7f;
}

static bool is_plain(uint8_t c) {
	return is_printable(c) && c != ' ' && c != '%' && c != '"' && c != '\\';
}

static void put(struct slice text, char *out, size_t size, bool as_it_is(uint8_t c)) {
	size_t n = 0;

	for (size_t i = 0; i < text.len && n + 4 <= size; i++) {
		uint8_t c = text.data[i];
		if (as_it_is(c))
			out[n++] = (char)c;
		else
			n += (size_t)snprintf(out + n, 4, "%%%02x", c);
	}
	out[n] = 0;
}

static void print(FILE *to, struct slice text, bool as_it_is(uint8_t c)) {
	for (size_t i = 0; i < text.len; i++)
		if (as_it_is(text.data[i]))
			(void)fputc(text.data[i], to);
		else
			(void)fprintf(to, "%%%02x", text.data[i]);
}

void escape_word(struct slice text, char *out, size_t size) {
	put(text, out, size, is_plain);
}

void escape_print_word(FILE *to, struct slice text) {
	print(to, text, is_plain);
}

void escape_line(struct slice text, char *out, size_t size) {
	put(text, out, size, is_printable);
}

void escape_print_line(FILE *to, struct slice text) {
	print(to, text, is_printable);
}
