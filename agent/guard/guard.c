/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/guard/guard.h"

#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "agent/ipc/channel.h"
#include "base/check.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/log.h"

#define GUARD_START_MS 30000 /* a tree of many files takes a while */
#define SEND_MS        2000
#define TIMER_MS       1000
#define HANG_NS        (5 * NS_PER_SECOND) /* it tells its figures each second */
#define STOP_NS        (1 * NS_PER_SECOND)
#define WAIT_FIRST_NS  (NS_PER_SECOND / 4)
#define WAIT_MOST_NS   (30 * NS_PER_SECOND)

enum phase {
	PHASE_DEAD,    /* no process */
	PHASE_WAITING, /* it has rules and no answer came yet */
	PHASE_ACTIVE,
};

enum reply { REPLY_NONE, REPLY_READY, REPLY_FAILED };

struct guard {
	uv_loop_t *loop;
	struct guard_events events;
	const struct policy *policy; /* whose rules are in force */
	int listener;
	struct guard_kept kept;
	enum phase phase;
	struct guard_process process;
	uv_poll_t *socket_poll; /* each start has its own: freed by its close callback */
	uv_poll_t *exit_poll;
	uv_timer_t timer;
	enum reply reply;
	char failed[GUARD_WHY_MAX];
	unsigned failures; /* in a row */
	int64_t heard_boot_ns;
	int64_t looked_boot_ns; /* when the timer came last */
	int64_t restart_boot_ns;
	struct guard_figures figures;
	struct guard_figures before; /* of processes that are gone */
	bool lost;                   /* and said so */
	bool closing;
	int64_t kill_boot_ns;
	void (*on_closed)(void *ctx);
	void *ctx;
};

static void start_process(struct guard *g);

/* ---- rules */

/* The guard reads at once; only its being stopped makes this wait. */
static int send_one(struct guard *g, const struct ipc_writer *w, const int *fds, size_t n,
	struct cede_error *reterr) {
	int r = channel_send(g->process.socket, w, fds, n, reterr);

	for (int64_t end = clock_boot_ns() + SEND_MS * NS_PER_MS;
		r == CEDE_ERR_BUSY && clock_boot_ns() < end;) {
		struct pollfd p = {.fd = g->process.socket, .events = POLLOUT};
		(void)poll(&p, 1, 50);
		r = channel_send(g->process.socket, w, fds, n, reterr);
	}
	return r;
}

/* Also where the policy has no vault now: epochs of an earlier one may wait there. */
static void store_of(const struct policy_source *source, char out[GUARD_PATH_MAX]) {
	const char *slash = strrchr(source->path, '/');
	int n = slash == NULL || slash == source->path
		? 0
		: snprintf(out, GUARD_PATH_MAX, "%.*s/" GUARD_VAULT_STORE "/%s",
			  (int)(slash - source->path), source->path, source->name);

	if (n <= 0 || n >= GUARD_PATH_MAX)
		out[0] = 0;
}

static int send_rules(struct guard *g, const struct policy *policy, struct cede_error *reterr) {
	static struct ipc_writer w;
	char store[GUARD_PATH_MAX];

	guard_put(&w, GUARD_BEGIN);
	ipc_put_u8(&w, policy->guard.mode == GUARD_ENFORCE);
	ipc_put_u32(&w, (uint32_t)getpid());
	CEDE_TRY(send_one(g, &w, NULL, 0, reterr));
	for (size_t i = 0; i < policy->source_count; i++) {
		guard_put(&w, GUARD_SOURCE);
		ipc_put_text(&w, slice_str(policy->sources[i].path));
		store_of(&policy->sources[i], store);
		ipc_put_text(&w, slice_str(store));
		CEDE_TRY(send_one(g, &w, NULL, 0, reterr));
	}
	for (size_t i = 0; i < policy->guard.allow_count; i++) {
		guard_put(&w, GUARD_ALLOW);
		ipc_put_text(&w, slice_str(policy->guard.allow[i].user));
		ipc_put_text(&w, slice_str(policy->guard.allow[i].exe));
		CEDE_TRY(send_one(g, &w, NULL, 0, reterr));
	}
	guard_put(&w, GUARD_GO);
	g->reply = REPLY_NONE;
	return send_one(g, &w, NULL, 0, reterr);
}

/* ---- what it says */

/* Of one that is lost it is said when it is back. */
static void set_unmarked(struct guard *g, unsigned sources) {
	bool changed = (g->figures.unmarked == 0) != (sources == 0);

	g->figures.unmarked = sources;
	if (changed && !g->lost && !g->closing)
		g->events.unmarked(g->events.ctx, sources);
}

