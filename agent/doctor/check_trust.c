/* SPDX-License-Identifier: Apache-2.0
 * Policy, the files it names, and who this host is. */
#include <fcntl.h>
#include <openssl/x509.h>
#include <stdio.h>
#include <unistd.h>

#include "agent/core/floor.h"
#include "agent/doctor/internal.h"
#include "agent/policy_files.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/credential.h"
#include "certs/key.h"

#define DAY_NS  (86400 * NS_PER_SECOND)
#define SOON_NS (30 * DAY_NS)

#define NEW_POLICY \
	"get a policy from the agency that is signed and in force, with its .sig beside it"

static int load(struct doctor *d, struct policy_mistakes *mistakes, struct cede_error *err) {
	struct note_keys *signers = NULL;

	if (!d->options->is_unsigned)
		CEDE_TRY(trust_signers(
			d->config->policy_signers, d->config->policy_signer_count, &signers, err));
	int r = trusted_policy_load(d->options->policy, signers, &d->trusted, mistakes, err);
	note_keys_free(signers);
	return r;
}

/* No lower serial than this host ever had. */
static int above_floor(const struct doctor *d, struct cede_error *err) {
	CLEANUP(ledger_closep) struct ledger *ledger = NULL;
	struct floor floor;

	/* SQLite says of anything that it was unable to open the file */
	if (access(d->config->state, R_OK | X_OK) < 0 && errno == EACCES)
		return CEDE_FAIL_SYS(err, "the ledger in %s", d->config->state);
	int r = ledger_open_reader(d->config->state, &ledger, err);
	if (r == CEDE_ERR_BUSY)
		return CEDE_OK; /* the agent has not run here */
	CEDE_TRY(r);
	CEDE_TRY(floor_load(ledger, &floor, err));
	return floor_check(d->trusted->policy, &floor, err);
}

static void say_mistake(void *ctx, struct policy_where where, const char *text) {
	doctor_say(ctx, "policy", "", DOCTOR_BROKEN,
		"ask the agency for a policy without this mistake", "line %u: %s", where.line, text);
}

static void say_warning(void *ctx, struct policy_where where, const char *text) {
	doctor_say(ctx, "policy", "", DOCTOR_WEAK, "tell the agency, before it stops the hand-over",
		"line %u: %s", where.line, text);
}

static void check_expiry(struct doctor *d) {
	int64_t left = d->policy->expires_ns - clock_wall_ns();
	char until[CLOCK_TEXT_SIZE];

	clock_text(d->policy->expires_ns, until);
	if (left <= 0)
		doctor_say(d, "policy", "", DOCTOR_BROKEN, "get a newer one from the agency",
			"expired at %s: nothing is handed over or wiped", until);
	else if (left < 14 * DAY_NS)
		doctor_say(d, "policy", "", DOCTOR_WEAK, "get a newer one from the agency in time",
			"expires at %s", until);
	else
		doctor_say(d, "policy", "", DOCTOR_OK, "", "%s, serial %llu, in force until %s",
			d->policy->id, (unsigned long long)d->policy->serial, until);
}

void check_policy(struct doctor *d) {
	CLEANUP(policy_mistakes_done) struct policy_mistakes mistakes = {NULL, 0};
	const struct policy_files_report report = {
		.ctx = d, .mistake = say_mistake, .warning = say_warning};
	struct cede_error err = {0};
	size_t bad;

	if (load(d, &mistakes, &err) < 0) {
		for (size_t i = 0; i < mistakes.count; i++)
			doctor_say(d, "policy", "", DOCTOR_BROKEN, NEW_POLICY, "%s",
				mistakes.lines[i]);
		if (mistakes.count == 0)
			doctor_say(d, "policy", "", DOCTOR_BROKEN, doctor_mend(&err, NEW_POLICY),
				"%s", err.text);
		return;
	}
	d->policy = d->trusted->policy;
	if (above_floor(d, &err) < 0)
		doctor_say(d, "policy", "", DOCTOR_BROKEN, doctor_mend(&err, NEW_POLICY), "%s",
			err.text);
	if (d->options->is_unsigned)
		doctor_say(d, "policy", "", DOCTOR_WEAK, "have the agency sign it",
			"nobody vouches for this policy (--unsigned)");
	check_expiry(d);
	if (policy_files_check(d->policy, d->options->policy, clock_wall_ns(), &report, &bad, &err) <
		0)
		doctor_say(d, "policy", "", DOCTOR_BROKEN, NEW_POLICY, "%s", err.text);
}

/* ---- the host's identity */

static void check_certificate(struct doctor *d, X509 *cert) {
	char host[HOST_ID_MAX + 1], until[CLOCK_TEXT_SIZE];
	int64_t from_ns, until_ns;
	int64_t now = clock_wall_ns();
	struct cede_error err = {0};
	const char *file = d->config->certificate;

	if (cert_host_id(cert, host, sizeof host, &err) < 0 ||
		cert_validity(cert, &from_ns, &until_ns, &err) < 0) {
		doctor_say(d, "identity", file, DOCTOR_BROKEN,
			"have the agency issue this host's certificate anew", "%s", err.text);
		return;
	}
	clock_text(now < from_ns ? from_ns : until_ns, until);
	if (now < from_ns || now >= until_ns)
		doctor_say(d, "identity", file, DOCTOR_BROKEN,
			"renew it with the agency, or set the clock",
			now < from_ns ? "host %s: not valid before %s: no server takes anything"
				      : "host %s: expired at %s: no server takes anything",
			host, until);
	else if (until_ns - now < SOON_NS)
		doctor_say(d, "identity", file, DOCTOR_WEAK, "renew it with the agency in time",
			"host %s: expires at %s", host, until);
	else
		doctor_say(
			d, "identity", file, DOCTOR_OK, "", "host %s, valid until %s", host, until);
	d->identity_works = now >= from_ns && now < until_ns;
}

void check_identity(struct doctor *d) {
	CLEANUP(cert_freep) X509 *cert = NULL;
	CLEANUP(key_freep) EVP_PKEY *key = NULL;
	struct cede_error err = {0};

	if (cert_load(AT_FDCWD, d->config->certificate, &cert, &err) < 0)
		doctor_say(d, "identity", d->config->certificate, DOCTOR_BROKEN,
			doctor_mend(
				&err, "put this host's certificate there, as the agency issued it"),
			"%s", err.text);
	else
		check_certificate(d, cert);
	if (credential_named(d->config->key)) {
		doctor_say(d, "key", d->config->key, DOCTOR_OK, "",
			"handed over by the service manager: not to be had here, and no destination is tried with it");
		d->identity_works = false;
	} else if (key_load_private(AT_FDCWD, d->config->key, &key, &err) < 0) {
		doctor_say(d, "key", d->config->key, DOCTOR_BROKEN,
			doctor_mend(&err,
				"put the key there that belongs to the certificate, readable by the agent's user alone"),
			"%s", err.text);
		d->identity_works = false;
	} else if (cert != NULL && X509_check_private_key(cert, key) != 1) {
		doctor_say(d, "key", d->config->key, DOCTOR_BROKEN,
			"put the key there that belongs to the certificate",
			"does not belong to the host's certificate");
		d->identity_works = false;
	} else {
		doctor_say(d, "key", d->config->key, DOCTOR_OK, "", "read by its owner alone");
	}
}
