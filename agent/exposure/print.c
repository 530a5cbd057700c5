/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/exposure/print.h"

#include <inttypes.h>
#include <jansson.h>
#include <string.h>

#include "base/check.h"
#include "base/clock.h"
#include "base/escape.h"
#include "base/hex.h"
#include "formats/utf8.h"

void print_span(double seconds, char out[PRINT_SPAN_SIZE]) {
	uint64_t s = seconds < 0 ? 0 : (uint64_t)(seconds + 0.5);

	if (s < 120)
		(void)snprintf(out, PRINT_SPAN_SIZE, "%.1fs", seconds);
	else if (s < 7200)
		(void)snprintf(out, PRINT_SPAN_SIZE, "%" PRIu64 "m%02" PRIu64 "s", s / 60, s % 60);
	else if (s < 172800)
		(void)snprintf(
			out, PRINT_SPAN_SIZE, "%" PRIu64 "h%02" PRIu64 "m", s / 3600, s / 60 % 60);
	else
		(void)snprintf(out, PRINT_SPAN_SIZE, "%" PRIu64 "d%02" PRIu64 "h", s / 86400,
			s / 3600 % 24);
}

/* "-" stands for what is not known or has not come. */
static void time_text(int64_t ns, char out[CLOCK_TEXT_SIZE]) {
	if (ns == INT64_MAX || ns == INT64_MIN)
		(void)snprintf(out, CLOCK_TEXT_SIZE, "-");
	else
		clock_text_ns(ns, out);
}

const char *print_form(enum exposure_form form) {
	return form == EXPOSURE_PLAIN     ? "plaintext"
		: form == EXPOSURE_SEALED ? "sealed"
					  : "refused";
}

#define NAME_SIZE (3 * 64 + 1) /* of a source or level */

#define FREE_SIZE (3 * 400 + 1) /* of a classification or a note */

/* Text of the agency's as it is; what is none, because somebody put it into the ledger, as one word. */
static const char *free_text(struct slice text, char out[FREE_SIZE]) {
	if (utf8_plain(text) && text.len < FREE_SIZE)
		(void)snprintf(out, FREE_SIZE, "%.*s", (int)text.len,
			text.len > 0 ? (const char *)text.data : "");
	else
		escape_word(text, out, FREE_SIZE);
	return out;
}

/* One item in words, safe to print; path is "" where names are not wanted. */
struct words {
	char id[ID_TEXT_SIZE], bundle[ID_TEXT_SIZE], sha256[65];
	char source[NAME_SIZE], level[NAME_SIZE], end[NAME_SIZE], size[24];
	char from[CLOCK_TEXT_SIZE], to[CLOCK_TEXT_SIZE];
	char path[PRINT_PATH_SIZE];
};

static void to_words(const struct exposure_item *item, bool names, struct words *w) {
	w->id[0] = w->size[0] = w->bundle[0] = w->sha256[0] = w->path[0] = 0;
	if (item->form != EXPOSURE_REFUSED) {
		id_print(&item->id, w->id);
		(void)snprintf(w->size, sizeof w->size, "%" PRIu64, item->size);
	}
	escape_word(item->source, w->source, sizeof w->source);
	escape_word(item->level, w->level, sizeof w->level);
	escape_word(slice_str(item->end), w->end, sizeof w->end);
	if (item->has_bundle)
		id_print(&item->bundle, w->bundle);
	if (item->has_sha256)
		hex_print(item->sha256, 32, w->sha256);
	time_text(item->from_ns, w->from);
	time_text(item->to_ns, w->to);
	if (names)
		escape_word(item->path, w->path, sizeof w->path);
}

struct printer {
	const struct print_options *o;
	struct words words;
};

static int wrote(const struct printer *p, struct cede_error *reterr) {
	return ferror(p->o->to) ? CEDE_FAIL_SYS(reterr, "write the report") : CEDE_OK;
}

static int list(struct ledger *ledger, const struct report *r, struct printer *p, exposure_fn *fn,
	struct cede_error *reterr) {
	CEDE_TRY(report_list(ledger, r, p->o->source, fn, p, reterr));
	return wrote(p, reterr);
}

