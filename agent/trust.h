/* SPDX-License-Identifier: Apache-2.0
 * The policy as it may be trusted: its text, its signature and every file that it names, each read
 * once. What was checked is what is used: nothing is opened a second time.
 *
 *   policy.yaml      the policy
 *   policy.yaml.sig  the agency's signature over it and the files' digests (formats/policy_note.h)
 *
 * Fails   INPUT (mistakes in the policy), REFUSED (signature, signer, a file that is not the one that
 *         was signed), IO. The text names the file and the mend.
 * Thread  loading: any; after that immutable. */
#pragma once

#include "certs/note.h"
#include "policy/policy.h"

struct trusted_file {
	char *name; /* as the policy writes it */
	uint8_t sha256[32];
	struct buf content;
};

struct trusted_policy {
	struct policy *policy;
	struct trusted_file *files; /* each name once, in the order of the policy */
	size_t file_count;
	bool is_signed;
	uint8_t signer[32]; /* digest of the key that signed */
};

/* The keys that agent.yaml's policy_signers names; at least one. */
CEDE_MUST_USE int trust_signers(
	char *const *paths, size_t n, struct note_keys **ret, struct cede_error *reterr);
/* signers NULL: no signature is looked at (`--unsigned`). */
CEDE_MUST_USE int trusted_policy_load(const char *path, const struct note_keys *signers,
	struct trusted_policy **ret, struct policy_mistakes *ret_mistakes, struct cede_error *reterr);
void trusted_policy_free(struct trusted_policy *t);
void trusted_policy_freep(struct trusted_policy **t);
/* The bytes of a file that the policy names. */
struct slice trusted_policy_file(const struct trusted_policy *t, const char *name);
/* Signs what was loaded; appends the note. */
CEDE_MUST_USE int trusted_policy_sign(const struct trusted_policy *t, const char *signer,
	EVP_PKEY *key, struct buf *out, struct cede_error *reterr);
