/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/send/link.h"

#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/wait.h>
#include <unistd.h>

#include "agent/ipc/channel.h"
#include "agent/send/backoff.h"
#include "base/check.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/log.h"
#include "base/sandbox.h"

#define DOUBTS_MOST   9
#define UNDERWAY_MOST 8  /* pushes of one destination at once */
#define PACKETS_MOST  64 /* read in one turn of the loop */
#define BLOCKED_MS    50 /* the courier's socket is full: try again after */

enum push_stage {
	PUSH_QUEUED,
	PUSH_ASKING, /* is it there already? then it is not sent again */
	PUSH_SENDING,
};

struct push {
	struct push *next;
	struct id id;
	size_t destination;
	enum push_stage stage;
	bool ask_only; /* no ciphertext: receipt or tombstone */
	bool ask_first;
	bool checkpoint;       /* PUSH_SENDING: one went with it */
	unsigned round;        /* its destination's, when it began */
	unsigned refusals;     /* answers that refused it */
	int64_t retry_boot_ns; /* not before */
	int fd;
	uint64_t size;
	uint8_t sha256[32];
};

struct destination {
	char *name;
	uint8_t *config; /* body of its DESTINATION message */
	size_t config_len;
	int files[3]; /* memory files: CA, certificate, key */
	bool down;
	bool refused;          /* while down: by the server's own answer */
	unsigned failures;     /* in a row; what broke with one link counts once */
	unsigned doubts;       /* whether the courier itself is what fails */
	unsigned round;        /* a failure of a push that began in an earlier one is no news */
	int64_t retry_boot_ns; /* while down: not before */
	int64_t asked_boot_ns; /* the server asked for quiet until then */
	size_t underway;
	uint64_t rate; /* bytes a second; 0: no limit */
};

enum link_state { LINK_STARTING, LINK_WORKING, LINK_DEAD };

struct link {
	uv_loop_t *loop;
	struct link_events events;
	struct spawner *spawner;
	uint32_t required;  /* layers of its sandbox: 1 << enum sandbox_layer */
	uint32_t layers_on; /* as it said */
	uint32_t layers_missing;
	uint16_t ports[SPAWN_PORTS_MAX]; /* of the destinations */
	size_t port_count;
	int metrics_fd; /* the newest exposition text, or -1 */
	uint32_t metrics_len;
	uint32_t unmet; /* conditions for being ready */
	struct destination *destinations;
	size_t count;
	struct push *pushes; /* in the order in which they are to go */
	enum link_state state;
	struct spawned process;
	uv_poll_t *socket_poll; /* each start has its own: freed by its close callback */
	uv_poll_t *exit_poll;
	uv_timer_t timer; /* next retry, restart, or the end of the grace */
	unsigned restarts;
	uint64_t starts;
	int64_t restart_boot_ns;
	int64_t kill_boot_ns; /* while closing */
	bool closing;
	unsigned handles;
	void (*on_closed)(void *ctx);
	void *ctx;
};

static void dispatch(struct link *l);
static void start_courier(struct link *l);

static struct push *find(struct link *l, const struct id *id) {
	for (struct push *p = l->pushes; p != NULL; p = p->next)
		if (id_equal(&p->id, id))
			return p;
	return NULL;
}

static void append(struct link *l, struct push *p) {
	struct push **at = &l->pushes;

	p->next = NULL;
	while (*at != NULL)
		at = &(*at)->next;
	*at = p;
}

static void unlink_push(struct link *l, struct push *p) {
	struct push **at = &l->pushes;

	while (*at != p)
		at = &(*at)->next;
	*at = p->next;
}

static void no_longer_underway(struct link *l, struct push *p) {
	if (p->stage != PUSH_QUEUED)
		l->destinations[p->destination].underway--;
	p->stage = PUSH_QUEUED;
}

/* ---- the courier ends, and starts again */

static void free_handle(uv_handle_t *handle) {
	free(handle);
}

static void close_polls(struct link *l) {
	uv_poll_t **polls[] = {&l->socket_poll, &l->exit_poll};

	for (size_t i = 0; i < ARRAY_LENGTH(polls); i++)
		if (*polls[i] != NULL) {
			(void)uv_poll_stop(*polls[i]);
			uv_close((uv_handle_t *)*polls[i], free_handle);
			*polls[i] = NULL;
		}
	fd_closep(&l->process.socket);
	fd_closep(&l->process.pidfd);
}

