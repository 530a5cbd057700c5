/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/purge/purge.h"

#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "agent/core/floor.h"
#include "agent/purge/internal.h"
#include "base/check.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/file.h"
#include "certs/key.h"
#include "certs/ossl.h"

static void close_sources(struct purge *p) {
	for (size_t i = 0; p->source_fds != NULL && i < p->policy->source_count; i++)
		fd_closep(&p->source_fds[i]);
	free(CEDE_TAKE(p->source_fds));
}

static void purge_done(struct purge *p) {
	ledger_close(p->ledger);
	outputs_done(p);
	close_sources(p);
	free(p->names);
	tally_done(&p->tally);
	sealer_keys_free(p->copy_to);
	key_freep(&p->key);
	trusted_policy_free(p->trusted);
	agent_config_free(p->config);
}

/* ---- before anything is touched */

static int load_policy(struct purge *p, struct cede_error *reterr) {
	CLEANUP(policy_mistakes_done) struct policy_mistakes mistakes = {NULL, 0};
	struct note_keys *signers = NULL;

	if (!p->options->is_unsigned)
		CEDE_TRY(trust_signers(p->config->policy_signers, p->config->policy_signer_count,
			&signers, reterr));
	int r = trusted_policy_load(p->options->policy, signers, &p->trusted, &mistakes, reterr);
	note_keys_free(signers);
	for (size_t i = 0; i < mistakes.count; i++)
		(void)fprintf(stderr, "%s\n", mistakes.lines[i]);
	CEDE_TRY(r);
	p->policy = p->trusted->policy;
	if (clock_wall_ns() >= p->policy->expires_ns)
		return CEDE_FAIL(reterr, CEDE_ERR_REFUSED,
			"the policy has expired: nothing is handed over or wiped; get a newer one from the agency");
	return CEDE_OK;
}

/* The certificate is signed with the host's key, which the agency knows from each push. */
static int load_key(struct purge *p, struct cede_error *reterr) {
	CLEANUP(cert_freep) X509 *cert = NULL;
	CLEANUP(buf_done) struct buf scratch = BUF_INIT(NOTE_MAX);

	CEDE_TRY(cert_load(AT_FDCWD, p->config->certificate, &cert, reterr));
	CEDE_TRY(cert_host_id(cert, p->host, sizeof p->host, reterr));
	CEDE_TRY(key_load_private(AT_FDCWD, p->config->key, &p->key, reterr));
	/* that it can sign is tried now, not when all is gone */
	int r = note_sign(NOTE_WIPE_CERTIFICATE, SLICE_LIT("cede-wipe-certificate/1\nhost: try\n"),
		p->host, p->key, &scratch, reterr);
	if (r < 0)
		cede_error_within(reterr, "the host's key can't sign a certificate");
	return r;
}

static int load_copy_keys(struct purge *p, struct cede_error *reterr) {
	const struct policy *policy = p->policy;
	const struct policy_destination *d = NULL;
	X509 *certs[16] = {0};
	int r = CEDE_OK;

	if (p->options->ledger_copy == NULL)
		return CEDE_OK;
	for (size_t i = 0; i < policy->destination_count; i++)
		if (p->options->ledger_to == NULL
				? policy->destination_count == 1
				: strcmp(policy->destinations[i].name, p->options->ledger_to) == 0)
			d = &policy->destinations[i];
	if (d == NULL)
		return CEDE_FAIL(reterr, CEDE_ERR_INPUT,
			"--ledger-to: name one of the policy's destinations: the ledger is sealed to its keys");
	for (size_t i = 0; r == CEDE_OK && i < d->seal_to_count && i < ARRAY_LENGTH(certs); i++)
		r = cert_parse(trusted_policy_file(p->trusted, d->seal_to[i]), d->seal_to[i],
			&certs[i], reterr);
	if (r == CEDE_OK)
		r = sealer_keys_new(certs, (const char *const *)d->seal_to, d->seal_to_count,
			clock_wall_ns(), false, &p->copy_to, reterr);
	for (size_t i = 0; i < ARRAY_LENGTH(certs); i++)
		cert_freep(&certs[i]);
	return r;
}

