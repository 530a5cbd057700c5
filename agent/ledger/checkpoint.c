/* SPDX-License-Identifier: Apache-2.0 */
#include "formats/checkpoint.h"

#include <fcntl.h>
#include <openssl/ec.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509.h>
#include <stdio.h>
#include <string.h>

#include "agent/ledger/ledger_internal.h"
#include "base/cleanup.h"
#include "base/file.h"
#include "base/hex.h"
#include "certs/base64.h"
#include "certs/key.h"

void ledger_signer_done(struct ledger_signer *signer) {
	EVP_PKEY_free(signer->key);
	buf_done(&signer->key_der);
	buf_done(&signer->note);
}

/* ---- keys */

static int get_key(struct ledger *l, const char *role, uint8_t ret[32], bool *ret_there,
	struct cede_error *reterr) {
	sqlite3_stmt *st;

	CEDE_TRY(ledger_use(l, ST_KEY_GET, &st, reterr));
	LEDGER_TRY_BIND(l, sqlite3_bind_text(st, 1, role, -1, SQLITE_STATIC), reterr);
	CEDE_TRY(ledger_row(l, st, ret_there, reterr));
	if (*ret_there && sqlite3_column_bytes(st, 0) == 32)
		memcpy(ret, sqlite3_column_blob(st, 0), 32);
	(void)sqlite3_reset(st);
	return CEDE_OK;
}

/* More of the new key may stand in l->detail already. */
static int set_key(struct ledger *l, const char *role, const uint8_t *was, const uint8_t now[32],
	int64_t now_ns, struct cede_error *reterr) {
	sqlite3_stmt *st;
	char text[65];

	CEDE_TRY(detail_add(&l->detail, "role", slice_str(role), reterr));
	if (was != NULL) {
		hex_print(was, 32, text);
		CEDE_TRY(detail_add(&l->detail, "was", slice_str(text), reterr));
	}
	hex_print(now, 32, text);
	CEDE_TRY(detail_add(&l->detail, "now", slice_str(text), reterr));
	CEDE_TRY(ledger_event_detail(l, LEDGER_KEY_CHANGED, NULL, now_ns, reterr));
	CEDE_TRY(ledger_use(l, ST_KEY_SET, &st, reterr));
	LEDGER_TRY_BIND(l, sqlite3_bind_text(st, 1, role, -1, SQLITE_STATIC), reterr);
	LEDGER_TRY_BIND(l, sqlite3_bind_blob(st, 2, now, 32, SQLITE_STATIC), reterr);
	return ledger_run(l, st, reterr);
}

int ledger_key_seen(struct ledger *l, const char *role, const uint8_t digest[32], int64_t now_ns,
	struct cede_error *reterr) {
	uint8_t known[32] = {0};
	bool there;

	CEDE_TRY(get_key(l, role, known, &there, reterr));
	if (there && memcmp(known, digest, sizeof known) == 0)
		return CEDE_OK;
	buf_clear(&l->detail);
	return set_key(l, role, there ? known : NULL, digest, now_ns, reterr);
}

static int take_key(struct ledger *l, const char *host, EVP_PKEY *key, struct cede_error *reterr) {
	struct ledger_signer *s = &l->signer;
	uint8_t der[CHECKPOINT_KEY_MAX];
	uint8_t *at = der;
	int len = i2d_PUBKEY(key, NULL);

	if (len <= 0 || (size_t)len > sizeof der || i2d_PUBKEY(key, &at) != len ||
		EVP_PKEY_up_ref(key) != 1)
		return CEDE_FAIL(reterr, CEDE_ERR_CRYPTO, "the ledger's key has no public half");
	EVP_PKEY_free(s->key);
	s->key = key;
	buf_clear(&s->key_der);
	(void)snprintf(s->host, sizeof s->host, "%s", host);
	return buf_add(&s->key_der, der, (size_t)len, reterr);
}

static int write_key(int dir, EVP_PKEY *key, struct cede_error *reterr) {
	BIO *memory = BIO_new(BIO_s_secmem() != NULL ? BIO_s_secmem() : BIO_s_mem());
	char *pem = NULL;
	int r = CEDE_OK;

	if (memory == NULL || PEM_write_bio_PrivateKey(memory, key, NULL, NULL, 0, NULL, NULL) != 1)
		r = CEDE_FAIL(reterr, CEDE_ERR_CRYPTO, "the ledger's key can't be written");
	long len = r < 0 ? 0 : BIO_get_mem_data(memory, &pem);
	if (r == CEDE_OK)
		r = file_create(dir, LEDGER_KEY_NAME, slice_of(pem, (size_t)len), 0600, reterr);
	BIO_free_all(memory);
	return r;
}

