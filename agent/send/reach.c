/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/send/reach.h"

#include <string.h>

#include "agent/send/backoff.h"
#include "base/clock.h"

#define DOUBTS_MOST 9
#define PLENTY      UINT64_C(1536) /* bytes a second: half as much again as the courier's floor */
#define SHORT_NS    (15 * NS_PER_SECOND) /* half of the courier's window */

void reach_init(struct reach *r) {
	*r = (struct reach){.most = REACH_MOST};
}

void reach_gave_way(struct reach *r) {
	if (r->most > r->underway)
		r->most = r->underway > 0 ? r->underway : 1;
}

/* Whether one more would leave enough to each. A short one shows nothing but the way's length. */
static bool has_room_to_spare(const struct reach *r, uint64_t size, int64_t took_ns) {
	if (took_ns < SHORT_NS)
		return true;
	return size / (uint64_t)(took_ns / NS_PER_SECOND) * r->most >= PLENTY * (r->most + 1);
}

bool reach_worked(struct reach *r, uint64_t size, int64_t took_ns, int64_t now) {
	if (size > 0 && r->most < REACH_MOST && has_room_to_spare(r, size, took_ns))
		r->most++;
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
		/* a lone one has nobody to blame; a link that is down is not slow */
		if (f->slow && r->underway > 0 && r->most > 1)
			r->most /= 2;
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
	size_t most = r->rate > 0 ? 1 : r->most;
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
