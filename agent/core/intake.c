/* SPDX-License-Identifier: Apache-2.0 */
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "agent/core/flow_internal.h"
#include "base/check.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/log.h"

/* ---- what is found complete goes into the ledger */

struct seen { /* findings to be recorded; the ids are made on the ledger's thread */
	const struct policy *policy;
	struct findings ready;
	struct findings refused;
	struct findings gone; /* names without a file */
	uint64_t news;
	uint64_t lost;   /* captures that somebody else removed */
	bool destroy;    /* some are to be wiped without a proof */
	uint64_t *bytes; /* per source, of what is new */
	uint64_t *files;
};

static void seen_release(void *ctx) {
	struct seen *s = ctx;

	findings_done(&s->ready);
	findings_done(&s->refused);
	findings_done(&s->gone);
	free(s->bytes);
	free(s->files);
	free(s);
}

static int record_ready(struct ledger *ledger, struct seen *s, const struct finding *f, int64_t now,
	struct cede_error *reterr) {
	const struct policy_source *source = &s->policy->sources[f->source];
	enum ledger_seen result;
	int64_t row;
	struct ledger_capture c = {
		.state = CAPTURE_READY,
		.source = slice_str(source->name),
		.path = slice_str(f->path),
		.group = source->grouped ? group_stem(slice_str(f->path)) : SLICE_NONE,
		.identity = f->identity,
		.born_ns = f->decision.born_ns,
		.first_seen_ns = now,
		.deadline_ns = f->decision.deadline_ns,
		/* what is to be destroyed is never taken: disposal_expire() finds it */
		.not_before_ns = f->decision.action == ACTION_DESTROY ? INT64_MAX : 0,
		.segment_count = 1,
	};

	CEDE_TRY(id_make(now, &c.id, reterr));
	CEDE_TRY(ledger_capture_seen(ledger, &c, now, &result, &row, reterr));
	if (result == LEDGER_SEEN_KNOWN)
		return CEDE_OK;
	s->news += result == LEDGER_SEEN_NEW;
	if (f->decision.action == ACTION_DESTROY) {
		s->destroy = true;
		return CEDE_OK;
	}
	s->bytes[f->source] += f->identity.size;
	s->files[f->source]++;
	return CEDE_OK;
}

/* The names of refused files are personal data too: they go into the ledger, not into the log. */
static int record_refused(struct ledger *ledger, const struct seen *s, const struct finding *f,
	int64_t now, struct cede_error *reterr) {
	CLEANUP(buf_done) struct buf b = BUF_INIT(16384);
	const char *detail;

	CEDE_TRY(buf_addf(&b, reterr, "source=%s reason=%s path=", s->policy->sources[f->source].name,
		reason_name(f->decision.reason)));
	for (const char *p = f->path; *p != 0; p++)
		if ((unsigned char)*p <= 0x20 || (unsigned char)*p >= 0x7f || *p == '%')
			CEDE_TRY(buf_addf(&b, reterr, "%%%02x", (unsigned char)*p));
		else
			CEDE_TRY(buf_add(&b, p, 1, reterr));
	CEDE_TRY(buf_string(&b, &detail, reterr));
	return ledger_event(ledger, LEDGER_CAPTURE_REFUSED, NULL, now, detail, reterr);
}

static int seen_work(struct ledger *ledger, void *ctx, struct cede_error *reterr) {
	struct seen *s = ctx;
	int64_t now = clock_wall_ns();

	s->news = s->lost = 0; /* it may be the second try */
	memset(s->bytes, 0, s->policy->source_count * sizeof *s->bytes);
	memset(s->files, 0, s->policy->source_count * sizeof *s->files);
	for (size_t i = 0; i < s->ready.count; i++)
		CEDE_TRY(record_ready(ledger, s, &s->ready.items[i], now, reterr));
	for (size_t i = 0; i < s->refused.count; i++)
		CEDE_TRY(record_refused(ledger, s, &s->refused.items[i], now, reterr));
	for (size_t i = 0; i < s->gone.count; i++) {
		const struct finding *f = &s->gone.items[i];
		bool was_there;
		CEDE_TRY(ledger_capture_absent(ledger, slice_str(s->policy->sources[f->source].name),
			slice_str(f->path), now, &was_there, reterr));
		s->lost += was_there;
	}
	return CEDE_OK;
}

static void seen_done(struct flow *flow, void *ctx) {
	struct seen *s = ctx;
	bool some = false;

	flow->figures.seen += s->news;
	flow->figures.gone += s->lost;
	if (s->destroy)
		disposal_expire(flow);
	for (size_t i = 0; i < flow->policy->source_count; i++) {
		struct flow_source *source = &flow->sources[i];
		if (s->files[i] == 0)
			continue;
		some = true;
		source->ready_bytes += s->bytes[i];
		source->ready_files += s->files[i];
		flow->destinations[flow->policy->sources[i].destination].nothing = false;
	}
	if (some)
		handover_plan(flow);
	intake_resume(flow);
}

