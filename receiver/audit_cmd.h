/* SPDX-License-Identifier: Apache-2.0
 * cede-receiver audit: a host's exported ledger against the store. cede-receiver report: every host. */
#pragma once

int audit_cmd(int argc, char **argv);
int report_cmd(int argc, char **argv);
