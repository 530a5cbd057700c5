/* SPDX-License-Identifier: Apache-2.0 */
#include <fcntl.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/check.h"
#include "base/clock.h"
#include "base/file.h"
#include "certs/key.h"
#include "certs/open.h"
#include "certs/seal.h"
#include "tests/unit/certs/tool.h"

static struct tool tool;
static X509 *cert, *second_cert, *rsa_cert;
static EVP_PKEY *key, *second_key, *rsa_key;

/* A self-signed certificate with these openssl options; "name.key" and "name.pem". */
static void make(const char *name, const char *algorithm, const char *option, const char *usage,
	bool with_key_id) {
	char pem[64], key_file[64], script[1024];

	(void)snprintf(pem, sizeof pem, "%s.pem", name);
	(void)snprintf(key_file, sizeof key_file, "%s.key", name);
	assert_int_equal(tool_run(&tool, "openssl", "genpkey", "-algorithm", algorithm, "-pkeyopt",
				 option, "-out", key_file, NULL),
		0);
	(void)snprintf(script, sizeof script,
		"printf '[req]\\ndistinguished_name=dn\\nprompt=no\\n[dn]\\nCN=x\\n[ext]\\n"
		"subjectKeyIdentifier=%s\\n%s%s\\n' >x.cnf && "
		"openssl req -new -config x.cnf -key %s -out x.csr && "
		"openssl x509 -req -in x.csr -signkey %s -days 2 -extfile x.cnf -extensions ext -out %s",
		with_key_id ? "hash" : "none", usage == NULL ? "" : "keyUsage=critical,",
		usage == NULL ? "" : usage, key_file, key_file, pem);
	assert_int_equal(tool_run(&tool, "sh", "-c", script, NULL), 0);
}

static int set_up(void **state) {
	(void)state;
	tool_init(&tool);
	tool_pki(&tool);
	make("second", "EC", "ec_paramgen_curve:P-256", "keyAgreement", true);
	make("rsa", "RSA", "rsa_keygen_bits:3072", "keyEncipherment", true);
	cert = tool_cert(&tool, "pki/seal.pem");
	key = tool_private(&tool, "pki/seal.key");
	second_cert = tool_cert(&tool, "second.pem");
	second_key = tool_private(&tool, "second.key");
	rsa_cert = tool_cert(&tool, "rsa.pem");
	rsa_key = tool_private(&tool, "rsa.key");
	return 0;
}

static int tear_down(void **state) {
	(void)state;
	cert_freep(&cert);
	cert_freep(&second_cert);
	cert_freep(&rsa_cert);
	key_freep(&key);
	key_freep(&second_key);
	key_freep(&rsa_key);
	tool_done(&tool);
	return 0;
}

static struct sealer_keys *keys_of(X509 *const *certs, size_t n) {
	static const char *const names[] = {"a.pem", "b.pem", "c.pem"};
	struct sealer_keys *keys = NULL;
	struct cede_error err;

	assert_int_equal(sealer_keys_new(certs, names, n, clock_wall_ns(), false, &keys, &err), 0);
	assert_int_equal(sealer_keys_try(keys, &err), 0);
	return keys;
}

static void seal(X509 *const *certs, size_t n, struct slice plain, size_t step, int fd) {
	struct sealer_keys *keys = keys_of(certs, n);
	CLEANUP(sealer_freep) struct sealer *s = NULL;
	CLEANUP(buf_done) struct buf sealed = BUF_INIT(SEAL_PLAINTEXT_MAX);
	uint8_t digest[32], expected[32];
	uint64_t size;
	struct cede_error err;

	assert_int_equal(sealer_new(keys, fd, &s, &err), 0);
	sealer_keys_free(keys); /* the sealer needs them no longer */
	for (size_t at = 0; at < plain.len; at += step) {
		size_t len = plain.len - at < step ? plain.len - at : step;
		assert_int_equal(sealer_write(s, slice_of(plain.data + at, len), &err), 0);
	}
	assert_int_equal(sealer_finish(s, &size, digest, &err), 0);
	assert_int_equal(sealer_write(s, plain, &err), CEDE_ERR_BUG); /* too late */
	assert_int_equal(lseek(fd, 0, SEEK_SET), 0);
	assert_int_equal(file_load_fd(fd, &sealed, &err), 0);
	assert_int_equal(sealed.len, size);
	assert_int_equal(
		EVP_Q_digest(NULL, "SHA256", NULL, sealed.data, sealed.len, expected, NULL), 1);
	assert_memory_equal(digest, expected, 32);
}

