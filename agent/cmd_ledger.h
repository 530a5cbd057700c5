/* SPDX-License-Identifier: Apache-2.0
 * `cede ledger`: what the custody ledger holds. Read-only; works while the agent runs. */
#pragma once

/* argv[0] is "ledger". Returns the exit code. */
int cmd_ledger(int argc, char **argv);
