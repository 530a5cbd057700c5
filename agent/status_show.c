/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/status_show.h"

#include <stdbool.h>
#include <string.h>
#include <time.h>

#include "base/check.h"
#include "base/clock.h"

#define NAME_WIDTH  20
#define LABEL_WIDTH 14
#define LINE_WIDTH  80

#define MINUTE INT64_C(60)
#define HOUR   (60 * MINUTE)
#define DAY    (24 * HOUR)

/* ---- words */

struct word {
	char text[40];
};

/* The two largest units: "3 d 4 h", "12 min", "42 s". */
static struct word duration(int64_t s) {
	struct word w;
	long long n = (long long)(s < 0 ? -s : s);

	if (n >= 100 * DAY)
		(void)snprintf(w.text, sizeof w.text, "%lld d", n / DAY);
	else if (n >= DAY)
		(void)snprintf(w.text, sizeof w.text, "%lld d %lld h", n / DAY, n % DAY / HOUR);
	else if (n >= HOUR)
		(void)snprintf(w.text, sizeof w.text, "%lld h %lld min", n / HOUR, n % HOUR / MINUTE);
	else if (n >= 10 * MINUTE)
		(void)snprintf(w.text, sizeof w.text, "%lld min", n / MINUTE);
	else if (n >= 2 * MINUTE)
		(void)snprintf(w.text, sizeof w.text, "%lld min %lld s", n / MINUTE, n % MINUTE);
	else
		(void)snprintf(w.text, sizeof w.text, "%lld s", n);
	return w;
}

static struct word bytes(json_int_t n) {
	static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB"};
	struct word w;
	double value = (double)n;
	size_t unit = 0;

	while (value >= 1024 && unit + 1 < ARRAY_LENGTH(units)) {
		value /= 1024;
		unit++;
	}
	(void)snprintf(w.text, sizeof w.text, unit == 0 || value >= 100 ? "%.0f %s" : "%.1f %s",
		value, units[unit]);
	return w;
}

static const char *text(const json_t *o, const char *key) {
	const char *s = json_string_value(json_object_get(o, key));

	return s == NULL ? "?" : s;
}

static json_int_t number(const json_t *o, const char *key) {
	return json_integer_value(json_object_get(o, key));
}

static bool is_true(const json_t *o, const char *key) {
	return json_is_true(json_object_get(o, key));
}

/* Seconds from now until a time as clock_text() writes it; false if there is none. */
static bool seconds_until(const json_t *o, const char *key, int64_t now_ns, int64_t *ret) {
	const char *s = json_string_value(json_object_get(o, key));
	struct tm tm = {0};

	if (s == NULL || strptime(s, "%Y-%m-%dT%H:%M:%SZ", &tm) == NULL)
		return false;
	*ret = (int64_t)timegm(&tm) - now_ns / NS_PER_SECOND;
	return true;
}

/* Names of sources and destinations may be longer than their column: the end is cut. */
static void print_name(const char *name, FILE *out) {
	size_t len = strlen(name);

	if (len <= NAME_WIDTH)
		(void)fprintf(out, "%-*s", NAME_WIDTH, name);
	else
		(void)fprintf(out, "%.*s..", NAME_WIDTH - 2, name);
}

static void print_label(const char *label, FILE *out) {
	(void)fprintf(out, "%-*s", LABEL_WIDTH, label);
}

/* ---- lines; a list goes on below itself */

struct line {
	FILE *out;
	size_t used;
};

static void start_line(struct line *l, const char *label, FILE *out) {
	print_label(label, out);
	*l = (struct line){.out = out, .used = LABEL_WIDTH};
}

static void add_part(struct line *l, const char *part) {
	size_t len = strlen(part);

	if (l->used == LABEL_WIDTH) {
		(void)fputs(part, l->out);
	} else if (l->used + 2 + len >= LINE_WIDTH) {
		(void)fprintf(l->out, ",\n%*s%s", LABEL_WIDTH, "", part);
		l->used = LABEL_WIDTH;
	} else {
		(void)fprintf(l->out, ", %s", part);
		l->used += 2;
	}
	l->used += len;
}

static void end_line(struct line *l, const char *nothing) {
	(void)fprintf(l->out, "%s\n", l->used == LABEL_WIDTH ? nothing : "");
}

