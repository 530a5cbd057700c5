/* SPDX-License-Identifier: Apache-2.0
 * What is known of each host's ledger: every checkpoint that extended the one before it
 * (formats/checkpoint.h), in <store>/<host>/checkpoints, as signed notes one behind the other, and
 * the key they are signed with, pinned when the first one came, in <store>/<host>/ledger.pub. One
 * that does not extend what is there is not taken, is told in the log, and kept as evidence in
 * <store>/<host>/checkpoints.refused. To let a host begin anew: move both files away.
 *
 * Promise a checkpoint that was taken is on the disk; none is ever replaced.
 * Hostile peer  the field's value is whatever a host sent. Thread  any. */
#pragma once

#include <stdbool.h>

#include "base/bytes.h"
#include "base/error.h"
#include "formats/checkpoint.h"

#define CUSTODY_CHECKPOINTS "checkpoints"
#define CUSTODY_REFUSED     "checkpoints.refused"
#define CUSTODY_KEY         "ledger.pub"

struct custody;
CEDE_MUST_USE int custody_new(
	int root /* borrowed */, struct custody **ret, struct cede_error *reterr);
void custody_free(struct custody *custody);

enum custody_verdict {
	CUSTODY_TAKEN,
	CUSTODY_KNOWN,    /* it is the newest already */
	CUSTODY_UNPROVEN, /* newer, with a proof from another one than the newest: the next may do */
	CUSTODY_OTHER_KEY,
	CUSTODY_OTHER_HOST,
	CUSTODY_FORGED,    /* its signature is not the key's, or it is malformed */
	CUSTODY_BEHIND,    /* fewer events than the agency has seen: rolled back */
	CUSTODY_REWRITTEN, /* does not begin with what the agency has seen */
};

/* What a push brought of the host's ledger. IO: the store can't be read or written. */
CEDE_MUST_USE int custody_take(struct custody *custody, const char *host, struct slice value,
	enum custody_verdict *ret, struct cede_error *reterr);
/* The newest checkpoint of a host, if there is one. */
CEDE_MUST_USE int custody_newest(struct custody *custody, const char *host, struct checkpoint *ret,
	bool *ret_there, struct cede_error *reterr);
