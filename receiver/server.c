/* SPDX-License-Identifier: Apache-2.0 */
#include "receiver/server.h"

#include <fcntl.h>
#include <netdb.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "base/check.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/log.h"
#include "certs/key.h"
#include "receiver/handshake.h"
#include "receiver/limits.h"
#include "receiver/profile.h"
#include "receiver/visitors.h"

#define BACKLOG 1024

struct server {
	struct MHD_Daemon *daemon;
	struct request_setup setup;
	struct visitors *visitors;
	struct buf certificate, key, ca;
	pthread_mutex_t lock;
	pthread_cond_t fewer;
	size_t requests;
	int64_t busy_since_ns[LIMIT_THREADS]; /* each thread that is within one of our calls; 0: free */
};

/* ---- who is at work: what the watchdog asks */

static size_t enter(struct server *s) {
	size_t place = 0;

	(void)pthread_mutex_lock(&s->lock);
	while (s->busy_since_ns[place] != 0)
		require(++place < LIMIT_THREADS); /* the library has no more threads */
	s->busy_since_ns[place] = clock_boot_ns();
	(void)pthread_mutex_unlock(&s->lock);
	return place;
}

static void leave(struct server *s, size_t place) {
	(void)pthread_mutex_lock(&s->lock);
	s->busy_since_ns[place] = 0;
	(void)pthread_mutex_unlock(&s->lock);
}

bool server_gets_on(struct server *s, int64_t longest_ns) {
	int64_t now = clock_boot_ns();
	bool gets_on = true;

	(void)pthread_mutex_lock(&s->lock);
	for (size_t i = 0; i < LIMIT_THREADS; i++)
		gets_on = gets_on &&
			(s->busy_since_ns[i] == 0 || now - s->busy_since_ns[i] <= longest_ns);
	(void)pthread_mutex_unlock(&s->lock);
	return gets_on;
}

/* ---- requests */

static void count(struct server *s, int by) {
	(void)pthread_mutex_lock(&s->lock);
	s->requests = by > 0 ? s->requests + 1 : s->requests - 1;
	(void)pthread_cond_broadcast(&s->fewer);
	(void)pthread_mutex_unlock(&s->lock);
}

static enum MHD_Result answer(struct server *s, struct request *r, struct MHD_Connection *c) {
	visitors_now(s->visitors, c, VISIT_WAITING, 0);
	enum MHD_Result result = request_answer(r, c);
	visitors_now(s->visitors, c, VISIT_TAKING, 0);
	return result;
}

/* A body may pause for longer than a connection that does nothing may stay: visitors.h. */
static void library_waits(struct MHD_Connection *c, unsigned seconds) {
	(void)!MHD_set_connection_option(c, MHD_CONNECTION_OPTION_TIMEOUT, seconds);
}

static enum MHD_Result handle_part(struct server *s, struct MHD_Connection *c, const char *url,
	const char *method, const char *data, size_t *size, void **state) {
	struct request *r = *state;

	if (r == NULL) {
		r = request_new(&s->setup, c, url, method);
		if (r == NULL)
			return MHD_NO;
		*state = r;
		count(s, 1);
		/* the library closes the connection behind an early answer: a body that comes all
		 * the same is never read as another request */
		if (request_answer_now(r))
			return answer(s, r, c);
		visitors_now(s->visitors, c, request_refused(r) ? VISIT_REFUSED : VISIT_SENDING,
			request_to_come(r));
		if (!request_refused(r))
			library_waits(c, LIMIT_BODY_S);
		return MHD_YES;
	}
	if (*size > 0) {
		bool wanted = !request_refused(r);
		visitors_sent(s->visitors, c, *size);
		request_body(r, data, *size);
		*size = 0;
		if (wanted && request_refused(r))
			visitors_now(s->visitors, c, VISIT_REFUSED, request_to_come(r));
		return MHD_YES;
	}
	return answer(s, r, c);
}

/* Called once with the headers, then for each part of the body, then with no part. */
static enum MHD_Result handle(void *ctx, struct MHD_Connection *c, const char *url,
	const char *method, const char *version, const char *data, size_t *size, void **state) {
	struct server *s = ctx;
	size_t place = enter(s);

	(void)version;
	enum MHD_Result result = handle_part(s, c, url, method, data, size, state);
	leave(s, place);
	return result;
}

static void completed(
	void *ctx, struct MHD_Connection *c, void **state, enum MHD_RequestTerminationCode code) {
	struct server *s = ctx;

	(void)code;
	if (*state == NULL)
		return;
	size_t place = enter(s);
	visitors_now(s->visitors, c, VISIT_ASKING, 0);
	library_waits(c, LIMIT_IDLE_S);
	request_free(*state);
	*state = NULL;
	count(s, -1);
	leave(s, place);
}

/* What the library refuses itself (no HTTP, headers too long ...) comes with its status. Its other
 * words are about clients' broken connections, and may hold their bytes: not told. */
