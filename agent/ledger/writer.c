/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/ledger/writer.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "base/check.h"

struct piece {
	struct piece *next;
	ledger_work_fn *work;
	ledger_done_fn *done;
	void *ctx;
	int result;
	struct cede_error err;
};

struct list {
	struct piece *first;
	struct piece **end;
};

struct ledger_writer {
	struct ledger *ledger;
	uv_thread_t thread;
	uv_async_t wake;
	pthread_mutex_t lock; /* what follows */
	pthread_cond_t work_there;
	struct list queued;
	struct list finished;
	bool closing;
	/* loop thread */
	size_t waiting;
	bool joined;
	void (*on_closed)(void *ctx);
	void *ctx;
	/* writer's thread: a damaged ledger fails everything that comes (I7) */
	struct cede_error damage;
};

static void list_init(struct list *l) {
	l->first = NULL;
	l->end = &l->first;
}

static void list_add(struct list *l, struct piece *p) {
	p->next = NULL;
	*l->end = p;
	l->end = &p->next;
}

/* All in one transaction; on any failure none is recorded. */
static int run_together(struct ledger_writer *w, struct piece *first, struct cede_error *reterr) {
	CEDE_TRY(ledger_begin(w->ledger, reterr));
	for (struct piece *p = first; p != NULL; p = p->next) {
		int r = p->work(w->ledger, p->ctx, reterr);
		if (r < 0) {
			ledger_rollback(w->ledger);
			return r;
		}
	}
	int r = ledger_commit(w->ledger, reterr);
	if (r < 0)
		ledger_rollback(w->ledger);
	return r;
}

static void run_alone(struct ledger_writer *w, struct piece *p) {
	struct piece *next = p->next;

	p->next = NULL;
	p->result = w->damage.code != CEDE_OK ? w->damage.code : run_together(w, p, &p->err);
	if (w->damage.code != CEDE_OK)
		p->err = w->damage;
	else if (p->result == CEDE_ERR_INPUT)
		w->damage = p->err;
	p->next = next;
}

static void run_batch(struct ledger_writer *w, struct piece *first) {
	struct cede_error err = {0};

	if (w->damage.code == CEDE_OK && run_together(w, first, &err) == CEDE_OK) {
		for (struct piece *p = first; p != NULL; p = p->next)
			p->result = CEDE_OK;
		return;
	}
	for (struct piece *p = first; p != NULL; p = p->next)
		run_alone(w, p);
}

static void writer_thread(void *arg) {
	struct ledger_writer *w = arg;

	(void)pthread_mutex_lock(&w->lock);
	for (;;) {
		while (w->queued.first == NULL && !w->closing)
			(void)pthread_cond_wait(&w->work_there, &w->lock);
		struct piece *batch = w->queued.first;
		if (batch == NULL)
			break;
		list_init(&w->queued);
		(void)pthread_mutex_unlock(&w->lock);
		run_batch(w, batch);
		(void)pthread_mutex_lock(&w->lock);
		while (batch != NULL) {
			struct piece *next = batch->next;
			list_add(&w->finished, batch);
			batch = next;
		}
		(void)uv_async_send(&w->wake);
	}
	(void)pthread_mutex_unlock(&w->lock);
	ledger_close(w->ledger);
}

static void closed(uv_handle_t *handle) {
	struct ledger_writer *w = handle->data;
	void (*on_closed)(void *) = w->on_closed;
	void *ctx = w->ctx;

	(void)pthread_mutex_destroy(&w->lock);
	(void)pthread_cond_destroy(&w->work_there);
	free(w);
	on_closed(ctx);
}

void ledger_writer_end(struct ledger_writer *w) {
	if (w->joined)
		return;
	w->joined = true;
	(void)pthread_mutex_lock(&w->lock);
	w->closing = true;
	(void)pthread_cond_signal(&w->work_there);
	(void)pthread_mutex_unlock(&w->lock);
	(void)uv_thread_join(&w->thread);
}

static void on_wake(uv_async_t *handle) {
	struct ledger_writer *w = handle->data;

	(void)pthread_mutex_lock(&w->lock);
	struct piece *p = w->finished.first;
	list_init(&w->finished);
	(void)pthread_mutex_unlock(&w->lock);
	while (p != NULL) {
		struct piece *next = p->next;
		w->waiting--;
		p->done(p->ctx, p->result, &p->err);
		free(p);
		p = next;
	}
	if (w->on_closed == NULL || w->waiting > 0 || uv_is_closing((uv_handle_t *)handle))
		return;
	/* only now: done() may have queued more */
	ledger_writer_end(w);
	uv_close((uv_handle_t *)handle, closed);
}

int ledger_writer_start(uv_loop_t *loop, struct ledger *ledger, struct ledger_writer **ret,
	struct cede_error *reterr) {
	struct ledger_writer *w = calloc(1, sizeof *w);

	if (w == NULL || uv_async_init(loop, &w->wake, on_wake) != 0) {
		free(w);
		ledger_close(ledger);
		return CEDE_FAIL_MEMORY(reterr);
	}
	w->wake.data = w;
	w->ledger = ledger;
	list_init(&w->queued);
	list_init(&w->finished);
	require(pthread_mutex_init(&w->lock, NULL) == 0 &&
		pthread_cond_init(&w->work_there, NULL) == 0);
	if (uv_thread_create(&w->thread, writer_thread, w) != 0) {
		ledger_close(ledger);
		return CEDE_FAIL(
			reterr, CEDE_ERR_IO, "no thread for the ledger"); /* at start: fatal */
	}
	*ret = w;
	return CEDE_OK;
}

int ledger_writer_queue(struct ledger_writer *w, ledger_work_fn *work, ledger_done_fn *done,
	void *ctx, struct cede_error *reterr) {
	struct piece *p = calloc(1, sizeof *p);

	if (p == NULL)
		return CEDE_FAIL_MEMORY(reterr);
	p->work = work;
	p->done = done;
	p->ctx = ctx;
	(void)pthread_mutex_lock(&w->lock);
	list_add(&w->queued, p);
	(void)pthread_cond_signal(&w->work_there);
	(void)pthread_mutex_unlock(&w->lock);
	w->waiting++;
	return CEDE_OK;
}

size_t ledger_writer_waiting(const struct ledger_writer *w) {
	return w->waiting;
}

void ledger_writer_close(struct ledger_writer *w, void (*on_closed)(void *ctx), void *ctx) {
	w->on_closed = on_closed;
	w->ctx = ctx;
	(void)uv_async_send(&w->wake); /* nothing may be waiting */
}
