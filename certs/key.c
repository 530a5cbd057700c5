/* SPDX-License-Identifier: Apache-2.0 */
#include "certs/key.h"

#include <fcntl.h>
#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509.h>
#include <stdbool.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/credential.h"
#include "base/file.h"
#include "base/key_file.h"
#include "certs/host_id.h"
#include "certs/ossl.h"

#define RSA_BITS_MIN 3072

static int load_file(
	int dirfd, const char *path, mode_t forbidden, struct buf *out, struct cede_error *reterr) {
	CLEANUP(fd_closep)
	int fd = openat(dirfd, path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);

	if (fd < 0) {
		int sys = errno;
		CEDE_TRY(credential_there(path, reterr));
		errno = sys;
		return CEDE_FAIL_SYS(reterr, "open %s", path);
	}
	CEDE_TRY(key_file_check(fd, path, forbidden, reterr));
	int r = file_load_fd(fd, out, reterr);
	if (r < 0)
		cede_error_within(reterr, "%s", path);
	return r;
}

/* OpenSSL would ask for a pass phrase on the terminal. */
static int no_pass_phrase(char *out, int size, int writing, void *ctx) {
	(void)out;
	(void)size;
	(void)writing;
	(void)ctx;
	return -1;
}

static int check_strength(EVP_PKEY *key, const char *path, struct cede_error *reterr) {
	if (ossl_is_p256(key))
		return CEDE_OK;
	if (EVP_PKEY_is_a(key, "RSA") && EVP_PKEY_get_bits(key) >= RSA_BITS_MIN)
		return CEDE_OK;
	return CEDE_FAIL(reterr, CEDE_ERR_REFUSED,
		"%s: neither EC P-256 nor RSA of %d bits or more: make a new key (openssl genpkey "
		"-algorithm EC -pkeyopt ec_paramgen_curve:P-256)",
		path, RSA_BITS_MIN);
}

int key_parse_private(struct slice pem, const char *name, EVP_PKEY **ret, struct cede_error *reterr) {
	CLEANUP(ossl_bio_freep) BIO *bio = BIO_new_mem_buf(pem.data, (int)pem.len);

	if (bio == NULL)
		return OSSL_FAIL(reterr, "%s", name);
	CLEANUP(key_freep) EVP_PKEY *key = PEM_read_bio_PrivateKey(bio, NULL, no_pass_phrase, NULL);
	if (key == NULL)
		return OSSL_FAIL_AS(reterr, CEDE_ERR_INPUT,
			"%s: a private key in PEM without pass phrase expected", name);
	CEDE_TRY(check_strength(key, name, reterr));
	*ret = CEDE_TAKE(key);
	return CEDE_OK;
}

int key_load_private_pem(int dirfd, const char *path, struct buf *pem, struct cede_error *reterr) {
	CLEANUP(key_freep) EVP_PKEY *key = NULL;
	CLEANUP(buf_done) struct buf file = BUF_INIT(KEY_FILE_MAX);

	CEDE_TRY(load_file(dirfd, path, KEY_FILE_SECRET, &file, reterr));
	CEDE_TRY(key_parse_private(buf_slice(&file), path, &key, reterr));
	return buf_add(pem, file.data, file.len, reterr);
}

int key_load_private(int dirfd, const char *path, EVP_PKEY **ret, struct cede_error *reterr) {
	CLEANUP(buf_done) struct buf file = BUF_INIT(KEY_FILE_MAX);

	CEDE_TRY(load_file(dirfd, path, KEY_FILE_SECRET, &file, reterr));
	return key_parse_private(buf_slice(&file), path, ret, reterr);
}

int key_file_load(int dirfd, const char *path, struct buf *out, struct cede_error *reterr) {
	return load_file(dirfd, path, KEY_FILE_PUBLIC, out, reterr);
}

int key_parse_public(struct slice pem, const char *name, EVP_PKEY **ret, struct cede_error *reterr) {
	CLEANUP(ossl_bio_freep) BIO *bio = BIO_new_mem_buf(pem.data, (int)pem.len);

	if (bio == NULL)
		return OSSL_FAIL(reterr, "%s", name);
	CLEANUP(key_freep) EVP_PKEY *key = PEM_read_bio_PUBKEY(bio, NULL, no_pass_phrase, NULL);
	if (key == NULL)
		return OSSL_FAIL_AS(reterr, CEDE_ERR_INPUT,
			"%s: a public key in PEM expected (\"-----BEGIN PUBLIC KEY-----\")", name);
	CEDE_TRY(check_strength(key, name, reterr));
	if (!EVP_PKEY_is_a(key, "EC"))
		return CEDE_FAIL(reterr, CEDE_ERR_REFUSED,
			"%s: signatures are ECDSA P-256: an EC key expected", name);
	*ret = CEDE_TAKE(key);
	return CEDE_OK;
}

int key_load_public(int dirfd, const char *path, EVP_PKEY **ret, struct cede_error *reterr) {
	CLEANUP(buf_done) struct buf file = BUF_INIT(KEY_FILE_MAX);

	CEDE_TRY(key_file_load(dirfd, path, &file, reterr));
	return key_parse_public(buf_slice(&file), path, ret, reterr);
}

