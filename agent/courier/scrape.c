/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/courier/scrape.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <microhttpd.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "agent/ipc/message.h"
#include "agent/ipc/readiness.h"
#include "base/buf.h"
#include "base/check.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/listen.h"
#include "base/metric.h"
#include "base/parse.h"
#include "base/process.h"

#define CONNECTIONS 16U
#define TIMEOUT_S   10U
#define MEMORY      8192U
#define BODY_MAX    (IPC_METRICS_MAX + 65536)

#define SILENT_NS (15 * NS_PER_SECOND) /* the keeper speaks each second */

struct scrape {
	struct MHD_Daemon *daemon;   /* NULL: not started */
	int fd;                      /* listens; -1: the daemon's */
	struct process_probe *probe; /* the daemon's thread alone */
	uint64_t scrapes;            /* the same */
	uint32_t layers_on, layers_missing;
	pthread_mutex_t lock; /* what follows */
	char *text;
	size_t len;
	uint32_t unmet;
	int64_t said_boot_ns;
};

/* ---- what is answered */

struct answer {
	unsigned status;
	const char *type;
	struct buf body;
	int result; /* of what was added to it */
};

static const char plain[] = "text/plain; charset=utf-8";

static void add(struct answer *a, const char *s) {
	if (a->result == CEDE_OK)
		a->result = buf_add_str(&a->body, s, NULL);
}

/* How long the keeper has said nothing; INT64_MAX: never anything. */
static int64_t silent_ns(struct scrape *s, uint32_t *ret_unmet) {
	(void)pthread_mutex_lock(&s->lock);
	int64_t said = s->said_boot_ns;
	*ret_unmet = s->unmet;
	(void)pthread_mutex_unlock(&s->lock);
	return said == 0 ? INT64_MAX : clock_boot_ns() - said;
}

static bool is_silent(struct scrape *s, struct answer *a, uint32_t *ret_unmet) {
	int64_t ns = silent_ns(s, ret_unmet);

	if (ns < SILENT_NS)
		return false;
	a->status = MHD_HTTP_SERVICE_UNAVAILABLE;
	add(a,
		ns == INT64_MAX ? "keeper: no: it has not said anything yet\n"
				: "keeper: no: it has said nothing for 15 seconds and more\n");
	return true;
}

static void answer_health(struct scrape *s, struct MHD_Connection *c, struct answer *a) {
	uint32_t unmet;

	(void)c;
	if (!is_silent(s, a, &unmet))
		add(a, "ok\n");
}

static void answer_ready(struct scrape *s, struct MHD_Connection *c, struct answer *a) {
	static const struct {
		const char *name, *text;
	} conditions[] = {

#define X(id, name, text) {name, text},
		CONDITIONS(X)
#undef X
	};
	uint32_t unmet;

	(void)c;
	if (is_silent(s, a, &unmet))
		return;
	for (size_t i = 0; i < ARRAY_LENGTH(conditions); i++) {
		add(a, conditions[i].name);
		if ((unmet & CONDITION_BIT(i)) == 0) {
			add(a, ": ok\n");
			continue;
		}
		a->status = MHD_HTTP_SERVICE_UNAVAILABLE;
		add(a, ": no: ");
		add(a, conditions[i].text);
		add(a, "\n");
	}
}

/* What the keeper said last, then what the courier says of itself. */
static int metrics_text(struct scrape *s, struct buf *out, struct cede_error *reterr) {
	struct metrics m = {.out = out};
	struct process_figures process;
	uint32_t unmet;
	int64_t silent = silent_ns(s, &unmet);

	(void)pthread_mutex_lock(&s->lock);
	int r = s->text == NULL ? CEDE_OK : buf_add(out, s->text, s->len, reterr);
	(void)pthread_mutex_unlock(&s->lock);
	CEDE_TRY(r);
	process_read(s->probe, &process);
	metric_add_process(&m, "courier", &process, s->layers_on, s->layers_missing);
	metric_family(&m, METRIC_COUNTER, "cede_scrapes_total", "Times that this was asked for.");
	metric_add(&m, ++s->scrapes, NULL);
	metric_family(&m, METRIC_GAUGE, "cede_keeper_silent_seconds",
		"How old what the keeper says is; it speaks each second.");
	metric_add_ns(&m, silent == INT64_MAX ? 0 : silent, NULL);
	return m.result;
}