/* ---- table */

static int table_line(void *ctx, const struct exposure_item *item, struct cede_error *reterr) {
	struct printer *p = ctx;
	struct words *w = &p->words;
	char stayed[PRINT_SPAN_SIZE] = "still";

	to_words(item, p->o->names, w);
	if (item->to_ns != INT64_MAX)
		print_span((double)(item->to_ns - item->from_ns) / (double)NS_PER_SECOND, stayed);
	else if (item->form == EXPOSURE_REFUSED)
		(void)snprintf(stayed, sizeof stayed, "?");
	(void)fprintf(p->o->to, "%-9s %.19s %8s %-9s %-36s %s%s%s\n", print_form(item->form),
		w->from, stayed, w->end[0] != 0 ? w->end : "-", w->id[0] != 0 ? w->id : "-",
		w->source, w->path[0] != 0 ? "/" : "", w->path);
	return wrote(p, reterr);
}

static void table_head(const struct report *r, const struct print_options *o) {
	FILE *to = o->to;
	char from[CLOCK_TEXT_SIZE], until[CLOCK_TEXT_SIZE], span[PRINT_SPAN_SIZE], id[ID_TEXT_SIZE];
	char source[NAME_SIZE], classification[FREE_SIZE];

	time_text(r->from_ns, from);
	time_text(r->to_ns, until);
	(void)fprintf(to, "from %s\nto   %s\n", from, until);
	if (o->source.len > 0) {
		(void)fputs("only of the source ", to);
		escape_print_word(to, o->source);
		(void)fputc('\n', to);
	}
	(void)fputc('\n', to);
	(void)fprintf(to, "captures in the clear on this host    %12" PRIu64 "\n", r->plain);
	if (r->refused_count > 0)
		(void)fprintf(to, "files left alone, in the clear        %12zu\n", r->refused_count);
	(void)fprintf(to, "captures sealed on its disk           %12" PRIu64 "\n", r->sealed);
	(void)fprintf(to, "most in the clear at one moment       %12" PRIu64 "\n", r->peak);
	print_span(r->plain_seconds, span);
	(void)fprintf(to, "in the clear, all together            %12s\n", span);
	if (r->plain > 0) {
		print_span((double)r->longest_ns / (double)NS_PER_SECOND, span);
		id_print(&r->longest, id);
		(void)fprintf(to, "longest in the clear                  %12s  %s\n", span, id);
	}
	(void)fprintf(to, "\n%-24s %-16s %10s %10s %10s\n", "SOURCE", "CLASSIFICATION", "PLAINTEXT",
		"SEALED", "REMOVED");
	for (size_t i = 0; i < r->group_count; i++) {
		const struct report_group *g = &r->groups[i];
		escape_word(slice_str(g->source), source, sizeof source);
		(void)free_text(slice_str(g->classification), classification);
		(void)fprintf(to, "%-24s %-16s %10" PRIu64 " %10" PRIu64 " %10" PRIu64 "\n", source,
			classification[0] != 0 ? classification : "-", g->plain, g->sealed, g->gone);
	}
}

static void table_notes(const struct report *r, FILE *to) {
	char from[CLOCK_TEXT_SIZE], until[CLOCK_TEXT_SIZE];

	(void)fprintf(to, "\nWhat can't be excluded, and what was seen:%s\n",
		r->note_count == 0 ? " nothing" : "");
	for (size_t i = 0; i < r->note_count; i++) {
		const struct report_note *n = &r->notes[i];
		time_text(n->from_ns, from);
		time_text(n->to_ns, until);
		(void)fprintf(to, "%-16s %.19s to %.19s  ", report_note_name(n->kind), from,
			n->from_ns == n->to_ns ? "then" : until);
		escape_print_line(to, slice_str(n->text));
		(void)fputc('\n', to);
	}
	if (r->notes_left_out > 0)
		(void)fprintf(to, "and %" PRIu64 " more: cede ledger events\n", r->notes_left_out);
}

