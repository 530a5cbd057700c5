/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "agent/core/flow_internal.h"
#include "agent/seal/spool.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "tests/unit/ledger/tool.h"
#include "tests/unit/unit.h"

/* ---- a link that has no memory when it is told so */

static bool no_memory;

int __wrap_link_push(struct link *l, size_t destination, const struct id *bundle, int fd,
	uint64_t size, const uint8_t sha256[32], bool asked_first, struct cede_error *reterr);
int __wrap_link_ask(
	struct link *l, size_t destination, const struct id *bundle, struct cede_error *reterr);
void __wrap_link_rate(struct link *l, size_t destination, uint64_t bytes_per_s);

int __wrap_link_push(struct link *l, size_t destination, const struct id *bundle, int fd,
	uint64_t size, const uint8_t sha256[32], bool asked_first, struct cede_error *reterr) {
	(void)l;
	(void)destination;
	(void)bundle;
	(void)size;
	(void)sha256;
	(void)asked_first;
	assert_true(fd >= 0);
	return no_memory ? CEDE_FAIL_MEMORY(reterr) : CEDE_OK;
}

int __wrap_link_ask(
	struct link *l, size_t destination, const struct id *bundle, struct cede_error *reterr) {
	(void)l;
	(void)destination;
	(void)bundle;
	return no_memory ? CEDE_FAIL_MEMORY(reterr) : CEDE_OK;
}

void __wrap_link_rate(struct link *l, size_t destination, uint64_t bytes_per_s) {
	(void)l;
	(void)destination;
	(void)bytes_per_s;
}

/* ---- ledger work that has not had its turn yet */

static struct {
	ledger_work_fn *work;
	flow_recorded_fn *done;
	void (*release)(void *ctx);
	void *ctx;
} waiting;

void __wrap_flow_record(struct flow *flow, ledger_work_fn *work, flow_recorded_fn *recorded,
	void (*release)(void *ctx), void *ctx);

void __wrap_flow_record(struct flow *flow, ledger_work_fn *work, flow_recorded_fn *recorded,
	void (*release)(void *ctx), void *ctx) {
	(void)flow;
	assert_null(waiting.work);
	waiting.work = work;
	waiting.done = recorded;
	waiting.release = release;
	waiting.ctx = ctx;
}

static void have_turn(struct flow *flow, struct ledger *ledger) {
	begin(ledger);
	assert_int_equal(waiting.work(ledger, waiting.ctx, NULL), CEDE_OK);
	commit(ledger);
	waiting.done(flow, waiting.ctx);
	waiting.release(waiting.ctx);
	waiting.work = NULL;
}

/* ---- a flow that has one destination, and one bundle */

struct t {
	char folder[32];
	struct policy_destination at;
	struct policy policy;
	struct flow_destination d;
	struct flow flow;
	struct parcel *p;
};

static void start(struct t *t, bool spooled) {
	CLEANUP(fd_closep) int fd = -1;

	*t = (struct t){.folder = "/tmp/cede-outbox-XXXXXX"};
	assert_non_null(mkdtemp(t->folder));
	t->at.name = (char *)(uintptr_t) "agency";
	t->policy = (struct policy){.destinations = &t->at,
		.destination_count = 1,
		.expires_ns = clock_wall_ns() + 3600 * NS_PER_SECOND};
	t->flow = (struct flow){.policy = &t->policy, .destinations = &t->d};
	assert_int_equal(spool_open(t->folder, &t->flow.setup.spool_fd, NULL), CEDE_OK);
	t->p = calloc(1, sizeof *t->p);
	assert_non_null(t->p);
	*t->p = (struct parcel){.fd = -1, .size = 1, .spooled = spooled, .lost = !spooled};
	if (spooled) {
		assert_int_equal(spool_create(t->flow.setup.spool_fd, &fd, NULL), CEDE_OK);
		assert_int_equal(write(fd, "x", 1), 1);
		assert_int_equal(spool_keep(t->flow.setup.spool_fd, &t->p->id, fd, NULL), CEDE_OK);
	}
	outbox_add(&t->flow, t->p);
	no_memory = false;
}

static void end(struct t *t) {
	char spool[64];

	assert_int_equal(spool_remove(t->flow.setup.spool_fd, &t->p->id, NULL), CEDE_OK);
	outbox_drop(&t->flow, t->p);
	assert_int_equal(t->d.open, 0);
	assert_int_equal(t->flow.spool_bytes, 0);
	(void)close(t->flow.setup.spool_fd);
	(void)snprintf(spool, sizeof spool, "%s/spool", t->folder);
	assert_int_equal(rmdir(spool), 0);
	assert_int_equal(rmdir(t->folder), 0);
}

static void push(struct t *t, enum parcel_state then, size_t open) {
	outbox_push(&t->flow, 0);
	assert_int_equal(t->p->state, then);
	assert_int_equal(t->d.open, open);
}

/* Without it the destination would have no room ever after. */
static void a_push_that_fails_leaves_no_bundle_open(void **state) {
	struct t t;

	(void)state;
	for (int spooled = 0; spooled < 2; spooled++) {
		start(&t, spooled != 0);
		no_memory = true;
		for (int i = 0; i < 3; i++) {
			push(&t, PARCEL_WAITING, 0);
			assert_int_equal(t.p->fd, -1);
		}
		no_memory = false;
		push(&t, PARCEL_PUSHING, 1);
		end(&t);
	}
}

