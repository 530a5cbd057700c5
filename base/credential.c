/* SPDX-License-Identifier: Apache-2.0 */
#include "base/credential.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PREFIX "credential:"

static const char *directory(void) {
	const char *path = getenv("CREDENTIALS_DIRECTORY");

	return path != NULL && path[0] == '/' ? path : NULL;
}

bool credential_named(const char *text) {
	return strncmp(text, PREFIX, sizeof PREFIX - 1) == 0;
}

int credential_path(const char *text, char **ret, struct cede_error *reterr) {
	const char *name = text + sizeof PREFIX - 1;

	if (name[0] == 0 || name[0] == '.' || strchr(name, '/') != NULL)
		return CEDE_FAIL(reterr, CEDE_ERR_REFUSED,
			"%s: the name of a credential expected (credential:agent.key)", text);
	int n = directory() == NULL ? asprintf(ret, "%s", text)
				    : asprintf(ret, "%s/%s", directory(), name);
	if (n < 0)
		return CEDE_FAIL_MEMORY(reterr);
	return CEDE_OK;
}

int credential_there(const char *path, struct cede_error *reterr) {
	if (credential_named(path))
		return CEDE_FAIL(reterr, CEDE_ERR_REFUSED,
			"%s: started without credentials; let systemd pass it (LoadCredential=), set CREDENTIALS_DIRECTORY, or give the path of a file",
			path);
	return CEDE_OK;
}

bool credential_is(const char *path) {
	const char *top = directory();
	size_t n = top == NULL ? 0 : strlen(top);

	return n > 0 && strncmp(path, top, n) == 0 && path[n] == '/' &&
		strchr(path + n + 1, '/') == NULL;
}
