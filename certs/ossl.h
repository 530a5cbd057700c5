/* SPDX-License-Identifier: Apache-2.0
 * OpenSSL's error queue as our error, and release functions for CLEANUP(). */
#pragma once

#include <openssl/cms.h>
#include <openssl/types.h>
#include <stdbool.h>

#include "base/error.h"

/* Empties the queue of this thread; the newest entry's words go behind the text. */
void ossl_error_set(struct cede_error *reterr, enum cede_err code, const char *fmt, ...)
	CEDE_PRINTF(3, 4);

#define OSSL_FAIL(reterr, ...) \
	(ossl_error_set((reterr), CEDE_ERR_CRYPTO, __VA_ARGS__), (int)CEDE_ERR_CRYPTO)
#define OSSL_FAIL_AS(reterr, code, ...) (ossl_error_set((reterr), (code), __VA_ARGS__), (int)(code))

/* Sets up what OpenSSL would set up when it first needs random numbers: if memory were short then,
 * it would remember the failure for ever. CRYPTO: it can't. */
CEDE_MUST_USE int ossl_start(struct cede_error *reterr);
bool ossl_is_p256(EVP_PKEY *key);

void ossl_bio_freep(BIO **bio);           /* one BIO */
void ossl_bio_chain_freep(BIO **bio);     /* and all behind it */
void ossl_md_ctx_freep(EVP_MD_CTX **ctx); /* NULL allowed, as in all of these */
void ossl_cms_freep(CMS_ContentInfo **cms);
void ossl_freep(void *pointer_to_pointer); /* what OPENSSL_malloc gave */
