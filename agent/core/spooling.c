/* SPDX-License-Identifier: Apache-2.0 */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "agent/core/flow_internal.h"
#include "agent/seal/spool.h"
#include "base/clock.h"
#include "base/log.h"

/* ---- the room of the spool */

/* How many more of the largest bundles go into it. */
static uint64_t spool_bundles(const struct flow *flow) {
	struct cede_error err = {0};
	uint64_t room;

	if (spool_room(flow->setup.spool_fd, flow->spool_bytes, flow->setup.spool_limit, &room,
		    &err) < 0)
		return 0;
	return room / flow->buffer_size;
}

/* Each bundle that may be on its way there counts until it is recorded. */
bool spooling_has_room(const struct flow *flow) {
	size_t coming = flow->spool_jobs;

	for (size_t i = 0; i < flow->policy->destination_count; i++)
		coming += flow->destinations[i].taking + flow->destinations[i].sealing;
	return spool_bundles(flow) > coming;
}

static int full_work(struct ledger *ledger, void *ctx, struct cede_error *reterr) {
	(void)ctx;
	return ledger_event(
		ledger, LEDGER_VIOLATION, NULL, clock_wall_ns(), "reason=spool-full", reterr);
}

void spooling_full(struct flow *flow) {
	if (flow->spool_full || spool_bundles(flow) > 0)
		return; /* said, or what is under way may need it: asked again */
	flow->spool_full = true;
	flow->figures.violations[VIOLATION_SPOOL_FULL]++;
	log_event(LOG_LEVEL_ERROR, "spool.full",
		"bytes=%llu limit=%llu effect=\"captures stay in their sources, in the clear\" "
		"mend=\"the link, or more room: spool.limit, the file system of the state directory\"",
		(unsigned long long)flow->spool_bytes, (unsigned long long)flow->setup.spool_limit);
	flow_record(flow, full_work, NULL, NULL, NULL);
}

/* ---- bundles that the spool is to lose */

/* One that could not be removed: tried again at each tick, and swept at the next start. */
struct leftover {
	struct leftover *next;
	struct id bundle;
	uint64_t size;
};

void spooling_remove(struct flow *flow, const struct id *bundle, uint64_t size) {
	struct cede_error err = {0};
	char id[ID_TEXT_SIZE];

	if (spool_remove(flow->setup.spool_fd, bundle, &err) == CEDE_OK)
		return;
	id_print(bundle, id);
	log_event(LOG_LEVEL_WARNING, "spool.leftover",
		"bundle=%s error=\"%s\" effect=\"tried again\" mend=\"look at the state directory's disk\"",
		id, err.text);
	struct leftover *l = malloc(sizeof *l);
	if (l == NULL)
		return; /* the next start has it */
	*l = (struct leftover){.next = flow->leftovers, .bundle = *bundle, .size = size};
	flow->leftovers = l;
	flow->spool_bytes += size;
}

static void remove_leftovers(struct flow *flow) {
	struct leftover **at = &flow->leftovers;

	while (*at != NULL) {
		struct leftover *l = *at;
		if (spool_remove(flow->setup.spool_fd, &l->bundle, NULL) < 0) {
			at = &l->next;
			continue;
		}
		*at = l->next;
		flow->spool_bytes -= l->size;
		free(l);
	}
}

/* ---- max_age near and no receipt: the sealed bundle goes to the disk, then the plaintext goes */

struct spooling {
	struct flow *flow;
	struct id bundle;
	int64_t row;
	int fd; /* the parcel's own copy, kept open until the job is done */
	uint64_t size;
	int result;
	struct cede_error err;
	struct capture_list to_wipe;
};

static void spool_work(void *ctx) {
	struct spooling *s = ctx;

	s->result = spool_copy(
		s->flow->setup.spool_fd, &s->bundle, s->fd, s->size, &s->flow->ends, &s->err);
}

static int spooled_work(struct ledger *ledger, void *ctx, struct cede_error *reterr) {
	struct spooling *s = ctx;
	int64_t now = clock_wall_ns();

	capture_list_done(&s->to_wipe);
	CEDE_TRY(ledger_bundle_spooled(ledger, s->row, now, reterr));
	CEDE_TRY(ledger_bundle_wiping(ledger, s->row, now, reterr));
	return ledger_bundle_captures(
		ledger, s->row, CAPTURE_WIPING, capture_list_add, &s->to_wipe, reterr);
}

static void spooled_done(struct flow *flow, void *ctx) {
	struct spooling *s = ctx;
	struct parcel *p = outbox_find(flow, &s->bundle);

	flow->spool_jobs--;
	if (p != NULL) {
		p->spooling = false;
		p->spooled = true;
		flow->spool_bytes += p->size;
	}
	disposal_add_all(flow, &s->to_wipe);
}

static void spooled_release(void *ctx) {
	struct spooling *s = ctx;
	struct flow *flow = s->flow;

	(void)close(s->fd);
	capture_list_done(&s->to_wipe);
	free(s);
	flow_settled(flow);
}

