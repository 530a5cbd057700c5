/* SPDX-License-Identifier: Apache-2.0 */
#include "policy/show.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/check.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/sandbox.h"

#define DEPTH_MAX 4
#define VALUE_MAX 262144

/* One walk over the policy serves both forms. */
struct writer {
	struct buf *yaml; /* or */
	policy_key_fn *fn;
	void *ctx;
	const char *path[DEPTH_MAX];
	size_t depth;
	bool dash; /* the next line begins an entry of a list */
};

void show_duration(int64_t ns, char out[SHOW_TEXT_SIZE]) {
	static const struct {
		int64_t ns;
		const char *unit;
	} units[] = {{86400 * NS_PER_SECOND, "d"}, {3600 * NS_PER_SECOND, "h"},
		{60 * NS_PER_SECOND, "m"}, {NS_PER_SECOND, "s"}, {NS_PER_MS, "ms"}};

	size_t i = 0;

	while (i + 1 < ARRAY_LENGTH(units) && (ns % units[i].ns != 0 || ns == 0))
		i++;
	(void)snprintf(out, SHOW_TEXT_SIZE, "%" PRId64 "%s", ns / units[i].ns,
		ns == 0 ? "s" : units[i].unit);
}

void show_size(uint64_t bytes, char out[SHOW_TEXT_SIZE]) {
	static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB"};
	size_t i = 0;

	while (i + 1 < ARRAY_LENGTH(units) && bytes != 0 && bytes % 1024 == 0) {
		bytes /= 1024;
		i++;
	}
	(void)snprintf(out, SHOW_TEXT_SIZE, "%" PRIu64 "%s", bytes, units[i]);
}

void show_rate(uint64_t bytes_per_s, char out[SHOW_TEXT_SIZE]) {
	static const char *const units[] = {"bit/s", "kbit/s", "Mbit/s", "Gbit/s"};
	uint64_t bits = bytes_per_s * 8;
	size_t i = 0;

	if (bytes_per_s % 1024 == 0) {
		show_size(bytes_per_s, out);
		(void)snprintf(out + strlen(out), SHOW_TEXT_SIZE - strlen(out), "/s");
		return;
	}
	while (i + 1 < ARRAY_LENGTH(units) && bits % 1000 == 0) {
		bits /= 1000;
		i++;
	}
	(void)snprintf(out, SHOW_TEXT_SIZE, "%" PRIu64 "%s", bits, units[i]);
}

const char *wipe_require_name(enum wipe_require require) {
	static const char *const names[] = {"none", "overwritten", "watched", "crypto-erased"};

	return names[require];
}

static int indent(struct writer *w, struct cede_error *reterr) {
	size_t columns = w->depth * 2;

	if (w->dash) { /* "  - key:" */
		w->dash = false;
		CEDE_TRY(buf_addf(w->yaml, reterr, "%*s- ", (int)(columns - 2), ""));
		return CEDE_OK;
	}
	return buf_addf(w->yaml, reterr, "%*s", (int)columns, "");
}

static int put(struct writer *w, const char *key, const char *value, struct cede_error *reterr) {
	char full[512] = "";
	size_t used = 0;

	if (w->yaml != NULL) {
		CEDE_TRY(indent(w, reterr));
		return buf_addf(w->yaml, reterr, "%s: %s\n", key, value);
	}
	for (size_t i = 0; i < w->depth; i++)
		if (w->path[i][0] != 0)
			used += (size_t)snprintf(full + used, sizeof full - used, "%s.", w->path[i]);
	(void)snprintf(full + used, sizeof full - used, "%s", key);
	return w->fn(w->ctx, full, value, reterr);
}

/* The lines below stand in the map of this key (name ""): of the entry of a list, called `name`. */
static int open_map(struct writer *w, const char *key, const char *name, struct cede_error *reterr) {
	if (w->yaml != NULL && key[0] != 0) {
		CEDE_TRY(indent(w, reterr));
		CEDE_TRY(buf_addf(w->yaml, reterr, "%s:\n", key));
	}
	require(w->depth < DEPTH_MAX);
	w->path[w->depth++] = name;
	return CEDE_OK;
}

static int add_text(struct buf *b, const char *text, struct cede_error *reterr) {
	CEDE_TRY(buf_add(b, "\"", 1, reterr));
	for (const unsigned char *c = (const unsigned char *)text; *c != 0; c++)
		if (*c == '"' || *c == '\\')
			CEDE_TRY(buf_addf(b, reterr, "\\%c", *c));
		else if (*c < 0x20 || *c == 0x7f)
			CEDE_TRY(buf_addf(b, reterr, "\\x%02x", *c));
		else if (*c == 0xc2 && c[1] >= 0x80 && c[1] < 0xa0) /* U+0080 to U+009F */
			CEDE_TRY(buf_addf(b, reterr, "\\x%02x", *++c));
		else
			CEDE_TRY(buf_add(b, c, 1, reterr));
	return buf_add(b, "\"", 1, reterr);
}

