/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <string.h>

#include "base/sandbox.h"
#include "policy/load_internal.h"

static const char *const sandbox_keys[] = {"require", NULL};

static void load_layer(struct loader *l, const struct yaml_node *node) {
	const char *text = yaml_text(l->y, node);
	char all[SANDBOX_TEXT_SIZE];
	enum sandbox_layer layer;

	if (text == NULL)
		return;
	if (sandbox_layer_parse(text, &layer) < 0) {
		sandbox_text((1U << SANDBOX_LAYER_COUNT) - 1, all);
		yaml_mistake(l->y, node, "require: one of %s expected", all);
		return;
	}
	if ((l->policy->sandbox_require & 1U << layer) != 0)
		yaml_mistake(l->y, node, "require: \"%s\" stands here twice", text);
	l->policy->sandbox_require |= 1U << layer;
}

void load_sandbox(struct loader *l, const struct yaml_node *root) {
	const struct yaml_node *map = yaml_get_map(l->y, root, "sandbox", false);
	const struct yaml_node *list = map == NULL ? NULL : yaml_get_list(l->y, map, "require", true);

	if (list != NULL && list->first == NULL)
		yaml_mistake(l->y, list, "require: at least one layer expected, or no key at all");
	for (const struct yaml_node *i = list != NULL ? list->first : NULL; i != NULL; i = i->next)
		load_layer(l, i);
	if (map != NULL)
		yaml_only(l->y, map, sandbox_keys);
}
