/* SPDX-License-Identifier: Apache-2.0
 * cede-receiver: the agency's end. */
#include <fcntl.h>
#include <getopt.h>
#include <openssl/evp.h>
#include <pwd.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <time.h>

#include "base/check.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/notify.h"
#include "base/sandbox.h"
#include "certs/key.h"
#include "receiver/audit_cmd.h"
#include "receiver/config.h"
#include "receiver/limits.h"
#include "receiver/open_cmd.h"
#include "receiver/server.h"
#include "version.h"

static const char usage[] =
	"usage: cede-receiver --config receiver.yaml\n"
	"       cede-receiver open BUNDLE... --key KEY --cert CERT --into DIR\n"
	"       cede-receiver audit --store DIR --host HOST --ledger EXPORT [...]\n"
	"       cede-receiver report --store DIR [...]\n"
	"       cede-receiver --version\n";

static int front_uid(const struct receiver_config *config, uid_t *ret, struct cede_error *reterr) {
	const char *name = config->front_user == NULL ? "www-data" : config->front_user;
	const struct passwd *user = getpwnam(name); /* before any thread */

	*ret = user == NULL ? (uid_t)-1 : user->pw_uid;
	if (user == NULL && config->front_user != NULL)
		return CEDE_FAIL(reterr, CEDE_ERR_INPUT, "front_user: there is no user %s", name);
	return CEDE_OK;
}

/* The signals that end it are taken by sigwait; every thread started later has them blocked. */
static sigset_t block_signals(void) {
	sigset_t set;

	(void)signal(SIGPIPE, SIG_IGN);
	(void)sigemptyset(&set);
	(void)sigaddset(&set, SIGTERM);
	(void)sigaddset(&set, SIGINT);
	require(sigprocmask(SIG_BLOCK, &set, NULL) == 0);
	return set;
}

static void set_limits(void) {
	struct rlimit files;

	if (getrlimit(RLIMIT_NOFILE, &files) == 0 && files.rlim_cur < LIMIT_FILES) {
		files.rlim_cur = files.rlim_max < LIMIT_FILES ? files.rlim_max : LIMIT_FILES;
		(void)setrlimit(RLIMIT_NOFILE, &files);
	}
	(void)umask(0077);
}

#define BEATS 4 /* within the time that the manager's watchdog grants */

/* Until a signal says to end; its number. Signs of life meanwhile, while requests get on. */
static int wait_for_end(struct notify *notify, struct server *server, const sigset_t *ending) {
	const int64_t beat_ns = notify->watchdog_ns / BEATS;
	const struct timespec beat = {
		.tv_sec = beat_ns / NS_PER_SECOND, .tv_nsec = beat_ns % NS_PER_SECOND};

	for (;;) {
		bool fed = notify->watchdog_ns > 0 && server_gets_on(server, notify->watchdog_ns / 2);
		if (fed)
			notify_watchdog(notify);
		else if (notify->watchdog_ns > 0)
			log_event(LOG_LEVEL_ERROR, "receiver.stuck",
				"error=\"a step of a request does not end\" mend=\"look at the store's disk\"");
		int number = notify->watchdog_ns > 0 ? sigtimedwait(ending, NULL, &beat)
						     : sigwaitinfo(ending, NULL);
		if (number > 0)
			return number;
	}
}

static int serve(const struct receiver_config *config, struct cede_error *reterr) {
	CLEANUP(key_freep) EVP_PKEY *key = NULL;
	struct request_setup setup = {.bundle_max = config->bundle_max};
	struct sandbox_report sandbox = {0};
	struct server *server = NULL;
	sigset_t ending = block_signals();
	CLEANUP(notify_done) struct notify notify = {.fd = -1};
	unsigned port;

	CEDE_TRY(sandbox_begin(&sandbox, reterr));
	set_limits();
	notify_init(&notify);
	CEDE_TRY(front_uid(config, &setup.peers.front_uid, reterr));
	setup.peers.front = strncmp(config->listen, "unix:", 5) == 0;
	CEDE_TRY(key_load_private(AT_FDCWD, config->receipt_key, &key, reterr));
	CEDE_TRY(store_open(config->store, key, config->signer, &setup.store, reterr));
	CEDE_TRY(server_start(config, &setup, &sandbox, &server, &port, reterr));
	if (setup.peers.front)
		log_event(LOG_LEVEL_INFO, "receiver.listening", "address=%s", config->listen);
	else
		log_event(LOG_LEVEL_INFO, "receiver.listening", "address=%.*s:%u",
			(int)(strrchr(config->listen, ':') - config->listen), config->listen, port);
	notify_ready(&notify);
	int number = wait_for_end(&notify, server, &ending);
	log_event(LOG_LEVEL_INFO, "receiver.stopping", "signal=%d", number);
	notify_stopping(&notify);
	server_drain(server, LIMIT_STOP_MS);
	server_stop(server);
	store_close(setup.store);
	return CEDE_OK;
}

static int run(const char *path) {
	CLEANUP(receiver_config_freep) struct receiver_config *config = NULL;
	struct cede_error err = {0};
	char **lines = NULL;

	int r = receiver_config_load(path, &config, &lines, &err);
	for (size_t i = 0; lines != NULL && lines[i] != NULL; i++) {
		(void)fprintf(stderr, "%s\n", lines[i]);
		free(lines[i]);
	}
	free(lines);
	if (r == CEDE_OK)
		r = serve(config, &err);
	if (r == CEDE_OK)
		return 0;
	(void)fprintf(stderr, "cede-receiver: %s\n", err.text);
	return r == CEDE_ERR_INPUT || r == CEDE_ERR_REFUSED ? 2 : 3;
}

int main(int argc, char **argv) {
	static const struct option options[] = {{"config", required_argument, NULL, 'c'},
		{"version", no_argument, NULL, 'v'}, {"help", no_argument, NULL, 'h'}, {0}};
	const char *config = NULL;
	int c;

	log_setup("cede-receiver", LOG_LEVEL_INFO);
	if (argc >= 2 && strcmp(argv[1], "open") == 0)
		return open_cmd(argc - 1, argv + 1);
	if (argc >= 2 && strcmp(argv[1], "audit") == 0)
		return audit_cmd(argc - 1, argv + 1);
	if (argc >= 2 && strcmp(argv[1], "report") == 0)
		return report_cmd(argc - 1, argv + 1);
	while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
		if (c == 'c') {
			config = optarg;
		} else if (c == 'v') {
			(void)printf("cede-receiver %s\n", CEDE_VERSION);
			return 0;
		} else {
			(void)fputs(usage, c == 'h' ? stdout : stderr);
			return c == 'h' ? 0 : 2;
		}
	}
	if (config == NULL || optind != argc) {
		(void)fputs(usage, stderr);
		return 2;
	}
	return run(config);
}