static void on_timer_closed(uv_handle_t *handle) {
	struct link *l = handle->data;
	void (*on_closed)(void *) = l->on_closed;
	void *ctx = l->ctx;

	for (size_t i = 0; i < l->count; i++) {
		struct destination *d = &l->destinations[i];
		free(d->name);
		free(d->config);
		for (size_t k = 0; k < ARRAY_LENGTH(d->files); k++)
			fd_closep(&d->files[k]);
	}
	while (l->pushes != NULL) {
		struct push *p = l->pushes;
		l->pushes = p->next;
		free(p);
	}
	free(l->destinations);
	fd_closep(&l->metrics_fd);
	free(l);
	on_closed(ctx);
}

static void courier_gone(struct link *l) {
	struct cede_error err = {0};
	int status = 0;
	int how = 0;

	if (l->state == LINK_DEAD)
		return;
	if (spawn_kill(l->spawner, &err) < 0) { /* it may only have closed its socket */
		log_event(LOG_LEVEL_ERROR, "courier.unkilled", "error=\"%s\"", err.text);
		how = WNOHANG; /* it ends without its socket, or is killed before the next one starts */
	}
	while (waitpid(l->process.pid, &status, how) < 0 && errno == EINTR)
		continue;
	close_polls(l);
	l->state = LINK_DEAD;
	if (l->closing) {
		uv_close((uv_handle_t *)&l->timer, on_timer_closed);
		return;
	}
	l->restarts++; /* since it brought the last outcome */
	uint32_t random = 0;
	(void)!getrandom(&random, sizeof random, 0);
	uint32_t wait = backoff_ms(l->restarts, random, 0);
	l->restart_boot_ns = clock_boot_ns() + wait * NS_PER_MS;
	log_event(LOG_LEVEL_ERROR, "courier.exited", "%s=%d again_ms=%u",
		WIFSIGNALED(status) ? "signal" : "status",
		WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status), wait);
	for (size_t i = 0; i < l->count; i++)
		l->destinations[i].doubts = 0;
	for (struct push *p = l->pushes; p != NULL; p = p->next) {
		if (p->stage == PUSH_SENDING)
			p->ask_first = true; /* it may have arrived */
		no_longer_underway(l, p);
	}
	dispatch(l);
}

/* Nonsense from the courier costs the courier. */
static void courier_bad(struct link *l, const char *text) {
	log_event(LOG_LEVEL_ERROR, "courier.bad",
		"error=\"%s\" effect=\"killed and started again\"", text);
	courier_gone(l);
}

/* ---- outcomes */

static void destination_works(struct link *l, size_t i) {
	struct destination *d = &l->destinations[i];

	d->failures = 0;
	d->doubts = 0;
	/* one that was let in just before the server asked for quiet does not end that */
	if (!d->down || d->asked_boot_ns > clock_boot_ns())
		return;
	d->down = false;
	l->events.state(l->events.ctx, i, true);
}

struct failure {
	const char *kind;
	const char *text;
	bool refused; /* the server answered: the bundle itself may be the reason */
	bool may_have_arrived;
	uint32_t retry_after_s;
};

static int64_t after(unsigned failures, uint32_t asked_s) {
	uint32_t random = 0;

	(void)!getrandom(&random, sizeof random, 0);
	return clock_boot_ns() + backoff_ms(failures, random, asked_s) * NS_PER_MS;
}

/* Whether this is the news that the destination is down. */
static bool destination_failed(struct destination *d, unsigned round, const struct failure *f) {
	bool news = !d->down;

	if (f->retry_after_s > 0)
		d->asked_boot_ns = after(1, f->retry_after_s);
	if (round == d->round) {
		d->round++;
		d->retry_boot_ns = after(++d->failures, f->retry_after_s);
		d->refused = f->refused;
	} else if (f->retry_after_s == 0) {
		return false; /* what went down with an earlier one */
	}
	if (d->retry_boot_ns < d->asked_boot_ns)
		d->retry_boot_ns = d->asked_boot_ns;
	d->down = true;
	return news;
}

