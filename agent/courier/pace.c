/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/courier/pace.h"

#include "base/clock.h"

#define ENOUGH (PACE_FLOOR * PACE_WINDOW_S) /* bytes in a window */

static void begin_window(const struct pace_line *line, struct pace *p, int64_t now_ns) {
	p->since_ns = now_ns;
	p->moved_before = p->moved;
	p->all_before = line->all;
}

void pace_join(struct pace_line *line, struct pace *p, int64_t now_ns) {
	struct pace **at = &line->first;

	while (*at != NULL)
		at = &(*at)->next;
	*p = (struct pace){0};
	*at = p;
	begin_window(line, p, now_ns);
}

void pace_leave(struct pace_line *line, struct pace *p) {
	struct pace **at = &line->first;

	while (*at != NULL && *at != p)
		at = &(*at)->next;
	if (*at != NULL)
		*at = p->next;
}

static size_t count(const struct pace_line *line) {
	size_t n = 0;

	for (const struct pace *p = line->first; p != NULL; p = p->next)
		n += !p->yields;
	return n;
}

/* The younger half gives way; the others have a whole window again to show what that was worth. */
static void thin_out(struct pace_line *line, size_t n, int64_t now_ns) {
	size_t stay = (n + 1) / 2;

	for (struct pace *p = line->first; p != NULL; p = p->next) {
		if (p->yields)
			continue;
		if (stay > 0)
			begin_window(line, p, now_ns);
		else
			p->yields = true;
		stay -= stay > 0;
	}
}

enum pace_verdict pace_look(struct pace_line *line, struct pace *p, uint64_t moved, int64_t now_ns) {
	if (moved > p->moved)
		line->all += moved - p->moved;
	else if (p->moved_before > moved)
		p->moved_before = moved;
	p->moved = moved;
	if (p->yields)
		return PACE_YIELDS;
	uint64_t gain = p->moved - p->moved_before;
	if (gain >= ENOUGH) {
		begin_window(line, p, now_ns);
		return PACE_ON;
	}
	if (now_ns - p->since_ns < PACE_WINDOW_S * NS_PER_SECOND)
		return PACE_ON;
	size_t n = count(line);
	uint64_t all = line->all - p->all_before;
	bool thin = all < n * ENOUGH;
	if (n < 2 || all == 0 || (gain == 0 && !thin))
		return PACE_DEAD;
	if (gain == 0 || !thin)
		p->yields = true; /* it is starved, or it alone does badly */
	else
		thin_out(line, n, now_ns);
	return p->yields ? PACE_YIELDS : PACE_ON;
}
