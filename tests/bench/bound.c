/* SPDX-License-Identifier: Apache-2.0
 * The raw bound for tests/bench/run: the bytes of a hand-over, and nothing else of it.
 *
 *   bound SOURCE STORE    moves every file below SOURCE (two levels) into bundles in STORE
 *
 * One process in a straight line: read each file, SHA-256, zstd, AES-256-GCM, SHA-256 of the
 * bundle, TLS 1.3; after the answer for a bundle overwrite its files; flush once for many, unlink,
 * flush the directories. A second one takes the bundles: TLS, SHA-256, write past the page cache,
 * flush, answer. No names, manifests, CMS, checks, ledger, receipts, waiting for files to be
 * complete, nor anything that survives a crash. Prints files and bytes. */
#include <dirent.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <openssl/evp.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include <zstd.h>

#include "base/bytes.h"
#include "base/check.h"

#define BUNDLE_SIZE  (16U << 20) /* agent: POLICY_BUNDLE_DEFAULT */
#define BUNDLE_FILES 2048U       /* agent: BUNDLE_CAPTURES */
#define FRAME        (256U << 10)
#define IN_FLIGHT    8U
#define WIPE_FILES   2048U
#define STREAM       (1U << 20)
#define RECORD       (16U << 10)

struct file {
	int dirfd; /* of its directory */
	char *name;
	uint64_t size;
};

static struct file *files;
static size_t file_count, file_room;
static int directories[4096];
static size_t directory_count;
static uint64_t total;

