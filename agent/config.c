/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/config.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/credential.h"
#include "base/parse.h"
#include "base/yaml.h"

static const char *const top_keys[] = {"state", "identity", "policy_signers", "metrics",
	"courier_user", "spool", "vault", "log", "!control", NULL};
static const char *const identity_keys[] = {"certificate", "key", NULL};
static const char *const spool_keys[] = {"limit", NULL};
static const char *const vault_keys[] = {"key", NULL};
static const char *const log_keys[] = {"level", NULL};

#define SIGNERS_MAX 16

struct loader {
	struct yaml *y;
	struct agent_config *config;
	const char *directory; /* of the file, with its slash; "" */
	bool no_memory;
};

static char *copy(struct loader *l, const char *text) {
	char *s = text == NULL ? NULL : strdup(text);

	l->no_memory = l->no_memory || (text != NULL && s == NULL);
	return s;
}

/* Relative paths are relative to the file. */
static char *path(struct loader *l, const char *text) {
	char *s = NULL;

	if (text == NULL)
		return NULL;
	if (text[0] == '/')
		return copy(l, text);
	if (asprintf(&s, "%s%s", l->directory, text) < 0) {
		l->no_memory = true;
		return NULL;
	}
	return s;
}

/* Of the host's identity: a file, or what the service manager passes. */
static char *secret(struct loader *l, const struct yaml_node *map, const char *key) {
	const char *text = yaml_get_text(l->y, map, key, true);
	struct cede_error err = {0};
	char *s = NULL;

	if (text == NULL || !credential_named(text))
		return path(l, text);
	if (credential_path(text, &s, &err) < 0)
		yaml_mistake(l->y, yaml_get(l->y, map, key, false), "%s: %s", key, err.text);
	return s;
}

static void load_signers(struct loader *l, const struct yaml_node *root) {
	const struct yaml_node *list = yaml_get_list(l->y, root, "policy_signers", false);

	l->config->policy_signers = calloc(SIGNERS_MAX, sizeof *l->config->policy_signers);
	l->no_memory = l->no_memory || l->config->policy_signers == NULL;
	for (const struct yaml_node *i = list != NULL ? list->first : NULL;
		i != NULL && !l->no_memory; i = i->next) {
		const char *text = yaml_text(l->y, i);
		if (l->config->policy_signer_count == SIGNERS_MAX) {
			yaml_mistake(l->y, i, "policy_signers: more than %d entries", SIGNERS_MAX);
			return;
		}
		if (text != NULL)
			l->config->policy_signers[l->config->policy_signer_count++] = path(l, text);
	}
}

static void load_metrics(struct loader *l, const struct yaml_node *root) {
	const char *text = yaml_get_text(l->y, root, "metrics", false);

	if (text == NULL || strcmp(text, "off") == 0)
		return;
	const char *port = strncmp(text, "127.0.0.1:", 10) == 0 ? text + 10
		: strncmp(text, "[::1]:", 6) == 0               ? text + 6
								: NULL;
	uint64_t number;
	bool good = port != NULL ? parse_u64(slice_str(port), 1, UINT16_MAX, &number, NULL) == CEDE_OK
				 : strncmp(text, "unix:/", 6) == 0 || strcmp(text, "systemd") == 0;
	if (!good) {
		yaml_mistake(l->y, yaml_get(l->y, root, "metrics", false),
			"metrics: 127.0.0.1:PORT, [::1]:PORT, unix:/PATH, systemd or off expected");
		return;
	}
	l->config->metrics = copy(l, text);
}

static void load_log(struct loader *l, const struct yaml_node *root) {
	const struct yaml_node *map = yaml_get_map(l->y, root, "log", false);
	const char *level = yaml_get_text(l->y, map, "level", false);

	l->config->log_level = LOG_LEVEL_INFO;
	if (level != NULL && log_level_parse(level, &l->config->log_level) < 0)
		yaml_mistake(l->y, yaml_get(l->y, map, "level", false),
			"level: error, warning, info or debug expected");
	yaml_only(l->y, map, log_keys);
}

