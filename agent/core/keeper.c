/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/core/keeper.h"

#include <fcntl.h>
#include <limits.h>
#include <openssl/evp.h>
#include <openssl/x509.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <unistd.h>

#include "agent/config.h"
#include "agent/core/flow.h"
#include "agent/core/inforce.h"
#include "agent/core/meters.h"
#include "agent/seal/spool.h"
#include "base/check.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/notify.h"
#include "certs/key.h"
#include "version.h"

#define DRAIN_MS     2500
#define LINK_STOP_MS 1000
#define METERS_MS    2000
#define RELOAD_MS    300
#define FILES_WANTED 8192

struct keeper {
	const struct keeper_options *options;
	struct agent_config *config;
	struct inforce *now;  /* the policy in force */
	struct inforce *next; /* it takes over once the flow has retired */
	struct floor floor;
	char courier[PATH_MAX];
	uv_loop_t loop;
	uv_signal_t on_term;
	uv_signal_t on_int;
	uv_signal_t on_hup;
	uv_timer_t drain;
	uv_timer_t meters;
	uv_timer_t swap;   /* never from within the flow */
	uv_timer_t settle; /* files of the policy change one after the other */
	uv_fs_event_t policy_dir;
	struct flow *flow;
	struct link *link;
	bool reloading;
	bool reload_again;
	bool stopping;
	bool stop_after; /* the reload that is under way */
	bool reload_failed;
	bool broken; /* ends without its clean end */
	uint64_t reloads;
	uint64_t bad_reloads;
	char fatal[400];
};

static void print_lines(char **lines) {
	for (size_t i = 0; lines != NULL && lines[i] != NULL; i++) {
		(void)fprintf(stderr, "%s\n", lines[i]);
		free(lines[i]);
	}
	free(lines);
}

static int load_config(struct keeper *k, struct cede_error *reterr) {
	char **lines = NULL;

	int r = agent_config_load(k->options->config, &k->config, &lines, reterr);
	print_lines(lines);
	CEDE_TRY(r);
	log_setup("cede", k->config->log_level);
	return CEDE_OK;
}

static struct inforce_want want_of(const struct keeper *k) {
	return (struct inforce_want){.policy_path = k->options->policy,
		.config = k->config,
		.is_unsigned = k->options->is_unsigned,
		.floor = &k->floor};
}

/* What stands above every policy that is loaded from now on. */
static void raise_floor(struct keeper *k) {
	if (!k->now->trusted->is_signed || k->now->policy->serial < k->floor.serial)
		return;
	k->floor.serial = k->now->policy->serial;
	memcpy(k->floor.sha256, k->now->policy->sha256, sizeof k->floor.sha256);
}

/* The courier that belongs to this program: of the same build or the same installation. */
static int find_courier(const char *given, char path[PATH_MAX], struct cede_error *reterr) {
	static const char *const beside[] = {
		"cede-courier", "courier/cede-courier", "../libexec/cede/cede-courier"};
	char self[PATH_MAX];

	if (given != NULL) {
		(void)snprintf(path, PATH_MAX, "%s", given);
		return CEDE_OK;
	}
	ssize_t n = readlink("/proc/self/exe", self, sizeof self - 1);
	if (n < 0)
		return CEDE_FAIL_SYS(reterr, "read /proc/self/exe");
	self[n] = 0;
	char *slash = strrchr(self, '/');
	require(slash != NULL);
	slash[1] = 0;
	for (size_t i = 0; i < ARRAY_LENGTH(beside); i++) {
		if (snprintf(path, PATH_MAX, "%s%s", self, beside[i]) < PATH_MAX &&
			access(path, X_OK) == 0)
			return CEDE_OK;
	}
	(void)snprintf(path, PATH_MAX, "%s", CEDE_COURIER);
	if (access(path, X_OK) < 0)
		return CEDE_FAIL_SYS(reterr, "the courier %s", path);
	return CEDE_OK;
}

/* ---- stop */

