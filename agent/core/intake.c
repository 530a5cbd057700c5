/* SPDX-License-Identifier: Apache-2.0 */
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "agent/core/epochs.h"
#include "agent/core/flow_internal.h"
#include "agent/watch/lives.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/log.h"

/* ---- names that settle */

struct check_job {
	struct flow *flow;

	struct {
		size_t source;
		int fd;
		char *path;
		bool failed;
	} names[CHECK_BATCH];

	size_t count;
	struct findings found;
	size_t failed; /* names of which not even that could be noted */
};

static void check_work(void *ctx) {
	struct check_job *job = ctx;
	int64_t now = clock_wall_ns();

	for (size_t i = 0; i < job->count; i++) {
		struct cede_error err = {0};
		if (check_path(job->flow->policy, job->names[i].source, job->names[i].fd,
			    job->names[i].path, now, &job->found, &err) < 0) {
			job->names[i].failed = true; /* looked at again */
			if (check_refused(job->names[i].source, job->names[i].path, check_why(&err),
				    &job->found, &err) == CEDE_OK)
				continue;
			job->failed++;
		}
	}
}

static void settle_arm(struct flow *flow);

static void check_done(void *ctx) {
	struct check_job *job = ctx;
	struct flow *flow = job->flow;

	flow->check_jobs--;
	if (job->failed > 0)
		log_event(LOG_LEVEL_WARNING, "watch.unreadable", "names=%zu", job->failed);
	if (!flow->draining && !flow->stopping)
		found_take(flow, &job->found, true);
	findings_done(&job->found);
	for (size_t i = 0; i < job->count; i++) {
		if (job->names[i].failed && !flow->draining && !flow->stopping)
			intake_look(flow, job->names[i].source, job->names[i].path, UNREAD_AGAIN_NS);
		flow->sources[job->names[i].source].looks--;
		free(job->names[i].path);
	}
	free(job);
	settle_arm(flow);
	flow_settled(flow);
}

static void on_settled(uv_timer_t *timer) {
	struct flow *flow = timer->data;
	struct cede_error err = {0};
	struct check_job *job = calloc(1, sizeof *job);
	int64_t now = clock_boot_ns();
	size_t source;
	char *path;

	while (job != NULL && job->count < CHECK_BATCH &&
		settle_take(flow->settle, now, &source, &path)) {
		if (!flow_source_there(
			    flow, source)) { /* the scan that finds the directory finds it */
			flow->sources[source].scan_wanted = true;
			free(path);
			continue;
		}
		flow->sources[source].looks++;
		job->names[job->count].source = source;
		job->names[job->count].fd = flow->sources[source].fd;
		job->names[job->count++].path = path;
	}
	if (job == NULL || job->count == 0) {
		free(job);
		settle_arm(flow);
		return;
	}
	job->flow = flow;
	flow->check_jobs++;
	if (jobs_start(&flow->jobs, check_work, check_done, job, &err) < 0) {
		log_event(LOG_LEVEL_WARNING, "job.failed", "error=\"%s\"", err.text);
		for (size_t i = 0; i < job->count; i++)
			flow->sources[job->names[i].source].scan_wanted = true;
		check_done(job);
		return;
	}
	settle_arm(flow);
}

static void settle_arm(struct flow *flow) {
	int64_t next = settle_next(flow->settle);
	int64_t now = clock_boot_ns();

	if (flow->draining || flow->stopping || flow->check_jobs >= CHECK_JOBS ||
		next == INT64_MAX || flow_busy(flow)) {
		(void)uv_timer_stop(&flow->settle_timer);
		return;
	}
	uint64_t ms = next <= now ? 0 : (uint64_t)((next - now) / NS_PER_MS) + 1;
	(void)uv_timer_start(&flow->settle_timer, on_settled, ms, 0);
}

void intake_look(struct flow *flow, size_t source, const char *path, int64_t after_ns) {
	struct cede_error err = {0};
	int64_t most = 3600 * NS_PER_SECOND;

	if (flow->sources[source].idle || epochs_is_closed(flow, source))
		return;
	if (after_ns < 0)
		after_ns = 0;
	if (after_ns > most)
		after_ns = most;
	if (settle_add(flow->settle, source, path, clock_boot_ns() + after_ns, &err) < 0)
		flow->sources[source].crowded = true; /* the tree itself remembers */
	settle_arm(flow);
}

/* ---- events of the tree */

static void on_file(void *ctx, size_t source, const char *path, bool closed) {
	struct flow *flow = ctx;
	int64_t quiet = flow->policy->sources[source].quiet_ns;

	/* a file that only appeared may be a link to a complete one, or be open still */
	if (!closed && quiet < NS_PER_SECOND)
		quiet = NS_PER_SECOND;
	intake_look(flow, source, path, quiet);
}

static void on_directory(void *ctx, size_t source, const char *path) {
	intake_scan(ctx, source, path);
}

static int gap_work(struct ledger *ledger, void *ctx, struct cede_error *reterr) {
	(void)ctx;
	return ledger_event(ledger, LEDGER_WATCH_GAP, NULL, clock_wall_ns(),
		"cause=queue-overflow mend=scan", reterr);
}