static int put_text(struct writer *w, const char *key, const char *text, struct cede_error *reterr) {
	CLEANUP(buf_done) struct buf b = BUF_INIT(VALUE_MAX);
	const char *value;

	CEDE_TRY(add_text(&b, text, reterr));
	CEDE_TRY(buf_string(&b, &value, reterr));
	return put(w, key, value, reterr);
}

static int put_texts(
	struct writer *w, const char *key, char *const *list, size_t n, struct cede_error *reterr) {
	CLEANUP(buf_done) struct buf b = BUF_INIT(VALUE_MAX);
	const char *value;

	CEDE_TRY(buf_add(&b, "[", 1, reterr));
	for (size_t i = 0; i < n; i++) {
		if (i > 0)
			CEDE_TRY(buf_add(&b, ", ", 2, reterr));
		CEDE_TRY(add_text(&b, list[i], reterr));
	}
	CEDE_TRY(buf_add(&b, "]", 1, reterr));
	CEDE_TRY(buf_string(&b, &value, reterr));
	return put(w, key, value, reterr);
}

static int put_patterns(struct writer *w, const char *key, const struct policy_pattern *list,
	size_t n, struct cede_error *reterr) {
	char *texts[64 + 4]; /* what load.c allows */

	require(n <= ARRAY_LENGTH(texts));
	for (size_t i = 0; i < n; i++)
		texts[i] = list[i].text;
	return put_texts(w, key, texts, n, reterr);
}

static int put_duration(struct writer *w, const char *key, int64_t ns, struct cede_error *reterr) {
	char text[SHOW_TEXT_SIZE];

	show_duration(ns, text);
	return put(w, key, text, reterr);
}

static int put_size(struct writer *w, const char *key, uint64_t n, struct cede_error *reterr) {
	char text[SHOW_TEXT_SIZE];

	show_size(n, text);
	return put(w, key, text, reterr);
}

static int put_time(struct writer *w, const char *key, int64_t ns, struct cede_error *reterr) {
	char text[CLOCK_TEXT_SIZE];

	if (ns % NS_PER_SECOND == 0)
		clock_text(ns, text);
	else
		clock_text_ns(ns, text);
	return put(w, key, text, reterr);
}

static int add_window(struct buf *b, const struct policy_window *w, struct cede_error *reterr) {
	static const char *const names[] = {"mon", "tue", "wed", "thu", "fri", "sat", "sun"};
	char rate[SHOW_TEXT_SIZE];
	bool more = false;

	CEDE_TRY(buf_add_str(b, "{days: [", reterr));
	for (size_t i = 0; i < ARRAY_LENGTH(names); i++)
		if ((w->days & (1U << i)) != 0) {
			CEDE_TRY(buf_addf(b, reterr, "%s%s", more ? ", " : "", names[i]));
			more = true;
		}
	show_rate(w->rate, rate);
	return buf_addf(b, reterr, "], from: \"%02u:%02u\", to: \"%02u:%02u\", limit: %s}",
		w->from_m / 60, w->from_m % 60, w->to_m / 60, w->to_m % 60, rate);
}

static int put_bandwidth(
	struct writer *w, const struct policy_destination *d, struct cede_error *reterr) {
	CLEANUP(buf_done) struct buf b = BUF_INIT(VALUE_MAX);
	char rate[SHOW_TEXT_SIZE];
	const char *value;

	if (d->rate == 0 && d->window_count == 0)
		return CEDE_OK;
	CEDE_TRY(open_map(w, "bandwidth", "bandwidth", reterr));
	show_rate(d->rate, rate);
	if (d->rate != 0)
		CEDE_TRY(put(w, "limit", rate, reterr));
	CEDE_TRY(buf_add_str(&b, "[", reterr));
	for (size_t i = 0; i < d->window_count; i++) {
		if (i > 0)
			CEDE_TRY(buf_add_str(&b, ", ", reterr));
		CEDE_TRY(add_window(&b, &d->windows[i], reterr));
	}
	CEDE_TRY(buf_add_str(&b, "]", reterr));
	CEDE_TRY(buf_string(&b, &value, reterr));
	if (d->window_count > 0)
		CEDE_TRY(put(w, "windows", value, reterr));
	w->depth--;
	return CEDE_OK;
}