/* Without one of them nobody could say what is in it. */
static int open_sources(struct purge *p, struct cede_error *reterr) {
	const struct policy *policy = p->policy;

	p->source_fds = calloc(policy->source_count, sizeof *p->source_fds);
	if (p->source_fds == NULL)
		return CEDE_FAIL_MEMORY(reterr);
	for (size_t i = 0; i < policy->source_count; i++)
		p->source_fds[i] = -1;
	for (size_t i = 0; i < policy->source_count; i++) {
		const struct policy_source *s = &policy->sources[i];
		if (file_open_dir(AT_FDCWD, s->path, &p->source_fds[i], reterr) == CEDE_OK)
			continue;
		cede_error_within(reterr,
			"source %s is not there, so that nobody can say what is in it: mount it; if it is gone for good, get a policy without it from the agency",
			s->name);
		return CEDE_ERR_REFUSED;
	}
	return CEDE_OK;
}

static int prepare(struct purge *p, struct cede_error *reterr) {
	CEDE_TRY(agent_config_read(p->options->config, &p->config, reterr));
	CEDE_TRY(load_policy(p, reterr));
	CEDE_TRY(load_key(p, reterr));
	CEDE_TRY(load_copy_keys(p, reterr));
	p->names = calloc(p->policy->source_count, sizeof *p->names);
	if (p->names == NULL)
		return CEDE_FAIL_MEMORY(reterr);
	CEDE_TRY(open_sources(p, reterr));
	close_sources(p); /* the hand-over may make others of them, where there is a vault */
	CEDE_TRY(outputs_reserve(p, reterr));
	outputs_done(p); /* they could be made; the hand-over may take an hour */
	return CEDE_OK;
}

/* ---- the hand-over: the agent itself, until nothing is left */

static int hand_over(const struct purge_options *o, struct cede_error *reterr) {
	char limit[32];
	const char *words[12] = {"cede", "run", "--policy", o->policy, "--config", o->config,
		"--until-empty", limit};
	size_t n = 8;
	char *argv[12];
	pid_t pid;
	int status;

	(void)snprintf(limit, sizeof limit, "%llds", (long long)(o->limit_ns / NS_PER_SECOND));
	if (o->is_unsigned)
		words[n++] = "--unsigned";
	if (o->courier != NULL) {
		words[n++] = "--courier";
		words[n++] = o->courier;
	}
	memcpy(argv, words, sizeof argv);
	int sys = posix_spawn(&pid, "/proc/self/exe", NULL, NULL, argv, environ);
	if (sys != 0) {
		cede_error_set_sys(reterr, sys, "start the hand-over");
		return CEDE_ERR_IO;
	}
	while (waitpid(pid, &status, 0) < 0)
		if (errno != EINTR)
			return CEDE_FAIL_SYS(reterr, "wait for the hand-over");
	if (WIFEXITED(status) && WEXITSTATUS(status) <= 1)
		return CEDE_OK; /* 1: something is left */
	return CEDE_FAIL(reterr, WIFEXITED(status) ? CEDE_ERR_REFUSED : CEDE_ERR_IO,
		"the hand-over ended with status %d (what it said stands above); nothing was wiped without a receipt",
		WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status));
}

/* ---- the ledger */

static int open_ledger(struct purge *p, struct cede_error *reterr) {
	struct ledger_policy last;
	bool there;

	CEDE_TRY(ledger_open(p->config->state, &p->ledger, reterr));
	CEDE_TRY(ledger_policy_last(p->ledger, &last, &there, reterr));
	if (!there || memcmp(last.sha256, p->policy->sha256, 32) != 0)
		return CEDE_FAIL(reterr, CEDE_ERR_REFUSED,
			"another policy came into force meanwhile: run it again");
	CEDE_TRY(ledger_begin(p->ledger, reterr));
	CEDE_TRY(ledger_recover(p->ledger, reterr));
	CEDE_TRY(ledger_commit(p->ledger, reterr));
	CEDE_TRY(ledger_count_receipted(p->ledger, &p->handed_over, reterr));
	return purge_count_left(p, reterr);
}

static int say(
	struct purge *p, enum ledger_event kind, const char *detail, struct cede_error *reterr) {
	CEDE_TRY(ledger_begin(p->ledger, reterr));
	CEDE_TRY(ledger_event(p->ledger, kind, NULL, clock_wall_ns(), detail, reterr));
	CEDE_TRY(ledger_commit(p->ledger, reterr));
	ledger_head(p->ledger, &p->ledger_sequence, p->ledger_hash);
	return CEDE_OK;
}

static bool may_go_on(const struct purge *p) {
	const struct purge_options *o = p->options;

	return (o->destroy_unsent || p->left.unsent + p->left.refused + p->left.bundles == 0) &&
		(o->destroy_held || p->left.held == 0);
}