static void on_library_log(void *ctx, const char *fmt, va_list ap) {
	(void)ctx;
	if (strncmp(fmt, "Error processing request", 24) == 0)
		log_event(LOG_LEVEL_WARNING, "request.refused",
			"host=- bundle=- status=%u error=\"malformed, or too large\"",
			va_arg(ap, unsigned));
}

/* Paths are taken as they come: an id has one spelling. */
static size_t no_unescaping(void *ctx, struct MHD_Connection *c, char *text) {
	(void)ctx;
	(void)c;
	return strlen(text);
}

/* ---- sockets */

static int listen_unix(const char *path, int *ret, struct cede_error *reterr) {
	struct sockaddr_un at = {.sun_family = AF_UNIX};
	CLEANUP(fd_closep) int fd = -1;
	struct stat st;

	if (strlen(path) >= sizeof at.sun_path)
		return CEDE_FAIL(reterr, CEDE_ERR_INPUT, "listen: path too long");
	memcpy(at.sun_path, path, strlen(path));
	if (lstat(path, &st) == 0 && S_ISSOCK(st.st_mode) && unlinkat(AT_FDCWD, path, 0) < 0)
		return CEDE_FAIL_SYS(reterr, "remove the old socket %s", path);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	/* anybody may knock: SO_PEERCRED decides who is heard */
	if (fd < 0 || bind(fd, (const struct sockaddr *)&at, sizeof at) < 0 ||
		fchmodat(AT_FDCWD, path, 0666, 0) < 0 || listen(fd, BACKLOG) < 0)
		return CEDE_FAIL_SYS(reterr, "listen on %s", path);
	*ret = CEDE_TAKE_FD(fd);
	return CEDE_OK;
}

static int split_address(const char *text, char host[256], char port[8], struct cede_error *reterr) {
	const char *colon = strrchr(text, ':');
	const char *from = text;
	size_t len = colon == NULL ? 0 : (size_t)(colon - text);

	if (len > 1 && text[0] == '[' && text[len - 1] == ']') {
		from++;
		len -= 2;
	}
	if (colon == NULL || len == 0 || len > 255 || strlen(colon + 1) > 5 || colon[1] == 0)
		return CEDE_FAIL(reterr, CEDE_ERR_INPUT,
			"listen: ADDRESS:PORT or unix:/PATH expected, found %s", text);
	memcpy(host, from, len);
	host[len] = 0;
	memcpy(port, colon + 1, strlen(colon + 1) + 1);
	return CEDE_OK;
}

static int listen_tcp(const char *address, int *ret, unsigned *ret_port, struct cede_error *reterr) {
	struct addrinfo hints = {.ai_family = AF_UNSPEC,
		.ai_socktype = SOCK_STREAM,
		.ai_flags = AI_PASSIVE | AI_NUMERICHOST | AI_NUMERICSERV};
	struct addrinfo *list = NULL;
	struct sockaddr_storage bound;
	socklen_t size = sizeof bound;
	CLEANUP(fd_closep) int fd = -1;
	char host[256], port[8];
	int on = 1;

	CEDE_TRY(split_address(address, host, port, reterr));
	if (getaddrinfo(host, port, &hints, &list) != 0)
		return CEDE_FAIL(reterr, CEDE_ERR_INPUT, "listen: %s is no address", address);
	fd = socket(list->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	bool ok = fd >= 0 && setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) == 0 &&
		bind(fd, list->ai_addr, list->ai_addrlen) == 0 && listen(fd, BACKLOG) == 0 &&
		getsockname(fd, (struct sockaddr *)&bound, &size) == 0;
	int sys = errno;
	freeaddrinfo(list);
	errno = sys;
	if (!ok)
		return CEDE_FAIL_SYS(reterr, "listen on %s", address);
	struct sockaddr_in v4;
	struct sockaddr_in6 v6;
	memcpy(&v4, &bound, sizeof v4);
	memcpy(&v6, &bound, sizeof v6);
	*ret_port = ntohs(bound.ss_family == AF_INET6 ? v6.sin6_port : v4.sin_port);
	*ret = CEDE_TAKE_FD(fd);
	return CEDE_OK;
}

/* ---- TLS */

static int load_pem(struct server *s, const struct receiver_config *config, const char *text[3],
	struct cede_error *reterr) {
	struct buf *files[3] = {&s->certificate, &s->key, &s->ca};

	for (size_t i = 0; i < 3; i++)
		*files[i] = BUF_INIT(262144);
	CEDE_TRY(file_load(AT_FDCWD, config->certificate, &s->certificate, reterr));
	CEDE_TRY(key_load_private_pem(AT_FDCWD, config->key, &s->key, reterr));
	CEDE_TRY(file_load(AT_FDCWD, config->clients_ca, &s->ca, reterr));
	for (size_t i = 0; i < 3; i++)
		CEDE_TRY(buf_string(files[i], &text[i], reterr));
	return CEDE_OK;
}

