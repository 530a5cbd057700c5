/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/core/inforce.h"

#include <fcntl.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/x509.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/log.h"
#include "certs/key.h"
#include "certs/seal.h"

/* No server would take what the one says and the other signs. */
static int check_pair(const struct inforce *f, X509 *cert, const struct agent_config *config,
	struct cede_error *reterr) {
	CLEANUP(key_freep) EVP_PKEY *key = NULL;

	CEDE_TRY(key_parse_private(buf_slice(&f->key_pem), config->key, &key, reterr));
	if (X509_check_private_key(cert, key) == 1)
		return CEDE_OK;
	ERR_clear_error();
	return CEDE_FAIL(reterr, CEDE_ERR_REFUSED,
		"%s: the key does not belong to the certificate %s: put the key there that the certificate was issued for, or have the agency issue one for this key",
		config->key, config->certificate);
}

/* The host's identity: its id is the certificate's common name. */
static int load_identity(
	struct inforce *f, const struct agent_config *config, struct cede_error *reterr) {
	CLEANUP(cert_freep) X509 *cert = NULL;

	f->certificate_pem = BUF_INIT(KEY_FILE_MAX);
	f->key_pem = BUF_INIT(KEY_FILE_MAX);
	CEDE_TRY(key_file_load(AT_FDCWD, config->certificate, &f->certificate_pem, reterr));
	CEDE_TRY(cert_parse(buf_slice(&f->certificate_pem), config->certificate, &cert, reterr));
	CEDE_TRY(cert_host_id(cert, f->host, sizeof f->host, reterr));
	CEDE_TRY(cert_validity(cert, &f->identity_from_ns, &f->identity_until_ns, reterr));
	CEDE_TRY(key_digest(X509_get0_pubkey(cert), f->identity, reterr));
	CEDE_TRY(key_load_private_pem(AT_FDCWD, config->key, &f->key_pem, reterr));
	return check_pair(f, cert, config, reterr);
}

static int load_sealer(const struct inforce *f, const struct policy_destination *d, bool over_too,
	struct sealer_keys **ret, struct cede_error *reterr) {
	X509 *certs[SEAL_TO_MAX] = {0};
	int r = CEDE_OK;

	require(d->seal_to_count <= ARRAY_LENGTH(certs)); /* policy/load.c */
	for (size_t i = 0; r == CEDE_OK && i < d->seal_to_count; i++)
		r = cert_parse(trusted_policy_file(f->trusted, d->seal_to[i]), d->seal_to[i],
			&certs[i], reterr);
	if (r == CEDE_OK)
		r = sealer_keys_new(certs, (const char *const *)d->seal_to, d->seal_to_count,
			clock_wall_ns(), over_too, ret, reterr);
	if (r == CEDE_OK)
		r = sealer_keys_try(*ret, reterr);
	for (size_t i = 0; i < ARRAY_LENGTH(certs); i++)
		cert_freep(&certs[i]);
	return r;
}

static int load_receipt_keys(const struct inforce *f, const struct policy_destination *d,
	struct note_keys **ret, struct cede_error *reterr) {
	CEDE_TRY(note_keys_new(NOTE_RECEIPT, ret, reterr));
	for (size_t i = 0; i < d->receipt_count; i++) {
		CLEANUP(key_freep) EVP_PKEY *key = NULL;
		CEDE_TRY(key_parse_public(trusted_policy_file(f->trusted, d->receipts[i]),
			d->receipts[i], &key, reterr));
		CEDE_TRY(note_keys_add(*ret, key, reterr));
	}
	return CEDE_OK;
}

