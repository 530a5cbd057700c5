/* SPDX-License-Identifier: Apache-2.0 */
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/check.h"
#include "base/clock.h"
#include "base/file.h"
#include "certs/base64.h"
#include "certs/host_id.h"
#include "certs/key.h"
#include "tests/unit/certs/tool.h"

static struct tool tool;

static int set_up(void **state) {
	(void)state;
	tool_init(&tool);
	tool_pki(&tool);
	return 0;
}

static int tear_down(void **state) {
	(void)state;
	tool_done(&tool);
	return 0;
}

static int load(const char *name, struct cede_error *err) {
	CLEANUP(key_freep) EVP_PKEY *key = NULL;
	int r = key_load_private(tool.dirfd, name, &key, err);

	assert_true((r == CEDE_OK) == (key != NULL));
	return r;
}

static void test_modes(void **state) {
	static const struct {
		unsigned mode;
		int expected;
	} cases[] = {{0600, CEDE_OK}, {0400, CEDE_OK}, {0700, CEDE_OK}, {0640, CEDE_ERR_REFUSED},
		{0604, CEDE_ERR_REFUSED}, {0644, CEDE_ERR_REFUSED}, {0620, CEDE_ERR_REFUSED},
		{0601, CEDE_ERR_REFUSED}};

	(void)state;
	for (size_t i = 0; i < ARRAY_LENGTH(cases); i++) {
		struct cede_error err = {0};
		assert_int_equal(fchmodat(tool.dirfd, "pki/agent.key", cases[i].mode, 0), 0);
		assert_int_equal(load("pki/agent.key", &err), cases[i].expected);
		if (cases[i].expected < 0) {
			assert_non_null(strstr(err.text, "pki/agent.key"));
			assert_non_null(strstr(err.text, "chmod 0600"));
		}
	}
	assert_int_equal(fchmodat(tool.dirfd, "pki/agent.key", 0600, 0), 0);
}

static void test_public_modes(void **state) {
	static const unsigned bad[] = {0664, 0646, 0666};
	(void)state;
	for (size_t i = 0; i < ARRAY_LENGTH(bad); i++) {
		CLEANUP(key_freep) EVP_PKEY *key = NULL;
		CLEANUP(cert_freep) X509 *cert = NULL;
		struct cede_error err;
		assert_int_equal(fchmodat(tool.dirfd, "pki/receipt.pub", bad[i], 0), 0);
		assert_int_equal(fchmodat(tool.dirfd, "pki/agent.pem", bad[i], 0), 0);
		assert_int_equal(key_load_public(tool.dirfd, "pki/receipt.pub", &key, &err),
			CEDE_ERR_REFUSED);
		assert_int_equal(
			cert_load(tool.dirfd, "pki/agent.pem", &cert, &err), CEDE_ERR_REFUSED);
		assert_non_null(strstr(err.text, "chmod 0644"));
	}
	assert_int_equal(fchmodat(tool.dirfd, "pki/receipt.pub", 0644, 0), 0);
	assert_int_equal(fchmodat(tool.dirfd, "pki/agent.pem", 0644, 0), 0);
}

static void test_kinds_of_file(void **state) {
	struct cede_error err;
	(void)state;
	assert_int_equal(load("pki/none.key", &err), CEDE_ERR_IO);
	assert_int_equal(err.sys, ENOENT);
	assert_int_equal(mkfifoat(tool.dirfd, "fifo.key", 0600), 0);
	assert_int_equal(load("fifo.key", &err), CEDE_ERR_REFUSED);
	assert_int_equal(load("pki", &err), CEDE_ERR_REFUSED);
	/* a symlink of the administrator is fine: what counts is the file behind it */
	assert_int_equal(symlinkat("pki/agent.key", tool.dirfd, "link.key"), 0);
	assert_int_equal(load("link.key", &err), CEDE_OK);
}

static void test_wrong_owner(void **state) {
	struct cede_error err;
	(void)state;
	if (geteuid() != 0)
		skip();
	assert_int_equal(tool_run(&tool, "cp", "-p", "pki/agent.key", "other.key", NULL), 0);
	assert_int_equal(fchownat(tool.dirfd, "other.key", 65534, 65534, 0), 0);
	assert_int_equal(load("other.key", &err), CEDE_ERR_REFUSED);
	assert_non_null(strstr(err.text, "65534"));
}

