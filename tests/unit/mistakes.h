/* SPDX-License-Identifier: Apache-2.0
 * The lines that yaml_mistakes() gives. */
#pragma once

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

static inline void free_lines(char **lines) {
	for (size_t i = 0; lines != NULL && lines[i] != NULL; i++)
		free(lines[i]);
	free(lines);
}

/* Whether one of them begins so. */
static inline bool one_says(char *const *lines, const char *mistake) {
	for (size_t i = 0; lines != NULL && lines[i] != NULL; i++)
		if (strncmp(lines[i], mistake, strlen(mistake)) == 0)
			return true;
	return false;
}
