/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/courier/courier.h"

#include <openssl/rand.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "agent/courier/profile.h"
#include "agent/courier/push.h"
#include "agent/courier/scrape.h"
#include "agent/ipc/channel.h"
#include "base/check.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/log.h"

#define DESTINATIONS_MAX 16
#define PUSHES_MAX       256
#define PEM_MAX          262144
#define SEND_WAIT_MS     5000 /* the keeper's loop never sleeps so long */

struct running {
	struct running *next;
	struct push *push;
	bool is_probe;
	uint16_t destination;
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

/* c->err says why; the keeper starts another. */
static void end(struct courier *c, int result) {
	c->stop = true;
	c->result = result;
	uv_stop(&c->loop);
}

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
		c->err = err;
		end(c, r);
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

static void say_probed(struct courier *c, uint16_t destination, const struct push_outcome *o) {
	bool failed = o->result == PUSH_FAILED;
	struct ipc_writer w;

	ipc_start(&w, IPC_PROBED);
	ipc_put_u16(&w, destination);
	ipc_put_u16(&w, failed ? o->status : 404);
	ipc_put_u64(&w, (uint64_t)o->date_s);
	ipc_put_text(&w, failed ? slice_of(o->kind, strnlen(o->kind, 32)) : SLICE_NONE);
	ipc_put_text(&w, failed ? slice_of(o->text, strnlen(o->text, 512)) : SLICE_NONE);
	say(c, &w);
}

static void say_pong(struct courier *c) {
	struct ipc_writer w;

	ipc_start(&w, IPC_PONG);
	say(c, &w);
}

/* What it was is given back. */
static struct running drop_running(struct courier *c, const struct push *push) {
	struct running **at = &c->running;

