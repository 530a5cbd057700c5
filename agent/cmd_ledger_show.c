/* SPDX-License-Identifier: Apache-2.0 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent/cmd_ledger_internal.h"
#include "base/buf.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/escape.h"
#include "base/hex.h"
#include "formats/detail.h"
#include "formats/utf8.h"

#define ID_SLACK_NS (5 * NS_PER_SECOND) /* a capture's id is a little older than its event */

/* ---- export */

static void print_json_text(struct slice text) {
	for (size_t i = 0; i < text.len; i++) {
		uint8_t c = text.data[i];
		if (c == '"' || c == '\\')
			(void)putchar_unlocked('\\');
		(void)putchar_unlocked(c);
	}
}

static void subject_text(const struct ledger_row *row, char out[ID_TEXT_SIZE]) {
	struct id id;

	out[0] = 0;
	if (row->subject.len != ID_SIZE)
		return;
	memcpy(id.bytes, row->subject.data, ID_SIZE);
	id_print(&id, out);
}

static int export_event(void *ctx, const struct ledger_row *row, struct cede_error *reterr) {
	char subject[ID_TEXT_SIZE], hash[65];

	(void)ctx;
	if (!utf8_plain(row->detail) || (row->subject.len != 0 && row->subject.len != ID_SIZE))
		return CEDE_FAIL(reterr, CEDE_ERR_INPUT, "event %" PRIu64 " is no text: damaged?",
			row->sequence);
	subject_text(row, subject);
	hex_print(row->hash, 32, hash);
	(void)printf("{\"sequence\":%" PRIu64 ",\"at_ns\":%" PRId64
		     ",\"kind\":\"%s\",\"subject\":\"%s\",\"detail\":\"",
		row->sequence, row->at_ns, ledger_event_name(row->kind), subject);
	print_json_text(row->detail);
	(void)printf("\",\"hash\":\"%s\"}\n", hash);
	return ferror(stdout) ? CEDE_FAIL_SYS(reterr, "write") : CEDE_OK;
}

int ledger_export(struct ledger *ledger, uint64_t from, struct cede_error *reterr) {
	CEDE_TRY(ledger_events(ledger, from, export_event, NULL, reterr));
	return fflush(stdout) == 0 ? 0 : CEDE_FAIL_SYS(reterr, "write");
}

/* ---- show */

struct show {
	struct id id;
	bool json;
	uint64_t row;       /* of the capture; 0: not seen yet */
	struct id *bundles; /* that hold it; the last ones are not done */
	size_t count, open;
	struct id sealed_id; /* the newest bundle without a list: of a segment */
	uint64_t printed;
	bool over; /* wiped, gone or replaced */
};

static int print_event(const struct show *s, const struct ledger_row *row, struct slice detail,
	struct cede_error *reterr) {
	char at[CLOCK_TEXT_SIZE], subject[ID_TEXT_SIZE];

	if (s->json)
		return export_event(NULL, row, reterr);
	clock_text_ns(row->at_ns, at);
	subject_text(row, subject);
	(void)printf("%" PRIu64 " %s %s %s ", row->sequence, at, ledger_event_name(row->kind),
		subject[0] != 0 ? subject : "-");
	escape_print_line(stdout, detail);
	(void)putchar('\n');
	return ferror(stdout) ? CEDE_FAIL_SYS(reterr, "write") : CEDE_OK;
}

static bool is_of_bundle(const struct show *s, struct slice subject) {
	for (size_t i = 0; i < s->count; i++)
		if (slice_equal(subject, slice_of(s->bundles[i].bytes, ID_SIZE)))
			return true;
	return false;
}

static int add_bundle(struct show *s, struct slice subject, struct cede_error *reterr) {
	struct id *list = reallocarray(s->bundles, s->count + 1, sizeof *list);

	if (list == NULL)
		return CEDE_FAIL_MEMORY(reterr);
	s->bundles = list;
	memcpy(list[s->count++].bytes, subject.data, ID_SIZE);
	s->open++;
	return CEDE_OK;
}

