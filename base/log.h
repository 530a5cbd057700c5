/* SPDX-License-Identifier: Apache-2.0
 * The log: one line an event, "event key=value key=value", to standard error (journald adds time).
 *
 * Promise names of captures never go here (I9): log ids. Lines of one event name are limited to 50
 *         in 10 seconds; what was left out is counted, and said by log_flush() or by the next line
 *         of the event.
 * Levels  error: something does not work, a person has to act. warning: it goes on, and this should
 * not happen. info: what the agent did. debug: for whoever looks for a fault. Under journald each
 *         line carries its priority ("<4>").
 * Thread  any. The only module state of the program besides main(). */
#pragma once

#include "base/error.h"

enum log_level { LOG_LEVEL_ERROR, LOG_LEVEL_WARNING, LOG_LEVEL_INFO, LOG_LEVEL_DEBUG };

/* program stands before each line; must live for ever. */
void log_setup(const char *program, enum log_level level);
const char *log_level_name(enum log_level level);
CEDE_MUST_USE int log_level_parse(const char *name, enum log_level *ret);
/* event: a dotted constant, "courier.exited". fmt: "key=%s key=%d" (may be ""). Values with spaces
 * go in quotes: "error=\"%s\"". Control characters are replaced by '?'. */
void log_event(enum log_level level, const char *event, const char *fmt, ...) CEDE_PRINTF(3, 4);
/* Says what was left out of events that were limited and are quiet now. Each second or so. */
void log_flush(void);
