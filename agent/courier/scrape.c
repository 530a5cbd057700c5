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

#include "base/check.h"
#include "base/cleanup.h"
#include "base/parse.h"

#define CONNECTIONS 16U
#define TIMEOUT_S   10U
#define MEMORY      8192U

struct scrape {
	struct MHD_Daemon *daemon;
	pthread_mutex_t lock;
	char *text;
	size_t len;
};

static enum MHD_Result answer(
	struct MHD_Connection *c, unsigned status, const void *text, size_t len, const char *type) {
	struct MHD_Response *r =
		MHD_create_response_from_buffer(len, (void *)(uintptr_t)text, MHD_RESPMEM_MUST_COPY);

	if (r == NULL)
		return MHD_NO;
	(void)MHD_add_response_header(r, MHD_HTTP_HEADER_CONTENT_TYPE, type);
	if (status == MHD_HTTP_METHOD_NOT_ALLOWED)
		(void)MHD_add_response_header(r, MHD_HTTP_HEADER_ALLOW, "GET, HEAD");
	enum MHD_Result result = MHD_queue_response(c, status, r);
	MHD_destroy_response(r);
	return result;
}

static enum MHD_Result handle(void *ctx, struct MHD_Connection *c, const char *url,
	const char *method, const char *version, const char *data, size_t *size, void **state) {
	static const char plain[] = "text/plain; charset=utf-8";
	static int seen;
	struct scrape *s = ctx;

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
	if (strcmp(method, "GET") != 0 && strcmp(method, "HEAD") != 0)
		return answer(c, MHD_HTTP_METHOD_NOT_ALLOWED, "", 0, plain);
	if (strcmp(url, "/healthz") == 0)
		return answer(c, MHD_HTTP_OK, "ok\n", 3, plain);
	if (strcmp(url, "/metrics") != 0)
		return answer(c, MHD_HTTP_NOT_FOUND, "", 0, plain);
	(void)pthread_mutex_lock(&s->lock);
	enum MHD_Result r = s->text == NULL
		? answer(c, MHD_HTTP_SERVICE_UNAVAILABLE, "", 0, plain)
		: answer(c, MHD_HTTP_OK, s->text, s->len, "text/plain; version=0.0.4; charset=utf-8");
	(void)pthread_mutex_unlock(&s->lock);
	return r;
}

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

int scrape_start(const char *address, struct scrape **ret, struct cede_error *reterr) {
	int fd = -1;

	if (strncmp(address, "unix:", 5) == 0)
		CEDE_TRY(bind_unix(address + 5, &fd, reterr));
	else
		CEDE_TRY(bind_loopback(address, &fd, reterr));
	struct scrape *s = calloc(1, sizeof *s);
	if (s == NULL) {
		fd_closep(&fd);
		return CEDE_FAIL_MEMORY(reterr);
	}
	require(pthread_mutex_init(&s->lock, NULL) == 0);
	s->daemon = MHD_start_daemon(MHD_USE_INTERNAL_POLLING_THREAD | MHD_USE_POLL, 0, NULL, NULL,
		handle, s, MHD_OPTION_LISTEN_SOCKET, (MHD_socket)fd, MHD_OPTION_CONNECTION_LIMIT,
		CONNECTIONS, MHD_OPTION_CONNECTION_TIMEOUT, TIMEOUT_S,
		MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t)MEMORY, MHD_OPTION_END);
	if (s->daemon == NULL) {
		fd_closep(&fd);
		free(s);
		return CEDE_FAIL(reterr, CEDE_ERR_IO, "metrics: can't serve %s", address);
	}
	*ret = s;
	return CEDE_OK;
}

void scrape_update(struct scrape *s, struct slice text) {
	char *copy = malloc(text.len + 1);

	if (copy == NULL)
		return; /* the old text stays; the next one follows in a moment */
	memcpy(copy, text.data, text.len);
	(void)pthread_mutex_lock(&s->lock);
	char *old = s->text;
	s->text = copy;
	s->len = text.len;
	(void)pthread_mutex_unlock(&s->lock);
	free(old);
}

void scrape_stop(struct scrape *s) {
	if (s == NULL)
		return;
	MHD_stop_daemon(s->daemon);
	(void)pthread_mutex_destroy(&s->lock);
	free(s->text);
	free(s);
}
