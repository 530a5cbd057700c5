/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/core/answer.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "agent/ipc/readiness.h"
#include "base/check.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/log.h"
#include "version.h"

#define WAITING_MOST 8

/* ---- what is said; without memory a part is missing, and the reader says so */

static json_t *time_of(int64_t ns) {
	char text[CLOCK_TEXT_SIZE];

	if (ns <= 0)
		return json_null();
	clock_text(ns, text);
	return json_string(text);
}

static void set(json_t *o, const char *key, json_t *value) {
	(void)json_object_set_new(o, key, value);
}

static void set_count(json_t *o, const char *key, uint64_t value) {
	set(o, key, json_integer((json_int_t)value));
}

static json_t *agent_of(const struct standing *s, const char *host) {
	static const char *const names[] = {
#define X(id, name, text) [CONDITION_##id] = name,
		CONDITIONS(X)
#undef X
	};
	json_t *o = json_object();
	json_t *unmet = json_array();

	set(o, "running", json_true());
	set(o, "ready", json_boolean(s->meters.unmet == 0));
	for (size_t i = 0; i < ARRAY_LENGTH(names); i++)
		if ((s->meters.unmet & CONDITION_BIT(i)) != 0)
			(void)json_array_append_new(unmet, json_string(names[i]));
	set(o, "unmet", unmet);
	set(o, "version", json_string(CEDE_VERSION));
	set(o, "host", json_string(host));
	set_count(o, "pid", (uint64_t)getpid());
	set(o, "started", time_of(s->meters.process.started_ns));
	return o;
}

static json_t *policy_of(const struct standing *s) {
	const struct meters *m = &s->meters;
	json_t *o = json_object();

	set(o, "id", json_string(m->policy->id));
	set_count(o, "serial", m->policy->serial);
	set(o, "signed", json_boolean(m->is_signed));
	set(o, "expires", time_of(m->policy->expires_ns));
	set(o, "expired", json_boolean(s->figures.flow.expired));
	set(o, "refused", json_boolean(m->reload_failed));
	return o;
}

static json_t *source_of(const struct standing *s, size_t i) {
	const struct source_figures *f = &s->figures.sources[i];
	json_t *o = json_object();
	json_t *reported = json_object();

	set(o, "name", json_string(s->meters.policy->sources[i].name));
	set(o, "up", json_boolean(!f->missing));
	set(o, "watched", json_boolean(!f->unwatched));
	set_count(o, "max_age_seconds",
		(uint64_t)(s->meters.policy->sources[i].max_age_ns / NS_PER_SECOND));
	set_count(o, "oldest_age_seconds",
		(uint64_t)(meters_oldest_age_ns(&s->meters, i) / NS_PER_SECOND));
	set_count(o, "incomplete", f->incomplete);
	for (int r = 0; r < REASON_COUNT; r++)
		if (f->stay[r] > 0)
			set_count(reported, reason_name((enum reason)r), f->stay[r]);
	set(o, "reported", reported);
	return o;
}

static json_t *destination_of(const struct standing *s, size_t i) {
	const struct destination_figures *f = &s->figures.destinations[i];
	json_t *o = json_object();

	set(o, "name", json_string(s->meters.policy->destinations[i].name));
	set(o, "up", json_boolean(f->up));
	return o;
}

static json_t *certificates_of(const struct standing *s) {
	json_t *all = json_array();

	for (size_t i = 0; i < s->meters.certificate_count; i++) {
		const struct meters_certificate *c = &s->meters.certificates[i];
		json_t *o = json_object();
		set(o, "role", json_string(c->role));
		set(o, "destination", json_string(c->destination));
		set(o, "expires", time_of(c->until_ns));
		(void)json_array_append_new(all, o);
	}
	return all;
}

static json_t *spool_of(const struct standing *s) {
	json_t *o = json_object();

	set_count(o, "bytes", s->figures.flow.spool_bytes);
	set_count(o, "limit", s->figures.flow.spool_limit);
	set(o, "full", json_boolean(s->figures.flow.spool_full));
	return o;
}

