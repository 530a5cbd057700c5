/* SPDX-License-Identifier: Apache-2.0 */
#include "receiver/config.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/credential.h"
#include "base/parse.h"
#include "base/yaml.h"
#include "certs/note.h"
#include "receiver/limits.h"

static const char *const top_keys[] = {
	"listen", "store", "identity", "clients", "receipts", "limits", "front_user", NULL};
static const char *const identity_keys[] = {"certificate", "key", NULL};
static const char *const clients_keys[] = {"ca", "!crl", NULL};
static const char *const receipts_keys[] = {"key", "signer", NULL};
static const char *const limits_keys[] = {"bundle", NULL};

struct loader {
	struct yaml *y;
	struct receiver_config *config;
	const char *directory;
	bool no_memory;
};

static char *copy(struct loader *l, const char *text) {
	char *s = text == NULL ? NULL : strdup(text);

	l->no_memory = l->no_memory || (text != NULL && s == NULL);
	return s;
}

static char *path(struct loader *l, const struct yaml_node *map, const char *key, bool required) {
	const char *text = yaml_get_text(l->y, map, key, required);
	char *s = NULL;

	if (text == NULL || text[0] == '/')
		return copy(l, text);
	if (asprintf(&s, "%s%s", l->directory, text) < 0) {
		l->no_memory = true;
		return NULL;
	}
	return s;
}

/* A key or a certificate: a file, or what the service manager passes. */
static char *secret(struct loader *l, const struct yaml_node *map, const char *key) {
	const char *text = yaml_get_text(l->y, map, key, true);
	struct cede_error err = {0};
	char *s = NULL;

	if (text == NULL || !credential_named(text))
		return path(l, map, key, true);
	if (credential_path(text, &s, &err) < 0 || credential_there(s, &err) < 0)
		yaml_mistake(l->y, yaml_get(l->y, map, key, false), "%s: %s", key, err.text);
	return s;
}

/* The address itself is looked at when it is listened on. */
static bool listen_valid(const char *text) {
	const char *colon = strrchr(text, ':');
	uint64_t port;

	if (strncmp(text, "unix:", 5) == 0)
		return text[5] == '/' && strlen(text + 5) < LIMIT_SOCKET_PATH;
	return colon != NULL && colon != text && colon - text < 256 &&
		parse_u64(slice_str(colon + 1), 0, UINT16_MAX, &port, NULL) == CEDE_OK;
}

static void load_listen(struct loader *l, const struct yaml_node *root) {
	const char *text = yaml_get_text(l->y, root, "listen", true);

	if (text != NULL && !listen_valid(text))
		yaml_mistake(l->y, yaml_get(l->y, root, "listen", false),
			"listen: ADDRESS:PORT or unix:/PATH expected");
	l->config->listen = copy(l, text);
}

/* The file as it was installed says none of them: the reason, not just the rule. */
static const struct yaml_node *filled_in(
	struct loader *l, const struct yaml_node *root, const char *key, const char *why) {
	if (yaml_get(l->y, root, key, false) != NULL)
		return yaml_get_map(l->y, root, key, true);
	yaml_mistake(l->y, root, "%s is not filled in: %s", key, why);
	return NULL;
}

static void load_receipts(struct loader *l, const struct yaml_node *root) {
	const struct yaml_node *map = filled_in(
		l, root, "receipts", "which key signs receipts? (receipts: {key: receipt.key})");
	const char *signer = yaml_get_text(l->y, map, "signer", false);

	l->config->receipt_key = secret(l, map, "key");
	/* every receipt would fail, and every push with it */
	if (signer != NULL && !note_name_valid(signer))
		yaml_mistake(l->y, yaml_get(l->y, map, "signer", false),
			"signer: printable characters without space and '+' expected");
	l->config->signer = copy(l, signer == NULL ? "cede-receiver" : signer);
	yaml_only(l->y, map, receipts_keys);
}

static void load_limits(struct loader *l, const struct yaml_node *root) {
	const struct yaml_node *map = yaml_get_map(l->y, root, "limits", false);

	l->config->bundle_max = LIMIT_BUNDLE_DEFAULT;
	if (yaml_get_size(l->y, map, "bundle", false, &l->config->bundle_max) &&
		(l->config->bundle_max < LIMIT_BUNDLE_LEAST ||
			l->config->bundle_max > LIMIT_BUNDLE_MOST))
		yaml_mistake(l->y, yaml_get(l->y, map, "bundle", false),
			"bundle: 1MiB to 1GiB expected");
	yaml_only(l->y, map, limits_keys);
}

static void load_top(struct loader *l, const struct yaml_node *root) {
	struct receiver_config *c = l->config;

	if (root->kind != YAML_MAP) {
		yaml_mistake(l->y, root, "keys with values expected (listen: 127.0.0.1:8443 ...)");
		return;
	}
	load_listen(l, root);
	bool front = c->listen != NULL && strncmp(c->listen, "unix:", 5) == 0;
	c->store = path(l, root, "store", true);
	const struct yaml_node *identity = front
		? yaml_get_map(l->y, root, "identity", false)
		: filled_in(l, root, "identity",
			  "which server is this? (identity: {certificate: server.pem, key: server.key})");
	c->certificate = secret(l, identity, "certificate");
	c->key = secret(l, identity, "key");
	yaml_only(l->y, identity, identity_keys);
	const struct yaml_node *clients = front
		? yaml_get_map(l->y, root, "clients", false)
		: filled_in(l, root, "clients",
			  "whose certificates may agents have? (clients: {ca: ca.pem})");
	c->clients_ca = path(l, clients, "ca", true);
	yaml_only(l->y, clients, clients_keys);
	load_receipts(l, root);
	load_limits(l, root);
	c->front_user = copy(l, yaml_get_text(l->y, root, "front_user", false));
	yaml_only(l->y, root, top_keys);
}

int receiver_config_load(const char *file, struct receiver_config **ret, char ***ret_lines,
	struct cede_error *reterr) {
	CLEANUP(yaml_freep) struct yaml *y = NULL;
	CLEANUP(receiver_config_freep) struct receiver_config *config = calloc(1, sizeof *config);
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

void receiver_config_free(struct receiver_config *c) {
	if (c == NULL)
		return;
	free(c->listen);
	free(c->store);
	free(c->certificate);
	free(c->key);
	free(c->clients_ca);
	free(c->receipt_key);
	free(c->signer);
	free(c->front_user);
	free(c);
}

void receiver_config_freep(struct receiver_config **config) {
	receiver_config_free(*config);
	*config = NULL;
}
