/* SPDX-License-Identifier: Apache-2.0
 * How many things a JSON text holds, before it is parsed: "[{},{},...]" takes a hundred times its
 * size as a tree.
 *
 * Hostile peer  any bytes. Thread  any. */
#pragma once

#include <stddef.h>

#include "base/bytes.h"
#include "base/error.h"

/* INPUT: more objects and lists, or more commas, than that. */
CEDE_MUST_USE int json_bound(
	struct slice json, size_t most_containers, size_t most_commas, struct cede_error *reterr);
