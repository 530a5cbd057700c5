/* SPDX-License-Identifier: Apache-2.0 */
#include "certs/seal.h"

#include <openssl/bio.h>
#include <openssl/cms.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/rsa.h>
#include <openssl/x509v3.h>
#include <stdbool.h>
#include <stdlib.h>

#include "base/cleanup.h"
#include "base/file.h"
#include "certs/key.h"
#include "certs/ossl.h"

#define RSA_BITS_MIN 3072
/* The cipher hands its output on in pieces of 4 KiB, and each piece that reaches the DER writer
 * becomes an OCTET STRING and several writes of its own: gathered, sealing is 40 % faster. */
#define GATHER_SIZE (256 * 1024)

struct sealer_keys {
	size_t count;
	X509 *certs[SEAL_TO_MAX];
};

/* plaintext -> cipher -> gather -> CMS frame -> sink (hash, count, write) */
struct sealer {
	int fd;
	uint64_t plaintext;
	uint64_t size;
	bool failed;
	struct cede_error failure; /* of the sink: BIOs only say "no" */
	EVP_MD_CTX *sha256;
	BIO_METHOD *method;
	CMS_ContentInfo *cms;
	BIO *chain;
};

static int check_cert(
	X509 *cert, const char *name, int64_t now_ns, bool over_too, struct cede_error *reterr) {
	EVP_PKEY *key = X509_get0_pubkey(cert);
	int64_t from, until;
	uint32_t usage;

	if (key == NULL || (X509_get_extension_flags(cert) & EXFLAG_INVALID) != 0)
		return OSSL_FAIL_AS(
			reterr, CEDE_ERR_REFUSED, "%s: damaged or unknown key: make it anew", name);
	if (ossl_is_p256(key))
		usage = KU_KEY_AGREEMENT;
	else if (EVP_PKEY_is_a(key, "RSA") && EVP_PKEY_get_bits(key) >= RSA_BITS_MIN)
		usage = KU_KEY_ENCIPHERMENT;
	else
		return CEDE_FAIL(reterr, CEDE_ERR_REFUSED,
			"%s: sealing needs an EC P-256 key or RSA of %d bits or more", name,
			RSA_BITS_MIN);
	if ((X509_get_key_usage(cert) & usage) == 0)
		return CEDE_FAIL(reterr, CEDE_ERR_REFUSED,
			"%s: its key usage lacks %s: not a certificate for sealing", name,
			usage == KU_KEY_AGREEMENT ? "keyAgreement" : "keyEncipherment");
	if (X509_get0_subject_key_id(cert) == NULL)
		return CEDE_FAIL(reterr, CEDE_ERR_REFUSED,
			"%s: it has no subject key identifier: make it anew with "
			"subjectKeyIdentifier=hash",
			name);
	CEDE_TRY(cert_validity(cert, &from, &until, reterr));
	if (now_ns < from || (now_ns > until && !over_too))
		return CEDE_FAIL(reterr, CEDE_ERR_REFUSED, "%s: %s", name,
			now_ns < from ? "not valid yet: look at the clock"
				      : "expired: the agency must send the next one");
	return CEDE_OK;
}

int sealer_keys_new(X509 *const *certs, const char *const *names, size_t n, int64_t now_ns,
	bool over_too, struct sealer_keys **ret, struct cede_error *reterr) {
	if (n == 0 || n > SEAL_TO_MAX)
		return CEDE_FAIL(reterr, CEDE_ERR_REFUSED,
			"1 to %d sealing certificates expected, not %zu", SEAL_TO_MAX, n);
	for (size_t i = 0; i < n; i++)
		CEDE_TRY(check_cert(certs[i], names[i], now_ns, over_too, reterr));
	struct sealer_keys *keys = calloc(1, sizeof *keys);
	if (keys == NULL)
		return CEDE_FAIL_MEMORY(reterr);
	for (; keys->count < n; keys->count++) {
		if (X509_up_ref(certs[keys->count]) != 1) {
			sealer_keys_free(keys);
			return OSSL_FAIL(reterr, "sealing certificate");
		}
		keys->certs[keys->count] = certs[keys->count];
	}
	*ret = keys;
	return CEDE_OK;
}