int cert_parse(struct slice pem, const char *name, X509 **ret, struct cede_error *reterr) {
	CLEANUP(ossl_bio_freep) BIO *bio = BIO_new_mem_buf(pem.data, (int)pem.len);

	if (bio == NULL)
		return OSSL_FAIL(reterr, "%s", name);
	CLEANUP(cert_freep) X509 *cert = PEM_read_bio_X509(bio, NULL, no_pass_phrase, NULL);
	if (cert == NULL)
		return OSSL_FAIL_AS(reterr, CEDE_ERR_INPUT,
			"%s: a certificate in PEM expected (\"-----BEGIN CERTIFICATE-----\")", name);
	CLEANUP(cert_freep) X509 *second = PEM_read_bio_X509(bio, NULL, no_pass_phrase, NULL);
	ERR_clear_error();
	if (second != NULL)
		return CEDE_FAIL(
			reterr, CEDE_ERR_INPUT, "%s: only one certificate may stand in it", name);
	*ret = CEDE_TAKE(cert);
	return CEDE_OK;
}

int cert_load(int dirfd, const char *path, X509 **ret, struct cede_error *reterr) {
	CLEANUP(buf_done) struct buf file = BUF_INIT(KEY_FILE_MAX);

	CEDE_TRY(key_file_load(dirfd, path, &file, reterr));
	return cert_parse(buf_slice(&file), path, ret, reterr);
}

int key_digest(EVP_PKEY *key, uint8_t ret_digest[32], struct cede_error *reterr) {
	CLEANUP(ossl_freep) uint8_t *der = NULL;
	int len = i2d_PUBKEY(key, &der);

	if (len < 0 || EVP_Q_digest(NULL, "SHA256", NULL, der, (size_t)len, ret_digest, NULL) != 1)
		return OSSL_FAIL(reterr, "digest of a public key");
	return CEDE_OK;
}

int cert_host_id(X509 *cert, char *out, size_t size, struct cede_error *reterr) {
	const X509_NAME *subject = X509_get_subject_name(cert);
	int at = X509_NAME_get_index_by_NID(subject, NID_commonName, -1);
	CLEANUP(ossl_freep) uint8_t *name = NULL;

	if (at < 0)
		return CEDE_FAIL(reterr, CEDE_ERR_REFUSED,
			"the certificate's subject has no common name (the host id)");
	if (X509_NAME_get_index_by_NID(subject, NID_commonName, at) >= 0)
		return CEDE_FAIL(reterr, CEDE_ERR_REFUSED,
			"the certificate's subject has several common names");
	int len = ASN1_STRING_to_UTF8(
		&name, X509_NAME_ENTRY_get_data(X509_NAME_get_entry(subject, at)));
	if (len < 0)
		return OSSL_FAIL(reterr, "common name of the certificate");
	if (!host_id_valid(slice_of(name, (size_t)len)))
		return CEDE_FAIL(reterr, CEDE_ERR_REFUSED,
			"the certificate's common name is no host id (1 to %d of A-Z a-z 0-9 . _ -, "
			"not starting with . or -)",
			HOST_ID_MAX);
	if ((size_t)len + 1 > size)
		return CEDE_FAIL(reterr, CEDE_ERR_BUG, "no room for the host id");
	memcpy(out, name, (size_t)len);
	out[len] = 0;
	return CEDE_OK;
}

static int time_of(const ASN1_TIME *time, int64_t *ret_ns, struct cede_error *reterr) {
	struct tm tm;
	int64_t ns;

	if (ASN1_TIME_to_tm(time, &tm) != 1)
		return OSSL_FAIL_AS(reterr, CEDE_ERR_INPUT, "date of the certificate");
	if (__builtin_mul_overflow((int64_t)timegm(&tm), NS_PER_SECOND, &ns))
		ns = tm.tm_year < 70 ? INT64_MIN : INT64_MAX; /* "no end" is 99991231235959Z */
	*ret_ns = ns;
	return CEDE_OK;
}

int cert_validity(X509 *cert, int64_t *ret_from_ns, int64_t *ret_until_ns, struct cede_error *reterr) {
	int64_t from, until;

	CEDE_TRY(time_of(X509_get0_notBefore(cert), &from, reterr));
	CEDE_TRY(time_of(X509_get0_notAfter(cert), &until, reterr));
	*ret_from_ns = from;
	*ret_until_ns = until;
	return CEDE_OK;
}

int certs_until(struct slice pem, const char *name, int64_t *ret_ns, struct cede_error *reterr) {
	CLEANUP(ossl_bio_freep) BIO *bio = BIO_new_mem_buf(pem.data, (int)pem.len);
	int64_t first = 0;
	X509 *cert;

	if (bio == NULL)
		return OSSL_FAIL(reterr, "%s", name);
	while ((cert = PEM_read_bio_X509(bio, NULL, no_pass_phrase, NULL)) != NULL) {
		int64_t from, until;
		int r = cert_validity(cert, &from, &until, reterr);
		X509_free(cert);
		CEDE_TRY(r);
		if (first == 0 || until < first)
			first = until;
	}
	unsigned long last = ERR_peek_last_error();
	int reason = ERR_GET_REASON(last);
	if (ERR_GET_LIB(last) != ERR_LIB_PEM || reason != PEM_R_NO_START_LINE)
		return OSSL_FAIL_AS(reterr,
			reason == ERR_R_MALLOC_FAILURE ? CEDE_ERR_CRYPTO : CEDE_ERR_INPUT,
			"%s: a certificate in it can't be read", name);
	ERR_clear_error();
	*ret_ns = first;
	return CEDE_OK;
}

void key_freep(EVP_PKEY **key) {
	EVP_PKEY_free(*key);
	*key = NULL;
}

void cert_freep(X509 **cert) {
	X509_free(*cert);
	*cert = NULL;
}