static void push_failed(struct link *l, struct push *p, const struct failure *f) {
	size_t i = p->destination;
	struct id id = p->id;

	no_longer_underway(l, p);
	p->ask_first = p->ask_first || f->may_have_arrived;
	if (f->refused) /* one that is always refused must not be sent whenever others get through */
		p->retry_boot_ns = after(++p->refusals, f->retry_after_s);
	unlink_push(l, p); /* others are tried first next time */
	append(l, p);
	bool news = destination_failed(&l->destinations[i], p->round, f);
	l->events.failed(l->events.ctx, &id, i, f->kind, f->text);
	if (news)
		l->events.state(l->events.ctx, i, false);
}

static void take_receipt(struct link *l, struct push *p, struct slice note) {
	struct id id = p->id;

	if (!l->events.receipt(l->events.ctx, &id, note)) {
		p = find(l, &id);
		if (p != NULL)
			push_failed(l, p,
				&(struct failure){.kind = "receipt",
					.text = "the receipt was not accepted",
					.refused = true,
					.may_have_arrived = true});
		return;
	}
	p = find(l, &id);
	if (p == NULL)
		return;
	size_t destination = p->destination;
	no_longer_underway(l, p);
	unlink_push(l, p);
	free(p);
	destination_works(l, destination);
}

static void take_absent(struct link *l, struct push *p, bool for_ever) {
	struct id id = p->id;
	size_t destination = p->destination;

	no_longer_underway(l, p);
	if (p->ask_only && for_ever) {
		unlink_push(l, p);
		free(p);
		destination_works(l, destination);
		l->events.absent(l->events.ctx, &id);
		return;
	}
	/* It is not there: it is sent, and is the next to be. That a server answers questions does
	 * not say that it takes bundles: a destination that is down stays so until one got through. */
	p->ask_first = false;
	unlink_push(l, p);
	p->next = l->pushes;
	l->pushes = p;
}

/* ---- messages of the courier */

static int get_push(struct link *l, struct ipc_reader *r, struct push **ret) {
	struct id id;

	ipc_get_bytes(r, id.bytes, ID_SIZE);
	*ret = find(l, &id);
	/* an outcome for a push that is not under way: forgotten, or invented; either way nothing to do */
	if (*ret != NULL && (*ret)->stage == PUSH_QUEUED)
		*ret = NULL;
	return CEDE_OK;
}

static void copy_text(struct slice text, char *out, size_t size) {
	size_t n = text.len < size - 1 ? text.len : size - 1;

	for (size_t i = 0; i < n; i++) /* it will stand in a log line */
		out[i] = text.data[i] >= 0x20 && text.data[i] < 0x7f && text.data[i] != '"'
			? (char)text.data[i]
			: '?';
	out[n] = 0;
}

static int on_receipt(struct link *l, struct ipc_reader *r, struct cede_error *reterr) {
	struct push *p;

	CEDE_TRY(get_push(l, r, &p));
	struct slice note = ipc_get_text(r);
	CEDE_TRY(ipc_end(r, reterr));
	if (p != NULL)
		take_receipt(l, p, note);
	return CEDE_OK;
}

static int on_absent(struct link *l, struct ipc_reader *r, struct cede_error *reterr) {
	struct push *p;

	CEDE_TRY(get_push(l, r, &p));
	uint8_t for_ever = ipc_get_u8(r);
	CEDE_TRY(ipc_end(r, reterr));
	if (p != NULL && p->stage != PUSH_ASKING)
		return CEDE_FAIL(reterr, CEDE_ERR_INPUT, "message: absence of what was being sent");
	if (p != NULL)
		take_absent(l, p, for_ever == 1);
	return CEDE_OK;
}

/* Memory was short once, and its TLS library remembers a refusal for ever; or /etc/resolv.conf was
 * replaced, and its sandbox lets it read the former file alone: a fresh one does better. A server's
 * wrong certificate, or a name that is not there, looks the same from here; then it costs a start
 * now and then. */
static void doubt(struct destination *d, const char *kind) {
	if (strcmp(kind, "local") == 0)
		d->doubts += 3;
	else if (strcmp(kind, "tls") == 0 || strcmp(kind, "resolve") == 0)
		d->doubts++;
	else
		d->doubts = 0;
}

