/* SPDX-License-Identifier: Apache-2.0
 * Sealing: CMS AuthEnvelopedData (RFC 5083, RFC 5084) with AES-256-GCM, one recipient for each
 * sealing certificate (EC P-256: ephemeral-static ECDH with SHA-256 KDF and AES-256 wrap, RFC 5753;
 * RSA of 3072 bits or more: OAEP with SHA-256, RFC 4056 family), no attributes. Suite 1.
 *
 * Promise the plaintext goes nowhere but into the cipher. The agent only writes CMS.
 * Thread  a struct sealer_keys may be shared by threads; a struct sealer belongs to one. */
#pragma once

#include <openssl/types.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/bytes.h"
#include "base/error.h"

#define SEAL_SUITE         "cms-aes256gcm/1"
#define SEAL_TO_MAX        16 /* certificates of one envelope; a policy names no more */
#define SEAL_PLAINTEXT_MAX (64U << 20)

struct sealer_keys;
struct sealer;

/* Checks each certificate: key type and size, key usage fit for it, subject key id present, valid
 * at now. REFUSED names the certificate and the mend. names[i] is what messages call certs[i].
 * over_too: one whose time is over is taken all the same; whoever holds the keys does not seal. */
CEDE_MUST_USE int sealer_keys_new(X509 *const *certs, const char *const *names, size_t n,
	int64_t now_ns, bool over_too, struct sealer_keys **ret, struct cede_error *reterr);
void sealer_keys_free(struct sealer_keys *keys);
/* Seals to them once, into a memory file that goes away: what the library sets up at its first use is
 * there before memory can be short. It remembers a failure for ever, and nothing could be sealed. */
CEDE_MUST_USE int sealer_keys_try(const struct sealer_keys *keys, struct cede_error *reterr);

/* Sealed bytes are written to out_fd (borrowed) from its current offset. */
CEDE_MUST_USE int sealer_new(
	const struct sealer_keys *keys, int out_fd, struct sealer **ret, struct cede_error *reterr);
CEDE_MUST_USE int sealer_write(struct sealer *s, struct slice plaintext, struct cede_error *reterr);
/* Writes the end and the tag; INPUT if nothing was written before. *ret_size and ret_sha256 are of the sealed bytes. */
CEDE_MUST_USE int sealer_finish(
	struct sealer *s, uint64_t *ret_size, uint8_t ret_sha256[32], struct cede_error *reterr);
void sealer_free(struct sealer *s); /* NULL allowed; also half-way */
void sealer_freep(struct sealer **s);
