/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/watch/check.h"

#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent/watch/facts.h"
#include "base/cleanup.h"

void findings_done(struct findings *f) {
	for (size_t i = 0; i < f->count; i++)
		free(f->items[i].path);
	free(f->items);
	*f = (struct findings){0};
}

static int add(struct findings *f, size_t source, const char *path,
	const struct file_identity *identity, const struct decide_facts *facts,
	const struct decision *d, struct cede_error *reterr) {
	if (f->count == f->room) {
		size_t room = f->room == 0 ? 16 : f->room * 2;
		struct finding *items = reallocarray(f->items, room, sizeof *items);
		if (items == NULL)
			return CEDE_FAIL_MEMORY(reterr);
		f->items = items;
		f->room = room;
	}
	char *copy = strdup(path);
	if (copy == NULL)
		return CEDE_FAIL_MEMORY(reterr);
	f->items[f->count++] = (struct finding){
		.source = source, .path = copy, .identity = *identity, .facts = *facts, .decision = *d};
	f->items[f->count - 1].facts.path = slice_str(copy);
	return CEDE_OK;
}

static int add_gone(struct findings *f, size_t source, int source_fd, const char *path,
	struct cede_error *reterr) {
	struct file_identity nothing = {.dev = file_device_below(source_fd)};
	struct decide_facts none = {0};
	struct decision d = {.action = ACTION_IGNORE, .reason = REASON_IGNORED};

	CEDE_TRY(add(f, source, path, &nothing, &none, &d, reterr));
	f->items[f->count - 1].gone = true;
	return CEDE_OK;
}

enum reason check_why(const struct cede_error *err) {
	if (err->sys == EXDEV)
		return REASON_MOUNT_POINT;
	return err->sys == ELOOP ? REASON_SYMLINK : REASON_UNREADABLE;
}

int check_refused(size_t source, const char *path, enum reason reason, struct findings *out,
	struct cede_error *reterr) {
	struct file_identity nothing = {0};
	struct decide_facts none = {0};
	struct decision d = {.action = ACTION_REFUSE, .reason = reason};

	return add(out, source, path, &nothing, &none, &d, reterr);
}

/* A read lease is granted only while nobody has the file open for writing. Where the file system or
 * our rights know no leases the answer is no: then `quiet` alone has to do. */
static bool is_open_for_writing(int dirfd, const char *name) {
	CLEANUP(fd_closep) int fd = -1;

	if (file_open_beneath(dirfd, name, O_RDONLY, &fd, NULL) < 0)
		return false; /* gone or unreadable: sealing will find out and say so */
	return fcntl(fd, F_SETLEASE, F_RDLCK) < 0 && errno == EAGAIN; /* else given back with fd */
}

/* Facts and decision of one name; *ret_there is false if it is gone. */
static int look(const struct policy *policy, const struct check_place *place, const char *name,
	const char *path, int64_t now_ns, bool *ret_there, struct file_identity *ret_identity,
	struct decide_facts *ret_facts, struct decision *ret_decision, struct cede_error *reterr) {
	const struct policy_source *src = &policy->sources[place->source];
	/* what the ledger knows is added where it is known: core/intake.c */
	struct decide_known known = {0};
	struct decide_facts facts = {0};

	*ret_there = false;
	int r = facts_at(place->dirfd, name, path, src, now_ns, &facts, ret_identity, reterr);
	if (r < 0)
		return reterr->sys == ENOENT || reterr->sys == ENOTDIR ? CEDE_OK : r;
	*ret_there = facts.kind != FILE_KIND_DIRECTORY;
	if (!*ret_there)
		return CEDE_OK;
	*ret_decision = decide(policy, src, &facts, &known, now_ns);
	if ((ret_decision->action == ACTION_HAND_OVER || ret_decision->action == ACTION_DESTROY) &&
		is_open_for_writing(place->dirfd, name)) {
		facts.open_for_writing = true;
		*ret_decision = decide(policy, src, &facts, &known, now_ns);
	}
	*ret_facts = facts;
	return CEDE_OK;
}

/* Whether one of the members that were looked at, other than this one, is open for writing. */
static bool another_is_open(const struct findings *f, size_t first, size_t than) {
	for (size_t i = first; i < f->count; i++)
		if (i != than && f->items[i].facts.open_for_writing)
			return true;
	return false;
}

/* The other members of a ready file's group: all that the policy requires of it. Each was looked at
 * alone; who has which of them open is a fact for all, and the policy is asked again. */
static int check_group(const struct policy *policy, const struct check_place *place, const char *path,
	int64_t now_ns, struct findings *out, size_t first, struct cede_error *reterr) {
	const struct policy_source *src = &policy->sources[place->source];
	struct slice stem = group_stem(slice_str(path));
	struct decide_known known = {0};

	for (size_t i = 0; i < src->group_require_count; i++) {
		char member[PATH_MAX + 1];
		struct file_identity identity;
		struct decide_facts facts;
		struct decision d;
		bool there;

		int n = snprintf(member, sizeof member, "%.*s%s", (int)stem.len,
			(const char *)stem.data, src->group_require[i]);
		if (n < 0 || n > PATH_MAX || strcmp(member, path) == 0)
			continue;
		CEDE_TRY(look(policy, place, facts_name(member), member, now_ns, &there, &identity,
			&facts, &d, reterr));
		if (!there)
			continue;
		CEDE_TRY(add(out, place->source, member, &identity, &facts, &d, reterr));
		out->items[out->count - 1].beside = true;
	}
	for (size_t i = first; i < out->count; i++) {
		struct finding *f = &out->items[i];
		if (!another_is_open(out, first, i))
			continue;
		f->facts.group_open = true;
		f->decision = decide(policy, src, &f->facts, &known, now_ns);
	}
	return CEDE_OK;
}

int check_later(size_t source, const char *path, int64_t not_before_ns, struct findings *out,
	struct cede_error *reterr) {
	struct file_identity nothing = {0};
	struct decide_facts none = {0};
	struct decision d = {
		.action = ACTION_WAIT, .reason = REASON_SETTLING, .not_before_ns = not_before_ns};

	return add(out, source, path, &nothing, &none, &d, reterr);
}

int check_entry(const struct policy *policy, const struct check_place *place, const char *path,
	int64_t now_ns, struct findings *out, struct cede_error *reterr) {
	struct file_identity identity;
	struct decide_facts facts;
	struct decision d;
	bool there;
	size_t first = out->count;

	CEDE_TRY(look(policy, place, facts_name(path), path, now_ns, &there, &identity, &facts, &d,
		reterr));
	if (!there)
		return add_gone(out, place->source, place->source_fd, path, reterr);
	CEDE_TRY(add(out, place->source, path, &identity, &facts, &d, reterr));
	if (policy->sources[place->source].grouped && d.action == ACTION_HAND_OVER)
		return check_group(policy, place, path, now_ns, out, first, reterr);
	return CEDE_OK;
}

int check_path(const struct policy *policy, size_t source, int source_fd, const char *path,
	int64_t now_ns, struct findings *out, struct cede_error *reterr) {
	struct check_place place = {.source = source, .source_fd = source_fd};
	CLEANUP(fd_closep) int own_fd = -1;

	if (facts_open_parent(source_fd, path, &own_fd, &place.dirfd, reterr) < 0)
		return reterr->sys == ENOENT || reterr->sys == ENOTDIR
			? add_gone(out, source, source_fd, path, reterr)
			: reterr->code;
	return check_entry(policy, &place, path, now_ns, out, reterr);
}
