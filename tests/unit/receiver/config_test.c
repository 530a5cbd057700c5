/* SPDX-License-Identifier: Apache-2.0 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/check.h"
#include "base/file.h"
#include "receiver/config.h"
#include "receiver/limits.h"
#include "tests/unit/mistakes.h"
#include "tests/unit/unit.h"

#define REST                                                                                    \
	"store: store\nidentity: {certificate: server.pem, key: /k/server.key}\nclients: {ca: " \
	"ca.pem}\nreceipts: {key: receipt.key}\n"
#define L "listen: 127.0.0.1:8443\n"

static char directory[] = "/tmp/cede-config-XXXXXX";

static int set_up(void **state) {
	(void)state;
	return mkdtemp(directory) == NULL ? -1 : 0;
}

static int tear_down(void **state) {
	char path[64];

	(void)state;
	(void)snprintf(path, sizeof path, "%s/receiver.yaml", directory);
	(void)unlink(path);
	return rmdir(directory);
}

static int load(const char *text, struct receiver_config **ret, char ***ret_lines) {
	struct cede_error err;
	char path[64];
	int fd = -1;

	assert_int_equal(file_open_dir(AT_FDCWD, directory, &fd, &err), CEDE_OK);
	assert_int_equal(file_replace(fd, "receiver.yaml", slice_str(text), 0600, &err), CEDE_OK);
	(void)close(fd);
	(void)snprintf(path, sizeof path, "%s/receiver.yaml", directory);
	return receiver_config_load(path, ret, ret_lines, &err);
}

static void paths_are_relative_to_the_file(void **state) {
	struct receiver_config *c = NULL;
	char **lines = NULL;
	char expected[64];

	(void)state;
	assert_int_equal(load(L REST "limits: {bundle: 64MiB}\n", &c, &lines), CEDE_OK);
	assert_null(lines);
	assert_string_equal(c->listen, "127.0.0.1:8443");
	(void)snprintf(expected, sizeof expected, "%s/store", directory);
	assert_string_equal(c->store, expected);
	(void)snprintf(expected, sizeof expected, "%s/server.pem", directory);
	assert_string_equal(c->certificate, expected);
	assert_string_equal(c->key, "/k/server.key");
	(void)snprintf(expected, sizeof expected, "%s/ca.pem", directory);
	assert_string_equal(c->clients_ca, expected);
	(void)snprintf(expected, sizeof expected, "%s/receipt.key", directory);
	assert_string_equal(c->receipt_key, expected);
	assert_string_equal(c->signer, "cede-receiver");
	assert_null(c->front_user);
	assert_int_equal(c->bundle_max, 64 << 20);
	receiver_config_free(c);
}

static void a_front_needs_no_certificate(void **state) {
	struct receiver_config *c = NULL;
	char **lines = NULL;

	(void)state;
	assert_int_equal(load("listen: unix:/run/r.sock\nstore: /s\nfront_user: nginx\n"
			      "receipts: {key: /k, signer: agency-1}\n",
				 &c, &lines),
		CEDE_OK);
	assert_null(c->certificate);
	assert_null(c->clients_ca);
	assert_string_equal(c->front_user, "nginx");
	assert_string_equal(c->signer, "agency-1");
	assert_int_equal(c->bundle_max, LIMIT_BUNDLE_DEFAULT);
	receiver_config_free(c);
}

static void an_address_has_a_port(void **state) {
	static const char *const good[] = {
		"0.0.0.0:8443", "\"[::]:8443\"", "127.0.0.1:0", "intake.example:1", "unix:/r"};

	(void)state;
	for (size_t i = 0; i < ARRAY_LENGTH(good); i++) {
		struct receiver_config *c = NULL;
		char **lines = NULL;
		char text[512];

		(void)snprintf(text, sizeof text, "listen: %s\n" REST, good[i]);
		if (load(text, &c, &lines) != CEDE_OK)
			fail_msg("%s: %s", good[i], lines == NULL ? "" : lines[0]);
		receiver_config_free(c);
	}
}

static void mistakes_are_named_with_their_place(void **state) {
	static const struct {
		const char *text, *mistake;
	} table[] = {
		{REST, "receiver.yaml:1:1: key \"listen\" is missing"},
		{L, "receiver.yaml:1:1: key \"store\" is missing"},
		{L "store: /s\nreceipts: {key: k}\n",
			"receiver.yaml:1:1: identity is not filled in: which server is this?"},
		{L "store: /s\nidentity: {certificate: c, key: credential:k}\nclients: {ca: c}\n"
		   "receipts: {key: credential:a/b}\n",
			"receiver.yaml:3:33: key: credential:k: started without credentials"},
		{"listen: 8443\n" REST, "receiver.yaml:1:9: listen: ADDRESS:PORT or unix:/PATH"},
		{"listen: \":8443\"\n" REST, "receiver.yaml:1:9: listen:"},
		{"listen: a:70000\n" REST, "receiver.yaml:1:9: listen:"},
		{"listen: a:https\n" REST, "receiver.yaml:1:9: listen:"},
		{"listen: \"a:\"\n" REST, "receiver.yaml:1:9: listen:"},
		{"listen: unix:r.sock\n" REST, "receiver.yaml:1:9: listen:"},
		{"listen: unix:/1234567890123456789012345678901234567890123456789012345678901234567"
		 "890123456789012345678901234567890123456789\n" REST,
			"receiver.yaml:1:9: listen:"},
		{L REST "limits: {bundle: 512KiB}\n", "receiver.yaml:6:18: bundle: 1MiB to 1GiB"},
		{L REST "limits: {bundle: 2GiB}\n", "receiver.yaml:6:18: bundle: 1MiB to 1GiB"},
		{L REST "limits: {bundle: 80}\n", "receiver.yaml:6:18: bundle:"},
		{L REST "limits: {bundel: 80MiB}\n", "receiver.yaml:6:10: unknown key \"bundel\""},
		{L REST "front: nginx\n", "receiver.yaml:6:1: unknown key \"front\""},
		{L "store: /s\nidentity: {certificate: c, key: k}\nclients: {ca: c}\n"
		   "receipts: {key: k, signer: the agency}\n",
			"receiver.yaml:5:28: signer:"},
		{L "store: /s\nidentity: {certificate: c, key: k}\nclients: {ca: c}\n"
		   "receipts: {key: k, signer: a+b}\n",
			"receiver.yaml:5:28: signer:"},
		{L "store: /s\nidentity: {certificate: c, key: k}\nclients: {ca: c, crl: x}\n"
		   "receipts: {key: k}\n",
			"receiver.yaml:4:18: crl: not supported yet"},
		{"- a\n", "receiver.yaml:1:1: keys with values expected"},
		{"", "receiver.yaml:1:1: the file is empty"},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_LENGTH(table); i++) {
		struct receiver_config *c = NULL;
		char **lines = NULL;
		int r = load(table[i].text, &c, &lines);

		if (r != CEDE_ERR_INPUT || c != NULL || !one_says(lines, table[i].mistake))
			fail_msg("%s\nsays %s", table[i].text, lines != NULL ? lines[0] : "nothing");
		free_lines(lines);
	}
}

int main(void) {
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(paths_are_relative_to_the_file),
		cmocka_unit_test(a_front_needs_no_certificate),
		cmocka_unit_test(an_address_has_a_port),
		cmocka_unit_test(mistakes_are_named_with_their_place),
	};

	return cmocka_run_group_tests(tests, set_up, tear_down);
}
