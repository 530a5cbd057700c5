/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/core/flow.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "agent/core/epochs.h"
#include "agent/core/flow_internal.h"
#include "agent/seal/spool.h"
#include "agent/watch/lives.h"
#include "base/check.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/log.h"
#include "formats/checkpoint.h"
#include "version.h"

/* ---- ledger work that is tried until it succeeds */

struct record {
	struct record *next;
	struct flow *flow;
	ledger_work_fn *work;
	flow_recorded_fn *done;
	void (*release)(void *ctx);
	void *ctx;
};

static void record_end(struct record *r) {
	struct flow *flow = r->flow;

	flow->recording--;
	if (r->release != NULL)
		r->release(r->ctx);
	free(r);
	flow_settled(flow);
}

static void record_result(void *ctx, int result, const struct cede_error *err) {
	struct record *r = ctx;
	struct flow *flow = r->flow;

	if (result == CEDE_OK) {
		if (r->done != NULL)
			r->done(flow, r->ctx);
		record_end(r);
		return;
	}
	if (result != CEDE_ERR_IO && result != CEDE_ERR_BUSY) {
		flow_fail(flow, err->text);
		record_end(r);
		return;
	}
	flow->figures.ledger_retries++;
	log_event(LOG_LEVEL_ERROR, "ledger.unwritten",
		"error=\"%s\" mend=\"tried again each second\"", err->text);
	r->next = flow->again;
	flow->again = r;
	flow->again_count++;
	if (flow->stopping)
		flow_settled(flow);
}

static int record_work(struct ledger *ledger, void *ctx, struct cede_error *reterr) {
	struct record *r = ctx;

	return r->work(ledger, r->ctx, reterr);
}

static void record_queue(struct record *r) {
	struct cede_error err = {0};

	if (ledger_writer_queue(r->flow->ledger, record_work, record_result, r, &err) < 0)
		record_result(r, CEDE_ERR_IO, &err);
}

void flow_record(struct flow *flow, ledger_work_fn *work, flow_recorded_fn *done,
	void (*release)(void *ctx), void *ctx) {
	struct record *r = calloc(1, sizeof *r);

	if (r == NULL) { /* 48 bytes are not to be had: the state on the disk is sound, start again */
		flow_fail(flow, "out of memory");
		if (release != NULL)
			release(ctx);
		return;
	}
	*r = (struct record){
		.flow = flow, .work = work, .done = done, .release = release, .ctx = ctx};
	flow->recording++;
	record_queue(r);
}

static void record_again(struct flow *flow) {
	struct record *list = CEDE_TAKE(flow->again);

	flow->again_count = 0;
	while (list != NULL) {
		struct record *r = list;
		list = r->next;
		record_queue(r);
	}
}

/* ---- helpers of the other files */

bool flow_expired(const struct flow *flow) {
	return clock_wall_ns() >= flow->policy->expires_ns;
}

bool flow_busy(const struct flow *flow) {
	return ledger_writer_waiting(flow->ledger) + flow->again_count > LEDGER_BUSY;
}

bool flow_source_there(const struct flow *flow, size_t source) {
	return flow->sources[source].fd >= 0 && !flow->sources[source].missing &&
		!epochs_is_closed(flow, source);
}

void flow_fail(struct flow *flow, const char *text) {
	if (flow->failed)
		return;
	flow->failed = true;
	flow->setup.fatal(flow->setup.ctx, text);
}

bool flow_source_named(const struct flow *flow, struct slice name, size_t *ret) {
	for (size_t i = 0; i < flow->policy->source_count; i++)
		if (!flow->sources[i].idle && slice_is(name, flow->sources[i].key)) {
			*ret = i;
			return true;
		}
	return false;
}

bool flow_destination_named(const struct flow *flow, struct slice name, size_t *ret) {
	for (size_t i = 0; i < flow->policy->destination_count; i++)
		if (slice_is(name, flow->policy->destinations[i].name)) {
			*ret = i;
			return true;
		}
	return false;
}

/* ---- recovery: what an earlier process had begun */

