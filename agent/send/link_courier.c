/* SPDX-License-Identifier: Apache-2.0
 * The courier process as the keeper sees it: started, heard, killed, started again. */
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "agent/ipc/channel.h"
#include "agent/send/backoff.h"
#include "agent/send/link_internal.h"
#include "base/check.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/sandbox.h"

#define PACKETS_MOST 64 /* read in one turn of the loop */
#define PULSE_MS     5000
#define UNHEARD_MOST 6                     /* pulses */
#define DATE_MAX     INT64_C(253402300799) /* the end of the year 9999 */

/* ---- it ends, and is to start again */

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

void courier_gone(struct link *l) {
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
		link_closed(l);
		return;
	}
	l->restarts++;
	uint32_t wait = backoff_ms(l->restarts, link_chance(), 0);
	l->restart_boot_ns = clock_boot_ns() + wait * NS_PER_MS;
	log_event(LOG_LEVEL_ERROR, "courier.exited", "%s=%d again_ms=%u",
		WIFSIGNALED(status) ? "signal" : "status",
		WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status), wait);
	link_interrupted(l);
}

void courier_bad(struct link *l, const char *text) {
	log_event(LOG_LEVEL_ERROR, "courier.bad",
		"error=\"%s\" effect=\"killed and started again\"", text);
	courier_gone(l);
}

/* ---- its messages */

static struct push *get_push(struct link *l, struct ipc_reader *r) {
	struct id id;

	ipc_get_bytes(r, id.bytes, ID_SIZE);
	return link_underway(l, &id);
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
	struct push *p = get_push(l, r);
	struct slice note = ipc_get_text(r);
	CEDE_TRY(ipc_end(r, reterr));
	if (p != NULL)
		link_take_receipt(l, p, note);
	return CEDE_OK;
}

static int on_absent(struct link *l, struct ipc_reader *r, struct cede_error *reterr) {
	struct push *p = get_push(l, r);
	uint8_t for_ever = ipc_get_u8(r);

	CEDE_TRY(ipc_end(r, reterr));
	if (p != NULL && p->stage != PUSH_ASKING)
		return CEDE_FAIL(reterr, CEDE_ERR_INPUT, "message: absence of what was being sent");
	if (p != NULL && p->ask_only && for_ever != 1) /* it would be asked again at once */
		return CEDE_FAIL(reterr, CEDE_ERR_INPUT, "message: absence without the promise");
	if (p != NULL)
		link_take_absent(l, p, for_ever == 1);
	return CEDE_OK;
}

/* A new courier would cut off what goes to the others: as long as one of them works it stays. */
static bool courier_is_doubtful(const struct link *l) {
	bool doubtful = false;

	for (size_t i = 0; i < l->count; i++) {
		const struct reach *r = &l->destinations[i].reach;
		if (reach_doubts_courier(r))
			doubtful = true;
		else if (!r->down && r->underway > 0)
			return false;
	}
	return doubtful;
}

static int on_failed(struct link *l, struct ipc_reader *r, struct cede_error *reterr) {
	struct push *p = get_push(l, r);
	char kind[33], text[400];

	copy_text(ipc_get_text(r), kind, sizeof kind);
	uint16_t status = ipc_get_u16(r);
	uint32_t retry_after = ipc_get_u32(r);
	bool arrived = ipc_get_u8(r) != 0;
	copy_text(ipc_get_text(r), text, sizeof text);
	CEDE_TRY(ipc_end(r, reterr));
	if (p == NULL)
		return CEDE_OK;
	reach_doubt(&l->destinations[p->destination].reach, kind);
	link_take_failure(l, p,
		&(struct reach_failure){.kind = kind,
			.text = text,
			.refused = status != 0 || strcmp(kind, "receipt") == 0,
			.slow = strcmp(kind, "timeout") == 0,
			.gave_way = strcmp(kind, "slow") == 0,
			.may_have_arrived = arrived && !p->ask_only,
			.retry_after_s = retry_after});
	return CEDE_OK;
}

static int on_probed(struct link *l, struct ipc_reader *r, struct cede_error *reterr) {
	char kind[33], text[513];
	size_t destination = ipc_get_u16(r);
	struct link_probe probe = {.kind = kind, .text = text, .status = ipc_get_u16(r)};

	uint64_t date = ipc_get_u64(r);
	probe.date_s = date <= DATE_MAX ? (int64_t)date : 0;
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

void courier_send_metrics(struct link *l) {
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
	courier_send_metrics(l);
	return CEDE_OK;
}

static int handle(struct link *l, struct slice packet, size_t fds, struct cede_error *reterr) {
	struct ipc_reader r;

	CEDE_TRY(ipc_open(packet, fds, true,
		l->state == LINK_STARTING ? IPC_HELLO_PHASE : IPC_WORK_PHASE, &r, reterr));
	l->unheard = 0;
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
	case IPC_PONG:
		return ipc_end(&r, reterr);
	case IPC_DESTINATION:
	case IPC_PUT:
	case IPC_ASK:
	case IPC_CANCEL:
	case IPC_METRICS:
	case IPC_STOP:
	case IPC_PROBE:
	case IPC_PING:
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
	link_dispatch(l);
}

static void on_exit_readable(uv_poll_t *poll, int status, int events) {
	struct link *l = poll->data;

	(void)status;
	(void)events;
	courier_gone(l);
}

/* ---- it starts */

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

int courier_try_start(struct link *l, struct cede_error *reterr) {
	CEDE_TRY(spawn_courier(l->spawner, l->ports, l->port_count, &l->process, reterr));
	l->state = LINK_STARTING;
	l->starts++;
	l->unheard = 0;
	l->socket_poll = poll_start(l, l->process.socket, on_readable);
	l->exit_poll = poll_start(l, l->process.pidfd, on_exit_readable);
	if (l->socket_poll == NULL || l->exit_poll == NULL)
		return CEDE_FAIL_MEMORY(reterr);
	return CEDE_OK;
}

/* One that hangs would keep its pushes for ever. Counted, not timed: a machine that slept has not
 * asked. */
static void on_pulse(uv_timer_t *timer) {
	struct link *l = timer->data;
	struct ipc_writer w;

	if (l->closing || l->state == LINK_DEAD)
		return;
	if (l->unheard == UNHEARD_MOST) {
		courier_bad(l, "it has not said anything for 30 seconds");
		return;
	}
	l->unheard++;
	if (l->state != LINK_WORKING)
		return; /* it is to say hello by itself */
	ipc_start(&w, IPC_PING);
	(void)!channel_send(l->process.socket, &w, NULL, 0, NULL); /* full: it does not read */
}

void courier_watch(struct link *l) {
	(void)uv_timer_init(l->loop, &l->pulse);
	l->pulse.data = l;
	(void)uv_timer_start(&l->pulse, on_pulse, PULSE_MS, PULSE_MS);
}

void courier_start(struct link *l) {
	struct cede_error err = {0};

	if (courier_try_start(l, &err) == CEDE_OK) {
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