static void on_gap(void *ctx) {
	struct flow *flow = ctx;

	history_lost(flow);
	flow->figures.gaps++;
	log_event(LOG_LEVEL_WARNING, "watch.overflow", "mend=scan");
	flow_record(flow, gap_work, NULL, NULL, NULL);
	for (size_t i = 0; i < flow->policy->source_count; i++)
		intake_scan(flow, i, "");
}

/* ---- scans */

static bool on_found(void *ctx, struct findings *found) {
	struct flow *flow = ctx;

	found_take(flow, found, false);
	return !flow_busy(flow);
}

static void adopt_directory(struct flow *flow, size_t source, int fd) {
	struct flow_source *s = &flow->sources[source];

	bool as_opened = epochs_has_vault(flow, s->of); /* elsewhere, and is what it is */
	place_opened(flow, source, as_opened ? s->fd : fd);
	if (as_opened) {
		(void)close(fd);
		return;
	}
	if (s->fd < 0) {
		s->fd = fd;
		return;
	}
	/* jobs may hold the number: the new directory takes the old one's place under it */
	if (dup3(fd, s->fd, O_CLOEXEC) < 0)
		log_event(LOG_LEVEL_ERROR, "source.reopen", "source=%s",
			flow->policy->sources[source].name);
	(void)close(fd);
}

/* Names that settle are in memory only as far as they fit there, and after a change of policy not
 * at all: the ledger knows them. Each is looked at again; one that is gone is said to be. */
struct sweep {
	struct flow *flow;
	size_t source;
	char **paths;
	size_t count;
	uint64_t dev; /* of the directory; 0: can't be compared */
	bool elsewhere;
};

static int sweep_one(void *ctx, const struct ledger_capture *c, struct cede_error *reterr) {
	struct sweep *s = ctx;

	s->paths[s->count] = strndup((const char *)c->path.data, c->path.len);
	if (s->paths[s->count] == NULL)
		return CEDE_FAIL_MEMORY(reterr);
	s->count++;
	return CEDE_OK;
}

static void sweep_clear(struct sweep *s) {
	for (size_t i = 0; i < s->count; i++)
		free(s->paths[i]);
	s->count = 0;
}

static int sweep_work(struct ledger *ledger, void *ctx, struct cede_error *reterr) {
	struct sweep *s = ctx;

	struct slice name = slice_str(s->flow->sources[s->source].key);

	sweep_clear(s); /* of a first try */
	if (s->dev != 0)
		CEDE_TRY(ledger_other_device(ledger, name, s->dev, &s->elsewhere, reterr));
	return ledger_settling(ledger, name, SWEEP_MOST, sweep_one, s, reterr);
}

static void sweep_done(struct flow *flow, void *ctx) {
	struct sweep *s = ctx;

	if (!flow->stopping && !flow->sources[s->source].missing)
		place_set_absent(flow, s->source, false, s->elsewhere,
			"captures are on a file system that is not mounted here now");
	for (size_t i = 0; i < s->count && !flow->stopping; i++)
		intake_look(flow, s->source, s->paths[i], 0);
}

static void sweep_release(void *ctx) {
	struct sweep *s = ctx;

	s->flow->sources[s->source].looks--;
	sweep_clear(s);
	free(s->paths);
	free(s);
}

static void sweep_settling(struct flow *flow, size_t source) {
	struct sweep *s = calloc(1, sizeof *s);

	if (s == NULL)
		return; /* after the next scan */
	s->flow = flow;
	s->source = source;
	s->dev = file_device_below(flow->sources[source].fd);
	s->paths = calloc(SWEEP_MOST, sizeof *s->paths);
	if (s->paths == NULL) {
		free(s);
		return;
	}
	flow->sources[source].looks++;
	flow_record(flow, sweep_work, sweep_done, sweep_release, s);
}

/* Where events tell of every change a scan is the second look: it may cost 0.2 % of a processor,
 * but comes each half an hour. Where it is the only way to hear of a file it may cost 5 %. */
static int64_t least_pause(bool polls, int64_t took_ns) {
	int64_t pause = took_ns * 20;

	if (polls)
		return pause;
	if (took_ns * 500 < RESCAN_MOST_NS)
		return took_ns * 500;
	return pause > RESCAN_MOST_NS ? pause : RESCAN_MOST_NS;
}

