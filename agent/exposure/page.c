/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/exposure/page.h"

#include <inttypes.h>
#include <string.h>

#include "base/check.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/escape.h"
#include "base/hex.h"
#include "base/html.h"

#define WIDTH  960
#define HEIGHT 220
#define LEFT   60 /* room for the scale */

static const char top[] =
	"<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>Exposure report</title>"
	"<style>\nbody{font:10.5pt/1.45 sans-serif;max-width:64em;margin:2em auto;padding:0 1em}"
	"h1{font-size:18pt;margin-bottom:.2em}h2{font-size:13pt;margin-top:1.6em}"
	"table{border-collapse:collapse;width:100%}td,th{border:1px solid #999;padding:.25em .5em;"
	"text-align:left;vertical-align:top;overflow-wrap:anywhere}th{background:#eee}"
	"td.n,th.n{text-align:right;white-space:nowrap}.big{font-size:22pt;font-weight:bold}"
	".figures td{border:0;width:25%}.list{font-size:8pt}.list td:nth-child(2){white-space:nowrap}code,pre{font-size:8.5pt}"
	"pre{white-space:pre-wrap;overflow-wrap:anywhere;border:1px solid #999;padding:.5em}"
	"svg{width:100%;height:auto}@media print{body{margin:0}h2{break-after:avoid}"
	"tr{break-inside:avoid}}\n</style></head><body>\n";

struct pager {
	const struct print_options *o;
	const struct report *r;
	struct buf text; /* one piece at a time */
	uint64_t listed;
	char path[PRINT_PATH_SIZE];
};

static int put(struct pager *p, struct slice text, struct cede_error *reterr) {
	buf_clear(&p->text);
	CEDE_TRY(html_escape(text, &p->text, reterr));
	if (fwrite(p->text.data, 1, p->text.len, p->o->to) != p->text.len)
		return CEDE_FAIL_SYS(reterr, "write the page");
	return CEDE_OK;
}

static void minute_text(int64_t ns, char out[CLOCK_TEXT_SIZE]) {
	if (ns == INT64_MAX || ns == INT64_MIN) {
		(void)snprintf(out, CLOCK_TEXT_SIZE, "%s", ns == INT64_MAX ? "(open)" : "(before)");
		return;
	}
	clock_text(ns, out);
	for (char *c = out; *c != 0; c++)
		if (*c == 'T')
			*c = ' ';
}

/* ---- figures */

static void figure(const struct pager *p, const char *value, const char *what) {
	(void)fprintf(p->o->to, "<td><div class=\"big\">%s</div>%s</td>\n", value, what);
}

static void figures(const struct pager *p) {
	const struct report *r = p->r;
	char value[64], span[PRINT_SPAN_SIZE], at[CLOCK_TEXT_SIZE], what[160];

	(void)fputs("<table class=\"figures\"><tr>\n", p->o->to);
	(void)snprintf(value, sizeof value, "%" PRIu64, r->plain);
	figure(p, value, "captures were on this host in the clear");
	(void)snprintf(value, sizeof value, "%" PRIu64, r->peak);
	minute_text(r->peak_ns, at);
	(void)snprintf(what, sizeof what, "most at one moment%s%s", r->peak > 0 ? ", at " : "",
		r->peak > 0 ? at : "");
	figure(p, value, what);
	print_span((double)r->longest_ns / (double)NS_PER_SECOND, span);
	figure(p, r->plain > 0 ? span : "-", "the longest that one of them was in the clear");
	print_span(r->plain_seconds, span);
	figure(p, span, "in the clear, all captures together, within the span");
	(void)fputs("</tr></table>\n", p->o->to);
	if (r->refused_count > 0)
		(void)fprintf(p->o->to,
			"<p><b>Besides, %zu files lay here in the clear that cede left alone</b>: they are "
			"listed as refused, each with the reason.</p>\n",
			r->refused_count);
	if (r->sealed > 0)
		(void)fprintf(p->o->to,
			"<p>Besides, %" PRIu64
			" captures lay here in sealed form, which only the agency's key opens.</p>\n",
			r->sealed);
}

static int groups(struct pager *p, struct cede_error *reterr) {
	char span[PRINT_SPAN_SIZE];

	(void)fputs(
		"<h2>By source and classification</h2><table><tr><th>Source</th><th>Classification</th>"
		"<th class=\"n\">In the clear</th><th class=\"n\">Sealed</th><th class=\"n\">Bytes</th>"
		"<th class=\"n\">Removed by others</th><th class=\"n\">Time in the clear</th></tr>\n",
		p->o->to);
	for (size_t i = 0; i < p->r->group_count; i++) {
		const struct report_group *g = &p->r->groups[i];
		(void)fputs("<tr><td>", p->o->to);
		CEDE_TRY(put(p, slice_str(g->source), reterr));
		(void)fputs("</td><td>", p->o->to);
		CEDE_TRY(put(p, slice_str(g->classification), reterr));
		print_span(g->plain_seconds, span);
		(void)fprintf(p->o->to,
			"</td><td class=\"n\">%" PRIu64 "</td><td class=\"n\">%" PRIu64
			"</td><td class=\"n\">%" PRIu64 "</td><td class=\"n\">%" PRIu64
			"</td><td class=\"n\">%s</td></tr>\n",
			g->plain, g->sealed, g->bytes, g->gone, span);
	}
	(void)fputs("</table>\n", p->o->to);
	return CEDE_OK;
}

