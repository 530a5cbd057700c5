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
#include <sys/resource.h>
#include <unistd.h>

#include "agent/config.h"
#include "agent/core/answer.h"
#include "agent/core/flow.h"
#include "agent/core/guarded.h"
#include "agent/core/inforce.h"
#include "agent/core/profile.h"
#include "agent/core/pulse.h"
#include "agent/core/standing.h"
#include "agent/ipc/message.h"
#include "agent/ipc/readiness.h"
#include "agent/own_places.h"
#include "agent/programs.h"
#include "agent/seal/spool.h"
#include "base/check.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/listen.h"
#include "base/log.h"
#include "base/notify.h"
#include "base/passed.h"
#include "base/sandbox.h"
#include "certs/key.h"
#include "certs/ossl.h"
#include "version.h"

#define DRAIN_MS     2500
#define LINK_STOP_MS 1000
#define METERS_MS    1000
#define READY_WAIT_NS \
	(10 * NS_PER_SECOND) /* a ledger that can't be written yet is no failed start */
#define RELOAD_MS    300
#define EMPTY_MS     500 /* how often it is asked whether anything is left */
#define FILES_WANTED 8192

struct keeper {
	const struct keeper_options *options;
	struct agent_config *config;
	struct inforce *now;  /* the policy in force */
	struct inforce *next; /* it takes over once the flow has retired */
	struct floor floor;
	struct notify notify; /* the service manager */
	struct passed passed; /* what it gave us */
	struct pulse pulse;
	char courier[PATH_MAX];
	char guard[PATH_MAX];
	struct spawner *spawner;
	struct guarded guarded;
	struct sandbox_report sandbox;
	struct profile *profile;
	uv_loop_t loop;
	uv_signal_t on_term;
	uv_signal_t on_int;
	uv_signal_t on_hup;
	uv_timer_t drain;
	uv_timer_t meters;
	uv_timer_t swap;   /* never from within the flow */
	uv_timer_t settle; /* files of the policy change one after the other */
	uv_timer_t emptying;
	int64_t empty_end_boot_ns;
	int64_t ready_boot_ns; /* the manager waits to hear that it works; at the latest then; 0: it heard */
	uv_fs_event_t policy_dir;
	uv_poll_t spawner_end;
	struct flow *flow;
	struct link *link;
	bool reloading;
	bool reload_again;
	bool stopping;
	bool stop_after; /* the reload that is under way */
	bool restart;    /* ends to be started again */
	bool broken;     /* ends without its clean end */
	struct standing *standing;
	struct answer answer;
	char fatal[512]; /* as long as an error's text */
};

/* ---- readiness: a manager that hears of it finds the flow at work */

static void say_ready(struct keeper *k) {
	if (k->ready_boot_ns == 0 || k->stopping || k->flow == NULL ||
		(!flow_has_recovered(k->flow) && clock_boot_ns() < k->ready_boot_ns))
		return;
	k->ready_boot_ns = 0;
	notify_ready(&k->notify);
}

static void on_recovered(void *ctx) {
	say_ready(ctx);
}

static void await_ready(struct keeper *k) {
	k->ready_boot_ns = clock_boot_ns() + READY_WAIT_NS;
	say_ready(k);
}

static int load_config(struct keeper *k, struct cede_error *reterr) {
	CEDE_TRY(agent_config_read(k->options->config, &k->config, reterr));
	log_setup("cede", k->config->log_level);
	return CEDE_OK;
}

static struct inforce_want want_of(const struct keeper *k) {
	return (struct inforce_want){.policy_path = k->options->policy,
		.config = k->config,
		.is_unsigned = k->options->is_unsigned,
		.starts = k->now == NULL,
		.floor = &k->floor};
}

/* No policy comes into force that makes captures of the agent's own files. */
static int load_policy(struct keeper *k, struct inforce **ret, struct cede_error *reterr) {
	struct inforce_want want = want_of(k);
	CLEANUP(inforce_freep) struct inforce *f = NULL;

	CEDE_TRY(inforce_load(&want, &f, reterr));
	CEDE_TRY(own_places_check_all(f->policy, k->options->policy, k->config, reterr));
	*ret = CEDE_TAKE(f);
	return CEDE_OK;
}

/* What stands above every policy that is loaded from now on. */
static void raise_floor(struct keeper *k) {
	if (!k->now->trusted->is_signed || k->now->policy->serial < k->floor.serial)
		return;
	k->floor.serial = k->now->policy->serial;
	memcpy(k->floor.sha256, k->now->policy->sha256, sizeof k->floor.sha256);
}

/* ---- stop */

