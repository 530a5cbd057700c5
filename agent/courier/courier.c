/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/courier/courier.h"

#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "agent/courier/push.h"
#include "agent/courier/scrape.h"
#include "agent/ipc/channel.h"
#include "base/check.h"
#include "base/cleanup.h"
#include "base/file.h"
#include "base/log.h"

#define DESTINATIONS_MAX 16
#define PUSHES_MAX       256
#define PEM_MAX          262144
#define SEND_WAIT_MS     5000 /* the keeper's loop never sleeps so long */

struct running {
	struct running *next;
	struct push *push;
};

struct courier {
	uv_loop_t loop;
	uv_poll_t poll;
	int socket;
	struct push_destination destinations[DESTINATIONS_MAX];
	size_t count;
	struct running *running;
	size_t running_count;
	struct scrape *scrape;
	bool stop;
	int result;
	struct cede_error err;
};

/* ---- to the keeper */

static void say(struct courier *c, const struct ipc_writer *w) {
	struct cede_error err = {0};
	int r;

	while ((r = channel_send(c->socket, w, NULL, 0, &err)) == CEDE_ERR_BUSY) {
		struct pollfd p = {.fd = c->socket, .events = POLLOUT};
		if (poll(&p, 1, SEND_WAIT_MS) == 0)
			break;
	}
	if (r < 0) { /* without its keeper a courier has no business */
		c->stop = true;
		c->result = r;
		c->err = err;
		uv_stop(&c->loop);
	}
}

static void say_failed(struct courier *c, const struct id *id, const char *kind, const char *text,
	const struct push_outcome *o) {
	struct ipc_writer w;

	ipc_start(&w, IPC_FAILED);
	ipc_put_bytes(&w, id->bytes, ID_SIZE);
	ipc_put_text(&w, slice_of(kind, strnlen(kind, 32)));
	ipc_put_u16(&w, o == NULL ? 0 : o->status);
	ipc_put_u32(&w, o == NULL ? 0 : o->retry_after_s);
	ipc_put_u8(&w, o != NULL && o->may_have_arrived);
	ipc_put_text(&w, slice_of(text, strnlen(text, 512)));
	say(c, &w);
}

static void drop_running(struct courier *c, const struct push *push) {
	struct running **at = &c->running;

	while (*at != NULL && (*at)->push != push)
		at = &(*at)->next;
	require(*at != NULL);
	struct running *r = *at;
	*at = r->next;
	c->running_count--;
	free(r);
}

static void on_ended(void *ctx, struct push *push, const struct push_outcome *o) {
	struct courier *c = ctx;
	const struct id *id = push_id(push);
	struct ipc_writer w;

	drop_running(c, push);
	switch (o->result) {
	case PUSH_RECEIPT:
		ipc_start(&w, IPC_RECEIPT);
		ipc_put_bytes(&w, id->bytes, ID_SIZE);
		ipc_put_text(&w, o->note);
		say(c, &w);
		break;
	case PUSH_ABSENT:
	case PUSH_ABSENT_FOR_EVER:
		ipc_start(&w, IPC_ABSENT);
		ipc_put_bytes(&w, id->bytes, ID_SIZE);
		ipc_put_u8(&w, o->result == PUSH_ABSENT_FOR_EVER);
		say(c, &w);
		break;
	case PUSH_FAILED:
		say_failed(c, id, o->kind, o->text, o);
		break;
	}
}

/* ---- from the keeper */

static int load_memory(int fd, uint8_t **ret, size_t *ret_len, struct cede_error *reterr) {
	CLEANUP(buf_done) struct buf b = BUF_INIT(PEM_MAX);
	struct stat st;
	uint8_t *at;
	size_t got;

	if (fstat(fd, &st) < 0 || st.st_size < 0 || st.st_size > PEM_MAX)
		return CEDE_FAIL(reterr, CEDE_ERR_INPUT, "a memory file of the keeper is too large");
	CEDE_TRY(buf_room(&b, (size_t)st.st_size, &at, reterr));
	/* its offset is shared with the keeper's: pread */
	CEDE_TRY(file_pread_full(fd, at, (size_t)st.st_size, 0, &got, reterr));
	buf_grew(&b, got);
	*ret = malloc(got + 1);
	if (*ret == NULL)
		return CEDE_FAIL_MEMORY(reterr);
	memcpy(*ret, b.data, got);
	*ret_len = got;
	return CEDE_OK;
}

