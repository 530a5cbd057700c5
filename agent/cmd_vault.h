/* SPDX-License-Identifier: Apache-2.0
 * cede vault: prepares sources that have one, lists their epochs. */
#pragma once

/* argv[0] is "vault"; the exit code. */
int cmd_vault(int argc, char **argv);