/* Over the files, as the policy names them one by one. */
static int digest_files(const struct inforce *f, char *const *names, size_t n, uint8_t ret[32],
	struct cede_error *reterr) {
	CLEANUP(buf_done) struct buf all = BUF_INIT(64 * KEY_FILE_MAX);

	for (size_t i = 0; i < n; i++) {
		struct slice file = trusted_policy_file(f->trusted, names[i]);
		CEDE_TRY(buf_add(&all, file.data, file.len, reterr));
	}
	if (EVP_Digest(all.data, all.len, ret, NULL, EVP_sha256(), NULL) != 1)
		return CEDE_FAIL(reterr, CEDE_ERR_CRYPTO, "SHA-256 failed");
	return CEDE_OK;
}

static int load_trusted(
	struct inforce *f, const struct inforce_want *want, struct cede_error *reterr) {
	CLEANUP(policy_mistakes_done) struct policy_mistakes mistakes = {NULL, 0};
	struct note_keys *signers = NULL;

	if (!want->is_unsigned)
		CEDE_TRY(trust_signers(want->config->policy_signers,
			want->config->policy_signer_count, &signers, reterr));
	int r = trusted_policy_load(want->policy_path, signers, &f->trusted, &mistakes, reterr);
	note_keys_free(signers);
	for (size_t i = 0; i < mistakes.count; i++)
		(void)fprintf(stderr, "%s\n", mistakes.lines[i]);
	CEDE_TRY(r);
	f->policy = f->trusted->policy;
	return want->is_unsigned ? CEDE_OK : floor_check(f->policy, want->floor, reterr);
}

/* Whether it is of any use is found out elsewhere; here only for how long. */
static int ends(
	const struct inforce *f, const char *name, int64_t *until_ns, struct cede_error *reterr) {
	int64_t until;

	CEDE_TRY(certs_until(trusted_policy_file(f->trusted, name), name, &until, reterr));
	if (*until_ns == 0 || until < *until_ns)
		*until_ns = until;
	return CEDE_OK;
}

int inforce_load(const struct inforce_want *want, struct inforce **ret, struct cede_error *reterr) {
	CLEANUP(inforce_freep) struct inforce *f = calloc(1, sizeof *f);

	if (f == NULL)
		return CEDE_FAIL_MEMORY(reterr);
	CEDE_TRY(load_trusted(f, want, reterr));
	CEDE_TRY(load_identity(f, want->config, reterr));
	for (size_t i = 0; i < f->policy->destination_count; i++) {
		const struct policy_destination *d = &f->policy->destinations[i];
		CEDE_TRY(load_sealer(f, d, want->starts, &f->keys[i].seal, reterr));
		CEDE_TRY(load_receipt_keys(f, d, &f->keys[i].receipts, reterr));
		CEDE_TRY(digest_files(
			f, d->seal_to, d->seal_to_count, f->keys[i].seal_digest, reterr));
		CEDE_TRY(digest_files(
			f, d->receipts, d->receipt_count, f->keys[i].receipts_digest, reterr));
		for (size_t k = 0; k < d->seal_to_count; k++)
			CEDE_TRY(ends(f, d->seal_to[k], &f->seal_until_ns[i], reterr));
		f->keys[i].seal_until_ns = f->seal_until_ns[i];
		CEDE_TRY(ends(f, d->ca, &f->ca_until_ns[i], reterr));
	}
	*ret = CEDE_TAKE(f);
	return CEDE_OK;
}

void inforce_free(struct inforce *f) {
	if (f == NULL)
		return;
	for (size_t i = 0; !f->keys_taken && i < POLICY_DESTINATIONS_MAX; i++) {
		sealer_keys_free(f->keys[i].seal);
		note_keys_free(f->keys[i].receipts);
	}
	trusted_policy_free(f->trusted);
	buf_done(&f->certificate_pem);
	buf_done(&f->key_pem);
	free(f);
}

void inforce_freep(struct inforce **f) {
	inforce_free(*f);
	*f = NULL;
}

void inforce_forget_key(struct inforce *f) {
	buf_done(&f->key_pem);
}