/* A new courier would cut off what goes to the others: as long as one of them works it stays. */
static bool courier_is_doubtful(const struct link *l) {
	bool doubtful = false;

	for (size_t i = 0; i < l->count; i++) {
		const struct destination *d = &l->destinations[i];
		if (d->doubts >= DOUBTS_MOST)
			doubtful = true;
		else if (!d->down && d->underway > 0)
			return false;
	}
	return doubtful;
}

static int on_failed(struct link *l, struct ipc_reader *r, struct cede_error *reterr) {
	char kind[33], text[400];
	struct push *p;

	CEDE_TRY(get_push(l, r, &p));
	copy_text(ipc_get_text(r), kind, sizeof kind);
	uint16_t status = ipc_get_u16(r);
	uint32_t retry_after = ipc_get_u32(r);
	bool arrived = ipc_get_u8(r) != 0;
	copy_text(ipc_get_text(r), text, sizeof text);
	CEDE_TRY(ipc_end(r, reterr));
	if (p == NULL)
		return CEDE_OK;
	doubt(&l->destinations[p->destination], kind);
	push_failed(l, p,
		&(struct failure){.kind = kind,
			.text = text,
			.refused = status != 0 || strcmp(kind, "receipt") == 0,
			.may_have_arrived = arrived && !p->ask_only,
			.retry_after_s = retry_after});
	return CEDE_OK;
}

static int on_probed(struct link *l, struct ipc_reader *r, struct cede_error *reterr) {
	char kind[33], text[513];
	size_t destination = ipc_get_u16(r);
	struct link_probe probe = {.kind = kind, .text = text, .status = ipc_get_u16(r)};

	probe.date_s = (int64_t)ipc_get_u64(r);
	copy_text(ipc_get_text(r), kind, sizeof kind);
	copy_text(ipc_get_text(r), text, sizeof text);
	CEDE_TRY(ipc_end(r, reterr));
	if (destination >= l->count)
		return CEDE_FAIL(reterr, CEDE_ERR_INPUT, "message: no such destination");
	if (l->events.probed != NULL)
		l->events.probed(l->events.ctx, destination, &probe);
	return CEDE_OK;
}

static int send_destinations(struct link *l, struct cede_error *reterr) {
	for (size_t i = 0; i < l->count; i++) {
		struct destination *d = &l->destinations[i];
		struct ipc_writer w;
		ipc_start(&w, IPC_DESTINATION);
		ipc_put_bytes(&w, d->config, d->config_len);
		CEDE_TRY(channel_send(l->process.socket, &w, d->files, 3, reterr));
	}
	return CEDE_OK;
}

/* The newest text; a courier that was started again gets it at once. */
static void send_metrics(struct link *l) {
	struct ipc_writer w;

	if (l->metrics_fd < 0)
		return;
	ipc_start(&w, IPC_METRICS);
	ipc_put_u32(&w, l->metrics_len);
	ipc_put_u32(&w, l->unmet);
	(void)!channel_send(
		l->process.socket, &w, &l->metrics_fd, 1, NULL); /* the next follow soon */
}

static int on_hello(struct link *l, struct ipc_reader *r, struct cede_error *reterr) {
	uint16_t version = ipc_get_u16(r);
	l->layers_on = ipc_get_u32(r);
	l->layers_missing = ipc_get_u32(r);

	CEDE_TRY(ipc_end(r, reterr));
	if (version != IPC_VERSION)
		return CEDE_FAIL(reterr, CEDE_ERR_INPUT, "the courier is of another build");
	if ((l->required & ~l->layers_on) != 0) {
		char lacks[SANDBOX_TEXT_SIZE];
		sandbox_text(l->required & ~l->layers_on, lacks);
		return CEDE_FAIL(reterr, CEDE_ERR_REFUSED,
			"the policy requires of the courier's sandbox: %s; nothing is handed over; run a kernel that has it (own-user: name a courier_user)",
			lacks);
	}
	CEDE_TRY(send_destinations(l, reterr));
	l->state = LINK_WORKING;
	send_metrics(l);
	return CEDE_OK;
}

