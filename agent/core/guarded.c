/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/core/guarded.h"

#include <fcntl.h>
#include <poll.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "agent/core/flow_internal.h"
#include "agent/ipc/channel.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/log.h"
#include "formats/detail.h"

#define STORE_FAN   "cede-guard"
#define STORE_TABLE "cede-guard-table"
#define SOCKET_NAME "guard.socket"
#define ADOPT_MS    10000

/* ---- into the ledger */

struct guard_note {
	struct guard_note *next;
	enum ledger_event kind;
	struct guard_attempt attempt; /* GUARD_DENIED, GUARD_NOTED */
	uint64_t more;                /* instead: so many that are not told each */
	char source[65];              /* its name, or "" */
	char detail[300];             /* GUARD_STARTED, GUARD_LOST */
};

static int put_attempt(struct buf *d, const struct guard_note *n, struct cede_error *reterr) {
	const struct guard_attempt *a = &n->attempt;

	CEDE_TRY(detail_add_i64(d, "count", (int64_t)a->count, reterr));
	CEDE_TRY(detail_add_i64(d, "pid", a->pid, reterr));
	CEDE_TRY(detail_add_i64(d, "uid", a->uid, reterr));
	CEDE_TRY(detail_add(d, "exe", slice_str(a->exe), reterr));
	if (n->source[0] != 0)
		CEDE_TRY(detail_add(d, "source", slice_str(n->source), reterr));
	if (a->ino != 0) {
		CEDE_TRY(detail_add_i64(d, "dev", (int64_t)a->dev, reterr));
		CEDE_TRY(detail_add_i64(d, "ino", (int64_t)a->ino, reterr));
	}
	return a->path[0] == 0 ? CEDE_OK : detail_add(d, "path", slice_str(a->path), reterr);
}

static int note_work(struct ledger *ledger, void *ctx, struct cede_error *reterr) {
	CLEANUP(buf_done) struct buf detail = BUF_INIT(32768);
	const struct guard_note *n = ctx;
	const char *text = n->detail;
	bool there = false;
	struct id id;

	if (n->more > 0)
		CEDE_TRY(detail_add_i64(&detail, "count", (int64_t)n->more, reterr));
	else if (n->detail[0] == 0) {
		CEDE_TRY(put_attempt(&detail, n, reterr));
		CEDE_TRY(ledger_which(ledger, slice_str(n->source), slice_str(n->attempt.path),
			n->attempt.dev, n->attempt.ino, &id, &there, reterr));
	}
	if (n->detail[0] == 0)
		CEDE_TRY(buf_string(&detail, &text, reterr));
	return ledger_event(ledger, n->kind, there ? &id : NULL, clock_wall_ns(), text, reterr);
}

static void record(struct guarded *g, const struct guard_note *model) {
	struct guard_note *n = g->flow == NULL ? NULL : malloc(sizeof *n);

	if (n == NULL) { /* the end is near, or memory short: the log has it */
		log_event(LOG_LEVEL_WARNING, "guard.unrecorded", "event=%s pid=%u uid=%u",
			ledger_event_name((int)model->kind), model->attempt.pid, model->attempt.uid);
		return;
	}
	*n = *model;
	flow_record(g->flow, note_work, NULL, free, n);
}

static enum ledger_event kind_of(bool denied) {
	return denied ? LEDGER_GUARD_DENIED : LEDGER_GUARD_NOTED;
}

static void on_attempt(void *ctx, const struct guard_attempt *a) {
	static struct guard_note n;
	struct guarded *g = ctx;

	memset(&n, 0, sizeof n);
	n.kind = kind_of(a->denied);
	n.attempt = *a;
	if (g->flow != NULL && a->source < g->flow->policy->source_count)
		(void)snprintf(
			n.source, sizeof n.source, "%s", g->flow->policy->sources[a->source].name);
	log_event(LOG_LEVEL_WARNING, a->denied ? "guard.denied" : "guard.noted",
		"pid=%u uid=%u count=%llu exe=\"%.200s\"", a->pid, a->uid,
		(unsigned long long)a->count, a->exe);
	record(g, &n);
}

static void on_more(void *ctx, uint64_t denied, uint64_t noted) {
	static struct guard_note n;

	memset(&n, 0, sizeof n);
	for (int i = 0; i < 2; i++) {
		n.kind = kind_of(i == 0);
		n.more = i == 0 ? denied : noted;
		if (n.more > 0)
			record(ctx, &n);
	}
}

