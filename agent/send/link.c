/* SPDX-License-Identifier: Apache-2.0
 * Pushes: what goes next, and what became of each. */
#include "agent/send/link.h"

#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "agent/ipc/channel.h"
#include "agent/send/backoff.h"
#include "agent/send/link_internal.h"
#include "base/check.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/file.h"

#define BLOCKED_MS 50 /* the courier's socket is full: try again after */
#define LONG_S     30 /* what breaks after that may have been too slow for the server */

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
		l->destinations[p->destination].reach.underway--;
	p->stage = PUSH_QUEUED;
}

struct push *link_underway(struct link *l, const struct id *id) {
	struct push *p = find(l, id);

	return p != NULL && p->stage != PUSH_QUEUED ? p : NULL;
}

void link_interrupted(struct link *l) {
	for (size_t i = 0; i < l->count; i++)
		l->destinations[i].reach.doubts = 0;
	for (struct push *p = l->pushes; p != NULL; p = p->next) {
		if (p->stage == PUSH_SENDING)
			p->ask_first = true; /* it may have arrived */
		no_longer_underway(l, p);
	}
	link_dispatch(l);
}

/* ---- outcomes */

uint32_t link_chance(void) {
	uint32_t random = 0;

	(void)!getrandom(&random, sizeof random, 0);
	return random;
}

static void works(struct link *l, size_t destination, uint64_t size, int64_t took_ns) {
	if (reach_worked(&l->destinations[destination].reach, size, took_ns, clock_boot_ns()))
		l->events.state(l->events.ctx, destination, true);
}

/* A server may have a limit of its own for how long a bundle takes. */
static bool took_long(const struct push *p, int64_t now) {
	return p->stage == PUSH_SENDING && now - p->began_boot_ns >= LONG_S * NS_PER_SECOND;
}

static void first(struct link *l, struct push *p) {
	unlink_push(l, p);
	p->next = l->pushes;
	l->pushes = p;
}

void link_take_failure(struct link *l, struct push *p, const struct reach_failure *failure) {
	struct reach_failure f = *failure;
	size_t i = p->destination;
	struct reach *reach = &l->destinations[i].reach;
	struct id id = p->id;
	int64_t now = clock_boot_ns();
	bool news = false;

	l->restarts = 0;
	f.slow = f.slow || (!f.refused && took_long(p, now));
	no_longer_underway(l, p);
	p->ask_first = p->ask_first || f.may_have_arrived;
	if (f.refused) /* one that is always refused must not be sent whenever others get through */
		p->retry_boot_ns =
			now + backoff_ms(++p->refusals, link_chance(), f.retry_after_s) * NS_PER_MS;
	if (f.gave_way && reach->underway > 0) {
		reach_gave_way(reach);
		first(l, p);
	} else {
		unlink_push(l, p); /* others are tried first next time */
		append(l, p);
		news = reach_failed(reach, p->round, &f, now, link_chance());
	}
	l->events.failed(l->events.ctx, &id, i, f.kind, f.text);
	if (news)
		l->events.state(l->events.ctx, i, false);
}

void link_take_receipt(struct link *l, struct push *p, struct slice note) {
	struct id id = p->id;

	l->restarts = 0;
	if (!l->events.receipt(l->events.ctx, &id, note)) {
		p = find(l, &id);
		if (p != NULL)
			link_take_failure(l, p,
				&(struct reach_failure){.kind = "receipt",
					.text = "the receipt was not accepted",
					.refused = true,
					.may_have_arrived = true});
		return;
	}
	p = find(l, &id);
	if (p == NULL)
		return;
	size_t destination = p->destination;
	uint64_t sent = p->stage == PUSH_SENDING ? p->size : 0;
	int64_t took = clock_boot_ns() - p->began_boot_ns;
	no_longer_underway(l, p);
	unlink_push(l, p);
	free(p);
	works(l, destination, sent, took);
}