static int handle(struct link *l, struct slice packet, size_t fds, struct cede_error *reterr) {
	struct ipc_reader r;

	CEDE_TRY(ipc_open(packet, fds, true,
		l->state == LINK_STARTING ? IPC_HELLO_PHASE : IPC_WORK_PHASE, &r, reterr));
	if (r.type != IPC_HELLO)
		l->restarts = 0;
	switch (r.type) {
	case IPC_HELLO:
		return on_hello(l, &r, reterr);
	case IPC_RECEIPT:
		return on_receipt(l, &r, reterr);
	case IPC_ABSENT:
		return on_absent(l, &r, reterr);
	case IPC_FAILED:
		return on_failed(l, &r, reterr);
	case IPC_PROBED:
		return on_probed(l, &r, reterr);
	case IPC_DESTINATION:
	case IPC_PUT:
	case IPC_ASK:
	case IPC_CANCEL:
	case IPC_METRICS:
	case IPC_STOP:
	case IPC_PROBE:
		break;
	}
	return CEDE_FAIL(reterr, CEDE_ERR_BUG, "message: not the courier's");
}

static void on_readable(uv_poll_t *poll, int status, int events) {
	struct link *l = poll->data;
	struct ipc_packet packet;
	struct cede_error err = {0};

	(void)events;
	if (status < 0) {
		courier_gone(l);
		return;
	}
	for (int i = 0; i < PACKETS_MOST; i++) {
		int r = channel_receive(l->process.socket, &packet, &err);
		if (r == CEDE_ERR_BUSY)
			break;
		if (r == CEDE_ERR_REFUSED || r == CEDE_ERR_IO) {
			courier_gone(l);
			return;
		}
		if (r == CEDE_OK && !l->closing)
			r = handle(l, slice_of(packet.bytes, packet.len), packet.fd_count, &err);
		channel_discard(&packet);
		if (r < 0) {
			courier_bad(l, err.text);
			return;
		}
	}
	if (!l->closing && courier_is_doubtful(l)) {
		log_event(LOG_LEVEL_WARNING, "courier.afresh",
			"text=\"no connection worked for long; a new process may do better\"");
		courier_gone(l);
		return;
	}
	dispatch(l);
}

static void on_exit_readable(uv_poll_t *poll, int status, int events) {
	struct link *l = poll->data;

	(void)status;
	(void)events;
	courier_gone(l);
}

/* ---- starting */

static uv_poll_t *poll_start(struct link *l, int fd, uv_poll_cb then) {
	uv_poll_t *poll = calloc(1, sizeof *poll);

	if (poll == NULL)
		return NULL;
	if (uv_poll_init(l->loop, poll, fd) != 0) {
		free(poll);
		return NULL;
	}
	poll->data = l;
	if (uv_poll_start(poll, UV_READABLE, then) != 0) {
		uv_close((uv_handle_t *)poll, free_handle);
		return NULL;
	}
	return poll;
}

static int try_start(struct link *l, struct cede_error *reterr) {
	CEDE_TRY(spawn_courier(l->spawner, l->ports, l->port_count, &l->process, reterr));
	l->state = LINK_STARTING;
	l->starts++;
	l->socket_poll = poll_start(l, l->process.socket, on_readable);
	l->exit_poll = poll_start(l, l->process.pidfd, on_exit_readable);
	if (l->socket_poll == NULL || l->exit_poll == NULL)
		return CEDE_FAIL_MEMORY(reterr);
	return CEDE_OK;
}

static void start_courier(struct link *l) {
	struct cede_error err = {0};

	if (try_start(l, &err) == CEDE_OK) {
		log_event(LOG_LEVEL_INFO, "courier.started", "pid=%d", (int)l->process.pid);
		return;
	}
	log_event(LOG_LEVEL_ERROR, "courier.unstarted", "error=\"%s\"", err.text);
	if (l->state != LINK_DEAD) {
		courier_gone(l);
		return;
	}
	l->restarts++;
	l->restart_boot_ns = clock_boot_ns() + backoff_ms(l->restarts, 0, 0) * NS_PER_MS;
}

/* ---- sending */

/* Whether a push there is under way that has a checkpoint with it. */
static bool carries_checkpoint(const struct link *l, size_t destination) {
	for (const struct push *p = l->pushes; p != NULL; p = p->next)
		if (p->destination == destination && p->stage == PUSH_SENDING && p->checkpoint)
			return true;
	return false;
}