static void on_flow_stopped(void *ctx) {
	struct keeper *k = ctx;

	k->flow = NULL;
	uv_handle_t *handles[] = {(uv_handle_t *)&k->on_term, (uv_handle_t *)&k->on_int,
		(uv_handle_t *)&k->on_hup, (uv_handle_t *)&k->drain, (uv_handle_t *)&k->meters,
		(uv_handle_t *)&k->swap, (uv_handle_t *)&k->settle, (uv_handle_t *)&k->policy_dir};
	for (size_t i = 0; i < ARRAY_LENGTH(handles); i++)
		uv_close(handles[i], NULL);
}

static void on_link_closed(void *ctx) {
	struct keeper *k = ctx;

	k->link = NULL;
	flow_stop(k->flow, on_flow_stopped, k);
}

static void stop_now(struct keeper *k) {
	if (k->link == NULL)
		return;
	(void)uv_timer_stop(&k->drain);
	(void)uv_timer_stop(&k->meters);
	flow_halt(k->flow);
	struct link *link = CEDE_TAKE(k->link);
	link_close(link, LINK_STOP_MS, on_link_closed, k);
}

static void on_drain_over(uv_timer_t *timer) {
	stop_now(timer->data);
}

static void on_drained(void *ctx) {
	struct keeper *k = ctx;

	(void)uv_timer_start(&k->drain, on_drain_over, 0, 0); /* not from within the flow */
}

static void begin_stop(struct keeper *k) {
	notify_stopping();
	(void)uv_timer_start(&k->drain, on_drain_over, DRAIN_MS, 0);
	flow_drain(k->flow, on_drained, k);
}

static void on_stop_signal(uv_signal_t *handle, int number) {
	struct keeper *k = handle->data;

	if (k->stopping)
		return;
	k->stopping = true;
	log_event(LOG_LEVEL_INFO, "agent.stopping", "signal=%d", number);
	if (k->reloading)
		k->stop_after = true;
	else
		begin_stop(k);
}

static void on_fatal(void *ctx, const char *text) {
	struct keeper *k = ctx;

	(void)snprintf(k->fatal, sizeof k->fatal, "%s", text);
	log_event(LOG_LEVEL_ERROR, "agent.fatal",
		"error=\"%s\" effect=\"nothing is handed over or wiped\"", text);
	if (k->reloading) { /* between two policies there is nothing to drain; the disk is sound */
		k->broken = true;
		uv_stop(&k->loop);
		return;
	}
	k->stopping = true;
	(void)uv_timer_start(&k->drain, on_drain_over, 0, 0);
}

/* ---- another policy */

static void on_policy_settled(uv_timer_t *timer);
static void on_link_end(uv_timer_t *timer);
static void on_retired(void *ctx);

/* Whether the file of this name, beside the policy, is part of it. */
static bool is_policy_file(const struct keeper *k, const char *name) {
	const char *slash = strrchr(k->options->policy, '/');
	const char *policy = slash == NULL ? k->options->policy : slash + 1;
	size_t n = strlen(policy);

	if (strncmp(name, policy, n) == 0 && (name[n] == 0 || strcmp(name + n, ".sig") == 0))
		return true;
	for (size_t i = 0; i < k->now->trusted->file_count; i++)
		if (strcmp(name, k->now->trusted->files[i].name) == 0)
			return true;
	return false;
}

static void reload_bad(struct keeper *k, const struct cede_error *err) {
	k->reload_failed = true;
	k->bad_reloads++;
	log_event(LOG_LEVEL_ERROR, "policy.refused",
		"error=\"%s\" effect=\"the policy with serial %llu stays in force\"", err->text,
		(unsigned long long)k->now->policy->serial);
}

static int start_link(struct keeper *k, struct cede_error *reterr) {
	struct link_destination destinations[POLICY_DESTINATIONS_MAX] = {0};
	struct link_events events;

	inforce_destinations(k->now, destinations);
	flow_link_events(k->flow, &events);
	CEDE_TRY(link_start(&k->loop, k->courier, k->config->courier_user, k->config->metrics,
		destinations, k->now->policy->destination_count, &events, &k->link, reterr));
	inforce_forget_key(k->now); /* the link has its copy */
	return CEDE_OK;
}

static void flow_of(struct keeper *k, const struct inforce *f, struct flow_setup *ret) {
	*ret = (struct flow_setup){.loop = &k->loop,
		.policy = f->policy,
		.host = f->host,
		.keys = f->keys,
		.is_signed = f->trusted->is_signed,
		.spool_fd = -1,
		.fatal = on_fatal,
		.ctx = k};
	memcpy(ret->signer, f->trusted->signer, sizeof ret->signer);
}