static int take_ready(struct guard *g, struct ipc_packet *packet, struct ipc_reader *r,
	struct cede_error *reterr) {
	g->figures.file_systems = ipc_get_u32(r);
	g->figures.inodes = ipc_get_u32(r);
	unsigned unmarked = ipc_get_u16(r);
	CEDE_TRY(ipc_end(r, reterr));
	if (g->kept.fan < 0) {
		g->kept = (struct guard_kept){packet->fds[0], packet->fds[1]};
		packet->fd_count = 0;
		g->events.keep(g->events.ctx, &g->kept);
	}
	g->reply = REPLY_READY;
	g->phase = PHASE_ACTIVE;
	g->failures = 0;
	set_unmarked(g, unmarked);
	if (g->lost) {
		g->lost = false;
		g->events.state(g->events.ctx, GUARD_STATE_ACTIVE, "");
	}
	return CEDE_OK;
}

static int take_tick(struct guard *g, struct ipc_reader *r, struct cede_error *reterr) {
	uint64_t n[4];

	for (size_t i = 0; i < ARRAY_LENGTH(n); i++)
		n[i] = ipc_get_u64(r);
	unsigned unmarked = ipc_get_u16(r);
	unsigned missing = ipc_get_u16(r);
	CEDE_TRY(ipc_end(r, reterr));
	g->figures.allowed = g->before.allowed + n[0];
	g->figures.denied = g->before.denied + n[1];
	g->figures.noted = g->before.noted + n[2];
	g->figures.unread = g->before.unread + n[3];
	g->figures.programs_missing = missing;
	set_unmarked(g, unmarked);
	return CEDE_OK;
}

static int take_attempt(struct guard *g, struct ipc_reader *r, struct cede_error *reterr) {
	static struct guard_attempt a;

	CEDE_TRY(guard_get_attempt(r, &a, reterr));
	if (a.source != GUARD_NO_SOURCE && a.source >= g->policy->source_count)
		a.source = GUARD_NO_SOURCE; /* of a policy that has just been replaced */
	g->events.attempt(g->events.ctx, &a);
	return CEDE_OK;
}

static int take_message(struct guard *g, struct ipc_packet *packet, struct cede_error *reterr) {
	struct ipc_reader r;
	enum guard_message type;

	CEDE_TRY(guard_get(
		slice_of(packet->bytes, packet->len), packet->fd_count, true, &type, &r, reterr));
	g->heard_boot_ns = clock_boot_ns();
	switch (type) {
	case GUARD_TICK:
		return take_tick(g, &r, reterr);
	case GUARD_ATTEMPT:
		return take_attempt(g, &r, reterr);
	case GUARD_MORE: {
		uint64_t denied = ipc_get_u64(&r);
		uint64_t noted = ipc_get_u64(&r);
		CEDE_TRY(ipc_end(&r, reterr));
		g->events.more(g->events.ctx, denied, noted);
		return CEDE_OK;
	}
	case GUARD_READY:
		return take_ready(g, packet, &r, reterr);
	case GUARD_FAILED:
		CEDE_TRY(guard_get_string(&r, g->failed, sizeof g->failed, reterr));
		CEDE_TRY(ipc_end(&r, reterr));
		g->reply = REPLY_FAILED;
		return CEDE_OK;
	case GUARD_ADOPT:
	case GUARD_BEGIN:
	case GUARD_SOURCE:
	case GUARD_ALLOW:
	case GUARD_GO:
	case GUARD_LISTEN:
	case GUARD_STOP:
		break; /* guard_get() lets none of these through */
	}
	return CEDE_FAIL(reterr, CEDE_ERR_BUG, "message of the keeper's own");
}

/* Reads what is there, or until the reply came: what follows it is for later. REFUSED: it is gone. */
static int hear(struct guard *g, bool only_reply, struct cede_error *reterr) {
	static struct ipc_packet packet;

	while (g->phase != PHASE_DEAD && !(only_reply && g->reply != REPLY_NONE)) {
		int r = channel_receive(g->process.socket, &packet, reterr);
		if (r == CEDE_ERR_BUSY)
			return CEDE_OK;
		CEDE_TRY(r);
		r = take_message(g, &packet, reterr);
		channel_discard(&packet);
		CEDE_TRY(r);
	}
	return CEDE_OK;
}

/* ---- its end, and another beginning */

static void free_handle(uv_handle_t *handle) {
	free(handle);
}

static void close_polls(struct guard *g) {
	uv_poll_t **polls[] = {&g->socket_poll, &g->exit_poll};

	for (size_t i = 0; i < ARRAY_LENGTH(polls); i++)
		if (*polls[i] != NULL) {
			(void)uv_poll_stop(*polls[i]);
			uv_close((uv_handle_t *)*polls[i], free_handle);
			*polls[i] = NULL;
		}
	fd_closep(&g->process.socket);
	fd_closep(&g->process.pidfd);
}

