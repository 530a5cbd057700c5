/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent/core/epochs.h"
#include "agent/core/flow_internal.h"
#include "agent/ledger/epoch.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/log.h"
#include "policy/show.h"

/* One batch: its captures, its job, its way into the ledger. */
struct batch {
	struct flow *flow;
	struct disposal **captures; /* owned */
	struct wipe_item *items;
	size_t count;
	int result;
	struct cede_error err;
};

static void disposal_drop(struct disposal *d) {
	free(d->key);
	free(d->path);
	free(d);
}

/* What was being wiped, or read from the ledger, while the number changed. */
static void follow_remount(const struct flow *flow, struct disposal *d) {
	const struct ledger_remount *r = &flow->sources[d->source].remount;

	if (!r->happened || d->identity.dev != r->from)
		return;
	d->identity.dev = r->to;
	d->due_boot_ns = 0;
}

static void append(struct flow *flow, struct disposal *d) {
	free(CEDE_TAKE(d->key));
	follow_remount(flow, d);
	d->next = NULL;
	*flow->disposals_end = d;
	flow->disposals_end = &d->next;
	flow->disposal_count++;
	d->counted = d->tries == 0 && flow_source_there(flow, d->source);
	flow->wipes_ahead += d->counted;
}

static void take_out(struct flow *flow, struct disposal **at) {
	struct disposal *d = *at;

	*at = d->next;
	flow->disposal_count--;
	flow->wipes_ahead -= d->counted;
	disposal_drop(d);
}

/* Its place is not there: of a vault whose directories have not been found, or not in the policy. */
static void defer(struct flow *flow, struct disposal *d) {
	struct slice name = epoch_source_name(slice_str(d->key));
	bool known = false;

	for (size_t i = 0; i < flow->source_count; i++)
		known = known || slice_is(name, flow->policy->sources[i].name);
	if (known)
		log_event(LOG_LEVEL_WARNING, "wipe.deferred",
			"source=%.*s error=\"the directory of an epoch has not been found yet\" effect=\"its captures are wiped when it is\"",
			(int)name.len, (const char *)name.data);
	else
		log_event(LOG_LEVEL_ERROR, "wipe.deferred",
			"error=\"the policy no longer has the source of a capture that is to be wiped\"");
	d->next = flow->deferred;
	flow->deferred = d;
}

/* It has a place now. */
static void take_up(struct flow *flow, struct disposal *d, size_t source) {
	if (epochs_is_lost(flow, source)) {
		disposal_drop(d); /* its end is core/epochs_end.c's */
		return;
	}
	d->source = source;
	d->key_goes = epochs_has_key(flow, source);
	append(flow, d);
}

void disposal_found(struct flow *flow) {
	struct disposal **at = &flow->deferred;
	size_t source;

	while (*at != NULL) {
		struct disposal *d = *at;
		if (!flow_source_named(flow, slice_str(d->key), &source)) {
			at = &d->next;
			continue;
		}
		*at = d->next;
		take_up(flow, d, source);
	}
	disposal_run(flow);
}

void disposal_add(struct flow *flow, const struct ledger_capture *c, bool begun, bool alone) {
	struct disposal *d = calloc(1, sizeof *d);
	char *path = strndup((const char *)c->path.data, c->path.len);
	char *key = strndup((const char *)c->source.data, c->source.len);
	size_t source;

	if (d == NULL || path == NULL || key == NULL) {
		free(d);
		free(path);
		free(key);
		flow_fail(flow, "out of memory"); /* it must not stay: the next start wipes it */
		return;
	}
	*d = (struct disposal){.row = c->row,
		.bundle_row = c->bundle_row,
		.id = c->id,
		.path = path,
		.key = key,
		.identity = c->identity,
		.born_ns = c->born_ns,
		.deadline_ns = c->deadline_ns,
		.segment_size = c->segment_size,
		.begun = begun,
		.destroyed = ledger_is_destroyed(c),
		.alone = alone};
	memcpy(d->sha256, c->sha256, sizeof d->sha256);
	if (flow_source_named(flow, c->source, &source))
		take_up(flow, d, source);
	else
		defer(flow, d);
}

/* What was appended behind `last` comes before all else that waits. */
static void to_front(struct flow *flow, struct disposal **last) {
	struct disposal *first = *last;

	if (last == &flow->disposals || first == NULL)
		return;
	*flow->disposals_end = flow->disposals;
	flow->disposals_end = last;
	*last = NULL;
	flow->disposals = first;
}

