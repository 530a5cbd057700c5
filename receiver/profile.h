/* SPDX-License-Identifier: Apache-2.0
 * What the receiver may do (base/sandbox.h): serve the connections of its listening socket and
 * write below its store; and what `cede-receiver open` may: read the bundles it was given and write
 * below --into. Both take apart what comes from outside. */
#pragma once

#include "base/sandbox.h"

extern const struct sandbox_call *const receiver_calls[];
extern const struct sandbox_call *const opener_calls[];

/* Before any thread; socket, keys and store are open. */
CEDE_MUST_USE int receiver_enter(
	const char *store, struct sandbox_report *report, struct cede_error *reterr);
/* The key is loaded. */
CEDE_MUST_USE int opener_enter(const char *into, char *const *bundles, size_t count,
	struct sandbox_report *report, struct cede_error *reterr);
