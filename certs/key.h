/* SPDX-License-Identifier: Apache-2.0
 * Keys from files. Private keys are refused when others can read them; public keys and certificates
 * when others can write them.
 *
 * Fails   IO (no file), REFUSED (mode, owner, weak key), INPUT (not the expected PEM), CRYPTO. The
 *         text names the file and the mend. */
#pragma once

#include <openssl/types.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/error.h"

#define KEY_FILE_MAX 65536

/* EC P-256 or RSA of at least 3072 bits. Checked on the open descriptor: regular file, owned by
 * root or the running user, no right for group or others. */
CEDE_MUST_USE int key_load_private(
	int dirfd, const char *path, EVP_PKEY **ret, struct cede_error *reterr);
/* The same file's bytes, after the same checks (the courier gets them in a memory file). */
CEDE_MUST_USE int key_load_private_pem(
	int dirfd, const char *path, struct buf *pem, struct cede_error *reterr);
/* From such bytes; name stands in the messages. */
CEDE_MUST_USE int key_parse_private(
	struct slice pem, const char *name, EVP_PKEY **ret, struct cede_error *reterr);
/* "-----BEGIN PUBLIC KEY-----" (SubjectPublicKeyInfo, RFC 7468 section 13), EC P-256. */
CEDE_MUST_USE int key_load_public(
	int dirfd, const char *path, EVP_PKEY **ret, struct cede_error *reterr);
/* One certificate (RFC 7468 section 5). */
CEDE_MUST_USE int cert_load(int dirfd, const char *path, X509 **ret, struct cede_error *reterr);
/* The bytes of a public key's or certificate's file, after the checks of its owner and mode. */
CEDE_MUST_USE int key_file_load(
	int dirfd, const char *path, struct buf *out, struct cede_error *reterr);
/* The same from bytes; name stands in the messages. */
CEDE_MUST_USE int key_parse_public(
	struct slice pem, const char *name, EVP_PKEY **ret, struct cede_error *reterr);
CEDE_MUST_USE int cert_parse(
	struct slice pem, const char *name, X509 **ret, struct cede_error *reterr);
/* SHA-256 of the DER SubjectPublicKeyInfo: what pins compare and note key ids begin with. */
CEDE_MUST_USE int key_digest(EVP_PKEY *key, uint8_t ret_digest[32], struct cede_error *reterr);
/* The common name of the subject; REFUSED if there is none, several, or no valid host id. */
CEDE_MUST_USE int cert_host_id(X509 *cert, char *out, size_t size, struct cede_error *reterr);
/* notBefore and notAfter as wall time. */
CEDE_MUST_USE int cert_validity(
	X509 *cert, int64_t *ret_from_ns, int64_t *ret_until_ns, struct cede_error *reterr);

/* When the first of the certificates in a PEM text ends (UTC); 0: there is none. INPUT: one of them
 * can't be read; CRYPTO: it could not be told. */
CEDE_MUST_USE int certs_until(
	struct slice pem, const char *name, int64_t *ret_ns, struct cede_error *reterr);
void key_freep(EVP_PKEY **key); /* for CLEANUP() */
void cert_freep(X509 **cert);
