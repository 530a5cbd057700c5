/* SPDX-License-Identifier: Apache-2.0
 * `cede status`: what is waiting, what was handed over. From the ledger alone: works while the
 * agent is down. */
#pragma once

/* argv[0] is "status". Returns the exit code. */
int cmd_status(int argc, char **argv);
