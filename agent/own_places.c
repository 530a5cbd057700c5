/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/own_places.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/cleanup.h"
#include "base/credential.h"

/* Absolute and without symbolic links, as far as it is there; what is not there follows as text. */
static int resolve(const char *path, char out[PATH_MAX], struct cede_error *reterr) {
	char head[PATH_MAX], there[PATH_MAX];
	size_t n = strlen(path);

	if (n >= sizeof head)
		return CEDE_FAIL(reterr, CEDE_ERR_REFUSED, "%.60s...: the path is too long", path);
	for (;;) {
		memcpy(head, path, n);
		head[n] = 0;
		if (realpath(n == 0 ? "." : head, there) != NULL)
			break;
		if (n == 0)
			return CEDE_FAIL_SYS(reterr, "working directory");
		while (n > 0 && path[n - 1] == '/')
			n--;
		while (n > 0 && path[n - 1] != '/')
			n--;
	}
	const char *rest = path + n + strspn(path + n, "/");
	int len = snprintf(out, PATH_MAX, "%s%s%s", there,
		rest[0] == 0 || strcmp(there, "/") == 0 ? "" : "/", rest);
	if (len < 0 || len >= PATH_MAX)
		return CEDE_FAIL(reterr, CEDE_ERR_REFUSED, "%.60s...: the path is too long", path);
	while (len > 1 && out[len - 1] == '/')
		out[--len] = 0;
	return CEDE_OK;
}

/* Both resolved. The same directory may have two names (bind mounts): its number decides as well. */
static bool lies_in(const char *path, const char *top) {
	char up[PATH_MAX];
	struct stat at, is;
	bool there = stat(top, &at) == 0;

	(void)snprintf(up, sizeof up, "%s", path);
	for (;;) {
		if (strcmp(up, top) == 0 ||
			(there && stat(up, &is) == 0 && is.st_dev == at.st_dev &&
				is.st_ino == at.st_ino))
			return true;
		if (up[1] == 0)
			return false;
		char *slash = strrchr(up, '/');
		slash[slash == up] = 0;
	}
}

static int check_inside(const struct policy_source *source, const char *top, const char *what,
	const char *path, struct cede_error *reterr) {
	char own[PATH_MAX];

	if (path == NULL || credential_named(path)) /* not to be had here */
		return CEDE_OK;
	CEDE_TRY(resolve(path, own, reterr));
	if (!lies_in(own, top))
		return CEDE_OK;
	return CEDE_FAIL(reterr, CEDE_ERR_REFUSED,
		"%s %s lies in source %s, where the agent would hand it over and wipe it: move it out of the source",
		what, path, source->name);
}

static int check_state(const struct policy_source *source, const char *top, const char *path,
	struct cede_error *reterr) {
	char state[PATH_MAX];

	CEDE_TRY(check_inside(source, top, "the state directory", path, reterr));
	CEDE_TRY(resolve(path, state, reterr));
	if (!lies_in(top, state))
		return CEDE_OK;
	return CEDE_FAIL(reterr, CEDE_ERR_REFUSED,
		"the state directory %s has source %s in it: move one out of the other", path,
		source->name);
}

static int check_policy_directory(const struct policy_source *source, const char *top,
	const char *policy_path, struct cede_error *reterr) {
	const char *slash = strrchr(policy_path, '/');
	CLEANUP(freep)
	char *directory = slash == NULL ? strdup(".")
					: strndup(policy_path, (size_t)(slash - policy_path) + 1);

	if (directory == NULL)
		return CEDE_FAIL_MEMORY(reterr);
	return check_inside(source, top, "the policy's directory", directory, reterr);
}

int own_places_check(const struct policy_source *source, const char *policy_path,
	const struct agent_config *config, struct cede_error *reterr) {
	char top[PATH_MAX];

	CEDE_TRY(resolve(source->path, top, reterr));
	CEDE_TRY(check_state(source, top, config->state, reterr));
	CEDE_TRY(check_policy_directory(source, top, policy_path, reterr));
	CEDE_TRY(check_inside(source, top, "the host's certificate", config->certificate, reterr));
	CEDE_TRY(check_inside(source, top, "the host's key", config->key, reterr));
	CEDE_TRY(check_inside(source, top, "the vaults' key", config->vault_key, reterr));
	for (size_t i = 0; i < config->policy_signer_count; i++)
		CEDE_TRY(check_inside(
			source, top, "the policy signers' key", config->policy_signers[i], reterr));
	return CEDE_OK;
}

int own_places_check_all(const struct policy *policy, const char *policy_path,
	const struct agent_config *config, struct cede_error *reterr) {
	for (size_t i = 0; i < policy->source_count; i++)
		CEDE_TRY(own_places_check(&policy->sources[i], policy_path, config, reterr));
	return CEDE_OK;
}
