/* SPDX-License-Identifier: Apache-2.0 */
#include "receiver/custody.h"

#include <fcntl.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/check.h"
#include "base/cleanup.h"
#include "base/file.h"
#include "base/log.h"
#include "certs/key.h"

#define SLOTS       64           /* hosts are worked on one by one within a slot */
#define TAIL_MAX    8192         /* of a file, in which its newest note stands */
#define REFUSED_MAX (256L << 10) /* bytes of evidence; the log has the rest */

/* The newest checkpoint of the host that was asked for last, as long as its files are the same. */
struct slot {
	pthread_mutex_t lock;
	char host[HOST_ID_MAX + 1]; /* "": none */
	struct stat file, key_file;
	struct note_keys *keys;
	struct buf key_der;
	bool there;
	struct checkpoint newest;
	off_t end; /* of its note in the file */
};

struct custody {
	int root;
	struct slot slots[SLOTS];
};

int custody_new(int root, struct custody **ret, struct cede_error *reterr) {
	struct custody *c = calloc(1, sizeof *c);

	if (c == NULL)
		return CEDE_FAIL_MEMORY(reterr);
	c->root = root;
	for (size_t i = 0; i < SLOTS; i++) {
		require(pthread_mutex_init(&c->slots[i].lock, NULL) == 0);
		c->slots[i].key_der = BUF_INIT(CHECKPOINT_KEY_MAX);
	}
	*ret = c;
	return CEDE_OK;
}

void custody_free(struct custody *c) {
	if (c == NULL)
		return;
	for (size_t i = 0; i < SLOTS; i++) {
		note_keys_free(c->slots[i].keys);
		buf_done(&c->slots[i].key_der);
		(void)pthread_mutex_destroy(&c->slots[i].lock);
	}
	free(c);
}

static struct slot *slot_of(struct custody *c, const char *host) {
	uint32_t hash = 5381;

	for (const char *p = host; *p != 0; p++)
		hash = hash * 33 + (uint8_t)*p;
	return &c->slots[hash % SLOTS];
}