static int key_event(struct ledger *l, const uint8_t *was, const uint8_t now[32], int64_t now_ns,
	struct cede_error *reterr) {
	CLEANUP(buf_done) struct buf der = BUF_INIT(2 * CHECKPOINT_KEY_MAX);

	/* whole, so that what was exported can be verified without asking anybody */
	CEDE_TRY(base64_encode(buf_slice(&l->signer.key_der), &der, reterr));
	buf_clear(&l->detail);
	CEDE_TRY(detail_add(&l->detail, "key", buf_slice(&der), reterr));
	CEDE_TRY(detail_add(&l->detail, "host", slice_str(l->signer.host), reterr));
	return set_key(l, "ledger", was, now, now_ns, reterr);
}

/* The event first: a crash between the two costs a key that nobody has used. */
static int record_key(struct ledger *l, const uint8_t *was, const uint8_t now[32], int64_t now_ns,
	struct cede_error *reterr) {
	CEDE_TRY(ledger_begin(l, reterr));
	int r = key_event(l, was, now, now_ns, reterr);
	if (r == CEDE_OK)
		r = ledger_commit(l, reterr);
	if (r < 0)
		ledger_rollback(l);
	return r;
}

int ledger_sign_as(struct ledger *l, const char *state_dir, const char *host, int64_t now_ns,
	struct cede_error *reterr) {
	CLEANUP(key_freep) EVP_PKEY *key = NULL;
	CLEANUP(fd_closep) int dir = -1;
	uint8_t known[32] = {0}, digest[32];
	bool there;

	CEDE_TRY(file_open_dir(AT_FDCWD, state_dir, &dir, reterr));
	CEDE_TRY(get_key(l, "ledger", known, &there, reterr));
	bool made = faccessat(dir, LEDGER_KEY_NAME, F_OK, 0) < 0 && errno == ENOENT;
	if (made && (key = EVP_EC_gen("P-256")) == NULL)
		return CEDE_FAIL(reterr, CEDE_ERR_CRYPTO, "no key for the ledger can be made");
	if (!made)
		CEDE_TRY(key_load_private(dir, LEDGER_KEY_NAME, &key, reterr));
	CEDE_TRY(key_digest(key, digest, reterr));
	if (!made && there && memcmp(known, digest, sizeof digest) != 0)
		return CEDE_FAIL(reterr, CEDE_ERR_REFUSED,
			"%s/%s is not the key of the ledger beside it: one of the two is another host's, or from a backup; restore both together",
			state_dir, LEDGER_KEY_NAME);
	CEDE_TRY(take_key(l, host, key, reterr));
	if (made || !there)
		CEDE_TRY(record_key(l, there ? known : NULL, digest, now_ns, reterr));
	return made ? write_key(dir, key, reterr) : CEDE_OK;
}

/* ---- checkpoints */

static int sign(struct ledger *l, int64_t now_ns, struct cede_error *reterr) {
	struct ledger_signer *s = &l->signer;
	struct checkpoint c = {.size = l->sequence, .at_ns = now_ns};

	if (s->note_size == l->sequence)
		return CEDE_OK;
	(void)snprintf(c.host, sizeof c.host, "%s", s->host);
	CEDE_TRY(merkle_root(&l->hasher, &l->edge, c.root, reterr));
	buf_clear(&s->note);
	s->note_size = 0;
	CEDE_TRY(checkpoint_sign(&c, s->key, &s->note, reterr));
	s->note_size = c.size;
	return CEDE_OK;
}

static int known_there(
	struct ledger *l, struct slice destination, uint64_t *ret_size, struct cede_error *reterr) {
	sqlite3_stmt *st;
	bool there;

	CEDE_TRY(ledger_use(l, ST_ACK_GET, &st, reterr));
	LEDGER_TRY_BIND(l,
		sqlite3_bind_text(
			st, 1, (const char *)destination.data, (int)destination.len, SQLITE_STATIC),
		reterr);
	CEDE_TRY(ledger_row(l, st, &there, reterr));
	*ret_size = there ? (uint64_t)sqlite3_column_int64(st, 0) : 0;
	(void)sqlite3_reset(st);
	return CEDE_OK;
}

