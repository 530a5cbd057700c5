/* SPDX-License-Identifier: Apache-2.0 */
#include "base/check.h"

#include <stdio.h>
#include <stdlib.h>

void require_failed(const char *file, int line, const char *what) {
	(void)fprintf(stderr, "%s:%d: require failed: %s\n", file, line, what);
	abort();
}
