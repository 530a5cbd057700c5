/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/send/reach.h"

#include <string.h>

#include "agent/send/backoff.h"
#include "base/clock.h"

#define DOUBTS_MOST 9

bool reach_worked(struct reach *r, int64_t now) {
	r->failures = 0;
	r->doubts = 0;
	/* one that was let in just before the server asked for quiet does not end that */
	if (!r->down || r->asked_boot_ns > now)
		return false;
	r->down = false;
	return true;
}

bool reach_failed(struct reach *r, unsigned round, const struct reach_failure *f, int64_t now,
	uint32_t random) {
	bool news = !r->down;

	if (f->retry_after_s > 0)
		r->asked_boot_ns = now + backoff_ms(1, random, f->retry_after_s) * NS_PER_MS;
	if (round == r->round) {
		r->round++;
		r->retry_boot_ns =
			now + backoff_ms(++r->failures, random, f->retry_after_s) * NS_PER_MS;
		r->refused = f->refused;
	} else if (f->retry_after_s == 0) {
		return false; /* what went down with an earlier one */
	}
	if (r->retry_boot_ns < r->asked_boot_ns)
		r->retry_boot_ns = r->asked_boot_ns;
	r->down = true;
	return news;
}

size_t reach_room(const struct reach *r, bool probing, int64_t now, int64_t *ret_wait) {
	size_t most = r->rate > 0 ? 1 : REACH_MOST;
	size_t room = r->underway < most ? most - r->underway : 0;

	if (!r->down || room == 0)
		return room;
	if (probing)
		return 0;
	if (r->retry_boot_ns > now) {
		*ret_wait = r->retry_boot_ns;
		return 0;
	}
	return 1;
}

void reach_doubt(struct reach *r, const char *kind) {
	if (strcmp(kind, "local") == 0)
		r->doubts += 3;
	else if (strcmp(kind, "tls") == 0 || strcmp(kind, "resolve") == 0)
		r->doubts++;
	else
		r->doubts = 0;
}

bool reach_doubts_courier(const struct reach *r) {
	return r->doubts >= DOUBTS_MOST;
}