static int new_memory(void) {
	struct cede_error err;
	int fd = -1;

	assert_int_equal(file_memory("test", &fd, &err), 0);
	return fd;
}

static off_t size_of(int fd) {
	struct stat st;

	assert_int_equal(fstat(fd, &st), 0);
	return st.st_size;
}

static void fill(struct buf *b, size_t len) {
	uint8_t *at;

	assert_int_equal(buf_room(b, len, &at, NULL), 0);
	for (size_t i = 0; i < len; i++)
		at[i] = (uint8_t)(i * 2654435761U >> 11);
	buf_grew(b, len);
}

static void opens_to(int sealed, EVP_PKEY *k, X509 *c, struct slice plain) {
	CLEANUP(fd_closep) int out = new_memory();
	CLEANUP(buf_done) struct buf opened = BUF_INIT(SEAL_PLAINTEXT_MAX);
	struct cede_error err;

	assert_int_equal(seal_open(sealed, k, c, out, &err), CEDE_OK);
	assert_int_equal(file_load_fd(out, &opened, &err), 0);
	assert_true(slice_equal(buf_slice(&opened), plain));
}

static void test_sizes(void **state) {
	static const size_t sizes[] = {
		1, 15, 16, 17, 4095, 4096, 4097, 262143, 262144, 262145, 3000000};
	static const size_t steps[] = {1000, 65536, 1U << 20};
	(void)state;
	for (size_t i = 0; i < ARRAY_LENGTH(sizes) * ARRAY_LENGTH(steps); i++) {
		CLEANUP(buf_done) struct buf plain = BUF_INIT(SEAL_PLAINTEXT_MAX);
		CLEANUP(fd_closep) int fd = new_memory();
		fill(&plain, sizes[i % ARRAY_LENGTH(sizes)]);
		seal(&cert, 1, buf_slice(&plain), steps[i / ARRAY_LENGTH(sizes)], fd);
		opens_to(fd, key, cert, buf_slice(&plain));
	}
}

static void test_stock_openssl_opens_it_for_each_recipient(void **state) {
	X509 *const all[] = {cert, second_cert, rsa_cert};
	static const char *const names[][2] = {{"pki/seal.key", "pki/seal.pem"},
		{"second.key", "second.pem"}, {"rsa.key", "rsa.pem"}};
	EVP_PKEY *const private[] = {key, second_key, rsa_key};
	CLEANUP(buf_done) struct buf plain = BUF_INIT(SEAL_PLAINTEXT_MAX);
	CLEANUP(fd_closep)
	int fd = openat(tool.dirfd, "B", O_RDWR | O_CREAT | O_CLOEXEC | O_EXCL, 0600);
	(void)state;
	fill(&plain, 700001);
	seal(all, 3, buf_slice(&plain), 65536, fd);
	for (size_t i = 0; i < ARRAY_LENGTH(names); i++) {
		CLEANUP(buf_done) struct buf opened = BUF_INIT(SEAL_PLAINTEXT_MAX);
		assert_int_equal(tool_run(&tool, "openssl", "cms", "-decrypt", "-binary", "-inform",
					 "DER", "-inkey", names[i][0], "-recip", names[i][1], "-in",
					 "B", "-out", "B.out", NULL),
			0);
		tool_read(&tool, "B.out", &opened);
		assert_true(slice_equal(buf_slice(&opened), buf_slice(&plain)));
		opens_to(fd, private[i], all[i], buf_slice(&plain));
	}
}

static void test_every_flipped_byte_is_refused(void **state) {
	CLEANUP(buf_done) struct buf sealed = BUF_INIT(65536);
	CLEANUP(fd_closep) int fd = new_memory();
	struct cede_error err;
	(void)state;
	seal(&cert, 1, SLICE_LIT("a capture"), 100, fd);
	assert_int_equal(file_load_fd(fd, &sealed, &err), 0);
	for (size_t i = 0; i < sealed.len; i++)
		for (int bit = 0; bit < 8; bit++) {
			CLEANUP(fd_closep) int bad = new_memory();
			CLEANUP(fd_closep) int out = new_memory();
			sealed.data[i] ^= (uint8_t)(1 << bit);
			assert_int_equal(file_write_all(bad, sealed.data, sealed.len, &err), 0);
			sealed.data[i] ^= (uint8_t)(1 << bit);
			int r = seal_open(bad, key, cert, out, &err);
			if (r == CEDE_OK)
				(void)fprintf(stderr, "byte %zu bit %d\n", i, bit);
			assert_int_not_equal(r, CEDE_OK);
			assert_int_equal(size_of(out), 0);
		}
}

