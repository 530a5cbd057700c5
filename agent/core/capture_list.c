/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/core/capture_list.h"

#include <stdlib.h>
#include <string.h>

int capture_list_add(void *ctx, const struct ledger_capture *c, struct cede_error *reterr) {
	struct capture_list *list = ctx;

	if (list->count == list->room) {
		size_t room = list->room == 0 ? 64 : list->room * 2;
		struct ledger_capture *items = reallocarray(list->items, room, sizeof *items);
		if (items == NULL)
			return CEDE_FAIL_MEMORY(reterr);
		list->items = items;
		list->room = room;
	}
	/* one block: path NUL source NUL */
	char *block = malloc(c->path.len + c->source.len + 2);
	if (block == NULL)
		return CEDE_FAIL_MEMORY(reterr);
	memcpy(block, c->path.data, c->path.len);
	block[c->path.len] = 0;
	memcpy(block + c->path.len + 1, c->source.data, c->source.len);
	block[c->path.len + 1 + c->source.len] = 0;
	struct ledger_capture *copy = &list->items[list->count++];
	*copy = *c;
	copy->path = slice_of(block, c->path.len);
	copy->source = slice_of(block + c->path.len + 1, c->source.len);
	copy->group = SLICE_NONE;
	return CEDE_OK;
}

void capture_list_done(struct capture_list *list) {
	for (size_t i = 0; i < list->count; i++)
		free((void *)(uintptr_t)list->items[i].path.data);
	free(list->items);
	*list = (struct capture_list){0};
}
