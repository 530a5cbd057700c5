/* SPDX-License-Identifier: Apache-2.0
 * Keys that outlive a reboot: each epoch's key in a file of its own in the state directory, sealed
 * (AES-256-GCM) under a key that is derived from what agent.yaml names in vault.key: a systemd
 * credential or a key file, never on the file systems of the captures or of the state.
 *
 * Owns    <state>/vault/ID.key.
 * Fails   INPUT: not a key file of this host's vault.key, or damaged; REFUSED: vault.key is where
 * it would protect nothing. Secrets are cleansed before each return. */
#pragma once

#include "agent/vault/fscrypt.h"
#include "base/bytes.h"

#define WRAP_SECRET_LEAST 32 /* bytes of what vault.key names */
#define WRAP_SECRET_MOST  4096
#define WRAP_DIRECTORY    "vault" /* below the state directory */
#define WRAP_ENDING       ".key"
#define WRAP_NAME_SIZE    (FSCRYPT_ID_TEXT + 4)

struct wrap;

/* state_fd is the state directory; source_fd a directory whose captures are to be protected. The
 * secret at path is read anew each time, and kept no longer than until wrap_close(). */
CEDE_MUST_USE int wrap_open(
	const char *path, int state_fd, struct wrap **ret, struct cede_error *reterr);
/* Whether it would do, of what both directories hold; makes nothing. */
CEDE_MUST_USE int wrap_check(
	const char *path, int state_fd, int source_fd, struct cede_error *reterr);
void wrap_close(struct wrap *w); /* NULL allowed */
void wrap_closep(struct wrap **w);
/* REFUSED: the secret lies on the file system of this directory. */
CEDE_MUST_USE int wrap_is_apart(const struct wrap *w, int source_fd, struct cede_error *reterr);
/* Durable when it returns 0. */
CEDE_MUST_USE int wrap_store(struct wrap *w, const struct fscrypt_id *id,
	const uint8_t key[FSCRYPT_KEY_SIZE], struct cede_error *reterr);
/* IO with sys ENOENT: there is none. */
CEDE_MUST_USE int wrap_load(struct wrap *w, const struct fscrypt_id *id,
	uint8_t ret_key[FSCRYPT_KEY_SIZE], struct cede_error *reterr);
/* A copy that was never used. */
void wrap_forget(struct wrap *w, const struct fscrypt_id *id);
void wrap_name(const struct fscrypt_id *id, char out[WRAP_NAME_SIZE]);
/* The directory of the sealed keys, made if it is not there. */
CEDE_MUST_USE int wrap_directory(int state_fd, int *ret_fd, struct cede_error *reterr);

/* The bytes of such a file, for tests and the fuzzer: INPUT if secret or content is not right. */
CEDE_MUST_USE int wrap_unseal(struct slice content, struct slice secret,
	const struct fscrypt_id *id, uint8_t ret_key[FSCRYPT_KEY_SIZE], struct cede_error *reterr);