/* ---- the picture */

static double x_of(const struct report *r, int64_t at) {
	int64_t in = at < r->from_ns ? r->from_ns : at > r->to_ns ? r->to_ns : at;

	return LEFT + (double)(in - r->from_ns) / (double)(r->to_ns - r->from_ns) * WIDTH;
}

static double y_of(const struct report *r, uint64_t n) {
	return 20 + HEIGHT - (double)n / (double)(r->peak > 0 ? r->peak : 1) * HEIGHT;
}

static void curve(const struct report *r, FILE *to) {
	(void)fprintf(to, "<path fill=\"#c33\" fill-opacity=\"0.55\" stroke=\"#900\" d=\"M%d %.1f",
		LEFT, y_of(r, 0));
	for (size_t i = 0; i < REPORT_SLOTS; i++) {
		double x = LEFT + (double)i / REPORT_SLOTS * WIDTH;
		(void)fprintf(to, "L%.1f %.1fH%.1f", x, y_of(r, r->slots[i]),
			x + (double)WIDTH / REPORT_SLOTS);
	}
	(void)fprintf(to, "V%.1fZ\"/>\n", y_of(r, 0));
}

static void marks(const struct report *r, FILE *to) {
	for (size_t i = 0; i < r->note_count; i++) {
		const struct report_note *n = &r->notes[i];
		double x = x_of(r, n->from_ns);
		if (n->kind == NOTE_OPENED)
			(void)fprintf(to,
				"<path stroke=\"#06c\" stroke-width=\"2\" d=\"M%.1f 20v%d\"/>\n", x,
				HEIGHT);
		else if (n->kind == NOTE_AGENT_DOWN)
			(void)fprintf(to,
				"<rect x=\"%.1f\" y=\"20\" width=\"%.1f\" height=\"%d\" fill=\"#999\" fill-opacity=\"0.4\"/>\n",
				x, x_of(r, n->to_ns) - x, HEIGHT);
	}
}

static void picture(const struct pager *p) {
	const struct report *r = p->r;
	FILE *to = p->o->to;
	char from[CLOCK_TEXT_SIZE], mid[CLOCK_TEXT_SIZE], until[CLOCK_TEXT_SIZE];

	minute_text(r->from_ns, from);
	minute_text(r->from_ns + (r->to_ns - r->from_ns) / 2, mid);
	minute_text(r->to_ns, until);
	(void)fprintf(to,
		"<h2>In the clear over time</h2><svg viewBox=\"0 0 %d %d\" role=\"img\" "
		"aria-label=\"captures in the clear over time\" font-size=\"11\" font-family=\"sans-serif\">\n",
		LEFT + WIDTH + 10, HEIGHT + 45);
	marks(r, to);
	curve(r, to);
	(void)fprintf(to,
		"<path fill=\"none\" stroke=\"#000\" d=\"M%d 20V%dH%d\"/>"
		"<text x=\"%d\" y=\"24\" text-anchor=\"end\">%" PRIu64
		"</text><text x=\"%d\" y=\"%d\" text-anchor=\"end\">0</text>"
		"<text x=\"%d\" y=\"%d\">%s</text><text x=\"%d\" y=\"%d\" text-anchor=\"middle\">%s</text>"
		"<text x=\"%d\" y=\"%d\" text-anchor=\"end\">%s</text></svg>\n"
		"<p>Red: most captures in the clear at one moment. Grey: the agent was not running. Blue: "
		"another program opened a capture, or tried to.</p>\n",
		LEFT, HEIGHT + 20, LEFT + WIDTH, LEFT - 6, r->peak, LEFT - 6, HEIGHT + 20, LEFT,
		HEIGHT + 36, from, LEFT + WIDTH / 2, HEIGHT + 36, mid, LEFT + WIDTH, HEIGHT + 36,
		until);
}

/* ---- notes, list, proof */

static int notes(struct pager *p, struct cede_error *reterr) {
	char from[CLOCK_TEXT_SIZE], until[CLOCK_TEXT_SIZE];

	(void)fputs("<h2>What can't be excluded, and what was seen</h2>\n", p->o->to);
	if (p->r->note_count == 0)
		(void)fputs(
			"<p>The agent and its guard watched all the time, and nothing was seen.</p>\n",
			p->o->to);
	else
		(void)fputs("<table><tr><th>What</th><th>From (UTC)</th><th>To</th><th></th></tr>\n",
			p->o->to);
	for (size_t i = 0; i < p->r->note_count; i++) {
		const struct report_note *n = &p->r->notes[i];
		minute_text(n->from_ns, from);
		minute_text(n->to_ns, until);
		(void)fprintf(p->o->to, "<tr><td>%s</td><td>%s</td><td>%s</td><td>",
			report_note_name(n->kind), from, n->to_ns == n->from_ns ? "" : until);
		CEDE_TRY(put(p, slice_str(n->text), reterr));
		(void)fputs("</td></tr>\n", p->o->to);
	}
	if (p->r->note_count > 0)
		(void)fputs("</table>\n", p->o->to);
	if (p->r->notes_left_out > 0)
		(void)fprintf(p->o->to, "<p>%" PRIu64 " more are in the ledger.</p>\n",
			p->r->notes_left_out);
	return CEDE_OK;
}