static void test_weak_and_unknown_keys(void **state) {
	static const struct {
		const char *algorithm;
		const char *option;
		int expected;
	} cases[] = {{"RSA", "rsa_keygen_bits:2048", CEDE_ERR_REFUSED},
		{"RSA", "rsa_keygen_bits:3072", CEDE_OK},
		{"EC", "ec_paramgen_curve:P-384", CEDE_ERR_REFUSED},
		{"EC", "ec_paramgen_curve:secp256k1", CEDE_ERR_REFUSED},
		{"EC", "ec_paramgen_curve:P-256", CEDE_OK}};
	struct cede_error err;
	(void)state;
	for (size_t i = 0; i < ARRAY_LENGTH(cases); i++) {
		assert_int_equal(
			tool_run(&tool, "openssl", "genpkey", "-algorithm", cases[i].algorithm,
				"-pkeyopt", cases[i].option, "-out", "made.key", NULL),
			0);
		assert_int_equal(load("made.key", &err), cases[i].expected);
	}
	assert_int_equal(tool_run(&tool, "openssl", "genpkey", "-algorithm", "ED25519", "-out",
				 "made.key", NULL),
		0);
	assert_int_equal(load("made.key", &err), CEDE_ERR_REFUSED);
}

static void test_not_a_key(void **state) {
	struct cede_error err;
	CLEANUP(key_freep) EVP_PKEY *key = NULL;
	CLEANUP(buf_done) struct buf big = BUF_INIT(KEY_FILE_MAX + 1);
	uint8_t *at;
	(void)state;
	tool_write(&tool, "empty.key", SLICE_NONE, 0600);
	assert_int_equal(load("empty.key", &err), CEDE_ERR_INPUT);
	tool_write(&tool, "words.key", SLICE_LIT("-----BEGIN PRIVATE KEY-----\nAAAA\n"), 0600);
	assert_int_equal(load("words.key", &err), CEDE_ERR_INPUT);
	assert_int_equal(buf_room(&big, KEY_FILE_MAX + 1, &at, NULL), 0);
	memset(at, '\n', KEY_FILE_MAX + 1);
	tool_write(&tool, "big.key", slice_of(at, KEY_FILE_MAX + 1), 0600);
	assert_int_equal(load("big.key", &err), CEDE_ERR_INPUT);
	/* a pass phrase is never asked for */
	assert_int_equal(tool_run(&tool, "openssl", "pkey", "-in", "pki/agent.key", "-aes256",
				 "-passout", "pass:x", "-out", "locked.key", NULL),
		0);
	assert_int_equal(load("locked.key", &err), CEDE_ERR_INPUT);
	assert_non_null(strstr(err.text, "without pass phrase"));
	/* a private key is no public one */
	assert_int_equal(key_load_public(tool.dirfd, "pki/agent.key", &key, &err), CEDE_ERR_INPUT);
}

static void test_pem_bytes(void **state) {
	CLEANUP(buf_done) struct buf pem = BUF_INIT(KEY_FILE_MAX);
	CLEANUP(buf_done) struct buf file = BUF_INIT(KEY_FILE_MAX);
	struct cede_error err;
	(void)state;
	assert_int_equal(key_load_private_pem(tool.dirfd, "pki/agent.key", &pem, &err), 0);
	tool_read(&tool, "pki/agent.key", &file);
	assert_true(slice_equal(buf_slice(&pem), buf_slice(&file)));
	assert_int_equal(
		key_load_private_pem(tool.dirfd, "pki/agent.pem", &pem, &err), CEDE_ERR_REFUSED);
}

static void test_one_certificate(void **state) {
	CLEANUP(buf_done) struct buf both = BUF_INIT(KEY_FILE_MAX);
	CLEANUP(cert_freep) X509 *cert = NULL;
	struct cede_error err;
	(void)state;
	tool_read(&tool, "pki/agent.pem", &both);
	tool_read(&tool, "pki/ca.pem", &both);
	tool_write(&tool, "both.pem", buf_slice(&both), 0644);
	assert_int_equal(cert_load(tool.dirfd, "both.pem", &cert, &err), CEDE_ERR_INPUT);
	assert_int_equal(cert_load(tool.dirfd, "pki/agent.key", &cert, &err), CEDE_ERR_INPUT);
}