static void scan_ended_whole(struct flow *flow, size_t source, const struct scan_result *r) {
	struct flow_source *s = &flow->sources[source];
	const char *name = flow->policy->sources[source].name;
	int64_t again = RESCAN_NS;

	flow->figures.scans++;
	figures_scan_ended(&s->figures, &s->found, clock_wall_ns());
	if (r->unwatched != s->unwatched)
		log_event(r->unwatched ? LOG_LEVEL_WARNING : LOG_LEVEL_INFO, "source.watch",
			"source=%s mode=%s", name, r->unwatched ? "poll" : "events");
	s->unwatched = r->unwatched;
	if (s->unwatched || s->crowded || r->err.code != CEDE_OK)
		again = POLL_NS;
	s->failed_scans = r->failed > 0 ? s->failed_scans + 1 : 0;
	bool soon = s->failed_scans > 0 && s->failed_scans <= UNREADABLE_SOON;
	if (soon && again > POLL_NS)
		again = POLL_NS << (s->failed_scans - 1);
	int64_t least = least_pause(
		soon || s->unwatched || s->crowded || r->err.code != CEDE_OK, r->took_ns);
	if (again < least)
		again = least;
	s->next_scan_boot_ns = clock_boot_ns() + again;
	place_say(flow, source, &r->err);
	if (!s->missing && !flow->draining)
		sweep_settling(flow, source);
	if (r->failed > 0)
		log_event(LOG_LEVEL_WARNING, "source.unreadable", "source=%s names=%llu", name,
			(unsigned long long)r->failed);
}

static void on_scan_ended(void *ctx, size_t source, const char *path, struct scan_result *result) {
	struct flow *flow = ctx;
	struct flow_source *s = &flow->sources[source];

	s->scan = NULL;
	flow->scans--;
	if (s->idle) { /* the place was left meanwhile */
		fd_closep(&result->fd);
		flow_settled(flow);
		return;
	}
	if (result->fd >= 0)
		adopt_directory(flow, source, result->fd);
	if (result->err.code == CEDE_OK && !result->unwatched && result->failed == 0 &&
		!flow->stopping)
		history_listed(flow, source, path);
	if (path[0] == 0)
		scan_ended_whole(flow, source, result);
	else if (result->err.code != CEDE_OK || result->unwatched)
		s->scan_wanted = true;
	s->unlisted = s->unlisted || path[0] != 0;
	flow_settled(flow);
	if (s->scan_wanted)
		intake_scan(flow, source, "");
}

void intake_scan(struct flow *flow, size_t source, const char *path) {
	static const struct scan_events none = {0};
	struct flow_source *s = &flow->sources[source];
	struct scan_events events = none;
	struct cede_error err = {0};

	if (flow->draining || flow->stopping)
		return;
	/* a vault's directories change their places: what is open stays what it is, and what is not
	 * open is not at the source's path, where another is */
	bool as_opened = epochs_has_vault(flow, s->of);
	if (s->idle || epochs_is_closed(flow, source) || (as_opened && s->fd < 0)) {
		s->scan_wanted = false;
		return;
	}
	if (s->scan != NULL) { /* one at a time: the next goes over the whole source */
		s->scan_wanted = true;
		return;
	}
	s->scan_wanted = false;
	if (path[0] == 0) {
		figures_scan_begins(&s->found);
		s->crowded = s->unlisted = false;
	}
	events = (struct scan_events){.ctx = flow, .found = on_found, .ended = on_scan_ended};
	if (scan_start(flow->loop, flow->policy, source, as_opened ? s->fd : -1, path, flow->tree,
		    &events, &s->scan, &err) < 0) {
		log_event(LOG_LEVEL_ERROR, "scan.failed", "error=\"%s\"", err.text);
		s->scan_wanted = true;
		return;
	}
	flow->scans++;
}

void intake_resume(struct flow *flow) {
	if (flow_busy(flow))
		return;
	for (size_t i = 0; i < flow->policy->source_count; i++)
		if (flow->sources[i].scan != NULL)
			scan_more(flow->sources[i].scan);
	settle_arm(flow);
}

void intake_tick(struct flow *flow) {
	int64_t now = clock_boot_ns();

	for (size_t i = 0; i < flow->policy->source_count; i++) {
		struct flow_source *s = &flow->sources[i];
		if (s->scan == NULL && (s->scan_wanted || now >= s->next_scan_boot_ns))
			intake_scan(flow, i, "");
	}
	tree_drain(flow->tree);
	place_tick(flow);
	intake_resume(flow);
}

int intake_start(struct flow *flow, struct cede_error *reterr) {
	struct tree_events events = {.ctx = flow,
		.file = on_file,
		.directory = on_directory,
		.gap = on_gap,
		.life = history_event,
		.moved = history_moved};

	flow->reported_room = REPORTED_LEAST;
	flow->reported = calloc(REPORTED_LEAST, sizeof *flow->reported);
	if (flow->reported == NULL)
		return CEDE_FAIL_MEMORY(reterr);
	CEDE_TRY(settle_new(&flow->settle, reterr));
	CEDE_TRY(lives_new(&flow->lives, reterr));
	for (size_t i = 0; i < flow->policy->source_count; i++)
		/* a directory that is not there yet: the scans look for it again and again */
		if (!flow->sources[i].idle &&
			file_open_dir(AT_FDCWD, flow->policy->sources[i].path, &flow->sources[i].fd,
				NULL) < 0)
			flow->sources[i].fd = -1;
	return tree_new(flow->loop, &events, &flow->tree, reterr);
}

void intake_stop(struct flow *flow) {
	(void)uv_timer_stop(&flow->settle_timer);
	for (size_t i = 0; i < flow->policy->source_count; i++)
		if (flow->sources[i].scan != NULL)
			scan_stop(flow->sources[i].scan);
}