static void on_timer_closed(uv_handle_t *handle) {
	struct guard *g = handle->data;
	void (*on_closed)(void *) = g->on_closed;
	void *ctx = g->ctx;

	fd_closep(&g->kept.fan);
	fd_closep(&g->kept.table);
	fd_closep(&g->listener);
	free(g);
	on_closed(ctx);
}

static void say_lost(struct guard *g, const char *why) {
	if (!g->lost && !g->closing)
		g->events.state(g->events.ctx, GUARD_STATE_LOST, why);
	g->lost = true;
}

/* It has ended, or is to end for this reason. */
static void end_process(struct guard *g, const char *why) {
	int status = 0;

	if (g->phase == PHASE_DEAD)
		return;
	g->events.kill(g->events.ctx);
	while (waitpid(g->process.pid, &status, 0) < 0 && errno == EINTR)
		continue;
	close_polls(g);
	g->phase = PHASE_DEAD;
	g->before = g->figures;
	if (g->closing) {
		uv_close((uv_handle_t *)&g->timer, on_timer_closed);
		return;
	}
	int64_t wait = 0;
	for (unsigned i = 0; i < g->failures && wait < WAIT_MOST_NS; i++)
		wait = wait == 0 ? WAIT_FIRST_NS : wait * 2;
	g->failures++;
	g->restart_boot_ns = clock_boot_ns() + (wait < WAIT_MOST_NS ? wait : WAIT_MOST_NS);
	log_event(LOG_LEVEL_ERROR, "guard.exited",
		"error=\"%s\" %s=%d effect=\"opens of captures wait until it is back\"", why,
		WIFSIGNALED(status) ? "signal" : "status",
		WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status));
	say_lost(g, why);
}

static void on_exit_poll(uv_poll_t *poll, int status, int events) {
	struct guard *g = poll->data;
	struct cede_error err = {0};

	(void)status;
	(void)events;
	(void)hear(g, false, &err); /* its last words */
	end_process(g, "it ended");
	start_process(g);
}

static void on_socket_poll(uv_poll_t *poll, int status, int events) {
	struct guard *g = poll->data;
	struct cede_error err = {0};

	(void)status;
	(void)events;
	if (hear(g, false, &err) == CEDE_OK && g->reply != REPLY_FAILED)
		return;
	end_process(g, g->reply == REPLY_FAILED ? g->failed : err.text);
	start_process(g);
}

static int watch_fd(
	struct guard *g, int fd, uv_poll_cb then, uv_poll_t **ret, struct cede_error *reterr) {
	uv_poll_t *poll = calloc(1, sizeof *poll);

	if (poll == NULL)
		return CEDE_FAIL_MEMORY(reterr);
	int r = uv_poll_init(g->loop, poll, fd);
	if (r < 0) {
		free(poll);
		return CEDE_FAIL(reterr, CEDE_ERR_IO, "event loop: %s", uv_strerror(r));
	}
	*ret = poll;
	poll->data = g;
	r = uv_poll_start(poll, UV_READABLE, then);
	return r < 0 ? CEDE_FAIL(reterr, CEDE_ERR_IO, "event loop: %s", uv_strerror(r)) : CEDE_OK;
}

static int introduce(struct guard *g, const struct policy *policy, struct cede_error *reterr) {
	static struct ipc_writer w;
	const int fds[] = {g->kept.fan, g->kept.table};

	CEDE_TRY(watch_fd(g, g->process.socket, on_socket_poll, &g->socket_poll, reterr));
	CEDE_TRY(watch_fd(g, g->process.pidfd, on_exit_poll, &g->exit_poll, reterr));
	if (g->kept.fan >= 0) {
		guard_put(&w, GUARD_ADOPT);
		CEDE_TRY(send_one(g, &w, fds, ARRAY_LENGTH(fds), reterr));
	}
	if (g->listener >= 0) {
		guard_put(&w, GUARD_LISTEN);
		CEDE_TRY(send_one(g, &w, &g->listener, 1, reterr));
	}
	return send_rules(g, policy, reterr);
}

static int spawn(struct guard *g, const struct policy *policy, struct cede_error *reterr) {
	CEDE_TRY(g->events.spawn(g->events.ctx, &g->process, reterr));
	g->phase = PHASE_WAITING;
	g->heard_boot_ns = clock_boot_ns();
	int r = introduce(g, policy, reterr);
	if (r < 0)
		end_process(g, reterr->text);
	return r;
}

/* Later ones: what goes wrong is tried again. */
static void start_process(struct guard *g) {
	struct cede_error err = {0};

	if (g->closing || g->phase != PHASE_DEAD || clock_boot_ns() < g->restart_boot_ns)
		return;
	g->figures.restarts++;
	if (spawn(g, g->policy, &err) < 0) {
		log_event(LOG_LEVEL_ERROR, "guard.start", "error=\"%s\"", err.text);
		if (g->restart_boot_ns <= clock_boot_ns())
			g->restart_boot_ns = clock_boot_ns() + WAIT_MOST_NS;
	}
}