static int get_pins(struct ipc_reader *r, struct push_destination *d, struct cede_error *reterr) {
	CLEANUP(buf_done) struct buf joined = BUF_INIT(8192);
	size_t n = ipc_get_u16(r);
	const char *text;

	if (n > PUSH_PINS_MAX)
		return CEDE_FAIL(reterr, CEDE_ERR_INPUT, "too many pins");
	for (size_t i = 0; i < n; i++) {
		struct slice pin = ipc_get_text(r);
		if (i > 0)
			CEDE_TRY(buf_add(&joined, ";", 1, reterr));
		CEDE_TRY(buf_add(&joined, pin.data, pin.len, reterr));
	}
	CEDE_TRY(buf_string(&joined, &text, reterr));
	if (n > 0 && (d->pins = strdup(text)) == NULL)
		return CEDE_FAIL_MEMORY(reterr);
	return CEDE_OK;
}

static int get_destination(
	struct courier *c, struct ipc_reader *r, int *fds, struct cede_error *reterr) {
	struct push_destination *d = &c->destinations[c->count];

	if (c->count == DESTINATIONS_MAX || ipc_get_u16(r) != c->count)
		return CEDE_FAIL(reterr, CEDE_ERR_INPUT, "destinations must come in order");
	struct slice url = ipc_get_text(r);
	if (url.len > IPC_TEXT_MAX)
		return CEDE_FAIL(reterr, CEDE_ERR_INPUT, "URL too long");
	d->url = strndup((const char *)url.data, url.len);
	if (d->url == NULL)
		return CEDE_FAIL_MEMORY(reterr);
	CEDE_TRY(get_pins(r, d, reterr));
	d->address_count = ipc_get_u16(r);
	if (d->address_count > PUSH_PREFIXES_MAX)
		return CEDE_FAIL(reterr, CEDE_ERR_INPUT, "too many addresses");
	for (size_t i = 0; i < d->address_count; i++) {
		ipc_get_bytes(r, &d->addresses[i].prefix, 16);
		d->addresses[i].bits = ipc_get_u8(r);
		if (d->addresses[i].bits > 128)
			return CEDE_FAIL(reterr, CEDE_ERR_INPUT, "prefix too long");
	}
	CEDE_TRY(ipc_end(r, reterr));
	for (size_t i = 0; i < 3; i++)
		CEDE_TRY(load_memory(fds[i], &d->pem[i], &d->pem_len[i], reterr));
	CEDE_TRY(curl_loop_new(&c->loop, push_curl_done, c, &d->curl, reterr));
	c->count++;
	return CEDE_OK;
}

static void start_push(struct courier *c, size_t destination, const struct id *id, int fd,
	uint64_t size, const uint8_t *sha256, uint64_t rate, bool reclaim) {
	struct running *r = calloc(1, sizeof *r);
	struct cede_error err = {0};

	if (r == NULL || c->running_count == PUSHES_MAX ||
		push_start(&c->destinations[destination], id, fd, size, sha256, rate, reclaim,
			on_ended, c, &r->push, &err) < 0) {
		free(r);
		say_failed(c, id, "courier", err.text[0] != 0 ? err.text : "too much at once", NULL);
		return;
	}
	r->next = c->running;
	c->running = r;
	c->running_count++;
}

static int get_put(struct courier *c, struct ipc_reader *r, int *fd, struct cede_error *reterr) {
	size_t destination = ipc_get_u16(r);
	uint8_t sha256[32];
	struct id id;
	struct stat st;

	ipc_get_bytes(r, id.bytes, ID_SIZE);
	uint64_t size = ipc_get_u64(r);
	ipc_get_bytes(r, sha256, sizeof sha256);
	uint64_t rate = ipc_get_u64(r);
	CEDE_TRY(ipc_end(r, reterr));
	if (rate > INT64_MAX)
		return CEDE_FAIL(reterr, CEDE_ERR_INPUT, "a rate that is none");
	if (destination >= c->count)
		return CEDE_FAIL(reterr, CEDE_ERR_INPUT, "no such destination");
	if (fstat(*fd, &st) < 0 || !S_ISREG(st.st_mode) || (uint64_t)st.st_size != size)
		return CEDE_FAIL(reterr, CEDE_ERR_INPUT, "a bundle of another size than stated");
	start_push(c, destination, &id, CEDE_TAKE_FD(*fd), size, sha256, rate, false);
	return CEDE_OK;
}

static int get_ask(struct courier *c, struct ipc_reader *r, struct cede_error *reterr) {
	size_t destination = ipc_get_u16(r);
	struct id id;

	ipc_get_bytes(r, id.bytes, ID_SIZE);
	bool reclaim = ipc_get_u8(r) == 1;
	CEDE_TRY(ipc_end(r, reterr));
	if (destination >= c->count)
		return CEDE_FAIL(reterr, CEDE_ERR_INPUT, "no such destination");
	start_push(c, destination, &id, -1, 0, NULL, 0, reclaim);
	return CEDE_OK;
}

