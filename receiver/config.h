/* SPDX-License-Identifier: Apache-2.0
 * receiver.yaml. Paths are relative to the file itself. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"

struct receiver_config {
	char *listen;      /* "127.0.0.1:8443", "[::]:8443", or "unix:/path" behind a front */
	char *store;       /* directory; made if it is missing */
	char *certificate; /* of the server; NULL behind a front */
	char *key;
	char *clients_ca;
	char *receipt_key;
	char *signer;     /* name in the signature lines */
	char *front_user; /* who may connect to the UNIX socket besides root and ourselves */
	uint64_t bundle_max;
};

/* *ret_lines: every mistake, NULL-terminated, the caller's to free; NULL on other errors. */
CEDE_MUST_USE int receiver_config_load(const char *path, struct receiver_config **ret,
	char ***ret_lines, struct cede_error *reterr);
void receiver_config_free(struct receiver_config *config);
void receiver_config_freep(struct receiver_config **config);