void inforce_destinations(
	const struct inforce *f, struct link_destination ret[POLICY_DESTINATIONS_MAX]) {
	for (size_t i = 0; i < f->policy->destination_count; i++) {
		const struct policy_destination *d = &f->policy->destinations[i];
		ret[i] = (struct link_destination){.name = d->name,
			.url = d->url,
			.port = d->port,
			.ca_pem = trusted_policy_file(f->trusted, d->ca),
			.pins = (const char *const *)d->pins,
			.pin_count = d->pin_count,
			.addresses = d->addresses,
			.address_count = d->address_count,
			.certificate_pem = buf_slice(&f->certificate_pem),
			.key_pem = buf_slice(&f->key_pem)};
	}
}

/* ---- two of them */

static bool same_texts(char *const *a, size_t n, char *const *b, size_t m) {
	if (n != m)
		return false;
	for (size_t i = 0; i < n; i++)
		if (strcmp(a[i], b[i]) != 0)
			return false;
	return true;
}

static bool same_file(
	const struct inforce *a, const char *in_a, const struct inforce *b, const char *in_b) {
	return slice_equal(
		trusted_policy_file(a->trusted, in_a), trusted_policy_file(b->trusted, in_b));
}

/* Where it goes to: the courier is told the same. */
static bool same_place(const struct inforce *a, const struct policy_destination *x,
	const struct inforce *b, const struct policy_destination *y) {
	return strcmp(x->url, y->url) == 0 && same_file(a, x->ca, b, y->ca) &&
		same_texts(x->pins, x->pin_count, y->pins, y->pin_count) &&
		x->address_count == y->address_count &&
		(x->address_count == 0 ||
			memcmp(x->addresses, y->addresses,
				x->address_count * sizeof *x->addresses) == 0);
}

static bool same_seal(const struct inforce *a, const struct policy_destination *x,
	const struct inforce *b, const struct policy_destination *y) {
	if (x->seal_to_count != y->seal_to_count)
		return false;
	for (size_t i = 0; i < x->seal_to_count; i++)
		if (!same_file(a, x->seal_to[i], b, y->seal_to[i]))
			return false;
	return true;
}

bool inforce_same_link(const struct inforce *a, const struct inforce *b) {
	if (a->policy->destination_count != b->policy->destination_count ||
		a->policy->sandbox_require != b->policy->sandbox_require ||
		!slice_equal(buf_slice(&a->certificate_pem), buf_slice(&b->certificate_pem)))
		return false;
	for (size_t i = 0; i < a->policy->destination_count; i++) {
		const struct policy_destination *x = &a->policy->destinations[i];
		const struct policy_destination *y = &b->policy->destinations[i];
		if (strcmp(x->name, y->name) != 0 || !same_place(a, x, b, y))
			return false;
	}
	return true;
}

void inforce_compare(struct inforce *f, const struct inforce *before) {
	for (size_t i = 0; i < f->policy->destination_count; i++) {
		const struct policy_destination *x = &f->policy->destinations[i];
		f->keys[i].changed = f->keys[i].moved = true;
		for (size_t k = 0; k < before->policy->destination_count; k++) {
			const struct policy_destination *y = &before->policy->destinations[k];
			if (strcmp(x->name, y->name) != 0)
				continue;
			f->keys[i].changed = !same_seal(f, x, before, y);
			f->keys[i].moved = strcmp(x->url, y->url) != 0;
		}
	}
}

bool inforce_same(const struct inforce *a, const struct inforce *b) {
	const struct trusted_policy *x = a->trusted;
	const struct trusted_policy *y = b->trusted;

	if (memcmp(a->policy->sha256, b->policy->sha256, 32) != 0 || x->is_signed != y->is_signed ||
		x->file_count != y->file_count ||
		!slice_equal(buf_slice(&a->certificate_pem), buf_slice(&b->certificate_pem)))
		return false;
	for (size_t i = 0; i < x->file_count; i++)
		if (memcmp(x->files[i].sha256, y->files[i].sha256, 32) != 0)
			return false;
	return true;
}
