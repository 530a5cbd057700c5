/* SPDX-License-Identifier: Apache-2.0 */
#include "policy/decide.h"

#include "base/check.h"

static const struct {
	enum action action;
	bool finding;
	const char *name, *text;
} reasons[REASON_COUNT] = {

#define X(id, action, finding, name, text) [REASON_##id] = {action, finding, name, text},
	DECIDE_REASONS(X)
#undef X
};

const char *reason_name(enum reason reason) {
	return reasons[reason].name;
}

const char *reason_text(enum reason reason) {
	return reasons[reason].text;
}

bool reason_is_finding(enum reason reason) {
	return reasons[reason].finding;
}

const char *action_name(enum action action) {
	static const char *const names[] = {
		"hand-over", "wait", "ignore", "hold", "refuse", "destroy"};

	return names[action];
}

static int64_t earlier(int64_t a, int64_t b) {
	return b > 0 && b < a ? b : a;
}

static int64_t later_by(int64_t t, int64_t by) {
	int64_t sum;

	return __builtin_add_overflow(t, by, &sum) ? INT64_MAX : sum;
}

int64_t last_change(int64_t mtime, int64_t ctime, int64_t now) {
	int64_t m = mtime <= now ? mtime : INT64_MIN;
	int64_t c = ctime <= now ? ctime : INT64_MIN;

	return m > c ? m : c;
}

static const struct policy_pattern *matching(
	const struct policy_pattern *list, size_t n, struct slice path) {
	for (size_t i = 0; i < n; i++)
		if (glob_match(slice_str(list[i].text), path))
			return &list[i];
	return NULL;
}

const struct policy_hold *hold_of(const struct policy *policy, struct slice source,
	struct slice path, int64_t born, int64_t now) {
	for (size_t i = 0; i < policy->hold_count; i++) {
		const struct policy_hold *h = &policy->holds[i];
		bool covers = h->source_count == 0;
		for (size_t k = 0; !covers && k < h->source_count; k++)
			covers = slice_is(source, h->sources[k]);
		if (covers && now < h->until_ns && born >= h->from_ns && born < h->to_ns &&
			(h->match_count == 0 || matching(h->match, h->match_count, path) != NULL))
			return h;
	}
	return NULL;
}

uint64_t destination_rate(const struct policy_destination *d, int64_t now) {
	int64_t minutes = now / (60 * INT64_C(1000000000));
	uint32_t day = (uint32_t)((minutes / 1440 + 3) % 7); /* 1970 began on a Thursday */
	uint32_t minute = (uint32_t)(minutes % 1440);

	for (size_t i = 0; now >= 0 && i < d->window_count; i++) {
		const struct policy_window *w = &d->windows[i];
		if ((w->days & (1U << day)) != 0 && minute >= w->from_m && minute < w->to_m)
			return w->rate;
	}
	return d->rate;
}

static void because(struct decision *d, enum reason reason) {
	d->reason = reason;
	d->action = reasons[reason].action;
}

static void wait_until(struct decision *d, enum reason reason, int64_t not_before) {
	because(d, reason);
	d->not_before_ns = not_before;
}

/* When to ask again whether a program still has a file open: no event tells that it was closed, if
 * nothing was written. */
static int64_t asked_again(const struct policy_source *source, int64_t now) {
	int64_t least = INT64_C(2000000000);

	return later_by(now, source->quiet_ns > least ? source->quiet_ns : least);
}

/* Whether a complete capture goes without the rest of its group. A member that is missing is waited
 * for until `wait` is over. So is one that is there but not complete; only that it has `quiet` to
 * become so, since both may have been written in one go. However long somebody writes in it: the
 * others wait no longer. */