static void test_cut_or_longer_is_refused(void **state) {
	CLEANUP(buf_done) struct buf sealed = BUF_INIT(65536);
	CLEANUP(fd_closep) int fd = new_memory();
	struct cede_error err;
	(void)state;
	seal(&cert, 1, SLICE_LIT("a capture"), 100, fd);
	assert_int_equal(file_load_fd(fd, &sealed, &err), 0);
	assert_int_equal(buf_add(&sealed, "\0", 1, &err), 0);
	for (size_t len = 0; len <= sealed.len; len++) {
		CLEANUP(fd_closep) int bad = new_memory();
		CLEANUP(fd_closep) int out = new_memory();
		if (len == sealed.len - 1)
			continue;
		assert_int_equal(file_write_all(bad, sealed.data, len, &err), 0);
		assert_int_equal(seal_open(bad, key, cert, out, &err), CEDE_ERR_INPUT);
		assert_int_equal(size_of(out), 0);
	}
}

static void test_others_cannot_open(void **state) {
	CLEANUP(fd_closep) int fd = new_memory();
	CLEANUP(fd_closep) int out = new_memory();
	struct cede_error err;
	(void)state;
	seal(&cert, 1, SLICE_LIT("a capture"), 100, fd);
	assert_int_equal(seal_open(fd, second_key, second_cert, out, &err), CEDE_ERR_REFUSED);
	assert_non_null(strstr(err.text, "other certificates"));
	assert_int_equal(seal_open(fd, second_key, cert, out, &err), CEDE_ERR_REFUSED);
	assert_int_equal(seal_open(fd, rsa_key, rsa_cert, out, &err), CEDE_ERR_REFUSED);
	assert_int_equal(size_of(out), 0);
}

/* What OpenSSL would open, and cede does not: other ciphers and kinds of CMS. */
static void test_other_envelopes_are_refused(void **state) {
	static const char *const options[] = {
		"-aes-128-gcm", "-aes-256-cbc", "-aes-256-gcm -nocerts", "-aes-192-gcm -stream"};
	(void)state;
	tool_write(&tool, "plain", SLICE_LIT("a capture"), 0600);
	for (size_t i = 0; i < ARRAY_LENGTH(options); i++) {
		char script[512];
		CLEANUP(fd_closep) int out = new_memory();
		struct cede_error err;
		(void)snprintf(script, sizeof script,
			"openssl cms -encrypt -binary %s -in plain -outform DER -out alien.cms "
			"-recip pki/seal.pem -keyid",
			options[i]);
		assert_int_equal(tool_run(&tool, "sh", "-c", script, NULL), 0);
		CLEANUP(fd_closep) int fd = openat(tool.dirfd, "alien.cms", O_RDONLY | O_CLOEXEC);
		assert_true(fd >= 0);
		assert_int_equal(seal_open(fd, key, cert, out, &err), CEDE_ERR_INPUT);
		assert_int_equal(size_of(out), 0);
	}
}

static void test_certificates_that_are_not_for_sealing(void **state) {
	static const struct {
		const char *name, *algorithm, *option, *usage;
		bool with_key_id;
		int64_t shift_s;
		const char *expected; /* NULL: fine */
	} cases[] = {
		{"fine", "EC", "ec_paramgen_curve:P-256", "keyAgreement", true, 0, NULL},
		{"any-use", "EC", "ec_paramgen_curve:P-256", NULL, true, 0, NULL},
		{"signer", "EC", "ec_paramgen_curve:P-256", "digitalSignature", true, 0,
			"keyAgreement"},
		{"rsa-sign", "RSA", "rsa_keygen_bits:3072", "digitalSignature", true, 0,
			"keyEncipherment"},
		{"rsa-2048", "RSA", "rsa_keygen_bits:2048", "keyEncipherment", true, 0, "3072"},
		{"p384", "EC", "ec_paramgen_curve:P-384", "keyAgreement", true, 0, "P-256"},
		{"no-id", "EC", "ec_paramgen_curve:P-256", "keyAgreement", false, 0,
			"subject key identifier"},
		{"early", "EC", "ec_paramgen_curve:P-256", "keyAgreement", true, -86400,
			"not valid yet"},
		{"late", "EC", "ec_paramgen_curve:P-256", "keyAgreement", true, 3 * 86400, "expired"},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_LENGTH(cases); i++) {
		char pem[64];
		struct sealer_keys *keys = NULL;
		struct cede_error err = {0};
		make(cases[i].name, cases[i].algorithm, cases[i].option, cases[i].usage,
			cases[i].with_key_id);
		(void)snprintf(pem, sizeof pem, "%s.pem", cases[i].name);
		CLEANUP(cert_freep) X509 *c = tool_cert(&tool, pem);
		const char *name = pem;
		int r = sealer_keys_new(&c, &name, 1,
			clock_wall_ns() + cases[i].shift_s * NS_PER_SECOND, false, &keys, &err);
		sealer_keys_free(keys);
		if (cases[i].expected == NULL) {
			assert_int_equal(r, CEDE_OK);
			continue;
		}
		assert_int_equal(r, CEDE_ERR_REFUSED);
		assert_non_null(strstr(err.text, pem));
		assert_non_null(strstr(err.text, cases[i].expected));
	}
	struct cede_error err;
	struct sealer_keys *keys = NULL;
	assert_int_equal(sealer_keys_new(NULL, NULL, 0, 0, false, &keys, &err), CEDE_ERR_REFUSED);
}

