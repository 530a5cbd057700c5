/* SPDX-License-Identifier: Apache-2.0
 * cede purge: taking a host out of service (agent/purge/purge.h). */
#pragma once

int cmd_purge(int argc, char **argv);
