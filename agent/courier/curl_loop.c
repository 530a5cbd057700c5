/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/courier/curl_loop.h"

#include <linux/sockios.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#define CONNECTIONS 8
#define FAREWELL    1024 /* bytes */

struct watched {
	struct watched *next;
	uv_poll_t poll;
	struct curl_loop *owner;
	curl_socket_t fd;
};

struct curl_loop {
	uv_loop_t *loop;
	CURLM *multi;
	uv_timer_t timer;
	struct watched *sockets;
	curl_loop_done_fn *on_done;
	curl_loop_broken_fn *on_broken;
	curl_loop_socket_fn *on_socket;
	void *ctx;
};

static void collect(struct curl_loop *c) {
	CURLMsg *m;
	int left;

	while ((m = curl_multi_info_read(c->multi, &left)) != NULL) {
		if (m->msg != CURLMSG_DONE)
			continue;
		CURL *easy = m->easy_handle;
		CURLcode result = m->data.result;
		(void)curl_multi_remove_handle(c->multi, easy); /* m is gone from here */
		c->on_done(c->ctx, easy, result);
	}
}

static void act(struct curl_loop *c, curl_socket_t fd, int what) {
	int running;

	CURLMcode result = curl_multi_socket_action(c->multi, fd, what, &running);
	if (result != CURLM_OK) {
		c->on_broken(c->ctx, curl_multi_strerror(result));
		return;
	}
	collect(c);
}

static void on_timer(uv_timer_t *timer) {
	act(timer->data, CURL_SOCKET_TIMEOUT, 0);
}

static int set_timer(CURLM *multi, long ms, void *ctx) {
	struct curl_loop *c = ctx;

	(void)multi;
	if (ms < 0)
		(void)uv_timer_stop(&c->timer);
	else /* never at once: that would call libcurl from its own call-back */
		(void)uv_timer_start(&c->timer, on_timer, ms == 0 ? 1 : (uint64_t)ms, 0);
	return 0;
}

static void on_poll(uv_poll_t *poll, int status, int events) {
	struct watched *w = poll->data;
	/* after an error it is to look for itself: it finds what came before, and the reason */
	int what = status < 0 ? CURL_CSELECT_ERR | CURL_CSELECT_IN | CURL_CSELECT_OUT : 0;

	what |= events & UV_READABLE ? CURL_CSELECT_IN : 0;
	what |= events & UV_WRITABLE ? CURL_CSELECT_OUT : 0;
	act(w->owner, w->fd, what); /* w may be gone from here */
}

static void free_watched(uv_handle_t *handle) {
	free(handle->data);
}

static void unwatch(struct curl_loop *c, curl_socket_t fd) {
	struct watched **at = &c->sockets;

	while (*at != NULL && (*at)->fd != fd)
		at = &(*at)->next;
	struct watched *w = *at;
	if (w == NULL)
		return;
	*at = w->next;
	(void)uv_poll_stop(&w->poll);
	uv_close((uv_handle_t *)&w->poll, free_watched);
}

static struct watched *watch(struct curl_loop *c, curl_socket_t fd) {
	for (struct watched *w = c->sockets; w != NULL; w = w->next)
		if (w->fd == fd)
			return w;
	struct watched *w = calloc(1, sizeof *w);
	if (w == NULL)
		return NULL;
	w->owner = c;
	w->fd = fd;
	if (uv_poll_init_socket(c->loop, &w->poll, fd) != 0) {
		free(w);
		return NULL;
	}
	w->poll.data = w;
	w->next = c->sockets;
	c->sockets = w;
	return w;
}

static int set_socket(CURL *easy, curl_socket_t fd, int what, void *ctx, void *unused) {
	struct curl_loop *c = ctx;
	int events = 0;

	(void)unused;
	if (what == CURL_POLL_REMOVE) {
		unwatch(c, fd);
		return 0;
	}
	struct watched *w = watch(c, fd);
	if (w == NULL)
		return -1; /* libcurl gives up with all that it has: on_broken */
	c->on_socket(easy, fd);
	events |= what != CURL_POLL_OUT ? UV_READABLE : 0;
	events |= what != CURL_POLL_IN ? UV_WRITABLE : 0;
	return uv_poll_start(&w->poll, events, on_poll) == 0 ? 0 : -1;
}

/* With more unsent than what ends a TLS connection in order, it is a body that is given up. */
static int close_socket(void *ctx, curl_socket_t fd) {
	const struct linger at_once = {.l_onoff = 1, .l_linger = 0};
	int unsent = 0;

	unwatch(ctx, fd);
	if (ioctl(fd, SIOCOUTQ, &unsent) == 0 && unsent > FAREWELL)
		(void)setsockopt(fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once);
	return close(fd);
}

int curl_loop_new(uv_loop_t *loop, curl_loop_done_fn *on_done, curl_loop_broken_fn *on_broken,
	curl_loop_socket_fn *on_socket, void *ctx, struct curl_loop **ret, struct cede_error *reterr) {
	struct curl_loop *c = calloc(1, sizeof *c);

	if (c == NULL || (c->multi = curl_multi_init()) == NULL) {
		free(c);
		return CEDE_FAIL_MEMORY(reterr);
	}
	c->loop = loop;
	c->on_done = on_done;
	c->on_broken = on_broken;
	c->on_socket = on_socket;
	c->ctx = ctx;
	(void)uv_timer_init(loop, &c->timer);
	c->timer.data = c;
	if (curl_multi_setopt(c->multi, CURLMOPT_SOCKETFUNCTION, set_socket) != CURLM_OK ||
		curl_multi_setopt(c->multi, CURLMOPT_SOCKETDATA, c) != CURLM_OK ||
		curl_multi_setopt(c->multi, CURLMOPT_TIMERFUNCTION, set_timer) != CURLM_OK ||
		curl_multi_setopt(c->multi, CURLMOPT_TIMERDATA, c) != CURLM_OK ||
		curl_multi_setopt(c->multi, CURLMOPT_PIPELINING, (long)CURLPIPE_NOTHING) != CURLM_OK ||
		curl_multi_setopt(c->multi, CURLMOPT_MAX_HOST_CONNECTIONS, (long)CONNECTIONS) !=
			CURLM_OK ||
		curl_multi_setopt(c->multi, CURLMOPT_MAXCONNECTS, (long)CONNECTIONS) != CURLM_OK)
		return CEDE_FAIL(
			reterr, CEDE_ERR_BUG, "libcurl refuses an option"); /* the process ends */
	*ret = c;
	return CEDE_OK;
}

int curl_loop_add(struct curl_loop *c, CURL *easy, struct cede_error *reterr) {
	if (curl_easy_setopt(easy, CURLOPT_CLOSESOCKETFUNCTION, close_socket) != CURLE_OK ||
		curl_easy_setopt(easy, CURLOPT_CLOSESOCKETDATA, c) != CURLE_OK ||
		curl_multi_add_handle(c->multi, easy) != CURLM_OK)
		return CEDE_FAIL(reterr, CEDE_ERR_IO, "libcurl: can't start a transfer");
	return CEDE_OK;
}

void curl_loop_remove(struct curl_loop *c, CURL *easy) {
	(void)curl_multi_remove_handle(c->multi, easy);
}