static void load_spool(struct loader *l, const struct yaml_node *root) {
	const struct yaml_node *map = yaml_get_map(l->y, root, "spool", false);

	l->config->spool_limit = AGENT_SPOOL_LIMIT;
	(void)yaml_get_size(l->y, map, "limit", false, &l->config->spool_limit);
	yaml_only(l->y, map, spool_keys);
}

static void load_vault(struct loader *l, const struct yaml_node *root) {
	const struct yaml_node *map = yaml_get_map(l->y, root, "vault", false);

	if (map == NULL)
		return;
	l->config->vault_key = secret(l, map, "key");
	yaml_only(l->y, map, vault_keys);
}

/* The file as it was installed does not say it: the reason, not just the rule. */
static void load_identity(struct loader *l, const struct yaml_node *root) {
	if (yaml_get(l->y, root, "identity", false) == NULL) {
		yaml_mistake(l->y, root,
			"identity is not filled in: which host is this? (identity: {certificate: agent.pem, key: agent.key}, with a certificate from the agency)");
		return;
	}
	const struct yaml_node *identity = yaml_get_map(l->y, root, "identity", true);
	l->config->certificate = secret(l, identity, "certificate");
	l->config->key = secret(l, identity, "key");
	yaml_only(l->y, identity, identity_keys);
}

static void load_top(struct loader *l, const struct yaml_node *root) {
	if (root->kind != YAML_MAP) {
		yaml_mistake(l->y, root, "keys with values expected (state: /var/lib/cede ...)");
		return;
	}
	l->config->state = path(l, yaml_get_text(l->y, root, "state", true));
	load_identity(l, root);
	load_signers(l, root);
	load_metrics(l, root);
	l->config->courier_user = copy(l, yaml_get_text(l->y, root, "courier_user", false));
	load_spool(l, root);
	load_vault(l, root);
	load_log(l, root);
	yaml_only(l->y, root, top_keys);
}

int agent_config_load(
	const char *file, struct agent_config **ret, char ***ret_lines, struct cede_error *reterr) {
	CLEANUP(yaml_freep) struct yaml *y = NULL;
	CLEANUP(agent_config_freep) struct agent_config *config = calloc(1, sizeof *config);
	CLEANUP(freep) char *directory = NULL;

	*ret_lines = NULL;
	if (config == NULL)
		return CEDE_FAIL_MEMORY(reterr);
	CEDE_TRY(yaml_load(file, &y, &directory, reterr));
	struct loader l = {.config = config, .directory = directory, .y = y};
	if (yaml_root(y) != NULL)
		load_top(&l, yaml_root(y));
	if (l.no_memory)
		return CEDE_FAIL_MEMORY(reterr);
	CEDE_TRY(yaml_verdict(y, file, ret_lines, reterr));
	*ret = CEDE_TAKE(config);
	return CEDE_OK;
}

void agent_config_free(struct agent_config *c) {
	if (c == NULL)
		return;
	for (size_t i = 0; i < c->policy_signer_count; i++)
		free(c->policy_signers[i]);
	free(c->policy_signers);
	free(c->state);
	free(c->certificate);
	free(c->key);
	free(c->metrics);
	free(c->vault_key);
	free(c->courier_user);
	free(c);
}

void agent_config_freep(struct agent_config **config) {
	agent_config_free(*config);
	*config = NULL;
}

int agent_config_read(const char *path, struct agent_config **ret, struct cede_error *reterr) {
	char **lines = NULL;

	int r = agent_config_load(path, ret, &lines, reterr);
	for (size_t i = 0; lines != NULL && lines[i] != NULL; i++) {
		(void)fprintf(stderr, "%s\n", lines[i]);
		free(lines[i]);
	}
	free(lines);
	return r;
}

int agent_config_state(const char *state, const char *path, char **ret, struct cede_error *reterr) {
	CLEANUP(agent_config_freep) struct agent_config *config = NULL;

	if (state != NULL) {
		*ret = strdup(state);
		return *ret != NULL ? CEDE_OK : CEDE_FAIL_MEMORY(reterr);
	}
	int r = agent_config_read(path != NULL ? path : AGENT_CONFIG_DEFAULT, &config, reterr);
	if (r < 0 && path == NULL)
		cede_error_within(reterr, "no --state given");
	if (r == CEDE_OK)
		*ret = CEDE_TAKE(config->state);
	return r;
}