static int show_destination(
	struct writer *w, const struct policy_destination *d, struct cede_error *reterr) {
	char texts[64][ADDRESS_TEXT_SIZE];
	char *list[64];

	CEDE_TRY(open_map(w, d->name, d->name, reterr));
	CEDE_TRY(put_text(w, "url", d->url, reterr));
	CEDE_TRY(put_text(w, "ca", d->ca, reterr));
	if (d->pin_count > 0)
		CEDE_TRY(put_texts(w, "pins", d->pins, d->pin_count, reterr));
	require(d->address_count <= ARRAY_LENGTH(list));
	for (size_t i = 0; i < d->address_count; i++) {
		address_prefix_print(&d->addresses[i], texts[i]);
		list[i] = texts[i];
	}
	if (d->address_count > 0)
		CEDE_TRY(put_texts(w, "addresses", list, d->address_count, reterr));
	CEDE_TRY(put_texts(w, "seal_to", d->seal_to, d->seal_to_count, reterr));
	CEDE_TRY(put_texts(w, "receipts", d->receipts, d->receipt_count, reterr));
	CEDE_TRY(put_size(w, "bundle_size", d->bundle_size, reterr));
	CEDE_TRY(put_bandwidth(w, d, reterr));
	w->depth--;
	return CEDE_OK;
}

static int show_source(struct writer *w, const struct policy *policy, const struct policy_source *s,
	struct cede_error *reterr) {
	static const char *const at_max_age[] = {"hold", "seal", "destroy"};
	static const char *const verify[] = {"none", "sample", "all"};

	CEDE_TRY(open_map(w, "", s->name, reterr));
	w->dash = true;
	CEDE_TRY(put_text(w, "name", s->name, reterr));
	CEDE_TRY(put_text(w, "path", s->path, reterr));
	CEDE_TRY(put_patterns(w, "match", s->match, s->match_count, reterr));
	CEDE_TRY(put_patterns(w, "ignore", s->ignore, s->ignore_count, reterr));
	CEDE_TRY(put_text(w, "destination", policy->destinations[s->destination].name, reterr));
	CEDE_TRY(put_duration(w, "quiet", s->quiet_ns, reterr));
	if (s->grouped) {
		CEDE_TRY(open_map(w, "group", "group", reterr));
		CEDE_TRY(put(w, "by", "stem", reterr));
		CEDE_TRY(put_texts(w, "require", s->group_require, s->group_require_count, reterr));
		CEDE_TRY(put_duration(w, "wait", s->group_wait_ns, reterr));
		w->depth--;
	}
	CEDE_TRY(put_duration(w, "max_age", s->max_age_ns, reterr));
	CEDE_TRY(put(w, "at_max_age", at_max_age[s->at_max_age], reterr));
	CEDE_TRY(put_size(w, "max_size", s->max_size, reterr));
	CEDE_TRY(open_map(w, "wipe", "wipe", reterr));
	CEDE_TRY(put(w, "after", s->wipe_after_seal ? "seal" : "receipt", reterr));
	CEDE_TRY(put(w, "method", "overwrite", reterr));
	CEDE_TRY(put(w, "require", wipe_require_name(s->wipe_require), reterr));
	CEDE_TRY(put(w, "below_requirement",
		s->wipe_keep_below ? "keep-and-report" : "wipe-and-report", reterr));
	CEDE_TRY(put(w, "verify", verify[s->wipe_verify], reterr));
	if (s->wipe_scrub_ns == 0)
		CEDE_TRY(put(w, "scrub_within", "never", reterr));
	else
		CEDE_TRY(put_duration(w, "scrub_within", s->wipe_scrub_ns, reterr));
	w->depth--;
	if (s->vault_epoch_ns > 0) {
		CEDE_TRY(open_map(w, "vault", "vault", reterr));
		CEDE_TRY(put_duration(w, "epoch", s->vault_epoch_ns, reterr));
		CEDE_TRY(put(w, "keys", s->vault_keys_in_memory ? "memory" : "wrapped", reterr));
		CEDE_TRY(put(w, "leftovers", s->vault_erases_leftovers ? "erase" : "keep", reterr));
		w->depth--;
	}
	if (s->classification[0] != 0)
		CEDE_TRY(put_text(w, "classification", s->classification, reterr));
	w->depth--;
	return CEDE_OK;
}