/* One line; NULL without memory. */
static char *text_of(const struct standing *s, const char *host) {
	json_t *all = json_object();
	json_t *sources = json_array();
	json_t *destinations = json_array();

	for (size_t i = 0; i < s->meters.policy->source_count; i++)
		(void)json_array_append_new(sources, source_of(s, i));
	for (size_t i = 0; i < s->meters.policy->destination_count; i++)
		(void)json_array_append_new(destinations, destination_of(s, i));
	set(all, "agent", agent_of(s, host));
	set(all, "policy", policy_of(s));
	set(all, "sources", sources);
	set(all, "destinations", destinations);
	set(all, "certificates", certificates_of(s));
	set(all, "spool", spool_of(s));
	char *text = json_dumps(all, JSON_COMPACT);
	json_decref(all);
	return text;
}

/* ---- to whom */

static void answer_one(struct answer *a, int fd) {
	CLEANUP(freep)
	char *text = a->take(a->ctx) ? text_of(a->standing, a->standing->host) : NULL;

	/* whole into the socket's buffer, or not at all: nobody is waited for */
	if (text != NULL)
		(void)!send(fd, text, strlen(text), MSG_NOSIGNAL | MSG_DONTWAIT);
	(void)close(fd);
}

static void on_asked(uv_poll_t *poll, int status, int events) {
	struct answer *a = poll->data;

	(void)events;
	for (int i = 0; status == 0 && i < WAITING_MOST; i++) {
		int fd = accept4(a->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
		if (fd < 0)
			return; /* all are served, or there is no descriptor for them now */
		answer_one(a, fd);
	}
}

/* The state directory's own path may be too long for an address. */
static struct sockaddr_un address_of(int state_fd) {
	struct sockaddr_un at = {.sun_family = AF_UNIX};

	(void)snprintf(at.sun_path, sizeof at.sun_path, "/proc/self/fd/%d/" ANSWER_SOCKET, state_fd);
	return at;
}

int answer_open(struct answer *a, int state_fd, struct cede_error *reterr) {
	struct sockaddr_un at = address_of(state_fd);
	CLEANUP(fd_closep)
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	*a = (struct answer){.fd = -1, .state_fd = state_fd};
	if (unlinkat(state_fd, ANSWER_SOCKET, 0) < 0 && errno != ENOENT) /* of a run that is over */
		return CEDE_FAIL_SYS(reterr, "state directory: " ANSWER_SOCKET);
	if (fd < 0 || bind(fd, (const struct sockaddr *)&at, sizeof at) < 0 ||
		listen(fd, WAITING_MOST) < 0)
		return CEDE_FAIL_SYS(reterr, "state directory: " ANSWER_SOCKET);
	a->fd = CEDE_TAKE_FD(fd);
	return CEDE_OK;
}

void answer_start(struct answer *a, uv_loop_t *loop, const struct standing *standing,
	bool (*take)(void *ctx), void *ctx) {
	a->standing = standing;
	a->take = take;
	a->ctx = ctx;
	a->poll.data = a;
	a->polling = uv_poll_init(loop, &a->poll, a->fd) == 0 &&
		uv_poll_start(&a->poll, UV_READABLE, on_asked) == 0;
	if (!a->polling)
		log_event(LOG_LEVEL_WARNING, "status.unserved",
			"effect=\"cede status says only what the ledger says\"");
}

void answer_stop(struct answer *a) {
	if (a->fd < 0)
		return;
	if (a->polling)
		uv_close((uv_handle_t *)&a->poll, NULL);
	a->polling = false;
	if (unlinkat(a->state_fd, ANSWER_SOCKET, 0) < 0 && errno != ENOENT)
		log_event(LOG_LEVEL_WARNING, "status.socket", "error=\"%s\"", strerrordesc_np(errno));
	fd_closep(&a->fd);
}