static void decide_group(const struct policy_source *source, const struct decide_facts *f,
	int64_t settled, int64_t now, struct decision *d) {
	int64_t since = f->group_since_ns > 0 && f->group_since_ns <= now ? f->group_since_ns : now;
	int64_t until = later_by(since, source->group_wait_ns);
	int64_t again = INT64_MAX;

	if (f->group_there) {
		int64_t grace = later_by(settled, source->quiet_ns);
		if (grace > d->deadline_ns)
			grace = d->deadline_ns;
		if (grace > until)
			until = grace;
		again = f->group_open ? asked_again(source, now)
				      : later_by(f->group_changed_ns, source->quiet_ns);
	}
	if (until > now)
		wait_until(d, REASON_GROUP_WAITS, until < again ? until : again);
	else
		because(d, REASON_GROUP_INCOMPLETE);
}

static bool group_is_complete(
	const struct policy_source *source, const struct decide_facts *f, int64_t now) {
	return f->group_there && !f->group_open &&
		later_by(f->group_changed_ns, source->quiet_ns) <= now;
}

/* A regular file with one name that the policy wants. */
static void decide_wanted(const struct policy *policy, const struct policy_source *source,
	const struct decide_facts *f, int64_t now, struct decision *d) {
	int64_t settled = later_by(last_change(f->mtime_ns, f->ctime_ns, now), source->quiet_ns);

	if (policy->expires_ns <= now) {
		because(d, REASON_POLICY_EXPIRED);
	} else if (f->size > source->max_size) {
		because(d, REASON_TOO_LARGE);
	} else if (f->open_for_writing) {
		wait_until(d, REASON_OPEN, asked_again(source, now));
	} else if (d->overdue && source->at_max_age == AT_MAX_AGE_DESTROY && d->hold == NULL) {
		because(d, REASON_DESTROYED);
	} else if (settled > now) {
		wait_until(d, REASON_SETTLING, settled);
	} else if (source->grouped && !group_is_complete(source, f, now)) {
		decide_group(source, f, settled, now, d);
	} else if (d->hold != NULL) {
		because(d, REASON_HELD);
		d->rule = d->hold->where;
	} else {
		because(d, d->overdue ? REASON_OVERDUE : REASON_READY);
	}
}

bool still_wanted(const struct policy_source *source, struct slice path, uint64_t size) {
	return size <= source->max_size &&
		matching(source->ignore, source->ignore_count, path) == NULL &&
		matching(source->match, source->match_count, path) != NULL;
}

bool destroy_due(const struct policy *policy, const struct policy_source *source, struct slice path,
	uint64_t size, int64_t born, int64_t now) {
	return source->at_max_age == AT_MAX_AGE_DESTROY && policy->expires_ns > now &&
		later_by(born, source->max_age_ns) <= now && still_wanted(source, path, size) &&
		hold_of(policy, slice_str(source->name), path, born, now) == NULL;
}

struct decision decide(const struct policy *policy, const struct policy_source *source,
	const struct decide_facts *f, const struct decide_known *known, int64_t now) {
	const struct policy_pattern *ignore = matching(source->ignore, source->ignore_count, f->path);
	const struct policy_pattern *match = matching(source->match, source->match_count, f->path);
	struct decision d = {.rule = source->where};

	/* the earliest time known: touching a file makes it no younger */
	d.born_ns = earlier(earlier(earlier(now, f->mtime_ns), f->btime_ns), known->first_seen_ns);
	d.deadline_ns = later_by(
		d.born_ns, match != NULL ? source->max_age_ns : policy->unmatched_max_age_ns);
	d.overdue = d.deadline_ns <= now;
	if (match != NULL)
		d.hold = hold_of(policy, slice_str(source->name), f->path, d.born_ns, now);
	if (ignore != NULL) {
		d.rule = ignore->where;
		because(&d, REASON_IGNORED);
		return d;
	}
	if (match != NULL)
		d.rule = match->where;
	if (f->kind == FILE_KIND_SYMLINK)
		because(&d, REASON_SYMLINK);
	else if (f->kind != FILE_KIND_REGULAR)
		because(&d, REASON_SPECIAL);
	else if (f->links != 1)
		because(&d, REASON_HARD_LINK);
	else if (match == NULL)
		because(&d, d.overdue ? REASON_UNMATCHED_OVERDUE : REASON_UNMATCHED);
	else
		decide_wanted(policy, source, f, now, &d);
	return d;
}
