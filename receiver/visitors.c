/* SPDX-License-Identifier: Apache-2.0
 *
 * A connection is ended with shutdown(): libmicrohttpd sees that its client is gone and cleans up
 * in its own thread. The descriptor is still open then, because the place is given back, under the
 * lock, before the library closes it. */
#include "receiver/visitors.h"

#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

#include "base/check.h"
#include "base/clock.h"
#include "base/log.h"
#include "receiver/limits.h"

struct visitor {
	bool used;
	bool asked; /* at least one request of a known host */
	bool cut;
	int fd;
	enum visit now;
	char host[HOST_ID_MAX + 1]; /* whose request it is; "": nobody's */
	int64_t since_ns;           /* of the connection */
	int64_t deadline_ns;
	struct id bundle;   /* that it sends */
	int64_t sending_ns; /* since when its body comes */
	int64_t heard_ns;   /* its last part came */
	uint64_t body;      /* what has come of it */
	uint64_t lately;    /* since the deadline was set */
	struct sockaddr_storage from;
	socklen_t from_len;
};

struct visitors {
	pthread_mutex_t lock;
	pthread_cond_t end;
	pthread_t watch;
	bool by_address;
	bool ending;
	bool shut;
	struct visitor places[LIMIT_CONNECTIONS];
};

static const char *const too_slow[] = {
	[VISIT_ASKING] = "no request in time",
	[VISIT_SENDING] = "its body came too slowly",
	[VISIT_REFUSED] = "its body came too slowly, and was refused",
	[VISIT_WAITING] = "",
	[VISIT_TAKING] = "it does not take its answer",
};

/* ---- one visitor; the lock is held */

static void say(enum log_level level, const char *event, const struct visitor *v, const char *why) {
	char text[NI_MAXHOST];
	bool told = v->from.ss_family != AF_UNIX &&
		getnameinfo((const struct sockaddr *)&v->from, v->from_len, text, sizeof text, NULL,
			0, NI_NUMERICHOST) == 0;

	log_event(level, event, "address=%s error=\"%s\"", told ? text : "-", why);
}

static void cut(struct visitor *v, const char *event, const char *why) {
	v->cut = true;
	v->deadline_ns = INT64_MAX;
	say(LOG_LEVEL_WARNING, event, v, why);
	(void)shutdown(v->fd, SHUT_RDWR);
}

/* An IPv6 network of 64 bits counts as one: whoever has one address of it has them all. */
static bool same_origin(const struct sockaddr_storage *a, const struct sockaddr_storage *b) {
	if (a->ss_family != b->ss_family)
		return false;
	if (a->ss_family == AF_INET) {
		struct sockaddr_in x, y;
		memcpy(&x, a, sizeof x);
		memcpy(&y, b, sizeof y);
		return x.sin_addr.s_addr == y.sin_addr.s_addr;
	}
	struct sockaddr_in6 x, y;
	memcpy(&x, a, sizeof x);
	memcpy(&y, b, sizeof y);
	size_t part = IN6_IS_ADDR_V4MAPPED(&x.sin6_addr) ? 16 : 8;
	return memcmp(&x.sin6_addr, &y.sin6_addr, part) == 0;
}

static void set_deadline(struct visitor *v, enum visit now, uint64_t length) {
	int64_t seconds = 0;

	switch (now) {
	case VISIT_ASKING:
		seconds = v->asked ? LIMIT_IDLE_S + LIMIT_HEAD_S : LIMIT_HEAD_S;
		break;
	case VISIT_SENDING:
		seconds = LIMIT_BODY_S;
		v->sending_ns = v->heard_ns = clock_boot_ns();
		v->body = v->lately = 0;
		break;
	case VISIT_REFUSED:
		seconds = LIMIT_REFUSED_S + (int64_t)(length / LIMIT_REFUSED_SLOWEST);
		break;
	case VISIT_WAITING:
		break;
	case VISIT_TAKING:
		seconds = LIMIT_IDLE_S;
		break;
	}
	v->now = now;
	v->deadline_ns = now == VISIT_WAITING ? INT64_MAX : clock_boot_ns() + seconds * NS_PER_SECOND;
}

