/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/exposure/report.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent/exposure/notes.h"
#include "agent/exposure/refused.h"
#include "base/check.h"
#include "base/clock.h"

/* ---- how many at one moment */

static void heap_up(int64_t *heap, size_t i) {
	while (i > 0 && heap[(i - 1) / 2] > heap[i]) {
		int64_t t = heap[i];
		heap[i] = heap[(i - 1) / 2];
		heap[(i - 1) / 2] = t;
		i = (i - 1) / 2;
	}
}

static void heap_pop(struct report *r) {
	int64_t *heap = r->ends;
	size_t i = 0;

	heap[0] = heap[--r->end_count];
	for (;;) {
		size_t least = i;
		for (size_t k = 2 * i + 1; k <= 2 * i + 2 && k < r->end_count; k++)
			if (heap[k] < heap[least])
				least = k;
		if (least == i)
			return;
		int64_t t = heap[i];
		heap[i] = heap[least];
		heap[least] = t;
		i = least;
	}
}

static int heap_add(struct report *r, int64_t end, struct cede_error *reterr) {
	if (r->end_count == r->end_room) {
		size_t room = r->end_room == 0 ? 1024 : r->end_room * 2;
		int64_t *ends = reallocarray(r->ends, room, sizeof *ends);
		if (ends == NULL)
			return CEDE_FAIL_MEMORY(reterr);
		r->ends = ends;
		r->end_room = room;
	}
	r->ends[r->end_count++] = end;
	heap_up(r->ends, r->end_count - 1);
	return CEDE_OK;
}

static size_t slot_of(const struct report *r, int64_t at) {
	double part = (double)(at - r->from_ns) / (double)(r->to_ns - r->from_ns);
	double slot = part * REPORT_SLOTS;

	return slot < 0 ? 0 : slot >= REPORT_SLOTS ? REPORT_SLOTS - 1 : (size_t)slot;
}

/* The present number holds from r->at_ns until then. */
static void advance(struct report *r, int64_t to) {
	size_t last = slot_of(r, to);

	for (size_t i = slot_of(r, r->at_ns); i <= last; i++)
		if (r->slots[i] < r->end_count)
			r->slots[i] = r->end_count;
	r->at_ns = to;
}

static void pass_ends(struct report *r, int64_t until) {
	while (r->end_count > 0 && r->ends[0] <= until) {
		advance(r, r->ends[0]);
		heap_pop(r);
	}
}

static int64_t clamp(const struct report *r, int64_t at) {
	return at < r->from_ns ? r->from_ns : at > r->to_ns ? r->to_ns : at;
}

static int count_at_once(
	struct report *r, const struct exposure_item *item, struct cede_error *reterr) {
	int64_t from = clamp(r, item->from_ns);

	pass_ends(r, from);
	advance(r, from);
	CEDE_TRY(heap_add(r, clamp(r, item->to_ns), reterr));
	if (r->end_count > r->peak) {
		r->peak = r->end_count;
		r->peak_ns = from;
	}
	advance(r, from);
	return CEDE_OK;
}

/* ---- groups */

static struct report_group *group_of(struct report *r, const struct exposure_item *item) {
	for (size_t i = 0; i < r->group_count; i++)
		if (slice_is(item->source, r->groups[i].source) &&
			slice_is(item->classification, r->groups[i].classification))
			return &r->groups[i];
	if (r->group_count == REPORT_GROUPS)
		return &r->groups[REPORT_GROUPS - 1];
	struct report_group *g = &r->groups[r->group_count++];
	(void)snprintf(g->source, sizeof g->source, "%.*s", (int)item->source.len,
		(const char *)item->source.data);
	(void)snprintf(g->classification, sizeof g->classification, "%.*s",
		(int)item->classification.len, (const char *)item->classification.data);
	return g;
}

static int take_item(void *ctx, const struct exposure_item *item, struct cede_error *reterr) {
	struct report *r = ctx;
	struct report_group *g = group_of(r, item);

	if (item->form == EXPOSURE_SEALED) {
		r->sealed++;
		g->sealed++;
		return CEDE_OK;
	}
	double seconds =
		(double)(clamp(r, item->to_ns) - clamp(r, item->from_ns)) / (double)NS_PER_SECOND;
	int64_t life = (item->to_ns == INT64_MAX ? r->last_event_ns : item->to_ns) - item->from_ns;
	r->plain++;
	g->plain++;
	g->bytes += item->size;
	g->gone += strcmp(item->end, "gone") == 0;
	r->plain_seconds += seconds;
	g->plain_seconds += seconds;
	if (life > r->longest_ns) {
		r->longest_ns = life;
		r->longest = item->id;
	}
	return count_at_once(r, item, reterr);
}

int report_make(
	struct ledger *ledger, struct slice source, struct report *r, struct cede_error *reterr) {
	ledger_head(ledger, &r->sequence, r->hash);
	CEDE_TRY(ledger_last_ns(ledger, &r->last_event_ns, reterr));
	r->at_ns = r->from_ns;
	CEDE_TRY(ledger_exposure(ledger, r->from_ns, r->to_ns, source, take_item, r, reterr));
	pass_ends(r, r->to_ns);
	advance(r, r->to_ns);
	CEDE_TRY(refused_make(ledger, source, r, reterr));
	return notes_make(ledger, source, r, reterr);
}

int report_list(struct ledger *ledger, const struct report *r, struct slice source, exposure_fn *fn,
	void *ctx, struct cede_error *reterr) {
	CEDE_TRY(ledger_exposure(ledger, r->from_ns, r->to_ns, source, fn, ctx, reterr));
	for (size_t i = 0; i < r->refused_count; i++) {
		const struct report_refused *f = &r->refused[i];
		const struct exposure_item item = {.form = EXPOSURE_REFUSED,
			.source = slice_str(f->source),
			.path = slice_str(f->path),
			.from_ns = f->from_ns,
			.to_ns = f->to_ns,
			.end = f->reason};
		CEDE_TRY(fn(ctx, &item, reterr));
	}
	return CEDE_OK;
}

void report_done(struct report *r) {
	refused_done(r);
	free(r->ends);
	r->ends = NULL;
}
