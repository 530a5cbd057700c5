/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/core/figures.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent/core/epochs.h"
#include "agent/core/flow_internal.h"
#include "agent/ledger/epoch.h"
#include "base/check.h"
#include "base/clock.h"

/* What was incomplete at the last scan and younger than this may be gone since: it does not count
 * for the age of the oldest, the ledger has it in a moment. */
#define INCOMPLETE_COUNTS_NS (60 * NS_PER_SECOND)

static const char *const violation_names[VIOLATION_COUNT] = {
#define X(id, name) [VIOLATION_##id] = name,
	VIOLATIONS(X)
#undef X
};

static const char *const push_failure_names[PUSH_FAILURE_COUNT] = {
#define X(id, name) [PUSH_FAILURE_##id] = name,
	PUSH_FAILURES(X)
#undef X
};

const char *violation_name(enum violation v) {
	return violation_names[v];
}

const char *push_failure_name(enum push_failure f) {
	return push_failure_names[f];
}

enum push_failure push_failure_of(const char *kind) {
	if (strncmp(kind, "http-4", 6) == 0)
		return PUSH_FAILURE_REFUSED;
	if (strncmp(kind, "http-5", 6) == 0)
		return PUSH_FAILURE_SERVER;
	for (int i = 0; i < PUSH_FAILURE_COUNT; i++)
		if (strcmp(kind, push_failure_names[i]) == 0)
			return (enum push_failure)i;
	return PUSH_FAILURE_OTHER;
}

int64_t figures_oldest_ns(const struct source_figures *s) {
	return s->oldest_other_ns < s->tally.oldest_born_ns ? s->oldest_other_ns
							    : s->tally.oldest_born_ns;
}

/* ---- what a whole scan finds beside what goes into the ledger */

/* Refused although the policy wants it: it is a capture in the clear like any other. */
static bool is_wanted(const struct policy_source *source, const struct finding *f) {
	enum reason reason = f->decision.reason;

	return reason == REASON_TOO_LARGE || reason == REASON_POLICY_EXPIRED ||
		(reason == REASON_HARD_LINK && still_wanted(source, slice_str(f->path), 0));
}

/* What is there, or below it, is not known. */
static bool is_unseen(enum reason reason) {
	return reason == REASON_MOUNT_POINT || reason == REASON_PATH_TOO_LONG ||
		reason == REASON_UNREADABLE;
}

void figures_found(struct source_figures *s, const struct policy_source *source,
	const struct finding *f, int64_t now) {
	const struct decision *d = &f->decision;
	bool regular = f->facts.kind == FILE_KIND_REGULAR;
	bool counts = false;

	if (d->action == ACTION_HOLD || d->action == ACTION_REFUSE) {
		bool wanted = regular && is_wanted(source, f);
		s->stay[d->reason]++;
		s->left[d->reason] += wanted || is_unseen(d->reason);
		s->stay_bytes += regular ? f->identity.size : 0;
		counts = wanted && d->hold == NULL;
	} else if (d->action == ACTION_WAIT && d->born_ns > 0) { /* 0: nothing is known of it yet */
		s->incomplete++;
		s->incomplete_bytes += f->identity.size;
		counts = now - d->born_ns >= INCOMPLETE_COUNTS_NS && d->hold == NULL;
	}
	if (counts && d->born_ns > 0 && d->born_ns < s->oldest_other_ns)
		s->oldest_other_ns = d->born_ns;
}

void figures_scan_begins(struct source_figures *s) {
	memset(s->stay, 0, sizeof s->stay);
	memset(s->left, 0, sizeof s->left);
	s->stay_bytes = s->incomplete = s->incomplete_bytes = 0;
	s->oldest_other_ns = INT64_MAX;
}

void figures_scan_ended(struct source_figures *s, const struct source_figures *found, int64_t now) {
	memcpy(s->stay, found->stay, sizeof s->stay);
	memcpy(s->left, found->left, sizeof s->left);
	s->stay_bytes = found->stay_bytes;
	s->incomplete = found->incomplete;
	s->incomplete_bytes = found->incomplete_bytes;
	s->oldest_other_ns = found->oldest_other_ns;
	s->scanned_ns = now;
}

/* ---- what the ledger has of each place */

struct look_place {
	char key[EPOCH_SOURCE_SIZE]; /* copied: a vault's places come and go; "": not in use */
	struct ledger_tally tally;
};

struct look {
	size_t count;
	uint64_t events;
	int64_t checkpoint_ns, acknowledged_ns;
	struct look_place places[];
};

static int look_work(struct ledger *ledger, void *ctx, struct cede_error *reterr) {
	struct look *l = ctx;
	uint8_t hash[32];

	ledger_head(ledger, &l->events, hash);
	CEDE_TRY(ledger_signed_ns(ledger, &l->checkpoint_ns, &l->acknowledged_ns, reterr));
	for (size_t i = 0; i < l->count; i++)
		if (l->places[i].key[0] != 0)
			CEDE_TRY(ledger_tally(
				ledger, slice_str(l->places[i].key), &l->places[i].tally, reterr));
	return CEDE_OK;
}