static void note(struct guarded *g, enum ledger_event kind, const char *detail) {
	static struct guard_note n;

	memset(&n, 0, sizeof n);
	n.kind = kind;
	(void)snprintf(n.detail, sizeof n.detail, "%s", detail);
	record(g, &n);
}

/* no_gap: nothing was opened unseen since the guard of before. What has no mark is said at once. */
static void say_started(struct guarded *g, bool no_gap) {
	struct guard_figures f;
	char text[160];

	guard_figures(g->guard, &f);
	(void)snprintf(text, sizeof text, "mode=%s file-systems=%u inodes=%u gap=%s",
		g->mode == GUARD_ENFORCE ? "enforce" : "report", f.file_systems, f.inodes,
		no_gap ? "no" : "unknown");
	log_event(LOG_LEVEL_INFO, "guard.started", "%s", text);
	note(g, LEDGER_GUARD_STARTED, text);
	if (f.unmarked > 0)
		note(g, LEDGER_GUARD_LOST, "cause=unmarked opens=allowed");
}

/* The log says which part and why (guard.unmarked). As long as there is no flow guarded_record()
 * says it later. */
static void on_unmarked(void *ctx, unsigned sources) {
	struct guarded *g = ctx;

	if (g->guard == NULL || g->flow == NULL || g->failed)
		return;
	if (sources > 0)
		note(g, LEDGER_GUARD_LOST, "cause=unmarked opens=allowed");
	else
		say_started(g, false);
}

static void on_state(void *ctx, enum guard_state state, const char *why) {
	struct guarded *g = ctx;

	if (state == GUARD_STATE_ACTIVE) {
		g->failed = false;
		say_started(g, true);
		return;
	}
	log_event(LOG_LEVEL_ERROR, "guard.lost", "error=\"%s\"", why);
	/* the descriptors are held here: nothing is opened unseen */
	note(g, LEDGER_GUARD_LOST, "cause=process-ended opens=wait");
}

/* As long as the service manager has the questions, opens wait for an answer, whoever else is gone. */
static void forget_stored(struct guarded *g) {
	notify_store_remove(g->notify, STORE_FAN);
	notify_store_remove(g->notify, STORE_TABLE);
}

static void on_keep(void *ctx, const struct guard_kept *kept) {
	struct guarded *g = ctx;

	forget_stored(g);
	(void)notify_store(g->notify, kept->table, STORE_TABLE);
	(void)notify_store(g->notify, kept->fan, STORE_FAN);
}

static int on_spawn(void *ctx, struct guard_process *ret, struct cede_error *reterr) {
	struct guarded *g = ctx;
	struct spawned s;

	CEDE_TRY(spawn_guard(g->spawner, &s, reterr));
	*ret = (struct guard_process){.pid = s.pid, .pidfd = s.pidfd, .socket = s.socket};
	return CEDE_OK;
}

static void on_kill(void *ctx) {
	struct guarded *g = ctx;
	struct cede_error err;

	if (spawn_kill_guard(g->spawner, &err) < 0)
		log_event(LOG_LEVEL_ERROR, "guard.kill", "error=\"%s\"", err.text);
}

/* ---- what an earlier guard left */

static struct sockaddr_un address_of(int state_fd) {
	struct sockaddr_un a = {.sun_family = AF_UNIX};

	/* the state directory's own path may be too long for an address */
	(void)snprintf(a.sun_path, sizeof a.sun_path, "/proc/self/fd/%d/" SOCKET_NAME, state_fd);
	return a;
}

/* What it was not yet told of to anybody: until there is a flow. */
static void keep_note(struct guarded *g, const struct guard_note *model) {
	struct guard_note *n = malloc(sizeof *n);

	if (n == NULL)
		return; /* the log has it */
	*n = *model;
	n->next = g->early;
	g->early = n;
}

static int take_from_survivor(
	struct guarded *g, struct ipc_packet *packet, bool *ret_end, struct cede_error *reterr) {
	static struct guard_note n;
	enum guard_message type;
	struct ipc_reader r;

	CEDE_TRY(guard_get(
		slice_of(packet->bytes, packet->len), packet->fd_count, true, &type, &r, reterr));
	memset(&n, 0, sizeof n);
	if (type == GUARD_ATTEMPT) {
		CEDE_TRY(guard_get_attempt(&r, &n.attempt, reterr));
		n.kind = kind_of(n.attempt.denied);
		n.attempt.source =
			GUARD_NO_SOURCE; /* of a policy that may be another: so its name */
		n.attempt.path[0] = 0;   /* says nothing, and the inode all */
		keep_note(g, &n);
		return CEDE_OK;
	}
	for (int i = 0; type == GUARD_MORE && i < 2; i++) {
		n.kind = kind_of(i == 0);
		n.more = ipc_get_u64(&r);
		if (n.more > 0)
			keep_note(g, &n);
	}
	*ret_end = type == GUARD_MORE;
	return ipc_end(&r, reterr);
}