/* ---- all of them */

static size_t count_of_origin(const struct visitors *vs, const struct visitor *of) {
	size_t count = 0;

	for (size_t i = 0; i < LIMIT_CONNECTIONS; i++)
		count += vs->places[i].used && !vs->places[i].cut &&
			same_origin(&vs->places[i].from, &of->from);
	return count;
}

static size_t count_of_host(const struct visitors *vs, const char *host) {
	size_t count = 0;

	for (size_t i = 0; i < LIMIT_CONNECTIONS; i++)
		count += vs->places[i].used && !vs->places[i].cut &&
			strcmp(vs->places[i].host, host) == 0;
	return count;
}

/* Those that need no place: the oldest of a crowd, and how many there are. */
struct crowd {
	struct visitor *oldest;
	size_t count;
};

static void join(struct crowd *crowd, struct visitor *v) {
	crowd->count++;
	if (crowd->oldest == NULL || v->since_ns < crowd->oldest->since_ns)
		crowd->oldest = v;
}

/* When places get short one goes for each that comes. Of those that never asked and those that are
 * idle it is one of the larger crowd: the other may be honest hosts. */
static void make_room(struct visitors *vs, const struct visitor *newcomer) {
	struct crowd refused = {0}, silent = {0}, idle = {0};
	size_t count = 0;

	for (size_t i = 0; i < LIMIT_CONNECTIONS; i++) {
		struct visitor *v = &vs->places[i];
		if (!v->used || v->cut)
			continue;
		count++;
		if (v->now == VISIT_REFUSED)
			join(&refused, v);
		else if (!v->asked && v != newcomer)
			join(&silent, v);
		else if (v->asked && v->now == VISIT_ASKING)
			join(&idle, v);
	}
	if (count <= LIMIT_CONNECTIONS - LIMIT_CONNECTIONS_SPARE)
		return;
	if (refused.count > 0)
		cut(refused.oldest, "connection.cut", "places are short and it was refused");
	else if (idle.count > silent.count)
		cut(idle.oldest, "connection.cut", "places are short and it asks for nothing more");
	else if (silent.count > 0)
		cut(silent.oldest, "connection.cut", "places are short and it asked for nothing");
}

static void come(struct visitors *vs, struct MHD_Connection *c, void **place) {
	const union MHD_ConnectionInfo *fd =
		MHD_get_connection_info(c, MHD_CONNECTION_INFO_CONNECTION_FD);
	struct visitor *v = NULL;

	for (size_t i = 0; v == NULL && i < LIMIT_CONNECTIONS; i++)
		if (!vs->places[i].used)
			v = &vs->places[i];
	if (fd == NULL)
		return;
	if (v == NULL) { /* the library has the same limit */
		(void)shutdown(fd->connect_fd, SHUT_RDWR);
		return;
	}
	*v = (struct visitor){.used = true, .fd = fd->connect_fd, .since_ns = clock_boot_ns()};
	v->from_len = sizeof v->from;
	if (getpeername(v->fd, (struct sockaddr *)&v->from, &v->from_len) < 0)
		v->from_len = 0; /* gone already */
	set_deadline(v, VISIT_ASKING, 0);
	*place = v;
	if (vs->shut) {
		v->cut = true;
		(void)shutdown(v->fd, SHUT_RDWR);
	} else if (vs->by_address && count_of_origin(vs, v) > LIMIT_CONNECTIONS_PEER)
		cut(v, "connection.refused", "too many connections of this address");
	else
		make_room(vs, v);
}

static void go(const struct visitors *vs, struct visitor *v) {
	bool ourselves = vs->by_address && v->from.ss_family == AF_UNIX; /* handshake.h */

	if (!v->asked && !v->cut && !ourselves)
		say(LOG_LEVEL_INFO, "connection.unused", v, "closed without a request");
	v->used = false;
}

