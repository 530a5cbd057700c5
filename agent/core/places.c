/* SPDX-License-Identifier: Apache-2.0
 * Whether each source is still where it was: what is mounted at its path, and under which number. */
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "agent/core/epochs.h"
#include "agent/core/flow_internal.h"
#include "agent/ledger/epoch.h"
#include "base/clock.h"
#include "base/log.h"

struct opened {
	char source[EPOCH_SOURCE_SIZE]; /* its name in the ledger */
	size_t index;
	struct file_place place;
	struct ledger_remount remount;
};

static int opened_work(struct ledger *ledger, void *ctx, struct cede_error *reterr) {
	struct opened *o = ctx;

	CEDE_TRY(ledger_source_opened(
		ledger, slice_str(o->source), &o->place, clock_wall_ns(), reterr));
	o->remount = ledger_take_remount(ledger);
	return CEDE_OK;
}

static void opened_done(struct flow *flow, void *ctx) {
	const struct opened *o = ctx;

	if (o->remount.happened)
		disposal_remounted(flow, o->index, &o->remount);
}

/* Another directory than before, or the same mounted anew. */
void place_opened(struct flow *flow, size_t source, int fd) {
	struct opened *o = calloc(1, sizeof *o);

	if (o == NULL || file_place_of(fd, &o->place, NULL) < 0) {
		free(o);
		return; /* at the next scan */
	}
	(void)snprintf(o->source, sizeof o->source, "%s", flow->sources[source].key);
	o->index = source;
	flow_record(flow, opened_work, opened_done, free, o);
}

struct notice {
	struct flow *flow;
	enum ledger_event kind;
	char detail[320];
};

static int notice_work(struct ledger *ledger, void *ctx, struct cede_error *reterr) {
	const struct notice *n = ctx;

	return ledger_event(ledger, n->kind, NULL, clock_wall_ns(), n->detail, reterr);
}

void place_notice(struct flow *flow, size_t source, enum ledger_event kind, const char *more) {
	struct notice *n = calloc(1, sizeof *n);

	if (n == NULL)
		return; /* it is in the log */
	n->kind = kind;
	(void)snprintf(n->detail, sizeof n->detail, "source=%s%s",
		flow->policy->sources[source].name, more);
	flow_record(flow, notice_work, NULL, free, n);
}

void place_denied(struct flow *flow, size_t place) {
	struct flow_source *s = &flow->sources[flow->sources[place].of];

	if (s->denied || clock_boot_ns() < s->denied_boot_ns)
		return;
	s->denied_boot_ns = clock_boot_ns() + DENIED_NS;
	s->denied = flow->setup.denied(flow->setup.ctx, flow->sources[place].of);
}

/* The directory is not there; or it is, but captures that the ledger knows are on another file
 * system: those wait, and what is found in the directory goes its way. */
void place_set_absent(
	struct flow *flow, size_t source, bool missing, bool elsewhere, const char *why) {
	struct flow_source *s = &flow->sources[source];
	const char *name = flow->policy->sources[source].name;
	bool was = s->missing || s->elsewhere;

	s->missing = missing;
	s->elsewhere = elsewhere;
	if (was == (missing || elsewhere))
		return;
	if (was) {
		flow->sources[s->of].denied = false;
		log_event(LOG_LEVEL_INFO, "source.back", "source=%s", name);
		place_notice(flow, source, LEDGER_SOURCE_BACK, "");
		return;
	}
	log_event(LOG_LEVEL_ERROR, "source.missing",
		"source=%s error=\"%s\" effect=\"its captures wait\"", name, why);
	place_notice(flow, source, LEDGER_SOURCE_MISSING,
		missing ? " cause=unreachable" : " cause=other-file-system");
}

static void say_changed(struct flow *flow, size_t source, bool other_file_system) {
	flow->sources[flow->sources[source].of].denied = false;
	log_event(LOG_LEVEL_WARNING, "source.changed",
		"source=%s text=\"another directory is at its path now\"",
		flow->policy->sources[source].name);
	place_notice(flow, source, LEDGER_SOURCE_CHANGED,
		other_file_system ? " file-system=other" : " file-system=same");
}