static int send_push(struct link *l, struct push *p, struct cede_error *reterr) {
	const struct destination *d = &l->destinations[p->destination];
	struct ipc_writer w;
	bool ask = p->ask_only || p->ask_first;

	ipc_start(&w, ask ? IPC_ASK : IPC_PUT);
	ipc_put_u16(&w, (uint16_t)p->destination);
	ipc_put_bytes(&w, p->id.bytes, ID_SIZE);
	if (ask) {
		ipc_put_u8(&w, p->ask_only);
		CEDE_TRY(channel_send(l->process.socket, &w, NULL, 0, reterr));
		p->stage = PUSH_ASKING;
		p->round = d->round;
		return CEDE_OK;
	}
	ipc_put_u64(&w, p->size);
	ipc_put_bytes(&w, p->sha256, sizeof p->sha256);
	ipc_put_u64(&w, d->rate);
	struct slice checkpoint =
		l->events.checkpoint == NULL || carries_checkpoint(l, p->destination)
		? SLICE_NONE
		: l->events.checkpoint(l->events.ctx, p->destination);
	ipc_put_text(&w, checkpoint);
	CEDE_TRY(channel_send(l->process.socket, &w, &p->fd, 1, reterr));
	p->checkpoint = checkpoint.len > 0;
	p->stage = PUSH_SENDING;
	p->round = d->round;
	return CEDE_OK;
}

static void on_timer(uv_timer_t *timer) {
	struct link *l = timer->data;

	if (l->closing) {
		courier_gone(l);
		return;
	}
	dispatch(l);
}

static void arm(struct link *l, int64_t boot_ns) {
	int64_t now = clock_boot_ns();
	uint64_t ms = boot_ns <= now ? 1 : (uint64_t)((boot_ns - now) / NS_PER_MS) + 1;

	if (uv_is_active((uv_handle_t *)&l->timer) && uv_timer_get_due_in(&l->timer) <= ms)
		return;
	(void)uv_timer_start(&l->timer, on_timer, ms, 0);
}

/* Whether one is under way that began after the last failure. */
static bool probing(const struct link *l, size_t destination) {
	for (const struct push *p = l->pushes; p != NULL; p = p->next)
		if (p->destination == destination && p->stage != PUSH_QUEUED &&
			p->round == l->destinations[destination].round)
			return true;
	return false;
}

/* How many more may start now: one probe when the destination is down and its time has come. Those
 * that hang since the link broke do not hold it up. */
static size_t allowance(struct link *l, size_t destination, int64_t now) {
	const struct destination *d = &l->destinations[destination];
	size_t most = d->rate > 0 ? 1 : UNDERWAY_MOST;
	size_t room = d->underway < most ? most - d->underway : 0;

	if (!d->down || room == 0)
		return room;
	if (probing(l, destination))
		return 0;
	if (d->retry_boot_ns > now) {
		arm(l, d->retry_boot_ns);
		return 0;
	}
	return 1;
}

/* Whether one may go now; else the timer is set for the first that may. */
static bool has_queued(struct link *l, size_t destination, int64_t now) {
	int64_t next = INT64_MAX;

	for (const struct push *p = l->pushes; p != NULL; p = p->next) {
		if (p->destination != destination || p->stage != PUSH_QUEUED)
			continue;
		if (p->retry_boot_ns <= now)
			return true;
		next = p->retry_boot_ns < next ? p->retry_boot_ns : next;
	}
	if (next != INT64_MAX)
		arm(l, next);
	return false;
}

static void dispatch(struct link *l) {
	int64_t now = clock_boot_ns();
	struct cede_error err = {0};

	if (l->closing)
		return;
	if (l->state == LINK_DEAD && l->restart_boot_ns <= now)
		start_courier(l);
	if (l->state == LINK_DEAD)
		arm(l, l->restart_boot_ns);
	if (l->state != LINK_WORKING)
		return;
	for (size_t i = 0; i < l->count; i++) {
		struct destination *d = &l->destinations[i];
		size_t n = has_queued(l, i, now) ? allowance(l, i, now) : 0;
		for (struct push *p = l->pushes; p != NULL && n > 0; p = p->next) {
			if (p->destination != i || p->stage != PUSH_QUEUED || p->retry_boot_ns > now)
				continue;
			int r = send_push(l, p, &err);
			if (r == CEDE_ERR_BUSY) {
				arm(l, now + BLOCKED_MS * NS_PER_MS);
				return;
			}
			if (r < 0) {
				courier_bad(l, err.text);
				return;
			}
			d->underway++;
			n--;
		}
	}
}