static void look_done(struct flow *flow, void *ctx) {
	const struct look *l = ctx;

	flow->looking_up = false;
	flow->figures.events = l->events;
	flow->figures.checkpoint_ns = l->checkpoint_ns;
	flow->figures.acknowledged_ns = l->acknowledged_ns;
	for (size_t i = 0; i < l->count; i++)
		if (l->places[i].key[0] != 0 && strcmp(l->places[i].key, flow->sources[i].key) == 0)
			flow->sources[i].figures.tally = l->places[i].tally;
}

void figures_tick(struct flow *flow) {
	if (flow->looking_up || flow->draining)
		return; /* a ledger that can't be written: the last figures stay, their ages grow */
	size_t n = flow->policy->source_count;
	struct look *l = calloc(1, sizeof *l + n * sizeof l->places[0]);
	if (l == NULL)
		return; /* the next second */
	l->count = n;
	/* also of a place that is not in use: captures may wait under its name */
	for (size_t i = 0; i < n; i++)
		(void)snprintf(l->places[i].key, sizeof l->places[i].key, "%s", flow->sources[i].key);
	flow->looking_up = true;
	flow_record(flow, look_work, look_done, free, l);
}

/* ---- places of one source together */

void figures_reset(struct source_figures *s) {
	*s = (struct source_figures){
		.tally = {.oldest_born_ns = INT64_MAX}, .oldest_other_ns = INT64_MAX};
}

void figures_add_since(struct source_figures *to, const struct source_figures *from) {
	to->seen += from->seen;
	to->wiped += from->wiped;
	histogram_merge(&to->exposure, &from->exposure);
}

static int64_t least(int64_t a, int64_t b) {
	return a < b ? a : b;
}

static void add_place(struct source_figures *to, const struct source_figures *from) {
	for (size_t i = 0; i < CAPTURE_STATE_COUNT; i++) {
		to->tally.files[i] += from->tally.files[i];
		to->tally.bytes[i] += from->tally.bytes[i];
	}
	to->tally.oldest_born_ns = least(to->tally.oldest_born_ns, from->tally.oldest_born_ns);
	for (size_t i = 0; i < REASON_COUNT; i++)
		to->stay[i] += from->stay[i];
	to->stay_bytes += from->stay_bytes;
	to->incomplete += from->incomplete;
	to->incomplete_bytes += from->incomplete_bytes;
	to->oldest_other_ns = least(to->oldest_other_ns, from->oldest_other_ns);
	if (from->scanned_ns > to->scanned_ns)
		to->scanned_ns = from->scanned_ns;
	figures_add_since(to, from);
}

/* ---- for others */

static void destination_figures(const struct flow *flow, size_t i, struct destination_figures *ret) {
	*ret = flow->destinations[i].figures;
	ret->up = flow->link != NULL && link_up(flow->link, i);
	ret->open = ret->open_bytes = 0;
	for (const struct parcel *p = flow->destinations[i].parcels; p != NULL; p = p->next) {
		ret->open++;
		ret->open_bytes += p->size;
	}
}

void flow_figures(const struct flow *flow, struct figures *ret) {
	ret->flow = flow->figures;
	ret->flow.settling = settle_count(flow->settle);
	ret->flow.wipes_waiting = flow->disposal_count;
	ret->flow.spool_bytes = flow->spool_bytes;
	ret->flow.spool_limit = flow->setup.spool_limit;
	ret->flow.spool_full = flow->spool_full;
	ret->flow.ledger_failing = flow->figures.unwritten_ns != 0 || flow->failed;
	ret->flow.recovered = flow->running;
	ret->flow.expired = flow_expired(flow);
	epochs_figures(flow, &ret->flow);
	for (size_t i = 0; i < flow->source_count; i++) {
		ret->sources[i] = flow->sources[i].figures;
		ret->sources[i].missing = flow->sources[i].missing || flow->sources[i].elsewhere;
		ret->sources[i].unwatched = flow->sources[i].unwatched;
	}
	for (size_t i = flow->source_count; i < flow->policy->source_count; i++) {
		const struct flow_source *place = &flow->sources[i];
		if (place->epoch == NULL)
			continue;
		struct source_figures *source = &ret->sources[place->of];
		add_place(source, &place->figures);
		source->missing = source->missing || place->missing || place->elsewhere;
		source->unwatched = source->unwatched || place->unwatched;
	}
	for (size_t i = 0; i < flow->policy->destination_count; i++)
		destination_figures(flow, i, &ret->destinations[i]);
}

void figures_inherit(struct flow *flow, const struct flow *from) {
	size_t k;

	flow->figures = from->figures;
	for (size_t i = 0; i < from->policy->source_count; i++)
		for (k = 0; k < flow->source_count && from->policy->sources[i].name != NULL; k++)
			if (strcmp(from->policy->sources[i].name, flow->policy->sources[k].name) == 0 &&
				i < from->source_count)
				flow->sources[k].figures = from->sources[i].figures;
	for (size_t i = from->source_count; i < from->policy->source_count; i++)
		for (k = 0; k < flow->source_count && from->sources[i].epoch != NULL; k++)
			if (strcmp(from->policy->sources[i].name, flow->policy->sources[k].name) == 0)
				figures_add_since(
					&flow->sources[k].figures, &from->sources[i].figures);
	for (size_t i = 0; i < from->policy->destination_count; i++)
		if (flow_destination_named(flow, slice_str(from->policy->destinations[i].name), &k))
			flow->destinations[k].figures = from->destinations[i].figures;
}
