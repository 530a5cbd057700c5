/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/exposure/report.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "base/clock.h"
#include "formats/detail.h"

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

/* ---- notes */

const char *report_note_name(enum report_note_kind kind) {
	static const char *const names[] = {"agent-down", "events-lost", "clock-stepped",
		"source-away", "guard-open", "no-guard", "opened", "after-last-event"};

	return names[kind];
}

bool report_note_is_gap(enum report_note_kind kind) {
	return kind != NOTE_OPENED;
}

static void note(struct report *r, enum report_note_kind kind, int64_t from_ns, int64_t to_ns,
	const char *text) {
	if (to_ns < r->from_ns || from_ns >= r->to_ns)
		return;
	if (r->note_count == REPORT_NOTES) {
		r->notes_left_out++;
		return;
	}
	struct report_note *n = &r->notes[r->note_count++];
	*n = (struct report_note){.kind = kind, .from_ns = from_ns, .to_ns = to_ns};
	(void)snprintf(n->text, sizeof n->text, "%s", text);
}

/* What was going on when the next event of its kind comes. */
struct watch {
	struct report *report;
	bool started;         /* the agent, at least once */
	int64_t stopped_ns;   /* 0: it has not said that it stopped */
	bool guarded;         /* opens are seen */
	int64_t unguarded_ns; /* since when not */
	bool ever_guarded;
	int64_t away_ns; /* since when a source is missing; 0: none is */
};

/* The whole detail as it stands, but for names: an investigator looks the capture up by its id. */
static void opened(struct watch *w, const struct ledger_row *row) {
	char id[ID_TEXT_SIZE] = "-";
	char text[400];

	if (row->subject.len == ID_SIZE) {
		struct id subject;
		memcpy(subject.bytes, row->subject.data, ID_SIZE);
		id_print(&subject, id);
	}
	struct slice detail = row->detail;
	for (size_t i = 0; i + 6 <= detail.len; i++)
		if (memcmp(detail.data + i, " path=", 6) == 0)
			detail.len = i;
	(void)snprintf(text, sizeof text, "%s capture %s: %.*s",
		row->kind == LEDGER_GUARD_DENIED ? "denied" : "noted, not denied", id,
		(int)detail.len, (const char *)detail.data);
	note(w->report, NOTE_OPENED, row->at_ns, row->at_ns, text);
}

static void started(struct watch *w, const struct ledger_row *row) {
	if (!w->started)
		note(w->report, NOTE_AGENT_DOWN, INT64_MIN, row->at_ns,
			"the agent had not run here yet: what was here is known as far as it was found later");
	w->started = true;
	w->stopped_ns = 0;
}

/* docs/ledger.md: watch-gap */
static void gap(struct watch *w, const struct ledger_row *row) {
	int64_t from, until;

	if (slice_starts(row->detail, "cause=queue-overflow"))
		note(w->report, NOTE_EVENTS_LOST, row->at_ns, row->at_ns,
			"more happened at once than the kernel kept: a scan found what was still there");
	else if (detail_i64(row->detail, "from", &from, NULL) == CEDE_OK &&
		detail_i64(row->detail, "until", &until, NULL) == CEDE_OK)
		note(w->report, NOTE_AGENT_DOWN, from, until,
			"the agent was not running: files that came and went meanwhile are not known");
}

static void guard_back(struct watch *w, int64_t at_ns) {
	if (!w->guarded && w->ever_guarded)
		note(w->report, NOTE_GUARD_OPEN, w->unguarded_ns, at_ns,
			"the guard did not see who opened captures");
	else if (!w->guarded)
		note(w->report, NOTE_NO_GUARD, INT64_MIN, at_ns,
			"no guard was set: who opened captures is not known");
	w->guarded = w->ever_guarded = true;
}

static int take_event(void *ctx, const struct ledger_row *row, struct cede_error *reterr) {
	struct watch *w = ctx;
	char text[200];

	(void)reterr;
	(void)snprintf(text, sizeof text, "%.*s",
		(int)(row->detail.len < 150 ? row->detail.len : 150), (const char *)row->detail.data);
	switch (row->kind) {
	case LEDGER_AGENT_STARTED:
		started(w, row);
		break;
	case LEDGER_AGENT_STOPPED:
		w->stopped_ns = row->at_ns;
		break;
	case LEDGER_WATCH_GAP:
		gap(w, row);
		break;
	case LEDGER_CLOCK_STEPPED:
		note(w->report, NOTE_CLOCK_STEPPED, row->at_ns, row->at_ns, text);
		break;
	case LEDGER_SOURCE_MISSING:
		if (w->away_ns == 0)
			w->away_ns = row->at_ns;
		break;
	case LEDGER_SOURCE_BACK:
		if (w->away_ns != 0)
			note(w->report, NOTE_SOURCE_AWAY, w->away_ns, row->at_ns,
				"a source could not be reached: what was in it meanwhile is not known");
		w->away_ns = 0;
		break;
	case LEDGER_GUARD_STARTED:
		guard_back(w, row->at_ns);
		break;
	case LEDGER_GUARD_LOST:
		w->guarded = false;
		w->unguarded_ns = row->at_ns;
		break;
	case LEDGER_GUARD_DENIED:
	case LEDGER_GUARD_NOTED:
		opened(w, row);
		break;
	default:
		break;
	}
	return CEDE_OK;
}

static void end_notes(struct watch *w) {
	struct report *r = w->report;

	if (w->stopped_ns != 0)
		note(r, NOTE_AGENT_DOWN, w->stopped_ns, INT64_MAX,
			"the agent has not been started since");
	if (w->away_ns != 0)
		note(r, NOTE_SOURCE_AWAY, w->away_ns, INT64_MAX, "a source can't be reached");
	if (!w->guarded)
		note(r, w->ever_guarded ? NOTE_GUARD_OPEN : NOTE_NO_GUARD,
			w->ever_guarded ? w->unguarded_ns : INT64_MIN, INT64_MAX,
			w->ever_guarded ? "the guard does not see who opens captures"
					: "no guard was set: who opened captures is not known");
	if (r->last_event_ns < r->to_ns)
		note(r, NOTE_AFTER_LAST, r->last_event_ns, r->to_ns,
			"the span ends after the ledger's last event: what came after it is not in the ledger");
}

static int by_time(const void *a, const void *b) {
	const struct report_note *x = a;
	const struct report_note *y = b;

	return (x->from_ns > y->from_ns) - (x->from_ns < y->from_ns);
}

int report_make(
	struct ledger *ledger, struct slice source, struct report *r, struct cede_error *reterr) {
	struct watch watch = {.report = r};

	ledger_head(ledger, &r->sequence, r->hash);
	CEDE_TRY(ledger_last_ns(ledger, &r->last_event_ns, reterr));
	r->at_ns = r->from_ns;
	CEDE_TRY(ledger_exposure(ledger, r->from_ns, r->to_ns, source, take_item, r, reterr));
	pass_ends(r, r->to_ns);
	advance(r, r->to_ns);
	CEDE_TRY(ledger_watch_events(ledger, take_event, &watch, reterr));
	end_notes(&watch);
	if (r->note_count > 1)
		qsort(r->notes, r->note_count, sizeof r->notes[0], by_time);
	return CEDE_OK;
}

void report_done(struct report *r) {
	free(r->ends);
	r->ends = NULL;
}
