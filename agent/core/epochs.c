/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/core/epochs.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent/core/epochs_internal.h"
#include "base/bytes.h"
#include "base/check.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/log.h"

/* ---- places */

static size_t count_vaults(const struct policy *policy) {
	size_t n = 0;

	for (size_t i = 0; i < policy->source_count; i++)
		n += policy->sources[i].vault_epoch_ns > 0;
	return n;
}

static void idle_place(struct flow_source *s) {
	struct flow_source was = *s; /* what is under way still ends */

	*s = (struct flow_source){.fd = -1,
		.key = "",
		.idle = true,
		.next_scan_boot_ns = INT64_MAX,
		.scan = was.scan,
		.looks = was.looks,
		.names.running = was.names.running};
	figures_reset(&s->figures);
}

int epochs_start(struct flow *flow, struct cede_error *reterr) {
	const struct policy *policy = flow->setup.policy;
	size_t n = policy->source_count;
	/* a vault may have been there under an earlier policy: its epochs still end */
	size_t places = n + EPOCHS_SPARE + EPOCHS_MOST * count_vaults(policy);

	flow->source_count = n;
	flow->sources = calloc(places, sizeof *flow->sources);
	flow->vaults = calloc(n, sizeof *flow->vaults);
	flow->places = *policy;
	flow->places.sources = calloc(places, sizeof *flow->places.sources);
	if (flow->sources == NULL || flow->vaults == NULL || flow->places.sources == NULL)
		return CEDE_FAIL_MEMORY(reterr);
	memcpy(flow->places.sources, policy->sources, n * sizeof *policy->sources);
	flow->places.source_count = places;
	flow->policy = &flow->places;
	for (size_t i = 0; i < places; i++) {
		idle_place(&flow->sources[i]);
		if (i >= n)
			continue;
		flow->sources[i].key = policy->sources[i].name;
		flow->sources[i].of = i;
		flow->vaults[i].wanted = policy->sources[i].vault_epoch_ns > 0;
		flow->sources[i].idle = flow->vaults[i].wanted;
	}
	return CEDE_OK;
}

void epochs_free(struct flow *flow) {
	for (size_t i = 0; flow->sources != NULL && i < flow->places.source_count; i++) {
		fd_closep(&flow->sources[i].fd);
		free(flow->sources[i].epoch);
	}
	for (size_t i = 0; flow->vaults != NULL && i < flow->source_count; i++)
		place_close(flow->vaults[i].place);
	free(flow->sources);
	free(flow->vaults);
	free(flow->places.sources);
}

bool epochs_take_place(
	struct flow *flow, size_t source, int fd, struct epoch *epoch, size_t *ret_place) {
	size_t i = source;

	if (epoch->encrypted)
		for (i = flow->source_count; i < flow->places.source_count; i++)
			if (flow->sources[i].epoch == NULL && flow->sources[i].looks == 0)
				break;
	if (i == flow->places.source_count || flow->sources[i].epoch != NULL ||
		flow->sources[i].scan != NULL || flow->sources[i].fd >= 0)
		return false;
	flow->places.sources[i] = flow->setup.policy->sources[source];
	idle_place(&flow->sources[i]);
	flow->sources[i].fd = fd;
	flow->sources[i].key =
		epoch->encrypted ? epoch->ledger.source : flow->setup.policy->sources[source].name;
	flow->sources[i].of = source;
	flow->sources[i].idle = false;
	flow->sources[i].epoch = epoch;
	*ret_place = i;
	return true;
}

void epochs_leave_place(struct flow *flow, size_t place) {
	struct flow_source *s = &flow->sources[place];

	struct source_figures since = s->figures;
	size_t of = s->of;

	fd_closep(&s->fd);
	free(s->epoch);
	idle_place(s);
	if (place < flow->source_count) {
		s->key = flow->setup.policy->sources[place].name;
		s->of = place;
	}
	/* what was counted stays the source's */
	figures_add_since(&flow->sources[of].figures, &since);
	flow_settled(flow);
}

void epochs_close_left(struct flow *flow, size_t source) {
	struct flow_source *s = &flow->sources[source];

	if (s->idle && s->scan == NULL && s->looks == 0 && !s->names.running && flow->wipe_jobs == 0)
		fd_closep(&s->fd);
}

