/* SPDX-License-Identifier: Apache-2.0
 * systemd's journal, by its own protocol (sd_journal_send(3), by hand): a line with its event and its
 * ids as fields, so that `journalctl CEDE_BUNDLE=...` finds what became of one bundle.
 *
 * Promise fields come from the words before the first quoted value: what others wrote (the text of
 *         an error) makes no field. All names begin with CEDE_: no field of the journal's is set. */
#pragma once

#include <stdbool.h>

#include "base/buf.h"

/* A socket to the journal if standard error leads there ($JOURNAL_STREAM); else -1. */
int journal_open(void);
/* Whether standard error is one of the journal's streams, as its other end says: a program without
 * an environment finds out, too. There a line may begin with its priority: "<4>". */
bool journal_is_stderr(void);
/* The datagram: priority (0 to 7), program, event ("bundle.stored"), words ("host=a bundle=b error=..."). */
CEDE_MUST_USE int journal_fields(struct buf *out, int priority, const char *program,
	const char *event, const char *words, struct cede_error *reterr);
/* True once the journal has it; false: say it another way. Never waits. */
bool journal_send(int fd, struct slice datagram);