/* A receipt that came between two policies: recovery reads the ledger after it was recorded, and
 * finds its captures there. Added here as well they would be wiped twice, at the same time. */
static void note_unbegun(struct flow *flow, const struct capture_list *list) {
	int64_t *rows =
		reallocarray(flow->unbegun, flow->unbegun_count + list->count + 1, sizeof *rows);

	if (rows == NULL)
		return; /* then they count as begun: looked at more closely */
	flow->unbegun = rows;
	for (size_t i = 0; i < list->count; i++)
		rows[flow->unbegun_count++] = list->items[i].row;
}

void disposal_add_all(struct flow *flow, const struct capture_list *list) {
	int64_t deadline = INT64_MAX;

	if (!flow->running) {
		note_unbegun(flow, list);
		return;
	}
	for (size_t i = 0; i < list->count; i++)
		outbox_look_for_segments(flow, &list->items[i]);
	struct disposal **last = flow->disposals_end;
	for (size_t i = 0; i < list->count; i++) {
		disposal_add(flow, &list->items[i], false, false);
		if (list->items[i].deadline_ns < deadline)
			deadline = list->items[i].deadline_ns;
	}
	if (flow->disposals != NULL && deadline < flow->disposals->deadline_ns)
		to_front(flow, last);
	disposal_run(flow);
}

static void batch_release(void *ctx) {
	struct batch *b = ctx;
	struct flow *flow = b->flow;

	for (size_t i = 0; i < b->count; i++)
		if (b->captures[i] != NULL)
			disposal_drop(b->captures[i]);
	free(b->captures);
	free(b->items);
	free(b);
	flow_settled(flow);
}

static const struct policy_source *source_of(const struct batch *b, const struct disposal *d) {
	return &b->flow->policy->sources[d->source];
}

/* Unlinked before the crash; the blocks were overwritten before that. */
static bool was_interrupted(const struct disposal *d, const struct wipe_item *item) {
	return item->outcome == WIPE_ABSENT && d->begun;
}

static bool is_below(const struct batch *b, const struct disposal *d, const struct wipe_item *item) {
	return (item->outcome == WIPE_DONE || was_interrupted(d, item)) &&
		!d->key_goes && /* the end of its epoch tells */
		item->level < wipe_required(source_of(b, d)->wipe_require);
}

/* What the policy requires and what came of it, for a wipe that is worth less. */
static void print_below(const struct batch *b, const struct disposal *d,
	const struct wipe_item *item, const char *effect, char *out, size_t size) {
	char why[WIPE_REASONS_SIZE];

	wipe_reasons_print(item->reasons, why);
	(void)snprintf(out, size,
		"source=%s reason=wipe-below-requirement require=%s effect=%s %s=%s why=%s",
		source_of(b, d)->name, wipe_require_name(source_of(b, d)->wipe_require), effect,
		item->outcome == WIPE_KEPT ? "best" : "level", wipe_level_name(item->level), why);
}

static int record_level(struct ledger *ledger, const struct batch *b, const struct disposal *d,
	const struct wipe_item *item, int64_t now, struct cede_error *reterr) {
	char why[WIPE_REASONS_SIZE], detail[700];

	wipe_reasons_print(item->reasons, why);
	CEDE_TRY(ledger_capture_wiped(
		ledger, d->row, wipe_level_name(item->level), why, now, d->alone, reterr));
	if (!is_below(b, d, item))
		return CEDE_OK;
	print_below(b, d, item, "wiped", detail, sizeof detail);
	return ledger_event(ledger, LEDGER_VIOLATION, &d->id, now, detail, reterr);
}

static int record_wiped(struct ledger *ledger, const struct batch *b, const struct disposal *d,
	const struct wipe_item *item, int64_t now, struct cede_error *reterr) {
	const char *error;
	char detail[700];

	switch (item->outcome) {
	case WIPE_DONE:
		return record_level(ledger, b, d, item, now, reterr);
	case WIPE_ABSENT:
		if (was_interrupted(d, item))
			return record_level(ledger, b, d, item, now, reterr);
		return ledger_capture_move(ledger, d->row, CAPTURE_GONE, 0, now,
			"reason=removed-by-another-program", reterr);
	case WIPE_REPLACED:
		return ledger_capture_move(ledger, d->row, CAPTURE_REPLACED, 0, now,
			"reason=changed-since-sealed", reterr);
	case WIPE_FAILED:
		if (d->failed)
			return CEDE_OK; /* said once */
		error = strerrorname_np(item->err.sys);
		(void)snprintf(detail, sizeof detail, "reason=system-error error=%s",
			error != NULL ? error : "unknown");
		return ledger_event(ledger, LEDGER_WIPE_FAILED, &d->id, now, detail, reterr);
	case WIPE_HELD:
		return ledger_capture_held(ledger, d->row, now, d->hold, reterr);
	case WIPE_KEPT:
		print_below(b, d, item, "kept", detail, sizeof detail);
		return ledger_capture_kept(ledger, d->row, now, detail, reterr);
	case WIPE_BUSY:
		break;
	}
	return CEDE_OK;
}