int print_table(struct ledger *ledger, const struct report *report,
	const struct print_options *options, struct cede_error *reterr) {
	struct printer p = {.o = options};

	table_head(report, options);
	table_notes(report, options->to);
	if (report->plain + report->sealed + report->refused_count > 0)
		(void)fprintf(options->to, "\n%-9s %-19s %8s %-9s %-36s %s\n", "FORM", "FROM (UTC)",
			"FOR", "END/WHY", "ID", options->names ? "SOURCE/PATH" : "SOURCE");
	return list(ledger, report, &p, table_line, reterr);
}

/* ---- JSON Lines */

static int dump(const struct printer *p, json_t *object, struct cede_error *reterr) {
	int r = object == NULL ? -1
			       : json_dumpf(object, p->o->to,
					 JSON_COMPACT | JSON_ENSURE_ASCII | JSON_PRESERVE_ORDER);

	json_decref(object);
	if (r < 0 || fputc('\n', p->o->to) == EOF)
		return CEDE_FAIL(reterr, CEDE_ERR_IO, "write the report");
	return CEDE_OK;
}

static json_t *or_null(const char *text) {
	return text[0] == 0 || strcmp(text, "-") == 0 ? json_null() : json_string(text);
}

static json_t *json_text(struct slice text) {
	char safe[FREE_SIZE];

	return json_string(free_text(text, safe));
}

static int json_line(void *ctx, const struct exposure_item *item, struct cede_error *reterr) {
	struct printer *p = ctx;
	struct words *w = &p->words;

	to_words(item, p->o->names, w);
	json_t *o = json_pack("{s:s, s:o, s:s, s:o, s:o, s:o, s:s, s:o, s:o, s:s, s:o}", "kind",
		print_form(item->form), "id", or_null(w->id), "source", w->source, "classification",
		json_text(item->classification), "size",
		w->size[0] != 0 ? json_integer((json_int_t)item->size) : json_null(), "sha256",
		or_null(w->sha256), "from", w->from, "to", or_null(w->to), "end", or_null(w->end),
		"level", w->level, "bundle", or_null(w->bundle));
	if (o != NULL && p->o->names)
		(void)json_object_set_new(o, "path", json_string(w->path));
	return dump(p, o, reterr);
}

static int json_summary(const struct printer *p, const struct report *r, struct cede_error *reterr) {
	char from[CLOCK_TEXT_SIZE], until[CLOCK_TEXT_SIZE], peak[CLOCK_TEXT_SIZE];
	char id[ID_TEXT_SIZE], hash[65], last[CLOCK_TEXT_SIZE];
	json_t *groups = json_array();

	for (size_t i = 0; i < r->group_count; i++) {
		const struct report_group *g = &r->groups[i];
		(void)json_array_append_new(groups,
			json_pack("{s:o, s:o, s:I, s:I, s:I, s:I, s:f}", "source",
				json_text(slice_str(g->source)), "classification",
				json_text(slice_str(g->classification)), "plaintext",
				(json_int_t)g->plain, "sealed", (json_int_t)g->sealed, "removed",
				(json_int_t)g->gone, "bytes", (json_int_t)g->bytes,
				"plaintext_seconds", g->plain_seconds));
	}
	time_text(r->from_ns, from);
	time_text(r->to_ns, until);
	time_text(r->peak_ns, peak);
	time_text(r->last_event_ns, last);
	id_print(&r->longest, id);
	hex_print(r->hash, 32, hash);
	return dump(p,
		json_pack("{s:s, s:s, s:s, s:s, s:s, s:o, s:I, s:I, s:I, s:I, s:o, s:f, s:f, s:o, s:I, s:o, s:{s:I, s:s, s:s}}",
			"kind", "summary", "schema", "cede-exposure/1", "host", p->o->host, "from",
			from, "to", until, "source",
			p->o->source.len > 0 ? json_text(p->o->source) : json_null(), "plaintext",
			(json_int_t)r->plain, "refused", (json_int_t)r->refused_count, "sealed",
			(json_int_t)r->sealed, "peak", (json_int_t)r->peak, "peak_at",
			r->peak > 0 ? json_string(peak) : json_null(), "plaintext_seconds",
			r->plain_seconds, "longest_seconds",
			(double)r->longest_ns / (double)NS_PER_SECOND, "longest",
			r->plain > 0 ? json_string(id) : json_null(), "notes_left_out",
			(json_int_t)r->notes_left_out, "groups", groups, "ledger", "sequence",
			(json_int_t)r->sequence, "hash", hash, "last_event", last),
		reterr);
}

