/* SPDX-License-Identifier: Apache-2.0
 * What the keeper knows of the way to one destination: whether it is up, when it is tried again,
 * how many pushes it bears at once, and whether a new courier would do better. It is told each
 * outcome, and the time; it knows no clock, no push and no process.
 *
 * A push belongs to the round in which it began. The first failure of a round ends the round:
 * what else breaks of it broke with the same link, and is no news.
 *
 * How many go at once: all at first. What was too slow while others were under way halves it, each
 * bundle that got through with room to spare adds one. So a link that is too slow for all of them
 * finds how many it carries, down to one, which has it for itself. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define REACH_MOST 8 /* pushes of one destination at once */

struct reach {
	bool down;
	bool refused;          /* while down: by the server's own answer */
	unsigned failures;     /* in a row; what broke with one link counts once */
	unsigned doubts;       /* whether the courier itself is what fails */
	unsigned round;        /* a failure of a push that began in an earlier one is no news */
	int64_t retry_boot_ns; /* while down: not before */
	int64_t asked_boot_ns; /* the server asked for quiet until then */
	size_t underway;
	size_t most;   /* at once; 1 to REACH_MOST */
	uint64_t rate; /* bytes a second, one push at a time; 0: no limit */
};

struct reach_failure {
	const char *kind;
	const char *text;
	bool refused;  /* the server answered: the bundle itself may be the reason */
	bool slow;     /* it got too little of the link */
	bool gave_way; /* ... so that others got more */
	bool may_have_arrived;
	uint32_t retry_after_s;
};

void reach_init(struct reach *r);
/* A push got through; size: of the bundle that took so long to send, 0: only a question was asked.
 * Whether this is the news that the destination is up. */
bool reach_worked(struct reach *r, uint64_t size, int64_t took_ns, int64_t now);
/* A push gave way to others, which go on: no failure of the link, but no more than these may go. */
void reach_gave_way(struct reach *r);
/* A push of that round failed, and is not under way any more. Whether this is the news that the destination is down. */
bool reach_failed(struct reach *r, unsigned round, const struct reach_failure *f, int64_t now,
	uint32_t random);
/* How many more may start now. probing: one that began after the last failure is under way. While
 * it is down one probe may, once its time has come (until then *ret_wait is that time); those that
 * hang since the link broke do not hold it up. */
size_t reach_room(const struct reach *r, bool probing, int64_t now, int64_t *ret_wait);

/* Memory was short once, and the courier's TLS library remembers a refusal for ever; or
 * /etc/resolv.conf was replaced, and its sandbox lets it read the former file alone: a fresh one
 * does better. A server's wrong certificate, or a name that is not there, looks the same from
 * here; then it costs a start now and then. */
void reach_doubt(struct reach *r, const char *kind);
/* Whether the failures are of that sort, for long. */
bool reach_doubts_courier(const struct reach *r);
