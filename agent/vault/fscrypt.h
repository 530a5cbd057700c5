/* SPDX-License-Identifier: Apache-2.0
 * The kernel's file encryption (fscrypt, policies of version 2) by its ioctls: a key in the keyring
 * of a file system, a policy on an empty directory, the key gone again. The file system keeps the
 * key until it is removed or unmounted, whatever becomes of the process that added it.
 *
 * Thread  any.
 * Fails   REFUSED where the file system or the kernel has no encryption; IO else. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"

#define FSCRYPT_KEY_SIZE 64 /* bytes of a master key: AES-256-XTS takes all of them */
#define FSCRYPT_ID_SIZE  16 /* the name that the kernel derives from a key */
#define FSCRYPT_ID_TEXT  33 /* hexadecimal, with a NUL */

struct fscrypt_id {
	uint8_t bytes[FSCRYPT_ID_SIZE];
};

/* What became of a key; stable words: "absent" "present" "busy". */
enum fscrypt_state {
	FSCRYPT_ABSENT,  /* the kernel has nothing of it any more */
	FSCRYPT_PRESENT, /* files can be opened */
	/* The key itself is gone; files or directories that are still in use (open, mapped, a
	 * program's working directory) have the keys that were derived from it. */
	FSCRYPT_BUSY,
};

const char *fscrypt_state_name(enum fscrypt_state state);

/* fd is any file or directory of the file system in all of these. Adding the same key twice is no
 * mistake. */
CEDE_MUST_USE int fscrypt_add(int fd, const uint8_t key[FSCRYPT_KEY_SIZE], struct fscrypt_id *ret,
	struct cede_error *reterr);
/* One step of the removal: cedes the key and locks what is not in use. Ask again while it is BUSY.
 * A key that is not there is ABSENT, no mistake. */
CEDE_MUST_USE int fscrypt_remove(
	int fd, const struct fscrypt_id *id, enum fscrypt_state *ret, struct cede_error *reterr);
CEDE_MUST_USE int fscrypt_state(
	int fd, const struct fscrypt_id *id, enum fscrypt_state *ret, struct cede_error *reterr);
/* Everything made in this empty directory from now on is encrypted under the key. */
CEDE_MUST_USE int fscrypt_set(int dirfd, const struct fscrypt_id *id, struct cede_error *reterr);
/* The key of an encrypted directory; *ret_there is false where it has none of version 2. */
CEDE_MUST_USE int fscrypt_of(
	int dirfd, struct fscrypt_id *ret, bool *ret_there, struct cede_error *reterr);
void fscrypt_id_print(const struct fscrypt_id *id, char out[FSCRYPT_ID_TEXT]);
bool fscrypt_id_equal(const struct fscrypt_id *a, const struct fscrypt_id *b);