static int wiped_work(struct ledger *ledger, void *ctx, struct cede_error *reterr) {
	struct batch *b = ctx;
	int64_t now = clock_wall_ns();
	int64_t last = 0;

	for (size_t i = 0; i < b->count; i++)
		CEDE_TRY(record_wiped(ledger, b, b->captures[i], &b->items[i], now, reterr));
	for (size_t i = 0; i < b->count; i++) {
		bool done;
		if (b->captures[i]->bundle_row == last || b->captures[i]->bundle_row == 0)
			continue; /* captures of a bundle stand together */
		last = b->captures[i]->bundle_row;
		CEDE_TRY(ledger_bundle_done(ledger, last, now, &done, reterr));
	}
	return CEDE_OK;
}

static void try_again(struct flow *flow, struct disposal **capture) {
	struct disposal *d = CEDE_TAKE(*capture);

	d->tries++;
	d->due_boot_ns = clock_boot_ns() + WIPE_AGAIN_NS;
	append(flow, d);
}

/* What is gone from the directories, and what was emptied of it. */
static void count_names(struct flow *flow, const struct batch *b) {
	for (size_t i = 0; i < b->count; i++) {
		const struct wipe_item *item = &b->items[i];
		size_t source = b->captures[i]->source;
		if (item->outcome == WIPE_DONE && !item->key_goes) /* else they are ciphertext */
			names_removed(flow, source, 1);
	}
	for (size_t i = 0; i < b->count; i++)
		if (b->items[i].scrubbed && b->items[i].scrub_took_ns > 0)
			names_scrubbed(flow, b->captures[i]->source, b->items[i].scrub_took_ns);
}

static void count_wiped(struct flow *flow, const struct batch *b, const struct disposal *d,
	const struct wipe_item *item) {
	struct source_figures *source = &flow->sources[d->source].figures;

	source->wiped++;
	if (item->outcome == WIPE_DONE) /* else it was over before: when, nobody knows */
		histogram_add(&source->exposure, clock_wall_ns() - d->identity.ctime_ns);
	flow->figures.wipes[item->level]++;
	flow->figures.wiped_below += is_below(b, d, item);
}

static void say_kept(struct flow *flow, const struct wipe_item *item, const char *id) {
	char why[WIPE_REASONS_SIZE];

	flow->figures.kept_below++;
	wipe_reasons_print(item->reasons, why);
	log_event(LOG_LEVEL_WARNING, "wipe.kept",
		"capture=%s best=%s why=%s effect=\"not wiped: below wipe.require, and the policy says keep-and-report\"",
		id, wipe_level_name(item->level), why);
}

/* When its hold ends, or another policy comes, it is worth what it is worth now. */
static void stays(struct flow *flow, const struct disposal *d) {
	if (d->whole)
		history_goes_on(flow, d->source, d->path);
}

static void wiped_done(struct flow *flow, void *ctx) {
	struct batch *b = ctx;

	flow->wipe_jobs--;
	count_names(flow, b);
	for (size_t i = 0; i < b->count; i++) {
		const struct wipe_item *item = &b->items[i];
		struct disposal *d = b->captures[i];
		char id[ID_TEXT_SIZE];
		id_print(&d->id, id);
		switch (item->outcome) {
		case WIPE_DONE:
			count_wiped(flow, b, d, item);
			break;
		case WIPE_ABSENT:
			if (d->begun)
				count_wiped(flow, b, d, item);
			else
				flow->figures.gone++;
			break;
		case WIPE_REPLACED:
			flow->figures.replaced++;
			log_event(LOG_LEVEL_WARNING, "capture.replaced",
				"capture=%s reason=changed-since-sealed effect=\"not wiped; handed over again as a new capture\"",
				id);
			intake_look(flow, d->source, d->path, 0);
			break;
		case WIPE_FAILED:
			flow->figures.wipe_failures++;
			log_event(LOG_LEVEL_ERROR, "wipe.failed", "capture=%s error=\"%s\"", id,
				item->err.text);
			if (item->err.sys == EACCES)
				place_denied(flow, d->source);
			d->failed = true;
			d->touched = d->touched || item->touched;
			d->begun = d->begun || d->touched;
			try_again(flow, &b->captures[i]);
			break;
		case WIPE_HELD:
			flow->figures.kept++;
			stays(flow, d);
			break;
		case WIPE_KEPT:
			say_kept(flow, item, id);
			stays(flow, d);
			break;
		case WIPE_BUSY:
			try_again(flow, &b->captures[i]);
			break;
		}
	}
	outbox_give_up(flow);
	disposal_run(flow);
	epochs_look(flow);
	handover_plan(flow); /* it may have waited for this */
}

