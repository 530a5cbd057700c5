/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/core/flow.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "agent/core/epochs.h"
#include "agent/core/flow_internal.h"
#include "agent/watch/lives.h"
#include "base/check.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/log.h"
#include "formats/checkpoint.h"

/* ---- ledger work that is tried until it succeeds */

struct record {
	struct record *next;
	struct flow *flow;
	ledger_work_fn *work;
	flow_recorded_fn *done;
	void (*release)(void *ctx);
	void *ctx;
	bool failed; /* before; it counts in flow->unwritten */
};

/* Steady from the first failure on: what is tried again counts while it is under way, and work that
 * only reads succeeds on a full disk. */
static void say_written(struct flow *flow, bool is_written) {
	if (!is_written && flow->figures.unwritten_ns == 0)
		flow->figures.unwritten_ns = clock_wall_ns();
	else if (is_written && flow->unwritten == 0)
		flow->figures.unwritten_ns = 0;
}

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
		flow->unwritten -= r->failed;
		say_written(flow, true);
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
	flow->unwritten += !r->failed;
	r->failed = true;
	say_written(flow, false);
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

/* ---- each second */

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
	release_tick(flow);
	disposal_tick(flow);
	epochs_tick(flow);
	names_tick(flow);
}

void flow_run(struct flow *flow, struct link *link) {
	flow->link = link;
	(void)uv_timer_start(&flow->tick, on_tick, 1000, 1000);
	epochs_open(flow, recovery_start);
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
		flow->destinations[i].seal_until_ns = flow->setup.keys[i].seal_until_ns;
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
	spooling_free(flow);
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
	free(flow->untouched);
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
		CEDE_TRY(recovery_inherit(flow, setup->predecessor, reterr));
		outbox_inherit(flow, setup->predecessor);
		spooling_inherit(flow, setup->predecessor);
	}
	recovery_begin(flow);
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

/* What is still to be wiped and was not touched: the next start must know it from what was. Without
 * memory it counts as touched. */
static void note_untouched(struct flow *flow) {
	flow->untouched = disposal_untouched(flow, &flow->untouched_count);
}

static int stopped_work(struct ledger *ledger, void *ctx, struct cede_error *reterr) {
	const struct flow *flow = ctx; /* these rows stay as they are now */

	for (size_t i = 0; i < flow->untouched_count; i++)
		CEDE_TRY(ledger_wipe_untouched(ledger, flow->untouched[i], reterr));
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
	note_untouched(flow);
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
	flow->drain_boot_ns = clock_boot_ns();
	flow->on_drained = on_drained;
	flow->drain_ctx = ctx;
	intake_stop(flow);
	if (flow->running)
		outbox_tick(flow);
	flow_settled(flow);
}

void flow_halt(struct flow *flow) {
	flow->draining = flow->stopping = true;
	flow->stop = true;
	flow->ends = !flow->retiring;
	intake_stop(flow);
}

bool flow_has_recovered(const struct flow *flow) {
	return flow->running;
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

void flow_retire(struct flow *flow, const struct policy *next,
	const struct flow_destination_keys *keys, void (*on_retired)(void *ctx), void *ctx) {
	flow->retiring = true;
	spooling_retire(flow, next, keys);
	flow_stop(flow, on_retired, ctx);
}

void flow_hurry(struct flow *flow) {
	flow->ends = true;
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