int ledger_checkpoint(struct ledger *l, struct slice destination, int64_t now_ns, struct buf *note,
	struct buf *field, struct cede_error *reterr) {
	const struct ledger_signer *s = &l->signer;
	struct merkle_proof proof = {0};
	uint64_t from = 0;

	buf_clear(note);
	buf_clear(field);
	CEDE_TRY(ledger_flush_wiped(l, reterr));
	if (s->key == NULL || l->sequence == 0)
		return CEDE_OK;
	CEDE_TRY(sign(l, now_ns, reterr));
	CEDE_TRY(known_there(l, destination, &from, reterr));
	if (from > l->sequence) /* it was acknowledged: can't be */
		return CEDE_FAIL(reterr, CEDE_ERR_INPUT,
			"ledger: damaged: it is shorter than what the agency has acknowledged");
	if (from > 0)
		CEDE_TRY(merkle_consistency(
			&l->hasher, from, l->sequence, ledger_tree_get, l, &proof, reterr));
	CEDE_TRY(buf_add(note, s->note.data, s->note.len, reterr));
	return checkpoint_field_write(
		buf_slice(&s->note), buf_slice(&s->key_der), from, &proof, field, reterr);
}

static int alive_event(struct ledger *l, int64_t now_ns, struct cede_error *reterr) {
	sqlite3_stmt *st;
	bool there;

	CEDE_TRY(ledger_use(l, ST_OLDEST_ROW, &st, reterr));
	CEDE_TRY(ledger_row(l, st, &there, reterr));
	int64_t oldest = there ? sqlite3_column_int64(st, 0) : 0; /* NULL: 0 */
	(void)sqlite3_reset(st);
	buf_clear(&l->detail);
	CEDE_TRY(detail_add_i64(&l->detail, "oldest", oldest, reterr));
	return ledger_event_detail(l, LEDGER_CHECKPOINT, NULL, now_ns, reterr);
}

int ledger_checkpoint_keep(
	struct ledger *l, bool with_event, int64_t now_ns, struct cede_error *reterr) {
	sqlite3_stmt *st;

	if (with_event)
		CEDE_TRY(alive_event(l, now_ns, reterr));
	if (l->signer.key == NULL || l->sequence == 0)
		return CEDE_OK;
	CEDE_TRY(sign(l, now_ns, reterr));
	CEDE_TRY(ledger_use(l, ST_CHECKPOINT_ADD, &st, reterr));
	LEDGER_TRY_BIND(l, sqlite3_bind_int64(st, 1, (int64_t)l->sequence), reterr);
	LEDGER_TRY_BIND(l, sqlite3_bind_int64(st, 2, now_ns), reterr);
	LEDGER_TRY_BIND(l,
		sqlite3_bind_blob(st, 3, l->signer.note.data, (int)l->signer.note.len, SQLITE_STATIC),
		reterr);
	return ledger_run(l, st, reterr);
}

int ledger_acknowledged(struct ledger *l, struct slice destination, uint64_t size,
	const uint8_t root[32], int64_t now_ns, bool *ret_ours, struct cede_error *reterr) {
	uint8_t ours[32];
	sqlite3_stmt *st;

	CEDE_TRY(ledger_flush_wiped(l, reterr));
	*ret_ours = false;
	if (size == 0 || size > l->sequence)
		return CEDE_OK;
	CEDE_TRY(merkle_range(&l->hasher, 0, size, ledger_tree_get, l, ours, reterr));
	if (memcmp(ours, root, sizeof ours) != 0)
		return CEDE_OK;
	*ret_ours = true;
	CEDE_TRY(ledger_use(l, ST_ACK_SET, &st, reterr));
	LEDGER_TRY_BIND(l,
		sqlite3_bind_text(
			st, 1, (const char *)destination.data, (int)destination.len, SQLITE_STATIC),
		reterr);
	LEDGER_TRY_BIND(l, sqlite3_bind_int64(st, 2, (int64_t)size), reterr);
	LEDGER_TRY_BIND(l, sqlite3_bind_blob(st, 3, root, 32, SQLITE_STATIC), reterr);
	LEDGER_TRY_BIND(l, sqlite3_bind_int64(st, 4, now_ns), reterr);
	return ledger_run(l, st, reterr);
}
