/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "agent/ledger/writer.h"
#include "base/check.h"
#include "tests/unit/ledger/tool.h"

#define PIECES 50

struct test;

struct piece {
	struct test *test;
	int fail_with; /* CEDE_OK: does not */
	int calls;     /* of work */
	int dones;
	int result;
	char text[64];
};

struct test {
	struct bench *bench;
	struct ledger_writer *writer;
	uv_loop_t loop;
	struct piece pieces[PIECES];
	struct piece more; /* queued by a done() */
	bool queue_more;
	bool closed;
};

static int work(struct ledger *l, void *ctx, struct cede_error *reterr) {
	struct piece *p = ctx;

	p->calls++;
	CEDE_TRY(ledger_event(l, LEDGER_WATCH_GAP, NULL, NOW, "", reterr));
	if (p->fail_with != CEDE_OK)
		return CEDE_FAIL(reterr, (enum cede_err)p->fail_with, "made to fail");
	return CEDE_OK;
}

static void finished(void *ctx, int result, const struct cede_error *err) {
	struct piece *p = ctx;
	struct test *t = p->test;

	p->dones++;
	p->result = result;
	if (result < 0)
		memcpy(p->text, err->text, sizeof p->text - 1);
	if (t->queue_more) {
		t->queue_more = false;
		assert_int_equal(
			ledger_writer_queue(t->writer, work, finished, &t->more, NULL), CEDE_OK);
	}
}

static void on_closed(void *ctx) {
	((struct test *)ctx)->closed = true;
}

static void start(struct test *t, void **state) {
	*t = (struct test){.bench = *state};
	t->more.test = t;
	assert_int_equal(uv_loop_init(&t->loop), 0);
	for (size_t i = 0; i < PIECES; i++)
		t->pieces[i].test = t;
	assert_int_equal(ledger_writer_start(&t->loop, t->bench->ledger, &t->writer, NULL), CEDE_OK);
	t->bench->ledger = NULL;
}

static void queue_all(struct test *t) {
	for (size_t i = 0; i < PIECES; i++)
		assert_int_equal(ledger_writer_queue(t->writer, work, finished, &t->pieces[i], NULL),
			CEDE_OK);
	assert_int_equal(ledger_writer_waiting(t->writer), PIECES);
}

static uint64_t close_and_count(struct test *t) {
	struct ledger_counts counts;

	ledger_writer_close(t->writer, on_closed, t);
	assert_int_equal(uv_run(&t->loop, UV_RUN_DEFAULT), 0);
	assert_true(t->closed);
	assert_int_equal(uv_loop_close(&t->loop), 0);
	assert_int_equal(ledger_open(t->bench->dir, &t->bench->ledger, NULL), CEDE_OK);
	assert_int_equal(ledger_count(t->bench->ledger, &counts, NULL), CEDE_OK);
	return counts.events;
}

static void close_finishes_what_is_queued(void **state) {
	struct test t;

	start(&t, state);
	queue_all(&t);
	assert_int_equal(close_and_count(&t), PIECES);
	for (size_t i = 0; i < PIECES; i++) {
		assert_int_equal(t.pieces[i].dones, 1);
		assert_int_equal(t.pieces[i].result, CEDE_OK);
	}
}

static void close_with_nothing_queued(void **state) {
	struct test t;

	start(&t, state);
	assert_int_equal(close_and_count(&t), 0);
}

static void close_finishes_what_a_done_queues(void **state) {
	struct test t;

	start(&t, state);
	t.queue_more = true;
	queue_all(&t);
	assert_int_equal(close_and_count(&t), PIECES + 1);
	assert_int_equal(t.more.dones, 1);
}

static void one_bad_piece_fails_alone(void **state) {
	static const int kinds[] = {CEDE_ERR_IO, CEDE_ERR_BUG, CEDE_ERR_REFUSED};

	for (size_t k = 0; k < ARRAY_LENGTH(kinds); k++) {
		struct test t;
		struct ledger_counts before;
		struct bench *b = *state;
		assert_int_equal(ledger_count(b->ledger, &before, NULL), CEDE_OK);
		start(&t, state);
		t.pieces[7].fail_with = kinds[k];
		queue_all(&t);
		assert_int_equal(close_and_count(&t), before.events + PIECES - 1);
		for (size_t i = 0; i < PIECES; i++) {
			assert_int_equal(t.pieces[i].dones, 1);
			assert_true(t.pieces[i].calls <= 2);
			assert_int_equal(t.pieces[i].result, i == 7 ? kinds[k] : CEDE_OK);
		}
		assert_string_equal(t.pieces[7].text, "made to fail");
	}
}