static void say_policy(const struct keeper *k) {
	if (!k->now->trusted->is_signed)
		log_event(LOG_LEVEL_WARNING, "policy.unsigned",
			"error=\"nobody vouches for this policy\" mend=\"have the agency sign it, and start without --unsigned\"");
	if (flow_policy_expired(k->flow))
		log_event(LOG_LEVEL_ERROR, "policy.expired",
			"effect=\"nothing is handed over or wiped\" mend=\"get a newer policy from the agency\"");
}

/* The old flow has ended and its link is closed if it may not go on: the new one takes over. */
static int take_over(struct keeper *k, struct cede_error *reterr) {
	struct flow *old = k->flow;
	struct inforce *before = k->now;
	struct flow_setup setup;

	flow_of(k, k->next, &setup);
	setup.ledger = flow_ledger(old);
	setup.spool_fd = flow_take_spool(old);
	setup.predecessor = old;
	setup.same_link = k->link != NULL;
	setup.link = k->link;
	k->next->keys_taken = true;
	CEDE_TRY(flow_start(&setup, &k->flow, reterr));
	k->now = CEDE_TAKE(k->next);
	if (k->link != NULL) {
		struct link_events events;
		flow_link_events(k->flow, &events);
		link_adopt(k->link, &events);
		inforce_forget_key(k->now);
	} else {
		CEDE_TRY(start_link(k, reterr));
	}
	flow_run(k->flow, k->link);
	flow_free_retired(old);
	inforce_free(before);
	raise_floor(k);
	return CEDE_OK;
}

static void reload_end(struct keeper *k) {
	k->reloading = false;
	if (k->stop_after)
		begin_stop(k);
	else if (k->reload_again)
		(void)uv_timer_start(&k->settle, on_policy_settled, RELOAD_MS, 0);
}

static void on_swap(uv_timer_t *timer) {
	struct keeper *k = timer->data;
	struct cede_error err = {0};

	if (!flow_is_retired(k->flow, on_retired, k))
		return;
	if (take_over(k, &err) < 0) {
		/* between two policies there is no third way: what is on the disk is sound */
		on_fatal(k, err.text);
		return;
	}
	k->reloads++;
	k->reload_failed = false;
	log_event(LOG_LEVEL_INFO, "policy.loaded", "policy=%s serial=%llu sources=%zu",
		k->now->policy->id, (unsigned long long)k->now->policy->serial,
		k->now->policy->source_count);
	say_policy(k);
	reload_end(k);
}

static void on_old_link_closed(void *ctx) {
	struct keeper *k = ctx;

	(void)uv_timer_start(&k->swap, on_swap, 0, 0);
}

static void on_retired(void *ctx) {
	struct keeper *k = ctx;

	if (k->link == NULL || inforce_same_link(k->now, k->next)) {
		(void)uv_timer_start(&k->swap, on_swap, 0, 0);
		return;
	}
	(void)uv_timer_start(&k->swap, on_link_end, 0, 0);
}

static void on_link_end(uv_timer_t *timer) {
	struct keeper *k = timer->data;

	if (!flow_is_retired(k->flow, on_retired, k))
		return;
	struct link *link = CEDE_TAKE(k->link);
	link_close(link, LINK_STOP_MS, on_old_link_closed, k);
}

/* Checked whole before anything changes: a bad policy leaves the old one in force. */
static void reload(struct keeper *k) {
	struct inforce_want want = want_of(k);
	CLEANUP(inforce_freep) struct inforce *next = NULL;
	struct cede_error err = {0};

	k->reload_again = false;
	if (inforce_load(&want, &next, &err) < 0) {
		reload_bad(k, &err);
		return;
	}
	if (strcmp(next->host, k->now->host) != 0) {
		cede_error_set(&err, CEDE_ERR_REFUSED,
			"the host's certificate is now another host's (%s): restart the agent for that",
			next->host);
		reload_bad(k, &err);
		return;
	}
	if (inforce_same(k->now, next)) {
		k->reload_failed = false;
		log_event(LOG_LEVEL_INFO, "policy.unchanged", "serial=%llu",
			(unsigned long long)next->policy->serial);
		return;
	}
	inforce_compare(next, k->now);
	k->next = CEDE_TAKE(next);
	k->reloading = true;
	flow_retire(k->flow, on_retired, k);
}

