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
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include "base/check.h"
#include "base/cleanup.h"
#include "base/log.h"
#include "base/notify.h"
#include "certs/key.h"
#include "receiver/config.h"
#include "receiver/limits.h"
#include "receiver/open_cmd.h"
#include "receiver/server.h"
#include "version.h"

static const char usage[] = "usage: cede-receiver --config receiver.yaml\n"
			    "       cede-receiver open BUNDLE... --key KEY --cert CERT --into DIR\n"
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

static void harden(void) {
	struct rlimit none = {0, 0};

	(void)setrlimit(RLIMIT_CORE, &none);
	(void)prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
	(void)umask(0077);
}

static int serve(const struct receiver_config *config, struct cede_error *reterr) {
	CLEANUP(key_freep) EVP_PKEY *key = NULL;
	struct request_setup setup = {.bundle_max = config->bundle_max};
	struct server *server = NULL;
	sigset_t ending = block_signals();
	unsigned port;
	int number;

	harden();
	CEDE_TRY(front_uid(config, &setup.peers.front_uid, reterr));
	setup.peers.front = strncmp(config->listen, "unix:", 5) == 0;
	CEDE_TRY(key_load_private(AT_FDCWD, config->receipt_key, &key, reterr));
	CEDE_TRY(store_open(config->store, key, config->signer, &setup.store, reterr));
	CEDE_TRY(server_start(config, &setup, &server, &port, reterr));
	if (setup.peers.front)
		log_event(LOG_LEVEL_INFO, "receiver.listening", "address=%s", config->listen);
	else
		log_event(LOG_LEVEL_INFO, "receiver.listening", "address=%.*s:%u",
			(int)(strrchr(config->listen, ':') - config->listen), config->listen, port);
	notify_ready();
	while (sigwait(&ending, &number) != 0)
		continue;
	log_event(LOG_LEVEL_INFO, "receiver.stopping", "signal=%d", number);
	notify_stopping();
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