struct recovery {
	struct flow *flow;
	struct ledger *ledger;         /* while its work is done */
	bool succeeds;                 /* another policy in the same process */
	struct ledger_bundle *bundles; /* SEALED; destination points into one block each */
	size_t bundle_count;
	struct capture_list captures; /* WIPING */
};

static void recovery_clear(struct recovery *r) {
	for (size_t i = 0; i < r->bundle_count; i++)
		free((void *)(uintptr_t)r->bundles[i].destination.data);
	free(r->bundles);
	r->bundles = NULL;
	r->bundle_count = 0;
	capture_list_done(&r->captures);
}

static void recovery_release(void *ctx) {
	struct recovery *r = ctx;

	recovery_clear(r);
	free(r);
}

static int copy_slice(struct slice *s, struct cede_error *reterr) {
	uint8_t *copy = malloc(s->len + 1);

	if (copy == NULL)
		return CEDE_FAIL_MEMORY(reterr);
	if (s->len > 0)
		memcpy(copy, s->data, s->len);
	copy[s->len] = 0;
	*s = slice_of(copy, s->len);
	return CEDE_OK;
}

static int recover_bundle(void *ctx, const struct ledger_bundle *b, struct cede_error *reterr) {
	struct recovery *r = ctx;
	struct ledger_bundle *list = reallocarray(r->bundles, r->bundle_count + 1, sizeof *list);

	if (list == NULL)
		return CEDE_FAIL_MEMORY(reterr);
	r->bundles = list;
	list[r->bundle_count] = *b;
	CEDE_TRY(copy_slice(&list[r->bundle_count].destination, reterr));
	r->bundle_count++;
	return CEDE_OK;
}

struct rows {
	int64_t *row;
	size_t count;
};

static int collect_row(void *ctx, const struct ledger_bundle *b, struct cede_error *reterr) {
	struct rows *r = ctx;
	int64_t *list = reallocarray(r->row, r->count + 1, sizeof *list);

	if (list == NULL)
		return CEDE_FAIL_MEMORY(reterr);
	r->row = list;
	list[r->count++] = b->row;
	return CEDE_OK;
}

/* Receipted bundles whose last capture was wiped just before the end. */
static int finish_receipted(struct ledger *ledger, int64_t now, struct cede_error *reterr) {
	struct rows rows = {0};
	int r = ledger_bundles(ledger, BUNDLE_RECEIPTED, collect_row, &rows, reterr);

	for (size_t i = 0; r == CEDE_OK && i < rows.count; i++) {
		bool done;
		r = ledger_bundle_done(ledger, rows.row[i], now, &done, reterr);
	}
	free(rows.row);
	return r;
}

/* Each policy that comes into force, once. */
static int record_policy(
	struct ledger *ledger, const struct flow *flow, int64_t now, struct cede_error *reterr) {
	const struct policy *policy = flow->policy;
	struct ledger_policy last;
	struct ledger_policy p = {.id = slice_str(policy->id),
		.serial = policy->serial,
		.is_signed = flow->setup.is_signed};
	bool there;

	memcpy(p.sha256, policy->sha256, sizeof p.sha256);
	memcpy(p.signer, flow->setup.signer, sizeof p.signer);
	CEDE_TRY(ledger_policy_last(ledger, &last, &there, reterr));
	if (there && last.is_signed == p.is_signed && memcmp(last.sha256, p.sha256, 32) == 0)
		return CEDE_OK;
	return ledger_policy_loaded(ledger, &p, now, reterr);
}

/* Before anything is compared with what the ledger knows of it. */
static int opened_sources(
	struct ledger *ledger, const struct flow *flow, int64_t now, struct cede_error *reterr) {
	for (size_t i = 0; i < flow->policy->source_count; i++) {
		struct file_place place;
		if (flow->sources[i].fd < 0)
			continue; /* when it comes */
		CEDE_TRY(file_place_of(flow->sources[i].fd, &place, reterr));
		CEDE_TRY(ledger_source_opened(
			ledger, slice_str(flow->sources[i].key), &place, now, reterr));
	}
	(void)ledger_take_remount(ledger); /* what is to be wiped is read after this */
	return CEDE_OK;
}

