/* SPDX-License-Identifier: Apache-2.0
 * Text from elsewhere (a ledger's, a file's name), made safe to look at: no byte of it moves a
 * terminal, begins a line or ends a quoted string.
 *
 * Thread  any. */
#pragma once

#include <stdio.h>

#include "base/bytes.h"

/* One word: printable ASCII but space, % " \ stands as it is, all else as %xx. What out has no room
 * for is left out; 3 bytes for each of the text and one more are enough. */
void escape_word(struct slice text, char *out, size_t size);
void escape_print_word(FILE *to, struct slice text);
/* Part of a line: printable ASCII stands as it is, all else as %xx. */
void escape_line(struct slice text, char *out, size_t size);
void escape_print_line(FILE *to, struct slice text);
