/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/vault/wrap.h"

#include <fcntl.h>
#include <openssl/core_names.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/kdf.h>
#include <openssl/rand.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/file.h"
#include "base/key_file.h"

#define MAGIC      "cede vault key 1\n"
#define MAGIC_SIZE (sizeof MAGIC - 1)
#define NONCE_SIZE 12U
#define TAG_SIZE   16U
#define FILE_SIZE  (MAGIC_SIZE + NONCE_SIZE + FSCRYPT_KEY_SIZE + TAG_SIZE)

struct wrap {
	struct buf secret; /* cleansed when it is freed */
	uint64_t dev;      /* of the file that has it */
	int dir;           /* of the sealed keys */
};

void wrap_name(const struct fscrypt_id *id, char out[WRAP_NAME_SIZE]) {
	char text[FSCRYPT_ID_TEXT];

	fscrypt_id_print(id, text);
	(void)snprintf(out, WRAP_NAME_SIZE, "%s" WRAP_ENDING, text);
}

int wrap_directory(int state_fd, int *ret_fd, struct cede_error *reterr) {
	if (mkdirat(state_fd, WRAP_DIRECTORY, 0700) < 0 && errno != EEXIST)
		return CEDE_FAIL_SYS(reterr, "make the directory " WRAP_DIRECTORY " in the state");
	return file_open_beneath(state_fd, WRAP_DIRECTORY, O_RDONLY | O_DIRECTORY, ret_fd, reterr);
}

static int apart(uint64_t dev, int fd, const char *what, struct cede_error *reterr) {
	struct stat st;

	if (fstat(fd, &st) < 0)
		return CEDE_FAIL_SYS(reterr, "stat");
	if (st.st_dev == dev)
		return CEDE_FAIL(reterr, CEDE_ERR_REFUSED,
			"vault.key lies on the file system of %s: whoever has that disk has the key; give it as a systemd credential (LoadCredentialEncrypted=), which is kept in memory",
			what);
	return CEDE_OK;
}

int wrap_is_apart(const struct wrap *w, int source_fd, struct cede_error *reterr) {
	return apart(w->dev, source_fd, "the captures", reterr);
}

static int read_secret(struct wrap *w, const char *path, struct cede_error *reterr) {
	CLEANUP(fd_closep)
	int fd = openat(AT_FDCWD, path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	struct stat st;

	if (fd < 0 || fstat(fd, &st) < 0)
		return CEDE_FAIL_SYS(reterr, "vault.key: %s", path);
	int r = key_file_check(fd, path, KEY_FILE_SECRET, reterr);
	if (r < 0) {
		cede_error_within(reterr, "vault.key");
		return r;
	}
	w->dev = st.st_dev;
	r = file_load_fd(fd, &w->secret, reterr);
	if (r < 0) {
		cede_error_within(reterr, "vault.key: %s", path);
		return r;
	}
	if (w->secret.len < WRAP_SECRET_LEAST)
		return CEDE_FAIL(reterr, CEDE_ERR_INPUT,
			"vault.key: %s: at least %d random bytes expected (head -c 64 /dev/urandom)",
			path, WRAP_SECRET_LEAST);
	return CEDE_OK;
}

static int open_secret(const char *path, int state_fd, struct wrap **ret, struct cede_error *reterr) {
	CLEANUP(wrap_closep) struct wrap *w = calloc(1, sizeof *w);

	if (w == NULL)
		return CEDE_FAIL_MEMORY(reterr);
	w->secret = BUF_INIT(WRAP_SECRET_MOST);
	w->dir = -1;
	CEDE_TRY(read_secret(w, path, reterr));
	CEDE_TRY(apart(w->dev, state_fd, "the state directory", reterr));
	*ret = CEDE_TAKE(w);
	return CEDE_OK;
}

int wrap_open(const char *path, int state_fd, struct wrap **ret, struct cede_error *reterr) {
	CLEANUP(wrap_closep) struct wrap *w = NULL;

	CEDE_TRY(open_secret(path, state_fd, &w, reterr));
	CEDE_TRY(wrap_directory(state_fd, &w->dir, reterr));
	*ret = CEDE_TAKE(w);
	return CEDE_OK;
}

int wrap_check(const char *path, int state_fd, int source_fd, struct cede_error *reterr) {
	CLEANUP(wrap_closep) struct wrap *w = NULL;

	CEDE_TRY(open_secret(path, state_fd, &w, reterr));
	return wrap_is_apart(w, source_fd, reterr);
}

void wrap_close(struct wrap *w) {
	if (w == NULL)
		return;
	buf_done(&w->secret);
	fd_closep(&w->dir);
	free(w);
}

void wrap_closep(struct wrap **w) {
	wrap_close(*w);
	*w = NULL;
}

/* HKDF (RFC 5869): the secret may be of any length, and may serve something else as well. */
static bool derive(struct slice secret, uint8_t ret[32]) {
	static const char info[] = "cede vault wrap 1";
	EVP_KDF *kdf = EVP_KDF_fetch(NULL, "HKDF", NULL);
	EVP_KDF_CTX *ctx = kdf == NULL ? NULL : EVP_KDF_CTX_new(kdf);
	char digest[] = "SHA256";
	uint8_t *data = (uint8_t *)(uintptr_t)secret.data; /* only read */
	OSSL_PARAM params[] = {OSSL_PARAM_construct_utf8_string(OSSL_KDF_PARAM_DIGEST, digest, 0),
		OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_KEY, data, secret.len),
		OSSL_PARAM_construct_octet_string(
			OSSL_KDF_PARAM_INFO, (char *)(uintptr_t)info, sizeof info - 1),
		OSSL_PARAM_construct_end()};

	bool ok = ctx != NULL && EVP_KDF_derive(ctx, ret, 32, params) == 1;
	EVP_KDF_CTX_free(ctx);
	EVP_KDF_free(kdf);
	return ok;
}

