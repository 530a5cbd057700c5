/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/dry_run.h"

#include <errno.h>
#include <string.h>

#include "agent/ledger/ledger.h"
#include "agent/source_places.h"
#include "agent/walk.h"
#include "agent/watch/facts.h"
#include "base/file.h"

struct visit {
	const struct dry_run *run;
	const struct policy_source *source;
	struct dry_run_totals *totals;
	const struct source_place *place; /* that is walked */
};

static void count(struct visit *v, const struct decision *d) {
	struct dry_run_totals *t = v->totals;

	t->files++;
	t->reasons[d->reason]++;
	t->findings = t->findings || reason_is_finding(d->reason);
	if (d->action == ACTION_IGNORE)
		return;
	t->overdue += d->overdue;
	if (t->oldest_source == NULL || d->born_ns < t->oldest_ns) {
		t->oldest_ns = d->born_ns;
		t->oldest_source = v->source;
	}
}

static void say_trouble(
	struct visit *v, const char *epoch, const char *path, const struct cede_error *why) {
	struct cede_error err = *why;

	if (epoch[0] != 0)
		cede_error_within(&err, "in its epoch %s", epoch);
	v->totals->troubles++;
	v->run->trouble(v->run->ctx, v->source, path, &err);
}

static int on_trouble(
	void *ctx, const char *path, const struct cede_error *why, struct cede_error *reterr) {
	struct visit *v = ctx;

	(void)reterr;
	say_trouble(v, v->place->epoch, path, why);
	return CEDE_OK;
}

static int on_file(
	void *ctx, int dirfd, const char *name, const char *path, struct cede_error *reterr) {
	struct visit *v = ctx;
	struct dry_run_file file = {.source = v->source, .epoch = v->place->epoch, .path = path};
	struct decide_known known = {0};
	struct file_identity identity;
	struct decide_facts facts;
	struct cede_error err = {0};

	if (facts_at(dirfd, name, path, v->source, v->run->now_ns, &facts, &identity, &err) < 0)
		return err.sys == ENOENT || err.sys == ENOTDIR ? CEDE_OK
							       : on_trouble(ctx, path, &err, reterr);
	if (facts.kind == FILE_KIND_DIRECTORY) /* took the place of the file this moment */
		return CEDE_OK;
	if (v->run->ledger != NULL)
		CEDE_TRY(ledger_first_seen(v->run->ledger, slice_str(v->place->ledger),
			slice_str(path), &known.first_seen_ns, reterr));
	file.size = facts.size;
	v->totals->bytes += facts.kind == FILE_KIND_REGULAR ? facts.size : 0;
	file.decision = decide(v->run->policy, v->source, &facts, &known, v->run->now_ns);
	count(v, &file.decision);
	v->run->file(v->run->ctx, &file);
	return CEDE_OK;
}

static int on_place(void *ctx, const struct source_place *place, struct cede_error *reterr) {
	const struct walk walk = {.on_file = on_file, .on_trouble = on_trouble, .ctx = ctx};
	struct visit *v = ctx;

	v->place = place;
	return walk_source(place->fd, &walk, reterr);
}

static int on_no_place(
	void *ctx, const char *epoch, const struct cede_error *why, struct cede_error *reterr) {
	(void)reterr;
	say_trouble(ctx, epoch, "", why);
	return CEDE_OK;
}

static int visit_source(const struct dry_run *run, const struct policy_source *source,
	struct dry_run_totals *totals, struct cede_error *reterr) {
	struct visit v = {.run = run, .source = source, .totals = totals};
	const struct source_places places = {.ctx = &v, .place = on_place, .trouble = on_no_place};

	return source_places(source, run->ledger, &places, reterr);
}

int dry_run(const struct dry_run *run, struct dry_run_totals *ret, struct cede_error *reterr) {
	struct dry_run_totals totals = {0};
	bool found = false;

	for (size_t i = 0; i < run->policy->source_count; i++) {
		const struct policy_source *source = &run->policy->sources[i];

		if (run->source != NULL && strcmp(run->source, source->name) != 0)
			continue;
		found = true;
		CEDE_TRY(visit_source(run, source, &totals, reterr));
	}
	if (!found)
		return CEDE_FAIL(
			reterr, CEDE_ERR_INPUT, "the policy has no source \"%s\"", run->source);
	*ret = totals;
	return CEDE_OK;
}