/* "row:digest" in the list; *ret is that part alone. */
static bool find_member(const struct show *s, struct slice detail, struct slice *ret) {
	char start[32];
	struct slice rest;

	(void)snprintf(start, sizeof start, "%" PRIu64 ":", s->row);
	if (s->row == 0 || !detail_find(detail, "members", &rest))
		return false;
	while (rest.len > 0) {
		struct slice part = rest;
		struct slice tail = SLICE_NONE;
		(void)slice_cut(rest, ',', &part, &tail);
		*ret = part;
		if (slice_starts(part, start))
			return true;
		rest = tail;
	}
	return false;
}

static bool has_row(const struct show *s, struct slice detail) {
	struct slice rest;
	uint64_t from, to;

	if (!detail_find(detail, "rows", &rest))
		return false;
	while (rest.len > 0 && detail_rows_next(&rest, &from, &to, NULL) == CEDE_OK)
		if (from <= s->row && s->row <= to)
			return true;
	return false;
}

static int show_sealed(struct show *s, const struct ledger_row *row, struct cede_error *reterr) {
	struct slice member, list;
	CLEANUP(buf_done) struct buf text = BUF_INIT(65536);

	if (!detail_find(row->detail, "members", &list)) { /* perhaps a segment of it */
		memcpy(s->sealed_id.bytes, row->subject.data,
			row->subject.len == ID_SIZE ? ID_SIZE : 0);
		return CEDE_OK;
	}
	if (!find_member(s, row->detail, &member))
		return CEDE_OK;
	/* of thousands of members only this one */
	CEDE_TRY(buf_add(&text, row->detail.data, (size_t)(list.data - row->detail.data), reterr));
	CEDE_TRY(buf_add(&text, member.data, member.len, reterr));
	CEDE_TRY(add_bundle(s, row->subject, reterr));
	s->printed++;
	return print_event(s, row, buf_slice(&text), reterr);
}

static int show_own(struct show *s, const struct ledger_row *row, struct cede_error *reterr) {
	if (strcmp(ledger_event_name(row->kind), "capture-seen") == 0)
		CEDE_TRY(detail_u64(row->detail, "row", &s->row, reterr));
	if (row->kind == LEDGER_SEGMENT_SEALED)
		CEDE_TRY(add_bundle(s, slice_of(s->sealed_id.bytes, ID_SIZE), reterr));
	s->over = s->over || row->kind == LEDGER_CAPTURE_WIPED ||
		row->kind == LEDGER_CAPTURE_GONE || row->kind == LEDGER_CAPTURE_REPLACED;
	s->printed++;
	return print_event(s, row, row->detail, reterr);
}

static int show_event(void *ctx, const struct ledger_row *row, struct cede_error *reterr) {
	struct show *s = ctx;
	bool ends = row->kind == LEDGER_BUNDLE_DONE || row->kind == LEDGER_BUNDLE_ABANDONED;

	if (slice_equal(row->subject, slice_of(s->id.bytes, ID_SIZE))) {
		CEDE_TRY(show_own(s, row, reterr));
	} else if (row->kind == LEDGER_BUNDLE_SEALED) {
		CEDE_TRY(show_sealed(s, row, reterr));
	} else if (is_of_bundle(s, row->subject)) {
		bool wiped = row->kind == LEDGER_CAPTURES_WIPED;
		if (wiped && !has_row(s, row->detail))
			return CEDE_OK;
		s->over = s->over || wiped;
		s->open -= ends;
		CEDE_TRY(print_event(s, row, row->detail, reterr));
	}
	return s->over && s->open == 0; /* nothing more can come */
}

int ledger_show(struct ledger *ledger, const struct id *id, bool json, struct cede_error *reterr) {
	struct show s = {.json = json, .id = *id};
	char text[ID_TEXT_SIZE];
	uint64_t from;

	/* ids have their time in them: the event is not far; if it is, all are looked through */
	CEDE_TRY(ledger_events_since(ledger, id_time_ns(&s.id) - ID_SLACK_NS, &from, reterr));
	int r = ledger_events(ledger, from, show_event, &s, reterr);
	if (r == CEDE_OK && s.printed == 0 && from > 1)
		r = ledger_events(ledger, 1, show_event, &s, reterr);
	free(s.bundles);
	CEDE_TRY(r);
	if (fflush(stdout) != 0)
		return CEDE_FAIL_SYS(reterr, "write");
	if (s.printed > 0)
		return 0;
	id_print(id, text);
	(void)fprintf(stderr, "cede ledger: no event of %s\n", text);
	return 1;
}
