/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/trust.h"

#include <fcntl.h>
#include <inttypes.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/hex.h"
#include "certs/key.h"
#include "formats/policy_note.h"

#define CA_FILE_MAX ((size_t)KEY_FILE_MAX * 4)

int trust_signers(char *const *paths, size_t n, struct note_keys **ret, struct cede_error *reterr) {
	struct note_keys *keys = NULL;

	if (n == 0)
		return CEDE_FAIL(reterr, CEDE_ERR_INPUT,
			"agent.yaml names no policy_signers: whose signature counts? (policy_signers: [policy.pub])");
	int r = note_keys_new(NOTE_POLICY, &keys, reterr);
	for (size_t i = 0; r == CEDE_OK && i < n; i++) {
		CLEANUP(key_freep) EVP_PKEY *key = NULL;
		r = key_load_public(AT_FDCWD, paths[i], &key, reterr);
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

static int digest(struct slice bytes, uint8_t ret[32], struct cede_error *reterr) {
	if (EVP_Digest(bytes.data, bytes.len, ret, NULL, EVP_sha256(), NULL) != 1)
		return CEDE_FAIL(reterr, CEDE_ERR_CRYPTO, "SHA-256 failed");
	return CEDE_OK;
}

/* The directory of the policy and its name in it. */
static int open_directory(
	const char *path, int *ret_fd, const char **ret_name, struct cede_error *reterr) {
	const char *slash = strrchr(path, '/');
	CLEANUP(freep)
	char *directory = slash == NULL ? strdup(".")
					: strndup(path, slash == path ? 1 : (size_t)(slash - path));

	if (directory == NULL)
		return CEDE_FAIL_MEMORY(reterr);
	*ret_name = slash == NULL ? path : slash + 1;
	return file_open_dir(AT_FDCWD, directory, ret_fd, reterr);
}

/* The signature's statement, if the signature is good and means this text. */
static int load_note(int dirfd, const char *name, struct slice text, const struct note_keys *signers,
	struct policy_note *ret, uint8_t ret_signer[32], struct cede_error *reterr) {
	CLEANUP(buf_done) struct buf note = BUF_INIT(NOTE_MAX);
	char sig[512];
	uint8_t sha256[32];

	(void)snprintf(sig, sizeof sig, "%.500s.sig", name);
	int r = file_load(dirfd, sig, &note, reterr);
	if (r < 0 && reterr->sys == ENOENT)
		return CEDE_FAIL(reterr, CEDE_ERR_REFUSED,
			"%s: there is no signature beside the policy; get it from the agency (made with: cede policy sign)",
			sig);
	CEDE_TRY(r);
	r = policy_note_verify(signers, buf_slice(&note), ret, ret_signer, reterr);
	if (r < 0) {
		cede_error_within(reterr, "%s", sig);
		return r;
	}
	r = digest(text, sha256, reterr);
	if (r == CEDE_OK && memcmp(sha256, ret->sha256, sizeof sha256) != 0) {
		char is[65], want[65];
		hex_print(sha256, 32, is);
		hex_print(ret->sha256, 32, want);
		r = CEDE_FAIL(reterr, CEDE_ERR_REFUSED,
			"%s: not the file that was signed: its SHA-256 is %.16s…, the signature says %.16s…; get both again from the agency",
			name, is, want);
	}
	if (r < 0)
		policy_note_done(ret);
	return r;
}

static struct trusted_file *find_file(const struct trusted_policy *t, const char *name) {
	for (size_t i = 0; i < t->file_count; i++)
		if (strcmp(t->files[i].name, name) == 0)
			return &t->files[i];
	return NULL;
}

static int add_file(struct trusted_policy *t, int dirfd, const char *name, struct cede_error *reterr) {
	if (find_file(t, name) != NULL)
		return CEDE_OK;
	struct trusted_file *files = reallocarray(t->files, t->file_count + 1, sizeof *files);
	if (files == NULL)
		return CEDE_FAIL_MEMORY(reterr);
	t->files = files;
	struct trusted_file *f = &files[t->file_count];
	*f = (struct trusted_file){.name = strdup(name), .content = BUF_INIT(CA_FILE_MAX)};
	if (f->name == NULL)
		return CEDE_FAIL_MEMORY(reterr);
	t->file_count++;
	CEDE_TRY(key_file_load(dirfd, name, &f->content, reterr));
	return digest(buf_slice(&f->content), f->sha256, reterr);
}

static int add_files(struct trusted_policy *t, int dirfd, struct cede_error *reterr) {
	for (size_t i = 0; i < t->policy->destination_count; i++) {
		const struct policy_destination *d = &t->policy->destinations[i];
		CEDE_TRY(add_file(t, dirfd, d->ca, reterr));
		for (size_t k = 0; k < d->seal_to_count; k++)
			CEDE_TRY(add_file(t, dirfd, d->seal_to[k], reterr));
		for (size_t k = 0; k < d->receipt_count; k++)
			CEDE_TRY(add_file(t, dirfd, d->receipts[k], reterr));
	}
	return CEDE_OK;
}

static int check_files(
	const struct trusted_policy *t, const struct policy_note *note, struct cede_error *reterr) {
	for (size_t i = 0; i < t->file_count; i++) {
		const struct trusted_file *f = &t->files[i];
		if (i >= note->file_count || strcmp(note->files[i].name, f->name) != 0)
			return CEDE_FAIL(reterr, CEDE_ERR_REFUSED,
				"the signature does not cover the file %s that the policy names: have the policy signed again",
				f->name);
		if (memcmp(f->sha256, note->files[i].sha256, 32) != 0)
			return CEDE_FAIL(reterr, CEDE_ERR_REFUSED,
				"%s: not the file that was signed with the policy; get it again from the agency",
				f->name);
	}
	if (note->file_count > t->file_count)
		return CEDE_FAIL(reterr, CEDE_ERR_REFUSED,
			"the signature covers a file %s that the policy does not name: have the policy signed again",
			note->files[t->file_count].name);
	return CEDE_OK;
}

/* The digest binds the text already; a statement that says otherwise was made by a broken signer. */
static int check_statement(
	const struct policy *policy, const struct policy_note *note, struct cede_error *reterr) {
	char signed_until[CLOCK_TEXT_SIZE], until[CLOCK_TEXT_SIZE];

	clock_text(note->expires_ns, signed_until);
	clock_text(policy->expires_ns, until);
	if (strcmp(note->id, policy->id) != 0 || note->serial != policy->serial ||
		strcmp(signed_until, until) != 0)
		return CEDE_FAIL(reterr, CEDE_ERR_REFUSED,
			"the signature states id %s, serial %" PRIu64
			", expires %s; the policy says otherwise: have it signed again",
			note->id, note->serial, signed_until);
	return CEDE_OK;
}

static int load(struct trusted_policy *t, const char *path, const struct note_keys *signers,
	struct policy_note *note, struct policy_mistakes *ret_mistakes, struct cede_error *reterr) {
	CLEANUP(buf_done) struct buf text = BUF_INIT(POLICY_FILE_MAX);
	CLEANUP(fd_closep) int dirfd = -1;
	const char *name;

	CEDE_TRY(open_directory(path, &dirfd, &name, reterr));
	int r = file_load(dirfd, name, &text, reterr);
	if (r < 0 && reterr->sys == ENOENT)
		return CEDE_FAIL(reterr, CEDE_ERR_REFUSED,
			"%s: there is no policy yet; get it and its signature (%s.sig) from the agency",
			path, name);
	CEDE_TRY(r);
	if (signers != NULL)
		CEDE_TRY(load_note(dirfd, name, buf_slice(&text), signers, note, t->signer, reterr));
	CEDE_TRY(policy_parse(buf_slice(&text), name, &t->policy, ret_mistakes, reterr));
	CEDE_TRY(add_files(t, dirfd, reterr));
	if (signers == NULL)
		return CEDE_OK;
	t->is_signed = true;
	CEDE_TRY(check_statement(t->policy, note, reterr));
	return check_files(t, note, reterr);
}

int trusted_policy_load(const char *path, const struct note_keys *signers,
	struct trusted_policy **ret, struct policy_mistakes *ret_mistakes, struct cede_error *reterr) {
	CLEANUP(trusted_policy_freep) struct trusted_policy *t = calloc(1, sizeof *t);
	CLEANUP(policy_note_done) struct policy_note note = {.id = ""};

	*ret_mistakes = (struct policy_mistakes){0};
	if (t == NULL)
		return CEDE_FAIL_MEMORY(reterr);
	CEDE_TRY(load(t, path, signers, &note, ret_mistakes, reterr));
	*ret = CEDE_TAKE(t);
	return CEDE_OK;
}

void trusted_policy_free(struct trusted_policy *t) {
	if (t == NULL)
		return;
	for (size_t i = 0; i < t->file_count; i++) {
		free(t->files[i].name);
		buf_done(&t->files[i].content);
	}
	free(t->files);
	policy_free(t->policy);
	free(t);
}

void trusted_policy_freep(struct trusted_policy **t) {
	trusted_policy_free(*t);
	*t = NULL;
}

struct slice trusted_policy_file(const struct trusted_policy *t, const char *name) {
	const struct trusted_file *f = find_file(t, name);

	require(f != NULL); /* every file that the policy names was loaded */
	return buf_slice(&f->content);
}

int trusted_policy_sign(const struct trusted_policy *t, const char *signer, EVP_PKEY *key,
	struct buf *out, struct cede_error *reterr) {
	struct policy_note note = {.serial = t->policy->serial,
		.expires_ns = t->policy->expires_ns,
		.file_count = t->file_count};

	(void)snprintf(note.id, sizeof note.id, "%s", t->policy->id);
	memcpy(note.sha256, t->policy->sha256, sizeof note.sha256);
	CLEANUP(freep)
	struct policy_note_file *files = calloc(t->file_count + 1, sizeof *files);
	if (files == NULL)
		return CEDE_FAIL_MEMORY(reterr);
	for (size_t i = 0; i < t->file_count; i++) {
		files[i].name = t->files[i].name; /* lent */
		memcpy(files[i].sha256, t->files[i].sha256, 32);
	}
	note.files = files;
	return policy_note_sign(&note, signer, key, out, reterr);
}