/* The name of the key is bound in: a sealed key can't be given another's name. */
static bool begin(EVP_CIPHER_CTX *ctx, struct slice secret, const struct fscrypt_id *id,
	const uint8_t *nonce, bool sealing) {
	uint8_t kek[32];
	int n;
	bool ok = derive(secret, kek) &&
		EVP_CipherInit_ex2(ctx, EVP_aes_256_gcm(), kek, nonce, sealing, NULL) == 1 &&
		EVP_CipherUpdate(ctx, NULL, &n, (const uint8_t *)MAGIC, (int)MAGIC_SIZE) == 1 &&
		EVP_CipherUpdate(ctx, NULL, &n, id->bytes, (int)sizeof id->bytes) == 1;

	OPENSSL_cleanse(kek, sizeof kek);
	return ok;
}

int wrap_store(struct wrap *w, const struct fscrypt_id *id, const uint8_t key[FSCRYPT_KEY_SIZE],
	struct cede_error *reterr) {
	uint8_t file[FILE_SIZE];
	uint8_t *nonce = file + MAGIC_SIZE;
	uint8_t *body = nonce + NONCE_SIZE;
	char name[WRAP_NAME_SIZE];
	EVP_CIPHER_CTX *ctx = EVP_CIPHER_CTX_new();
	int n;

	memcpy(file, MAGIC, MAGIC_SIZE);
	bool ok = ctx != NULL && RAND_bytes(nonce, NONCE_SIZE) == 1 &&
		begin(ctx, buf_slice(&w->secret), id, nonce, true) &&
		EVP_CipherUpdate(ctx, body, &n, key, FSCRYPT_KEY_SIZE) == 1 &&
		n == FSCRYPT_KEY_SIZE && EVP_CipherFinal_ex(ctx, body + n, &n) == 1 &&
		EVP_CIPHER_CTX_ctrl(ctx, EVP_CTRL_AEAD_GET_TAG, TAG_SIZE, body + FSCRYPT_KEY_SIZE) ==
			1;
	EVP_CIPHER_CTX_free(ctx);
	if (!ok)
		return CEDE_FAIL(reterr, CEDE_ERR_CRYPTO, "seal the key of an epoch");
	wrap_name(id, name);
	return file_replace(w->dir, name, slice_of(file, sizeof file), 0600, reterr);
}

void wrap_forget(struct wrap *w, const struct fscrypt_id *id) {
	char name[WRAP_NAME_SIZE];

	wrap_name(id, name);
	(void)unlinkat(w->dir, name, 0);
}

int wrap_unseal(struct slice content, struct slice secret, const struct fscrypt_id *id,
	uint8_t ret_key[FSCRYPT_KEY_SIZE], struct cede_error *reterr) {
	uint8_t tag[TAG_SIZE];
	uint8_t key[FSCRYPT_KEY_SIZE];
	int n;

	if (content.len != FILE_SIZE || memcmp(content.data, MAGIC, MAGIC_SIZE) != 0)
		return CEDE_FAIL(reterr, CEDE_ERR_INPUT, "the sealed key of an epoch: damaged");
	const uint8_t *nonce = content.data + MAGIC_SIZE;
	const uint8_t *body = nonce + NONCE_SIZE;
	memcpy(tag, body + FSCRYPT_KEY_SIZE, sizeof tag);
	EVP_CIPHER_CTX *ctx = EVP_CIPHER_CTX_new();
	bool ok = ctx != NULL && begin(ctx, secret, id, nonce, false) &&
		EVP_CipherUpdate(ctx, key, &n, body, FSCRYPT_KEY_SIZE) == 1 &&
		EVP_CIPHER_CTX_ctrl(ctx, EVP_CTRL_AEAD_SET_TAG, TAG_SIZE, tag) == 1 &&
		EVP_CipherFinal_ex(ctx, key + n, &n) == 1;
	EVP_CIPHER_CTX_free(ctx);
	if (ok)
		memcpy(ret_key, key, sizeof key);
	OPENSSL_cleanse(key, sizeof key);
	return ok
		? CEDE_OK
		: CEDE_FAIL(reterr, CEDE_ERR_INPUT,
			  "the sealed key of an epoch does not open: vault.key is another than the one it was sealed with, or the file is damaged");
}

int wrap_load(struct wrap *w, const struct fscrypt_id *id, uint8_t ret_key[FSCRYPT_KEY_SIZE],
	struct cede_error *reterr) {
	CLEANUP(buf_done) struct buf content = BUF_INIT(FILE_SIZE + 1);
	CLEANUP(fd_closep) int fd = -1;
	char name[WRAP_NAME_SIZE];

	wrap_name(id, name);
	CEDE_TRY(file_open_beneath(w->dir, name, O_RDONLY, &fd, reterr));
	CEDE_TRY(file_load_fd(fd, &content, reterr));
	return wrap_unseal(buf_slice(&content), buf_slice(&w->secret), id, ret_key, reterr);
}
