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
#define FILES_WANTED 8192

struct keeper {
	struct agent_config *config;
	struct policy *policy;
	char *policy_dir;
	char host[HOST_ID_MAX + 1];
	uv_loop_t loop;
	uv_signal_t on_term;
	uv_signal_t on_int;
	uv_signal_t on_hup;
	uv_timer_t drain;
	uv_timer_t meters;
	struct flow *flow;
	struct link *link;
	struct buf ca[POLICY_DESTINATIONS_MAX];
	struct buf certificate_pem;
	struct buf key_pem;
	bool stopping;
	char fatal[400];
};

static void print_lines(char **lines) {
	for (size_t i = 0; lines != NULL && lines[i] != NULL; i++) {
		(void)fprintf(stderr, "%s\n", lines[i]);
		free(lines[i]);
	}
	free(lines);
}

static int load_files(struct keeper *k, const struct keeper_options *o, struct cede_error *reterr) {
	struct policy_mistakes mistakes = {0};
	char **lines = NULL;

	int r = agent_config_load(o->config, &k->config, &lines, reterr);
	print_lines(lines);
	CEDE_TRY(r);
	log_setup("cede", k->config->log_level);
	r = policy_load(o->policy, &k->policy, &mistakes, reterr);
	for (size_t i = 0; i < mistakes.count; i++)
		(void)fprintf(stderr, "%s\n", mistakes.lines[i]);
	policy_mistakes_done(&mistakes);
	CEDE_TRY(r);
	const char *slash = strrchr(o->policy, '/');
	k->policy_dir =
		slash == NULL ? strdup(".") : strndup(o->policy, (size_t)(slash - o->policy) + 1);
	return k->policy_dir != NULL ? CEDE_OK : CEDE_FAIL_MEMORY(reterr);
}

/* The host's identity: its id is the certificate's common name. */
static int load_identity(struct keeper *k, struct cede_error *reterr) {
	CLEANUP(cert_freep) X509 *cert = NULL;
	int64_t from, until;
	int64_t now = clock_wall_ns();

	CEDE_TRY(cert_load(AT_FDCWD, k->config->certificate, &cert, reterr));
	CEDE_TRY(cert_host_id(cert, k->host, sizeof k->host, reterr));
	CEDE_TRY(cert_validity(cert, &from, &until, reterr));
	if (now < from || now >= until)
		log_event(LOG_LEVEL_ERROR, "identity.invalid",
			"error=\"the host's certificate is not valid now\" mend=\"renew it, or set the clock\"");
	k->certificate_pem = BUF_INIT(KEY_FILE_MAX);
	k->key_pem = BUF_INIT(KEY_FILE_MAX);
	CEDE_TRY(file_load(AT_FDCWD, k->config->certificate, &k->certificate_pem, reterr));
	return key_load_private_pem(AT_FDCWD, k->config->key, &k->key_pem, reterr);
}

static int load_sealer(const struct policy_destination *d, int dirfd, struct sealer_keys **ret,
	struct cede_error *reterr) {
	X509 *certs[16] = {0};
	int r = CEDE_OK;

	if (d->seal_to_count > ARRAY_LENGTH(certs))
		return CEDE_FAIL(reterr, CEDE_ERR_INPUT,
			"destination %s: more than %zu seal_to keys", d->name, ARRAY_LENGTH(certs));
	for (size_t i = 0; r == CEDE_OK && i < d->seal_to_count; i++)
		r = cert_load(dirfd, d->seal_to[i], &certs[i], reterr);
	if (r == CEDE_OK)
		r = sealer_keys_new(certs, (const char *const *)d->seal_to, d->seal_to_count,
			clock_wall_ns(), ret, reterr);
	for (size_t i = 0; i < ARRAY_LENGTH(certs); i++)
		cert_freep(&certs[i]);
	return r;
}

static int load_receipt_keys(const struct policy_destination *d, int dirfd, struct note_keys **ret,
	struct cede_error *reterr) {
	struct note_keys *keys = NULL;
	int r = note_keys_new(NOTE_RECEIPT, &keys, reterr);

	for (size_t i = 0; r == CEDE_OK && i < d->receipt_count; i++) {
		CLEANUP(key_freep) EVP_PKEY *key = NULL;
		r = key_load_public(dirfd, d->receipts[i], &key, reterr);
		if (r == CEDE_OK)
			r = note_keys_add(keys, key, reterr);
	}
	if (r < 0) {
		note_keys_free(keys);
		return r;
	}
	*ret = keys;
	return CEDE_OK;
}

static int load_destination(struct keeper *k, size_t i, int dirfd,
	struct flow_destination_keys *ret_keys, struct link_destination *ret,
	struct cede_error *reterr) {
	const struct policy_destination *d = &k->policy->destinations[i];

	CEDE_TRY(load_sealer(d, dirfd, &ret_keys->seal, reterr));
	CEDE_TRY(load_receipt_keys(d, dirfd, &ret_keys->receipts, reterr));
	k->ca[i] = BUF_INIT(KEY_FILE_MAX * 4);
	CEDE_TRY(file_load(dirfd, d->ca, &k->ca[i], reterr));
	*ret = (struct link_destination){.name = d->name,
		.url = d->url,
		.ca_pem = buf_slice(&k->ca[i]),
		.pins = (const char *const *)d->pins,
		.pin_count = d->pin_count,
		.addresses = d->addresses,
		.address_count = d->address_count,
		.certificate_pem = buf_slice(&k->certificate_pem),
		.key_pem = buf_slice(&k->key_pem)};
	return CEDE_OK;
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
		(uv_handle_t *)&k->on_hup, (uv_handle_t *)&k->drain, (uv_handle_t *)&k->meters};
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

