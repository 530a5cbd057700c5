/* SPDX-License-Identifier: Apache-2.0
 * Statements: what signed notes say. A first line with type and version, then "key: value" lines,
 * exactly the expected keys in exactly that order. Values are printable ASCII.
 *
 * Fails   INPUT (another form; the text names the line). */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "base/buf.h"
#include "base/bytes.h"
#include "base/error.h"

#define STATEMENT_VALUE_MAX 1024

struct statement_field {
	const char *key;
	struct slice value;
};

/* Printable ASCII, at most STATEMENT_VALUE_MAX. Spaces only inside: an editor that trims lines must
 * not make another value of it. */
bool statement_value_valid(struct slice value);
/* Appends the lines to out. */
CEDE_MUST_USE int statement_write(const char *type, const struct statement_field *fields,
	size_t count, struct buf *out, struct cede_error *reterr);
/* fields come with their keys; the values are set and point into text. */
CEDE_MUST_USE int statement_read(struct slice text, const char *type,
	struct statement_field *fields, size_t count, struct cede_error *reterr);
