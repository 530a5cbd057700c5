/* SPDX-License-Identifier: Apache-2.0 */
#include "receiver/profile.h"

#include <linux/capability.h>
#include <stdlib.h>
#include <sys/socket.h>

#include "base/check.h"
#include "base/cleanup.h"

static const struct sandbox_call server_calls[] = {
	SANDBOX_CALL("accept4"), /* of the socket that is there: no other is made, none connects */
	SANDBOX_CALL("accept"),
	SANDBOX_CALL_IF("socketpair", 0, AF_UNIX),
	{NULL, NULL, 0, 0, 0},
};

const struct sandbox_call *const receiver_calls[] = {
	sandbox_calls_basic, sandbox_calls_files, sandbox_calls_messages, server_calls, NULL};

const struct sandbox_call *const opener_calls[] = {sandbox_calls_basic, sandbox_calls_files, NULL};

/* Root's, where it is run as root: the store, or what is opened, may belong to another user;
 * Landlock says where that counts. As its own user it has none. */
#define CAPABILITIES (1ULL << CAP_DAC_OVERRIDE | 1ULL << CAP_DAC_READ_SEARCH)

int receiver_enter(const char *store, struct sandbox_report *report, struct cede_error *reterr) {
	const struct sandbox_path paths[] = {{store, SANDBOX_WRITE}};
	const struct sandbox_profile profile = {.name = "receiver",
		.calls = receiver_calls,
		.capabilities = CAPABILITIES,
		.own_user = true,
		.paths = paths,
		.path_count = ARRAY_LENGTH(paths)};

	return sandbox_enter(&profile, report, reterr);
}

int opener_enter(const char *into, char *const *bundles, size_t count,
	struct sandbox_report *report, struct cede_error *reterr) {
	CLEANUP(freep) struct sandbox_path *paths = calloc(count + 2, sizeof *paths);
	const struct sandbox_profile profile = {.name = "cede-receiver open",
		.calls = opener_calls,
		.capabilities = CAPABILITIES,
		.paths = paths,
		.path_count = count + 2};

	if (paths == NULL)
		return CEDE_FAIL_MEMORY(reterr);
	paths[0] = (struct sandbox_path){into, SANDBOX_WRITE};
	paths[1] = (struct sandbox_path){"/usr/lib/locale", SANDBOX_READ}; /* names in UTF-8 */
	for (size_t i = 0; i < count; i++)
		paths[i + 2] = (struct sandbox_path){bundles[i], SANDBOX_READ};
	return sandbox_enter(&profile, report, reterr);
}
