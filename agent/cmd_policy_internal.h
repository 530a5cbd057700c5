/* SPDX-License-Identifier: Apache-2.0
 * What the subcommands of `cede policy` share; each has a file of its own, cmd_policy_NAME.c. */
#pragma once

#include <jansson.h>

#include "agent/ledger/ledger.h"
#include "policy/decide.h"

#define SHOWN_MAX 16384 /* a path of 4095 bytes, each as "\x1b" */

/* 4: with --detailed-exitcode, compliant and there is work to do */
enum exit_code { EXIT_FINE, EXIT_FINDINGS, EXIT_INPUT, EXIT_CANNOT, EXIT_WORK };

/* What stood on the command line behind `cede policy NAME`. */
struct policy_words {
	const char *command;
	const char *policy, *config, *state, *source, *key, *name;
	int64_t now_ns; /* --at, or now */
	bool json, summary, detailed, rules_only, host, strict;
	char **rest;
	size_t rest_count;
};

int cmd_policy_check(const struct policy_words *w);
int cmd_policy_sign(const struct policy_words *w);
int cmd_policy_dry_run(const struct policy_words *w);
int cmd_policy_explain(const struct policy_words *w);
int cmd_policy_diff(const struct policy_words *w);
int cmd_policy_show(const struct policy_words *w);

/* "cede policy NAME: text" to stderr; the exit code for r. */
int policy_cannot(const struct policy_words *w, int r, const struct cede_error *err);
/* What stands behind the last slash. */
const char *policy_base_name(const char *path);
/* Loads for a command. With --config the signature must be one that the host trusts, and the serial
 * no lower than the ledger's highest; without, that nobody vouches for it is said on stderr. On
 * failure everything is printed, and the exit code comes back with *ret NULL. */
int policy_load_for(const struct policy_words *w, const char *path, struct policy **ret);
/* The ledger of --state or of --config, to read; *ret NULL if neither is given. */
int policy_ledger_for(const struct policy_words *w, struct ledger **ret);

/* Whether this host can have the vault of the source, as vault_host_check() says, with the agent's
 * configuration if it was given; one that can't be read is said elsewhere. Changes nothing. */
CEDE_MUST_USE int policy_vault_here(const struct policy_words *w,
	const struct policy_source *source, struct cede_error *reterr);

/* Prints the object as one line and gives it back. */
void print_json(json_t *object);
/* What would move a terminal's cursor, is no text, or is a backslash: as \xNN. */
void show_path(const char *path, char out[SHOWN_MAX]);
/* The same for a text of the policy, in which letters of any language and backslashes stay. */
void show_text(const char *text, char out[SHOWN_MAX]);
/* "3d04h" "2h05m" "14m57s" "3s": two units are enough to see how urgent it is. */
void show_span(int64_t ns, char *out, size_t size);
/* "12 MiB" "3.4 KiB" "17 B" */
void show_bytes(uint64_t bytes, char *out, size_t size);