static void answer_metrics(struct scrape *s, struct MHD_Connection *c, struct answer *a) {
	CLEANUP(buf_done) struct buf text = BUF_INIT(BODY_MAX);
	uint32_t unmet;

	if (silent_ns(s, &unmet) == INT64_MAX) {
		(void)is_silent(s, a, &unmet);
		return;
	}
	a->result = metrics_text(s, &text, NULL);
	if (a->result < 0)
		return;
	bool open = metric_wants_openmetrics(
		MHD_lookup_connection_value(c, MHD_HEADER_KIND, MHD_HTTP_HEADER_ACCEPT));
	a->type = open ? METRIC_OPENMETRICS_TYPE : METRIC_TEXT_TYPE;
	a->result = open ? metric_openmetrics(buf_slice(&text), &a->body, NULL)
			 : buf_add(&a->body, text.data, text.len, NULL);
}

static const struct {
	const char *path;
	void (*answer)(struct scrape *s, struct MHD_Connection *c, struct answer *a);
} pages[] = {{"/metrics", answer_metrics}, {"/healthz", answer_health}, {"/readyz", answer_ready}};

static enum MHD_Result send_answer(struct MHD_Connection *c, struct answer *a) {
	if (a->result < 0) {
		a->status = MHD_HTTP_INTERNAL_SERVER_ERROR;
		a->type = plain;
		buf_clear(&a->body);
	}
	struct MHD_Response *r = MHD_create_response_from_buffer(a->body.len,
		a->body.len == 0 ? (void *)(uintptr_t) "" : a->body.data, MHD_RESPMEM_MUST_COPY);
	if (r == NULL)
		return MHD_NO;
	(void)MHD_add_response_header(r, MHD_HTTP_HEADER_CONTENT_TYPE, a->type);
	(void)MHD_add_response_header(r, MHD_HTTP_HEADER_CACHE_CONTROL, "no-store");
	if (a->status == MHD_HTTP_METHOD_NOT_ALLOWED)
		(void)MHD_add_response_header(r, MHD_HTTP_HEADER_ALLOW, "GET, HEAD");
	enum MHD_Result result = MHD_queue_response(c, a->status, r);
	MHD_destroy_response(r);
	return result;
}

static enum MHD_Result handle(void *ctx, struct MHD_Connection *c, const char *url,
	const char *method, const char *version, const char *data, size_t *size, void **state) {
	static int seen;
	struct scrape *s = ctx;
	struct answer a = {.status = MHD_HTTP_NOT_FOUND, .type = plain, .body = BUF_INIT(BODY_MAX)};

	(void)version;
	(void)data;
	if (*state == NULL) { /* headers only: the answer comes with the next call */
		*state = &seen;
		return MHD_YES;
	}
	if (*size > 0) { /* a body: taken and thrown away */
		*size = 0;
		return MHD_YES;
	}
	if (strcmp(method, "GET") != 0 && strcmp(method, "HEAD") != 0) {
		a.status = MHD_HTTP_METHOD_NOT_ALLOWED;
		return send_answer(c, &a);
	}
	for (size_t i = 0; i < ARRAY_LENGTH(pages); i++)
		if (strcmp(url, pages[i].path) == 0) {
			a.status = MHD_HTTP_OK;
			pages[i].answer(s, c, &a);
		}
	enum MHD_Result r = send_answer(c, &a);
	buf_done(&a.body);
	return r;
}

/* ---- where it listens */

static int bind_unix(const char *path, int *ret_fd, struct cede_error *reterr) {
	struct sockaddr_un at = {.sun_family = AF_UNIX};
	struct stat st;
	CLEANUP(fd_closep) int fd = -1;

	if (strlen(path) >= sizeof at.sun_path)
		return CEDE_FAIL(reterr, CEDE_ERR_INPUT, "metrics: path too long");
	memcpy(at.sun_path, path, strlen(path));
	if (lstat(path, &st) == 0 && S_ISSOCK(st.st_mode) && unlinkat(AT_FDCWD, path, 0) < 0)
		return CEDE_FAIL_SYS(reterr, "metrics: remove the old socket %s", path);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0 || bind(fd, (const struct sockaddr *)&at, sizeof at) < 0 ||
		fchmodat(AT_FDCWD, path, 0660, 0) < 0 || listen(fd, (int)CONNECTIONS) < 0)
		return CEDE_FAIL_SYS(reterr, "metrics: listen on %s", path);
	*ret_fd = CEDE_TAKE_FD(fd);
	return CEDE_OK;
}

