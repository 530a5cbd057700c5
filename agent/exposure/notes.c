/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/exposure/notes.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent/ledger/epoch.h"
#include "base/clock.h"
#include "formats/detail.h"
#include "policy/policy.h"

const char *report_note_name(enum report_note_kind kind) {
	static const char *const names[] = {"agent-down", "events-lost", "clock-stepped",
		"source-away", "guard-open", "no-guard", "opened", "pruned", "sealed-lost",
		"refused", "after-last-event"};

	return names[kind];
}

bool report_note_is_gap(enum report_note_kind kind) {
	return kind != NOTE_OPENED;
}

/* Opens are as many as a program likes to make: they leave room for what is not known. */
static bool has_room(struct report *r, enum report_note_kind kind) {
	if (kind == NOTE_OPENED && ++r->opened > REPORT_OPENED)
		return false;
	return r->note_count < REPORT_NOTES;
}

static void note(struct report *r, enum report_note_kind kind, int64_t from_ns, int64_t to_ns,
	const char *text) {
	if (to_ns < r->from_ns || from_ns >= r->to_ns)
		return;
	if (!has_room(r, kind)) {
		r->notes_left_out++;
		return;
	}
	struct report_note *n = &r->notes[r->note_count++];
	*n = (struct report_note){.kind = kind, .from_ns = from_ns, .to_ns = to_ns};
	(void)snprintf(n->text, sizeof n->text, "%s", text);
}

struct away { /* a source that can't be reached */
	char source[65];
	int64_t since_ns; /* the first of its places */
	unsigned places;  /* of a vault: epochs whose directories are away */
};

/* What was going on when the next event of its kind comes. */
struct watch {
	struct report *report;
	struct slice source; /* of which is asked; empty: of all */
	bool started;        /* the agent, at least once */
	int64_t started_ns;
	int64_t stopped_ns;   /* 0: it has not said that it stopped */
	bool guarded;         /* opens are seen */
	bool unconfirmed;     /* the agent has started since, and the guard was not heard of yet */
	int64_t unguarded_ns; /* since when not */
	bool ever_guarded;
	struct away away[POLICY_SOURCES_MAX];
	size_t away_count;
};

/* ---- the agent */

/* Every source is looked at again when the agent starts or another policy comes into force. */
static void sources_anew(struct watch *w, int64_t at_ns) {
	for (size_t i = 0; i < w->away_count; i++)
		note(w->report, NOTE_SOURCE_AWAY, w->away[i].since_ns, at_ns,
			"a source could not be reached: what was in it meanwhile is not known");
	w->away_count = 0;
}

/* An agent that ended without a word did not say that its guard ended with it. */
static void guard_unconfirmed(struct watch *w) {
	if (w->guarded && w->unconfirmed) {
		w->guarded = false;
		w->unguarded_ns = w->started_ns;
	}
	w->unconfirmed = false;
}

static void started(struct watch *w, const struct ledger_row *row) {
	if (!w->started)
		note(w->report, NOTE_AGENT_DOWN, INT64_MIN, row->at_ns,
			"the agent had not run here yet: what was here is known as far as it was found later");
	else if (w->stopped_ns != 0) /* no watch-gap tells of it */
		note(w->report, NOTE_AGENT_DOWN, w->stopped_ns, row->at_ns,
			"the agent was not running: files that came and went meanwhile are not known");
	sources_anew(w, row->at_ns);
	guard_unconfirmed(w);
	w->started = w->unconfirmed = true;
	w->started_ns = row->at_ns;
	w->stopped_ns = 0;
}

/* docs/ledger.md: watch-gap */
static void gap(struct watch *w, const struct ledger_row *row) {
	int64_t from, until;

	if (slice_starts(row->detail, "cause=queue-overflow")) {
		note(w->report, NOTE_EVENTS_LOST, row->at_ns, row->at_ns,
			"more happened at once than the kernel kept: a scan found what was still there");
		return;
	}
	if (detail_i64(row->detail, "from", &from, NULL) < 0 ||
		detail_i64(row->detail, "until", &until, NULL) < 0)
		return;
	note(w->report, NOTE_AGENT_DOWN, from, until,
		"the agent was not running: files that came and went meanwhile are not known");
	if (from <= w->stopped_ns)
		w->stopped_ns = 0;
}

/* ---- sources */

static bool is_asked_for(const struct watch *w, struct slice source) {
	return w->source.len == 0 || slice_equal(source, w->source);
}

/* Its place in the list, or the number of all. */
static size_t away_at(const struct watch *w, struct slice source) {
	size_t i = 0;

	while (i < w->away_count && !slice_is(source, w->away[i].source))
		i++;
	return i;
}