/* -1: there is none yet (BUSY) */
static int open_host(const struct custody *c, const char *host, int *ret, struct cede_error *reterr) {
	require(host_id_valid(slice_str(host)));
	*ret = openat(c->root, host, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
	if (*ret < 0)
		return errno == ENOENT ? CEDE_FAIL(reterr, CEDE_ERR_BUSY, "no such host")
				       : CEDE_FAIL_SYS(reterr, "open a host's folder");
	return CEDE_OK;
}

/* ---- reading */

static bool is_same_file(const struct stat *a, const struct stat *b) {
	return a->st_ino == b->st_ino && a->st_dev == b->st_dev && a->st_size == b->st_size &&
		a->st_mtim.tv_sec == b->st_mtim.tv_sec && a->st_mtim.tv_nsec == b->st_mtim.tv_nsec;
}

/* Zeros: not there. */
static int look(int dir, const char *name, struct stat *ret, struct cede_error *reterr) {
	if (fstatat(dir, name, ret, AT_SYMLINK_NOFOLLOW) == 0)
		return CEDE_OK;
	memset(ret, 0, sizeof *ret);
	return errno == ENOENT ? CEDE_OK : CEDE_FAIL_SYS(reterr, "look at a host's checkpoints");
}

static int load_key(struct slot *s, int dir, struct cede_error *reterr) {
	CLEANUP(key_freep) EVP_PKEY *key = NULL;
	CLEANUP(buf_done) struct buf pem = BUF_INIT(KEY_FILE_MAX);
	uint8_t der[CHECKPOINT_KEY_MAX];
	uint8_t *at = der;

	note_keys_free(s->keys);
	s->keys = NULL;
	buf_clear(&s->key_der);
	if (s->key_file.st_ino == 0)
		return CEDE_OK;
	CEDE_TRY(file_load(dir, CUSTODY_KEY, &pem, reterr));
	CEDE_TRY(key_parse_public(buf_slice(&pem), CUSTODY_KEY, &key, reterr));
	int len = i2d_PUBKEY(key, NULL);
	if (len <= 0 || (size_t)len > sizeof der || i2d_PUBKEY(key, &at) != len)
		return CEDE_FAIL(reterr, CEDE_ERR_CRYPTO, "a host's key can't be read");
	CEDE_TRY(buf_add(&s->key_der, der, (size_t)len, reterr));
	return checkpoint_keys(buf_slice(&s->key_der), &s->keys, reterr);
}

/* Where the last text begins that may be a checkpoint, before `end`; false: nowhere. */
static bool find_start(struct slice tail, size_t end, bool whole, size_t *ret) {
	static const char mark[] = "cede-checkpoint/1/";

	for (size_t at = end; at-- > 0;) {
		if (tail.len - at < sizeof mark - 1 ||
			memcmp(tail.data + at, mark, sizeof mark - 1) != 0)
			continue;
		if (at == 0 ? whole
			    : (at >= 2 && tail.data[at - 1] == '\n' && tail.data[at - 2] == '\n')) {
			*ret = at;
			return true;
		}
	}
	return false;
}

/* The key is on the disk before the first checkpoint is: only a restore in part leaves checkpoints
 * without it, and the next host to come would have its own key pinned and these written over. */
static int without_key(const struct slot *s, struct cede_error *reterr) {
	return s->file.st_size == 0
		? CEDE_OK
		: CEDE_FAIL(reterr, CEDE_ERR_INPUT,
			  "the checkpoints of host %s are there and their key " CUSTODY_KEY
			  " is not: nothing of this host is taken as its next; restore " CUSTODY_KEY
			  " from the backup, or move both away to let the host begin anew",
			  s->host);
}

/* The newest whole note at the end of the file: a crash may have left part of one behind it. */
static int load_newest(struct slot *s, int dir, struct cede_error *reterr) {
	uint8_t bytes[TAIL_MAX];
	size_t got, at;

	s->there = false;
	s->end = 0;
	if (s->file.st_ino == 0)
		return CEDE_OK;
	if (s->keys == NULL)
		return without_key(s, reterr);
	CLEANUP(fd_closep)
	int fd = openat(dir, CUSTODY_CHECKPOINTS, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	if (fd < 0)
		return CEDE_FAIL_SYS(reterr, "open a host's checkpoints");
	off_t from = s->file.st_size > TAIL_MAX ? s->file.st_size - TAIL_MAX : 0;
	CEDE_TRY(file_pread_full(fd, bytes, sizeof bytes, (uint64_t)from, &got, reterr));
	for (at = got; find_start(slice_of(bytes, got), at, from == 0, &at);) {
		struct slice rest = slice_of(bytes + at, got - at);
		struct slice note;
		if (!checkpoint_next(&rest, &note) ||
			checkpoint_verify(s->keys, note, &s->newest, NULL) < 0)
			continue;
		s->there = true;
		s->end = from + (off_t)(at + note.len);
		return CEDE_OK;
	}
	return s->file.st_size == 0
		? CEDE_OK
		: CEDE_FAIL(reterr, CEDE_ERR_INPUT,
			  "the checkpoints of host %s are damaged, or not of the key beside them: nothing of this host is taken as its next",
			  s->host);
}

/* What is there of the host, in its slot; the slot's lock is held. */
static int load(struct slot *s, const char *host, int dir, struct cede_error *reterr) {
	struct stat file, key_file;

	CEDE_TRY(look(dir, CUSTODY_CHECKPOINTS, &file, reterr));
	CEDE_TRY(look(dir, CUSTODY_KEY, &key_file, reterr));
	if (strcmp(s->host, host) == 0 && is_same_file(&s->file, &file) &&
		is_same_file(&s->key_file, &key_file))
		return CEDE_OK;
	s->file = file;
	s->key_file = key_file;
	(void)snprintf(s->host, sizeof s->host, "%s", host);
	int r = load_key(s, dir, reterr);
	if (r == CEDE_OK)
		r = load_newest(s, dir, reterr);
	if (r < 0)
		s->host[0] = 0;
	return r;
}

int custody_newest(struct custody *c, const char *host, struct checkpoint *ret, bool *ret_there,
	struct cede_error *reterr) {
	struct slot *s = slot_of(c, host);
	CLEANUP(fd_closep) int dir = -1;

	*ret_there = false;
	int r = open_host(c, host, &dir, reterr);
	if (r < 0)
		return r == CEDE_ERR_BUSY ? CEDE_OK : r;
	(void)pthread_mutex_lock(&s->lock);
	r = load(s, host, dir, reterr);
	*ret_there = r == CEDE_OK && s->there;
	if (*ret_there)
		*ret = s->newest;
	(void)pthread_mutex_unlock(&s->lock);
	return r;
}

/* ---- taking */

static int pin_key(struct slot *s, int dir, struct slice der, struct cede_error *reterr) {
	const uint8_t *at = der.data;
	CLEANUP(key_freep) EVP_PKEY *key = d2i_PUBKEY(NULL, &at, (long)der.len);
	BIO *memory = BIO_new(BIO_s_mem());
	char *pem = NULL;

	bool ok = key != NULL && memory != NULL && PEM_write_bio_PUBKEY(memory, key) == 1;
	long len = ok ? BIO_get_mem_data(memory, &pem) : 0;
	int r = ok ? file_create(dir, CUSTODY_KEY, slice_of(pem, (size_t)len), 0600, reterr)
		   : CEDE_FAIL(reterr, CEDE_ERR_CRYPTO, "a host's key can't be written");
	BIO_free_all(memory);
	if (r == CEDE_OK)
		log_event(LOG_LEVEL_INFO, "ledger.pinned", "host=%s", s->host);
	return r;
}

/* Behind the newest whole note; what a crash left there goes. */
static int append(struct slot *s, int dir, struct slice note, struct cede_error *reterr) {
	CLEANUP(fd_closep)
	int fd = openat(dir, CUSTODY_CHECKPOINTS, O_WRONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	off_t at = s->end;

	if (fd < 0)
		return CEDE_FAIL_SYS(reterr, "open a host's checkpoints");
	if (at > 0) {
		CEDE_TRY(file_pwrite_all(fd, "\n", 1, (uint64_t)at, reterr));
		at++;
	}
	CEDE_TRY(file_pwrite_all(fd, note.data, note.len, (uint64_t)at, reterr));
	if (ftruncate(fd, at + (off_t)note.len) < 0)
		return CEDE_FAIL_SYS(reterr, "cut a host's checkpoints");
	CEDE_TRY(file_sync(fd, reterr));
	if (s->file.st_ino == 0)
		CEDE_TRY(file_sync(dir, reterr));
	s->host[0] = 0; /* read anew */
	return CEDE_OK;
}

/* The note that was refused, for whoever looks into it. */
static void keep_evidence(int dir, struct slice note) {
	CLEANUP(fd_closep)
	int fd = openat(
		dir, CUSTODY_REFUSED, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NOFOLLOW, 0600);
	struct stat st;

	if (fd < 0 || fstat(fd, &st) < 0 || st.st_size > REFUSED_MAX)
		return;
	if (file_write_all(fd, note.data, note.len, NULL) == CEDE_OK)
		(void)!file_write_all(fd, "\n", 1, NULL);
}

static int verdict_of(const struct slot *s, const struct checkpoint_field *f,
	const struct checkpoint *c, enum custody_verdict *ret, struct cede_error *reterr) {
	struct merkle_hasher hasher;

	*ret = CUSTODY_TAKEN;
	if (!s->there)
		return CEDE_OK;
	if (c->size == s->newest.size)
		*ret = memcmp(c->root, s->newest.root, sizeof c->root) == 0 ? CUSTODY_KNOWN
									    : CUSTODY_REWRITTEN;
	else if (c->size < s->newest.size)
		*ret = CUSTODY_BEHIND;
	else if (f->from != s->newest.size)
		*ret = CUSTODY_UNPROVEN;
	if (*ret != CUSTODY_TAKEN)
		return CEDE_OK;
	CEDE_TRY(merkle_hasher_init(&hasher, reterr));
	int r = merkle_check_consistency(
		&hasher, f->from, s->newest.root, c->size, c->root, &f->proof, reterr);
	merkle_hasher_done(&hasher);
	if (r == CEDE_ERR_REFUSED)
		*ret = CUSTODY_REWRITTEN;
	return r == CEDE_ERR_REFUSED ? CEDE_OK : r;
}

static int judge(struct slot *s, int dir, const struct checkpoint_field *f,
	enum custody_verdict *ret, struct cede_error *reterr) {
	struct note_keys *first = NULL;
	struct checkpoint c;

	*ret = CUSTODY_OTHER_KEY;
	if (s->keys != NULL && !slice_equal(buf_slice(&s->key_der), buf_slice(&f->key)))
		return CEDE_OK;
	*ret = CUSTODY_FORGED;
	if (s->keys == NULL && checkpoint_keys(buf_slice(&f->key), &first, reterr) < 0)
		return CEDE_OK;
	int r = checkpoint_verify(s->keys != NULL ? s->keys : first, buf_slice(&f->note), &c, reterr);
	note_keys_free(first);
	if (r < 0)
		return CEDE_OK;
	*ret = CUSTODY_OTHER_HOST;
	if (strcmp(c.host, s->host) != 0)
		return CEDE_OK;
	CEDE_TRY(verdict_of(s, f, &c, ret, reterr));
	if (*ret != CUSTODY_TAKEN)
		return CEDE_OK;
	if (s->keys == NULL)
		CEDE_TRY(pin_key(s, dir, buf_slice(&f->key), reterr));
	return append(s, dir, buf_slice(&f->note), reterr);
}

static void say(const char *host, enum custody_verdict verdict) {
	static const char *const reasons[] = {
		[CUSTODY_OTHER_KEY] = "another-key",
		[CUSTODY_OTHER_HOST] = "another-host",
		[CUSTODY_FORGED] = "forged-or-malformed",
		[CUSTODY_BEHIND] = "behind",
		[CUSTODY_REWRITTEN] = "rewritten",
	};

	if (verdict == CUSTODY_UNPROVEN)
		log_event(LOG_LEVEL_INFO, "checkpoint.unproven", "host=%s", host);
	if (verdict < CUSTODY_OTHER_KEY)
		return;
	log_event(LOG_LEVEL_ERROR, "checkpoint.refused",
		"host=%s reason=%s error=\"SECURITY: the host's ledger does not extend what it has shown\" mend=\"compare with cede ledger verify; docs/ledger.md\"",
		host, reasons[verdict]);
}

/* The field read and judged; *ret_formed says whether it could be read at all. */
static int look_at(struct custody *c, const char *host, int dir, struct slice value,
	struct checkpoint_field *field, bool *ret_formed, enum custody_verdict *ret,
	struct cede_error *reterr) {
	struct slot *s = slot_of(c, host);

	*ret_formed = checkpoint_field_read(value, field, NULL) == CEDE_OK;
	*ret = CUSTODY_FORGED;
	if (!*ret_formed)
		return CEDE_OK;
	(void)pthread_mutex_lock(&s->lock);
	int r = load(s, host, dir, reterr);
	if (r == CEDE_OK)
		r = judge(s, dir, field, ret, reterr);
	(void)pthread_mutex_unlock(&s->lock);
	return r;
}

int custody_take(struct custody *c, const char *host, struct slice value, enum custody_verdict *ret,
	struct cede_error *reterr) {
	CLEANUP(checkpoint_field_done) struct checkpoint_field field = {.from = 0};
	CLEANUP(fd_closep) int dir = -1;
	bool formed;

	CEDE_TRY(open_host(c, host, &dir, reterr));
	CEDE_TRY(look_at(c, host, dir, value, &field, &formed, ret, reterr));
	if (*ret >= CUSTODY_OTHER_KEY) {
		/* nobody is accused for one look: to the crypto library a lack of memory is a key
		 * or a signature that is none */
		checkpoint_field_done(&field);
		CEDE_TRY(look_at(c, host, dir, value, &field, &formed, ret, reterr));
	}
	if (formed && *ret >= CUSTODY_OTHER_KEY)
		keep_evidence(dir, buf_slice(&field.note));
	say(host, *ret);
	return CEDE_OK;
}
