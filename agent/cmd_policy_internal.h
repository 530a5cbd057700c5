/* SPDX-License-Identifier: Apache-2.0
 * What the subcommands of `cede policy` share; each has a file of its own, cmd_policy_NAME.c. */
#pragma once

#include <jansson.h>

#include "policy/decide.h"

#define SHOWN_MAX 16384 /* a path of 4095 bytes, each as "\x1b" */

enum exit_code { EXIT_FINE, EXIT_FINDINGS, EXIT_INPUT, EXIT_CANNOT };

int cmd_policy_check(int argc, char **argv);
int cmd_policy_dry_run(int argc, char **argv);
int cmd_policy_sign(int argc, char **argv);

/* Prints the usage of all to stderr; EXIT_INPUT. */
int policy_bad_usage(void);
/* The same to stdout; EXIT_FINE. */
int policy_help(void);
/* The exit code for a failure. */
int policy_exit_code(int r);
/* What stands behind the last slash. */
const char *policy_base_name(const char *path);
/* Loads for a command: on failure everything is printed to stderr, and the exit code comes back. */
int policy_load_for(const char *command, const char *path, struct policy **ret);

/* Prints the object as one line and gives it back. */
void print_json(json_t *object);
/* What would move a terminal's cursor, is no text, or is a backslash: as \xNN. */
void show_path(const char *path, char out[SHOWN_MAX]);
/* "3d04h" "2h05m" "14m57s" "3s": two units are enough to see how urgent it is. */
void show_span(int64_t ns, char *out, size_t size);
