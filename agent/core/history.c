/* SPDX-License-Identifier: Apache-2.0
 * Which captures were seen from their creation on: the lives that the watch tells, asked for when a
 * capture is to be wiped. In memory alone: a restart, another policy or lost events end what is known. */
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include "agent/core/flow_internal.h"
#include "agent/watch/lives.h"
#include "base/clock.h"

#define CLOCK_TICK_NS (20 * NS_PER_MS) /* a file system's times may be so far behind the clock */

static bool is_close(const struct flow *flow, size_t source) {
	return flow->policy->sources[source].wipe_require == WIPE_REQUIRE_WATCHED;
}

/* Of what is there now; a name that has gone on already tells nothing. */
static uint64_t size_of(const struct flow *flow, size_t source, const char *path) {
	struct stat st;

	if (flow->sources[source].fd < 0 ||
		fstatat(flow->sources[source].fd, path, &st, AT_SYMLINK_NOFOLLOW) < 0 ||
		!S_ISREG(st.st_mode))
		return UINT64_MAX;
	return (uint64_t)st.st_size;
}

/* A name that could not be kept in mind: from now on no name of the source is known to be new. */
static void overlooked(struct flow *flow, size_t source, bool kept) {
	if (kept)
		return;
	flow->sources[source].blind = true;
	flow->sources[source].overlooked = true;
}

void history_event(void *ctx, const struct tree_life_event *e) {
	struct flow *flow = ctx;
	struct lives *lives = flow->lives;
	bool known = e->known && !flow->sources[e->source].blind;

	switch (e->what) {
	case TREE_MADE:
		overlooked(
			flow, e->source, lives_made(lives, e->source, e->path, e->since_ns, known));
		break;
	case TREE_WRITTEN:
		lives_written(lives, e->source, e->path, size_of(flow, e->source, e->path));
		break;
	case TREE_CLOSED:
		lives_closed(lives, e->source, e->path);
		break;
	case TREE_LEFT:
		lives_left(lives, e->source, e->path, e->cookie);
		break;
	case TREE_CAME:
		overlooked(flow, e->source, lives_came(lives, e->source, e->path, e->cookie, known));
		break;
	case TREE_ENDED:
		lives_ended(lives, e->source, e->path);
		break;
	}
}

void history_moved(void *ctx, size_t source, const char *path) {
	struct flow *flow = ctx;

	lives_ended_below(flow->lives, source, path);
}

void history_lost(struct flow *flow) {
	lives_clear(flow->lives);
}

void history_found(struct flow *flow, size_t source, const char *path) {
	if (is_close(flow, source))
		overlooked(flow, source, lives_found(flow->lives, source, path));
}

void history_listed(struct flow *flow, size_t source, const char *path) {
	struct flow_source *s = &flow->sources[source];

	if (!is_close(flow, source))
		return;
	tree_listed(flow->tree, source, path);
	if (path[0] != 0)
		return;
	s->blind =
		s->overlooked; /* a whole listing without one: every name that is there is in mind */
	s->overlooked = false;
}

/* It is asked for at the last moment, with all events told; and forgotten, since what follows is our own. */
bool history_end(struct flow *flow, size_t source, const char *path, uint64_t ino) {
	struct statx st;
	int64_t since_ns;

	if (!is_close(flow, source))
		return false;
	bool whole = lives_whole(flow->lives, source, path, &since_ns);
	lives_ended(flow->lives, source, path);
	if (!whole ||
		statx(flow->sources[source].fd, path, AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT,
			STATX_BTIME | STATX_INO | STATX_NLINK, &st) < 0)
		return false;
	/* a name that was made by linking an older file has not seen its life */
	struct timespec born = {.tv_sec = st.stx_btime.tv_sec, .tv_nsec = st.stx_btime.tv_nsec};
	return (st.stx_mask & STATX_BTIME) != 0 && st.stx_ino == ino && st.stx_nlink == 1 &&
		clock_ns_of(&born) + CLOCK_TICK_NS >= since_ns;
}

void history_goes_on(struct flow *flow, size_t source, const char *path) {
	if (!is_close(flow, source))
		return;
	tree_drain(flow->tree);                         /* what our looking at it was heard as */
	(void)lives_goes_on(flow->lives, source, path); /* without room it is not claimed */
}
