/* SPDX-License-Identifier: Apache-2.0 */
#include "base/log.h"

#include <pthread.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/check.h"
#include "base/clock.h"

#define WINDOW_NS   (10 * NS_PER_SECOND)
#define WINDOW_MOST 50
#define EVENT_KINDS 64

struct limiter {
	const char *event;
	int64_t since;
	unsigned said;
	unsigned dropped;
};

static struct {
	pthread_mutex_t lock;
	const char *program;
	enum log_level level;
	struct limiter limiters[EVENT_KINDS];
} logger = {.lock = PTHREAD_MUTEX_INITIALIZER, .program = "cede", .level = LOG_LEVEL_INFO};

static const char *const level_names[] = {"error", "warning", "info", "debug"};
static const int syslog_levels[] = {3, 4, 6, 7};

void log_setup(const char *program, enum log_level level) {
	logger.program = program;
	logger.level = level;
}

int log_level_parse(const char *name, enum log_level *ret) {
	for (size_t i = 0; i < ARRAY_LENGTH(level_names); i++)
		if (strcmp(name, level_names[i]) == 0) {
			*ret = (enum log_level)i;
			return CEDE_OK;
		}
	return CEDE_ERR_INPUT;
}

/* Whether this line may pass; *ret_dropped is how many before it did not. */
static bool may_pass(const char *event, unsigned *ret_dropped) {
	int64_t now = clock_boot_ns();
	struct limiter *free_one = NULL;

	*ret_dropped = 0;
	for (size_t i = 0; i < EVENT_KINDS; i++) {
		struct limiter *l = &logger.limiters[i];
		if (l->event == NULL) {
			free_one = l;
			break;
		}
		if (strcmp(l->event, event) != 0)
			continue;
		if (now - l->since >= WINDOW_NS) {
			*ret_dropped = l->dropped;
			l->since = now;
			l->said = l->dropped = 0;
		}
		if (l->said >= WINDOW_MOST) {
			l->dropped++;
			return false;
		}
		l->said++;
		return true;
	}
	if (free_one != NULL)
		*free_one = (struct limiter){.event = event, .since = now, .said = 1};
	return true;
}

void log_event(enum log_level level, const char *event, const char *fmt, ...) {
	char line[1024];
	unsigned dropped;
	size_t len = 0;
	va_list ap;

	if (level > logger.level)
		return;
	(void)pthread_mutex_lock(&logger.lock);
	bool pass = may_pass(event, &dropped);
	(void)pthread_mutex_unlock(&logger.lock);
	if (!pass)
		return;

	if (getenv("JOURNAL_STREAM") != NULL)
		len = (size_t)snprintf(line, sizeof line, "<%d>", syslog_levels[level]);
	len += (size_t)snprintf(line + len, sizeof line - len, "%s: %s: %s ", logger.program,
		level_names[level], event);
	va_start(ap, fmt);
	int n = vsnprintf(line + len, sizeof line - len, fmt, ap);
	va_end(ap);
	len += n > 0 ? (size_t)n : 0;
	if (dropped > 0 && len < sizeof line)
		len += (size_t)snprintf(line + len, sizeof line - len, " left_out=%u", dropped);
	if (len > sizeof line - 2)
		len = sizeof line - 2;
	for (size_t i = 0; i < len; i++)
		if ((unsigned char)line[i] < 0x20 || line[i] == 0x7f)
			line[i] = '?';
	line[len++] = '\n';
	ssize_t done = write(STDERR_FILENO, line, len); /* one write: lines never mix */
	(void)done;                                     /* nobody left to tell */
}
