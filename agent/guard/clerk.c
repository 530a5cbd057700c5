/* SPDX-License-Identifier: Apache-2.0 */
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/fanotify.h>
#include <sys/mman.h>
#include <sys/resource.h>

#include "agent/guard/sentry_internal.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/log.h"

#define RECHECK_NS NS_PER_SECOND

void rules_free(struct rules *rules) {
	if (rules == NULL)
		return;
	allowed_done(&rules->allowed);
	marks_done(&rules->marks);
	free(rules);
}

static void do_question(struct sentry *s, struct task *t, bool *refreshed);

/* ---- rules */

static int make_fan(struct sentry *s, struct cede_error *reterr) {
	CLEANUP(fd_closep) int table = -1;
	/* O_NONBLOCK: reading a question opens the file, and a file that the keeper is wiping has a
	 * lease that would make us wait for the keeper, which waits for us (its next open). So that
	 * question is denied by the kernel instead. */
	CLEANUP(fd_closep)
	int fan = fanotify_init(FAN_CLASS_CONTENT | FAN_CLOEXEC | FAN_NONBLOCK |
			FAN_UNLIMITED_QUEUE | FAN_UNLIMITED_MARKS,
		O_RDONLY | O_LARGEFILE | O_CLOEXEC | O_NOATIME | O_NONBLOCK);

	if (fan < 0 && (errno == EPERM || errno == ENOSYS || errno == EINVAL))
		return CEDE_FAIL_SYS(reterr,
			"fanotify permission events: needs CAP_SYS_ADMIN in the first user namespace, and a kernel with CONFIG_FANOTIFY_ACCESS_PERMISSIONS");
	if (fan < 0)
		return CEDE_FAIL_SYS(reterr, "fanotify");
	CEDE_TRY(file_memory("cede-guard-table", &table, reterr));
	if (ftruncate(table, TABLE_SIZE * sizeof *s->table) < 0)
		return CEDE_FAIL_SYS(reterr, "make the guard's table");
	s->table_fd = CEDE_TAKE_FD(table);
	s->fan = CEDE_TAKE_FD(fan);
	return CEDE_OK;
}

static int map_table(struct sentry *s, struct cede_error *reterr) {
	struct stat st;

	if (fstat(s->table_fd, &st) < 0 || st.st_size != TABLE_SIZE * (off_t)sizeof *s->table)
		return CEDE_FAIL(reterr, CEDE_ERR_INPUT, "the former guard's table is none");
	void *at = mmap(NULL, TABLE_SIZE * sizeof *s->table, PROT_READ | PROT_WRITE, MAP_SHARED,
		s->table_fd, 0);
	if (at == MAP_FAILED)
		return CEDE_FAIL_SYS(reterr, "map the guard's table");
	s->table = at;
	return CEDE_OK;
}

/* What the loop thread needs of the marks. With the lock. */
static void publish_marks(struct sentry *s) {
	const struct marks *m = &s->rules->marks;

	s->inode_dev_count = 0;
	for (size_t i = 0; i < m->count; i++)
		if (m->list[i].kind == MARK_INODES)
			s->inode_devs[s->inode_dev_count++] = m->list[i].dev;
	s->file_systems = (uint32_t)marks_count(m, MARK_FILE_SYSTEM);
	s->inodes = (uint32_t)marks_count(m, MARK_INODES);
	s->unmarked = (uint16_t)marks_lacking(m);
	s->missing = (uint16_t)allowed_missing(&s->rules->allowed);
}

/* A question that a guard read and did not live to answer; the file is not known any more. */
static void answer_orphan(struct sentry *s, int number, pid_t pid) {
	static struct task t;
	bool refreshed = true;

	memset(&t, 0, sizeof t);
	t.fd = number;
	t.orphan = true;
	t.who = who_is(s->proc, pid);
	t.attempt = (struct guard_attempt){
		.pid = (uint32_t)pid, .uid = t.who.uid, .count = 1, .source = GUARD_NO_SOURCE};
	who_program(s->proc, pid, t.attempt.exe, sizeof t.attempt.exe);
	do_question(s, &t, &refreshed);
}

/* Whose they are stands in the table; those that are not in it are denied (or, with report, allowed),
 * unseen. All before a question is read here: that one may get the number of one of these. */
static void answer_orphans(struct sentry *s) {
	for (int i = 0; i < TABLE_SIZE; i++) {
		pid_t pid = (pid_t)s->table[i];
		if (pid != 0)
			answer_orphan(s, i, pid);
		sentry_answer(s, i, !s->rules->enforce);
	}
	(void)pthread_mutex_lock(&s->lock);
	s->reading = true;
	(void)pthread_mutex_unlock(&s->lock);
	wake(s->wake_sentry);
}

