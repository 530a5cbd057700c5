/* SPDX-License-Identifier: Apache-2.0
 * Two policies: which keys differ, and which files that are here now would be decided differently.
 * The keys are few and kept; the files are not. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent/cmd_policy_internal.h"
#include "agent/dry_run.h"
#include "agent/policy_files.h"
#include "agent/source_places.h"
#include "agent/watch/facts.h"
#include "base/check.h"
#include "base/cleanup.h"
#include "policy/show.h"

/* ---- rules */

struct key {
	char *key;
	char *value;
};

struct keys {
	struct key *list;
	size_t count;
};

static void keys_done(struct keys *k) {
	for (size_t i = 0; i < k->count; i++) {
		free(k->list[i].key);
		free(k->list[i].value);
	}
	free(k->list);
	*k = (struct keys){NULL, 0};
}

static int keep_key(void *ctx, const char *key, const char *value, struct cede_error *reterr) {
	struct keys *k = ctx;
	struct key *list = reallocarray(k->list, k->count + 1, sizeof *list);

	if (list == NULL)
		return CEDE_FAIL_MEMORY(reterr);
	k->list = list;
	list[k->count] = (struct key){strdup(key), strdup(value)};
	if (list[k->count].key == NULL || list[k->count].value == NULL) {
		free(list[k->count].key);
		free(list[k->count].value);
		return CEDE_FAIL_MEMORY(reterr);
	}
	k->count++;
	return CEDE_OK;
}

static const char *value_of(const struct keys *k, const char *key) {
	for (size_t i = 0; i < k->count; i++)
		if (strcmp(k->list[i].key, key) == 0)
			return k->list[i].value;
	return NULL;
}

struct differences {
	const struct policy_words *words;
	const struct policy *old, *new;
	struct ledger *ledger;
	uint64_t rules, files, looked_at, troubles;
	bool reverse; /* the walk goes over the new policy: only what the old one does not cover counts */
	struct cede_error err;
};

static void print_rule(struct differences *d, const char *key, const char *old, const char *new) {
	d->rules++;
	if (d->words->json) {
		print_json(json_pack("{s:s, s:s, s:s, s:s?, s:s?}", "schema", "cede-policy-diff/1",
			"kind", "rule", "key", key, "old", old, "new", new));
		return;
	}
	if (old == NULL)
		(void)printf("+ %s: %s\n", key, new);
	else if (new == NULL)
		(void)printf("- %s: %s\n", key, old);
	else
		(void)printf("~ %s: %s -> %s\n", key, old, new);
}

/* One policy's side. */
struct side {
	struct differences *differences;
	const char *policy; /* its file */
	struct keys *keys, *unread;
};

static int keep_digest(void *ctx, const char *key, const char *hex, struct cede_error *reterr) {
	const struct side *side = ctx;

	return keep_key(side->keys, key, hex, reterr);
}

/* What is unknown on one side is no difference: it is said, and makes an exit status of its own. */
static int keep_unread(
	void *ctx, const char *key, const struct cede_error *why, struct cede_error *reterr) {
	const struct side *side = ctx;

	side->differences->troubles++;
	(void)fprintf(stderr, "cede policy diff: %s: %s: %s\n", side->policy, key, why->text);
	return keep_key(side->unread, key, "", reterr);
}

/* What the policy says, and the digests of the files that it names: another key behind the same
 * name is another rule. */
static int keep_all(struct side *side, const struct policy *policy, struct cede_error *reterr) {
	const struct policy_files_digests digests = {
		.ctx = side, .digest = keep_digest, .unread = keep_unread};

	CEDE_TRY(policy_keys(policy, keep_key, side->keys, reterr));
	return policy_files_digest(policy, side->policy, &digests, reterr);
}

static int diff_rules(struct differences *d, struct cede_error *reterr) {
	CLEANUP(keys_done) struct keys old = {NULL, 0};
	CLEANUP(keys_done) struct keys new = {NULL, 0};
	CLEANUP(keys_done) struct keys unread = {NULL, 0};
	struct side old_side = {d, d->words->rest[0], &old, &unread};
	struct side new_side = {d, d->words->rest[1], &new, &unread};

	CEDE_TRY(keep_all(&old_side, d->old, reterr));
	CEDE_TRY(keep_all(&new_side, d->new, reterr));
	for (size_t i = 0; i < old.count; i++) {
		const char *now = value_of(&new, old.list[i].key);
		if (value_of(&unread, old.list[i].key) != NULL)
			continue;
		if (now == NULL || strcmp(now, old.list[i].value) != 0)
			print_rule(d, old.list[i].key, old.list[i].value, now);
	}
	for (size_t i = 0; i < new.count; i++)
		if (value_of(&old, new.list[i].key) == NULL &&
			value_of(&unread, new.list[i].key) == NULL)
			print_rule(d, new.list[i].key, NULL, new.list[i].value);
	return CEDE_OK;
}

/* ---- files */