void sealer_keys_free(struct sealer_keys *keys) {
	if (keys == NULL)
		return;
	for (size_t i = 0; i < keys->count; i++)
		X509_free(keys->certs[i]);
	free(keys);
}

static int sink_write(BIO *bio, const char *data, size_t len, size_t *ret_len) {
	struct sealer *s = BIO_get_data(bio);

	if (s->failed || file_write_all(s->fd, data, len, &s->failure) < 0) {
		s->failed = true;
		return 0;
	}
	if (EVP_DigestUpdate(s->sha256, data, len) != 1) {
		ossl_error_set(&s->failure, CEDE_ERR_CRYPTO, "SHA-256");
		s->failed = true;
		return 0;
	}
	s->size += len;
	*ret_len = len;
	return 1;
}

static long sink_ctrl(BIO *bio, int command, long number, void *pointer) {
	(void)bio;
	(void)number;
	(void)pointer;
	return command == BIO_CTRL_FLUSH ? 1 : 0;
}

static int sink_create(BIO *bio) {
	BIO_set_init(bio, 1);
	return 1;
}

static int make_sink(struct sealer *s, BIO **ret, struct cede_error *reterr) {
	s->method = BIO_meth_new(BIO_TYPE_SOURCE_SINK, "cede sealed bytes");
	s->sha256 = EVP_MD_CTX_new();
	if (s->method == NULL || s->sha256 == NULL ||
		EVP_DigestInit_ex2(s->sha256, EVP_sha256(), NULL) != 1 ||
		BIO_meth_set_write_ex(s->method, sink_write) != 1 ||
		BIO_meth_set_ctrl(s->method, sink_ctrl) != 1 ||
		BIO_meth_set_create(s->method, sink_create) != 1)
		return OSSL_FAIL(reterr, "start sealing");
	BIO *sink = BIO_new(s->method);
	if (sink == NULL)
		return OSSL_FAIL(reterr, "start sealing");
	BIO_set_data(sink, s);
	*ret = sink;
	return CEDE_OK;
}

static int add_recipient(CMS_ContentInfo *cms, X509 *cert, struct cede_error *reterr) {
	CMS_RecipientInfo *info = CMS_add1_recipient_cert(cms, cert, CMS_USE_KEYID | CMS_KEY_PARAM);
	EVP_PKEY_CTX *ctx = info == NULL ? NULL : CMS_RecipientInfo_get0_pkey_ctx(info);

	if (ctx == NULL)
		return OSSL_FAIL(reterr, "add a recipient");
	if (EVP_PKEY_is_a(X509_get0_pubkey(cert), "EC")) {
		if (EVP_PKEY_CTX_set_ecdh_kdf_md(ctx, EVP_sha256()) <= 0)
			return OSSL_FAIL(reterr, "ECDH with SHA-256");
	} else if (EVP_PKEY_CTX_set_rsa_padding(ctx, RSA_PKCS1_OAEP_PADDING) <= 0 ||
		EVP_PKEY_CTX_set_rsa_oaep_md(ctx, EVP_sha256()) <= 0 ||
		EVP_PKEY_CTX_set_rsa_mgf1_md(ctx, EVP_sha256()) <= 0) {
		return OSSL_FAIL(reterr, "RSA-OAEP with SHA-256");
	}
	return CEDE_OK;
}

/* Puts the gathering buffer between the cipher (the chain's first) and the rest. */
static int insert_gather(BIO *chain, struct cede_error *reterr) {
	BIO *gather = BIO_new(BIO_f_buffer());

	if (gather == NULL || BIO_set_write_buffer_size(gather, GATHER_SIZE) != 1) {
		BIO_free(gather);
		return OSSL_FAIL(reterr, "start sealing");
	}
	BIO *rest = BIO_pop(chain);
	(void)BIO_push(gather, rest);
	(void)BIO_push(chain, gather);
	return CEDE_OK;
}

