/* SPDX-License-Identifier: Apache-2.0
 * receiver.yaml, whatever it says: either a whole configuration, or mistakes with their places. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "base/cleanup.h"
#include "base/file.h"
#include "certs/note.h"
#include "receiver/config.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void must_be_whole(const struct receiver_config *c) {
	bool front = strncmp(c->listen, "unix:", 5) == 0;

	require(c->store != NULL && c->store[0] == '/');
	require(front || (c->certificate != NULL && c->key != NULL && c->clients_ca != NULL));
	require(c->receipt_key != NULL && note_name_valid(c->signer));
	require(c->bundle_max >= 1 << 20 && c->bundle_max <= 1 << 30);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
	CLEANUP(receiver_config_freep) struct receiver_config *config = NULL;
	CLEANUP(fd_closep) int fd = -1;
	char **lines = NULL;
	char path[32];

	require(file_memory("receiver.yaml", &fd, NULL) == CEDE_OK);
	require(file_pwrite_all(fd, data, size, 0, NULL) == CEDE_OK);
	(void)snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
	int r = receiver_config_load(path, &config, &lines, NULL);
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
