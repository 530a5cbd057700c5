/* SPDX-License-Identifier: Apache-2.0
 * Each destination, with the courier itself: name, address, TLS, pin, certificates of both sides,
 * HTTP; and its clock beside ours. */
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include <uv.h>

#include "agent/core/inforce.h"
#include "agent/doctor/internal.h"
#include "agent/programs.h"
#include "agent/send/spawn.h"
#include "base/check.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "version.h"

#define LIMIT_MS      20000
#define AGAIN_MS      20 /* until the courier is there */
#define CLOCK_WEAK_S  5
#define CLOCK_WRONG_S 60

struct reach {
	struct doctor *d;
	uv_loop_t loop;
	uv_timer_t again, limit;
	struct link *link;
	bool asked[POLICY_DESTINATIONS_MAX];
	bool answered[POLICY_DESTINATIONS_MAX];
	size_t open;
	bool closing, late;
};

/* What is most likely the matter, for each kind of failure (agent/send/link.h). */
static const char *mend_of(const char *kind) {
	static const struct {
		const char *kind, *mend;
	} mends[] = {
		{"resolve", "look at the name and at this host's resolver"},
		{"connect", "is the receiver up, and does a firewall let this host through?"},
		{"timeout", "does a firewall swallow the connection?"},
		{"tls", "is it the agency's server, is its certificate in date, and does it accept this host's certificate? ask the agency"},
		{"pin", "the server's key is not one of the policy's pins: ask the agency; do not work around it"},
		{"address",
			"the name resolves to an address that the policy does not approve: ask the agency"},
		{"local", "look at this host's certificate and key"},
		{"redirect", "the policy's url must be the one that answers"},
		{"reset", "the server hung up: does it know this host's certificate?"},
	};

	for (size_t i = 0; i < ARRAY_LENGTH(mends); i++)
		if (strcmp(mends[i].kind, kind) == 0)
			return mends[i].mend;
	return strncmp(kind, "http-", 5) == 0
		? "is it cede-receiver that answers there, and does it know this host?"
		: "ask the agency";
}

static void on_closed(void *ctx) {
	(void)ctx;
}

static void finish(struct reach *r) {
	if (r->closing)
		return;
	r->closing = true;
	(void)uv_timer_stop(&r->again);
	(void)uv_timer_stop(&r->limit);
	uv_close((uv_handle_t *)&r->again, NULL);
	uv_close((uv_handle_t *)&r->limit, NULL);
	link_close(r->link, 500, on_closed, r);
}

static void compare_clocks(struct reach *r, const char *name, int64_t date_s) {
	int64_t by = clock_wall_ns() / NS_PER_SECOND - date_s;
	int64_t off = by < 0 ? -by : by;

	if (date_s == 0)
		return;
	if (off > CLOCK_WEAK_S)
		doctor_say(r->d, "clock", name, off > CLOCK_WRONG_S ? DOCTOR_BROKEN : DOCTOR_WEAK,
			"set the clock, and let a time service keep it right",
			"this host's clock is %lld s %s the agency's", (long long)off,
			by > 0 ? "ahead of" : "behind");
	else
		doctor_say(r->d, "clock", name, DOCTOR_OK, "", "agrees with the agency's");
}

static void on_probed(void *ctx, size_t destination, const struct link_probe *probe) {
	struct reach *r = ctx;
	const char *name = r->d->policy->destinations[destination].name;

	if (r->answered[destination])
		return;
	r->answered[destination] = true;
	r->open--;
	if (probe->kind[0] == 0)
		doctor_say(r->d, "destination", name, DOCTOR_OK, "",
			"reached over mutual TLS, and it knows this host");
	else
		doctor_say(r->d, "destination", name, DOCTOR_BROKEN, mend_of(probe->kind), "%s: %s",
			probe->kind, probe->text);
	compare_clocks(r, name, probe->date_s);
	if (r->open == 0)
		finish(r);
}

static bool no_receipt(void *ctx, const struct id *bundle, struct slice note) {
	(void)ctx;
	(void)bundle;
	(void)note;
	return false;
}

static void not_absent(void *ctx, const struct id *bundle) {
	(void)ctx;
	(void)bundle;
}

static void no_failure(void *ctx, const struct id *bundle, size_t destination, const char *kind,
	const char *text) {
	(void)ctx;
	(void)bundle;
	(void)destination;
	(void)kind;
	(void)text;
}

static void no_state(void *ctx, size_t destination, bool up) {
	(void)ctx;
	(void)destination;
	(void)up;
}

static void on_again(uv_timer_t *timer) {
	struct reach *r = timer->data;

	for (size_t i = 0; i < r->d->policy->destination_count; i++)
		if (!r->asked[i] && link_probe(r->link, i, NULL) == CEDE_OK)
			r->asked[i] = true;
}