void link_take_absent(struct link *l, struct push *p, bool for_ever) {
	struct id id = p->id;
	size_t destination = p->destination;

	l->restarts = 0;
	no_longer_underway(l, p);
	if (p->ask_only && for_ever) {
		unlink_push(l, p);
		free(p);
		works(l, destination, 0, 0);
		l->events.absent(l->events.ctx, &id);
		return;
	}
	/* It is not there: it is sent, and is the next to be. That a server answers questions does
	 * not say that it takes bundles: a destination that is down stays so until one got through. */
	p->ask_first = false;
	first(l, p);
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
	const struct reach *to = &l->destinations[p->destination].reach;
	struct ipc_writer w;
	bool ask = p->ask_only || p->ask_first;

	ipc_start(&w, ask ? IPC_ASK : IPC_PUT);
	ipc_put_u16(&w, (uint16_t)p->destination);
	ipc_put_bytes(&w, p->id.bytes, ID_SIZE);
	if (ask) {
		ipc_put_u8(&w, p->ask_only);
		CEDE_TRY(channel_send(l->process.socket, &w, NULL, 0, reterr));
		p->stage = PUSH_ASKING;
		p->round = to->round;
		return CEDE_OK;
	}
	ipc_put_u64(&w, p->size);
	ipc_put_bytes(&w, p->sha256, sizeof p->sha256);
	ipc_put_u64(&w, to->rate);
	struct slice checkpoint =
		l->events.checkpoint == NULL || carries_checkpoint(l, p->destination)
		? SLICE_NONE
		: l->events.checkpoint(l->events.ctx, p->destination);
	ipc_put_text(&w, checkpoint);
	CEDE_TRY(channel_send(l->process.socket, &w, &p->fd, 1, reterr));
	p->checkpoint = checkpoint.len > 0;
	p->began_boot_ns = clock_boot_ns();
	p->stage = PUSH_SENDING;
	p->round = to->round;
	return CEDE_OK;
}

static void on_timer(uv_timer_t *timer) {
	struct link *l = timer->data;

	if (l->closing) {
		courier_gone(l);
		return;
	}
	link_dispatch(l);
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
			p->round == l->destinations[destination].reach.round)
			return true;
	return false;
}

/* How many more may start now; else the timer is set for when one may. */
static size_t allowance(struct link *l, size_t destination, int64_t now) {
	int64_t wait = 0;

	size_t n =
		reach_room(&l->destinations[destination].reach, probing(l, destination), now, &wait);
	if (wait != 0)
		arm(l, wait);
	return n;
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

void link_dispatch(struct link *l) {
	int64_t now = clock_boot_ns();
	struct cede_error err = {0};

	if (l->closing)
		return;
	if (l->state == LINK_DEAD && l->restart_boot_ns <= now)
		courier_start(l);
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
			d->reach.underway++;
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
		l->destinations[destination].reach.rate = bytes_per_s;
}

bool link_up(const struct link *l, size_t destination) {
	return destination < l->count && !l->destinations[destination].reach.down;
}

bool link_answers(const struct link *l, size_t destination) {
	return link_up(l, destination) ||
		(destination < l->count && l->destinations[destination].reach.refused);
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
		courier_send_metrics(l);
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
	for (size_t i = 0; i < n; i++) {
		reach_init(&l->destinations[i].reach);
		for (size_t k = 0; k < 3; k++)
			l->destinations[i].files[k] = -1;
	}
	for (size_t i = 0; i < n; i++) {
		CEDE_TRY(add_destination(l, i, &destinations[i], reterr));
		add_port(l, destinations[i].port);
	}
	(void)uv_timer_init(loop, &l->timer);
	l->timer.data = l;
	courier_watch(l);
	CEDE_TRY(courier_try_start(l, reterr)); /* a courier that can't start at all is told at once */
	*ret = l;
	return CEDE_OK;
}

static void on_timer_closed(uv_handle_t *handle) {
	struct link *l = handle->data;
	void (*on_closed)(void *) = l->on_closed;
	void *ctx = l->ctx;

	if (--l->open > 0)
		return;
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

void link_closed(struct link *l) {
	l->open = 2;
	uv_close((uv_handle_t *)&l->timer, on_timer_closed);
	uv_close((uv_handle_t *)&l->pulse, on_timer_closed);
}

void link_close(struct link *l, unsigned grace_ms, void (*on_closed)(void *ctx), void *ctx) {
	struct ipc_writer w;

	l->on_closed = on_closed;
	l->ctx = ctx;
	l->closing = true;
	if (l->state == LINK_DEAD) {
		link_closed(l);
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