static void after_damage_nothing_is_recorded(void **state) {
	struct test t;

	start(&t, state);
	t.pieces[0].fail_with = CEDE_ERR_INPUT;
	queue_all(&t);
	t.queue_more = true;
	assert_int_equal(close_and_count(&t), 0);
	for (size_t i = 0; i < PIECES; i++) {
		assert_int_equal(t.pieces[i].result, CEDE_ERR_INPUT);
		assert_string_equal(t.pieces[i].text, "made to fail");
	}
	assert_int_equal(t.more.result, CEDE_ERR_INPUT);
	assert_int_equal(t.more.calls, 0);
}

/* Holds the writer's thread until all the others are queued. */
struct gate {
	uv_sem_t open;
};

static int gate_work(struct ledger *l, void *ctx, struct cede_error *reterr) {
	(void)l;
	(void)reterr;
	uv_sem_wait(&((struct gate *)ctx)->open);
	return CEDE_OK;
}

static void gate_done(void *ctx, int result, const struct cede_error *err) {
	(void)ctx;
	(void)err;
	assert_int_equal(result, CEDE_OK);
}

/* All that waits goes into one transaction: a bad piece makes each of its companions run twice. */
static void what_waits_is_committed_together(void **state) {
	struct gate gate;
	struct test t;

	assert_int_equal(uv_sem_init(&gate.open, 0), 0);
	start(&t, state);
	assert_int_equal(ledger_writer_queue(t.writer, gate_work, gate_done, &gate, NULL), CEDE_OK);
	t.pieces[PIECES - 1].fail_with = CEDE_ERR_BUG;
	for (size_t i = 0; i < PIECES; i++)
		assert_int_equal(
			ledger_writer_queue(t.writer, work, finished, &t.pieces[i], NULL), CEDE_OK);
	uv_sem_post(&gate.open);
	uv_sem_post(&gate.open); /* should the gate have been in the same batch */
	assert_int_equal(close_and_count(&t), PIECES - 1);
	size_t twice = 0;
	for (size_t i = 0; i < PIECES; i++)
		twice += t.pieces[i].calls == 2;
	assert_true(twice > PIECES / 2);
	uv_sem_destroy(&gate.open);
}

/* A start that fails gives back what the works are made of: not while one of them runs. */
static void after_the_end_no_work_runs(void **state) {
	struct gate gate;
	struct test t;
	int calls = 0;

	assert_int_equal(uv_sem_init(&gate.open, 1), 0);
	start(&t, state);
	assert_int_equal(ledger_writer_queue(t.writer, gate_work, gate_done, &gate, NULL), CEDE_OK);
	for (size_t i = 0; i < PIECES; i++)
		assert_int_equal(
			ledger_writer_queue(t.writer, work, finished, &t.pieces[i], NULL), CEDE_OK);
	uv_sem_post(&gate.open);
	ledger_writer_end(t.writer);
	for (size_t i = 0; i < PIECES; i++) {
		calls += t.pieces[i].calls;
		assert_int_equal(t.pieces[i].dones, 0);
	}
	assert_int_equal(calls, PIECES);
	assert_int_equal(close_and_count(&t), PIECES);
	uv_sem_destroy(&gate.open);
}

#define WITH_LEDGER(f) cmocka_unit_test_setup_teardown(f, bench_open, bench_close)

int main(void) {
	const struct CMUnitTest tests[] = {
		WITH_LEDGER(close_finishes_what_is_queued),
		WITH_LEDGER(close_with_nothing_queued),
		WITH_LEDGER(close_finishes_what_a_done_queues),
		WITH_LEDGER(one_bad_piece_fails_alone),
		WITH_LEDGER(after_damage_nothing_is_recorded),
		WITH_LEDGER(what_waits_is_committed_together),
		WITH_LEDGER(after_the_end_no_work_runs),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