static void on_limit(uv_timer_t *timer) {
	struct reach *r = timer->data;

	r->late = true;
	for (size_t i = 0; i < r->d->policy->destination_count; i++)
		if (!r->answered[i])
			doctor_say(r->d, "destination", r->d->policy->destinations[i].name,
				DOCTOR_BROKEN, mend_of("timeout"), "no answer within %d s",
				LIMIT_MS / 1000);
	finish(r);
}

static int ask_all(struct reach *r, struct spawner *spawner, const struct inforce *f,
	struct cede_error *reterr) {
	const struct link_events events = {.ctx = r,
		.receipt = no_receipt,
		.absent = not_absent,
		.failed = no_failure,
		.state = no_state,
		.probed = on_probed};
	struct link_destination destinations[POLICY_DESTINATIONS_MAX] = {0};

	if (uv_loop_init(&r->loop) != 0)
		return CEDE_FAIL_MEMORY(reterr);
	(void)uv_timer_init(&r->loop, &r->again);
	(void)uv_timer_init(&r->loop, &r->limit);
	r->again.data = r->limit.data = r;
	r->open = f->policy->destination_count;
	inforce_destinations(f, destinations);
	CEDE_TRY(link_start(&r->loop, spawner, 0, destinations, r->open, &events, &r->link, reterr));
	(void)uv_timer_start(&r->again, on_again, 0, AGAIN_MS);
	(void)uv_timer_start(&r->limit, on_limit, LIMIT_MS, 0);
	(void)uv_run(&r->loop, UV_RUN_DEFAULT);
	return uv_loop_close(&r->loop) == 0 ? CEDE_OK : CEDE_FAIL(reterr, CEDE_ERR_BUG, "event loop");
}

/* What the courier logs is for the agent's log. Here it is kept in a file, and shown only if
 * nothing was heard of the courier. */
static int start_quietly(
	const struct doctor *d, struct spawner **ret, int *ret_log, struct cede_error *reterr) {
	char courier[PATH_MAX], guard[PATH_MAX];
	CLEANUP(fd_closep) int log = memfd_create("courier-log", MFD_CLOEXEC);
	CLEANUP(fd_closep) int screen = fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, STDERR_FILENO + 1);

	CEDE_TRY(program_find(
		d->options->courier, "courier/", "cede-courier", CEDE_COURIER, courier, reterr));
	CEDE_TRY(program_find(NULL, "guard/", "cede-guard", CEDE_GUARD, guard, reterr));
	if (log < 0 || screen < 0 || dup2(log, STDERR_FILENO) < 0)
		return CEDE_FAIL_SYS(reterr, "a file for what the courier says");
	const struct spawner_setup setup = {.courier = courier,
		.guard = guard,
		.user = d->config->courier_user,
		.metrics_fd = -1,
		.log_level = LOG_LEVEL_INFO};
	int r = spawner_start(&setup, ret, reterr);
	if (dup2(screen, STDERR_FILENO) < 0)
		r = CEDE_FAIL_SYS(reterr, "standard error");
	if (r == CEDE_OK)
		*ret_log = CEDE_TAKE_FD(log);
	return r;
}

static void show_log(int log) {
	char some[4096];
	ssize_t n;

	for (off_t at = 0; (n = pread(log, some, sizeof some, at)) > 0; at += n)
		(void)fwrite(some, 1, (size_t)n, stderr);
}

static int reach(struct doctor *d, struct cede_error *reterr) {
	CLEANUP(inforce_freep) struct inforce *f = NULL;
	CLEANUP(fd_closep) int log = -1;
	const struct doctor_options *o = d->options;
	const struct floor none = {0};
	const struct inforce_want want = {.policy_path = o->policy,
		.config = d->config,
		.is_unsigned = o->is_unsigned,
		.floor = &none}; /* the policy's own check speaks of it */
	struct spawner *spawner;

	CEDE_TRY(inforce_load(&want, &f, reterr));
	CEDE_TRY(start_quietly(d, &spawner, &log, reterr));
	struct reach *r = calloc(1, sizeof *r);
	if (r == NULL)
		return CEDE_FAIL_MEMORY(reterr);
	r->d = d;
	int code = ask_all(r, spawner, f, reterr);
	spawner_stop(spawner);
	if (code < 0 || r->late)
		show_log(log);
	free(r);
	return code;
}

void check_destinations(struct doctor *d) {
	struct cede_error err = {0};

	if (d->options->offline || d->policy == NULL || !d->identity_works)
		return; /* what stands in the way was said */
	if (reach(d, &err) < 0)
		doctor_say(d, "destination", "", DOCTOR_BROKEN,
			"is cede installed whole? what else it says stands before this", "%s",
			err.text);
}