static void on_policy_settled(uv_timer_t *timer) {
	struct keeper *k = timer->data;

	if (k->stopping)
		return;
	if (k->reloading)
		k->reload_again = true;
	else
		reload(k);
}

static void on_reload_signal(uv_signal_t *handle, int number) {
	struct keeper *k = handle->data;

	(void)number;
	on_policy_settled(&k->settle);
}

/* Something changed beside the policy: the policy, its signature, a certificate. Publishers write
 * several files; a moment later they are all there. */
static void on_policy_dir(uv_fs_event_t *handle, const char *name, int events, int status) {
	struct keeper *k = handle->data;

	(void)events;
	(void)status;
	if (name != NULL && !is_policy_file(k, name))
		return;
	(void)uv_timer_start(&k->settle, on_policy_settled, RELOAD_MS, 0);
}

/* ---- start */

static void on_meters(uv_timer_t *timer) {
	struct keeper *k = timer->data;
	CLEANUP(buf_done) struct buf text = BUF_INIT(65536);
	struct flow_figures figures;

	flow_figures(k->flow, &figures);
	figures.is_signed = k->now->trusted->is_signed;
	figures.reloads = k->reloads;
	figures.bad_reloads = k->bad_reloads;
	figures.reload_failed = k->reload_failed;
	if (k->link != NULL && meters_text(&figures, k->now->policy, &text, NULL) == CEDE_OK)
		link_metrics(k->link, buf_slice(&text));
}

static void harden(void) {
	struct rlimit none = {0, 0};
	struct rlimit files;

	/* what the keeper reads must not end in a core file or under a debugger */
	(void)setrlimit(RLIMIT_CORE, &none);
	(void)prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
	(void)prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
	(void)signal(SIGPIPE, SIG_IGN);
	(void)signal(SIGHUP, SIG_IGN); /* until the loop takes it: it must not end the agent */
	(void)signal(SIGIO,
		SIG_IGN); /* a lease is being broken: we are done with it in a moment anyway */
	if (getrlimit(RLIMIT_NOFILE, &files) == 0 && files.rlim_cur < FILES_WANTED) {
		files.rlim_cur = files.rlim_max < FILES_WANTED ? files.rlim_max : FILES_WANTED;
		(void)setrlimit(RLIMIT_NOFILE, &files);
	}
	(void)umask(0077);
}

static int make_state(const char *path, struct cede_error *reterr) {
	struct stat st;

	if (mkdir(path, 0700) < 0 && errno != EEXIST)
		return CEDE_FAIL_SYS(reterr, "create the state directory %s", path);
	if (stat(path, &st) < 0)
		return CEDE_FAIL_SYS(reterr, "state directory %s", path);
	if (!S_ISDIR(st.st_mode) || (st.st_mode & 077) != 0 || st.st_uid != geteuid())
		return CEDE_FAIL(reterr, CEDE_ERR_REFUSED,
			"state directory %s: must be a directory of the agent's own user with mode 0700 (chmod 700 %s)",
			path, path);
	return CEDE_OK;
}

static int open_state(struct keeper *k, struct ledger **ret, struct cede_error *reterr) {
	CEDE_TRY(make_state(k->config->state, reterr));
	CEDE_TRY(ledger_open(k->config->state, ret, reterr));
	return floor_load(*ret, &k->floor, reterr);
}

static int start_flow(struct keeper *k, struct ledger *ledger, struct cede_error *reterr) {
	struct flow_setup setup;

	flow_of(k, k->now, &setup);
	k->now->keys_taken = true;
	CEDE_TRY(spool_open(k->config->state, &setup.spool_fd, reterr));
	CEDE_TRY(ledger_writer_start(&k->loop, ledger, &setup.ledger, reterr));
	return flow_start(&setup, &k->flow, reterr);
}

