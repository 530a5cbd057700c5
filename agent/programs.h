/* SPDX-License-Identifier: Apache-2.0
 * Where the programs are that belong to this one: of the same build, or the same installation. */
#pragma once

#include <limits.h>

#include "base/error.h"

/* given: a path that was named, or NULL. folder: of the build. installed: its place after that. */
CEDE_MUST_USE int program_find(const char *given, const char *folder, const char *name,
	const char *installed, char path[PATH_MAX], struct cede_error *reterr);