static void test_digest(void **state) {
	CLEANUP(key_freep) EVP_PKEY *private = tool_private(&tool, "pki/receipt.key");
	CLEANUP(key_freep) EVP_PKEY *public = tool_public(&tool, "pki/receipt.pub");
	CLEANUP(buf_done) struct buf stock = BUF_INIT(64);
	uint8_t a[32], b[32];
	struct cede_error err;
	(void)state;
	assert_int_equal(key_digest(private, a, &err), 0);
	assert_int_equal(key_digest(public, b, &err), 0);
	assert_memory_equal(a, b, 32);
	assert_int_equal(tool_run(&tool, "sh", "-c",
				 "openssl pkey -pubin -in pki/receipt.pub -outform DER | "
				 "openssl dgst -sha256 -binary >digest",
				 NULL),
		0);
	tool_read(&tool, "digest", &stock);
	assert_int_equal(stock.len, 32);
	assert_memory_equal(stock.data, a, 32);
}

static X509 *self_signed(const char *subject) {
	assert_int_equal(tool_run(&tool, "openssl", "req", "-x509", "-key", "pki/agent.key",
				 "-utf8", "-subj", subject, "-days", "1", "-out", "self.pem", NULL),
		0);
	assert_int_equal(fchmodat(tool.dirfd, "self.pem", 0644, 0), 0);
	return tool_cert(&tool, "self.pem");
}

static void test_host_id(void **state) {
	static const struct {
		const char *subject;
		const char *expected;
	} cases[] = {{"/CN=lane-1.gate_2", "lane-1.gate_2"}, {"/O=x/CN=A", "A"},
		{"/O=nobody", NULL}, {"/CN=a/CN=b", NULL}, {"/CN=a b", NULL}, {"/CN=.hidden", NULL},
		{"/CN=-x", NULL}, {"/CN=a\\/b", NULL}, {"/CN=l\xc3\xa4ne", NULL}};

	(void)state;
	for (size_t i = 0; i < ARRAY_LENGTH(cases); i++) {
		CLEANUP(cert_freep) X509 *cert = self_signed(cases[i].subject);
		char id[HOST_ID_MAX + 1];
		struct cede_error err;
		int r = cert_host_id(cert, id, sizeof id, &err);
		assert_int_equal(r, cases[i].expected == NULL ? CEDE_ERR_REFUSED : CEDE_OK);
		if (r == CEDE_OK)
			assert_string_equal(id, cases[i].expected);
	}
	char long_id[HOST_ID_MAX + 2];
	memset(long_id, 'a', sizeof long_id);
	assert_true(host_id_valid(slice_of(long_id, HOST_ID_MAX)));
	assert_false(host_id_valid(slice_of(long_id, HOST_ID_MAX + 1)));
	assert_false(host_id_valid(SLICE_NONE));
}

static void test_validity(void **state) {
	CLEANUP(cert_freep) X509 *cert = tool_cert(&tool, "pki/agent.pem");
	int64_t from, until, now = clock_wall_ns();
	struct cede_error err;
	(void)state;
	assert_int_equal(cert_validity(cert, &from, &until, &err), 0);
	assert_true(from <= now && now - from < 600 * NS_PER_SECOND);
	assert_int_equal((until - from) / NS_PER_SECOND, 397 * 86400);
}

/* Of several the first end; what can't be read is no certificate that has ended. */
static void test_first_end(void **state) {
	CLEANUP(cert_freep) X509 *day = self_signed("/CN=a-day");
	CLEANUP(buf_done) struct buf pem = BUF_INIT(KEY_FILE_MAX);
	int64_t from, until, first;
	struct cede_error err = {0};

	(void)state;
	assert_int_equal(certs_until(SLICE_LIT("no certificate"), "x.pem", &first, &err), CEDE_OK);
	assert_int_equal(first, 0);
	assert_int_equal(cert_validity(day, &from, &until, &err), CEDE_OK);
	tool_read(&tool, "pki/ca.pem", &pem);
	tool_read(&tool, "self.pem", &pem);
	assert_int_equal(certs_until(buf_slice(&pem), "x.pem", &first, &err), CEDE_OK);
	assert_int_equal(first, until);
	pem.len -= 60; /* cut in the midst of the second */
	assert_int_equal(certs_until(buf_slice(&pem), "x.pem", &first, &err), CEDE_ERR_INPUT);
	assert_non_null(strstr(err.text, "x.pem"));
}