static int start_daemon(struct server *s, const struct receiver_config *config,
	const char *const pem[3], int fd, bool tls, struct cede_error *reterr) {
	unsigned flags = MHD_USE_INTERNAL_POLLING_THREAD | MHD_USE_EPOLL | MHD_USE_ERROR_LOG |
		MHD_USE_ITC; /* for handshake_try() */

	struct MHD_OptionItem with_tls[] = {
		{MHD_OPTION_HTTPS_MEM_CERT, 0, (void *)(uintptr_t)pem[0]},
		{MHD_OPTION_HTTPS_MEM_KEY, 0, (void *)(uintptr_t)pem[1]},
		{MHD_OPTION_HTTPS_MEM_TRUST, 0, (void *)(uintptr_t)pem[2]},
		{MHD_OPTION_HTTPS_PRIORITIES, 0, (void *)(uintptr_t) "NORMAL:-VERS-ALL:+VERS-TLS1.3"},
		{MHD_OPTION_END, 0, NULL},
	};
	struct MHD_OptionItem without[] = {{MHD_OPTION_END, 0, NULL}};
	s->daemon = MHD_start_daemon(tls ? flags | MHD_USE_TLS : flags, 0, NULL, NULL, handle, s,
		MHD_OPTION_EXTERNAL_LOGGER, on_library_log, NULL, MHD_OPTION_LISTEN_SOCKET,
		(MHD_socket)fd, MHD_OPTION_CONNECTION_LIMIT, LIMIT_CONNECTIONS,
		MHD_OPTION_CONNECTION_TIMEOUT, (unsigned)LIMIT_IDLE_S,
		MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t)LIMIT_HEADERS,
		MHD_OPTION_THREAD_POOL_SIZE, LIMIT_THREADS, MHD_OPTION_NOTIFY_COMPLETED, completed,
		s, MHD_OPTION_NOTIFY_CONNECTION, visitors_notify, s->visitors,
		MHD_OPTION_UNESCAPE_CALLBACK, no_unescaping, NULL, MHD_OPTION_STRICT_FOR_CLIENT, 1,
		MHD_OPTION_ARRAY, tls ? with_tls : without, MHD_OPTION_END);
	if (s->daemon != NULL)
		return CEDE_OK;
	if (!tls)
		return CEDE_FAIL(reterr, CEDE_ERR_IO, "the server does not start");
	return CEDE_FAIL(reterr, CEDE_ERR_INPUT,
		"the server does not start: the certificate %.100s, its key %.100s and the clients' CA %.100s must be PEM, and the key the certificate's own",
		config->certificate, config->key, config->clients_ca);
}

int server_start(const struct receiver_config *config, const struct request_setup *setup,
	struct sandbox_report *report, struct server **ret, unsigned *ret_port,
	struct cede_error *reterr) {
	bool tls = strncmp(config->listen, "unix:", 5) != 0;
	struct server *s = calloc(1, sizeof *s);
	const char *pem[3] = {NULL, NULL, NULL};
	int fd = -1;

	if (s == NULL)
		return CEDE_FAIL_MEMORY(reterr);
	/* failures end the process */
	s->setup = *setup;
	*ret_port = 0;
	require(pthread_mutex_init(&s->lock, NULL) == 0 && pthread_cond_init(&s->fewer, NULL) == 0);
	if (tls)
		CEDE_TRY(listen_tcp(config->listen, &fd, ret_port, reterr));
	else
		CEDE_TRY(listen_unix(config->listen + 5, &fd, reterr));
	if (tls)
		CEDE_TRY(load_pem(s, config, pem, reterr));
	CEDE_TRY(receiver_enter(config->store, report, reterr)); /* the threads start inside */
	sandbox_say("receiver", report);
	CEDE_TRY(visitors_new(tls, &s->visitors, reterr));
	s->setup.visitors = s->visitors;
	CEDE_TRY(start_daemon(s, config, pem, fd, tls, reterr));
	int r = tls ? handshake_try(s->daemon, buf_slice(&s->ca), reterr) : CEDE_OK;
	if (r < 0)
		MHD_stop_daemon(s->daemon); /* its threads must not see the process end */
	*ret = s;
	return r;
}

void server_drain(struct server *s, unsigned ms) {
	struct timespec until;

	visitors_shut(s->visitors);
	(void)clock_gettime(CLOCK_REALTIME, &until);
	until.tv_sec += ms / 1000;
	(void)pthread_mutex_lock(&s->lock);
	while (s->requests > 0 && pthread_cond_timedwait(&s->fewer, &s->lock, &until) == 0)
		continue;
	(void)pthread_mutex_unlock(&s->lock);
}

void server_stop(struct server *s) {
	MHD_stop_daemon(s->daemon);
	visitors_free(s->visitors);
	buf_done(&s->certificate);
	buf_done(&s->key);
	buf_done(&s->ca);
	(void)pthread_mutex_destroy(&s->lock);
	(void)pthread_cond_destroy(&s->fewer);
	free(s);
}
