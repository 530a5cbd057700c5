/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/dry_run.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>

#include "agent/ledger/ledger.h"
#include "agent/vault/fscrypt.h"
#include "agent/walk.h"
#include "agent/watch/facts.h"
#include "base/cleanup.h"
#include "base/file.h"

struct visit {
	const struct dry_run *run;
	const struct policy_source *source;
	struct dry_run_totals *totals;
	char key[EPOCH_SOURCE_SIZE]; /* of the source in the ledger */
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

static int on_trouble(
	void *ctx, const char *path, const struct cede_error *why, struct cede_error *reterr) {
	struct visit *v = ctx;

	(void)reterr;
	v->totals->troubles++;
	v->run->trouble(v->run->ctx, v->source, path, why);
	return CEDE_OK;
}

static int on_file(
	void *ctx, int dirfd, const char *name, const char *path, struct cede_error *reterr) {
	struct visit *v = ctx;
	struct dry_run_file file = {.source = v->source, .path = path};
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
		CEDE_TRY(ledger_first_seen(v->run->ledger, slice_str(v->key), slice_str(path),
			&known.first_seen_ns, reterr));
	file.size = facts.size;
	v->totals->bytes += facts.kind == FILE_KIND_REGULAR ? facts.size : 0;
	file.decision = decide(v->run->policy, v->source, &facts, &known, v->run->now_ns);
	count(v, &file.decision);
	v->run->file(v->run->ctx, &file);
	return CEDE_OK;
}

void dry_run_ledger_source(
	int source_fd, const struct policy_source *source, char out[EPOCH_SOURCE_SIZE]) {
	struct fscrypt_id id;
	bool encrypted = false;

	if (source->vault_epoch_ns > 0 && fscrypt_of(source_fd, &id, &encrypted, NULL) == CEDE_OK &&
		encrypted)
		epoch_source(source->name, id.bytes, out);
	else
		(void)snprintf(out, EPOCH_SOURCE_SIZE, "%s", source->name);
}

static int visit_source(const struct dry_run *run, const struct policy_source *source,
	struct dry_run_totals *totals, struct cede_error *reterr) {
	CLEANUP(fd_closep) int fd = -1;
	struct visit v = {.run = run, .source = source, .totals = totals};
	struct walk walk = {.on_file = on_file, .on_trouble = on_trouble, .ctx = &v};
	struct cede_error err;

	if (file_open_dir(AT_FDCWD, source->path, &fd, &err) < 0)
		return on_trouble(&v, "", &err, reterr);
	dry_run_ledger_source(fd, source, v.key);
	return walk_source(fd, &walk, reterr);
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