static void on_guard_closed(void *ctx) {
	struct keeper *k = ctx;

	uv_handle_t *handles[] = {(uv_handle_t *)&k->on_term, (uv_handle_t *)&k->on_int,
		(uv_handle_t *)&k->on_hup, (uv_handle_t *)&k->drain, (uv_handle_t *)&k->meters,
		(uv_handle_t *)&k->swap, (uv_handle_t *)&k->settle, (uv_handle_t *)&k->emptying,
		(uv_handle_t *)&k->policy_dir, (uv_handle_t *)&k->spawner_end,
		(uv_handle_t *)&k->pulse.timer};
	for (size_t i = 0; i < ARRAY_LENGTH(handles); i++)
		uv_close(handles[i], NULL);
}

/* Nothing opens captures any more: nobody waits for the guard. */
static void on_flow_stopped(void *ctx) {
	struct keeper *k = ctx;

	k->flow = NULL;
	guarded_record(&k->guarded, NULL);
	guarded_close(&k->guarded, on_guard_closed, k);
}

static void on_link_closed(void *ctx) {
	struct keeper *k = ctx;

	k->link = NULL;
	answer_stop(&k->answer);
	guarded_leaving(&k->guarded);
	flow_stop(k->flow, on_flow_stopped, k);
}

static void stop_now(struct keeper *k) {
	if (k->link == NULL)
		return;
	(void)uv_timer_stop(&k->drain);
	(void)uv_timer_stop(&k->meters);
	pulse_stop(&k->pulse);
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
	notify_stopping(&k->notify);
	(void)uv_timer_start(&k->drain, on_drain_over, DRAIN_MS, 0);
	flow_drain(k->flow, on_drained, k);
}

static void stop(struct keeper *k) {
	k->stopping = true;
	if (!k->reloading) {
		begin_stop(k);
		return;
	}
	k->stop_after = true;
	flow_hurry(k->flow);
}

static void on_stop_signal(uv_signal_t *handle, int number) {
	struct keeper *k = handle->data;

	if (k->stopping)
		return;
	log_event(LOG_LEVEL_INFO, "agent.stopping", "signal=%d", number);
	stop(k);
}

/* ---- until nothing is left */

static void on_rest(void *ctx, bool at_rest, const char *left) {
	struct keeper *k = ctx;
	struct keeper_emptying *e = k->options->emptying;

	if (k->stopping)
		return;
	(void)snprintf(e->left, sizeof e->left, "%s", left);
	if (!at_rest && clock_boot_ns() < k->empty_end_boot_ns)
		return;
	log_event(LOG_LEVEL_INFO, "agent.stopping", "reason=%s",
		!at_rest               ? "limit"
			: left[0] != 0 ? "left"
				       : "empty");
	stop(k);
}

static void on_emptying(uv_timer_t *timer) {
	struct keeper *k = timer->data;

	if (!k->stopping && !k->reloading)
		flow_ask_rest(k->flow, on_rest, k);
}

static void on_fatal(void *ctx, const char *text) {
	struct keeper *k = ctx;

	(void)snprintf(k->fatal, sizeof k->fatal, "%s", text);
	log_event(LOG_LEVEL_ERROR, "agent.fatal",
		"error=\"%s\" effect=\"nothing is handed over or wiped\"", text);
	pulse_stop(&k->pulse);
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
	k->standing->reload_failed = true;
	k->standing->bad_reloads++;
	log_event(LOG_LEVEL_ERROR, "policy.refused",
		"error=\"%s\" effect=\"the policy with serial %llu stays in force\"", err->text,
		(unsigned long long)k->now->policy->serial);
}

static int start_link(struct keeper *k, struct cede_error *reterr) {
	struct link_destination destinations[POLICY_DESTINATIONS_MAX] = {0};
	struct link_events events;

	inforce_destinations(k->now, destinations);
	flow_link_events(k->flow, &events);
	CEDE_TRY(link_start(&k->loop, k->spawner, k->now->policy->sandbox_require, destinations,
		k->now->policy->destination_count, &events, &k->link, reterr));
	inforce_forget_key(k->now); /* the link has its copy */
	return CEDE_OK;
}

static bool on_denied(void *ctx, size_t source);

