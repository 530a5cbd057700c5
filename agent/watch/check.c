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
	const struct file_identity *identity, const struct decision *d, struct cede_error *reterr) {
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
		.source = source, .path = copy, .identity = *identity, .decision = *d};
	return CEDE_OK;
}

static int add_gone(struct findings *f, size_t source, const char *path, struct cede_error *reterr) {
	struct file_identity nothing = {0};
	struct decision d = {.action = ACTION_IGNORE, .reason = REASON_IGNORED};

	CEDE_TRY(add(f, source, path, &nothing, &d, reterr));
	f->items[f->count - 1].gone = true;
	return CEDE_OK;
}

int check_refused(size_t source, const char *path, enum reason reason, struct findings *out,
	struct cede_error *reterr) {
	struct file_identity nothing = {0};
	struct decision d = {.action = ACTION_REFUSE, .reason = reason};

	return add(out, source, path, &nothing, &d, reterr);
}

/* A read lease is granted only while nobody has the file open for writing. Where the file system or
 * our rights know no leases the answer is no: then `quiet` alone has to do. */
static bool is_open_for_writing(int source_fd, const char *path) {
	CLEANUP(fd_closep) int fd = -1;

	if (file_open_beneath(source_fd, path, O_RDONLY, &fd, NULL) < 0)
		return false; /* gone or unreadable: sealing will find out and say so */
	return fcntl(fd, F_SETLEASE, F_RDLCK) < 0 && errno == EAGAIN; /* else given back with fd */
}

/* Facts and decision of one name; *ret_there is false if it is gone. */
static int look(const struct policy *policy, size_t source, int source_fd, const char *path,
	int64_t now_ns, bool *ret_there, struct file_identity *ret_identity,
	struct decision *ret_decision, struct cede_error *reterr) {
	const struct policy_source *src = &policy->sources[source];
	struct decide_known known = {0};
	struct decide_facts facts = {0};

	*ret_there = false;
	int r = facts_of(source_fd, path, src, &facts, ret_identity, reterr);
	if (r < 0)
		return reterr->sys == ENOENT || reterr->sys == ENOTDIR ? CEDE_OK : r;
	*ret_there = facts.kind != FILE_KIND_DIRECTORY;
	if (!*ret_there)
		return CEDE_OK;
	*ret_decision = decide(policy, src, &facts, &known, now_ns);
	if (ret_decision->action == ACTION_HAND_OVER && is_open_for_writing(source_fd, path)) {
		facts.open_for_writing = true;
		*ret_decision = decide(policy, src, &facts, &known, now_ns);
	}
	return CEDE_OK;
}

/* The other members of a ready file's group: all that the policy requires of it. */
static int check_group(const struct policy *policy, size_t source, int source_fd, const char *path,
	int64_t now_ns, struct findings *out, size_t first, struct cede_error *reterr) {
	const struct policy_source *src = &policy->sources[source];
	struct slice stem = group_stem(slice_str(path));
	int64_t wait_until = 0;

	for (size_t i = 0; i < src->group_require_count; i++) {
		char member[PATH_MAX + 1];
		struct file_identity identity;
		struct decision d;
		bool there;

		int n = snprintf(member, sizeof member, "%.*s%s", (int)stem.len,
			(const char *)stem.data, src->group_require[i]);
		if (n < 0 || n > PATH_MAX || strcmp(member, path) == 0)
			continue;
		CEDE_TRY(look(
			policy, source, source_fd, member, now_ns, &there, &identity, &d, reterr));
		if (!there)
			continue;
		if (d.action == ACTION_WAIT && d.not_before_ns > wait_until)
			wait_until = d.not_before_ns;
		CEDE_TRY(add(out, source, member, &identity, &d, reterr));
	}
	for (size_t i = first; wait_until > 0 && i < out->count; i++) {
		struct decision *d = &out->items[i].decision;
		if (d->action != ACTION_HAND_OVER)
			continue;
		d->action = ACTION_WAIT;
		d->reason = REASON_GROUP_WAITS;
		d->not_before_ns = wait_until;
	}
	return CEDE_OK;
}

int check_path(const struct policy *policy, size_t source, int source_fd, const char *path,
	int64_t now_ns, struct findings *out, struct cede_error *reterr) {
	struct file_identity identity;
	struct decision d;
	bool there;
	size_t first = out->count;

	CEDE_TRY(look(policy, source, source_fd, path, now_ns, &there, &identity, &d, reterr));
	if (!there)
		return add_gone(out, source, path, reterr);
	CEDE_TRY(add(out, source, path, &identity, &d, reterr));
	if (policy->sources[source].grouped && d.action == ACTION_HAND_OVER)
		return check_group(policy, source, source_fd, path, now_ns, out, first, reterr);
	return CEDE_OK;
}