static int list_line(void *ctx, const struct exposure_item *item, struct cede_error *reterr) {
	struct pager *p = ctx;
	char id[ID_TEXT_SIZE], from[CLOCK_TEXT_SIZE], until[CLOCK_TEXT_SIZE];

	if (++p->listed > PAGE_LIST_MOST)
		return CEDE_OK;
	id_print(&item->id, id);
	if (item->form == EXPOSURE_REFUSED)
		(void)snprintf(id, sizeof id, "-");
	minute_text(item->from_ns, from);
	minute_text(item->to_ns, until);
	(void)fprintf(p->o->to, "<tr><td><code>%s</code></td><td>%s</td><td>", id,
		print_form(item->form));
	CEDE_TRY(put(p, item->source, reterr));
	if (p->o->names) {
		escape_word(item->path, p->path, sizeof p->path);
		(void)fputs("/", p->o->to);
		CEDE_TRY(put(p, slice_str(p->path), reterr));
	}
	(void)fprintf(p->o->to, "</td><td>%s</td><td>%s</td><td>", from, until);
	CEDE_TRY(put(p, slice_str(item->end), reterr));
	(void)fputc(' ', p->o->to);
	CEDE_TRY(put(p, item->level, reterr));
	(void)fputs("</td></tr>\n", p->o->to);
	return CEDE_OK;
}

static int list(struct pager *p, struct ledger *ledger, const char *csv, struct cede_error *reterr) {
	(void)fputs("<h2>The captures</h2><table class=\"list\"><tr><th>Id</th><th>Form</th><th>Source"
		    "</th><th>From (UTC)</th><th>To</th><th>End</th></tr>\n",
		p->o->to);
	CEDE_TRY(report_list(ledger, p->r, p->o->source, list_line, p, reterr));
	(void)fputs("</table>\n", p->o->to);
	if (p->listed > PAGE_LIST_MOST)
		(void)fprintf(p->o->to,
			"<p><b>The first %d of %" PRIu64
			" are listed.</b> The whole list is what <code>cede exposure --csv</code> writes.</p>\n",
			PAGE_LIST_MOST, p->listed);
	(void)fprintf(p->o->to, "<p>SHA-256 of the whole list as CSV: <code>%s</code></p>\n", csv);
	return CEDE_OK;
}

static void proof(const struct pager *p) {
	char hash[65], last[CLOCK_TEXT_SIZE];

	hex_print(p->r->hash, 32, hash);
	minute_text(p->r->last_event_ns, last);
	(void)fprintf(p->o->to,
		"<h2>How to check this</h2><p>Read from the host's custody ledger as far as event %" PRIu64
		" (%s), whose hash is <code>%s</code>. That the ledger was not rewritten is shown by "
		"its signed checkpoints, which the agency keeps with each bundle:</p>\n"
		"<pre>cede ledger verify --state STATE --checkpoint CHECKPOINT-OF-THE-AGENCY</pre>\n"
		"<p>What the agency holds of these captures: <code>cede-receiver audit</code>. Each "
		"receipt verifies with openssl alone (README).</p></body></html>\n",
		p->r->sequence, last, hash);
}

static void pager_done(struct pager *p) {
	buf_done(&p->text);
}

int page_print(struct ledger *ledger, const struct report *report,
	const struct print_options *options, const uint8_t csv_sha256[32], struct cede_error *reterr) {
	CLEANUP(pager_done)
	struct pager p = {.o = options, .r = report, .text = BUF_INIT(8 * PRINT_PATH_SIZE)};
	char from[CLOCK_TEXT_SIZE], until[CLOCK_TEXT_SIZE], csv[65];

	minute_text(report->from_ns, from);
	minute_text(report->to_ns, until);
	hex_print(csv_sha256, 32, csv);
	(void)fputs(top, options->to);
	(void)fputs("<h1>Exposure report</h1><p>Host <b>", options->to);
	CEDE_TRY(put(&p, slice_str(options->host), reterr));
	(void)fprintf(options->to, "</b>, from <b>%s</b> to <b>%s</b> (UTC)", from, until);
	if (options->source.len > 0) {
		(void)fputs(", source <b>", options->to);
		CEDE_TRY(put(&p, options->source, reterr));
		(void)fputs("</b> only", options->to);
	}
	(void)fputs("</p>\n", options->to);
	figures(&p);
	picture(&p);
	CEDE_TRY(notes(&p, reterr));
	CEDE_TRY(groups(&p, reterr));
	CEDE_TRY(list(&p, ledger, csv, reterr));
	proof(&p);
	return fflush(options->to) == 0 && ferror(options->to) == 0
		? CEDE_OK
		: CEDE_FAIL_SYS(reterr, "write the page");
}