/* Keys that are others than when the ledger last heard of them. */
static int record_keys(
	struct ledger *ledger, const struct flow *flow, int64_t now, struct cede_error *reterr) {
	CEDE_TRY(ledger_key_seen(ledger, "identity", flow->setup.identity, now, reterr));
	for (size_t i = 0; i < flow->policy->destination_count; i++) {
		const struct flow_destination_keys *keys = &flow->setup.keys[i];
		char role[320];
		(void)snprintf(role, sizeof role, "seal:%s", flow->policy->destinations[i].name);
		CEDE_TRY(ledger_key_seen(ledger, role, keys->seal_digest, now, reterr));
		(void)snprintf(role, sizeof role, "receipts:%s", flow->policy->destinations[i].name);
		CEDE_TRY(ledger_key_seen(ledger, role, keys->receipts_digest, now, reterr));
	}
	return CEDE_OK;
}

/* What an earlier process was to wipe. */
static int recover_wiping(void *ctx, const struct ledger_capture *c, struct cede_error *reterr) {
	struct recovery *r = ctx;

	CEDE_TRY(ledger_must_be_proven(r->ledger, c->row, reterr));
	return capture_list_add(&r->captures, c, reterr);
}

static int recover_work(struct ledger *ledger, void *ctx, struct cede_error *reterr) {
	struct recovery *r = ctx;
	const struct policy *policy = r->flow->policy;
	int64_t now = clock_wall_ns();
	char detail[300];

	recovery_clear(r); /* of a first try */
	(void)snprintf(detail, sizeof detail, "version=%s host=%s policy=%s serial=%llu",
		CEDE_VERSION, r->flow->setup.host, policy->id, (unsigned long long)policy->serial);
	if (!r->succeeds)
		CEDE_TRY(ledger_gap(ledger, now, reterr));
	if (!r->succeeds)
		CEDE_TRY(ledger_event(ledger, LEDGER_AGENT_STARTED, NULL, now, detail, reterr));
	CEDE_TRY(record_policy(ledger, r->flow, now, reterr));
	CEDE_TRY(record_keys(ledger, r->flow, now, reterr));
	CEDE_TRY(opened_sources(ledger, r->flow, now, reterr));
	CEDE_TRY(ledger_recover(ledger, reterr));
	CEDE_TRY(finish_receipted(ledger, now, reterr));
	CEDE_TRY(ledger_bundles(ledger, BUNDLE_SEALED, recover_bundle, r, reterr));
	r->ledger = ledger;
	return ledger_captures(ledger, CAPTURE_WIPING, recover_wiping, r, reterr);
}

static bool is_wanted(void *ctx, const struct id *bundle) {
	const struct recovery *r = ctx;

	for (size_t i = 0; i < r->bundle_count; i++)
		if (r->bundles[i].spooled && id_equal(&r->bundles[i].id, bundle))
			return true;
	return false;
}

struct step {
	char detail[64];
};

static int step_work(struct ledger *ledger, void *ctx, struct cede_error *reterr) {
	const struct step *s = ctx;

	return ledger_event(ledger, LEDGER_CLOCK_STEPPED, NULL, clock_wall_ns(), s->detail, reterr);
}

void flow_watch_clock(struct flow *flow) {
	int64_t now = clock_boot_ns();
	int64_t offset = clock_wall_ns() - now;
	int64_t by = offset - flow->clock_offset_ns;

	int64_t seconds = (by + (by < 0 ? -1 : 1) * NS_PER_SECOND / 2) / NS_PER_SECOND;

	flow->clock_offset_ns = offset;
	if (by > -CLOCK_STEP_NS && by < CLOCK_STEP_NS)
		return;
	flow->figures.clock_steps++;
	if (by > 0)
		flow->destroy_boot_ns = now + CLOCK_TRUST_NS;
	log_event(LOG_LEVEL_WARNING, "clock.stepped", "seconds=%lld%s", (long long)seconds,
		by > 0 ? " effect=\"nothing is destroyed for its age within the next hour\"" : "");
	struct step *s = calloc(1, sizeof *s);
	if (s != NULL) {
		(void)snprintf(s->detail, sizeof s->detail, "seconds=%lld", (long long)seconds);
		flow_record(flow, step_work, NULL, free, s);
	}
	for (size_t i = 0; i < flow->policy->source_count; i++)
		intake_scan(flow, i, ""); /* ages are others now */
}

