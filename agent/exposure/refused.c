/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/exposure/refused.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "formats/detail.h"

#define LOOKED_NS (600 * NS_PER_SECOND) /* a life so long had its first scan */

struct life { /* of the agent: its first scan tells anew of each file that is still left alone */
	uint64_t sequence;
	int64_t at_ns;
};

struct gather {
	struct report *report;
	struct slice source; /* of which is asked; empty: of all */
	struct life *lives;
	size_t life_count, life_room;
	size_t begun; /* lives before the refusal at hand */
};

static void gather_done(struct gather *g) {
	free(g->lives);
}

static int take_life(void *ctx, const struct ledger_row *row, struct cede_error *reterr) {
	struct gather *g = ctx;

	if (row->kind != LEDGER_AGENT_STARTED)
		return CEDE_OK;
	if (g->life_count == g->life_room) {
		size_t room = g->life_room == 0 ? 64 : g->life_room * 2;
		struct life *lives = reallocarray(g->lives, room, sizeof *lives);
		if (lives == NULL)
			return CEDE_FAIL_MEMORY(reterr);
		g->lives = lives;
		g->life_room = room;
	}
	g->lives[g->life_count++] = (struct life){.sequence = row->sequence, .at_ns = row->at_ns};
	return CEDE_OK;
}

/* What an agent that ended soon did not tell of may be there all the same. */
static void drop_short_lives(struct gather *g) {
	size_t kept = 0;

	for (size_t i = 0; i < g->life_count; i++) {
		int64_t end =
			i + 1 < g->life_count ? g->lives[i + 1].at_ns : g->report->last_event_ns;
		if (end - g->lives[i].at_ns >= LOOKED_NS)
			g->lives[kept++] = g->lives[i];
	}
	g->life_count = kept;
}

/* ---- what was refused, and how long it can have been here */

static struct report_refused *add(struct report *r) {
	if (r->refused_count == r->refused_room) {
		size_t room = r->refused_room == 0 ? 64 : r->refused_room * 2;
		struct report_refused *list = reallocarray(r->refused, room, sizeof *list);
		if (list == NULL)
			return NULL;
		r->refused = list;
		r->refused_room = room;
	}
	r->refused[r->refused_count] = (struct report_refused){.at_ns = 0};
	return &r->refused[r->refused_count++];
}

/* The name as it was; as it stands in the event if that is no name. */
static char *decoded(struct slice value) {
	CLEANUP(buf_done) struct buf name = BUF_INIT(UINT32_MAX);

	if (detail_decode(value, &name, NULL) == CEDE_OK && name.len > 0 &&
		memchr(name.data, 0, name.len) == NULL)
		value = buf_slice(&name);
	return strndup(value.len > 0 ? (const char *)value.data : "", value.len);
}

/* A purge wipes what was refused, too, unless it says that something remains. */
static void take_purge(struct report *r, const struct ledger_row *row) {
	uint64_t remains;

	if (detail_u64(row->detail, "remains", &remains, NULL) < 0 || remains > 0)
		return;
	for (size_t i = 0; i < r->refused_count; i++)
		if (r->refused[i].to_ns > row->at_ns)
			r->refused[i].to_ns = row->at_ns;
}

static int take_refusal(void *ctx, const struct ledger_row *row, struct cede_error *reterr) {
	struct gather *g = ctx;
	struct report *r = g->report;
	struct slice source = SLICE_NONE, reason = SLICE_NONE, path = SLICE_NONE;

	while (g->begun < g->life_count && g->lives[g->begun].sequence < row->sequence)
		g->begun++;
	if (row->kind == LEDGER_PURGE_DONE) {
		take_purge(r, row);
		return CEDE_OK;
	}
	(void)detail_find(row->detail, "source", &source);
	(void)detail_find(row->detail, "reason", &reason);
	(void)detail_find(row->detail, "path", &path);
	if (g->source.len > 0 && !slice_equal(source, g->source))
		return CEDE_OK;
	if (slice_is(reason, "symlink") || slice_is(reason, "special-file"))
		return CEDE_OK; /* they hold nothing themselves */
	int64_t from = g->begun > 0 ? g->lives[g->begun - 1].at_ns : row->at_ns;
	int64_t to = g->begun < g->life_count ? g->lives[g->begun].at_ns : INT64_MAX;
	(void)!detail_i64(row->detail, "born", &from, NULL);
	if (from >= r->to_ns || to <= r->from_ns)
		return CEDE_OK;
	struct report_refused *f = add(r);
	if (f == NULL)
		return CEDE_FAIL_MEMORY(reterr);
	f->source = decoded(source);
	f->path = decoded(path);
	f->reason = decoded(reason);
	f->from_ns = from;
	f->to_ns = to;
	f->at_ns = row->at_ns;
	return f->source != NULL && f->path != NULL && f->reason != NULL ? CEDE_OK
									 : CEDE_FAIL_MEMORY(reterr);
}

