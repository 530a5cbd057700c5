/* SPDX-License-Identifier: Apache-2.0
 * agent.yaml, the contractor's file: where the state lives, who the host is. Nothing in it can
 * widen the policy. Paths are relative to the file itself. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "base/log.h"

#define AGENT_CONFIG_DEFAULT "/etc/cede/agent.yaml" /* of the package; where none is named */
#define AGENT_POLICY_DEFAULT "/etc/cede/policy.yaml"

#define AGENT_SPOOL_LIMIT (UINT64_C(16) << 30) /* unless spool.limit says another */

struct agent_config {
	char *state;           /* directory; made by cede run with mode 0700 */
	char *certificate;     /* identity.certificate */
	char *key;             /* identity.key */
	char **policy_signers; /* public keys; may be none in this version */
	size_t policy_signer_count;
	char *metrics; /* "127.0.0.1:9464", "unix:/run/...", "systemd" (passed), or NULL for off */
	char *courier_user;   /* or NULL */
	uint64_t spool_limit; /* bytes; spool.limit */
	char *vault_key;      /* vault.key: what wraps the keys of vaults; or NULL */
	enum log_level log_level;
};

/* All paths come back absolute or relative to the working directory (joined with the file's own
 * directory). INPUT: reterr->text has the first mistake; all mistakes go to *ret_lines
 * (NULL-terminated array, caller frees each and the array; may be NULL on other errors). */
CEDE_MUST_USE int agent_config_load(
	const char *path, struct agent_config **ret, char ***ret_lines, struct cede_error *reterr);
/* The same; mistakes go to stderr, line by line. */
CEDE_MUST_USE int agent_config_read(
	const char *path, struct agent_config **ret, struct cede_error *reterr);
/* For a command that is told either, or neither: the state directory itself, else that of the file,
 * else that of AGENT_CONFIG_DEFAULT. Caller frees *ret. */
CEDE_MUST_USE int agent_config_state(
	const char *state, const char *path, char **ret, struct cede_error *reterr);
void agent_config_free(struct agent_config *config);
void agent_config_freep(struct agent_config **config);
