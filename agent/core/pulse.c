/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/core/pulse.h"

#include "base/clock.h"

#define BEATS 4 /* within the time that the manager grants */

static int nothing(struct ledger *ledger, void *ctx, struct cede_error *reterr) {
	(void)ledger;
	(void)ctx;
	(void)reterr;
	return CEDE_OK;
}

static void been_there(void *ctx, int result, const struct cede_error *err) {
	struct pulse *p = ctx;

	(void)result;
	(void)err;
	p->underway = false;
	notify_watchdog(p->notify);
}

static void on_beat(uv_timer_t *timer) {
	struct pulse *p = timer->data;

	if (p->underway || ledger_writer_queue(p->ledger, nothing, been_there, p, NULL) < 0)
		return;
	p->underway = true;
}

void pulse_start(
	struct pulse *p, uv_loop_t *loop, struct notify *notify, struct ledger_writer *ledger) {
	uint64_t every_ms = (uint64_t)(notify->watchdog_ns / NS_PER_MS / BEATS);

	*p = (struct pulse){.notify = notify, .ledger = ledger};
	(void)uv_timer_init(loop, &p->timer);
	p->timer.data = p;
	if (notify->watchdog_ns > 0)
		(void)uv_timer_start(&p->timer, on_beat, 0, every_ms > 0 ? every_ms : 1);
}

void pulse_stop(struct pulse *p) {
	(void)uv_timer_stop(&p->timer);
}
