/* SPDX-License-Identifier: Apache-2.0
 * The store: <store>/<host id>/<yyyy>/<mm>/<dd>/<bundle id>.cms with the receipt beside it as
 * .receipt, and a tombstone as .abandoned where the host gave an id up. The day is the id's own.
 *
 * Promise store_commit() returns 0 only when bundle, its names and all directories above it are on
 * the disk; a name appears once, whole, and is never overwritten, however many try. What was found
 * from an earlier life is flushed before anything is said of it. The receipt's own file is not
 * flushed (two flushes a bundle): one that is missing or damaged after a crash is made again, from
 * the stored bundle, when it is next asked for. There are no temporary names: a crash leaves
 * nothing to sweep. Thread  any. Two uploads of one id exclude each other by store_begin(). */
#pragma once

#include <openssl/types.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"
#include "formats/id.h"

struct store;
struct store_upload;

/* The key signs receipts (borrowed for the life of the store). */
CEDE_MUST_USE int store_open(const char *path, EVP_PKEY *receipt_key, const char *signer,
	struct store **ret, struct cede_error *reterr);
void store_close(struct store *s);

enum store_found { STORE_NONE, STORE_THERE, STORE_ABANDONED, STORE_IN_PROGRESS };

/* What is known of an id; with STORE_THERE its SHA-256, too (may be NULL). While an upload has the
 * id it is STORE_IN_PROGRESS, whatever its name: not durable yet. */
CEDE_MUST_USE int store_find(struct store *s, const char *host, const struct id *bundle,
	enum store_found *ret, uint8_t *ret_sha256, struct cede_error *reterr);
/* What a push brings of the host's ledger (receiver/custody.h): receipts name the newest checkpoint
 * that was taken. The upload's id is claimed: its folder is there. */
CEDE_MUST_USE int store_checkpoint(
	struct store *s, const char *host, struct slice value, struct cede_error *reterr);
/* The receipt's note. BUSY: no such bundle. */
CEDE_MUST_USE int store_receipt(struct store *s, const char *host, const struct id *bundle,
	struct buf *note, struct cede_error *reterr);
/* Durable promise that the id will never be stored. *ret says what stands against it, or
 * STORE_ABANDONED when it is done. */
CEDE_MUST_USE int store_abandon(struct store *s, const char *host, const struct id *bundle,
	enum store_found *ret, struct cede_error *reterr);

/* Claims the id for one upload (STORE_NONE) or says why not. */
CEDE_MUST_USE int store_begin(struct store *s, const char *host, const struct id *bundle,
	enum store_found *ret_found, struct store_upload **ret, struct cede_error *reterr);
/* IO with sys ENOSPC or EDQUOT: the store is full. */
CEDE_MUST_USE int store_write(
	struct store_upload *u, const void *data, size_t len, struct cede_error *reterr);
/* Checks the digest (INPUT: another), makes it durable, adds the receipt to note. */
CEDE_MUST_USE int store_commit(struct store_upload *u, const uint8_t sha256[32], struct buf *note,
	struct cede_error *reterr);
/* Ends it in any case; what was not committed is gone. NULL allowed. */
void store_end(struct store_upload *u);
