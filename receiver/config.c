/* SPDX-License-Identifier: Apache-2.0 */
#include "receiver/config.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/file.h"
#include "base/yaml.h"
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

static void load_top(struct loader *l, const struct yaml_node *root) {
	struct receiver_config *c = l->config;

	if (root->kind != YAML_MAP) {
		yaml_mistake(l->y, root, "keys with values expected (listen: 127.0.0.1:8443 ...)");
		return;
	}
	c->listen = copy(l, yaml_get_text(l->y, root, "listen", true));
	bool front = c->listen != NULL && strncmp(c->listen, "unix:", 5) == 0;
	c->store = path(l, root, "store", true);
	const struct yaml_node *identity = yaml_get_map(l->y, root, "identity", !front);
	c->certificate = path(l, identity, "certificate", true);
	c->key = path(l, identity, "key", true);
	yaml_only(l->y, identity, identity_keys);
	const struct yaml_node *clients = yaml_get_map(l->y, root, "clients", !front);
	c->clients_ca = path(l, clients, "ca", true);
	yaml_only(l->y, clients, clients_keys);
	const struct yaml_node *receipts = yaml_get_map(l->y, root, "receipts", true);
	c->receipt_key = path(l, receipts, "key", true);
	const char *signer = yaml_get_text(l->y, receipts, "signer", false);
	c->signer = copy(l, signer == NULL ? "cede-receiver" : signer);
	yaml_only(l->y, receipts, receipts_keys);
	c->bundle_max = LIMIT_BUNDLE_DEFAULT;
	const struct yaml_node *limits = yaml_get_map(l->y, root, "limits", false);
	(void)yaml_get_size(l->y, limits, "bundle", false, &c->bundle_max);
	yaml_only(l->y, limits, limits_keys);
	c->front_user = copy(l, yaml_get_text(l->y, root, "front_user", false));
	yaml_only(l->y, root, top_keys);
}

int receiver_config_load(const char *file, struct receiver_config **ret, char ***ret_lines,
	struct cede_error *reterr) {
	CLEANUP(buf_done) struct buf text = BUF_INIT(YAML_FILE_MAX);
	CLEANUP(yaml_freep) struct yaml *y = NULL;
	CLEANUP(receiver_config_freep) struct receiver_config *config = calloc(1, sizeof *config);
	const char *slash = strrchr(file, '/');
	CLEANUP(freep)
	char *directory = slash == NULL ? strdup("") : strndup(file, (size_t)(slash - file) + 1);
	struct loader l = {.config = config, .directory = directory};
	size_t count;

	*ret_lines = NULL;
	if (config == NULL || directory == NULL)
		return CEDE_FAIL_MEMORY(reterr);
	CEDE_TRY(file_load(AT_FDCWD, file, &text, reterr));
	CEDE_TRY(yaml_parse(buf_slice(&text), slash == NULL ? file : slash + 1, &y, reterr));
	l.y = y;
	if (yaml_root(y) != NULL)
		load_top(&l, yaml_root(y));
	if (l.no_memory)
		return CEDE_FAIL_MEMORY(reterr);
	if (yaml_mistake_count(y) > 0) {
		*ret_lines = yaml_mistakes(y, &count);
		return CEDE_FAIL(reterr, CEDE_ERR_INPUT, "%s: %zu mistake%s", file, count,
			count == 1 ? "" : "s");
	}
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
