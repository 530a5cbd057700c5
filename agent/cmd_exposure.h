/* SPDX-License-Identifier: Apache-2.0
 * cede exposure: which captures were on this host, and when (agent/exposure/). */
#pragma once

int cmd_exposure(int argc, char **argv);
