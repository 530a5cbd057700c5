/* SPDX-License-Identifier: Apache-2.0
 * The folders of the store, <host>/<yyyy>/<mm>/<dd>, each flushed before it is told of: its names, and
 * the names of all folders above it. That is remembered, and forgotten as soon as one of them is seen
 * to be gone: whoever removes folders while the receiver runs costs it a few flushes, and no promise.
 *
 * Fails   BUSY (not there and not wanted), IO. Thread  any. */
#pragma once

#include <stdbool.h>

#include "base/error.h"
#include "formats/id.h"

struct days;
CEDE_MUST_USE int days_new(int root /* borrowed */, struct days **ret, struct cede_error *reterr);
void days_free(struct days *days); /* NULL allowed */
/* The folder of the day that the bundle's id says. make: also if it is not there. */
CEDE_MUST_USE int days_open(struct days *days, const char *host, const struct id *bundle, bool make,
	int *ret, struct cede_error *reterr);
