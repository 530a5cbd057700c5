/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/policy_files.h"

#include <fcntl.h>
#include <openssl/x509v3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/file.h"
#include "certs/key.h"
#include "certs/note.h"
#include "certs/seal.h"

struct checker {
	const struct policy_destination *destination;
	int dir_fd; /* of the policy file */
	int64_t now_ns;
	int64_t expires_ns; /* of the policy */
	const struct policy_files_report *report;
	size_t bad;
};

static void complain(struct checker *c, const char *key, const struct cede_error *err) {
	char text[sizeof err->text + 160];

	(void)snprintf(
		text, sizeof text, "destination %s: %s: %s", c->destination->name, key, err->text);
	c->report->mistake(c->report->ctx, c->destination->where, text);
	c->bad++;
}

/* A certificate that ends before the policy stops the hand-over in the midst of it. */
static void check_end(struct checker *c, const char *key, const char *name, X509 *cert) {
	int64_t from_ns, until_ns;
	char until[CLOCK_TEXT_SIZE], text[512];
	struct cede_error err;

	if (c->report->warning == NULL || cert_validity(cert, &from_ns, &until_ns, &err) < 0 ||
		until_ns >= c->expires_ns)
		return;
	clock_text(until_ns, until);
	(void)snprintf(text, sizeof text, "destination %s: %s: %s ends at %s, before the policy",
		c->destination->name, key, name, until);
	c->report->warning(c->report->ctx, c->destination->where, text);
}

/* What may sign certificates, and nothing else. */
static void check_authority(struct checker *c, X509 *cert) {
	struct cede_error err;

	if (X509_check_ca(cert) == 1)
		return;
	cede_error_set(&err, CEDE_ERR_REFUSED,
		"%s: no certificate authority (basicConstraints CA:TRUE): give the one that signed the server's certificate",
		c->destination->ca);
	complain(c, "ca", &err);
}

static void check_ca(struct checker *c) {
	CLEANUP(cert_freep) X509 *cert = NULL;
	int64_t from_ns = 0;
	int64_t until_ns = 0;
	struct cede_error err;

	if (cert_load(c->dir_fd, c->destination->ca, &cert, &err) < 0 ||
		cert_validity(cert, &from_ns, &until_ns, &err) < 0) {
		complain(c, "ca", &err);
		return;
	}
	if (c->now_ns < from_ns || c->now_ns > until_ns) {
		cede_error_set(&err, CEDE_ERR_REFUSED, "%s: not valid now; get a current one",
			c->destination->ca);
		complain(c, "ca", &err);
		return;
	}
	check_authority(c, cert);
	check_end(c, "ca", c->destination->ca, cert);
}

static void check_seal_to(struct checker *c, const char *name) {
	CLEANUP(cert_freep) X509 *cert = NULL;
	struct sealer_keys *keys = NULL;
	struct cede_error err;

	if (cert_load(c->dir_fd, name, &cert, &err) < 0 ||
		sealer_keys_new(&cert, &name, 1, c->now_ns, false, &keys, &err) < 0)
		complain(c, "seal_to", &err);
	else
		check_end(c, "seal_to", name, cert);
	sealer_keys_free(keys);
}

static void check_receipt(struct checker *c, const char *name) {
	CLEANUP(key_freep) EVP_PKEY *key = NULL;
	struct note_keys *keys = NULL;
	struct cede_error err;

	if (key_load_public(c->dir_fd, name, &key, &err) < 0 ||
		note_keys_new(NOTE_RECEIPT, &keys, &err) < 0 || note_keys_add(keys, key, &err) < 0)
		complain(c, "receipts", &err);
	note_keys_free(keys);
}

int policy_files_check(const struct policy *policy, const char *policy_path, int64_t now_ns,
	const struct policy_files_report *report, size_t *ret_bad, struct cede_error *reterr) {
	const char *slash = strrchr(policy_path, '/');
	CLEANUP(freep)
	char *directory = slash == NULL
		? strdup(".")
		: strndup(policy_path, slash == policy_path ? 1 : (size_t)(slash - policy_path));
	CLEANUP(fd_closep) int fd = -1;

	if (directory == NULL)
		return CEDE_FAIL_MEMORY(reterr);
	CEDE_TRY(file_open_dir(AT_FDCWD, directory, &fd, reterr));
	struct checker c = {
		.dir_fd = fd, .now_ns = now_ns, .expires_ns = policy->expires_ns, .report = report};
	for (size_t i = 0; i < policy->destination_count; i++) {
		const struct policy_destination *d = &policy->destinations[i];

		c.destination = d;
		check_ca(&c);
		for (size_t k = 0; k < d->seal_to_count; k++)
			check_seal_to(&c, d->seal_to[k]);
		for (size_t k = 0; k < d->receipt_count; k++)
			check_receipt(&c, d->receipts[k]);
	}
	*ret_bad = c.bad;
	return CEDE_OK;
}