static void wipe_work(void *ctx) {
	struct batch *b = ctx;

	b->result = wipe_batch(b->items, b->count, &b->err);
	for (size_t i = 0; b->result == CEDE_OK && i < b->count; i++)
		if (was_interrupted(b->captures[i], &b->items[i])) {
			bool key_goes = b->captures[i]->key_goes;
			b->items[i].level = key_goes ? WIPE_REMOVED : WIPE_UNPROVEN;
			b->items[i].reasons =
				key_goes ? WIPE_BIT(PENDING_ERASE) : WIPE_BIT(INTERRUPTED);
		}
}

static void wipe_done(void *ctx) {
	struct batch *b = ctx;
	struct flow *flow = b->flow;

	if (b->result < 0) { /* nothing was touched */
		log_event(LOG_LEVEL_ERROR, "wipe.failed", "error=\"%s\"", b->err.text);
		for (size_t i = 0; i < b->count; i++)
			b->items[i].outcome = WIPE_BUSY;
	}
	flow_record(flow, wiped_work, wiped_done, batch_release, b);
}

static struct batch *batch_new(struct flow *flow) {
	struct batch *b = calloc(1, sizeof *b);

	if (b == NULL)
		return NULL;
	b->flow = flow;
	b->captures = calloc(WIPE_BATCH, sizeof(struct disposal *));
	b->items = calloc(WIPE_BATCH, sizeof *b->items);
	if (b->captures == NULL || b->items == NULL) {
		free(b->captures);
		free(b->items);
		free(b);
		return NULL;
	}
	return b;
}

/* The hold that covers it now; the name is copied, the wipe outlives no policy but its own. */
static bool is_held(const struct flow *flow, struct disposal *d) {
	const struct policy_hold *hold =
		hold_of(flow->policy, slice_str(flow->policy->sources[d->source].name),
			slice_str(d->path), d->born_ns, clock_wall_ns());

	(void)snprintf(d->hold, sizeof d->hold, "%s", hold == NULL ? "" : hold->id);
	return hold != NULL;
}

/* Whether its whole life was seen. What a program does to it after the first look its times tell. */
static bool is_whole(struct flow *flow, struct disposal *d) {
	if (!d->asked)
		d->whole = history_end(flow, d->source, d->path, d->identity.ino);
	d->asked = true;
	return d->whole && !d->begun;
}

static struct wipe_item item_of(struct flow *flow, struct disposal *d, size_t number) {
	const struct policy_source *s = &flow->policy->sources[d->source];
	struct wipe_item item = {.source_fd = flow->sources[d->source].fd,
		.path = d->path,
		.want = d->identity,
		.segment_size = d->segment_size,
		.begun = d->begun,
		.held = is_held(flow, d),
		.key_goes = d->key_goes,
		.least = s->wipe_keep_below && !d->key_goes ? wipe_required(s->wipe_require)
							    : WIPE_REMOVED,
		.watched = is_whole(flow, d),
		.verify = s->wipe_verify == WIPE_VERIFY_SAMPLE && number % VERIFY_SAMPLE != 0
			? WIPE_VERIFY_NONE
			: s->wipe_verify,
		.scrub = s->wipe_scrub_ns != 0 && !d->key_goes};

	memcpy(item.sha256, d->sha256, sizeof d->sha256);
	return item;
}

/* The proof may have been taken out of the spool; then the agency is asked for it. */
static bool is_proven(const struct flow *flow, const struct disposal *d) {
	return d->touched || d->destroyed || !outbox_is_missing(flow, d->row, d->bundle_row);
}

