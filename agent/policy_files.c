/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/policy_files.h"

#include <fcntl.h>
#include <openssl/evp.h>
#include <openssl/x509v3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/hex.h"
#include "certs/key.h"
#include "certs/note.h"
#include "certs/seal.h"
#include "formats/policy_note.h"

#define POLICY_FILE_ALONE SIZE_MAX /* the key names one file, no list */

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

/* The signature has to spell it. */
static void check_name(struct checker *c, const char *key, const char *name) {
	struct cede_error err;

	if (policy_note_name_valid(name))
		return;
	cede_error_set(&err, CEDE_ERR_REFUSED,
		"%s: can't be signed under this name: rename it to at most %d characters of printable ASCII, without a space at an end",
		name, POLICY_NOTE_NAME_MAX);
	complain(c, key, &err);
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

/* The directory of the policy, from which its files are named. */
static int open_directory(const char *policy_path, int *ret_fd, struct cede_error *reterr) {
	const char *slash = strrchr(policy_path, '/');
	CLEANUP(freep)
	char *directory = slash == NULL
		? strdup(".")
		: strndup(policy_path, slash == policy_path ? 1 : (size_t)(slash - policy_path));

	if (directory == NULL)
		return CEDE_FAIL_MEMORY(reterr);
	return file_open_dir(AT_FDCWD, directory, ret_fd, reterr);
}

int policy_files_check(const struct policy *policy, const char *policy_path, int64_t now_ns,
	const struct policy_files_report *report, size_t *ret_bad, struct cede_error *reterr) {
	CLEANUP(fd_closep) int fd = -1;

	CEDE_TRY(open_directory(policy_path, &fd, reterr));
	struct checker c = {
		.dir_fd = fd, .now_ns = now_ns, .expires_ns = policy->expires_ns, .report = report};
	for (size_t i = 0; i < policy->destination_count; i++) {
		const struct policy_destination *d = &policy->destinations[i];

		c.destination = d;
		check_name(&c, "ca", d->ca);
		check_ca(&c);
		for (size_t k = 0; k < d->seal_to_count; k++) {
			check_name(&c, "seal_to", d->seal_to[k]);
			check_seal_to(&c, d->seal_to[k]);
		}
		for (size_t k = 0; k < d->receipt_count; k++) {
			check_name(&c, "receipts", d->receipts[k]);
			check_receipt(&c, d->receipts[k]);
		}
	}
	*ret_bad = c.bad;
	return CEDE_OK;
}

struct digester {
	const struct policy_files_digests *to;
	int dir_fd;
	const char *destination;
};

static int digest_file(const struct digester *d, const char *name, const char *key, size_t number,
	struct cede_error *reterr) {
	CLEANUP(buf_done) struct buf content = BUF_INIT((size_t)KEY_FILE_MAX * 4);
	char full[160], hex[65];
	uint8_t sha256[32];
	struct cede_error err;

	if (number == POLICY_FILE_ALONE)
		(void)snprintf(full, sizeof full, "destinations.%s.%s.sha256", d->destination, key);
	else
		(void)snprintf(full, sizeof full, "destinations.%s.%s[%zu].sha256", d->destination,
			key, number);
	if (file_load(d->dir_fd, name, &content, &err) < 0)
		return d->to->unread(d->to->ctx, full, &err, reterr);
	if (EVP_Digest(content.data, content.len, sha256, NULL, EVP_sha256(), NULL) != 1)
		return CEDE_FAIL(reterr, CEDE_ERR_CRYPTO, "SHA-256 failed");
	hex_print(sha256, sizeof sha256, hex);
	return d->to->digest(d->to->ctx, full, hex, reterr);
}

int policy_files_digest(const struct policy *policy, const char *policy_path,
	const struct policy_files_digests *to, struct cede_error *reterr) {
	CLEANUP(fd_closep) int fd = -1;

	CEDE_TRY(open_directory(policy_path, &fd, reterr));
	for (size_t i = 0; i < policy->destination_count; i++) {
		const struct policy_destination *p = &policy->destinations[i];
		const struct digester d = {.to = to, .dir_fd = fd, .destination = p->name};

		CEDE_TRY(digest_file(&d, p->ca, "ca", POLICY_FILE_ALONE, reterr));
		for (size_t k = 0; k < p->seal_to_count; k++)
			CEDE_TRY(digest_file(&d, p->seal_to[k], "seal_to", k, reterr));
		for (size_t k = 0; k < p->receipt_count; k++)
			CEDE_TRY(digest_file(&d, p->receipts[k], "receipts", k, reterr));
	}
	return CEDE_OK;
}
