/* SPDX-License-Identifier: Apache-2.0
 * Marks on each directory and file of a source that shares its file system. Clerk's thread.
 *
 * Promise any depth that a path of PATH_MAX can say. What can't be marked below the source's own
 *         directory is counted (parts), and the rest is marked. */
#pragma once

#include "agent/guard/marks.h"

/* Marks all of source `number` from its directory down, and the epochs that its vault has ended;
 * again is fine. */
CEDE_MUST_USE int marks_tree(struct marks *m, size_t number, struct cede_error *reterr);
/* Takes the marks back. */
void marks_tree_leave(struct marks *m, size_t number);
void marks_tree_done(struct marks *m);
