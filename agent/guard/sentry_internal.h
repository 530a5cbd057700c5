/* SPDX-License-Identifier: Apache-2.0
 * What sentry.c and clerk.c share. `lock` is held for moments only, never over a call that waits. */
#pragma once

#include <pthread.h>
#include <stdatomic.h>

#include "agent/guard/allowed.h"
#include "agent/guard/attempts.h"
#include "agent/guard/marks.h"
#include "agent/guard/sentry.h"
#include "agent/guard/who.h"

#define TABLE_SIZE 4096 /* descriptor numbers: RLIMIT_NOFILE of this process */
#define QUEUE_MOST 512  /* questions that wait for the clerk; more are denied at once */

struct rules {
	bool enforce;
	pid_t keeper;
	struct allowed allowed;
	struct marks marks;
};

/* For the clerk. */
struct task {
	struct task *next;
	struct rules *rules; /* to be put in force; NULL: a question */
	int fd;              /* the question's, to be answered; -1: it was (report) */
	bool orphan;         /* fd is a number only: a guard that is gone had read it */
	struct who who;
	struct guard_attempt attempt;
};

struct sentry {
	int socket; /* -1: the keeper is gone */
	int listener;
	int signals;
	bool introduced;      /* the keeper has READY: now it is told the rest */
	bool handed_over;     /* to a successor's guard */
	bool told_to_end;     /* by a signal: counts when the keeper is gone */
	struct rules *staged; /* between BEGIN and GO */
	int64_t tick_boot_ns;
	int proc;
	int wake_sentry, wake_clerk; /* eventfd */
	pthread_t clerk;

	pthread_mutex_t lock; /* everything below */
	struct rules *rules;  /* in force; replaced by the clerk alone; NULL: none yet */
	_Atomic int fan;      /* -1: none yet */
	int table_fd;
	_Atomic uint32_t *table; /* pid by number of the question's descriptor; 0: none */
	struct who self;         /* the keeper's program and user: other commands of cede run it */
	uint64_t inode_devs[MARKS_SOURCES_MAX]; /* of MARK_INODES */
	size_t inode_dev_count;
	struct task *tasks, **tasks_end;
	size_t questions; /* among them */
	struct attempts attempts;
	uint64_t allowed, denied, noted, unread;
	uint16_t unmarked, missing;
	bool reply; /* to GO: failed[0] says which */
	char failed[GUARD_WHY_MAX];
	uint32_t file_systems, inodes;
	bool reading;    /* questions: those of a guard that is gone are answered */
	bool stop;       /* this process */
	bool clerk_stop; /* the thread */
};

void wake(int eventfd);
void unwake(int eventfd);
/* The answer, then the end of the question. */
void sentry_answer(struct sentry *s, int number, bool allow);
void sentry_queue(struct sentry *s, struct task *t); /* taken */
/* Whether it is cede's own, or allowed. With the lock. */
bool sentry_allows(const struct sentry *s, const struct who *who);
void *clerk_run(void *sentry);
void rules_free(struct rules *rules);
