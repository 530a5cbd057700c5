/* SPDX-License-Identifier: Apache-2.0
 * The keeper's metrics as exposition text (Prometheus text format 0.0.4). Names of captures never
 * stand in it. */
#pragma once

#include "agent/core/flow.h"
#include "base/buf.h"

CEDE_MUST_USE int meters_text(const struct flow_figures *figures, const struct policy *policy,
	struct buf *out, struct cede_error *reterr);
