/* SPDX-License-Identifier: Apache-2.0
 * What a scan or a check found goes into the ledger: what is complete, what is refused, what is gone. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "agent/core/epochs.h"
#include "agent/core/flow_internal.h"
#include "agent/watch/facts.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/log.h"
#include "formats/detail.h"

struct seen_source {
	int fd;                /* its directory */
	const char *key;       /* its name in the ledger */
	uint64_t count;        /* findings of it */
	uint64_t bytes, files; /* of what is new */
	uint64_t news;
	struct ledger_remount remount;
};

struct seen { /* findings to be recorded; the ids are made on the ledger's thread */
	struct flow *flow;
	const struct policy *policy;
	struct findings ready;
	struct findings refused;
	struct findings gone; /* names without a file, or whose file is no capture any more */
	uint64_t violations[VIOLATION_COUNT];
	uint64_t lost; /* captures that somebody else removed */
	bool destroy;  /* some are to be wiped without a proof */
	struct seen_source *sources;
	struct id ids[ID_BATCH]; /* made ahead */
	size_t ids_left;
};

static int next_id(struct seen *s, int64_t now, struct id *ret, struct cede_error *reterr) {
	if (s->ids_left == 0) {
		CEDE_TRY(id_make_many(now, s->ids, ID_BATCH, reterr));
		s->ids_left = ID_BATCH;
	}
	*ret = s->ids[--s->ids_left];
	return CEDE_OK;
}

static void seen_release(void *ctx) {
	struct seen *s = ctx;

	for (size_t i = 0; s->sources != NULL && i < s->policy->source_count; i++)
		s->flow->sources[i].looks -= s->sources[i].count;
	findings_done(&s->ready);
	findings_done(&s->refused);
	findings_done(&s->gone);
	free(s->sources);
	free(s);
}

/* Found before it was wiped, and recorded after that: no capture, and no loss of one. */
static bool was_wiped(const struct seen *s, const struct finding *f) {
	struct decide_facts facts;
	struct file_identity identity;
	struct cede_error err = {0};
	struct stat st;

	/* the usual case in one call; what it does not find is looked for with care */
	if (fstatat(s->sources[f->source].fd, f->path, &st, AT_SYMLINK_NOFOLLOW) == 0)
		return false;
	return facts_of(s->sources[f->source].fd, f->path, &s->policy->sources[f->source],
		       clock_wall_ns(), &facts, &identity, &err) < 0 &&
		(err.sys == ENOENT || err.sys == ENOTDIR);
}

/* The ledger may have seen the name earlier than any of the file's times: then that counts. */
static int decide_known_file(struct ledger *ledger, const struct seen *s, struct finding *f,
	int64_t now, bool *ret_known, bool *ret_stale, struct cede_error *reterr) {
	const struct policy_source *source = &s->policy->sources[f->source];
	struct decide_known known = {0};

	CEDE_TRY(ledger_first_seen(ledger, slice_str(s->sources[f->source].key), slice_str(f->path),
		&known.first_seen_ns, reterr));
	*ret_known = known.first_seen_ns != 0;
	*ret_stale = !*ret_known && was_wiped(s, f);
	if (known.first_seen_ns == 0 || known.first_seen_ns >= f->decision.born_ns)
		return CEDE_OK;
	struct decision d = decide(s->policy, source, &f->facts, &known, now);
	if (d.action == ACTION_HAND_OVER || d.action == ACTION_DESTROY)
		f->decision = d;
	return CEDE_OK;
}

/* What goes on its way although it should not have come to this. */
static int record_violation(struct ledger *ledger, struct seen *s, const struct finding *f,
	int64_t row, int64_t now, struct cede_error *reterr) {
	char detail[160];

	if (!reason_is_finding(f->decision.reason) || f->decision.action != ACTION_HAND_OVER)
		return CEDE_OK;
	s->violations[f->decision.reason == REASON_GROUP_INCOMPLETE ? VIOLATION_GROUP_INCOMPLETE
								    : VIOLATION_OVERDUE]++;
	(void)snprintf(detail, sizeof detail, "source=%s reason=%s row=%lld",
		s->policy->sources[f->source].name, reason_name(f->decision.reason), (long long)row);
	return ledger_event(ledger, LEDGER_VIOLATION, NULL, now, detail, reterr);
}