static void flow_of(struct keeper *k, const struct inforce *f, struct flow_setup *ret) {
	*ret = (struct flow_setup){.loop = &k->loop,
		.policy = f->policy,
		.host = f->host,
		.keys = f->keys,
		.is_signed = f->trusted->is_signed,
		.spool_fd = -1,
		.spool_limit = k->config->spool_limit,
		.state = k->config->state,
		.vault_key = k->config->vault_key,
		.fatal = on_fatal,
		.denied = on_denied,
		.recovered = on_recovered,
		.ctx = k};
	memcpy(ret->signer, f->trusted->signer, sizeof ret->signer);
	memcpy(ret->identity, f->identity, sizeof ret->identity);
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
	guarded_record(&k->guarded, k->flow);
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
	await_ready(k);
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
	k->standing->reloads++;
	k->standing->reload_failed = false;
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

/* What was given up can't be had back by this process. Who is started by a service manager ends in
 * good order and is started again; else a person has to. */
static bool end_for_restart(struct keeper *k, const struct cede_error *err) {
	if (k->notify.fd < 0)
		return false;
	log_event(LOG_LEVEL_WARNING, "agent.restart",
		"reason=\"%s\" effect=\"ends now; the service manager starts it again\"", err->text);
	k->restart = true;
	k->stopping = true;
	stop(k);
	return true;
}

static bool on_denied(void *ctx, size_t source) {
	struct keeper *k = ctx;
	struct cede_error err = {0};

	if (k->stopping ||
		profile_reaches(k->profile, &k->sandbox, &k->now->policy->sources[source], &err) ==
			CEDE_OK)
		return false;
	if (!end_for_restart(k, &err))
		log_event(LOG_LEVEL_ERROR, "sandbox.beyond",
			"error=\"%s\" effect=\"nothing is wiped there until then\"", err.text);
	return true;
}

/* Checked whole before anything changes: a bad policy leaves the old one in force. */
static void reload(struct keeper *k) {
	CLEANUP(inforce_freep) struct inforce *next = NULL;
	struct cede_error err = {0};

	k->reload_again = false;
	k->standing->reload_ns = clock_wall_ns();
	if (load_policy(k, &next, &err) < 0) {
		reload_bad(k, &err);
		return;
	}
	if (profile_allows(k->profile, &k->sandbox, next->policy, &err) < 0) {
		if (!end_for_restart(k, &err))
			reload_bad(k, &err);
		return;
	}
	if (profile_satisfies(&k->sandbox, next->policy, &err) < 0) {
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
		k->standing->reload_failed = false;
		log_event(LOG_LEVEL_INFO, "policy.unchanged", "serial=%llu",
			(unsigned long long)next->policy->serial);
		return;
	}
	if (guarded_apply(&k->guarded, next->policy, &err) < 0) {
		reload_bad(k, &err);
		return;
	}
	inforce_compare(next, k->now);
	k->next = CEDE_TAKE(next);
	k->reloading = true;
	flow_retire(k->flow, k->next->policy, k->next->keys, on_retired, k);
}

static void on_policy_settled(uv_timer_t *timer) {
	struct keeper *k = timer->data;

	if (k->stopping)
		return;
	if (k->reloading) {
		k->reload_again = true;
		return;
	}
	notify_reloading(&k->notify);
	reload(k);
	if (!k->reloading) /* the policy in force stays */
		await_ready(k);
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

/* An expired certificate is refused by every server in words of its own: said here in ours. */
static void watch_identity(struct keeper *k) {
	int64_t now = clock_wall_ns();
	bool invalid = now < k->now->identity_from_ns || now >= k->now->identity_until_ns;

	if (invalid && !k->standing->identity_invalid)
		log_event(LOG_LEVEL_ERROR, "identity.invalid",
			"error=\"the host's certificate is not valid now\" effect=\"no server takes anything\" mend=\"renew it and send SIGHUP, or set the clock\"");
	else if (!invalid && k->standing->identity_invalid)
		log_event(LOG_LEVEL_INFO, "identity.valid", "host=%s", k->now->host);
	k->standing->identity_invalid = invalid;
}

/* The one line of `systemctl status`. */
static void say_status(struct keeper *k) {
	const struct figures *f = &k->standing->figures;
	char text[sizeof k->notify.status];
	uint64_t bundles = 0;

	for (size_t i = 0; i < k->now->policy->destination_count; i++)
		bundles += f->destinations[i].open;
	(void)snprintf(text, sizeof text,
		"%s; policy %s, serial %llu%s; %llu sealed bundles wait for a receipt; link %s",
		f->flow.expired ? "STANDS STILL: the policy has expired" : "handing over",
		k->now->policy->id, (unsigned long long)k->now->policy->serial,
		k->standing->reload_failed ? " (a newer one was refused)" : "",
		(unsigned long long)bundles,
		(k->standing->meters.unmet & CONDITION_BIT(CONDITION_LINK)) == 0 ? "up" : "down");
	notify_status(&k->notify, text);
}

static bool take_standing(void *ctx) {
	struct keeper *k = ctx;

	if (k->link == NULL || k->flow == NULL)
		return false; /* in a moment there is one again, or the agent stops */
	standing_take(k->standing, k->flow, k->now, k->link);
	guarded_figures(&k->guarded, &k->standing->figures.flow);
	return true;
}

static void on_meters(uv_timer_t *timer) {
	struct keeper *k = timer->data;
	CLEANUP(buf_done) struct buf text = BUF_INIT(IPC_METRICS_MAX);
	struct cede_error err = {0};

	log_flush();
	say_ready(k);
	watch_identity(k);
	if (!take_standing(k))
		return;
	say_status(k);
	if (k->config->metrics == NULL)
		return;
	if (meters_text(&k->standing->meters, &text, &err) < 0) {
		log_event(LOG_LEVEL_ERROR, "metrics.untold", "error=\"%s\"", err.text);
		buf_clear(&text); /* half a page would be taken for a whole one */
	}
	link_metrics(k->link, buf_slice(&text), k->standing->meters.unmet);
}

static void set_limits(void) {
	struct rlimit files;

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
	if (!S_ISDIR(st.st_mode))
		return CEDE_FAIL(
			reterr, CEDE_ERR_REFUSED, "state directory %s: is no directory", path);
	if (st.st_uid != geteuid())
		return CEDE_FAIL(reterr, CEDE_ERR_REFUSED,
			"state directory %s: belongs to user %u, and cede run is user %u: run it as the user that it belongs to",
			path, (unsigned)st.st_uid, (unsigned)geteuid());
	if ((st.st_mode & 077) != 0)
		return CEDE_FAIL(reterr, CEDE_ERR_REFUSED,
			"state directory %s: must be for the agent's own user alone (chmod 700 %s)",
			path, path);
	return CEDE_OK;
}

/* The first policy was read before the ledger. */
static int above_floor(const struct keeper *k, struct cede_error *reterr) {
	return k->now->trusted->is_signed ? floor_check(k->now->policy, &k->floor, reterr) : CEDE_OK;
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

/* Without it no courier is started any more: a new start of all is what helps. */
static void on_spawner_end(uv_poll_t *poll, int status, int events) {
	struct keeper *k = poll->data;

	(void)status;
	(void)events;
	(void)uv_poll_stop(poll);
	on_fatal(k, "the spawner has ended: start the agent again");
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
	r = uv_poll_init(&k->loop, &k->spawner_end, spawner_fd(k->spawner));
	if (r < 0)
		return CEDE_FAIL(reterr, CEDE_ERR_IO, "event loop: %s", uv_strerror(r));
	k->spawner_end.data = k;
	(void)uv_poll_start(&k->spawner_end, UV_READABLE, on_spawner_end);
	(void)uv_timer_init(&k->loop, &k->drain);
	(void)uv_timer_init(&k->loop, &k->meters);
	(void)uv_timer_init(&k->loop, &k->swap);
	(void)uv_timer_init(&k->loop, &k->settle);
	(void)uv_timer_init(&k->loop, &k->emptying);
	(void)uv_fs_event_init(&k->loop, &k->policy_dir);
	k->drain.data = k->meters.data = k->swap.data = k->settle.data = k->emptying.data =
		k->policy_dir.data = k;
	return CEDE_OK;
}

/* The last moment at which there is one thread. */
static int enter_sandbox(struct keeper *k, struct cede_error *reterr) {
	CEDE_TRY(profile_new(k->now->policy, k->config, k->options->policy, &k->profile, reterr));
	CEDE_TRY(profile_enter(k->profile, &k->sandbox, reterr));
	sandbox_say("keeper", &k->sandbox);
	return profile_satisfies(&k->sandbox, k->now->policy, reterr);
}

/* The start list, in order. A failure ends the process: what was opened goes with it. */
static int start(struct keeper *k, struct cede_error *reterr) {
	struct ledger *ledger = NULL;
	CLEANUP(fd_closep) int metrics = -1; /* a socket that was passed; the spawner keeps it */

	CEDE_TRY(load_config(k, reterr));
	if (k->config->metrics != NULL && strcmp(k->config->metrics, "systemd") == 0)
		CEDE_TRY(listen_take(passed_take(&k->passed, "metrics"), &metrics, reterr));
	CEDE_TRY(program_find(
		k->options->courier, "courier/", "cede-courier", CEDE_COURIER, k->courier, reterr));
	CEDE_TRY(program_find(NULL, "guard/", "cede-guard", CEDE_GUARD, k->guard, reterr));
	/* before a key, a policy or the ledger is read: it is to have nothing of them */
	const struct spawner_setup spawned = {.courier = k->courier,
		.guard = k->guard,
		.user = k->config->courier_user,
		.metrics = k->config->metrics,
		.metrics_fd = metrics,
		.log_level = k->config->log_level};
	CEDE_TRY(spawner_start(&spawned, &k->spawner, reterr));
	CEDE_TRY(load_policy(k, &k->now, reterr)); /* before anything is made that it could be about */
	CEDE_TRY(open_state(k, &ledger, reterr));
	CEDE_TRY(standing_new(k->config->state, &k->sandbox, &k->standing, reterr));
	CEDE_TRY(answer_open(&k->answer, k->standing->state_fd, reterr));
	int r = above_floor(k, reterr);
	if (r == CEDE_OK)
		r = ledger_sign_as(ledger, k->config->state, k->now->host, clock_wall_ns(), reterr);
	if (r < 0) {
		ledger_close(ledger);
		return r;
	}
	raise_floor(k);
	CEDE_TRY(start_handles(k, reterr));
	CEDE_TRY(guarded_init(&k->guarded, &k->loop, k->spawner, &k->notify, &k->passed,
		k->config->state, reterr));
	CEDE_TRY(guarded_apply(&k->guarded, k->now->policy, reterr));
	CEDE_TRY(enter_sandbox(k, reterr));
	CEDE_TRY(start_flow(k, ledger, reterr));
	guarded_record(&k->guarded, k->flow);
	CEDE_TRY(start_link(k, reterr));
	flow_run(k->flow, k->link);
	pulse_start(&k->pulse, &k->loop, &k->notify, flow_ledger(k->flow));
	watch_policy(k);
	answer_start(&k->answer, &k->loop, k->standing, take_standing, k);
	(void)uv_timer_start(&k->meters, on_meters, 0, METERS_MS);
	if (k->options->emptying != NULL) {
		(void)snprintf(k->options->emptying->left, sizeof k->options->emptying->left,
			"what was not looked at yet");
		k->empty_end_boot_ns = clock_boot_ns() + k->options->emptying->limit_ns;
		(void)uv_timer_start(&k->emptying, on_emptying, EMPTY_MS, EMPTY_MS);
	}
	return CEDE_OK;
}

/* The loop does not run, or not again: what its threads still use stays until they have ended. */
static void end_threads(struct keeper *k) {
	if (k->flow != NULL)
		ledger_writer_end(flow_ledger(k->flow));
}

static void keeper_done(struct keeper *k) {
	spawner_stop(k->spawner);
	profile_free(k->profile);
	inforce_free(k->now);
	inforce_free(k->next);
	agent_config_free(k->config);
	answer_stop(&k->answer);
	standing_free(k->standing);
	passed_done(&k->passed);
	notify_done(&k->notify);
}

int keeper_run(const struct keeper_options *options, struct cede_error *reterr) {
	struct keeper k = {.options = options, .answer = {.fd = -1}};

	CEDE_TRY(sandbox_begin(&k.sandbox, reterr));
	set_limits();
	passed_init(&k.passed);
	notify_init(&k.notify);
	/* seals, checks, wipes and spools at once */
	if (setenv("UV_THREADPOOL_SIZE", "8", 1) < 0)
		return CEDE_FAIL_SYS(reterr, "set up the thread pool");
	int r = ossl_start(reterr);
	if (r == CEDE_OK)
		r = start(&k, reterr);
	if (r < 0) { /* the process ends: nothing was begun */
		end_threads(&k);
		guarded_abandon(&k.guarded);
		keeper_done(&k);
		return r;
	}
	log_event(LOG_LEVEL_INFO, "agent.ready",
		"version=%s host=%s policy=%s serial=%llu sources=%zu", CEDE_VERSION, k.now->host,
		k.now->policy->id, (unsigned long long)k.now->policy->serial,
		k.now->policy->source_count);
	say_policy(&k);
	await_ready(&k);
	(void)uv_run(&k.loop, UV_RUN_DEFAULT);
	if (k.broken) {
		end_threads(&k);
		return CEDE_FAIL(reterr, CEDE_ERR_IO, "%s", k.fatal);
	}
	require(uv_loop_close(&k.loop) == 0);
	log_event(LOG_LEVEL_INFO, "agent.stopped", "clean=%s", k.fatal[0] == 0 ? "yes" : "no");
	r = k.fatal[0] != 0 ? CEDE_FAIL(reterr, CEDE_ERR_IO, "%s", k.fatal)
		: k.restart
		? CEDE_FAIL(reterr, CEDE_ERR_BUSY, "ended to be started again, for another policy")
		: CEDE_OK;
	keeper_done(&k);
	return r;
}
