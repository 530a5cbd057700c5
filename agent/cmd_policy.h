/* SPDX-License-Identifier: Apache-2.0
 * `cede policy check [--json] FILE` and
 * `cede policy dry-run --policy P [--state DIR] [--source S] [--at TIME] [--json]`. */
#pragma once

/* argv[0] is "policy". Returns the exit code: 0 fine; 1 findings of a dry run; 2 bad usage or a bad
 * policy; 3 could not do it. */
int cmd_policy(int argc, char **argv);
