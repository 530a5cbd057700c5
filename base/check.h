/* SPDX-License-Identifier: Apache-2.0
 * Checks for our own bugs. require() is always on and ends the process; it is never used on
 * anything that came from outside. */
#pragma once

#include <stddef.h>

#define ARRAY_LENGTH(a) (sizeof(a) / sizeof((a)[0]))

/* Prints "file:line: require failed: what" to stderr and aborts. */
__attribute__((noreturn)) void require_failed(const char *file, int line, const char *what);

#define require(condition)                                              \
	do {                                                            \
		if (!(condition))                                       \
			require_failed(__FILE__, __LINE__, #condition); \
	} while (0)
