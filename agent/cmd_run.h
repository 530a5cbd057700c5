/* SPDX-License-Identifier: Apache-2.0
 * `cede run`: the agent. */
#pragma once

/* `cede run --policy P --config C [--courier PATH]`; argv[0] is "run". Returns the exit code. */
int cmd_run(int argc, char **argv);