void visitors_notify(void *visitors, struct MHD_Connection *c, void **place,
	enum MHD_ConnectionNotificationCode code) {
	struct visitors *vs = visitors;

	(void)pthread_mutex_lock(&vs->lock);
	if (code == MHD_CONNECTION_NOTIFY_STARTED)
		come(vs, c, place);
	else if (*place != NULL)
		go(vs, *place);
	(void)pthread_mutex_unlock(&vs->lock);
}

static struct visitor *visitor_of(struct MHD_Connection *c) {
	const union MHD_ConnectionInfo *info =
		MHD_get_connection_info(c, MHD_CONNECTION_INFO_SOCKET_CONTEXT);

	return info == NULL ? NULL : info->socket_context;
}

bool visitors_host(struct visitors *vs, struct MHD_Connection *c, const char *host) {
	struct visitor *v = visitor_of(c);

	if (v == NULL)
		return false;
	(void)pthread_mutex_lock(&vs->lock);
	v->asked = true;
	(void)snprintf(v->host, sizeof v->host, "%s", host);
	bool room = count_of_host(vs, host) <= LIMIT_CONNECTIONS_HOST;
	if (!room)
		v->host[0] = 0; /* it goes, and counts no more */
	(void)pthread_mutex_unlock(&vs->lock);
	return room;
}

void visitors_now(struct visitors *vs, struct MHD_Connection *c, enum visit now, uint64_t length) {
	struct visitor *v = visitor_of(c);

	if (v == NULL)
		return;
	(void)pthread_mutex_lock(&vs->lock);
	if (!vs->by_address && now == VISIT_ASKING)
		v->host[0] = 0; /* a front's connection: the next request may be another host's */
	if (!v->cut)
		set_deadline(v, now, length);
	(void)pthread_mutex_unlock(&vs->lock);
}

void visitors_sent(struct visitors *vs, struct MHD_Connection *c, uint64_t length) {
	struct visitor *v = visitor_of(c);

	if (v == NULL)
		return;
	(void)pthread_mutex_lock(&vs->lock);
	v->body += length;
	v->lately += length;
	v->heard_ns = clock_boot_ns();
	if (!v->cut && v->now == VISIT_SENDING && v->lately >= LIMIT_BODY_LEAST) {
		v->lately = 0;
		v->deadline_ns = v->heard_ns + LIMIT_BODY_S * NS_PER_SECOND;
	}
	(void)pthread_mutex_unlock(&vs->lock);
}

/* Bytes a second; of one that has just begun nothing can be said. */
static uint64_t pace(const struct visitor *v, int64_t now_ns) {
	int64_t seconds = (now_ns - v->sending_ns) / NS_PER_SECOND;

	return seconds < LIMIT_IDLE_S ? UINT64_MAX : v->body / (uint64_t)seconds;
}

void visitors_make_place(struct visitors *vs, const char *host) {
	struct visitor *slowest = NULL;
	int64_t now_ns = clock_boot_ns();
	size_t of_host = 0;

	(void)pthread_mutex_lock(&vs->lock);
	for (size_t i = 0; i < LIMIT_CONNECTIONS; i++)
		of_host += vs->places[i].used && vs->places[i].now == VISIT_SENDING &&
			strcmp(vs->places[i].host, host) == 0;
	for (size_t i = 0; i < LIMIT_CONNECTIONS; i++) {
		struct visitor *v = &vs->places[i];
		if (!v->used || v->cut || v->now != VISIT_SENDING ||
			(of_host >= LIMIT_UPLOADS_HOST && strcmp(v->host, host) != 0))
			continue;
		if (slowest == NULL || pace(v, now_ns) < pace(slowest, now_ns))
			slowest = v;
	}
	if (slowest != NULL && pace(slowest, now_ns) < LIMIT_BODY_SLOW)
		cut(slowest, "connection.cut", "places for uploads are short and it is the slowest");
	(void)pthread_mutex_unlock(&vs->lock);
}