static void list(int dirfd, const char *path, int depth) {
	int fd = openat(dirfd, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	struct dirent *e;

	require(fd >= 0 && directory_count < ARRAY_LENGTH(directories));
	DIR *dir = fdopendir(dup(fd));
	require(dir != NULL);
	directories[directory_count++] = fd;
	while ((e = readdir(dir)) != NULL) {
		if (e->d_name[0] == '.')
			continue;
		if (e->d_type == DT_DIR) {
			require(depth < 2);
			list(fd, e->d_name, depth + 1);
			continue;
		}
		if (file_count == file_room) {
			file_room = file_room == 0 ? 1024 : 2 * file_room;
			files = reallocarray(files, file_room, sizeof *files);
			require(files != NULL);
		}
		files[file_count++] = (struct file){.dirfd = fd, .name = strdup(e->d_name)};
	}
	(void)closedir(dir);
}

/* ---- the two ends of the connection */

static void make_certificate(EVP_PKEY **ret_key, X509 **ret) {
	EVP_PKEY *key = EVP_EC_gen("P-256");
	X509 *x = X509_new();

	require(key != NULL && x != NULL && X509_set_version(x, X509_VERSION_3) == 1);
	require(ASN1_INTEGER_set(X509_get_serialNumber(x), 1) == 1);
	require(X509_gmtime_adj(X509_getm_notBefore(x), -60) != NULL &&
		X509_gmtime_adj(X509_getm_notAfter(x), 86400) != NULL);
	X509_NAME *name = X509_get_subject_name(x);
	require(X509_NAME_add_entry_by_txt(
			name, "CN", MBSTRING_ASC, (const unsigned char *)"bound", -1, -1, 0) == 1);
	require(X509_set_issuer_name(x, name) == 1 && X509_set_pubkey(x, key) == 1 &&
		X509_sign(x, key, EVP_sha256()) > 0);
	*ret_key = key;
	*ret = x;
}

static SSL *connect_over(int fd, EVP_PKEY *key, X509 *certificate, bool server) {
	SSL_CTX *ctx = SSL_CTX_new(TLS_method());

	require(ctx != NULL && SSL_CTX_set_min_proto_version(ctx, TLS1_3_VERSION) == 1);
	if (server)
		require(SSL_CTX_use_certificate(ctx, certificate) == 1 &&
			SSL_CTX_use_PrivateKey(ctx, key) == 1);
	SSL *ssl = SSL_new(ctx);
	require(ssl != NULL && SSL_set_fd(ssl, fd) == 1);
	require((server ? SSL_accept(ssl) : SSL_connect(ssl)) == 1);
	return ssl;
}

/* Two ends of a TCP connection on the loopback, as the agency's and the contractor's. */
static void make_connection(int ends[2]) {
	struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
	socklen_t n = sizeof at;
	int on = 1;
	int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	require(listener >= 0 && bind(listener, (struct sockaddr *)&at, sizeof at) == 0 &&
		listen(listener, 1) == 0 && getsockname(listener, (struct sockaddr *)&at, &n) == 0);
	ends[0] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	require(ends[0] >= 0 && connect(ends[0], (struct sockaddr *)&at, sizeof at) == 0);
	ends[1] = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
	require(ends[1] >= 0);
	for (int i = 0; i < 2; i++)
		require(setsockopt(ends[i], IPPROTO_TCP, TCP_NODELAY, &on, sizeof on) == 0);
	(void)close(listener);
}

static void read_all(SSL *ssl, void *data, size_t len) {
	for (size_t at = 0, n = 0; at < len; at += n)
		require(SSL_read_ex(ssl, (uint8_t *)data + at, len - at, &n) == 1);
}

static void write_all(SSL *ssl, const void *data, size_t len) {
	size_t n;

	if (len > 0)
		require(SSL_write_ex(ssl, data, len, &n) == 1 && n == len);
}

/* ---- the agency's end */

static void take_bundle(SSL *ssl, int store, unsigned number, uint64_t size, uint8_t *buffer) {
	char name[32];
	uint8_t digest[32];
	EVP_MD_CTX *md = EVP_MD_CTX_new();

	(void)snprintf(name, sizeof name, "%08u", number);
	int fd = openat(store, name, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	require(fd >= 0 && md != NULL && EVP_DigestInit_ex(md, EVP_sha256(), NULL) == 1);
	bool direct = fcntl(fd, F_SETFL, O_DIRECT) == 0;
	uint64_t at = 0;
	while (at < size) {
		size_t n = size - at < STREAM ? (size_t)(size - at) : STREAM;
		for (size_t i = 0; i < n; i += RECORD) { /* digested while it is in the cache */
			size_t part = n - i < RECORD ? n - i : RECORD;
			read_all(ssl, buffer + i, part);
			require(EVP_DigestUpdate(md, buffer + i, part) == 1);
		}
		if (direct && n < STREAM) /* the end is not aligned */
			require(fcntl(fd, F_SETFL, 0) == 0);
		require(pwrite(fd, buffer, n, (off_t)at) == (ssize_t)n);
		at += n;
	}
	require(EVP_DigestFinal_ex(md, digest, NULL) == 1 && fsync(fd) == 0 && fsync(store) == 0);
	write_all(ssl, digest, 1);
	EVP_MD_CTX_free(md);
	(void)close(fd);
}

static void agency(SSL *ssl, int store) {
	uint8_t *buffer = aligned_alloc(4096, STREAM);
	uint8_t head[8];

	require(buffer != NULL);
	for (unsigned number = 0;; number++) {
		read_all(ssl, head, sizeof head);
		uint64_t size = get_le64(head);
		if (size == 0)
			break;
		take_bundle(ssl, store, number, size, buffer);
	}
	free(buffer);
}

/* ---- the contractor's end */

struct sender {
	SSL *ssl;
	EVP_CIPHER_CTX *gcm;
	EVP_MD_CTX *md;
	ZSTD_CCtx *zstd;
	uint8_t *plain, *packed, *stream;
	size_t packed_room;
	size_t sent[IN_FLIGHT]; /* the end of each bundle under way, as a number of files */
	unsigned head, tail;
	size_t wiped, overwritten;
};

static void digest(struct sender *s, const void *data, size_t len) {
	uint8_t out[32];

	require(EVP_DigestInit_ex(s->md, EVP_sha256(), NULL) == 1 &&
		EVP_DigestUpdate(s->md, data, len) == 1 && EVP_DigestFinal_ex(s->md, out, NULL) == 1);
}

static size_t pack(struct sender *s, size_t len) {
	size_t out = 0;

	for (size_t at = 0; at < len; at += FRAME) {
		size_t n = len - at < FRAME ? len - at : FRAME;
		size_t got = ZSTD_compress2(
			s->zstd, s->packed + out, s->packed_room - out, s->plain + at, n);
		require(!ZSTD_isError(got));
		out += got;
	}
	return out;
}

/* In pieces that stay in the processor's cache from one step to the next. */
static void seal(struct sender *s, size_t len) {
	static const uint8_t key[32] = {1};
	static const uint8_t iv[12] = {0};
	uint8_t tag[16];
	uint8_t out[32];
	int n;

	require(EVP_EncryptInit_ex(s->gcm, EVP_aes_256_gcm(), NULL, key, iv) == 1 &&
		EVP_DigestInit_ex(s->md, EVP_sha256(), NULL) == 1);
	for (size_t at = 0; at < len; at += RECORD) {
		size_t part = len - at < RECORD ? len - at : RECORD;
		require(EVP_EncryptUpdate(s->gcm, s->packed + at, &n, s->packed + at, (int)part) == 1 &&
			EVP_DigestUpdate(s->md, s->packed + at, part) == 1);
	}
	require(EVP_EncryptFinal_ex(s->gcm, tag, &n) == 1 &&
		EVP_DigestFinal_ex(s->md, out, NULL) == 1);
}

static void overwrite(struct sender *s, struct file *f) {
	int fd = openat(f->dirfd, f->name, O_WRONLY | O_NOFOLLOW | O_CLOEXEC);
	uint64_t end = (f->size + 4095) / 4096 * 4096;

	require(fd >= 0);
	for (uint64_t at = 0; at < end; at += STREAM) {
		size_t n = end - at < STREAM ? (size_t)(end - at) : STREAM;
		require(pwrite(fd, s->stream, n, (off_t)at) == (ssize_t)n);
	}
	(void)sync_file_range(fd, 0, 0, SYNC_FILE_RANGE_WRITE);
	(void)close(fd);
}

static void wipe(struct sender *s, size_t to, bool all) {
	for (; s->overwritten < to; s->overwritten++)
		overwrite(s, &files[s->overwritten]);
	if (!all && s->overwritten - s->wiped < WIPE_FILES)
		return;
	require(syncfs(directories[0]) == 0);
	for (; s->wiped < s->overwritten; s->wiped++)
		require(unlinkat(files[s->wiped].dirfd, files[s->wiped].name, 0) == 0);
	if (all)
		require(syncfs(directories[0]) == 0);
}

static void await_answer(struct sender *s) {
	uint8_t answer;

	read_all(s->ssl, &answer, 1);
	wipe(s, s->sent[s->tail++ % IN_FLIGHT], false);
}

static void send_bundle(struct sender *s, size_t len, size_t end) {
	uint8_t head[8];

	size_t packed = pack(s, len);
	seal(s, packed);
	while (s->head - s->tail == IN_FLIGHT)
		await_answer(s);
	put_le64(head, packed);
	write_all(s->ssl, head, sizeof head);
	write_all(s->ssl, s->packed, packed);
	s->sent[s->head++ % IN_FLIGHT] = end;
}

static void contractor(struct sender *s) {
	size_t used = 0, first = 0;

	for (size_t i = 0; i < file_count; i++) {
		struct file *f = &files[i];
		struct stat st;
		int fd = openat(f->dirfd, f->name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
		require(fd >= 0 && fstat(fd, &st) == 0);
		f->size = (uint64_t)st.st_size;
		total += f->size;
		if (used > 0 && (used + f->size > BUNDLE_SIZE || i - first == BUNDLE_FILES)) {
			send_bundle(s, used, i);
			used = 0;
			first = i;
		}
		/* a larger one goes in pieces; its files count as sent with the last */
		for (uint64_t at = 0; at < f->size;) {
			size_t n = BUNDLE_SIZE - used;
			ssize_t got = pread(fd, s->plain + used, n, (off_t)at);
			require(got > 0);
			digest(s, s->plain + used, (size_t)got);
			used += (size_t)got;
			at += (uint64_t)got;
			if (used == BUNDLE_SIZE && at < f->size) {
				send_bundle(s, used, i);
				used = 0;
				first = i;
			}
		}
		(void)close(fd);
	}
	if (used > 0 || file_count > 0)
		send_bundle(s, used, file_count);
	while (s->tail != s->head)
		await_answer(s);
	wipe(s, file_count, true);
	static const uint8_t end[8] = {0};
	write_all(s->ssl, end, sizeof end);
}

int main(int argc, char **argv) {
	EVP_PKEY *key;
	X509 *certificate;
	int ends[2];

	if (argc != 3) {
		(void)fprintf(stderr, "usage: bound SOURCE STORE\n");
		return 2;
	}
	make_certificate(&key, &certificate);
	make_connection(ends);
	pid_t child = fork();
	require(child >= 0);
	if (child == 0) {
		int store = open(argv[2], O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		require(store >= 0);
		agency(connect_over(ends[1], key, certificate, true), store);
		return 0;
	}
	list(AT_FDCWD, argv[1], 0);
	struct sender s = {.ssl = connect_over(ends[0], key, certificate, false),
		.gcm = EVP_CIPHER_CTX_new(),
		.md = EVP_MD_CTX_new(),
		.zstd = ZSTD_createCCtx(),
		.plain = malloc(BUNDLE_SIZE),
		.packed_room = ZSTD_compressBound(FRAME) * (BUNDLE_SIZE / FRAME + 1),
		.stream = malloc(STREAM)};
	s.packed = malloc(s.packed_room);
	require(s.gcm != NULL && s.md != NULL && s.zstd != NULL && s.plain != NULL &&
		s.packed != NULL && s.stream != NULL);
	memset(s.stream, 0x5a, STREAM);
	require(!ZSTD_isError(ZSTD_CCtx_setParameter(s.zstd, ZSTD_c_compressionLevel, 1)) &&
		!ZSTD_isError(ZSTD_CCtx_setParameter(s.zstd, ZSTD_c_checksumFlag, 1)));
	contractor(&s);
	int status;
	require(waitpid(child, &status, 0) == child && status == 0);
	(void)printf("%zu %llu\n", file_count, (unsigned long long)total);
	return 0;
}
