/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/watch/settle.h"

#include <stdlib.h>
#include <string.h>

#include "base/check.h"

struct entry {
	size_t source;
	int64_t due_ns;
	size_t heap; /* place in the heap */
	uint64_t hash;
	struct entry *chain; /* next with the same bucket */
	char path[];
};

#define BUCKETS 16384

struct settle {
	struct entry *bucket[BUCKETS];
	struct entry **heap; /* earliest first */
	size_t count;
	size_t room;
};

int settle_new(struct settle **ret, struct cede_error *reterr) {
	struct settle *s = calloc(1, sizeof *s);

	if (s == NULL)
		return CEDE_FAIL_MEMORY(reterr);
	*ret = s;
	return CEDE_OK;
}

void settle_free(struct settle *s) {
	if (s == NULL)
		return;
	for (size_t i = 0; i < s->count; i++)
		free(s->heap[i]);
	free(s->heap);
	free(s);
}

static uint64_t hash_of(size_t source, const char *path) {
	uint64_t h = UINT64_C(14695981039346656037) ^ source; /* FNV-1a */

	for (; *path != 0; path++)
		h = (h ^ (uint8_t)*path) * UINT64_C(1099511628211);
	return h;
}

static struct entry *find(struct settle *s, uint64_t hash, size_t source, const char *path) {
	for (struct entry *e = s->bucket[hash % BUCKETS]; e != NULL; e = e->chain)
		if (e->hash == hash && e->source == source && strcmp(e->path, path) == 0)
			return e;
	return NULL;
}

static void put(struct settle *s, size_t at, struct entry *e) {
	s->heap[at] = e;
	e->heap = at;
}

static void rise(struct settle *s, struct entry *e) {
	size_t at = e->heap;

	while (at > 0 && s->heap[(at - 1) / 2]->due_ns > e->due_ns) {
		put(s, at, s->heap[(at - 1) / 2]);
		at = (at - 1) / 2;
	}
	put(s, at, e);
}

static void sink(struct settle *s, struct entry *e) {
	size_t at = e->heap;

	for (;;) {
		size_t child = 2 * at + 1;
		if (child >= s->count)
			break;
		if (child + 1 < s->count && s->heap[child + 1]->due_ns < s->heap[child]->due_ns)
			child++;
		if (s->heap[child]->due_ns >= e->due_ns)
			break;
		put(s, at, s->heap[child]);
		at = child;
	}
	put(s, at, e);
}

static int grow(struct settle *s, struct cede_error *reterr) {
	if (s->count < s->room)
		return CEDE_OK;
	if (s->count >= SETTLE_MAX)
		return CEDE_FAIL(reterr, CEDE_ERR_BUSY, "%d names are waiting already", SETTLE_MAX);
	size_t room = s->room == 0 ? 256 : s->room * 2;
	struct entry **heap = reallocarray(s->heap, room, sizeof *heap);
	if (heap == NULL)
		return CEDE_FAIL_MEMORY(reterr);
	s->heap = heap;
	s->room = room;
	return CEDE_OK;
}

int settle_add(struct settle *s, size_t source, const char *path, int64_t due_ns,
	struct cede_error *reterr) {
	uint64_t hash = hash_of(source, path);
	struct entry *e = find(s, hash, source, path);

	if (e != NULL) {
		e->due_ns = due_ns;
		rise(s, e);
		sink(s, e);
		return CEDE_OK;
	}
	CEDE_TRY(grow(s, reterr));
	size_t len = strlen(path) + 1;
	e = malloc(sizeof *e + len);
	if (e == NULL)
		return CEDE_FAIL_MEMORY(reterr);
	*e = (struct entry){
		.source = source, .due_ns = due_ns, .hash = hash, .chain = s->bucket[hash % BUCKETS]};
	memcpy(e->path, path, len);
	s->bucket[hash % BUCKETS] = e;
	put(s, s->count++, e);
	rise(s, e);
	return CEDE_OK;
}

int64_t settle_next(const struct settle *s) {
	return s->count == 0 ? INT64_MAX : s->heap[0]->due_ns;
}

static void unchain(struct settle *s, const struct entry *e) {
	struct entry **at = &s->bucket[e->hash % BUCKETS];

	while (*at != e)
		at = &(*at)->chain;
	*at = e->chain;
}

bool settle_take(struct settle *s, int64_t now_ns, size_t *ret_source, char **ret_path) {
	if (s->count == 0 || s->heap[0]->due_ns > now_ns)
		return false;
	struct entry *e = s->heap[0];
	char *path = strdup(e->path);
	if (path == NULL)
		return false; /* stays; memory may be there next time */
	unchain(s, e);
	struct entry *last = s->heap[--s->count];
	if (last != e) {
		put(s, 0, last);
		sink(s, last);
	}
	*ret_source = e->source;
	*ret_path = path;
	free(e);
	return true;
}

size_t settle_count(const struct settle *s) {
	return s->count;
}