static int take_descriptors(struct guarded *g, struct ipc_packet *packet, struct cede_error *reterr) {
	enum guard_message type;
	struct ipc_reader r;

	CEDE_TRY(guard_get(
		slice_of(packet->bytes, packet->len), packet->fd_count, false, &type, &r, reterr));
	if (type != GUARD_ADOPT)
		return CEDE_FAIL(reterr, CEDE_ERR_INPUT, "the former guard gave no descriptors");
	g->found = (struct guard_kept){packet->fds[0], packet->fds[1]};
	packet->fd_count = 0;
	return ipc_end(&r, reterr);
}

/* A guard that outlived its keeper gives its descriptors, and ends when another answers. */
static int hear_survivor(struct guarded *g, struct cede_error *reterr) {
	static struct ipc_packet packet;
	struct pollfd p = {.fd = g->survivor, .events = POLLIN};

	for (bool end = false; !end;) {
		(void)poll(&p, 1, ADOPT_MS);
		CEDE_TRY(channel_receive(g->survivor, &packet, reterr));
		int r = CEDE_OK;
		if (g->found.fan < 0)
			r = take_descriptors(g, &packet, reterr);
		else
			r = take_from_survivor(g, &packet, &end, reterr);
		channel_discard(&packet);
		CEDE_TRY(r);
	}
	return CEDE_OK;
}

static void ask_survivor(struct guarded *g) {
	struct sockaddr_un a = address_of(g->state_fd);
	struct cede_error err = {0};
	CLEANUP(fd_closep) int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);

	if (fd < 0 || connect(fd, (const struct sockaddr *)&a, sizeof a) < 0)
		return; /* there is none */
	g->survivor = CEDE_TAKE_FD(fd);
	if (hear_survivor(g, &err) == CEDE_OK) {
		log_event(LOG_LEVEL_INFO, "guard.found", "where=guard");
		return;
	}
	log_event(LOG_LEVEL_WARNING, "guard.survivor", "error=\"%s\"", err.text);
	fd_closep(&g->survivor);
}

/* Another guard answers now, or none is wanted. */
static void end_survivor(struct guarded *g) {
	static struct ipc_writer w;
	struct cede_error err;

	if (g->survivor < 0)
		return;
	guard_put(&w, GUARD_STOP);
	if (channel_send(g->survivor, &w, NULL, 0, &err) < 0)
		log_event(LOG_LEVEL_WARNING, "guard.survivor", "error=\"%s\"", err.text);
	fd_closep(&g->survivor);
}

static void forget_socket(const struct guarded *g) {
	if (unlinkat(g->state_fd, SOCKET_NAME, 0) < 0 && errno != ENOENT)
		log_event(LOG_LEVEL_WARNING, "guard.socket", "error=\"%s\"", strerrordesc_np(errno));
}

/* Bound anew each time: the one before may belong to a guard that is gone. */
static int listen_for_successor(struct guarded *g, int *ret_fd, struct cede_error *reterr) {
	struct sockaddr_un a = address_of(g->state_fd);
	CLEANUP(fd_closep)
	int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	if (fd < 0)
		return CEDE_FAIL_SYS(reterr, "socket of the guard");
	forget_socket(g);
	if (bind(fd, (const struct sockaddr *)&a, sizeof a) < 0 || listen(fd, 1) < 0)
		return CEDE_FAIL_SYS(reterr, "socket of the guard");
	*ret_fd = CEDE_TAKE_FD(fd);
	return CEDE_OK;
}

int guarded_init(struct guarded *g, uv_loop_t *loop, struct spawner *spawner, struct notify *notify,
	struct passed *passed, const char *state, struct cede_error *reterr) {
	*g = (struct guarded){.loop = loop,
		.spawner = spawner,
		.notify = notify,
		.state_fd = -1,
		.survivor = -1,
		.listener = -1,
		.found = {-1, -1}};
	g->found.fan = passed_take(passed, STORE_FAN);
	g->found.table = passed_take(passed, STORE_TABLE);
	CEDE_TRY(file_open_dir(AT_FDCWD, state, &g->state_fd, reterr));
	if (g->found.fan >= 0 && g->found.table >= 0) {
		log_event(LOG_LEVEL_INFO, "guard.found", "where=service-manager");
	} else {
		fd_closep(&g->found.fan);
		fd_closep(&g->found.table);
		ask_survivor(g);
	}
	/* whether or not this policy wants a guard: inside the sandbox no socket is made */
	return listen_for_successor(g, &g->listener, reterr);
}