static int json_note(const struct printer *p, const struct report_note *n, struct cede_error *reterr) {
	char from[CLOCK_TEXT_SIZE], until[CLOCK_TEXT_SIZE];

	time_text(n->from_ns, from);
	time_text(n->to_ns, until);
	return dump(p,
		json_pack("{s:s, s:s, s:b, s:o, s:o, s:o}", "kind", "note", "note",
			report_note_name(n->kind), "gap", (int)report_note_is_gap(n->kind), "from",
			or_null(from), "to", or_null(until), "text", json_text(slice_str(n->text))),
		reterr);
}

int print_json_lines(struct ledger *ledger, const struct report *report,
	const struct print_options *options, struct cede_error *reterr) {
	struct printer p = {.o = options};

	CEDE_TRY(json_summary(&p, report, reterr));
	for (size_t i = 0; i < report->note_count; i++)
		CEDE_TRY(json_note(&p, &report->notes[i], reterr));
	return list(ledger, report, &p, json_line, reterr);
}

/* ---- CSV */

/* A spreadsheet takes what begins with = + - @ for a formula: such text stands behind an apostrophe. */
static bool is_formula(struct slice text) {
	return text.len > 0 && strchr("=+-@", text.data[0]) != NULL;
}

static void csv_quoted(FILE *to, struct slice text) {
	(void)fputs(is_formula(text) ? "\"'" : "\"", to);
	for (size_t i = 0; i < text.len; i++) {
		uint8_t c = text.data[i];
		if (c == '"')
			(void)fputc('"', to);
		(void)fputc(c, to);
	}
	(void)fputc('"', to);
}

/* A name needs no quotes, unless somebody put what is none into the ledger. */
static void csv_name(FILE *to, const char *word) {
	if (is_formula(slice_str(word)) || strchr(word, ',') != NULL)
		csv_quoted(to, slice_str(word));
	else
		(void)fputs(word, to);
}

static int csv_line(void *ctx, const struct exposure_item *item, struct cede_error *reterr) {
	struct printer *p = ctx;
	struct words *w = &p->words;
	char classification[FREE_SIZE];

	to_words(item, p->o->names, w);
	(void)fprintf(p->o->to, "%s,%s,", print_form(item->form), w->id);
	csv_name(p->o->to, w->source);
	(void)fputc(',', p->o->to);
	csv_quoted(p->o->to, slice_str(free_text(item->classification, classification)));
	(void)fprintf(p->o->to, ",%s,%s,%s,%s,", w->size, w->sha256, w->from,
		item->to_ns == INT64_MAX ? "" : w->to);
	csv_name(p->o->to, w->end);
	(void)fputc(',', p->o->to);
	csv_name(p->o->to, w->level);
	(void)fprintf(p->o->to, ",%s", w->bundle);
	if (p->o->names) {
		(void)fputc(',', p->o->to);
		csv_quoted(p->o->to, slice_str(w->path));
	}
	(void)fputs("\r\n", p->o->to);
	return wrote(p, reterr);
}

int print_csv(struct ledger *ledger, const struct report *report,
	const struct print_options *options, struct cede_error *reterr) {
	struct printer p = {.o = options};

	(void)fprintf(options->to,
		"form,id,source,classification,size,sha256,from,to,end,level,bundle%s\r\n",
		options->names ? ",path" : "");
	return list(ledger, report, &p, csv_line, reterr);
}
