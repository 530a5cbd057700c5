/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/watch/lives.h"

#include <stdlib.h>
#include <string.h>

#define BUCKETS 16384
#define MOVING  16

enum stage { STAGE_OPEN, STAGE_WRITTEN, STAGE_BROKEN };

struct life {
	struct life *chain;
	uint64_t hash;
	size_t source;
	enum stage stage;
	int64_t since_ns;
	uint64_t size; /* the largest that was seen */
	char path[];
};

struct lives {
	struct life *bucket[BUCKETS];
	size_t count;

	/* between the two events of a rename, which follow each other, but for others in between */
	struct {
		uint32_t cookie; /* 0: none */
		enum stage stage;
		int64_t since_ns;
		uint64_t size;
	} moving[MOVING];

	size_t next;
};

int lives_new(struct lives **ret, struct cede_error *reterr) {
	struct lives *l = calloc(1, sizeof *l);

	if (l == NULL)
		return CEDE_FAIL_MEMORY(reterr);
	*ret = l;
	return CEDE_OK;
}

void lives_clear(struct lives *l) {
	for (size_t i = 0; i < BUCKETS; i++)
		while (l->bucket[i] != NULL) {
			struct life *e = l->bucket[i];
			l->bucket[i] = e->chain;
			free(e);
		}
	l->count = 0;
	memset(l->moving, 0, sizeof l->moving);
}

void lives_free(struct lives *l) {
	if (l == NULL)
		return;
	lives_clear(l);
	free(l);
}

static uint64_t hash_of(size_t source, const char *path) {
	uint64_t h = UINT64_C(14695981039346656037) ^ source; /* FNV-1a */

	for (; *path != 0; path++)
		h = (h ^ (uint8_t)*path) * UINT64_C(1099511628211);
	return h;
}

/* Where it hangs, or where the chain ends. */
static struct life **place(struct lives *l, size_t source, const char *path) {
	uint64_t hash = hash_of(source, path);
	struct life **at = &l->bucket[hash % BUCKETS];

	while (*at != NULL &&
		((*at)->hash != hash || (*at)->source != source || strcmp((*at)->path, path) != 0))
		at = &(*at)->chain;
	return at;
}

static void drop(struct lives *l, struct life **at) {
	struct life *e = *at;

	*at = e->chain;
	l->count--;
	free(e);
}

static bool add(struct lives *l, size_t source, const char *path, enum stage stage,
	int64_t since_ns, uint64_t size) {
	struct life **at = place(l, source, path);
	size_t len = strlen(path) + 1;

	if (*at != NULL) { /* another file had the name: its blocks went who knows where */
		(*at)->stage = STAGE_BROKEN;
		return true;
	}
	struct life *e = l->count < LIVES_MAX ? malloc(sizeof *e + len) : NULL;
	if (e == NULL)
		return false;
	*e = (struct life){.hash = hash_of(source, path),
		.source = source,
		.stage = stage,
		.since_ns = since_ns,
		.size = size};
	memcpy(e->path, path, len);
	*at = e;
	l->count++;
	return true;
}

bool lives_made(struct lives *l, size_t source, const char *path, int64_t since_ns, bool known) {
	return add(l, source, path, known ? STAGE_OPEN : STAGE_BROKEN, since_ns, 0);
}

void lives_written(struct lives *l, size_t source, const char *path, uint64_t size) {
	struct life *e = *place(l, source, path);

	if (e == NULL)
		return;
	if (e->stage != STAGE_OPEN || (size != UINT64_MAX && size < e->size))
		e->stage = STAGE_BROKEN;
	else if (size != UINT64_MAX)
		e->size = size;
}

void lives_closed(struct lives *l, size_t source, const char *path) {
	struct life *e = *place(l, source, path);

	if (e != NULL)
		e->stage = e->stage == STAGE_OPEN ? STAGE_WRITTEN : STAGE_BROKEN;
}

void lives_left(struct lives *l, size_t source, const char *path, uint32_t cookie) {
	struct life **at = place(l, source, path);

	if (*at == NULL)
		return;
	l->moving[l->next].cookie = cookie;
	l->moving[l->next].stage = (*at)->stage;
	l->moving[l->next].since_ns = (*at)->since_ns;
	l->moving[l->next].size = (*at)->size;
	l->next = (l->next + 1) % MOVING;
	drop(l, at);
}

bool lives_came(struct lives *l, size_t source, const char *path, uint32_t cookie, bool known) {
	for (size_t i = 0; i < MOVING && cookie != 0; i++) {
		if (l->moving[i].cookie != cookie)
			continue;
		l->moving[i].cookie = 0;
		return add(l, source, path, known ? l->moving[i].stage : STAGE_BROKEN,
			l->moving[i].since_ns, l->moving[i].size);
	}
	return add(l, source, path, STAGE_BROKEN, 0, 0); /* from where nobody watched */
}

void lives_ended(struct lives *l, size_t source, const char *path) {
	struct life **at = place(l, source, path);

	if (*at != NULL)
		drop(l, at);
}

bool lives_found(struct lives *l, size_t source, const char *path) {
	return *place(l, source, path) != NULL || add(l, source, path, STAGE_BROKEN, 0, 0);
}

bool lives_goes_on(struct lives *l, size_t source, const char *path) {
	struct life *e = *place(l, source, path);

	if (e == NULL)
		return add(l, source, path, STAGE_WRITTEN, 0, 0);
	e->stage = STAGE_WRITTEN;
	return true;
}

void lives_ended_below(struct lives *l, size_t source, const char *path) {
	size_t len = strlen(path);

	for (size_t i = 0; i < BUCKETS; i++)
		for (struct life **at = &l->bucket[i]; *at != NULL;)
			if ((*at)->source == source && strncmp((*at)->path, path, len) == 0 &&
				(*at)->path[len] == '/')
				drop(l, at);
			else
				at = &(*at)->chain;
}

bool lives_whole(struct lives *l, size_t source, const char *path, int64_t *ret_since_ns) {
	const struct life *e = *place(l, source, path);

	if (e == NULL || e->stage != STAGE_WRITTEN)
		return false;
	*ret_since_ns = e->since_ns;
	return true;
}

size_t lives_count(const struct lives *l) {
	return l->count;
}