static void on_stop_signal(uv_signal_t *handle, int number) {
	struct keeper *k = handle->data;

	if (k->stopping)
		return;
	k->stopping = true;
	log_event(LOG_LEVEL_INFO, "agent.stopping", "signal=%d", number);
	notify_stopping();
	(void)uv_timer_start(&k->drain, on_drain_over, DRAIN_MS, 0);
	flow_drain(k->flow, on_drained, k);
}

static void on_reload_signal(uv_signal_t *handle, int number) {
	(void)handle;
	(void)number;
	log_event(LOG_LEVEL_WARNING, "policy.reload",
		"error=\"not supported yet\" mend=\"restart the agent to change the policy\"");
}

static void on_fatal(void *ctx, const char *text) {
	struct keeper *k = ctx;

	(void)snprintf(k->fatal, sizeof k->fatal, "%s", text);
	log_event(LOG_LEVEL_ERROR, "agent.fatal",
		"error=\"%s\" effect=\"nothing is handed over or wiped\"", text);
	k->stopping = true;
	(void)uv_timer_start(&k->drain, on_drain_over, 0, 0);
}

/* ---- start */

static void on_meters(uv_timer_t *timer) {
	struct keeper *k = timer->data;
	CLEANUP(buf_done) struct buf text = BUF_INIT(65536);
	struct flow_figures figures;

	flow_figures(k->flow, &figures);
	if (meters_text(&figures, k->policy, &text, NULL) == CEDE_OK)
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

static int start_flow(
	struct keeper *k, const struct flow_destination_keys *keys, struct cede_error *reterr) {
	struct ledger *ledger = NULL;
	struct flow_setup setup = {.loop = &k->loop,
		.policy = k->policy,
		.host = k->host,
		.keys = keys,
		.spool_fd = -1,
		.fatal = on_fatal,
		.ctx = k};

	CEDE_TRY(make_state(k->config->state, reterr));
	CEDE_TRY(ledger_open(k->config->state, &ledger, reterr));
	CEDE_TRY(spool_open(k->config->state, &setup.spool_fd, reterr));
	CEDE_TRY(ledger_writer_start(&k->loop, ledger, &setup.ledger, reterr));
	return flow_start(&setup, &k->flow, reterr);
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
	k->drain.data = k->meters.data = k;
	return CEDE_OK;
}

/* The start list, in order. A failure ends the process: what was opened goes with it. */
static int start(struct keeper *k, const struct keeper_options *o, struct cede_error *reterr) {
	struct flow_destination_keys keys[POLICY_DESTINATIONS_MAX] = {0};
	struct link_destination destinations[POLICY_DESTINATIONS_MAX] = {0};
	struct link_events events;
	char courier[PATH_MAX];
	CLEANUP(fd_closep) int dirfd = -1;

	CEDE_TRY(load_files(k, o, reterr));
	CEDE_TRY(load_identity(k, reterr));
	CEDE_TRY(file_open_dir(AT_FDCWD, k->policy_dir, &dirfd, reterr));
	for (size_t i = 0; i < k->policy->destination_count; i++)
		CEDE_TRY(load_destination(k, i, dirfd, &keys[i], &destinations[i], reterr));
	CEDE_TRY(find_courier(o->courier, courier, reterr));
	CEDE_TRY(start_handles(k, reterr));
	CEDE_TRY(start_flow(k, keys, reterr));
	flow_link_events(k->flow, &events);
	CEDE_TRY(link_start(&k->loop, courier, k->config->courier_user, k->config->metrics,
		destinations, k->policy->destination_count, &events, &k->link, reterr));
	buf_done(&k->key_pem); /* the link has its copy */
	flow_run(k->flow, k->link);
	if (k->config->metrics != NULL)
		(void)uv_timer_start(&k->meters, on_meters, 0, METERS_MS);
	return CEDE_OK;
}

static void keeper_done(struct keeper *k) {
	for (size_t i = 0; i < POLICY_DESTINATIONS_MAX; i++)
		buf_done(&k->ca[i]);
	buf_done(&k->certificate_pem);
	buf_done(&k->key_pem);
	policy_free(k->policy);
	agent_config_free(k->config);
	free(k->policy_dir);
}

int keeper_run(const struct keeper_options *options, struct cede_error *reterr) {
	struct keeper k = {0};

	harden();
	/* seals, checks, wipes and spools at once */
	if (setenv("UV_THREADPOOL_SIZE", "8", 1) < 0)
		return CEDE_FAIL_SYS(reterr, "set up the thread pool");
	int r = start(&k, options, reterr);
	if (r < 0)
		return r; /* the process ends: nothing was begun */
	log_event(LOG_LEVEL_INFO, "agent.ready",
		"version=%s host=%s policy=%s serial=%llu sources=%zu", CEDE_VERSION, k.host,
		k.policy->id, (unsigned long long)k.policy->serial, k.policy->source_count);
	log_event(LOG_LEVEL_WARNING, "policy.unsigned",
		"error=\"the policy's signature is not checked by this version\"");
	if (flow_policy_expired(k.flow))
		log_event(LOG_LEVEL_ERROR, "policy.expired",
			"effect=\"nothing is handed over or wiped\" mend=\"get a newer policy from the agency\"");
	notify_ready();
	(void)uv_run(&k.loop, UV_RUN_DEFAULT);
	require(uv_loop_close(&k.loop) == 0);
	log_event(LOG_LEVEL_INFO, "agent.stopped", "clean=%s", k.fatal[0] == 0 ? "yes" : "no");
	r = k.fatal[0] == 0 ? CEDE_OK : CEDE_FAIL(reterr, CEDE_ERR_IO, "%s", k.fatal);
	keeper_done(&k);
	return r;
}