static int add_push(struct link *l, const struct push *model, struct cede_error *reterr) {
	struct push *p;

	if (l->closing || model->destination >= l->count)
		return CEDE_FAIL(reterr, CEDE_ERR_BUG, "link: no such destination, or closing");
	if (find(l, &model->id) != NULL)
		return CEDE_FAIL(reterr, CEDE_ERR_BUG, "link: this bundle is under way already");
	p = calloc(1, sizeof *p);
	if (p == NULL)
		return CEDE_FAIL_MEMORY(reterr);
	*p = *model;
	append(l, p);
	arm(l, 0); /* not from within the caller */
	return CEDE_OK;
}

int link_push(struct link *l, size_t destination, const struct id *bundle, int fd, uint64_t size,
	const uint8_t sha256[32], bool asked_first, struct cede_error *reterr) {
	struct push model = {.id = *bundle,
		.destination = destination,
		.ask_first = asked_first,
		.fd = fd,
		.size = size};

	memcpy(model.sha256, sha256, sizeof model.sha256);
	return add_push(l, &model, reterr);
}

int link_ask(struct link *l, size_t destination, const struct id *bundle, struct cede_error *reterr) {
	struct push model = {.id = *bundle, .destination = destination, .ask_only = true, .fd = -1};

	return add_push(l, &model, reterr);
}

int link_probe(struct link *l, size_t destination, struct cede_error *reterr) {
	struct ipc_writer w;

	if (destination >= l->count)
		return CEDE_FAIL(reterr, CEDE_ERR_BUG, "link: no such destination");
	if (l->state != LINK_WORKING)
		return CEDE_FAIL(reterr, CEDE_ERR_BUSY, "the courier is not there yet");
	ipc_start(&w, IPC_PROBE);
	ipc_put_u16(&w, (uint16_t)destination);
	return channel_send(l->process.socket, &w, NULL, 0, reterr);
}

void link_forget(struct link *l, const struct id *bundle) {
	struct push *p = find(l, bundle);
	struct ipc_writer w;

	if (p == NULL)
		return;
	if (p->stage != PUSH_QUEUED && l->state == LINK_WORKING) {
		ipc_start(&w, IPC_CANCEL);
		ipc_put_bytes(&w, bundle->bytes, ID_SIZE);
		(void)!channel_send(l->process.socket, &w, NULL, 0,
			NULL); /* its outcome is ignored in any case */
	}
	no_longer_underway(l, p);
	unlink_push(l, p);
	free(p);
}

void link_rate(struct link *l, size_t destination, uint64_t bytes_per_s) {
	if (destination < l->count)
		l->destinations[destination].rate = bytes_per_s;
}

bool link_up(const struct link *l, size_t destination) {
	return destination < l->count && !l->destinations[destination].down;
}

bool link_answers(const struct link *l, size_t destination) {
	return link_up(l, destination) ||
		(destination < l->count && l->destinations[destination].refused);
}

void link_metrics(struct link *l, struct slice text, uint32_t unmet) {
	CLEANUP(fd_closep) int fd = -1;

	if (file_memory("metrics", &fd, NULL) < 0 || file_write_all(fd, text.data, text.len, NULL) < 0)
		return; /* the next ones follow in a moment */
	fd_closep(&l->metrics_fd);
	l->metrics_fd = CEDE_TAKE_FD(fd);
	l->metrics_len = (uint32_t)text.len;
	l->unmet = unmet;
	if (l->state == LINK_WORKING)
		send_metrics(l);
}

uint64_t link_courier_starts(const struct link *l) {
	return l->starts;
}

/* ---- birth and end */

static int memory_of(struct slice content, int *ret_fd, struct cede_error *reterr) {
	CEDE_TRY(file_memory("destination", ret_fd, reterr));
	CEDE_TRY(file_write_all(*ret_fd, content.data, content.len, reterr));
	return file_memory_seal(*ret_fd, reterr);
}