/* ---- what became a capture after all is listed as that */

static int by_name(const struct report_refused *x, struct slice source, struct slice path) {
	struct slice s = slice_str(x->source);
	struct slice p = slice_str(x->path);
	int order = s.len != source.len ? (s.len > source.len) - (s.len < source.len)
					: memcmp(s.data, source.data, s.len);

	if (order != 0)
		return order;
	return p.len != path.len ? (p.len > path.len) - (p.len < path.len)
				 : memcmp(p.data, path.data, p.len);
}

static int by_name_and_time(const void *a, const void *b) {
	const struct report_refused *x = a;
	const struct report_refused *y = b;
	int order = by_name(x, slice_str(y->source), slice_str(y->path));

	return order != 0 ? order : (x->at_ns > y->at_ns) - (x->at_ns < y->at_ns);
}

/* The same file, or the one that took its place. */
static bool replaces(const struct exposure_item *item, const struct report_refused *f) {
	bool was_another = strcmp(item->end, "replaced") == 0 || strcmp(item->end, "gone") == 0;

	return item->from_ns < f->to_ns &&
		(item->from_ns > f->at_ns || (item->to_ns > f->at_ns && !was_another));
}

static int take_capture(void *ctx, const struct exposure_item *item, struct cede_error *reterr) {
	struct report *r = ctx;
	size_t low = 0;
	size_t high = r->refused_count;

	(void)reterr;
	while (item->form == EXPOSURE_PLAIN && low < high) {
		size_t middle = low + (high - low) / 2;
		if (by_name(&r->refused[middle], item->source, item->path) < 0)
			low = middle + 1;
		else
			high = middle;
	}
	for (size_t i = low; item->form == EXPOSURE_PLAIN && i < r->refused_count &&
		by_name(&r->refused[i], item->source, item->path) == 0;
		i++)
		if (replaces(item, &r->refused[i]))
			r->refused[i].to_ns = item->from_ns;
	return CEDE_OK;
}

/* ---- the list */

static void drop(struct report_refused *f) {
	free(f->source);
	free(f->path);
	free(f->reason);
}

/* Each start tells of the same files again: one line for each, with the newest reason. */
static void merge(struct report *r) {
	size_t kept = 0;

	for (size_t i = 0; i < r->refused_count; i++) {
		struct report_refused *f = &r->refused[i];
		struct report_refused *last = kept > 0 ? &r->refused[kept - 1] : NULL;
		if (f->to_ns <= r->from_ns || f->from_ns >= f->to_ns) {
			drop(f);
		} else if (last != NULL &&
			by_name(last, slice_str(f->source), slice_str(f->path)) == 0 &&
			f->from_ns <= last->to_ns) {
			f->from_ns = f->from_ns < last->from_ns ? f->from_ns : last->from_ns;
			f->to_ns = f->to_ns > last->to_ns ? f->to_ns : last->to_ns;
			drop(last);
			*last = *f;
		} else {
			r->refused[kept++] = *f;
		}
	}
	r->refused_count = kept;
}

static int by_time(const void *a, const void *b) {
	const struct report_refused *x = a;
	const struct report_refused *y = b;

	return x->from_ns != y->from_ns ? (x->from_ns > y->from_ns) - (x->from_ns < y->from_ns)
					: strcmp(x->path, y->path);
}

int refused_make(
	struct ledger *ledger, struct slice source, struct report *r, struct cede_error *reterr) {
	CLEANUP(gather_done) struct gather g = {.report = r, .source = source};
	int64_t first_ns = INT64_MAX;

	CEDE_TRY(ledger_watch_events(ledger, take_life, &g, reterr));
	drop_short_lives(&g);
	CEDE_TRY(ledger_refusals(ledger, take_refusal, &g, reterr));
	if (r->refused_count == 0)
		return CEDE_OK;
	qsort(r->refused, r->refused_count, sizeof r->refused[0], by_name_and_time);
	for (size_t i = 0; i < r->refused_count; i++)
		if (r->refused[i].at_ns < first_ns)
			first_ns = r->refused[i].at_ns;
	int64_t end_ns = first_ns < r->to_ns ? r->to_ns : first_ns + 1;
	CEDE_TRY(ledger_exposure(ledger, first_ns, end_ns, source, take_capture, r, reterr));
	merge(r);
	if (r->refused_count > 1)
		qsort(r->refused, r->refused_count, sizeof r->refused[0], by_time);
	return CEDE_OK;
}

void refused_done(struct report *r) {
	for (size_t i = 0; i < r->refused_count; i++)
		drop(&r->refused[i]);
	free(r->refused);
	r->refused = NULL;
	r->refused_count = r->refused_room = 0;
}
