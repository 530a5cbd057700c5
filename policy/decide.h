/* SPDX-License-Identifier: Apache-2.0
 * The decision: a pure function of the policy, facts about a file, what is known of it, and now.
 * The agent and `cede policy dry-run` call this one; there is no other place that decides.
 *
 * Thread  pure. */
#pragma once

#include "policy/policy.h"

enum file_kind { FILE_KIND_REGULAR, FILE_KIND_DIRECTORY, FILE_KIND_SYMLINK, FILE_KIND_OTHER };

struct decide_facts {
	struct slice path; /* relative to the source */
	enum file_kind kind;
	uint64_t size;
	uint32_t links;
	int64_t mtime_ns;
	int64_t ctime_ns;
	int64_t btime_ns;      /* 0: unknown */
	bool open_for_writing; /* as far as is known */
	/* of a grouped source, the members that the policy requires: */
	bool group_there;         /* each is there; whether it is complete, the next two tell */
	bool group_open;          /* another one is open for writing, as far as is known */
	int64_t group_changed_ns; /* last_change() of the one of the others that changed last */
	int64_t group_since_ns;   /* when the first that is there was complete; 0: this one */
};

struct decide_known {
	int64_t first_seen_ns; /* 0: never seen before */
};

/* What happens to the file now. */
enum action {
	ACTION_HAND_OVER, /* seal, push, wipe after proof */
	ACTION_WAIT,      /* not complete yet: again at not_before */
	ACTION_IGNORE,    /* the policy says to leave it alone */
	ACTION_HOLD,      /* stays, and why is reported */
	ACTION_REFUSE,    /* never touched, always reported */
	ACTION_DESTROY,   /* wiped without a proof: the policy says so */
};

/* REASONS(X): id, action, finding (counts in the exit code of a dry run), identifier, sentence */
#define DECIDE_REASONS(X)                                                                                      \
	X(READY, ACTION_HAND_OVER, false, "ready", "complete; is handed over")                                 \
	X(OVERDUE, ACTION_HAND_OVER, true, "overdue", "older than max_age; is handed over")                    \
	X(HELD, ACTION_HAND_OVER, false, "held",                                                               \
		"complete, under a legal hold; is handed over and kept")                                       \
	X(DESTROYED, ACTION_DESTROY, true, "destroyed",                                                        \
		"older than max_age, and the policy says destroy; is wiped without a receipt")                 \
	X(GROUP_INCOMPLETE, ACTION_HAND_OVER, true, "group-incomplete",                                        \
		"its group stayed incomplete past wait; is handed over as it is")                              \
	X(SETTLING, ACTION_WAIT, false, "settling", "changed less than quiet ago")                             \
	X(OPEN, ACTION_WAIT, false, "open-for-writing", "a program has it open for writing")                   \
	X(GROUP_WAITS, ACTION_WAIT, false, "group-waits", "waits for the members of its group")                \
	X(IGNORED, ACTION_IGNORE, false, "ignored", "an ignore pattern matches")                               \
	X(UNMATCHED, ACTION_HOLD, true, "unmatched", "no match pattern matches; stays here")                   \
	X(UNMATCHED_OVERDUE, ACTION_HOLD, true, "unmatched-overdue",                                           \
		"no match pattern matches, and it is older than unmatched.max_age")                            \
	X(POLICY_EXPIRED, ACTION_HOLD, true, "policy-expired",                                                 \
		"the policy has expired; nothing is handed over or wiped")                                     \
	X(SYMLINK, ACTION_REFUSE, true, "symlink", "a symbolic link; never followed")                          \
	X(SPECIAL, ACTION_REFUSE, true, "special-file", "no regular file")                                     \
	X(HARD_LINK, ACTION_REFUSE, true, "hard-link",                                                         \
		"has another name (hard link); wiping it would reach outside")                                 \
	X(TOO_LARGE, ACTION_REFUSE, true, "too-large", "larger than max_size")                                 \
	/* what a walk can't get at: decide() never says these */                                              \
	X(MOUNT_POINT, ACTION_REFUSE, true, "mount-point",                                                     \
		"another file system is mounted there; what is below is not the source's")                     \
	X(PATH_TOO_LONG, ACTION_REFUSE, true, "path-too-long",                                                 \
		"its path below the source has more than 4095 bytes; neither it nor what is below is reached") \
	X(UNREADABLE, ACTION_REFUSE, true, "unreadable",                                                       \
		"the system does not let it be looked at; is tried again")

enum reason {

#define X(id, action, finding, name, text) REASON_##id,
	DECIDE_REASONS(X)
#undef X
		REASON_COUNT
};

struct decision {
	enum action action;
	enum reason reason;
	int64_t not_before_ns; /* with ACTION_WAIT: when to ask again */
	int64_t deadline_ns;   /* birth + max_age (unmatched: its max_age) */
	int64_t born_ns;       /* the earliest time known */
	bool overdue;
	const struct policy_hold *hold; /* that stands over it now, or NULL */
	struct policy_where rule;       /* the line that decided */
};

/* When a file was last changed, as far as that can be believed: a time in the future (a clock that
 * was set back, a writer that sets times) says nothing, the other one then has to do. INT64_MIN:
 * neither says anything. */
int64_t last_change(int64_t mtime_ns, int64_t ctime_ns, int64_t now_ns);
struct decision decide(const struct policy *policy, const struct policy_source *source,
	const struct decide_facts *facts, const struct decide_known *known, int64_t now_ns);
/* Bytes a second that may go to the destination at this time; 0: no limit. The first window that
 * has the time counts. */
uint64_t destination_rate(const struct policy_destination *destination, int64_t now_ns);
/* The hold of the policy that covers a capture now: the wipe asks again, with this one function. */
const struct policy_hold *hold_of(const struct policy *policy, struct slice source,
	struct slice path, int64_t born_ns, int64_t now_ns);
/* Whether the source takes a capture that is known already: it matches, is not ignored, and is not
 * larger than max_size. */
bool still_wanted(const struct policy_source *source, struct slice path, uint64_t size);
/* Whether a capture that is known already is to be destroyed for its age now (REASON_DESTROYED):
 * asked of the policy in force when that is done, whatever another one said before. */
bool destroy_due(const struct policy *policy, const struct policy_source *source, struct slice path,
	uint64_t size, int64_t born_ns, int64_t now_ns);
const char *reason_name(enum reason reason); /* stable identifier */
const char *reason_text(enum reason reason); /* a sentence */
bool reason_is_finding(enum reason reason);
const char *action_name(enum action action); /* "hand-over" "wait" "ignore" "hold" "refuse"
					      * "destroy" */

/* Glob on bytes: '?' and '*' never cross '/', "**" between slashes spans any number of directories,
 * [a-z] [!a-z] classes, '\' escapes, in a class as well. Bounded time: O(pattern * path). */
bool glob_match(struct slice pattern, struct slice path);
/* Where the class that begins behind the '[' before at ends: the place of its ']'; 0 if it does not. */
size_t glob_class_end(struct slice pattern, size_t at);
/* "faces/a/x.jpg" -> "faces/a/x": the group a file belongs to (its name without the last ending). */
struct slice group_stem(struct slice path);
