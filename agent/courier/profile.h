/* SPDX-License-Identifier: Apache-2.0
 * What the courier may do (base/sandbox.h): connect to the ports that it was started with, and look
 * names up. No file is opened but the resolver's. */
#pragma once

#include "base/sandbox.h"

extern const struct sandbox_call *const courier_calls[];

/* Before any thread, after libcurl's start. */
CEDE_MUST_USE int courier_enter(const uint16_t *ports, size_t port_count,
	struct sandbox_report *report, struct cede_error *reterr);