static int alive_work(struct ledger *ledger, void *ctx, struct cede_error *reterr) {
	(void)ctx;
	return ledger_checkpoint_keep(ledger, true, clock_wall_ns(), reterr);
}

/* Also when nothing happens: so that a gap has an end that is known. */
static void say_alive(struct flow *flow) {
	if (clock_boot_ns() < flow->alive_boot_ns)
		return;
	flow->alive_boot_ns = clock_boot_ns() + ALIVE_NS;
	flow_record(flow, alive_work, NULL, NULL, NULL);
}

static void on_tick(uv_timer_t *timer) {
	struct flow *flow = timer->data;

	record_again(flow);
	if (!flow->running || flow->stopping)
		return;
	flow_watch_clock(flow);
	say_alive(flow);
	figures_tick(flow);
	intake_tick(flow);
	outbox_tick(flow);
	handover_tick(flow);
	disposal_tick(flow);
	epochs_tick(flow);
	names_tick(flow);
}

static int by_row(const void *a, const void *b) {
	int64_t x = *(const int64_t *)a;
	int64_t y = *(const int64_t *)b;

	return (x > y) - (x < y);
}

static int recover_wipe(struct flow *flow, const struct ledger_capture *c, struct cede_error *reterr) {
	bool begun = flow->unbegun_count == 0 ||
		bsearch(&c->row, flow->unbegun, flow->unbegun_count, sizeof c->row, by_row) == NULL;

	return disposal_add(flow, c, begun, begun, reterr);
}

/* What the predecessor was to wipe and had not touched. */
static int inherit_disposals(struct flow *flow, struct flow *from, struct cede_error *reterr) {
	flow->unbegun = calloc(from->disposal_count + 1, sizeof *flow->unbegun);
	if (flow->unbegun == NULL)
		return CEDE_FAIL_MEMORY(reterr);
	for (const struct disposal *d = from->disposals; d != NULL; d = d->next)
		if (!d->begun)
			flow->unbegun[flow->unbegun_count++] = d->row;
	return CEDE_OK;
}

static void recovered(struct flow *flow, void *ctx) {
	struct recovery *r = ctx;
	struct cede_error err = {0};
	size_t removed = 0;

	if (spool_sweep(flow->setup.spool_fd, is_wanted, r, &removed, &err) < 0)
		log_event(LOG_LEVEL_WARNING, "spool.sweep", "error=\"%s\"", err.text);
	for (size_t i = 0; i < r->bundle_count; i++)
		outbox_adopt(flow, &r->bundles[i]);
	if (flow->unbegun_count > 0)
		qsort(flow->unbegun, flow->unbegun_count, sizeof *flow->unbegun, by_row);
	for (size_t i = 0; i < r->captures.count; i++)
		if (recover_wipe(flow, &r->captures.items[i], &err) < 0)
			log_event(LOG_LEVEL_ERROR, "wipe.deferred", "error=\"%s\"", err.text);
	if (r->bundle_count + r->captures.count + removed > 0)
		log_event(LOG_LEVEL_INFO, "agent.recovered",
			"bundles=%zu wipes=%zu spool_leftovers=%zu", r->bundle_count,
			r->captures.count, removed);
	flow->running = true;
	flow->unbegun_count = 0;
	if (flow->stopping)
		return;
	disposal_lift(flow);
	names_start(flow);
	for (size_t i = 0; i < flow->policy->source_count; i++)
		intake_scan(flow, i, "");
	outbox_tick(flow);
	handover_tick(flow);
}

static void recover(struct flow *flow) {
	struct recovery *r = calloc(1, sizeof *r);

	if (r == NULL) {
		flow_fail(flow, "out of memory");
		return;
	}
	r->flow = flow;
	r->succeeds = flow->setup.predecessor != NULL;
	flow_record(flow, recover_work, recovered, recovery_release, r);
}

void flow_run(struct flow *flow, struct link *link) {
	flow->link = link;
	(void)uv_timer_start(&flow->tick, on_tick, 1000, 1000);
	epochs_open(flow, recover);
}

/* ---- start and stop */

