/* SPDX-License-Identifier: Apache-2.0
 * Where a directory lies below a top (a source's own, or its vault's store): its name, and its
 * parent's place. What is kept for many directories in one grows with their names, not with the
 * path to them: whoever may write in a source chooses both.
 *
 * Owns    a use of its parent. It goes with its last use. Promise never a path of PATH_MAX bytes.
 * Thread  one. */
#pragma once

#include <limits.h>
#include <stdbool.h>

#include "base/error.h"

struct below;

/* The top itself. */
CEDE_MUST_USE int below_top(struct below **ret, struct cede_error *reterr);
/* REFUSED: its path is too long. */
CEDE_MUST_USE int below_new(
	struct below *parent, const char *name, struct below **ret, struct cede_error *reterr);
struct below *below_use(struct below *b); /* once more */
void below_drop(struct below *b);         /* NULL allowed */
void below_dropp(struct below **b);
bool below_is_top(const struct below *b);
void below_path(const struct below *b, char out[PATH_MAX]); /* "a/b"; of the top "." */
