/* SPDX-License-Identifier: Apache-2.0
 * Names that wait to be looked at: a name has one due time; asking again moves it. Bounded.
 *
 * Owns    copies of the names.
 * Thread  loop thread.
 * Fails   BUSY when full: the caller scans the source later instead. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

#define SETTLE_MAX 131072 /* names; about 150 bytes each */

struct settle;

CEDE_MUST_USE int settle_new(struct settle **ret, struct cede_error *reterr);
void settle_free(struct settle *s);
/* due: on whichever clock the caller uses throughout. */
CEDE_MUST_USE int settle_add(struct settle *s, size_t source, const char *path, int64_t due_ns,
	struct cede_error *reterr);
/* The earliest due time, INT64_MAX if empty. */
int64_t settle_next(const struct settle *s);
/* Takes the earliest name that is due; false if none. *ret_path is the caller's to free. */
bool settle_take(struct settle *s, int64_t now_ns, size_t *ret_source, char **ret_path);
size_t settle_count(const struct settle *s);
