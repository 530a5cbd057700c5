/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/programs.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/check.h"

int program_find(const char *given, const char *folder, const char *name, const char *installed,
	char path[PATH_MAX], struct cede_error *reterr) {
	const char *const beside[] = {"", folder, "../libexec/cede/"};
	char self[PATH_MAX];

	if (given != NULL) {
		(void)snprintf(path, PATH_MAX, "%s", given);
		return CEDE_OK;
	}
	ssize_t n = readlink("/proc/self/exe", self, sizeof self - 1);
	if (n < 0)
		return CEDE_FAIL_SYS(reterr, "read /proc/self/exe");
	self[n] = 0;
	char *slash = strrchr(self, '/');
	require(slash != NULL);
	slash[1] = 0;
	for (size_t i = 0; i < ARRAY_LENGTH(beside); i++) {
		if (snprintf(path, PATH_MAX, "%s%s%s", self, beside[i], name) < PATH_MAX &&
			access(path, X_OK) == 0)
			return CEDE_OK;
	}
	(void)snprintf(path, PATH_MAX, "%s", installed);
	if (access(path, X_OK) < 0)
		return CEDE_FAIL_SYS(reterr, "the program %s", path);
	return CEDE_OK;
}