static void test_base64(void **state) {
	static const struct {
		const char *text;
		const char *data; /* NULL: refused */
	} cases[] = {{"Zg==", "f"}, {"Zm8=", "fo"}, {"Zm9v", "foo"}, {"Zm9vYmFy", "foobar"},
		{"", NULL}, {"Zg", NULL}, {"Zh==", NULL}, {"Zm9=", NULL}, {"Z===", NULL},
		{"====", NULL}, {"Zm9v\n", NULL}, {" Zm9v   ", NULL}, {"Zm9vZg=A", NULL},
		{"Zg==Zg==", NULL}, {"Zm-v", NULL}, {"Zm9\xff", NULL}};

	(void)state;
	for (size_t i = 0; i < ARRAY_LENGTH(cases); i++) {
		CLEANUP(buf_done) struct buf data = BUF_INIT(64);
		CLEANUP(buf_done) struct buf text = BUF_INIT(64);
		struct cede_error err;
		int r = base64_decode(slice_str(cases[i].text), &data, &err);
		assert_int_equal(r, cases[i].data == NULL ? CEDE_ERR_INPUT : CEDE_OK);
		if (r < 0)
			continue;
		assert_true(slice_is(buf_slice(&data), cases[i].data));
		assert_int_equal(base64_encode(buf_slice(&data), &text, &err), 0);
		assert_true(slice_is(buf_slice(&text), cases[i].text));
	}
}

static void test_dev_pki(void **state) {
	char script[4096];
	(void)state;
	(void)snprintf(script, sizeof script, "%s/certs/dev-pki", getenv("TOP"));
	assert_int_equal(tool_run(&tool, script, "pki", NULL), 2); /* never overwrites */
	assert_int_equal(tool_run(&tool, script, NULL), 2);
	assert_int_equal(tool_run(&tool, script, "--help", NULL), 0);
	assert_int_equal(tool_run(&tool, "env", "CEDE_HOST=a/b", script, "other", NULL), 2);
	assert_int_equal(tool_run(&tool, "openssl", "verify", "-x509_strict", "-purpose",
				 "sslserver", "-verify_hostname", "localhost", "-CAfile",
				 "pki/ca.pem", "pki/server.pem", NULL),
		0);
	assert_int_equal(tool_run(&tool, "openssl", "verify", "-x509_strict", "-purpose",
				 "sslclient", "-CAfile", "pki/ca.pem", "pki/agent.pem", NULL),
		0);
	assert_int_not_equal(tool_run(&tool, "openssl", "verify", "-purpose", "sslserver",
				     "-CAfile", "pki/ca.pem", "pki/agent.pem", NULL),
		0);
	assert_int_equal(tool_run(&tool, "sh", "-c",
				 "! find pki -name '*.key' ! -perm 600 | grep . && "
				 "test $(ls -A pki | wc -l) = 12",
				 NULL),
		0);
}

int main(void) {
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_modes),
		cmocka_unit_test(test_public_modes), cmocka_unit_test(test_kinds_of_file),
		cmocka_unit_test(test_wrong_owner), cmocka_unit_test(test_weak_and_unknown_keys),
		cmocka_unit_test(test_not_a_key), cmocka_unit_test(test_pem_bytes),
		cmocka_unit_test(test_one_certificate), cmocka_unit_test(test_digest),
		cmocka_unit_test(test_host_id), cmocka_unit_test(test_validity),
		cmocka_unit_test(test_first_end), cmocka_unit_test(test_base64),
		cmocka_unit_test(test_dev_pki)};

	return cmocka_run_group_tests_name("key", tests, set_up, tear_down);
}