size_t epochs_of(const struct flow *flow, size_t source) {
	size_t n = 0;

	for (size_t i = 0; i < flow->places.source_count; i++)
		n += flow->sources[i].epoch != NULL && flow->sources[i].of == source;
	return n;
}

const char *epochs_name(const struct epoch *e, char out[FSCRYPT_ID_TEXT]) {
	if (e->encrypted)
		fscrypt_id_print(&e->id, out);
	else
		(void)snprintf(out, FSCRYPT_ID_TEXT, PLACE_BEFORE);
	return out;
}

bool epochs_is_closed(const struct flow *flow, size_t source) {
	const struct epoch *e = flow->sources[source].epoch;

	return flow->sources[source].idle ||
		(e != NULL && (e->step > STEP_DRAINING || e->gone || e->away || e->lost || e->locked));
}

bool epochs_is_lost(const struct flow *flow, size_t source) {
	const struct epoch *e = flow->sources[source].epoch;

	return e != NULL && e->lost;
}

bool epochs_has_key(const struct flow *flow, size_t source) {
	const struct epoch *e = flow->sources[source].epoch;

	/* without a vault in the policy nothing would ever end the open one */
	return e != NULL && e->encrypted &&
		(e->step != STEP_OPEN || flow->vaults[flow->sources[source].of].wanted);
}

uint64_t epochs_number(const struct flow *flow, size_t source) {
	const struct epoch *e = flow->sources[source].epoch;

	return e != NULL && e->encrypted ? get_le64(e->id.bytes) : source;
}

/* ---- what is said */

struct said {
	char detail[320];
};

static int said_work(struct ledger *ledger, void *ctx, struct cede_error *reterr) {
	const struct said *s = ctx;

	return ledger_event(ledger, LEDGER_VIOLATION, NULL, clock_wall_ns(), s->detail, reterr);
}

void epochs_say_unavailable(struct flow *flow, size_t source, const char *why) {
	struct vault *v = &flow->vaults[source];
	const char *name = flow->policy->sources[source].name;

	if (why == NULL) {
		if (v->why[0] != 0)
			log_event(LOG_LEVEL_INFO, "vault.back", "source=%s", name);
		v->why[0] = 0;
		return;
	}
	bool news = v->why[0] == 0;
	(void)snprintf(v->why, sizeof v->why, "%s", why);
	if (!news)
		return;
	log_event(LOG_LEVEL_ERROR, "vault.unavailable",
		"source=%s error=\"%s\" effect=\"captures are overwritten and not crypto-erased, or wait\"",
		name, why);
	flow->figures.violations[VIOLATION_VAULT]++;
	struct said *s = calloc(1, sizeof *s);
	if (s == NULL)
		return; /* it is in the log */
	(void)snprintf(s->detail, sizeof s->detail, "source=%s reason=vault-unavailable", name);
	flow_record(flow, said_work, NULL, free, s);
}

void epochs_figures(const struct flow *flow, struct flow_figures *ret) {
	int64_t oldest = INT64_MAX;

	ret->vault_epochs = ret->vault_kept = ret->vault_unavailable = 0;
	for (size_t i = 0; i < flow->places.source_count; i++) {
		const struct epoch *e = flow->sources[i].epoch;
		if (e == NULL || !e->encrypted)
			continue;
		ret->vault_epochs++;
		ret->vault_kept += e->kept != NULL;
		if (e->ledger.made_ns < oldest)
			oldest = e->ledger.made_ns;
	}
	for (size_t i = 0; i < flow->source_count; i++)
		ret->vault_unavailable += flow->vaults[i].why[0] != 0;
	ret->vault_oldest_ns = oldest;
}

/* ---- another directory at the path */

bool epochs_at_path(const struct flow *flow, size_t source, size_t *ret_place) {
	const struct vault *v = &flow->vaults[source];

	if (!v->has_current || v->opening || v->turning || v->displaced)
		return false;
	*ret_place = v->current;
	return true;
}

bool epochs_has_vault(const struct flow *flow, size_t source) {
	return flow->vaults[source].wanted || flow->vaults[source].failed ||
		epochs_of(flow, source) > 0;
}

bool epochs_displaced(struct flow *flow, size_t source) {
	struct vault *v = &flow->vaults[source];

	if (v->opening || v->turning || v->displaced)
		return false;
	for (size_t i = 0; i < flow->places.source_count; i++)
		if (flow->sources[i].epoch != NULL && flow->sources[i].of == source)
			flow->sources[i].epoch->away = true; /* no step of its end is begun */
	v->displaced = true;
	v->has_current = v->staged = false;
	return true;
}