static void add_counts(struct line *l, const json_t *counts) {
	const char *key;
	json_t *value;
	char part[80];
	json_t *all = (json_t *)(uintptr_t)counts; /* json_object_foreach() takes no const */

	json_object_foreach(all, key, value) {
		if (json_integer_value(value) == 0)
			continue;
		(void)snprintf(
			part, sizeof part, "%lld %.50s", (long long)json_integer_value(value), key);
		add_part(l, part);
	}
}

/* ---- parts */

static void show_agent(const json_t *all, int64_t now_ns, FILE *out) {
	const json_t *agent = json_object_get(all, "agent");
	const json_t *unmet = json_object_get(agent, "unmet");
	struct line l;
	int64_t s;
	size_t i;
	json_t *name;
	char part[80];
	bool is_unwritten = false;

	start_line(&l, "agent", out);
	if (!is_true(agent, "running")) {
		add_part(&l, "NOT RUNNING: this is what its ledger says");
		if (seconds_until(all, "last_event", now_ns, &s))
			(void)fprintf(
				out, "\n%*slast event %s ago", LABEL_WIDTH, "", duration(s).text);
		end_line(&l, "");
		return;
	}
	if (!is_true(agent, "answers")) {
		add_part(&l, "DOES NOT ANSWER: this is what its ledger says");
		end_line(&l, "");
		return;
	}
	add_part(&l, text(agent, "host")); /* 64 letters at most */
	if (seconds_until(agent, "started", now_ns, &s)) {
		(void)snprintf(part, sizeof part, "running for %s", duration(s).text);
		add_part(&l, part);
	}
	(void)snprintf(part, sizeof part, "version %.40s", text(agent, "version"));
	add_part(&l, part);
	end_line(&l, "");
	start_line(&l, "ready", out);
	if (is_true(agent, "ready"))
		add_part(&l, "yes");
	else
		(void)fputs("NO: ", out);
	json_array_foreach(unmet, i, name) {
		add_part(&l, json_string_value(name));
		is_unwritten = is_unwritten || strcmp(json_string_value(name), "ledger") == 0;
	}
	end_line(&l, "");
	if (is_unwritten)
		(void)fprintf(out, "%*sFILES THAT CAME SINCE THE LEDGER FAILS ARE NOT COUNTED\n",
			LABEL_WIDTH, "");
}

static void show_policy(const json_t *all, int64_t now_ns, FILE *out) {
	const json_t *policy = json_object_get(all, "policy");
	char part[120];
	struct line l;
	int64_t s;

	start_line(&l, "policy", out);
	if (json_is_object(policy)) {
		(void)snprintf(part, sizeof part, "%.40s, serial %lld, %s", text(policy, "id"),
			(long long)number(policy, "serial"),
			is_true(policy, "signed") ? "signed" : "NOT SIGNED");
		add_part(&l, part);
		if (seconds_until(policy, "expires", now_ns, &s)) {
			(void)snprintf(part, sizeof part, s > 0 ? "ends in %s" : "ENDED %s AGO",
				duration(s).text);
			add_part(&l, part);
		}
		if (is_true(policy, "refused"))
			add_part(&l, "A NEWER ONE WAS REFUSED");
	}
	end_line(&l, "none was ever in force");
}

static void show_destination(const json_t *d, int64_t now_ns, FILE *out) {
	json_int_t open = number(d, "bundles_open");
	char part[120];
	struct line l;
	int64_t s;

	start_line(&l, "link", out);
	(void)snprintf(part, sizeof part, "%.40s%s", text(d, "name"),
		json_object_get(d, "up") == NULL ? ""
			: is_true(d, "up")       ? " up"
						 : " DOWN");
	add_part(&l, part);
	if (seconds_until(d, "last_receipt", now_ns, &s))
		(void)snprintf(part, sizeof part, "last receipt %s ago", duration(s).text);
	else
		(void)snprintf(part, sizeof part, "no receipt yet");
	add_part(&l, part);
	if (open > 0) {
		(void)snprintf(part, sizeof part, "%lld bundle%s (%s) without one", (long long)open,
			open == 1 ? "" : "s", bytes(number(d, "bundles_open_bytes")).text);
		add_part(&l, part);
	}
	end_line(&l, "");
}