/* From here on all that is here goes. */
static int wipe_all(struct purge *p, struct cede_error *reterr) {
	char detail[160];

	CEDE_TRY(tally_open(p->outputs[OUTPUT_DETAILS].fd, &p->tally, reterr));
	(void)snprintf(detail, sizeof detail, "unsent=%llu held=%llu bundles=%llu",
		(unsigned long long)(p->left.unsent + p->left.refused),
		(unsigned long long)p->left.held, (unsigned long long)p->left.bundles);
	CEDE_TRY(say(p, LEDGER_PURGE_BEGUN, detail, reterr));
	CEDE_TRY(purge_bundles(p, reterr));
	CEDE_TRY(purge_sources(p, reterr));
	CEDE_TRY(purge_stores(p, reterr));
	CEDE_TRY(purge_missing(p, reterr));
	CEDE_TRY(purge_vault_keys(p, reterr));
	(void)snprintf(detail, sizeof detail, "remains=%llu", (unsigned long long)p->tally.remains);
	CEDE_TRY(say(p, LEDGER_PURGE_DONE, detail, reterr));
	ledger_close(CEDE_TAKE(p->ledger));
	if (p->options->ledger_copy != NULL)
		CEDE_TRY(purge_copy_ledger(p, reterr));
	CEDE_TRY(output_publish(&p->outputs[OUTPUT_LEDGER], reterr));
	CEDE_TRY(tally_flush(&p->tally, reterr));
	CEDE_TRY(output_make_room(&p->outputs[OUTPUT_DETAILS], reterr));
	CEDE_TRY(output_publish(&p->outputs[OUTPUT_DETAILS], reterr));
	p->no_way_back = true;
	CEDE_TRY(purge_state(p, reterr));
	CEDE_TRY(purge_key(p, reterr));
	purge_names(p);
	CEDE_TRY(tally_close(&p->tally, p->details_sha256, reterr));
	p->ended_ns = clock_wall_ns();
	return purge_certify(p, reterr);
}

/* What the certificate says that is amiss. */
static void tell_findings(const struct purge *p, struct purge_left *ret) {
	const struct tally *t = &p->tally;
	size_t n = 0;

	*ret = (struct purge_left){.unsent = tally_gone(t, TALLY_UNSENT),
		.held = tally_gone(t, TALLY_HELD),
		.bundles = tally_gone(t, TALLY_BUNDLE),
		.earlier_runs = p->earlier_count};
	for (size_t i = 0; i < t->row_count && n < sizeof ret->remains; i++) {
		const struct tally_row *r = &t->rows[i];
		if (strcmp(r->level, "remains") == 0)
			n += (size_t)snprintf(ret->remains + n, sizeof ret->remains - n,
				"%s%s %s %llu", n == 0 ? "" : ", ", tally_what_name(r->what),
				r->reason, (unsigned long long)r->count);
	}
}

int purge_run(const struct purge_options *options, enum purge_end *ret_end,
	struct purge_left *ret_left, struct cede_error *reterr) {
	CLEANUP(purge_done) struct purge p = {.options = options, .begun_ns = clock_wall_ns()};

	(void)signal(SIGIO, SIG_IGN); /* see agent/wipe/wipe.h */
	(void)umask(0077);
	CEDE_TRY(ossl_start(reterr));
	CEDE_TRY(prepare(&p, reterr));
	CEDE_TRY(hand_over(options, reterr));
	CEDE_TRY(open_ledger(&p, reterr));
	CEDE_TRY(open_sources(&p, reterr));
	CEDE_TRY(purge_count_refused(&p, reterr));
	*ret_left = p.left;
	if (!may_go_on(&p)) {
		*ret_end = PURGE_STOPPED;
		return CEDE_OK;
	}
	CEDE_TRY(purge_find_earlier(&p, reterr));
	CEDE_TRY(outputs_reserve(&p, reterr));
	if (wipe_all(&p, reterr) < 0) {
		cede_error_within(reterr, "%s",
			p.no_way_back ? "it can't be run again, the ledger is wiped"
				      : "cut off in the midst, mend it and run it again");
		return CEDE_ERR_IO; /* whatever it was: much is wiped */
	}
	tell_findings(&p, ret_left);
	bool clean = p.left.unsent + p.left.held + p.left.bundles + p.tally.remains +
			p.earlier_count + ret_left->unsent ==
		0;
	*ret_end = clean ? PURGE_CLEAN : PURGE_FINDINGS;
	return CEDE_OK;
}
