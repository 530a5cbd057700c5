/* SPDX-License-Identifier: Apache-2.0
 * How uploads to one destination get on, and which of them give way. There is no limit to how long
 * an upload may take: what counts is that bytes arrive. One that moves less than a floor over a
 * window is dead; but where the link itself is alive and only shared by too many, half of them, the
 * ones that began last, give way, so that what went furthest is not lost. A lone upload gets
 * through wherever the link carries the floor.
 *
 * Owns    nothing: the entries lie in their uploads, the line in its destination.
 * Thread  any one; it knows no clock and no socket. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define PACE_WINDOW_S 30
#define PACE_FLOOR    UINT64_C(1024) /* bytes a second that must arrive */

struct pace { /* one upload */
	struct pace *next;
	int64_t since_ns; /* the window began */
	uint64_t moved;   /* bytes that arrived */
	uint64_t moved_before;
	uint64_t all_before;
	bool yields;
};

struct pace_line {          /* the uploads of a destination */
	struct pace *first; /* in the order in which they began */
	uint64_t all;       /* what they moved, ended ones included */
};

enum pace_verdict {
	PACE_ON,
	PACE_DEAD,  /* too little arrives, though nothing of ours is in its way */
	PACE_YIELDS /* the link is alive and too slow for so many: this one gives way */
};

void pace_join(struct pace_line *line, struct pace *p, int64_t now_ns);
/* Unknown ones are fine. */
void pace_leave(struct pace_line *line, struct pace *p);
/* moved: bytes that arrived since it joined; less than before: too many were taken for that. */
enum pace_verdict pace_look(struct pace_line *line, struct pace *p, uint64_t moved, int64_t now_ns);