static int record_ready(struct ledger *ledger, struct seen *s, struct finding *f, int64_t now,
	struct cede_error *reterr) {
	const struct policy_source *source = &s->policy->sources[f->source];
	enum ledger_seen result;
	int64_t row;
	bool known, stale;

	CEDE_TRY(decide_known_file(ledger, s, f, now, &known, &stale, reterr));
	if (stale)
		return CEDE_OK;
	struct ledger_capture c = {
		.state = CAPTURE_READY,
		.source = slice_str(s->sources[f->source].key),
		.path = slice_str(f->path),
		.group = source->grouped ? group_stem(slice_str(f->path)) : SLICE_NONE,
		.classification = slice_str(source->classification),
		.identity = f->identity,
		.born_ns = f->decision.born_ns,
		.first_seen_ns = now,
		.deadline_ns = f->decision.deadline_ns,
		/* what is to be destroyed is never taken: release_expire() finds it */
		.not_before_ns = f->decision.action == ACTION_DESTROY ? INT64_MAX : 0,
		.segment_count = 1,
	};

	CEDE_TRY(next_id(s, now, &c.id, reterr));
	if (known) {
		CEDE_TRY(ledger_capture_seen(ledger, &c, now, &result, &row, reterr));
	} else {
		CEDE_TRY(ledger_capture_add(ledger, &c, now, &row, reterr));
		result = LEDGER_SEEN_NEW;
	}
	struct ledger_remount remount = ledger_take_remount(ledger);
	if (remount.happened)
		s->sources[f->source].remount = remount;
	if (result == LEDGER_SEEN_KNOWN)
		return CEDE_OK;
	CEDE_TRY(record_violation(ledger, s, f, row, now, reterr));
	s->sources[f->source].news += result == LEDGER_SEEN_NEW;
	if (f->decision.action == ACTION_DESTROY) {
		s->destroy = true;
		return CEDE_OK;
	}
	s->sources[f->source].bytes += f->identity.size;
	s->sources[f->source].files++;
	return CEDE_OK;
}

/* The names of refused files are personal data too: they go into the ledger, not into the log. */
static int record_refused(struct ledger *ledger, const struct seen *s, const struct finding *f,
	int64_t now, struct cede_error *reterr) {
	CLEANUP(buf_done) struct buf b = BUF_INIT(16384);
	const char *detail;

	CEDE_TRY(detail_add(&b, "source", slice_str(s->policy->sources[f->source].name), reterr));
	CEDE_TRY(detail_add(&b, "reason", slice_str(reason_name(f->decision.reason)), reterr));
	if (f->decision.born_ns > 0) /* what a walk can't get at has no times */
		CEDE_TRY(detail_add_i64(&b, "born", f->decision.born_ns, reterr));
	CEDE_TRY(detail_add(&b, "path", slice_str(f->path), reterr));
	CEDE_TRY(buf_string(&b, &detail, reterr));
	return ledger_event(ledger, LEDGER_CAPTURE_REFUSED, NULL, now, detail, reterr);
}

static int seen_work(struct ledger *ledger, void *ctx, struct cede_error *reterr) {
	struct seen *s = ctx;
	int64_t now = clock_wall_ns();

	s->lost = 0; /* it may be the second try */
	s->ids_left = 0;
	memset(s->violations, 0, sizeof s->violations);
	for (size_t i = 0; i < s->policy->source_count; i++)
		s->sources[i] = (struct seen_source){.fd = s->sources[i].fd,
			.key = s->sources[i].key,
			.count = s->sources[i].count};
	for (size_t i = 0; i < s->ready.count; i++)
		CEDE_TRY(record_ready(ledger, s, &s->ready.items[i], now, reterr));
	for (size_t i = 0; i < s->refused.count; i++)
		CEDE_TRY(record_refused(ledger, s, &s->refused.items[i], now, reterr));
	for (size_t i = 0; i < s->gone.count; i++) {
		const struct finding *f = &s->gone.items[i];
		bool was_there;
		CEDE_TRY(ledger_capture_absent(ledger, slice_str(s->sources[f->source].key),
			slice_str(f->path), f->identity.dev, now, &was_there, reterr));
		s->lost += was_there;
	}
	return CEDE_OK;
}

static void seen_done(struct flow *flow, void *ctx) {
	struct seen *s = ctx;
	bool some = false;

	flow->figures.gone += s->lost;
	for (int i = 0; i < VIOLATION_COUNT; i++) {
		flow->figures.violations[i] += s->violations[i];
		if (s->violations[i] > 0)
			log_event(LOG_LEVEL_WARNING, "capture.violation",
				"captures=%llu reason=%s effect=\"handed over\"",
				(unsigned long long)s->violations[i],
				violation_name((enum violation)i));
	}
	if (s->destroy)
		release_expire(flow);
	for (size_t i = 0; i < flow->policy->source_count; i++) {
		struct flow_source *source = &flow->sources[i];
		source->figures.seen += s->sources[i].news;
		if (s->sources[i].remount.happened)
			disposal_remounted(flow, i, &s->sources[i].remount);
		if (s->sources[i].files == 0)
			continue;
		some = true;
		source->ready_bytes += s->sources[i].bytes;
		source->ready_files += s->sources[i].files;
		flow->destinations[flow->policy->sources[i].destination].nothing = false;
	}
	if (some)
		handover_plan(flow);
	intake_resume(flow);
}

/* ---- what a scan or a check found */

static uint64_t hash_of(const struct finding *f, uint64_t place) {
	const uint64_t prime = UINT64_C(1099511628211); /* FNV-1a */
	uint64_t h = UINT64_C(14695981039346656037);

	h = (h ^ place) * prime;
	h = (h ^ (uint64_t)f->decision.reason) * prime;
	for (const char *p = f->path; *p != 0; p++)
		h = (h ^ (uint8_t)*p) * prime;
	return h | 1;
}