static void on_linger(uv_timer_t *timer) {
	struct flow *flow = timer->data;

	flow->lingered = true;
	handover_plan(flow);
	flow->lingered = false;
}

static int make_parts(struct flow *flow, struct cede_error *reterr) {
	CEDE_TRY(epochs_start(flow, reterr));
	const struct policy *policy = flow->policy;

	flow->destinations = calloc(policy->destination_count, sizeof *flow->destinations);
	if (flow->destinations == NULL)
		return CEDE_FAIL_MEMORY(reterr);
	for (size_t i = 0; i < policy->destination_count; i++) {
		flow->destinations[i].seal = flow->setup.keys[i].seal;
		flow->destinations[i].receipts = flow->setup.keys[i].receipts;
		flow->destinations[i].checkpoint = BUF_INIT(CHECKPOINT_FIELD_MAX);
		if (policy->destinations[i].bundle_size > flow->buffer_size)
			flow->buffer_size = policy->destinations[i].bundle_size;
	}
	for (size_t i = 0; i < SEAL_JOBS; i++) {
		flow->buffers[i] = malloc(flow->buffer_size);
		if (flow->buffers[i] == NULL)
			return CEDE_FAIL_MEMORY(reterr);
	}
	return intake_start(flow, reterr);
}

static void flow_free(struct flow *flow) {
	outbox_free(flow);
	disposal_free(flow);
	for (size_t i = 0; i < flow->policy->destination_count; i++) {
		sealer_keys_free(flow->destinations[i].seal);
		note_keys_free(flow->destinations[i].receipts);
		buf_done(&flow->destinations[i].checkpoint);
	}
	for (size_t i = 0; i < SEAL_JOBS; i++)
		free(flow->buffers[i]);
	while (flow->again != NULL) {
		struct record *r = flow->again;
		flow->again = r->next;
		/* ends like the process: the next start recovers from the ledger */
		free(r);
	}
	settle_free(flow->settle);
	epochs_free(flow);
	lives_free(flow->lives);
	free(flow->unbegun);
	free(flow->reported);
	fd_closep(&flow->setup.spool_fd);
	free(flow->destinations);
	free(flow);
}

int flow_start(const struct flow_setup *setup, struct flow **ret, struct cede_error *reterr) {
	struct flow *flow = calloc(1, sizeof *flow);

	if (flow == NULL)
		return CEDE_FAIL_MEMORY(reterr);
	flow->setup = *setup;
	flow->loop = setup->loop;
	flow->policy = setup->policy;
	flow->ledger = setup->ledger;
	flow->disposals_end = &flow->disposals;
	flow->keeping = true;
	flow->on_linger = on_linger;
	flow->clock_offset_ns = clock_wall_ns() - clock_boot_ns();
	jobs_init(&flow->jobs, flow->loop);
	uv_timer_t *timers[] = {&flow->tick, &flow->settle_timer, &flow->linger};
	for (size_t i = 0; i < ARRAY_LENGTH(timers); i++) {
		(void)uv_timer_init(flow->loop, timers[i]);
		timers[i]->data = flow;
	}
	/* a failure here ends the process: what was made is given back with it */
	CEDE_TRY(make_parts(flow, reterr));
	if (setup->predecessor != NULL) {
		figures_inherit(flow, setup->predecessor);
		flow->clock_offset_ns = setup->predecessor->clock_offset_ns;
		flow->destroy_boot_ns = setup->predecessor->destroy_boot_ns;
		CEDE_TRY(inherit_disposals(flow, setup->predecessor, reterr));
		outbox_inherit(flow, setup->predecessor);
	}
	*ret = flow;
	return CEDE_OK;
}

void flow_link_events(struct flow *flow, struct link_events *ret) {
	*ret = (struct link_events){.ctx = flow,
		.checkpoint = outbox_take_checkpoint,
		.receipt = outbox_receipt,
		.absent = outbox_absent,
		.failed = outbox_failed,
		.state = outbox_link};
}

static void on_ledger_closed(void *ctx) {
	struct flow *flow = ctx;
	void (*on_stopped)(void *) = flow->on_stopped;
	void *stop_ctx = flow->stop_ctx;

	flow_free(flow);
	on_stopped(stop_ctx);
}

