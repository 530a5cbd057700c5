/* SPDX-License-Identifier: Apache-2.0
 * `cede-receiver open`: unpacks sealed bundles. */
#pragma once

/* `cede-receiver open BUNDLE... --key K --cert C --into DIR`; argv[0] is "open". The exit code. */
int open_cmd(int argc, char **argv);