/* The place of a hash, or the free one where it belongs. */
static uint64_t *reported_at(uint64_t *table, size_t room, uint64_t h) {
	size_t i = h % room;

	while (table[i] != 0 && table[i] != h)
		i = (i + 1) % room;
	return &table[i];
}

static bool reported_grow(struct flow *flow) {
	size_t room = flow->reported_room * 2;
	uint64_t *table = room > REPORTED_MOST ? NULL : calloc(room, sizeof *table);

	if (table == NULL)
		return false;
	for (size_t i = 0; i < flow->reported_room; i++)
		if (flow->reported[i] != 0)
			*reported_at(table, room, flow->reported[i]) = flow->reported[i];
	free(flow->reported);
	flow->reported = table;
	flow->reported_room = room;
	return true;
}

/* Whether this refusal is new; remembers it. There is a limit: half a million files that nobody wants
 * must not write themselves into the ledger with every scan. What is above it is counted alone. */
static bool is_news(struct flow *flow, const struct finding *f) {
	uint64_t h = hash_of(f, epochs_number(flow, f->source));
	uint64_t *at = reported_at(flow->reported, flow->reported_room, h);

	if (*at == h)
		return false;
	if (flow->reported_count >= flow->reported_room / 2) {
		if (!reported_grow(flow)) {
			if (!flow->reported_full)
				log_event(LOG_LEVEL_ERROR, "capture.refused-many",
					"effect=\"further files that stay are counted (cede_reported_files), not named in the ledger\"");
			flow->reported_full = true;
			return false;
		}
		at = reported_at(flow->reported, flow->reported_room, h);
	}
	*at = h;
	flow->reported_count++;
	return true;
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

static struct seen *seen_new(struct flow *flow) {
	const struct policy *policy = flow->policy;
	struct seen *s = calloc(1, sizeof *s);

	if (s == NULL)
		return NULL;
	s->flow = flow;
	s->policy = policy;
	s->sources = calloc(policy->source_count, sizeof *s->sources);
	if (s->sources == NULL) {
		seen_release(s);
		return NULL;
	}
	for (size_t i = 0; i < policy->source_count; i++) {
		s->sources[i].fd = flow->sources[i].fd;
		s->sources[i].key = flow->sources[i].key;
	}
	return s;
}

/* A link or a pipe has the name of what may have been a capture: that one is gone, whoever took it. */
static void not_there(struct flow *flow, struct seen *s, const struct finding *f) {
	struct finding gone = {.source = f->source, .path = strdup(f->path), .gone = true};

	if (gone.path == NULL || move_to(&s->gone, &gone) < 0) {
		free(gone.path);
		flow->sources[f->source].scan_wanted = true;
	}
}

/* A place can't end while something found in it is on its way into the ledger. */
static void count_looks(struct flow *flow, struct seen *s, const struct findings *f) {
	for (size_t i = 0; i < f->count; i++) {
		s->sources[f->items[i].source].count++;
		flow->sources[f->items[i].source].looks++;
	}
}

static int by_deadline(const void *a, const void *b) {
	const struct finding *x = a;
	const struct finding *y = b;
	int64_t one = x->decision.deadline_ns;
	int64_t other = y->decision.deadline_ns;

	return one == other ? strcmp(x->path, y->path) : one < other ? -1 : 1;
}

void found_take(struct flow *flow, struct findings *found, bool settled) {
	struct seen *s = seen_new(flow);
	int64_t now = clock_wall_ns();

	tree_drain(flow->tree); /* what was made before it was found is told first */
	for (size_t i = 0; i < found->count; i++) {
		struct finding *f = &found->items[i];
		if (!f->gone)
			history_found(flow, f->source, f->path);
		if (s == NULL) { /* no memory: the next scan finds them again */
			flow->sources[f->source].scan_wanted = true;
			continue;
		}
		if (!settled && !f->beside)
			figures_found(&flow->sources[f->source].found,
				&flow->policy->sources[f->source], f, now);
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
			if (settled)
				flow->sources[f->source].unlisted = true;
			if (settled &&
				(f->decision.reason == REASON_SYMLINK ||
					f->decision.reason == REASON_SPECIAL))
				not_there(flow, s, f);
			refused(flow, s, f);
			break;
		case ACTION_IGNORE:
			break;
		}
	}
	findings_done(found);
	if (s == NULL)
		return;
	/* in the order in which they will be taken: bundle by bundle their rows stand together */
	if (s->ready.count > 1)
		qsort(s->ready.items, s->ready.count, sizeof *s->ready.items, by_deadline);
	count_looks(flow, s, &s->ready);
	count_looks(flow, s, &s->refused);
	count_looks(flow, s, &s->gone);
	if (s->ready.count + s->refused.count + s->gone.count > 0)
		flow_record(flow, seen_work, seen_done, seen_release, s);
	else
		seen_release(s);
}