static int show_hold(struct writer *w, const struct policy_hold *h, struct cede_error *reterr) {
	CEDE_TRY(open_map(w, "", h->id, reterr));
	w->dash = true;
	CEDE_TRY(put_text(w, "id", h->id, reterr));
	if (h->source_count > 0)
		CEDE_TRY(put_texts(w, "sources", h->sources, h->source_count, reterr));
	if (h->match_count > 0)
		CEDE_TRY(put_patterns(w, "match", h->match, h->match_count, reterr));
	if (h->from_ns != INT64_MIN)
		CEDE_TRY(put_time(w, "from", h->from_ns, reterr));
	if (h->to_ns != INT64_MAX)
		CEDE_TRY(put_time(w, "to", h->to_ns, reterr));
	CEDE_TRY(put_time(w, "until", h->until_ns, reterr));
	w->depth--;
	return CEDE_OK;
}

static int show_guard(struct writer *w, const struct policy_guard *g, struct cede_error *reterr) {
	static const char *const modes[] = {"off", "report", "enforce"};
	char name[300];

	if (g->mode == GUARD_OFF)
		return CEDE_OK;
	CEDE_TRY(open_map(w, "guard", "guard", reterr));
	CEDE_TRY(put(w, "mode", modes[g->mode], reterr));
	if (g->allow_count > 0)
		CEDE_TRY(open_map(w, "allow", "allow", reterr));
	for (size_t i = 0; i < g->allow_count; i++) {
		(void)snprintf(name, sizeof name, "%.200s.%.64s", g->allow[i].exe, g->allow[i].user);
		CEDE_TRY(open_map(w, "", name, reterr));
		w->dash = true;
		CEDE_TRY(put_text(w, "exe", g->allow[i].exe, reterr));
		CEDE_TRY(put_text(w, "user", g->allow[i].user, reterr));
		w->depth--;
	}
	w->depth -= g->allow_count > 0 ? 2 : 1;
	return CEDE_OK;
}

static int show_sandbox(struct writer *w, const struct policy *p, struct cede_error *reterr) {
	char *names[SANDBOX_LAYER_COUNT];
	size_t n = 0;

	for (size_t i = 0; i < ARRAY_LENGTH(names); i++)
		if ((p->sandbox_require & 1U << i) != 0) {
			const char *name = sandbox_layer_name((enum sandbox_layer)i);
			memcpy(&names[n++], &name, sizeof name);
		}
	if (n == 0)
		return CEDE_OK;
	CEDE_TRY(open_map(w, "sandbox", "sandbox", reterr));
	CEDE_TRY(put_texts(w, "require", names, n, reterr));
	w->depth--;
	return CEDE_OK;
}

static int show_all(struct writer *w, const struct policy *p, struct cede_error *reterr) {
	char serial[SHOW_TEXT_SIZE];

	(void)snprintf(serial, sizeof serial, "%" PRIu64, p->serial);
	CEDE_TRY(put(w, "version", "1", reterr));
	CEDE_TRY(put_text(w, "id", p->id, reterr));
	CEDE_TRY(put(w, "serial", serial, reterr));
	CEDE_TRY(put_time(w, "expires", p->expires_ns, reterr));
	CEDE_TRY(open_map(w, "destinations", "destinations", reterr));
	for (size_t i = 0; i < p->destination_count; i++)
		CEDE_TRY(show_destination(w, &p->destinations[i], reterr));
	w->depth--;
	CEDE_TRY(open_map(w, "sources", "sources", reterr));
	for (size_t i = 0; i < p->source_count; i++)
		CEDE_TRY(show_source(w, p, &p->sources[i], reterr));
	w->depth--;
	CEDE_TRY(open_map(w, "unmatched", "unmatched", reterr));
	CEDE_TRY(put_duration(w, "max_age", p->unmatched_max_age_ns, reterr));
	CEDE_TRY(put(w, "at_max_age", "hold", reterr));
	w->depth--;
	if (p->hold_count == 0 && w->yaml != NULL)
		CEDE_TRY(put(w, "holds", "[]", reterr));
	if (p->hold_count > 0) {
		CEDE_TRY(open_map(w, "holds", "holds", reterr));
		for (size_t i = 0; i < p->hold_count; i++)
			CEDE_TRY(show_hold(w, &p->holds[i], reterr));
		w->depth--;
	}
	CEDE_TRY(show_guard(w, &p->guard, reterr));
	return show_sandbox(w, p, reterr);
}

int policy_show(const struct policy *policy, struct buf *out, struct cede_error *reterr) {
	struct writer w = {.yaml = out};

	return show_all(&w, policy, reterr);
}

int policy_keys(const struct policy *policy, policy_key_fn *fn, void *ctx, struct cede_error *reterr) {
	struct writer w = {.fn = fn, .ctx = ctx};

	return show_all(&w, policy, reterr);
}