/* A machine that slept, or this loop held up, is no silence of the guard. */
static void pass_over_sleep(struct guard *g, int64_t now) {
	int64_t passed = now - g->looked_boot_ns;

	if (passed > HANG_NS / 2)
		g->heard_boot_ns += passed;
	if (g->heard_boot_ns > now) /* it was heard since */
		g->heard_boot_ns = now;
	g->looked_boot_ns = now;
}

static void on_timer(uv_timer_t *timer) {
	struct guard *g = timer->data;
	struct cede_error err = {0};
	int64_t now = clock_boot_ns();

	pass_over_sleep(g, now);
	if (g->phase != PHASE_DEAD && hear(g, false, &err) < 0)
		end_process(g, err.text);
	if (g->closing && g->phase != PHASE_DEAD && now >= g->kill_boot_ns)
		end_process(g, "it did not stop");
	if (g->closing)
		return;
	int64_t most = g->phase == PHASE_ACTIVE ? HANG_NS : GUARD_START_MS * NS_PER_MS;
	if (g->phase != PHASE_DEAD && now - g->heard_boot_ns > most)
		end_process(g, "it hangs, or was stopped");
	start_process(g);
}

/* ---- birth, another policy, death */

static int wait_reply(struct guard *g, struct cede_error *reterr) {
	int64_t end = clock_boot_ns() + GUARD_START_MS * NS_PER_MS;

	while (g->reply == REPLY_NONE && clock_boot_ns() < end) {
		struct pollfd p = {.fd = g->process.socket, .events = POLLIN};
		(void)poll(&p, 1, 100);
		CEDE_TRY(hear(g, true, reterr));
	}
	if (g->reply == REPLY_FAILED) {
		g->reply = REPLY_NONE;
		return CEDE_FAIL(reterr, CEDE_ERR_REFUSED, "guard: %s", g->failed);
	}
	return g->reply == REPLY_READY
		? CEDE_OK
		: CEDE_FAIL(reterr, CEDE_ERR_IO, "guard: no answer within %d s",
			  GUARD_START_MS / 1000);
}

int guard_start(uv_loop_t *loop, const struct policy *policy, int listener,
	const struct guard_kept *kept, const struct guard_events *events, struct guard **ret,
	struct cede_error *reterr) {
	struct guard *g = calloc(1, sizeof *g);

	if (g == NULL)
		return CEDE_FAIL_MEMORY(reterr);
	/* the caller ends the process when this fails, or goes on without: nothing else is owned */
	*g = (struct guard){.loop = loop,
		.events = *events,
		.policy = policy,
		.listener = listener,
		.kept = *kept,
		.process = {-1, -1, -1}};
	(void)uv_timer_init(loop, &g->timer);
	g->timer.data = g;
	int r = spawn(g, policy, reterr);
	if (r == CEDE_OK)
		r = wait_reply(g, reterr);
	if (r == CEDE_OK && g->kept.fan < 0)
		r = CEDE_FAIL(reterr, CEDE_ERR_INPUT, "guard: it gave no descriptors");
	/* from here on: the loop may begin late, or the machine sleep until it does */
	g->looked_boot_ns = clock_boot_ns();
	(void)uv_timer_start(&g->timer, on_timer, TIMER_MS, TIMER_MS);
	g->lost = r < 0; /* the caller may go on without, until it comes */
	*ret = g;
	return r;
}

int guard_apply(struct guard *g, const struct policy *policy, struct cede_error *reterr) {
	if (g->phase != PHASE_ACTIVE)
		return CEDE_FAIL(reterr, CEDE_ERR_BUSY,
			"guard: it is not there now; tried again with the next reload");
	CEDE_TRY(send_rules(g, policy, reterr));
	CEDE_TRY(wait_reply(g, reterr));
	g->policy = policy;
	return CEDE_OK;
}

void guard_figures(const struct guard *g, struct guard_figures *ret) {
	*ret = g->figures;
	ret->active = g->phase == PHASE_ACTIVE && !g->lost;
}

void guard_close(struct guard *g, void (*on_closed)(void *ctx), void *ctx) {
	static struct ipc_writer w;
	struct cede_error err;

	g->on_closed = on_closed;
	g->ctx = ctx;
	g->closing = true;
	if (g->phase == PHASE_DEAD) {
		uv_close((uv_handle_t *)&g->timer, on_timer_closed);
		return;
	}
	guard_put(&w, GUARD_STOP);
	(void)!channel_send(
		g->process.socket, &w, NULL, 0, &err); /* else it is killed after a while */
	g->kill_boot_ns = clock_boot_ns() + STOP_NS;
}
