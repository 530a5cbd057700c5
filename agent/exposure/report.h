/* SPDX-License-Identifier: Apache-2.0
 * The exposure report: which captures were on this host in a span of time, counted, and what can't
 * be excluded. Made in one pass over the ledger's items; the list itself is printed in a second.
 *
 * Promise memory grows with the captures that were here at one moment and with the files that were
 *         left alone, not with the span.
 * Thread  any. */
#pragma once

#include "agent/ledger/exposure.h"

#define REPORT_GROUPS 512 /* sources and classifications, by form */
#define REPORT_SLOTS  240 /* of the timeline */
#define REPORT_NOTES  400 /* more are counted */
#define REPORT_OPENED 200 /* of them, those that tell of an open */

struct report_group { /* captures of one source and classification */
	char source[65];
	char classification[65];
	uint64_t plain, sealed, bytes;
	uint64_t gone;        /* removed by another program: where they are, nobody knows */
	double plain_seconds; /* captures in the clear, times the seconds in the span */
};

enum report_note_kind {
	NOTE_AGENT_DOWN,    /* nobody watched */
	NOTE_EVENTS_LOST,   /* a scan followed */
	NOTE_CLOCK_STEPPED, /* times before or after are off by that */
	NOTE_SOURCE_AWAY,   /* its captures could not be reached */
	NOTE_GUARD_OPEN,    /* opens were not seen */
	NOTE_NO_GUARD,      /* nobody asked who opens captures */
	NOTE_OPENED,        /* another program opened a capture, or tried to */
	NOTE_PRUNED,        /* captures were taken out of the ledger */
	NOTE_SEALED_LOST,   /* a sealed bundle was taken out of the spool */
	NOTE_REFUSED,       /* files that cede left alone: in the clear, nobody saw them go */
	NOTE_AFTER_LAST,    /* the span ends after the ledger's last event */
};

struct report_note {
	enum report_note_kind kind;
	int64_t from_ns, to_ns;
	char text[400];
};

struct report_refused { /* a file that is no capture: cede left it alone */
	char *source, *path, *reason;
	int64_t from_ns; /* the earliest time that is known of it */
	int64_t to_ns;   /* not here any more then; INT64_MAX: nobody knows */
	int64_t at_ns;   /* when it was refused */
};

struct report {
	/* in */
	int64_t from_ns, to_ns; /* [from, to) */
	/* out */
	uint64_t plain, sealed; /* captures that were here in that form */
	uint64_t peak;          /* most at one moment in the clear */
	int64_t peak_ns;
	int64_t longest_ns; /* in the clear, its whole life */
	struct id longest;
	double plain_seconds;
	struct report_group groups[REPORT_GROUPS];
	size_t group_count;
	uint64_t slots[REPORT_SLOTS];   /* most in the clear at one moment of each */
	struct report_refused *refused; /* that can have been here */
	size_t refused_count, refused_room;
	struct report_note notes[REPORT_NOTES];
	size_t note_count;
	uint64_t notes_left_out;
	int64_t last_event_ns;
	uint64_t sequence; /* the ledger's head as read */
	uint8_t hash[32];
	/* work */
	uint64_t opened;
	int64_t *ends; /* a heap: when those in the clear end */
	size_t end_count, end_room;
	int64_t at_ns;
};

/* report->from_ns and to_ns are given. */
CEDE_MUST_USE int report_make(struct ledger *ledger, struct slice source, struct report *report,
	struct cede_error *reterr);
void report_done(struct report *report);
/* The list: ledger_exposure() of the span, then the files that cede left alone. */
CEDE_MUST_USE int report_list(struct ledger *ledger, const struct report *report,
	struct slice source, exposure_fn *fn, void *ctx, struct cede_error *reterr);
/* "agent-down" ... */
const char *report_note_name(enum report_note_kind kind);
/* Whether it leaves something open, rather than telling a fact. */
bool report_note_is_gap(enum report_note_kind kind);