/* Without events there is the signal. */
static void watch_policy(struct keeper *k) {
	const char *slash = strrchr(k->options->policy, '/');
	CLEANUP(freep)
	char *directory = slash == NULL
		? strdup(".")
		: strndup(k->options->policy, (size_t)(slash - k->options->policy) + 1);

	if (directory == NULL || uv_fs_event_start(&k->policy_dir, on_policy_dir, directory, 0) < 0)
		log_event(LOG_LEVEL_WARNING, "policy.unwatched",
			"mend=\"send SIGHUP when the policy has changed\"");
}

static int start_handles(struct keeper *k, struct cede_error *reterr) {
	const struct {
		uv_signal_t *handle;
		int number;
		uv_signal_cb then;
	} signals[] = {{&k->on_term, SIGTERM, on_stop_signal}, {&k->on_int, SIGINT, on_stop_signal},
		{&k->on_hup, SIGHUP, on_reload_signal}};

	int r = uv_loop_init(&k->loop);
	for (size_t i = 0; r == 0 && i < ARRAY_LENGTH(signals); i++) {
		r = uv_signal_init(&k->loop, signals[i].handle);
		signals[i].handle->data = k;
		if (r == 0)
			r = uv_signal_start(signals[i].handle, signals[i].then, signals[i].number);
	}
	if (r < 0)
		return CEDE_FAIL(reterr, CEDE_ERR_IO, "event loop: %s", uv_strerror(r));
	(void)uv_timer_init(&k->loop, &k->drain);
	(void)uv_timer_init(&k->loop, &k->meters);
	(void)uv_timer_init(&k->loop, &k->swap);
	(void)uv_timer_init(&k->loop, &k->settle);
	(void)uv_fs_event_init(&k->loop, &k->policy_dir);
	k->drain.data = k->meters.data = k->swap.data = k->settle.data = k->policy_dir.data = k;
	return CEDE_OK;
}

/* The start list, in order. A failure ends the process: what was opened goes with it. */
static int start(struct keeper *k, struct cede_error *reterr) {
	struct inforce_want want;
	struct ledger *ledger = NULL;

	CEDE_TRY(load_config(k, reterr));
	CEDE_TRY(open_state(k, &ledger, reterr));
	want = want_of(k);
	int r = inforce_load(&want, &k->now, reterr);
	if (r < 0) {
		ledger_close(ledger);
		return r;
	}
	raise_floor(k);
	CEDE_TRY(find_courier(k->options->courier, k->courier, reterr));
	CEDE_TRY(start_handles(k, reterr));
	CEDE_TRY(start_flow(k, ledger, reterr));
	CEDE_TRY(start_link(k, reterr));
	flow_run(k->flow, k->link);
	watch_policy(k);
	if (k->config->metrics != NULL)
		(void)uv_timer_start(&k->meters, on_meters, 0, METERS_MS);
	return CEDE_OK;
}

static void keeper_done(struct keeper *k) {
	inforce_free(k->now);
	inforce_free(k->next);
	agent_config_free(k->config);
}

int keeper_run(const struct keeper_options *options, struct cede_error *reterr) {
	struct keeper k = {.options = options};

	harden();
	/* seals, checks, wipes and spools at once */
	if (setenv("UV_THREADPOOL_SIZE", "8", 1) < 0)
		return CEDE_FAIL_SYS(reterr, "set up the thread pool");
	int r = start(&k, reterr);
	if (r < 0) { /* the process ends: nothing was begun */
		keeper_done(&k);
		return r;
	}
	log_event(LOG_LEVEL_INFO, "agent.ready",
		"version=%s host=%s policy=%s serial=%llu sources=%zu", CEDE_VERSION, k.now->host,
		k.now->policy->id, (unsigned long long)k.now->policy->serial,
		k.now->policy->source_count);
	say_policy(&k);
	notify_ready();
	(void)uv_run(&k.loop, UV_RUN_DEFAULT);
	if (k.broken)
		return CEDE_FAIL(reterr, CEDE_ERR_IO, "%s", k.fatal);
	require(uv_loop_close(&k.loop) == 0);
	log_event(LOG_LEVEL_INFO, "agent.stopped", "clean=%s", k.fatal[0] == 0 ? "yes" : "no");
	r = k.fatal[0] == 0 ? CEDE_OK : CEDE_FAIL(reterr, CEDE_ERR_IO, "%s", k.fatal);
	keeper_done(&k);
	return r;
}