static void a_lost_bundle_that_is_asked_for_again_is_open_once(void **state) {
	struct t t;

	(void)state;
	start(&t, false);
	t.p->missing = true;
	t.flow.missing = 1;
	for (int i = 0; i < 3; i++) {
		push(&t, PARCEL_PUSHING, 1);
		outbox_absent(&t.flow, &t.p->id); /* before recovery is done it is not given up */
		assert_int_equal(t.p->state, PARCEL_WAITING);
		assert_int_equal(t.d.open, 0);
	}
	end(&t);
}

static struct parcel *add(struct t *t, int64_t row, bool spooled) {
	CLEANUP(fd_closep) int fd = -1;
	struct parcel *p = calloc(1, sizeof *p);

	assert_non_null(p);
	*p = (struct parcel){.fd = -1, .row = row, .size = 1, .spooled = spooled, .lost = !spooled};
	p->id.bytes[0] = (uint8_t)row;
	if (spooled) {
		assert_int_equal(spool_create(t->flow.setup.spool_fd, &fd, NULL), CEDE_OK);
		assert_int_equal(write(fd, "x", 1), 1);
		assert_int_equal(spool_keep(t->flow.setup.spool_fd, &p->id, fd, NULL), CEDE_OK);
	}
	outbox_add(&t->flow, p);
	return p;
}

static void drop(struct t *t, struct parcel *p) {
	assert_int_equal(spool_remove(t->flow.setup.spool_fd, &p->id, NULL), CEDE_OK);
	outbox_drop(&t->flow, p);
}

/* One whose answer is never accepted holds back no other. */
static void only_what_may_have_its_captures_waits_for_a_lost_bundle(void **state) {
	struct t t;

	(void)state;
	start(&t, false);
	t.p->row = 1;
	struct parcel *anew = add(&t, 2, true);
	struct parcel *other = add(&t, 3, true);
	push(&t, PARCEL_PUSHING, 1);
	assert_int_equal(anew->state, PARCEL_WAITING); /* which of them is not known yet */
	assert_int_equal(other->state, PARCEL_WAITING);
	t.p->heirs_known = true;
	anew->instead_of = 1;
	push(&t, PARCEL_PUSHING, 2);
	assert_int_equal(anew->state, PARCEL_WAITING);
	assert_int_equal(other->state, PARCEL_PUSHING);
	t.p->row = 9; /* it is answered */
	push(&t, PARCEL_PUSHING, 3);
	assert_int_equal(anew->state, PARCEL_PUSHING);
	drop(&t, anew);
	drop(&t, other);
	end(&t);
}

/* Given up, its captures would be sealed once more, and the lost one be received beside that. */
static void what_was_taken_out_of_the_spool_waits_for_the_lost_bundle_too(void **state) {
	struct t t;

	(void)state;
	start(&t, false);
	t.flow.running = true;
	t.flow.wipe_jobs = 1; /* it is not given up yet */
	t.p->row = 1;
	t.p->heirs_known = true;
	struct parcel *anew = add(&t, 2, false);
	anew->missing = true;
	anew->instead_of = 1;
	t.flow.missing = 1;
	push(&t, PARCEL_PUSHING, 1);
	assert_int_equal(anew->state, PARCEL_WAITING);
	anew->state = PARCEL_PUSHING; /* asked for by the policy before */
	t.d.open++;
	outbox_absent(&t.flow, &anew->id);
	assert_int_equal(anew->state, PARCEL_WAITING);
	assert_false(anew->absent);
	t.p->row = 9; /* it is answered */
	push(&t, PARCEL_PUSHING, 2);
	assert_int_equal(anew->state, PARCEL_PUSHING);
	outbox_absent(&t.flow, &anew->id);
	assert_true(anew->absent);
	assert_int_equal(t.flow.giving_up, 1);
	drop(&t, anew);
	end(&t);
}

static void what_a_receipt_proved_meanwhile_is_not_given_up(void **state) {
	struct ledger *l = of(state);
	int64_t rows[64], row;
	enum bundle_state now;
	struct id lost;
	struct t t;

	(void)seen(l, "a", "", 1, 10, NOW, &row);
	assert_int_equal(take(l, 1, 100, rows), 1);
	(void)seal(l, rows, 1, true, &lost);
	start(&t, false);
	t.p->heirs_known = true;
	t.flow.running = true;
	struct parcel *p = add(&t, 1, false);
	p->missing = true;
	t.flow.missing = 1;
	push(&t, PARCEL_PUSHING, 2);
	outbox_absent(&t.flow, &p->id);
	assert_non_null(waiting.work);
	begin(l);
	assert_int_equal(ledger_bundle_duplicate(l, 1, &lost, slice_str("x"), NOW, NULL), CEDE_OK);
	commit(l);
	drop(&t, p);
	have_turn(&t.flow, l);
	assert_int_equal(ledger_bundle_state(l, 1, &now, NULL), CEDE_OK);
	assert_int_equal(now, BUNDLE_RECEIPTED);
	end(&t);
}

int main(void) {
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_push_that_fails_leaves_no_bundle_open),
		cmocka_unit_test(a_lost_bundle_that_is_asked_for_again_is_open_once),
		cmocka_unit_test(only_what_may_have_its_captures_waits_for_a_lost_bundle),
		cmocka_unit_test(what_was_taken_out_of_the_spool_waits_for_the_lost_bundle_too),
		cmocka_unit_test_setup_teardown(
			what_a_receipt_proved_meanwhile_is_not_given_up, bench_open, bench_close),
	};

	return cmocka_run_group_tests_name("outbox", tests, NULL, NULL);
}
