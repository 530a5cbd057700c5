/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/vault/fscrypt.h"

#include <linux/fscrypt.h>
#include <openssl/crypto.h>
#include <stddef.h>
#include <string.h>
#include <sys/ioctl.h>

#include "base/check.h"
#include "base/hex.h"

/* The ioctl takes the key behind its argument. */
union add_key {
	struct fscrypt_add_key_arg arg;
	uint8_t bytes[offsetof(struct fscrypt_add_key_arg, raw) + FSCRYPT_KEY_SIZE];
};

const char *fscrypt_state_name(enum fscrypt_state state) {
	static const char *const names[] = {"absent", "present", "busy"};

	return names[state];
}

void fscrypt_id_print(const struct fscrypt_id *id, char out[FSCRYPT_ID_TEXT]) {
	hex_print(id->bytes, sizeof id->bytes, out);
}

bool fscrypt_id_equal(const struct fscrypt_id *a, const struct fscrypt_id *b) {
	return memcmp(a->bytes, b->bytes, sizeof a->bytes) == 0;
}

static int failed(const char *what, struct cede_error *reterr) {
	if (errno != EOPNOTSUPP && errno != ENOTTY && errno != ENOSYS)
		return CEDE_FAIL_SYS(reterr, "%s", what);
	return CEDE_FAIL(reterr, CEDE_ERR_REFUSED,
		"%s: the file system has no encryption; ext4 has it after \"tune2fs -O encrypt DEVICE\"",
		what);
}

static struct fscrypt_key_specifier specifier(const struct fscrypt_id *id) {
	struct fscrypt_key_specifier spec = {.type = FSCRYPT_KEY_SPEC_TYPE_IDENTIFIER};

	memcpy(spec.u.identifier, id->bytes, sizeof id->bytes);
	return spec;
}

int fscrypt_add(int fd, const uint8_t key[FSCRYPT_KEY_SIZE], struct fscrypt_id *ret,
	struct cede_error *reterr) {
	union add_key add = {.arg = {.key_spec = {.type = FSCRYPT_KEY_SPEC_TYPE_IDENTIFIER},
				     .raw_size = FSCRYPT_KEY_SIZE}};

	memcpy(add.bytes + offsetof(struct fscrypt_add_key_arg, raw), key, FSCRYPT_KEY_SIZE);
	int r = ioctl(fd, FS_IOC_ADD_ENCRYPTION_KEY, &add);
	int sys = errno;
	memcpy(ret->bytes, add.arg.key_spec.u.identifier, sizeof ret->bytes);
	OPENSSL_cleanse(&add, sizeof add);
	errno = sys;
	return r < 0 ? failed("add an encryption key", reterr) : CEDE_OK;
}

int fscrypt_state(
	int fd, const struct fscrypt_id *id, enum fscrypt_state *ret, struct cede_error *reterr) {
	struct fscrypt_get_key_status_arg arg = {.key_spec = specifier(id)};

	if (ioctl(fd, FS_IOC_GET_ENCRYPTION_KEY_STATUS, &arg) < 0)
		return failed("ask for the state of an encryption key", reterr);
	*ret = arg.status == FSCRYPT_KEY_STATUS_ABSENT     ? FSCRYPT_ABSENT
		: arg.status == FSCRYPT_KEY_STATUS_PRESENT ? FSCRYPT_PRESENT
							   : FSCRYPT_BUSY;
	return CEDE_OK;
}

int fscrypt_remove(
	int fd, const struct fscrypt_id *id, enum fscrypt_state *ret, struct cede_error *reterr) {
	struct fscrypt_remove_key_arg arg = {.key_spec = specifier(id)};

	if (ioctl(fd, FS_IOC_REMOVE_ENCRYPTION_KEY, &arg) < 0 && errno != ENOKEY)
		return failed("remove an encryption key", reterr);
	/* its flags tell of this call alone (another user's claim, files in use): what counts is
	 * what the kernel still has */
	return fscrypt_state(fd, id, ret, reterr);
}

int fscrypt_set(int dirfd, const struct fscrypt_id *id, struct cede_error *reterr) {
	struct fscrypt_policy_v2 policy = {.version = FSCRYPT_POLICY_V2,
		.contents_encryption_mode = FSCRYPT_MODE_AES_256_XTS,
		.filenames_encryption_mode = FSCRYPT_MODE_AES_256_CTS,
		.flags = FSCRYPT_POLICY_FLAGS_PAD_32};

	memcpy(policy.master_key_identifier, id->bytes, sizeof id->bytes);
	if (ioctl(dirfd, FS_IOC_SET_ENCRYPTION_POLICY, &policy) < 0)
		return failed("encrypt a directory", reterr);
	return CEDE_OK;
}

int fscrypt_of(int dirfd, struct fscrypt_id *ret, bool *ret_there, struct cede_error *reterr) {
	struct fscrypt_get_policy_ex_arg arg = {.policy_size = sizeof arg.policy};

	*ret_there = false;
	if (ioctl(dirfd, FS_IOC_GET_ENCRYPTION_POLICY_EX, &arg) < 0) {
		if (errno == ENODATA || errno == EOPNOTSUPP || errno == ENOTTY)
			return CEDE_OK;
		return CEDE_FAIL_SYS(reterr, "ask for the encryption of a directory");
	}
	if (arg.policy.version != FSCRYPT_POLICY_V2)
		return CEDE_OK; /* somebody else's */
	memcpy(ret->bytes, arg.policy.v2.master_key_identifier, sizeof ret->bytes);
	*ret_there = true;
	return CEDE_OK;
}