static int add_destination(
	struct link *l, size_t i, const struct link_destination *from, struct cede_error *reterr) {
	struct destination *d = &l->destinations[i];
	const struct slice files[3] = {from->ca_pem, from->certificate_pem, from->key_pem};
	struct ipc_writer w;

	for (size_t k = 0; k < ARRAY_LENGTH(files); k++)
		CEDE_TRY(memory_of(files[k], &d->files[k], reterr));
	ipc_start(&w, IPC_DESTINATION);
	ipc_put_u16(&w, (uint16_t)i);
	ipc_put_text(&w, slice_str(from->url));
	ipc_put_u16(&w, (uint16_t)from->pin_count);
	for (size_t k = 0; k < from->pin_count; k++)
		ipc_put_text(&w, slice_str(from->pins[k]));
	ipc_put_u16(&w, (uint16_t)from->address_count);
	for (size_t k = 0; k < from->address_count; k++) {
		ipc_put_bytes(&w, &from->addresses[k].prefix, 16);
		ipc_put_u8(&w, from->addresses[k].bits);
	}
	if (w.too_long)
		return CEDE_FAIL(reterr, CEDE_ERR_INPUT,
			"destination %s: too many pins or addresses", from->name);
	d->name = strdup(from->name);
	d->config_len = w.len - IPC_HEADER;
	d->config = malloc(d->config_len);
	if (d->name == NULL || d->config == NULL)
		return CEDE_FAIL_MEMORY(reterr);
	memcpy(d->config, w.bytes + IPC_HEADER, d->config_len);
	return CEDE_OK;
}

static void add_port(struct link *l, uint16_t port) {
	for (size_t i = 0; i < l->port_count; i++)
		if (l->ports[i] == port)
			return;
	require(l->port_count < SPAWN_PORTS_MAX); /* as many as destinations */
	l->ports[l->port_count++] = port;
}

int link_start(uv_loop_t *loop, struct spawner *spawner, uint32_t required,
	const struct link_destination *destinations, size_t n, const struct link_events *events,
	struct link **ret, struct cede_error *reterr) {
	struct link *l = calloc(1, sizeof *l);

	if (l == NULL)
		return CEDE_FAIL_MEMORY(reterr);
	/* a failure from here on ends the process: the caller's start list says so */
	l->loop = loop;
	l->events = *events;
	l->state = LINK_DEAD;
	l->metrics_fd = -1;
	l->process = (struct spawned){.pid = -1, .pidfd = -1, .socket = -1};
	l->spawner = spawner;
	l->required = required;
	l->destinations = calloc(n == 0 ? 1 : n, sizeof *l->destinations);
	if (l->destinations == NULL)
		return CEDE_FAIL_MEMORY(reterr);
	l->count = n;
	for (size_t i = 0; i < n; i++)
		for (size_t k = 0; k < 3; k++)
			l->destinations[i].files[k] = -1;
	for (size_t i = 0; i < n; i++) {
		CEDE_TRY(add_destination(l, i, &destinations[i], reterr));
		add_port(l, destinations[i].port);
	}
	(void)uv_timer_init(loop, &l->timer);
	l->timer.data = l;
	CEDE_TRY(try_start(l, reterr)); /* a courier that can't start at all is told at once */
	*ret = l;
	return CEDE_OK;
}

void link_close(struct link *l, unsigned grace_ms, void (*on_closed)(void *ctx), void *ctx) {
	struct ipc_writer w;

	l->on_closed = on_closed;
	l->ctx = ctx;
	l->closing = true;
	if (l->state == LINK_DEAD) {
		uv_close((uv_handle_t *)&l->timer, on_timer_closed);
		return;
	}
	ipc_start(&w, IPC_STOP);
	(void)!channel_send(
		l->process.socket, &w, NULL, 0, NULL); /* else it is killed after the grace */
	(void)uv_timer_start(&l->timer, on_timer, grace_ms, 0);
}

void link_adopt(struct link *l, const struct link_events *events) {
	l->events = *events;
}

void link_layers(const struct link *l, uint32_t *ret_on, uint32_t *ret_missing) {
	*ret_on = l->layers_on;
	*ret_missing = l->layers_missing;
}