/* ---- what a scan or a check found */

static uint64_t hash_of(const struct finding *f) {
	const uint64_t prime = UINT64_C(1099511628211); /* FNV-1a */
	uint64_t h = UINT64_C(14695981039346656037);

	h = (h ^ f->source) * prime;
	h = (h ^ (uint64_t)f->decision.reason) * prime;
	for (const char *p = f->path; *p != 0; p++)
		h = (h ^ (uint8_t)*p) * prime;
	return h | 1;
}

/* Whether this refusal is new; remembers it (within bounds: then all over again). */
static bool is_news(struct flow *flow, const struct finding *f) {
	uint64_t h = hash_of(f);

	if (flow->reported_count >= REPORTED_MOST / 2) {
		memset(flow->reported, 0, REPORTED_MOST * sizeof *flow->reported);
		flow->reported_count = 0;
	}
	for (size_t i = h % REPORTED_MOST;; i = (i + 1) % REPORTED_MOST) {
		if (flow->reported[i] == h)
			return false;
		if (flow->reported[i] != 0)
			continue;
		flow->reported[i] = h;
		flow->reported_count++;
		return true;
	}
}

static int move_to(struct findings *to, struct finding *f) {
	if (to->count == to->room) {
		size_t room = to->room == 0 ? 64 : to->room * 2;
		struct finding *items = reallocarray(to->items, room, sizeof *items);
		if (items == NULL)
			return CEDE_ERR_IO;
		to->items = items;
		to->room = room;
	}
	to->items[to->count++] = *f;
	f->path = NULL;
	return CEDE_OK;
}

static void refused(struct flow *flow, struct seen *s, struct finding *f) {
	flow->sources[f->source].held_now++;
	if (!is_news(flow, f))
		return;
	flow->figures.refused++;
	log_event(LOG_LEVEL_WARNING,
		f->decision.action == ACTION_HOLD ? "capture.held" : "capture.refused",
		"source=%s reason=%s text=\"%s\"", flow->policy->sources[f->source].name,
		reason_name(f->decision.reason), reason_text(f->decision.reason));
	if (move_to(&s->refused, f) < 0)
		flow->sources[f->source].scan_wanted = true;
}

static struct seen *seen_new(const struct policy *policy) {
	struct seen *s = calloc(1, sizeof *s);

	if (s == NULL)
		return NULL;
	s->policy = policy;
	s->bytes = calloc(policy->source_count, sizeof *s->bytes);
	s->files = calloc(policy->source_count, sizeof *s->files);
	if (s->bytes == NULL || s->files == NULL) {
		seen_release(s);
		return NULL;
	}
	return s;
}

static void take_findings(struct flow *flow, struct findings *found) {
	struct seen *s = seen_new(flow->policy);
	int64_t now = clock_wall_ns();

	for (size_t i = 0; i < found->count; i++) {
		struct finding *f = &found->items[i];
		if (s == NULL) { /* no memory: the next scan finds them again */
			flow->sources[f->source].scan_wanted = true;
			continue;
		}
		if (f->gone && move_to(&s->gone, f) == CEDE_OK)
			continue; /* else the next scan asks again */
		switch (f->decision.action) {
		case ACTION_DESTROY:
		case ACTION_HAND_OVER:
			if (move_to(&s->ready, f) < 0)
				flow->sources[f->source].scan_wanted = true;
			break;
		case ACTION_WAIT:
			intake_look(flow, f->source, f->path, f->decision.not_before_ns - now);
			break;
		case ACTION_HOLD:
		case ACTION_REFUSE:
			refused(flow, s, f);
			break;
		case ACTION_IGNORE:
			break;
		}
	}
	findings_done(found);
	if (s == NULL)
		return;
	if (s->ready.count + s->refused.count + s->gone.count > 0)
		flow_record(flow, seen_work, seen_done, seen_release, s);
	else
		seen_release(s);
}

/* ---- names that settle */

struct check_job {
	struct flow *flow;

	struct {
		size_t source;
		int fd;
		char *path;
	} names[CHECK_BATCH];

	size_t count;
	struct findings found;
	size_t failed;
};

static void check_work(void *ctx) {
	struct check_job *job = ctx;
	int64_t now = clock_wall_ns();

	for (size_t i = 0; i < job->count; i++) {
		struct cede_error err = {0};
		if (check_path(job->flow->policy, job->names[i].source, job->names[i].fd,
			    job->names[i].path, now, &job->found, &err) < 0)
			job->failed++;
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
		take_findings(flow, &job->found);
	findings_done(&job->found);
	for (size_t i = 0; i < job->count; i++)
		free(job->names[i].path);
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
		if (flow->sources[source].fd < 0) { /* the scan that finds the directory finds it */
			flow->sources[source].scan_wanted = true;
			free(path);
			continue;
		}
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
		next == INT64_MAX || ledger_writer_waiting(flow->ledger) > LEDGER_BUSY) {
		(void)uv_timer_stop(&flow->settle_timer);
		return;
	}
	uint64_t ms = next <= now ? 0 : (uint64_t)((next - now) / NS_PER_MS) + 1;
	(void)uv_timer_start(&flow->settle_timer, on_settled, ms, 0);
}