static void show_certificates(const json_t *all, int64_t now_ns, FILE *out) {
	const json_t *list = json_object_get(all, "certificates");
	const char *between = "";
	char part[120];
	struct line l;
	size_t i;
	json_t *c;
	int64_t s;

	if (list == NULL)
		return;
	start_line(&l, "certificates", out);
	json_array_foreach(list, i, c) {
		const char *of = json_string_value(json_object_get(c, "destination"));
		between = of == NULL || of[0] == 0 ? "" : " of ";
		if (!seconds_until(c, "expires", now_ns, &s))
			continue;
		(void)snprintf(part, sizeof part,
			s > 0 ? "%s%s%.30s ends in %s" : "%s%s%.30s ENDED %s AGO", text(c, "role"),
			between, of == NULL ? "" : of, duration(s).text);
		add_part(&l, part);
	}
	end_line(&l, "");
}

static void show_rest(const json_t *all, FILE *out) {
	const json_t *spool = json_object_get(all, "spool");
	struct line l;

	if (spool != NULL) {
		print_label("spool", out);
		(void)fprintf(out, "%s of %s%s\n", bytes(number(spool, "bytes")).text,
			bytes(number(spool, "limit")).text, is_true(spool, "full") ? ": FULL" : "");
	}
	start_line(&l, "violations", out);
	add_counts(&l, json_object_get(all, "violations_24h"));
	end_line(&l, "none within 24 hours");
}

static void show_source(const json_t *s, FILE *out) {
	const json_t *most = json_object_get(s, "max_age_seconds");
	bool any = number(s, "oldest_age_seconds") > 0 || number(s, "plaintext_files") > 0;

	print_name(text(s, "name"), out);
	(void)fprintf(out, "%10lld %10s %13s %13s%s\n", (long long)number(s, "plaintext_files"),
		bytes(number(s, "plaintext_bytes")).text,
		any ? duration(number(s, "oldest_age_seconds")).text : "-",
		json_is_integer(most) ? duration(json_integer_value(most)).text : "?",
		is_true(s, "overdue") ? "  TOO OLD" : "");
}

/* What of a source needs more words. */
static void show_source_notes(const json_t *s, FILE *out) {
	const json_t *reported = json_object_get(s, "reported");
	struct line l;
	char label[LABEL_WIDTH];

	(void)snprintf(label, sizeof label, "%.12s", text(s, "name"));
	if (json_object_get(s, "up") != NULL && !is_true(s, "up")) {
		start_line(&l, label, out);
		add_part(&l, "ITS DIRECTORY IS NOT THERE");
		end_line(&l, "");
	}
	if (json_object_size(reported) > 0) {
		start_line(&l, label, out);
		(void)fputs("stay, reported: ", out);
		add_counts(&l, reported);
		end_line(&l, "");
	}
}

static void show_states(const json_t *s, FILE *out) {
	static const char *const live[] = {
		"settling", "ready", "bundled", "sealed", "wiping", "held", "kept"};
	const json_t *files = json_object_get(s, "files");
	char part[60], label[LABEL_WIDTH];
	struct line l;

	if (number(s, "plaintext_files") == 0)
		return;
	(void)snprintf(label, sizeof label, "%.12s", text(s, "name"));
	start_line(&l, label, out);
	for (size_t i = 0; i < ARRAY_LENGTH(live); i++) {
		json_int_t n = number(files, live[i]);
		if (n == 0)
			continue;
		(void)snprintf(part, sizeof part, "%lld %s", (long long)n, live[i]);
		add_part(&l, part);
	}
	end_line(&l, "");
}

void status_show(const json_t *all, int64_t now_ns, FILE *out) {
	const json_t *sources = json_object_get(all, "sources");
	const json_t *destinations = json_object_get(all, "destinations");
	size_t i;
	json_t *o;

	show_agent(all, now_ns, out);
	show_policy(all, now_ns, out);
	json_array_foreach(destinations, i, o) show_destination(o, now_ns, out);
	show_certificates(all, now_ns, out);
	show_rest(all, out);
	print_label("handed over", out);
	(void)fprintf(out, "%lld captures wiped, %lld events in the ledger\n",
		(long long)number(json_object_get(all, "captures"), "wiped"),
		(long long)number(all, "events"));
	(void)fprintf(out, "\n%-*s%10s %10s %13s %13s\n", NAME_WIDTH, "IN THE CLEAR", "FILES",
		"BYTES", "OLDEST", "LIMIT");
	json_array_foreach(sources, i, o) show_source(o, out);
	if (json_array_size(sources) > 0)
		(void)fputc('\n', out);
	json_array_foreach(sources, i, o) {
		show_states(o, out);
		show_source_notes(o, out);
	}
}
