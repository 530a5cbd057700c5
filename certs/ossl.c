/* SPDX-License-Identifier: Apache-2.0 */
#include "certs/ossl.h"

#include <openssl/bio.h>
#include <openssl/crypto.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/rand.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

void ossl_error_set(struct cede_error *reterr, enum cede_err code, const char *fmt, ...) {
	char text[sizeof reterr->text];
	unsigned long newest = ERR_peek_last_error();
	const char *reason = ERR_reason_error_string(newest);
	va_list ap;

	va_start(ap, fmt);
	(void)vsnprintf(text, sizeof text, fmt, ap);
	va_end(ap);
	if (newest == 0)
		cede_error_set(reterr, code, "%s", text);
	else if (reason == NULL)
		cede_error_set(reterr, code, "%s (OpenSSL: error %08lx)", text, newest);
	else
		cede_error_set(reterr, code, "%s (OpenSSL: %s)", text, reason);
	ERR_clear_error();
}

int ossl_start(struct cede_error *reterr) {
	uint8_t random[16];

	if (RAND_bytes(random, sizeof random) != 1 || RAND_priv_bytes(random, sizeof random) != 1)
		return OSSL_FAIL(reterr, "no random numbers");
	OPENSSL_cleanse(random, sizeof random);
	return CEDE_OK;
}

bool ossl_is_p256(EVP_PKEY *key) {
	char group[64];
	size_t len;
	bool is = EVP_PKEY_is_a(key, "EC") &&
		EVP_PKEY_get_group_name(key, group, sizeof group, &len) == 1 &&
		strcmp(group, "prime256v1") == 0;

	ERR_clear_error();
	return is;
}

void ossl_bio_freep(BIO **bio) {
	BIO_vfree(*bio);
	*bio = NULL;
}

void ossl_bio_chain_freep(BIO **bio) {
	BIO_free_all(*bio);
	*bio = NULL;
}

void ossl_md_ctx_freep(EVP_MD_CTX **ctx) {
	EVP_MD_CTX_free(*ctx);
	*ctx = NULL;
}

void ossl_cms_freep(CMS_ContentInfo **cms) {
	CMS_ContentInfo_free(*cms);
	*cms = NULL;
}

void ossl_freep(void *pointer_to_pointer) {
	void *pointer;

	memcpy(&pointer, pointer_to_pointer, sizeof pointer);
	OPENSSL_free(pointer);
	pointer = NULL;
	memcpy(pointer_to_pointer, &pointer, sizeof pointer);
}
