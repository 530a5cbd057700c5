/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/vault_host.h"

#include <fcntl.h>
#include <openssl/crypto.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "agent/vault/place.h"
#include "agent/vault/wrap.h"
#include "base/cleanup.h"
#include "base/credential.h"
#include "base/file.h"

#define REHEARSAL "rehearsal"

/* The kernel answers for any key of a file system that has encryption. */
static int check_encryption(int fd, struct cede_error *reterr) {
	const struct fscrypt_id nobody = {{0}};
	enum fscrypt_state state;

	return fscrypt_state(fd, &nobody, &state, reterr);
}

/* Before the first start: the directory that it will be made in. */
static int open_state(const char *path, int *ret_fd, struct cede_error *reterr) {
	CLEANUP(freep) char *above = NULL;
	struct cede_error err = {0};

	if (file_open_dir(AT_FDCWD, path, ret_fd, &err) == CEDE_OK)
		return CEDE_OK;
	const char *slash = strrchr(path, '/');
	above = slash == NULL ? strdup(".") : strndup(path, (size_t)(slash - path) + 1);
	if (above == NULL)
		return CEDE_FAIL_MEMORY(reterr);
	if (err.sys == ENOENT && file_open_dir(AT_FDCWD, above, ret_fd, NULL) == CEDE_OK)
		return CEDE_OK;
	*reterr = err;
	return err.code;
}

bool vault_host_key_is_handed_over(
	const struct policy_source *source, const struct agent_config *config) {
	return !source->vault_keys_in_memory && config != NULL && config->vault_key != NULL &&
		credential_named(config->vault_key);
}

static int check_wrap(const struct policy_source *source, const struct agent_config *config,
	int source_fd, struct cede_error *reterr) {
	CLEANUP(fd_closep) int state = -1;

	if (source->vault_keys_in_memory || config == NULL ||
		vault_host_key_is_handed_over(source, config))
		return CEDE_OK;
	if (config->vault_key == NULL)
		return CEDE_FAIL(reterr, CEDE_ERR_INPUT,
			"vault.keys: wrapped needs vault.key in agent.yaml: a systemd credential, for example credential:vault-key");
	CEDE_TRY(open_state(config->state, &state, reterr));
	return wrap_check(config->vault_key, state, source_fd, reterr);
}

static int turn_once(
	struct place *p, int like_fd, const struct fscrypt_id *id, struct cede_error *reterr) {
	struct place_rest rest;

	CEDE_TRY(place_stage(p, REHEARSAL, like_fd, false, id, reterr));
	return place_remove(p, REHEARSAL, NULL, NULL, &rest, reterr);
}

static int rehearse(struct place *p, int like_fd, struct cede_error *reterr) {
	uint8_t key[FSCRYPT_KEY_SIZE];
	struct fscrypt_id id;
	enum fscrypt_state state;
	struct cede_error err = {0};

	if (getrandom(key, sizeof key, 0) != (ssize_t)sizeof key)
		return CEDE_FAIL_SYS(reterr, "random bytes");
	int r = fscrypt_add(place_store_fd(p), key, &id, reterr);
	OPENSSL_cleanse(key, sizeof key);
	CEDE_TRY(r);
	r = turn_once(p, like_fd, &id, reterr);
	if (fscrypt_remove(place_store_fd(p), &id, &state, &err) < 0 && r == CEDE_OK) {
		*reterr = err;
		return err.code;
	}
	if (r == CEDE_OK && state != FSCRYPT_ABSENT)
		return CEDE_FAIL(reterr, CEDE_ERR_IO, "a key that was removed is %s",
			fscrypt_state_name(state));
	return r;
}

int vault_host_check(const struct policy_source *source, const struct agent_config *config,
	bool make, struct cede_error *reterr) {
	CLEANUP(place_closep) struct place *place = NULL;
	CLEANUP(fd_closep) int fd = -1;

	CEDE_TRY(file_open_dir(AT_FDCWD, source->path, &fd, reterr));
	CEDE_TRY(check_encryption(fd, reterr));
	CEDE_TRY(place_open(source->path, source->name, make, &place, reterr));
	CEDE_TRY(check_wrap(source, config, fd, reterr));
	return make ? rehearse(place, fd, reterr) : CEDE_OK;
}