	while (*at != NULL && (*at)->push != push)
		at = &(*at)->next;
	require(*at != NULL);
	struct running *r = *at;
	struct running was = *r;
	*at = r->next;
	c->running_count--;
	free(r);
	return was;
}

static void on_ended(void *ctx, struct push *push, const struct push_outcome *o) {
	struct courier *c = ctx;
	const struct id *id = push_id(push);
	struct ipc_writer w;

	struct running was = drop_running(c, push);
	if (was.is_probe) {
		say_probed(c, was.destination, o);
		return;
	}
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

static void on_curl_broken(void *ctx, const char *why) {
	struct courier *c = ctx;

	(void)CEDE_FAIL(&c->err, CEDE_ERR_IO, "libcurl: %s", why);
	end(c, CEDE_ERR_IO);
}

static int get_destination(
	struct courier *c, struct ipc_reader *r, int *fds, struct cede_error *reterr) {
	struct push_destination *d = &c->destinations[c->count];

	if (c->count == DESTINATIONS_MAX || ipc_get_u16(r) != c->count)
		return CEDE_FAIL(reterr, CEDE_ERR_INPUT, "destinations must come in order");
	struct slice url = ipc_get_text(r);
	if (url.len > ADDRESS_URL_MAX)
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
	CEDE_TRY(curl_loop_new(
		&c->loop, push_curl_done, on_curl_broken, push_curl_socket, c, &d->curl, reterr));
	c->count++;
	return CEDE_OK;
}

static void start_push(struct courier *c, size_t destination, const struct id *id, int fd,
	const struct push_bundle *bundle, bool reclaim) {
	bool has_room = c->running_count < PUSHES_MAX;
	struct running *r = has_room ? calloc(1, sizeof *r) : NULL;
	struct cede_error err = {0};

	if (r == NULL)
		fd_closep(&fd);
	if (r == NULL ||
		push_start(&c->destinations[destination], id, fd, bundle, reclaim, on_ended, c,
			&r->push, &err) < 0) {
		free(r);
		say_failed(c, id, "courier",
			err.text[0] != 0   ? err.text
				: has_room ? "out of memory"
					   : "too much at once",
			NULL);
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
	struct slice field = ipc_get_text(r);
	CEDE_TRY(ipc_end(r, reterr));
	for (size_t i = 0; i < field.len; i++) /* one header line, and nothing else */
		if (field.data[i] < 0x20 || field.data[i] > 0x7e)
			return CEDE_FAIL(reterr, CEDE_ERR_INPUT, "a checkpoint that is no text");
	if (rate > INT64_MAX)
		return CEDE_FAIL(reterr, CEDE_ERR_INPUT, "a rate that is none");
	if (destination >= c->count)
		return CEDE_FAIL(reterr, CEDE_ERR_INPUT, "no such destination");
	if (fstat(*fd, &st) < 0 || !S_ISREG(st.st_mode) || (uint64_t)st.st_size != size)
		return CEDE_FAIL(reterr, CEDE_ERR_INPUT, "a bundle of another size than stated");
	const struct push_bundle bundle = {
		.size = size, .sha256 = sha256, .rate = rate, .checkpoint = field};
	start_push(c, destination, &id, CEDE_TAKE_FD(*fd), &bundle, false);
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
	start_push(c, destination, &id, -1, NULL, reclaim);
	return CEDE_OK;
}

/* A question for a bundle that nobody has: all that a push needs is tried, and nothing is left
 * behind at the agency. */
static int get_probe(struct courier *c, struct ipc_reader *r, struct cede_error *reterr) {
	uint16_t destination = ipc_get_u16(r);
	struct running *k;
	struct id id;

	CEDE_TRY(ipc_end(r, reterr));
	if (destination >= c->count)
		return CEDE_FAIL(reterr, CEDE_ERR_INPUT, "no such destination");
	CEDE_TRY(id_make(clock_wall_ns(), &id, reterr));
	k = calloc(1, sizeof *k);
	if (k == NULL)
		return CEDE_FAIL_MEMORY(reterr);
	*k = (struct running){.is_probe = true, .destination = destination};
	int code = push_start(
		&c->destinations[destination], &id, -1, NULL, false, on_ended, c, &k->push, reterr);
	if (code < 0) {
		free(k);
		return code;
	}
	k->next = c->running;
	c->running = k;
	c->running_count++;
	return CEDE_OK;
}

static int get_cancel(struct courier *c, struct ipc_reader *r, struct cede_error *reterr) {
	struct id id;

	ipc_get_bytes(r, id.bytes, ID_SIZE);
	CEDE_TRY(ipc_end(r, reterr));
	for (struct running *k = c->running; k != NULL; k = k->next)
		if (id_equal(push_id(k->push), &id)) {
			struct push *push = k->push;
			(void)drop_running(c, push);
			push_cancel(push);
			break;
		}
	return CEDE_OK;
}

static int get_metrics(struct courier *c, struct ipc_reader *r, int fd, struct cede_error *reterr) {
	CLEANUP(freep) uint8_t *text = NULL;
	size_t len = ipc_get_u32(r);
	uint32_t unmet = ipc_get_u32(r);
	size_t got;

	log_flush(); /* this comes each second */
	CEDE_TRY(ipc_end(r, reterr));
	if (len > IPC_METRICS_MAX)
		return CEDE_FAIL(reterr, CEDE_ERR_INPUT, "metrics too long");
	text = malloc(len + 1);
	if (text == NULL)
		return CEDE_FAIL_MEMORY(reterr);
	CEDE_TRY(file_pread_full(fd, text, len, 0, &got, reterr));
	if (c->scrape != NULL)
		scrape_update(c->scrape, slice_of(text, got), unmet);
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
	case IPC_PROBE:
		return get_probe(c, &r, reterr);
	case IPC_CANCEL:
		return get_cancel(c, &r, reterr);
	case IPC_METRICS:
		return get_metrics(c, &r, packet->fds[0], reterr);
	case IPC_PING:
		say_pong(c);
		return CEDE_OK;
	case IPC_STOP:
		end(c, CEDE_OK);
		return CEDE_OK;
	case IPC_HELLO:
	case IPC_PONG:
	case IPC_RECEIPT:
	case IPC_ABSENT:
	case IPC_FAILED:
	case IPC_PROBED:
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
		if (r < 0) /* REFUSED: the keeper is gone, so are we */
			end(c, r == CEDE_ERR_REFUSED ? CEDE_OK : r);
	}
}

static void say_hello(struct courier *c, const struct sandbox_report *report) {
	struct ipc_writer w;

	ipc_start(&w, IPC_HELLO);
	ipc_put_u16(&w, IPC_VERSION);
	ipc_put_u32(&w, report->on);
	ipc_put_u32(&w, report->missing);
	say(c, &w);
}

/* Where it listens is bound before the sandbox, the threads start behind it. */
static int start_inside(struct courier *c, const struct courier_setup *setup,
	struct sandbox_report *report, struct cede_error *reterr) {
	struct cede_error err = {0};
	int r = CEDE_OK;

	if (setup->metrics != NULL)
		r = scrape_new(setup->metrics, &c->scrape, &err);
	CEDE_TRY(courier_enter(setup->ports, setup->port_count, report, reterr));
	sandbox_say("courier", report);
	if (c->scrape != NULL)
		r = scrape_start(c->scrape, report, &err);
	if (r == CEDE_OK)
		return CEDE_OK;
	/* handing over matters more */
	log_event(LOG_LEVEL_ERROR, "metrics.unserved", "error=\"%s\"", err.text);
	scrape_stop(CEDE_TAKE(c->scrape));
	return CEDE_OK;
}

int courier_run(const struct courier_setup *setup, struct sandbox_report *report,
	struct cede_error *reterr) {
	struct courier *c = calloc(1, sizeof *c);

	if (c == NULL || uv_loop_init(&c->loop) != 0)
		return CEDE_FAIL_MEMORY(reterr);
	c->socket = setup->socket;
	/* OpenSSL remembers for ever that it had no memory for its random numbers */
	if (curl_global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK || RAND_status() != 1)
		return CEDE_FAIL(reterr, CEDE_ERR_IO, "libcurl or OpenSSL does not start");
	CEDE_TRY(start_inside(c, setup, report, reterr));
	if (uv_poll_init(&c->loop, &c->poll, c->socket) != 0)
		return CEDE_FAIL(reterr, CEDE_ERR_INPUT, "the descriptor given is no socket");
	c->poll.data = c;
	(void)uv_poll_start(&c->poll, UV_READABLE, on_readable);
	say_hello(c, report);
	if (!c->stop)
		(void)uv_run(&c->loop, UV_RUN_DEFAULT);
	scrape_stop(c->scrape);
	if (c->result < 0 && reterr != NULL)
		*reterr = c->err;
	return c->result; /* the process ends with it: what is under way is cut off, and asked for later */
}