/* What the other policy decides; false: the file is in no source of it, or is gone. */
static bool decide_other(struct differences *d, const struct policy *policy, const char *full,
	struct decision *ret) {
	CLEANUP(fd_closep) int fd = -1;
	struct decide_known known = {0};
	struct decide_facts facts;
	struct file_identity identity;
	struct source_path at;
	struct source_place place;

	if (source_path_find(policy, d->ledger, full, &at, &d->err) < 0 || at.source == NULL ||
		source_place_open(&at, &place, &d->err) < 0)
		return false;
	fd = place.fd;
	if (facts_of(fd, at.path, at.source, d->words->now_ns, &facts, &identity, &d->err) < 0)
		return false;
	if (d->ledger != NULL &&
		ledger_first_seen(d->ledger, slice_str(place.ledger), slice_str(at.path),
			&known.first_seen_ns, &d->err) < 0)
		return false;
	*ret = decide(policy, at.source, &facts, &known, d->words->now_ns);
	return true;
}

static const char *word(const struct decision *d, bool there) {
	return there ? action_name(d->action) : "none";
}

static const char *why(const struct decision *d, bool there) {
	return there ? reason_name(d->reason) : "not-covered";
}

static void on_file(void *ctx, const struct dry_run_file *f) {
	struct differences *d = ctx;
	char full[3 * 4096], shown[SHOWN_MAX];
	struct decision other = {.action = ACTION_IGNORE};
	struct decision mine = f->decision;

	require(source_path_print(f->source, f->epoch, f->path, full, sizeof full));
	bool there = decide_other(d, d->reverse ? d->old : d->new, full, &other);
	d->looked_at += !d->reverse || !there;
	if (d->reverse && there)
		return; /* seen the other way round */
	if (there && other.action == mine.action && other.reason == mine.reason)
		return;
	const struct decision *old = d->reverse ? &other : &mine;
	const struct decision *new = d->reverse ? &mine : &other;
	bool old_there = !d->reverse || there;
	bool new_there = d->reverse || there;
	d->files++;
	show_path(full, shown);
	if (d->words->json)
		print_json(json_pack("{s:s, s:s, s:s, s:s, s:s, s:s, s:s}", "schema",
			"cede-policy-diff/1", "kind", "file", "path", shown, "old_action",
			word(old, old_there), "old_reason", why(old, old_there), "new_action",
			word(new, new_there), "new_reason", why(new, new_there)));
	else
		(void)printf("%s: %s (%s) -> %s (%s)\n", shown, word(old, old_there),
			why(old, old_there), word(new, new_there), why(new, new_there));
}

static void on_trouble(void *ctx, const struct policy_source *source, const char *path,
	const struct cede_error *why_not) {
	struct differences *d = ctx;
	char shown[SHOWN_MAX];

	d->troubles++;
	show_path(path, shown);
	(void)fprintf(stderr, "cede policy diff: source %s: %s%s%s\n", source->name, shown,
		shown[0] != 0 ? ": " : "", why_not->text);
}

static int diff_files(struct differences *d, struct cede_error *reterr) {
	struct dry_run run = {.ledger = d->ledger,
		.now_ns = d->words->now_ns,
		.ctx = d,
		.file = on_file,
		.trouble = on_trouble};
	struct dry_run_totals totals;

	run.policy = d->old;
	CEDE_TRY(dry_run(&run, &totals, reterr));
	d->reverse = true;
	run.policy = d->new;
	return dry_run(&run, &totals, reterr);
}

static int diff(struct differences *d) {
	struct cede_error err = {0};

	int r = diff_rules(d, &err);
	if (r == CEDE_OK && !d->words->rules_only)
		r = diff_files(d, &err);
	if (r < 0)
		return policy_cannot(d->words, r, &err);
	if (d->words->json)
		print_json(json_pack("{s:s, s:s, s:I, s:I, s:I}", "schema", "cede-policy-diff/1",
			"kind", "totals", "rules", (json_int_t)d->rules, "files",
			(json_int_t)d->files, "looked_at", (json_int_t)d->looked_at));
	else if (d->words->rules_only)
		(void)printf("%llu rules differ\n", (unsigned long long)d->rules);
	else
		(void)printf("%llu rules differ; %llu of %llu files would be decided differently\n",
			(unsigned long long)d->rules, (unsigned long long)d->files,
			(unsigned long long)d->looked_at);
	if (fflush(stdout) != 0 || d->troubles > 0)
		return EXIT_CANNOT;
	return d->rules + d->files > 0 ? EXIT_FINDINGS : EXIT_FINE;
}

int cmd_policy_diff(const struct policy_words *w) {
	CLEANUP(policy_freep) struct policy *old = NULL;
	CLEANUP(policy_freep) struct policy *new = NULL;
	CLEANUP(ledger_closep) struct ledger *ledger = NULL;
	/* the two need not be signed: drafts are compared */
	struct policy_words plain = *w;

	plain.config = NULL;
	int code = policy_load_for(&plain, w->rest[0], &old);
	if (old == NULL)
		return code;
	code = policy_load_for(&plain, w->rest[1], &new);
	if (new == NULL)
		return code;
	code = policy_ledger_for(w, &ledger);
	if (code != EXIT_FINE)
		return code;
	struct differences d = {.words = w, .old = old, .new = new, .ledger = ledger};
	return diff(&d);
}