/* Moves what is due from the waiting list into the batch. */
static void fill(struct flow *flow, struct batch *b) {
	struct disposal **at = &flow->disposals;
	int64_t now = clock_boot_ns();

	tree_drain(flow->tree); /* what happened to them up to now */
	while (*at != NULL && b->count < WIPE_BATCH) {
		struct disposal *d = *at;
		bool there = flow_source_there(flow, d->source) && is_proven(flow, d);
		if (d->due_boot_ns > now || !there || names_wait(flow, d->source)) {
			if (!there && d->counted) {
				d->counted = false; /* sealing does not wait for it */
				flow->wipes_ahead--;
			}
			at = &d->next;
			continue;
		}
		*at = d->next;
		flow->disposal_count--;
		flow->wipes_ahead -= d->counted;
		b->items[b->count] = item_of(flow, d, b->count);
		b->captures[b->count++] = d;
	}
	while (*at != NULL) /* to the end: where the next is appended */
		at = &(*at)->next;
	flow->disposals_end = at;
}

/* false: nothing is due, or no memory: the tick tries again. */
static bool start_batch(struct flow *flow) {
	struct batch *b = batch_new(flow);

	if (b == NULL)
		return false;
	fill(flow, b);
	if (b->count == 0) {
		batch_release(b);
		return false;
	}
	flow->wipe_jobs++;
	if (jobs_start(&flow->jobs, wipe_work, wipe_done, b, &b->err) < 0) {
		b->result = CEDE_ERR_IO;
		wipe_done(b);
	}
	return true;
}

void disposal_give_up(struct flow *flow, const struct parcel *p) {
	struct disposal **at = &flow->disposals;

	while (*at != NULL) {
		struct disposal *d = *at;
		bool in_it = d->bundle_row == p->row || d->row == p->segment_of;
		if (!in_it || d->touched || d->destroyed) {
			at = &d->next;
			continue;
		}
		take_out(flow, at);
	}
	flow->disposals_end = at;
	for (at = &flow->deferred; *at != NULL;) {
		struct disposal *d = *at;
		if ((d->bundle_row != p->row && d->row != p->segment_of) || d->destroyed) {
			at = &d->next;
			continue;
		}
		*at = d->next;
		disposal_drop(d);
	}
}

void disposal_forget(struct flow *flow, size_t source) {
	struct disposal **at = &flow->disposals;

	while (*at != NULL) {
		struct disposal *d = *at;
		if (d->source != source) {
			at = &d->next;
			continue;
		}
		take_out(flow, at);
	}
	flow->disposals_end = at;
}

static void add_untouched(const struct disposal *list, int64_t *rows, size_t *count) {
	for (const struct disposal *d = list; d != NULL; d = d->next)
		if (!d->begun)
			rows[(*count)++] = d->row;
}

int64_t *disposal_untouched(const struct flow *flow, size_t *ret_count) {
	size_t count = flow->disposal_count;

	for (const struct disposal *d = flow->deferred; d != NULL; d = d->next)
		count++;
	int64_t *rows = calloc(count + 1, sizeof *rows);
	*ret_count = 0;
	if (rows != NULL) {
		add_untouched(flow->disposals, rows, ret_count);
		add_untouched(flow->deferred, rows, ret_count);
	}
	return rows;
}

bool disposal_touched(const struct flow *flow, int64_t **ret, size_t *ret_count) {
	size_t count = 0;

	for (const struct disposal *d = flow->disposals; d != NULL; d = d->next)
		count += d->touched;
	*ret_count = 0;
	*ret = calloc(count + 1, sizeof **ret);
	for (const struct disposal *d = flow->disposals; *ret != NULL && d != NULL; d = d->next)
		if (d->touched)
			(*ret)[(*ret_count)++] = d->row;
	return *ret != NULL;
}

void disposal_run(struct flow *flow) {
	if (flow->stopping || flow->failed || flow_expired(flow) || flow->giving_up > 0)
		return;
	while (flow->disposals != NULL && flow->wipe_jobs < WIPE_JOBS && start_batch(flow))
		;
}

void disposal_free(struct flow *flow) {
	while (flow->disposals != NULL) {
		struct disposal *d = flow->disposals;
		flow->disposals = d->next;
		disposal_drop(d);
	}
	while (flow->deferred != NULL) {
		struct disposal *d = flow->deferred;
		flow->deferred = d->next;
		disposal_drop(d);
	}
}

void disposal_remounted(struct flow *flow, size_t source, const struct ledger_remount *remount) {
	flow->sources[source].remount = *remount;
	for (struct disposal *d = flow->disposals; d != NULL; d = d->next)
		follow_remount(flow, d);
	disposal_run(flow);
}

void disposal_tick(struct flow *flow) {
	disposal_run(flow);
}