static void test_write_errors_come_back(void **state) {
	struct sealer_keys *keys = keys_of(&cert, 1);
	CLEANUP(buf_done) struct buf plain = BUF_INIT(SEAL_PLAINTEXT_MAX);
	CLEANUP(fd_closep) int full = open("/dev/full", O_WRONLY | O_CLOEXEC);
	CLEANUP(sealer_freep) struct sealer *s = NULL;
	uint8_t digest[32];
	uint64_t size;
	struct cede_error err = {0};
	(void)state;
	assert_true(full >= 0);
	fill(&plain, 1U << 20);
	assert_int_equal(sealer_new(keys, full, &s, &err), 0);
	sealer_keys_free(keys);
	int r = sealer_write(s, buf_slice(&plain), &err);
	if (r == CEDE_OK)
		r = sealer_finish(s, &size, digest, &err);
	assert_int_equal(r, CEDE_ERR_IO);
	assert_int_equal(err.sys, ENOSPC);
	/* and it stays so */
	assert_int_equal(sealer_finish(s, &size, digest, &err), CEDE_ERR_IO);
	assert_int_equal(err.sys, ENOSPC);
}

static void test_half_way_is_freed_and_writes_nothing_more(void **state) {
	struct sealer_keys *keys = keys_of(&cert, 1);
	CLEANUP(fd_closep) int fd = new_memory();
	struct sealer *s = NULL;
	struct cede_error err;
	(void)state;
	assert_int_equal(sealer_new(keys, fd, &s, &err), 0);
	assert_int_equal(sealer_write(s, SLICE_LIT("a capture"), &err), 0);
	off_t before = size_of(fd);
	struct sealer *empty = NULL;
	uint64_t size;
	uint8_t digest[32];
	assert_int_equal(sealer_new(keys, fd, &empty, &err), 0);
	assert_int_equal(sealer_finish(empty, &size, digest, &err), CEDE_ERR_INPUT);
	sealer_free(empty);
	sealer_free(s);
	assert_int_equal(size_of(fd), before);
	sealer_keys_free(keys);
	sealer_free(NULL);
}

static void test_plaintext_limit(void **state) {
	struct sealer_keys *keys = keys_of(&cert, 1);
	CLEANUP(buf_done) struct buf plain = BUF_INIT(SEAL_PLAINTEXT_MAX);
	CLEANUP(sealer_freep) struct sealer *s = NULL;
	CLEANUP(fd_closep) int null = open("/dev/null", O_WRONLY | O_CLOEXEC);
	struct cede_error err;
	(void)state;
	fill(&plain, SEAL_PLAINTEXT_MAX / 4);
	assert_int_equal(sealer_new(keys, null, &s, &err), 0);
	sealer_keys_free(keys);
	for (int i = 0; i < 4; i++)
		assert_int_equal(sealer_write(s, buf_slice(&plain), &err), 0);
	assert_int_equal(sealer_write(s, SLICE_LIT("x"), &err), CEDE_ERR_INPUT);
}

int main(void) {
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_sizes),
		cmocka_unit_test(test_stock_openssl_opens_it_for_each_recipient),
		cmocka_unit_test(test_every_flipped_byte_is_refused),
		cmocka_unit_test(test_cut_or_longer_is_refused),
		cmocka_unit_test(test_others_cannot_open),
		cmocka_unit_test(test_other_envelopes_are_refused),
		cmocka_unit_test(test_certificates_that_are_not_for_sealing),
		cmocka_unit_test(test_write_errors_come_back),
		cmocka_unit_test(test_half_way_is_freed_and_writes_nothing_more),
		cmocka_unit_test(test_plaintext_limit)};

	return cmocka_run_group_tests_name("seal", tests, set_up, tear_down);
}
