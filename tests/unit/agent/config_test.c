/* SPDX-License-Identifier: Apache-2.0 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "agent/config.h"
#include "base/check.h"
#include "base/file.h"
#include "tests/unit/mistakes.h"
#include "tests/unit/unit.h"

#define IDENTITY "identity: {certificate: agent.pem, key: /etc/cede/agent.key}\n"

static char directory[] = "/tmp/cede-config-XXXXXX";

static int set_up(void **state) {
	(void)state;
	return mkdtemp(directory) == NULL ? -1 : 0;
}

static int tear_down(void **state) {
	char path[64];

	(void)state;
	(void)snprintf(path, sizeof path, "%s/agent.yaml", directory);
	(void)unlink(path);
	return rmdir(directory);
}

static int load(const char *text, struct agent_config **ret, char ***ret_lines) {
	struct cede_error err;
	char path[64];
	int fd = -1;

	assert_int_equal(file_open_dir(AT_FDCWD, directory, &fd, &err), CEDE_OK);
	assert_int_equal(file_replace(fd, "agent.yaml", slice_str(text), 0600, &err), CEDE_OK);
	(void)close(fd);
	(void)snprintf(path, sizeof path, "%s/agent.yaml", directory);
	return agent_config_load(path, ret, ret_lines, &err);
}

static void paths_are_relative_to_the_file(void **state) {
	struct agent_config *c = NULL;
	char **lines = NULL;
	char expected[64];

	(void)state;
	assert_int_equal(load("state: state\n" IDENTITY "policy_signers: [policy.pub, /k.pub]\n"
			      "metrics: unix:/run/cede/m.sock\ncourier_user: cede-courier\n"
			      "log: {level: debug}\n",
				 &c, &lines),
		CEDE_OK);
	assert_null(lines);
	(void)snprintf(expected, sizeof expected, "%s/state", directory);
	assert_string_equal(c->state, expected);
	(void)snprintf(expected, sizeof expected, "%s/agent.pem", directory);
	assert_string_equal(c->certificate, expected);
	assert_string_equal(c->key, "/etc/cede/agent.key");
	assert_int_equal(c->policy_signer_count, 2);
	assert_string_equal(c->policy_signers[1], "/k.pub");
	assert_string_equal(c->metrics, "unix:/run/cede/m.sock");
	assert_string_equal(c->courier_user, "cede-courier");
	assert_int_equal(c->log_level, LOG_LEVEL_DEBUG);
	agent_config_free(c);
}

static void absent_keys_have_their_defaults(void **state) {
	static const char *const texts[] = {
		"state: /s\n" IDENTITY, "state: /s\nmetrics: off\n" IDENTITY};

	(void)state;
	for (size_t i = 0; i < ARRAY_LENGTH(texts); i++) {
		struct agent_config *c = NULL;
		char **lines = NULL;

		assert_int_equal(load(texts[i], &c, &lines), CEDE_OK);
		assert_null(c->metrics);
		assert_null(c->courier_user);
		assert_int_equal(c->policy_signer_count, 0);
		assert_int_equal(c->log_level, LOG_LEVEL_INFO);
		agent_config_free(c);
	}
}

static void mistakes_are_named_with_their_place(void **state) {
	static const struct {
		const char *text, *mistake;
	} table[] = {
		{IDENTITY, "agent.yaml:1:1: key \"state\" is missing"},
		{"state: /s\n", "agent.yaml:1:1: identity is not filled in: which host is this?"},
		{"state: /s\nidentity: {certificate: a}\n", "agent.yaml:2:11: key \"key\" is missing"},
		{"state: /s\nidentity: {certificate: credential:../a, key: k}\n",
			"agent.yaml:2:25: certificate: credential:../a: the name of a credential"},
		{"state: /s\nidentity: a\n", "agent.yaml:2:11: identity: keys with values"},
		{"state:\n" IDENTITY, "agent.yaml:1:7: state: a text expected"},
		{"state: ~\n" IDENTITY, "agent.yaml:1:8: state: a text expected"},
		{"state: /s\nmetrics: 0.0.0.0:9464\n" IDENTITY, "agent.yaml:2:10: metrics:"},
		{"state: /s\nmetrics: 127.0.0.1:port\n" IDENTITY, "agent.yaml:2:10: metrics:"},
		{"state: /s\nmetrics: 127.0.0.1:0\n" IDENTITY, "agent.yaml:2:10: metrics:"},
		{"state: /s\nmetrics: fd:4\n" IDENTITY, "agent.yaml:2:10: metrics:"},
		{"state: /s\nmetrics: systemd:x\n" IDENTITY, "agent.yaml:2:10: metrics:"},
		{"state: /s\nmetrics: unix:m.sock\n" IDENTITY, "agent.yaml:2:10: metrics:"},
		{"state: /s\nlog: {level: loud}\n" IDENTITY, "agent.yaml:2:14: level:"},
		{"state: /s\nlog: {levle: info}\n" IDENTITY, "agent.yaml:2:7: unknown key \"levle\""},
		{"sate: /s\n" IDENTITY,
			"agent.yaml:1:1: unknown key \"sate\"; did you mean \"state\"?"},
		{"state: /s\npolicy_signers: a.pub\n" IDENTITY, "agent.yaml:2:17: policy_signers:"},
		{"- a\n", "agent.yaml:1:1: keys with values expected"},
		{"", "agent.yaml:1:1: the file is empty"},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_LENGTH(table); i++) {
		struct agent_config *c = NULL;
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
		cmocka_unit_test(absent_keys_have_their_defaults),
		cmocka_unit_test(mistakes_are_named_with_their_place),
	};

	return cmocka_run_group_tests(tests, set_up, tear_down);
}