static int start(struct sealer *s, const struct sealer_keys *keys, struct cede_error *reterr) {
	BIO *sink;

	s->cms = CMS_AuthEnvelopedData_create_ex(EVP_aes_256_gcm(), NULL, NULL);
	if (s->cms == NULL)
		return OSSL_FAIL(reterr, "start sealing");
	for (size_t i = 0; i < keys->count; i++)
		CEDE_TRY(add_recipient(s->cms, keys->certs[i], reterr));
	CEDE_TRY(make_sink(s, &sink, reterr));
	s->chain = BIO_new_CMS(sink, s->cms);
	if (s->chain == NULL) {
		BIO_free(sink);
		return OSSL_FAIL(reterr, "start sealing");
	}
	return insert_gather(s->chain, reterr);
}

int sealer_new(const struct sealer_keys *keys, int out_fd, struct sealer **ret,
	struct cede_error *reterr) {
	CLEANUP(sealer_freep) struct sealer *s = calloc(1, sizeof *s);

	if (s == NULL)
		return CEDE_FAIL_MEMORY(reterr);
	s->fd = out_fd;
	CEDE_TRY(start(s, keys, reterr));
	*ret = CEDE_TAKE(s);
	return CEDE_OK;
}

/* After a failure the frame is broken: nothing more can be sealed with s. */
static int failed(struct sealer *s, const char *what, struct cede_error *reterr) {
	if (!s->failed)
		ossl_error_set(&s->failure, CEDE_ERR_CRYPTO, "%s", what);
	s->failed = true;
	ERR_clear_error();
	if (reterr != NULL)
		*reterr = s->failure;
	return s->failure.code;
}

int sealer_write(struct sealer *s, struct slice plaintext, struct cede_error *reterr) {
	size_t written;

	if (s->failed)
		return failed(s, "", reterr);
	if (plaintext.len > SEAL_PLAINTEXT_MAX - s->plaintext)
		return CEDE_FAIL(reterr, CEDE_ERR_INPUT,
			"more than the %u bytes that one envelope may hold", SEAL_PLAINTEXT_MAX);
	if (plaintext.len == 0)
		return CEDE_OK;
	if (BIO_write_ex(s->chain, plaintext.data, plaintext.len, &written) != 1 ||
		written != plaintext.len || s->failed)
		return failed(s, "seal", reterr);
	s->plaintext += plaintext.len;
	return CEDE_OK;
}

int sealer_finish(
	struct sealer *s, uint64_t *ret_size, uint8_t ret_sha256[32], struct cede_error *reterr) {
	if (!s->failed && s->plaintext == 0)
		return CEDE_FAIL(reterr, CEDE_ERR_INPUT, "nothing to seal");
	if (s->failed || BIO_flush(s->chain) != 1 || s->failed)
		return failed(s, "finish sealing", reterr);
	if (EVP_DigestFinal_ex(s->sha256, ret_sha256, NULL) != 1)
		return failed(s, "SHA-256", reterr);
	*ret_size = s->size;
	s->failed = true; /* whatever comes now is too late */
	cede_error_set(&s->failure, CEDE_ERR_BUG, "sealed already");
	return CEDE_OK;
}

void sealer_free(struct sealer *s) {
	if (s == NULL)
		return;
	s->failed = true; /* freeing must not write */
	BIO_free_all(s->chain);
	CMS_ContentInfo_free(s->cms);
	BIO_meth_free(s->method);
	EVP_MD_CTX_free(s->sha256);
	free(s);
}

void sealer_freep(struct sealer **s) {
	sealer_free(*s);
	*s = NULL;
}

int sealer_keys_try(const struct sealer_keys *keys, struct cede_error *reterr) {
	CLEANUP(sealer_freep) struct sealer *s = NULL;
	CLEANUP(fd_closep) int fd = -1;
	uint8_t sha256[32];
	uint64_t size;

	CEDE_TRY(file_memory("sealed", &fd, reterr));
	CEDE_TRY(sealer_new(keys, fd, &s, reterr));
	CEDE_TRY(sealer_write(s, SLICE_LIT("tried"), reterr));
	return sealer_finish(s, &size, sha256, reterr);
}