static int stopped_work(struct ledger *ledger, void *ctx, struct cede_error *reterr) {
	(void)ctx;
	CEDE_TRY(ledger_event(
		ledger, LEDGER_AGENT_STOPPED, NULL, clock_wall_ns(), "clean=yes", reterr));
	return ledger_checkpoint_keep(ledger, false, clock_wall_ns(), reterr);
}

static void stopped_done(void *ctx, int result, const struct cede_error *err) {
	(void)ctx;
	if (result < 0)
		log_event(LOG_LEVEL_WARNING, "ledger.unwritten", "error=\"%s\"", err->text);
}

static void on_tree_closed(void *ctx) {
	struct flow *flow = ctx;
	struct cede_error err = {0};

	if (flow->retiring) { /* receipts may still be on their way into the ledger */
		flow->ended = true;
		flow_settled(flow);
		return;
	}
	if (!flow->failed &&
		ledger_writer_queue(flow->ledger, stopped_work, stopped_done, flow, &err) < 0)
		log_event(LOG_LEVEL_WARNING, "ledger.unwritten", "error=\"%s\"", err.text);
	ledger_writer_close(flow->ledger, on_ledger_closed, flow);
}

static void on_timer_closed(uv_handle_t *handle) {
	struct flow *flow = handle->data;

	if (--flow->timers_open == 0)
		tree_close(flow->tree, on_tree_closed, flow);
}

static bool is_drained(const struct flow *flow) {
	for (size_t i = 0; i < flow->policy->destination_count; i++)
		if (flow->destinations[i].parcels != NULL)
			return false;
	return flow->jobs.running == 0 && flow->recording == 0 && flow->disposals == NULL;
}

void flow_drain(struct flow *flow, void (*on_drained)(void *ctx), void *ctx) {
	flow->draining = true;
	flow->on_drained = on_drained;
	flow->drain_ctx = ctx;
	intake_stop(flow);
	flow_settled(flow);
}

void flow_halt(struct flow *flow) {
	flow->draining = flow->stopping = true;
	flow->stop = true;
	intake_stop(flow);
}

bool flow_policy_expired(const struct flow *flow) {
	return flow_expired(flow);
}

void flow_settled(struct flow *flow) {
	if (flow->draining && flow->on_drained != NULL && is_drained(flow)) {
		void (*on_drained)(void *) = flow->on_drained;
		flow->on_drained = NULL;
		on_drained(flow->drain_ctx);
	}
	if (flow->on_stopped == NULL)
		return;
	if (flow->ended && flow->recording <= flow->again_count) {
		void (*on_stopped)(void *) = flow->on_stopped;
		flow->on_stopped = NULL;
		on_stopped(flow->stop_ctx);
		return;
	}
	if (!flow->stopping || flow->ending || flow->jobs.running > 0 || flow->scans > 0 ||
		flow->recording > flow->again_count)
		return;
	flow->ending = true;
	flow->timers_open = 3;
	uv_close((uv_handle_t *)&flow->tick, on_timer_closed);
	uv_close((uv_handle_t *)&flow->settle_timer, on_timer_closed);
	uv_close((uv_handle_t *)&flow->linger, on_timer_closed);
}

void flow_stop(struct flow *flow, void (*on_stopped)(void *ctx), void *ctx) {
	flow->on_stopped = on_stopped;
	flow->stop_ctx = ctx;
	flow_halt(flow);
	flow_settled(flow);
}

void flow_retire(struct flow *flow, void (*on_retired)(void *ctx), void *ctx) {
	flow->retiring = true;
	flow_stop(flow, on_retired, ctx);
}

bool flow_is_retired(struct flow *flow, void (*on_retired)(void *ctx), void *ctx) {
	if (flow->recording <= flow->again_count)
		return true;
	flow->on_stopped = on_retired;
	flow->stop_ctx = ctx;
	return false;
}

void flow_free_retired(struct flow *flow) {
	flow_free(flow);
}

struct ledger_writer *flow_ledger(const struct flow *flow) {
	return flow->ledger;
}

int flow_take_spool(struct flow *flow) {
	return CEDE_TAKE_FD(flow->setup.spool_fd);
}
