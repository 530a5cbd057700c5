/* SPDX-License-Identifier: Apache-2.0
 * Bytes as lower-case hexadecimal digits and back. */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "base/bytes.h"
#include "base/error.h"

/* Writes 2 * len digits and a NUL; out has room for them. */
void hex_print(const void *data, size_t len, char *out);
/* Exactly 2 * len lower-case digits, or INPUT. */
CEDE_MUST_USE int hex_parse(
	struct slice text, uint8_t *ret_data, size_t len, struct cede_error *reterr);