static int bind_loopback(const char *address, int *ret_fd, struct cede_error *reterr) {
	struct sockaddr_in v4 = {.sin_family = AF_INET};
	struct sockaddr_in6 v6 = {.sin6_family = AF_INET6};
	bool is_v6 = address[0] == '[';
	const char *colon = strrchr(address, ':');
	CLEANUP(fd_closep) int fd = -1;
	uint64_t port;
	int on = 1;

	if (colon == NULL || parse_u64(slice_str(colon + 1), 0, 65535, &port, NULL) < 0)
		return CEDE_FAIL(reterr, CEDE_ERR_INPUT, "metrics: 127.0.0.1:PORT expected");
	v4.sin_port = v6.sin6_port = htons((uint16_t)port);
	v4.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	v6.sin6_addr = in6addr_loopback;
	fd = socket(is_v6 ? AF_INET6 : AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) < 0 ||
		bind(fd, is_v6 ? (const struct sockaddr *)&v6 : (const struct sockaddr *)&v4,
			is_v6 ? sizeof v6 : sizeof v4) < 0 ||
		listen(fd, (int)CONNECTIONS) < 0)
		return CEDE_FAIL_SYS(reterr, "metrics: listen on %s", address);
	*ret_fd = CEDE_TAKE_FD(fd);
	return CEDE_OK;
}

/* "fd:4": a socket that listens already. */
static int take_passed(const char *number, int *ret_fd, struct cede_error *reterr) {
	uint64_t fd;

	CEDE_TRY(parse_u64(slice_str(number), 3, 1024, &fd, reterr));
	CEDE_TRY(listen_check((int)fd, reterr));
	*ret_fd = (int)fd;
	return CEDE_OK;
}

static int listen_at(const char *address, int *ret_fd, struct cede_error *reterr) {
	if (strncmp(address, "unix:", 5) == 0)
		return bind_unix(address + 5, ret_fd, reterr);
	if (strncmp(address, "fd:", 3) == 0)
		return take_passed(address + 3, ret_fd, reterr);
	return bind_loopback(address, ret_fd, reterr);
}

int scrape_new(const char *address, struct scrape **ret, struct cede_error *reterr) {
	CLEANUP(fd_closep) int fd = -1;

	CEDE_TRY(listen_at(address, &fd, reterr));
	struct scrape *s = calloc(1, sizeof *s);
	if (s == NULL)
		return CEDE_FAIL_MEMORY(reterr);
	require(pthread_mutex_init(&s->lock, NULL) == 0);
	s->probe = process_probe_new();
	s->fd = CEDE_TAKE_FD(fd);
	*ret = s;
	return CEDE_OK;
}

int scrape_start(struct scrape *s, const struct sandbox_report *sandbox, struct cede_error *reterr) {
	s->layers_on = sandbox->on;
	s->layers_missing = sandbox->missing;
	s->daemon = MHD_start_daemon(MHD_USE_INTERNAL_POLLING_THREAD | MHD_USE_POLL, 0, NULL, NULL,
		handle, s, MHD_OPTION_LISTEN_SOCKET, (MHD_socket)s->fd, MHD_OPTION_CONNECTION_LIMIT,
		CONNECTIONS, MHD_OPTION_CONNECTION_TIMEOUT, TIMEOUT_S,
		MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t)MEMORY, MHD_OPTION_END);
	if (s->daemon == NULL)
		return CEDE_FAIL(reterr, CEDE_ERR_IO, "metrics: the server does not start");
	s->fd = -1; /* the daemon closes it */
	return CEDE_OK;
}

void scrape_update(struct scrape *s, struct slice text, uint32_t unmet) {
	char *copy = malloc(text.len + 1);

	if (copy == NULL)
		return; /* the old text stays; the next one follows in a moment */
	memcpy(copy, text.data, text.len);
	(void)pthread_mutex_lock(&s->lock);
	char *old = s->text;
	s->text = copy;
	s->len = text.len;
	s->unmet = unmet;
	s->said_boot_ns = clock_boot_ns();
	(void)pthread_mutex_unlock(&s->lock);
	free(old);
}

void scrape_stop(struct scrape *s) {
	if (s == NULL)
		return;
	if (s->daemon != NULL)
		MHD_stop_daemon(s->daemon);
	fd_closep(&s->fd);
	(void)pthread_mutex_destroy(&s->lock);
	process_probe_free(s->probe);
	free(s->text);
	free(s);
}
