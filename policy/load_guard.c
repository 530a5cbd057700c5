/* SPDX-License-Identifier: Apache-2.0 */
#include <stdlib.h>
#include <string.h>

#include "policy/load_internal.h"

static const char *const guard_keys[] = {"mode", "allow", NULL};
static const char *const allow_keys[] = {"exe", "user", NULL};

/* As useradd(8) makes them: at most 32 bytes, and none that a number or an option would be. */
static bool user_valid(struct slice text) {
	if (text.len == 0 || text.len > 32 || text.data[0] == '-')
		return false;
	for (size_t i = 0; i < text.len; i++) {
		uint8_t c = text.data[i];
		bool letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_';
		if (!letter && (i == 0 || ((c < '0' || c > '9') && c != '-' && c != '.')))
			return false;
	}
	return true;
}

static char *copy(struct loader *l, const char *text) {
	char *s = strdup(text == NULL ? "" : text);

	l->no_memory = l->no_memory || s == NULL;
	return s;
}

static bool is_same(const struct policy_guard_allow *a, const struct policy_guard_allow *b) {
	return a->exe != NULL && b->exe != NULL && a->user != NULL && b->user != NULL &&
		strcmp(a->exe, b->exe) == 0 && strcmp(a->user, b->user) == 0;
}

static void load_allow(struct loader *l, const struct yaml_node *node,
	struct policy_guard_allow *list, size_t at) {
	struct policy_guard_allow *a = &list[at];
	const char *text;

	a->where = (struct policy_where){node->line, node->column};
	if (node->kind != YAML_MAP) {
		yaml_mistake(l->y, node, "an allowed program: keys with values expected (exe, user)");
		return;
	}
	a->exe = copy(l, text = yaml_get_text(l->y, node, "exe", true));
	if (text != NULL && !path_valid(slice_str(text)))
		yaml_mistake(l->y, yaml_get(l->y, node, "exe", false),
			"exe: an absolute path without \"..\", \".\", \"//\" or a slash at its end expected");
	a->user = copy(l, text = yaml_get_text(l->y, node, "user", true));
	if (text != NULL && !user_valid(slice_str(text)))
		yaml_mistake(l->y, yaml_get(l->y, node, "user", false),
			"user: a user's name expected (1 to 32 of A-Z a-z 0-9 _ - . beginning with a letter or _)");
	for (size_t i = 0; i < at; i++)
		if (is_same(&list[i], a))
			yaml_mistake(l->y, node,
				"this program and user stand here twice (first in line %u)",
				list[i].where.line);
	yaml_only(l->y, node, allow_keys);
}

void load_guard(struct loader *l, const struct yaml_node *root) {
	static const char *const modes[] = {"report", "enforce", NULL};
	struct policy_guard *g = &l->policy->guard;
	const struct yaml_node *map = yaml_get_map(l->y, root, "guard", false);
	size_t which, n = 0;

	if (map == NULL)
		return;
	g->where = (struct policy_where){map->key->line, map->key->column};
	if (yaml_get_word(l->y, map, "mode", true, modes, &which))
		g->mode = which == 0 ? GUARD_REPORT : GUARD_ENFORCE;
	const struct yaml_node *list = yaml_get_list(l->y, map, "allow", false);
	for (const struct yaml_node *i = list != NULL ? list->first : NULL; i != NULL; i = i->next)
		n++;
	if (list != NULL && n == 0)
		yaml_mistake(l->y, list, "allow: at least one entry expected, or no key at all");
	if (n > POLICY_GUARD_ALLOW_MAX)
		yaml_mistake(l->y, list, "allow: at most %d entries expected, not %zu",
			POLICY_GUARD_ALLOW_MAX, n);
	if (n > 0 && n <= POLICY_GUARD_ALLOW_MAX) {
		g->allow = calloc(n, sizeof *g->allow);
		l->no_memory = l->no_memory || g->allow == NULL;
		for (const struct yaml_node *i = g->allow != NULL ? list->first : NULL; i != NULL;
			i = i->next) {
			load_allow(l, i, g->allow, g->allow_count);
			g->allow_count++;
		}
	}
	yaml_only(l->y, map, guard_keys);
}

void guard_done(struct policy_guard *guard) {
	for (size_t i = 0; i < guard->allow_count; i++) {
		free(guard->allow[i].exe);
		free(guard->allow[i].user);
	}
	free(guard->allow);
	*guard = (struct policy_guard){0};
}