void place_say(struct flow *flow, size_t source, const struct cede_error *err) {
	struct flow_source *s = &flow->sources[source];
	struct stat st;

	if (err->code != CEDE_OK) {
		place_set_absent(flow, source, true, s->elsewhere, err->text);
		return;
	}
	if (s->missing)
		place_set_absent(flow, source, false, s->elsewhere, "");
	if (s->fd < 0 || fstat(s->fd, &st) < 0)
		return;
	if (s->dev != 0 && (s->dev != st.st_dev || s->ino != st.st_ino))
		say_changed(flow, source, s->dev != st.st_dev);
	if (s->dev != 0 && s->dev != st.st_dev)
		s->kept_look = KEPT_DUE; /* the storage may be another */
	s->dev = st.st_dev;
	s->ino = st.st_ino;
}

struct places {
	struct flow *flow;
	size_t count;

	struct {
		const char *path; /* of the policy */
		size_t place;     /* that it led to */
		int fd;           /* of that; borrowed, or -1 */
		bool changed;
		bool there; /* something is at the path */
		bool other_file_system;
	} list[];
};

static void places_work(void *ctx) {
	struct places *p = ctx;
	struct stat at;
	struct stat of;

	for (size_t i = 0; i < p->count; i++) {
		if (p->list[i].fd < 0 || fstat(p->list[i].fd, &of) < 0)
			continue;
		p->list[i].there = stat(p->list[i].path, &at) == 0;
		p->list[i].other_file_system = p->list[i].there && at.st_dev != of.st_dev;
		p->list[i].changed =
			!p->list[i].there || p->list[i].other_file_system || at.st_ino != of.st_ino;
	}
}

/* The place that the path of a source leads to. */
static size_t place_at_path(const struct flow *flow, size_t source) {
	size_t place = source;

	if (flow->sources[source].idle || flow->sources[source].epoch != NULL)
		return epochs_at_path(flow, source, &place) ? place : SIZE_MAX;
	return place;
}

static void changed_vault(struct flow *flow, const struct places *p, size_t source) {
	size_t now = place_at_path(flow, source);

	/* a turn may have come between */
	if (now != p->list[source].place || !epochs_displaced(flow, source))
		return;
	if (p->list[source].there)
		say_changed(flow, source, p->list[source].other_file_system);
	flow->sources[now].dev = 0; /* said */
}

static void places_done(void *ctx) {
	struct places *p = ctx;
	struct flow *flow = p->flow;

	flow->looking = false;
	flow->place_boot_ns = clock_boot_ns() + PLACE_NS;
	for (size_t i = 0; i < p->count; i++) {
		struct flow_source *s = &flow->sources[p->list[i].place];
		if (p->list[i].fd >= 0)
			s->looks--;
		if (!p->list[i].changed || flow->stopping || flow->draining)
			continue;
		if (s->missing)
			continue; /* it is looked for */
		if (epochs_has_vault(flow, i))
			changed_vault(flow, p, i);
		else
			intake_scan(flow, i, "");
	}
	free(p);
	flow_settled(flow);
}

/* Something may have been mounted or unmounted at a source's path, or the directory renamed: no
 * event tells of that. A file system that hangs holds up this job alone. */
void place_tick(struct flow *flow) {
	size_t n = flow->source_count;
	struct places *p;
	struct cede_error err = {0};

	if (flow->looking || flow->draining || clock_boot_ns() < flow->place_boot_ns)
		return;
	p = calloc(1, sizeof *p + n * sizeof p->list[0]);
	if (p == NULL)
		return;
	p->flow = flow;
	p->count = n;
	for (size_t i = 0; i < n; i++) {
		size_t place = place_at_path(flow, i);
		p->list[i].path = flow->policy->sources[i].path;
		p->list[i].place = place == SIZE_MAX ? i : place;
		p->list[i].fd = place == SIZE_MAX ? -1 : flow->sources[place].fd;
	}
	flow->looking = jobs_start(&flow->jobs, places_work, places_done, p, &err) == CEDE_OK;
	for (size_t i = 0; flow->looking && i < n; i++)
		if (p->list[i].fd >= 0) /* it stays what it is */
			flow->sources[p->list[i].place].looks++;
	if (!flow->looking)
		free(p);
}
