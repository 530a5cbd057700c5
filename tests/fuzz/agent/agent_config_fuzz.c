/* SPDX-License-Identifier: Apache-2.0
 * agent.yaml, whatever it says: either a whole configuration, or mistakes with their places. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent/config.h"
#include "base/check.h"
#include "base/cleanup.h"
#include "base/file.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void must_be_whole(const struct agent_config *c) {
	require(c->state != NULL && c->state[0] == '/');
	require(c->certificate != NULL && c->key != NULL);
	for (size_t i = 0; i < c->policy_signer_count; i++)
		require(c->policy_signers[i][0] == '/');
	/* never an address that others could reach */
	require(c->metrics == NULL || strncmp(c->metrics, "127.0.0.1:", 10) == 0 ||
		strncmp(c->metrics, "[::1]:", 6) == 0 || strncmp(c->metrics, "unix:/", 6) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
	CLEANUP(agent_config_freep) struct agent_config *config = NULL;
	CLEANUP(fd_closep) int fd = -1;
	char **lines = NULL;
	char path[32];

	require(file_memory("agent.yaml", &fd, NULL) == CEDE_OK);
	require(file_pwrite_all(fd, data, size, 0, NULL) == CEDE_OK);
	(void)snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
	int r = agent_config_load(path, &config, &lines, NULL);
	require((r == CEDE_OK) == (config != NULL) && (r == CEDE_OK || r == CEDE_ERR_INPUT));
	if (r == CEDE_OK)
		must_be_whole(config);
	for (size_t i = 0; lines != NULL && lines[i] != NULL; i++) {
		require(strchr(lines[i], ':') != NULL);
		free(lines[i]);
	}
	free(lines);
	return 0;
}
