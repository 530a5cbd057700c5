/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/guard/below.h"

#include <stdlib.h>
#include <string.h>

struct below {
	struct below *parent; /* NULL: it is the top */
	size_t uses;
	size_t path_len;
	char name[];
};

int below_top(struct below **ret, struct cede_error *reterr) {
	struct below *b = calloc(1, sizeof *b + 1);

	if (b == NULL)
		return CEDE_FAIL_MEMORY(reterr);
	b->uses = 1;
	*ret = b;
	return CEDE_OK;
}

int below_new(struct below *parent, const char *name, struct below **ret, struct cede_error *reterr) {
	size_t len = strlen(name);
	size_t path_len = parent->path_len + (below_is_top(parent) ? 0 : 1) + len;

	if (path_len >= PATH_MAX)
		return CEDE_FAIL(reterr, CEDE_ERR_REFUSED,
			"a path of more than 4095 bytes; move or remove what is there");
	struct below *b = malloc(sizeof *b + len + 1);
	if (b == NULL)
		return CEDE_FAIL_MEMORY(reterr);
	*b = (struct below){.parent = below_use(parent), .uses = 1, .path_len = path_len};
	memcpy(b->name, name, len + 1);
	*ret = b;
	return CEDE_OK;
}

struct below *below_use(struct below *b) {
	b->uses++;
	return b;
}

void below_drop(struct below *b) {
	while (b != NULL && --b->uses == 0) {
		struct below *parent = b->parent;
		free(b);
		b = parent;
	}
}

void below_dropp(struct below **b) {
	below_drop(*b);
}

bool below_is_top(const struct below *b) {
	return b->parent == NULL;
}

void below_path(const struct below *b, char out[PATH_MAX]) {
	char *at = out + b->path_len;

	if (below_is_top(b)) {
		memcpy(out, ".", 2);
		return;
	}
	for (*at = 0; !below_is_top(b); b = b->parent) {
		size_t len = strlen(b->name);
		at -= len;
		memcpy(at, b->name, len);
		if (at > out)
			*--at = '/';
	}
}
