/* SPDX-License-Identifier: Apache-2.0
 * Names of wiped files stay in the journal of an ext4 file system until later traffic overwrites it.
 * It is emptied of them within the policy's scrub_within, once for all, and so seldom that what it
 * costs the writers there stays below a fiftieth of the time. Where that can't be done it is said. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "agent/core/flow_internal.h"
#include "agent/wipe/scrub.h"
#include "base/clock.h"
#include "base/log.h"

struct scrub {
	struct flow *flow;
	size_t source;
	int fd; /* of the source: borrowed */
	int64_t began_boot_ns;
	int64_t took_ns;
	enum scrub_result result;
	int sys;
};

static const char *source_name(const struct flow *flow, size_t source) {
	return flow->policy->sources[source].name;
}

void names_removed(struct flow *flow, size_t source, uint64_t count) {
	struct source_names *names = &flow->sources[source].names;

	names->count += count;
	if (names->since_boot_ns != 0)
		return;
	names->since_boot_ns = clock_boot_ns();
	names->since_ns = clock_wall_ns();
}

/* Names that an earlier process took away count as taken away now. */
void names_start(struct flow *flow) {
	for (size_t i = 0; i < flow->policy->source_count; i++)
		names_removed(flow, i, 0);
}

/* Whether both lie on one file system, with one journal. */
static bool is_beside(const struct flow *flow, size_t a, size_t b) {
	struct stat x, y;

	return a == b ||
		(flow_source_there(flow, a) && flow_source_there(flow, b) &&
			fstat(flow->sources[a].fd, &x) == 0 &&
			fstat(flow->sources[b].fd, &y) == 0 && x.st_dev == y.st_dev);
}

/* Those that were taken away before the emptying began are gone from it. */
static void gone(struct flow *flow, size_t source, int64_t began_boot_ns, int64_t took_ns) {
	struct source_names *names = &flow->sources[source].names;
	char since[CLOCK_TEXT_SIZE], more[160];

	if (names->since_boot_ns == 0 || names->since_boot_ns > began_boot_ns)
		return;
	clock_text_ns(names->since_ns, since);
	(void)snprintf(more, sizeof more, " names=%" PRIu64 " since=%s took_ms=%" PRId64,
		names->count, since, took_ns / NS_PER_MS);
	place_notice(flow, source, LEDGER_NAMES_SCRUBBED, more);
	flow->figures.scrubs++;
	names->count = 0;
	names->since_boot_ns = 0;
}

static void emptied(struct flow *flow, size_t source, int64_t began_boot_ns, int64_t took_ns) {
	int64_t pause = took_ns * SCRUB_PACE > SCRUB_LEAST_NS ? took_ns * SCRUB_PACE : SCRUB_LEAST_NS;

	for (size_t i = 0; i < flow->policy->source_count; i++) {
		if (!is_beside(flow, source, i))
			continue;
		gone(flow, i, began_boot_ns, took_ns);
		flow->sources[i].names.not_before_boot_ns = clock_boot_ns() + pause;
	}
}

void names_scrubbed(struct flow *flow, size_t source, int64_t took_ns) {
	flow->sources[source].names.paced = true;
	emptied(flow, source, clock_boot_ns(), took_ns);
}

bool names_wait(const struct flow *flow, size_t source) {
	const struct source_names *names = &flow->sources[source].names;

	return names->paced && names->not_before_boot_ns > clock_boot_ns();
}

static void stay(struct flow *flow, size_t source) {
	struct source_names *names = &flow->sources[source].names;

	names->since_boot_ns = 0;
	names->count = 0;
	if (names->stay)
		return;
	names->stay = true;
	log_event(LOG_LEVEL_WARNING, "wipe.names-stay",
		"source=%s effect=\"names of wiped files stay in the journal of its file system until that is overwritten\" mend=\"ext4, Linux 5.14 or later, CAP_SYS_ADMIN; or names that tell nothing\"",
		source_name(flow, source));
	place_notice(flow, source, LEDGER_NAMES_STAY, " reason=no-scrub-here");
}

static void scrub_work(void *ctx) {
	struct scrub *s = ctx;

	s->began_boot_ns = clock_boot_ns();
	s->result = scrub_journal(s->fd, &s->took_ns);
	s->sys = errno;
}

static void scrub_done(void *ctx) {
	struct scrub *s = ctx;
	struct flow *flow = s->flow;
	struct source_names *names = &flow->sources[s->source].names;

	names->running = false;
	switch (s->result) {
	case SCRUB_DONE:
		emptied(flow, s->source, s->began_boot_ns, s->took_ns);
		break;
	case SCRUB_NOT_HERE:
		stay(flow, s->source);
		break;
	case SCRUB_FAILED:
		log_event(LOG_LEVEL_ERROR, "wipe.scrub-failed",
			"source=%s error=\"%s\" mend=\"tried again\"", source_name(flow, s->source),
			strerrordesc_np(s->sys));
		names->not_before_boot_ns =
			clock_boot_ns() + flow->policy->sources[s->source].wipe_scrub_ns;
		break;
	}
	free(s);
	flow_settled(flow);
}

static void scrub_start(struct flow *flow, size_t source) {
	struct scrub *s = calloc(1, sizeof *s);
	struct cede_error err = {0};

	if (s == NULL)
		return; /* at the next tick */
	s->flow = flow;
	s->source = source;
	s->fd = flow->sources[source].fd;
	if (jobs_start(&flow->jobs, scrub_work, scrub_done, s, &err) < 0) {
		free(s);
		return;
	}
	flow->sources[source].names.running = true;
}

static bool is_running(const struct flow *flow) {
	for (size_t i = 0; i < flow->policy->source_count; i++)
		if (flow->sources[i].names.running)
			return true;
	return false;
}

void names_tick(struct flow *flow) {
	int64_t now = clock_boot_ns();

	for (size_t i = 0; i < flow->policy->source_count; i++) {
		const struct source_names *names = &flow->sources[i].names;
		int64_t within = flow->policy->sources[i].wipe_scrub_ns;
		if (within == 0 || names->since_boot_ns == 0 || names->since_boot_ns + within > now ||
			names->not_before_boot_ns > now || !flow_source_there(flow, i))
			continue;
		if (!is_running(flow)) /* one at a time: it may be the same journal */
			scrub_start(flow, i);
	}
}