/* ---- life */

static int begin(struct guarded *g, const struct policy *policy, struct cede_error *reterr) {
	const struct guard_events events = {.ctx = g,
		.spawn = on_spawn,
		.kill = on_kill,
		.attempt = on_attempt,
		.more = on_more,
		.state = on_state,
		.unmarked = on_unmarked,
		.keep = on_keep};

	int listener = fcntl(g->listener, F_DUPFD_CLOEXEC, 0);

	if (listener < 0)
		return CEDE_FAIL_SYS(reterr, "socket of the guard");
	g->adopted = g->found.fan >= 0;
	g->failed = false;
	int r = guard_start(g->loop, policy, listener, &g->found, &events, &g->guard, reterr);
	if (r == CEDE_OK)
		end_survivor(g);
	fd_closep(&g->survivor); /* else it goes on by the rules that it has */
	if (g->guard != NULL)    /* it has them now */
		g->found = (struct guard_kept){-1, -1};
	return r;
}

static void on_unwanted_closed(void *ctx) {
	(void)ctx;
}

int guarded_apply(struct guarded *g, const struct policy *policy, struct cede_error *reterr) {
	struct cede_error err = {0};
	enum guard_mode before = g->mode;

	g->mode = policy->guard.mode;
	if (policy->guard.mode == GUARD_OFF) {
		g->failed = false;
		end_survivor(g);
		forget_stored(g);
		fd_closep(&g->found.fan);
		fd_closep(&g->found.table);
		if (g->guard == NULL)
			return CEDE_OK;
		log_event(LOG_LEVEL_WARNING, "guard.ended", "text=\"the policy wants none\"");
		note(g, LEDGER_GUARD_LOST, "cause=policy opens=allowed");
		guard_close(CEDE_TAKE(g->guard), on_unwanted_closed, NULL);
		return CEDE_OK;
	}
	int r = g->guard == NULL ? begin(g, policy, &err) : guard_apply(g->guard, policy, &err);
	if (r == CEDE_OK) {
		g->failed = false;
		return CEDE_OK;
	}
	if (policy->guard.mode == GUARD_ENFORCE) {
		g->mode = before;
		if (reterr != NULL)
			*reterr = err;
		return r;
	}
	g->failed = true;
	log_event(LOG_LEVEL_ERROR, "guard.lost",
		"error=\"%s\" effect=\"nobody sees who opens captures\" mend=\"docs/guard.md\"",
		err.text);
	return CEDE_OK;
}

void guarded_record(struct guarded *g, struct flow *flow) {
	g->flow = flow;
	while (flow != NULL && g->early != NULL) {
		struct guard_note *n = g->early;
		g->early = n->next;
		flow_record(flow, note_work, NULL, free, n);
	}
	if (flow == NULL)
		return;
	if (g->failed)
		note(g, LEDGER_GUARD_LOST, "cause=not-started opens=allowed");
	else if (g->guard != NULL)
		say_started(g, g->adopted);
}

void guarded_leaving(struct guarded *g) {
	if (g->guard != NULL && g->flow != NULL && !g->failed)
		note(g, LEDGER_GUARD_LOST, "cause=agent-stopped opens=allowed");
}

void guarded_figures(const struct guarded *g, struct flow_figures *figures) {
	struct guard_figures f = {0};

	if (g->guard != NULL)
		guard_figures(g->guard, &f);
	figures->guard_wanted = g->mode != GUARD_OFF;
	figures->guard_active = f.active && f.unmarked == 0;
	figures->guard_denied = f.denied;
	figures->guard_noted = f.noted;
	figures->guard_restarts = f.restarts;
}

void guarded_close(struct guarded *g, void (*on_closed)(void *ctx), void *ctx) {
	fd_closep(&g->found.fan);
	fd_closep(&g->found.table);
	fd_closep(&g->listener);
	forget_socket(g);
	if (g->guard == NULL) {
		on_closed(ctx);
		return;
	}
	guard_close(CEDE_TAKE(g->guard), on_closed, ctx);
}

void guarded_abandon(struct guarded *g) {
	if (g->guard != NULL && !g->adopted)
		on_kill(g);
}