static void source_event(struct watch *w, const struct ledger_row *row) {
	struct slice name = SLICE_NONE;

	(void)detail_find(row->detail, "source", &name);
	name = epoch_source_name(name);
	if (!is_asked_for(w, name))
		return;
	size_t i = away_at(w, name);
	if (row->kind == LEDGER_SOURCE_MISSING) {
		if (i == POLICY_SOURCES_MAX)
			return;
		if (i < w->away_count) {
			w->away[i].places++;
			return;
		}
		w->away[i].places = 1;
		w->away[i].since_ns = row->at_ns;
		(void)snprintf(w->away[i].source, sizeof w->away[i].source, "%.*s", (int)name.len,
			(const char *)name.data);
		w->away_count++;
	} else if (i < w->away_count && --w->away[i].places == 0) {
		note(w->report, NOTE_SOURCE_AWAY, w->away[i].since_ns, row->at_ns,
			"a source could not be reached: what was in it meanwhile is not known");
		w->away[i] = w->away[--w->away_count];
	}
}

/* ---- the guard */

static void guard_back(struct watch *w, int64_t at_ns) {
	if (!w->guarded && w->ever_guarded)
		note(w->report, NOTE_GUARD_OPEN, w->unguarded_ns, at_ns,
			"the guard did not see who opened captures");
	else if (!w->guarded)
		note(w->report, NOTE_NO_GUARD, INT64_MIN, at_ns,
			"no guard was set: who opened captures is not known");
	w->guarded = w->ever_guarded = true;
	w->unconfirmed = false;
}

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

/* ---- all of it */

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
		guard_unconfirmed(w);
		w->stopped_ns = row->at_ns;
		break;
	case LEDGER_POLICY_LOADED:
		if (row->at_ns == w->started_ns) /* with the start, not a later one */
			break;
		guard_unconfirmed(w);
		sources_anew(w, row->at_ns);
		break;
	case LEDGER_WATCH_GAP:
		gap(w, row);
		break;
	case LEDGER_CLOCK_STEPPED:
		note(w->report, NOTE_CLOCK_STEPPED, row->at_ns, row->at_ns, text);
		break;
	case LEDGER_SOURCE_MISSING:
	case LEDGER_SOURCE_BACK:
		source_event(w, row);
		break;
	case LEDGER_GUARD_STARTED:
		guard_back(w, row->at_ns);
		break;
	case LEDGER_GUARD_LOST:
		guard_unconfirmed(w);
		if (w->guarded)
			w->unguarded_ns = row->at_ns;
		w->guarded = false;
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

/* Captures whose rows and events were taken out of the ledger had been wiped before that time. */
static int take_pruning(void *ctx, const struct ledger_row *row, struct cede_error *reterr) {
	struct report *r = ctx;
	int64_t before = row->at_ns;
	int64_t captures = 0;
	char text[200];

	(void)reterr;
	(void)!detail_i64(row->detail, "before", &before, NULL);
	(void)!detail_i64(row->detail, "captures", &captures, NULL);
	(void)snprintf(text, sizeof text,
		"%" PRId64
		" captures that had been wiped by then were taken out of the ledger (cede ledger prune): they are not listed",
		captures);
	note(r, NOTE_PRUNED, INT64_MIN, before < row->at_ns ? before : row->at_ns, text);
	return CEDE_OK;
}

static int take_lost(void *ctx, const struct exposure_lost *lost, struct cede_error *reterr) {
	char id[ID_TEXT_SIZE];
	char text[200];

	(void)reterr;
	id_print(&lost->bundle, id);
	(void)snprintf(text, sizeof text,
		"bundle %s with %" PRIu64
		" captures lay sealed in the spool, was taken out of it, and never came to the agency",
		id, lost->captures);
	note(ctx, NOTE_SEALED_LOST, lost->sealed_ns, lost->ended_ns, text);
	return CEDE_OK;
}

static void note_refused(struct report *r) {
	int64_t from = INT64_MAX;
	int64_t to = INT64_MIN;
	char text[200];

	for (size_t i = 0; i < r->refused_count; i++) {
		from = r->refused[i].from_ns < from ? r->refused[i].from_ns : from;
		to = r->refused[i].to_ns > to ? r->refused[i].to_ns : to;
	}
	(void)snprintf(text, sizeof text,
		"%zu files that cede left alone were in the clear (listed as refused, each with the reason); when they went, nobody saw",
		r->refused_count);
	if (r->refused_count > 0)
		note(r, NOTE_REFUSED, from, to, text);
}

static void end_notes(struct watch *w) {
	struct report *r = w->report;

	guard_unconfirmed(w);
	if (w->stopped_ns != 0)
		note(r, NOTE_AGENT_DOWN, w->stopped_ns, INT64_MAX,
			"the agent has not been started since");
	for (size_t i = 0; i < w->away_count; i++)
		note(r, NOTE_SOURCE_AWAY, w->away[i].since_ns, INT64_MAX,
			"a source can't be reached");
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

int notes_make(
	struct ledger *ledger, struct slice source, struct report *r, struct cede_error *reterr) {
	struct watch watch = {.report = r, .source = source};

	note_refused(r);
	CEDE_TRY(ledger_prunings(ledger, take_pruning, r, reterr));
	CEDE_TRY(ledger_lost_sealed(ledger, r->from_ns, r->to_ns, take_lost, r, reterr));
	CEDE_TRY(ledger_watch_events(ledger, take_event, &watch, reterr));
	end_notes(&watch);
	if (r->note_count > 1)
		qsort(r->notes, r->note_count, sizeof r->notes[0], by_time);
	return CEDE_OK;
}