void epochs_forget_plain(struct flow *flow, size_t source) {
	struct flow_source *s = &flow->sources[source];

	if (s->epoch != NULL && !s->epoch->encrypted && s->epoch->away) {
		free(s->epoch);
		s->epoch = NULL;
	}
}

/* When no step is under way: the file system may be another, and with it the store. */
static void look_anew(struct flow *flow, size_t source) {
	struct vault *v = &flow->vaults[source];
	bool any = v->wanted || v->failed;

	for (size_t i = 0; i < flow->places.source_count; i++) {
		const struct epoch *e = flow->sources[i].epoch;
		if (e == NULL || flow->sources[i].of != source)
			continue;
		if (e->busy)
			return;
		any = any || e->encrypted;
	}
	v->displaced = false;
	place_close(CEDE_TAKE(v->place));
	if (any) {
		epochs_open_one(flow, source);
		return;
	}
	epochs_forget_plain(flow, source);
	intake_scan(flow, source, "");
}

static bool is_away(const struct epoch *e) {
	return e->away;
}

static bool is_encrypted(const struct epoch *e) {
	return e->encrypted;
}

static bool has_any(const struct flow *flow, size_t source, bool (*is)(const struct epoch *e)) {
	for (size_t i = 0; i < flow->places.source_count; i++)
		if (flow->sources[i].epoch != NULL && flow->sources[i].of == source &&
			is(flow->sources[i].epoch))
			return true;
	return false;
}

/* What is at the path had to wait for an earlier directory, and has no place yet. */
static bool waits_for_place(const struct flow *flow, size_t source) {
	const struct vault *v = &flow->vaults[source];

	return (v->wanted || has_any(flow, source, is_encrypted)) &&
		(v->place == NULL || !v->has_current);
}

/* All that was left of an earlier policy's vault has ended: a source like any other. */
static void go_on_without(struct flow *flow, size_t source) {
	epochs_say_unavailable(flow, source, NULL);
	flow->vaults[source].has_current = flow->vaults[source].waits = false;
	flow->sources[source].idle = false;
	intake_scan(flow, source, "");
}

/* ---- each second */

/* Where it is away, or the store is not open, the look that finds it tries its key. */
static bool is_to_be_unlocked(const struct flow *flow, size_t place) {
	const struct flow_source *s = &flow->sources[place];

	return s->epoch != NULL && s->epoch->locked && !s->epoch->away &&
		flow->vaults[s->of].place != NULL;
}

static void tick_source(struct flow *flow, size_t source, int64_t now) {
	const struct flow_source *own = &flow->sources[source];
	struct vault *v = &flow->vaults[source];

	epochs_close_left(flow, source);
	if (v->opening || v->turning)
		return;
	if (v->displaced) {
		look_anew(flow, source);
		return;
	}
	if (now >= v->find_boot_ns && !v->staged && has_any(flow, source, is_away)) {
		epochs_open_one(flow, source);
		return;
	}
	if (!epochs_has_vault(flow, source) && own->idle && own->scan == NULL && own->fd < 0) {
		go_on_without(flow, source);
		return;
	}
	if (now < v->again_boot_ns)
		return;
	if (v->failed || v->waits || waits_for_place(flow, source))
		epochs_open_one(flow, source);
	else if (v->has_current && now >= v->due_boot_ns)
		epochs_turn(flow, source);
}

void epochs_look(struct flow *flow) {
	if (flow->stopping || flow->draining || flow->failed || !flow->running)
		return;
	for (size_t i = 0; i < flow->places.source_count; i++)
		if (flow->sources[i].epoch != NULL)
			epochs_end_tick(flow, i);
}

void epochs_tick(struct flow *flow) {
	int64_t now = clock_boot_ns();

	if (flow->stopping || flow->draining || flow->failed || !flow->running || flow_expired(flow))
		return;
	for (size_t i = 0; i < flow->source_count; i++)
		tick_source(flow, i, now);
	for (size_t i = 0; i < flow->places.source_count; i++)
		if (is_to_be_unlocked(flow, i))
			epochs_unlock(flow, i);
	epochs_look(flow);
}