/* Rules are in force before their marks are set, so that no question meets none. */
static int put_in_force(struct sentry *s, struct rules *next, struct cede_error *reterr) {
	struct rules *before;

	CEDE_TRY(allowed_find_users(&next->allowed, reterr));
	if (s->fan < 0)
		CEDE_TRY(make_fan(s, reterr));
	if (s->table == NULL)
		CEDE_TRY(map_table(s, reterr));
	next->marks.fan = s->fan;
	allowed_refresh(&next->allowed, &s->lock);
	(void)pthread_mutex_lock(&s->lock);
	before = s->rules;
	s->rules = next;
	s->self = who_is(s->proc, next->keeper);
	(void)pthread_mutex_unlock(&s->lock);
	if (before == NULL)
		answer_orphans(s);
	marks_set(&next->marks);
	const struct marks_source *failed = marks_failed(&next->marks);
	if (failed != NULL) {
		marks_leave(
			&next->marks, before != NULL ? &before->marks : &(struct marks){.fan = -1});
		(void)pthread_mutex_lock(&s->lock);
		s->rules = before;
		s->reading = before != NULL;
		(void)pthread_mutex_unlock(&s->lock);
		return CEDE_FAIL(reterr, CEDE_ERR_IO, "source %s can't be marked: %s", failed->path,
			failed->why);
	}
	if (before != NULL)
		marks_leave(&before->marks, &next->marks);
	(void)pthread_mutex_lock(&s->lock);
	publish_marks(s);
	(void)pthread_mutex_unlock(&s->lock);
	rules_free(before);
	return CEDE_OK;
}

static void do_rules(struct sentry *s, struct rules *next) {
	struct cede_error err = {0};

	if (put_in_force(s, next, &err) < 0) {
		log_event(LOG_LEVEL_ERROR, "guard.refused", "error=\"%s\"", err.text);
		rules_free(next);
	}
	(void)pthread_mutex_lock(&s->lock);
	s->reply = true;
	(void)snprintf(s->failed, sizeof s->failed, "%s", err.text);
	(void)pthread_mutex_unlock(&s->lock);
	wake(s->wake_sentry);
}

/* ---- questions */

static void name_file(struct sentry *s, struct guard_attempt *a) {
	char whole[GUARD_PATH_MAX];
	const char *below;
	size_t source;

	if (!marks_find(&s->rules->marks, a->path, &source, &below))
		return;
	(void)snprintf(whole, sizeof whole, "%s", below);
	memcpy(a->path, whole, sizeof a->path);
	a->source = (uint16_t)source;
}

static void do_question(struct sentry *s, struct task *t, bool *refreshed) {
	if (!*refreshed)
		allowed_refresh(&s->rules->allowed, &s->lock);
	*refreshed = true;
	(void)pthread_mutex_lock(&s->lock);
	bool allow = sentry_allows(s, &t->who);
	(void)pthread_mutex_unlock(&s->lock);
	bool enforce = s->rules->enforce;
	if (t->fd >= 0) {
		sentry_answer(s, t->fd, allow || !enforce);
		if (!t->orphan)
			(void)close(t->fd); /* after the answer: its number stands for the question */
	}
	name_file(s, &t->attempt);
	t->attempt.denied = enforce;
	(void)pthread_mutex_lock(&s->lock);
	if (allow) {
		s->allowed++;
	} else {
		*(enforce ? &s->denied : &s->noted) += 1;
		attempts_add(&s->attempts, &t->attempt, clock_boot_ns());
	}
	(void)pthread_mutex_unlock(&s->lock);
}

/* ---- the thread */

static void recheck(struct sentry *s) {
	if (s->rules == NULL)
		return;
	allowed_refresh(&s->rules->allowed, &s->lock);
	marks_set(&s->rules->marks);
	(void)pthread_mutex_lock(&s->lock);
	publish_marks(s);
	(void)pthread_mutex_unlock(&s->lock);
}

static void do_tasks(struct sentry *s) {
	bool refreshed = false;

	(void)pthread_mutex_lock(&s->lock);
	struct task *list = CEDE_TAKE(s->tasks);
	s->tasks_end = &s->tasks;
	s->questions = 0;
	(void)pthread_mutex_unlock(&s->lock);
	while (list != NULL) {
		struct task *t = list;
		list = t->next;
		if (t->rules != NULL)
			do_rules(s, t->rules);
		else
			do_question(s, t, &refreshed);
		free(t);
	}
	wake(s->wake_sentry);
}

void *clerk_run(void *sentry) {
	struct sentry *s = sentry;
	CLEANUP(fd_closep)
	int mounts = openat(AT_FDCWD, "/proc/self/mountinfo", O_RDONLY | O_CLOEXEC);
	int64_t recheck_boot_ns = clock_boot_ns() + RECHECK_NS;

	for (;;) {
		int inotify = s->rules == NULL ? -1 : s->rules->marks.inotify;
		struct pollfd fds[] = {{.fd = s->wake_clerk, .events = POLLIN},
			{.fd = mounts, .events = POLLPRI}, {.fd = inotify, .events = POLLIN}};
		int64_t wait = (recheck_boot_ns - clock_boot_ns()) / NS_PER_MS + 1;
		(void)poll(fds, 3, wait < 0 ? 0 : (int)wait);
		(void)pthread_mutex_lock(&s->lock);
		bool stop = s->clerk_stop;
		(void)pthread_mutex_unlock(&s->lock);
		unwake(s->wake_clerk);
		do_tasks(s);
		if (stop)
			return NULL;
		bool soon = inotify >= 0 && s->rules != NULL && (fds[2].revents & POLLIN) != 0 &&
			marks_news(&s->rules->marks);
		if (soon || (fds[1].revents & POLLPRI) != 0 || clock_boot_ns() >= recheck_boot_ns) {
			recheck(s);
			recheck_boot_ns = clock_boot_ns() + RECHECK_NS;
		}
	}
}