static void spool_done(void *ctx) {
	struct spooling *s = ctx;
	struct flow *flow = s->flow;
	struct parcel *p = outbox_find(flow, &s->bundle);

	if (s->result == CEDE_OK && p != NULL && p->state != PARCEL_CONFIRMED) {
		flow_record(flow, spooled_work, spooled_done, spooled_release, s);
		return;
	}
	flow->spool_jobs--;
	if (s->result < 0 && !flow->ends) /* else what stays in memory is said at the end */
		log_event(LOG_LEVEL_ERROR, "spool.failed", "error=\"%s\"", s->err.text);
	else if (s->result == CEDE_OK) /* the receipt came meanwhile */
		spooling_remove(flow, &s->bundle, s->size);
	if (p != NULL)
		p->spooling = false;
	spooled_release(s);
}

static void start(struct flow *flow, struct parcel *p) {
	if (!spooling_has_room(flow)) {
		spooling_full(flow);
		return;
	}
	struct spooling *s = calloc(1, sizeof *s);
	int fd = s == NULL ? -1 : dup(p->fd);

	if (fd < 0) {
		free(s);
		return; /* the tick tries again */
	}
	*s = (struct spooling){
		.flow = flow, .bundle = p->id, .row = p->row, .fd = fd, .size = p->size};
	p->spooling = true;
	flow->spool_jobs++;
	if (jobs_start(&flow->jobs, spool_work, spool_done, s, &s->err) < 0) {
		s->result = CEDE_ERR_IO;
		spool_done(s);
	}
}

/* ---- what must not stay in memory: its time is near, the process ends, or another policy comes */

static bool may_go_to_spool(const struct parcel *p) {
	return p->fd >= 0 && !p->spooled && p->may_spool && p->state != PARCEL_CONFIRMED;
}

/* The process ends; with a link that works the receipt may come before that. */
static bool leaves(const struct flow *flow, size_t destination) {
	return flow->draining && !flow->stopping &&
		(!link_up(flow->link, destination) ||
			clock_boot_ns() >= flow->drain_boot_ns + DRAIN_SPOOL_NS);
}

void spooling_keep(struct flow *flow, size_t destination) {
	struct flow_destination *d = &flow->destinations[destination];
	bool all = d->spools == SPOOLS_ALL || leaves(flow, destination);
	int64_t now = clock_wall_ns();

	if (!flow->running) /* recovery sweeps the spool */
		return;
	for (struct parcel *p = d->parcels; p != NULL; p = p->next)
		if (may_go_to_spool(p) && !p->spooling &&
			(all || p->urgent_ns <= now ||
				(d->spools == SPOOLS_SEGMENTS && p->segment_of != 0)))
			start(flow, p);
}

void spooling_retire(
	struct flow *flow, const struct policy *next, const struct flow_destination_keys *keys) {
	for (size_t i = 0; i < flow->policy->destination_count; i++) {
		struct flow_destination *d = &flow->destinations[i];
		const char *name = flow->policy->destinations[i].name;
		d->spools = SPOOLS_ALL;
		for (size_t k = 0; k < next->destination_count; k++)
			if (strcmp(next->destinations[k].name, name) == 0)
				/* the same agency, and it can't be asked; whole ones are sealed anew */
				d->spools =
					keys[k].changed && !keys[k].moved && !link_up(flow->link, i)
					? SPOOLS_SEGMENTS
					: SPOOLS_URGENT;
		spooling_keep(flow, i);
	}
}

/* The process ends: what goes with it, and was to be in the spool by max_age. */
static void say_unspooled(const struct flow *flow) {
	size_t n = 0;

	for (size_t i = 0; i < flow->policy->destination_count; i++)
		for (const struct parcel *p = flow->destinations[i].parcels; p != NULL; p = p->next)
			n += may_go_to_spool(p);
	if (n > 0)
		log_event(LOG_LEVEL_WARNING, "spool.unfinished",
			"bundles=%zu effect=\"their captures stay in the clear; the next start asks the agency, or seals them anew before max_age\" "
			"mend=\"the link; room in the spool, or a faster disk\"",
			n);
}

void spooling_inherit(struct flow *flow, struct flow *from) {
	while (from->leftovers != NULL) {
		struct leftover *l = from->leftovers;
		from->leftovers = l->next;
		l->next = flow->leftovers;
		flow->leftovers = l;
		flow->spool_bytes += l->size;
	}
}

void spooling_free(struct flow *flow) {
	say_unspooled(flow);
	while (flow->leftovers != NULL) {
		struct leftover *l = flow->leftovers;
		flow->leftovers = l->next;
		free(l);
	}
}

void spooling_tick(struct flow *flow) {
	remove_leftovers(flow);
	if (!flow->spool_full || !spooling_has_room(flow))
		return;
	flow->spool_full = false;
	log_event(LOG_LEVEL_INFO, "spool.room", "bytes=%llu", (unsigned long long)flow->spool_bytes);
}