static int get_cancel(struct courier *c, struct ipc_reader *r, struct cede_error *reterr) {
	struct id id;

	ipc_get_bytes(r, id.bytes, ID_SIZE);
	CEDE_TRY(ipc_end(r, reterr));
	for (struct running *k = c->running; k != NULL; k = k->next)
		if (id_equal(push_id(k->push), &id)) {
			struct push *push = k->push;
			drop_running(c, push);
			push_cancel(push);
			break;
		}
	return CEDE_OK;
}

static int get_metrics(struct courier *c, struct ipc_reader *r, int fd, struct cede_error *reterr) {
	CLEANUP(freep) uint8_t *text = NULL;
	size_t len = ipc_get_u32(r);
	size_t got;

	CEDE_TRY(ipc_end(r, reterr));
	if (len > SCRAPE_TEXT_MAX)
		return CEDE_FAIL(reterr, CEDE_ERR_INPUT, "metrics too long");
	text = malloc(len + 1);
	if (text == NULL)
		return CEDE_FAIL_MEMORY(reterr);
	CEDE_TRY(file_pread_full(fd, text, len, 0, &got, reterr));
	if (c->scrape != NULL)
		scrape_update(c->scrape, slice_of(text, got));
	return CEDE_OK;
}

static int handle(struct courier *c, struct ipc_packet *packet, struct cede_error *reterr) {
	struct ipc_reader r;

	CEDE_TRY(ipc_open(slice_of(packet->bytes, packet->len), packet->fd_count, false,
		IPC_WORK_PHASE, &r, reterr));
	switch (r.type) {
	case IPC_DESTINATION:
		return get_destination(c, &r, packet->fds, reterr);
	case IPC_PUT:
		return get_put(c, &r, &packet->fds[0], reterr);
	case IPC_ASK:
		return get_ask(c, &r, reterr);
	case IPC_CANCEL:
		return get_cancel(c, &r, reterr);
	case IPC_METRICS:
		return get_metrics(c, &r, packet->fds[0], reterr);
	case IPC_STOP:
		c->stop = true;
		uv_stop(&c->loop);
		return CEDE_OK;
	case IPC_HELLO:
	case IPC_RECEIPT:
	case IPC_ABSENT:
	case IPC_FAILED:
		break;
	}
	return CEDE_FAIL(reterr, CEDE_ERR_BUG, "message: not the keeper's");
}

static void on_readable(uv_poll_t *poll, int status, int events) {
	struct courier *c = poll->data;
	struct ipc_packet packet;

	(void)events;
	while (!c->stop) {
		int r = status < 0 ? CEDE_ERR_REFUSED : channel_receive(c->socket, &packet, &c->err);
		if (r == CEDE_ERR_BUSY)
			return;
		if (r == CEDE_OK) {
			r = handle(c, &packet, &c->err);
			channel_discard(&packet);
		}
		if (r < 0) {
			c->stop = true;
			c->result = r == CEDE_ERR_REFUSED ? CEDE_OK
							  : r; /* the keeper is gone: so are we */
			uv_stop(&c->loop);
		}
	}
}

static void say_hello(struct courier *c) {
	struct ipc_writer w;

	ipc_start(&w, IPC_HELLO);
	ipc_put_u16(&w, IPC_VERSION);
	say(c, &w);
}

int courier_run(int socket, const char *metrics, struct cede_error *reterr) {
	struct courier *c = calloc(1, sizeof *c);
	struct cede_error err = {0};

	if (c == NULL || uv_loop_init(&c->loop) != 0)
		return CEDE_FAIL_MEMORY(reterr);
	c->socket = socket;
	if (curl_global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK)
		return CEDE_FAIL(reterr, CEDE_ERR_IO, "libcurl does not start");
	if (metrics != NULL && scrape_start(metrics, &c->scrape, &err) < 0)
		log_event(LOG_LEVEL_ERROR, "metrics.unserved", "error=\"%s\"",
			err.text); /* handing over matters more */
	if (uv_poll_init(&c->loop, &c->poll, socket) != 0)
		return CEDE_FAIL(reterr, CEDE_ERR_INPUT, "the descriptor given is no socket");
	c->poll.data = c;
	(void)uv_poll_start(&c->poll, UV_READABLE, on_readable);
	say_hello(c);
	if (!c->stop)
		(void)uv_run(&c->loop, UV_RUN_DEFAULT);
	scrape_stop(c->scrape);
	if (c->result < 0 && reterr != NULL)
		*reterr = c->err;
	return c->result; /* the process ends with it: what is under way is cut off, and asked for later */
}