void visitors_bundle(struct visitors *vs, struct MHD_Connection *c, const struct id *bundle) {
	struct visitor *v = visitor_of(c);

	if (v == NULL)
		return;
	(void)pthread_mutex_lock(&vs->lock);
	v->bundle = *bundle;
	(void)pthread_mutex_unlock(&vs->lock);
}

/* The host's upload of it, if nothing has come of that for long. */
static const struct visitor *silent_upload(
	const struct visitors *vs, const char *host, const struct id *bundle) {
	int64_t quiet_since = clock_boot_ns() - LIMIT_QUIET_S * NS_PER_SECOND;

	for (size_t i = 0; i < LIMIT_CONNECTIONS; i++) {
		const struct visitor *v = &vs->places[i];
		if (v->used && !v->cut && v->now == VISIT_SENDING && v->heard_ns <= quiet_since &&
			id_equal(&v->bundle, bundle) && strcmp(v->host, host) == 0)
			return v;
	}
	return NULL;
}

void visitors_asked_anew(struct visitors *vs, const char *host, const struct id *bundle) {
	(void)pthread_mutex_lock(&vs->lock);
	const struct visitor *silent = silent_upload(vs, host, bundle);
	int64_t broke_ns = silent == NULL ? INT64_MIN : silent->heard_ns + NS_PER_SECOND;
	for (size_t i = 0; i < LIMIT_CONNECTIONS; i++) {
		struct visitor *v = &vs->places[i];
		if (v->used && !v->cut && v->now == VISIT_SENDING && v->heard_ns <= broke_ns &&
			strcmp(v->host, host) == 0)
			cut(v, "connection.cut", "nothing came any more, and its host asked anew");
	}
	(void)pthread_mutex_unlock(&vs->lock);
}

void visitors_shut(struct visitors *vs) {
	(void)pthread_mutex_lock(&vs->lock);
	vs->shut = true;
	(void)pthread_mutex_unlock(&vs->lock);
}

static void *watch(void *ctx) {
	struct visitors *vs = ctx;
	struct timespec next;

	(void)pthread_mutex_lock(&vs->lock);
	while (!vs->ending) {
		int64_t now = clock_boot_ns();
		for (size_t i = 0; i < LIMIT_CONNECTIONS; i++) {
			struct visitor *v = &vs->places[i];
			if (v->used && v->deadline_ns <= now)
				cut(v, "connection.cut", too_slow[v->now]);
		}
		(void)clock_gettime(CLOCK_MONOTONIC, &next);
		next.tv_sec++;
		(void)pthread_cond_timedwait(&vs->end, &vs->lock, &next);
	}
	(void)pthread_mutex_unlock(&vs->lock);
	return NULL;
}

int visitors_new(bool by_address, struct visitors **ret, struct cede_error *reterr) {
	struct visitors *vs = calloc(1, sizeof *vs);
	pthread_condattr_t monotonic;

	if (vs == NULL)
		return CEDE_FAIL_MEMORY(reterr);
	vs->by_address = by_address;
	require(pthread_mutex_init(&vs->lock, NULL) == 0 && pthread_condattr_init(&monotonic) == 0 &&
		pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC) == 0 &&
		pthread_cond_init(&vs->end, &monotonic) == 0);
	(void)pthread_condattr_destroy(&monotonic);
	errno = pthread_create(&vs->watch, NULL, watch, vs);
	if (errno != 0) {
		free(vs);
		return CEDE_FAIL_SYS(reterr, "start a thread");
	}
	*ret = vs;
	return CEDE_OK;
}

void visitors_free(struct visitors *vs) {
	if (vs == NULL)
		return;
	(void)pthread_mutex_lock(&vs->lock);
	vs->ending = true;
	(void)pthread_cond_signal(&vs->end);
	(void)pthread_mutex_unlock(&vs->lock);
	(void)pthread_join(vs->watch, NULL);
	(void)pthread_mutex_destroy(&vs->lock);
	(void)pthread_cond_destroy(&vs->end);
	free(vs);
}