void intake_look(struct flow *flow, size_t source, const char *path, int64_t after_ns) {
	struct cede_error err = {0};
	int64_t most = 3600 * NS_PER_SECOND;

	if (after_ns < 0)
		after_ns = 0;
	if (after_ns > most)
		after_ns = most;
	if (settle_add(flow->settle, source, path, clock_boot_ns() + after_ns, &err) < 0)
		flow->sources[source].scan_wanted = true; /* full: the tree itself remembers */
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

	flow->figures.gaps++;
	log_event(LOG_LEVEL_WARNING, "watch.overflow", "mend=scan");
	flow_record(flow, gap_work, NULL, NULL, NULL);
	for (size_t i = 0; i < flow->policy->source_count; i++)
		intake_scan(flow, i, "");
}

/* ---- scans */

static bool on_found(void *ctx, struct findings *found) {
	struct flow *flow = ctx;

	take_findings(flow, found);
	return ledger_writer_waiting(flow->ledger) <= LEDGER_BUSY;
}

static void adopt_directory(struct flow *flow, size_t source, int fd) {
	struct flow_source *s = &flow->sources[source];

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

	sweep_clear(s); /* of a first try */
	return ledger_settling(ledger, slice_str(s->flow->policy->sources[s->source].name),
		SWEEP_MOST, sweep_one, s, reterr);
}

static void sweep_done(struct flow *flow, void *ctx) {
	struct sweep *s = ctx;

	for (size_t i = 0; i < s->count && !flow->stopping; i++)
		intake_look(flow, s->source, s->paths[i], 0);
}

static void sweep_release(void *ctx) {
	struct sweep *s = ctx;

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
	s->paths = calloc(SWEEP_MOST, sizeof *s->paths);
	if (s->paths == NULL) {
		free(s);
		return;
	}
	flow_record(flow, sweep_work, sweep_done, sweep_release, s);
}

static void scan_ended_whole(struct flow *flow, size_t source, const struct scan_result *r) {
	struct flow_source *s = &flow->sources[source];
	const char *name = flow->policy->sources[source].name;
	int64_t again = RESCAN_NS;

	flow->figures.scans++;
	s->held_last = s->held_now;
	s->held_now = 0;
	if (r->unwatched != s->unwatched)
		log_event(r->unwatched ? LOG_LEVEL_WARNING : LOG_LEVEL_INFO, "source.watch",
			"source=%s mode=%s", name, r->unwatched ? "poll" : "events");
	s->unwatched = r->unwatched;
	if (s->unwatched || r->err.code != CEDE_OK)
		again = POLL_NS;
	if (again < 20 * r->took_ns)
		again = 20 * r->took_ns;
	s->next_scan_boot_ns = clock_boot_ns() + again;
	if (r->err.code != CEDE_OK && !s->missing)
		log_event(LOG_LEVEL_ERROR, "source.missing", "source=%s error=\"%s\"", name,
			r->err.text);
	if (r->err.code == CEDE_OK && s->missing)
		log_event(LOG_LEVEL_INFO, "source.back", "source=%s", name);
	s->missing = r->err.code != CEDE_OK;
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
	if (result->fd >= 0)
		adopt_directory(flow, source, result->fd);
	if (path[0] == 0)
		scan_ended_whole(flow, source, result);
	else if (result->err.code != CEDE_OK || result->unwatched)
		s->scan_wanted = true;
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
	if (s->scan != NULL) { /* one at a time: the next goes over the whole source */
		s->scan_wanted = true;
		return;
	}
	s->scan_wanted = false;
	if (path[0] == 0)
		s->held_now = 0;
	events = (struct scan_events){.ctx = flow, .found = on_found, .ended = on_scan_ended};
	if (scan_start(flow->loop, flow->policy, source, path, flow->tree, &events, &s->scan, &err) <
		0) {
		log_event(LOG_LEVEL_ERROR, "scan.failed", "error=\"%s\"", err.text);
		s->scan_wanted = true;
		return;
	}
	flow->scans++;
}

void intake_resume(struct flow *flow) {
	if (ledger_writer_waiting(flow->ledger) > LEDGER_BUSY)
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
	intake_resume(flow);
}

int intake_start(struct flow *flow, struct cede_error *reterr) {
	struct tree_events events = {
		.ctx = flow, .file = on_file, .directory = on_directory, .gap = on_gap};

	flow->reported = calloc(REPORTED_MOST, sizeof *flow->reported);
	if (flow->reported == NULL)
		return CEDE_FAIL_MEMORY(reterr);
	CEDE_TRY(settle_new(&flow->settle, reterr));
	for (size_t i = 0; i < flow->policy->source_count; i++)
		/* a directory that is not there yet: the scans look for it again and again */
		if (file_open_dir(AT_FDCWD, flow->policy->sources[i].path, &flow->sources[i].fd,
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
