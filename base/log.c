/* SPDX-License-Identifier: Apache-2.0 */
#include "base/log.h"

#include <pthread.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/check.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/journal.h"

#define WINDOW_NS   (10 * NS_PER_SECOND)
#define WINDOW_MOST 50
#define EVENT_KINDS 256

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
	int journal;                /* -1: standard error */
	bool set_up, journal_reads; /* what standard error says */
	struct limiter limiters[EVENT_KINDS];
} logger = {
	.lock = PTHREAD_MUTEX_INITIALIZER, .program = "cede", .level = LOG_LEVEL_INFO, .journal = -1};

static const char *const level_names[] = {"error", "warning", "info", "debug"};
static const int syslog_levels[] = {3, 4, 6, 7};

void log_setup(const char *program, enum log_level level) {
	logger.program = program;
	logger.level = level;
	if (!logger.set_up) {
		logger.journal = journal_open();
		logger.journal_reads = journal_is_stderr();
	}
	logger.set_up = true;
}

const char *log_level_name(enum log_level level) {
	return level_names[level];
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

/* Values may come from outside: a control character would begin another line, or field. */
static void make_plain(char *text) {
	for (; *text != 0; text++)
		if ((unsigned char)*text < 0x20 || *text == 0x7f)
			*text = '?';
}

static bool to_journal(enum log_level level, const char *event, const char *words) {
	CLEANUP(buf_done) struct buf datagram = BUF_INIT(4096);

	return logger.journal >= 0 &&
		journal_fields(&datagram, syslog_levels[level], logger.program, event, words,
			NULL) == CEDE_OK &&
		journal_send(logger.journal, buf_slice(&datagram));
}

static void to_stderr(enum log_level level, const char *event, const char *words) {
	char line[1200];
	size_t len = 0;

	if (logger.journal_reads || getenv("JOURNAL_STREAM") != NULL)
		len = (size_t)snprintf(line, sizeof line, "<%d>", syslog_levels[level]);
	len += (size_t)snprintf(line + len, sizeof line - len, "%s: %s: %s %s\n", logger.program,
		level_names[level], event, words);
	ssize_t done = write(STDERR_FILENO, line, len); /* one write: lines never mix */
	(void)done;                                     /* nobody left to tell */
}

void log_event(enum log_level level, const char *event, const char *fmt, ...) {
	char words[1024];
	unsigned dropped;
	va_list ap;

	if (level > logger.level)
		return;
	(void)pthread_mutex_lock(&logger.lock);
	bool pass = may_pass(event, &dropped);
	(void)pthread_mutex_unlock(&logger.lock);
	if (!pass)
		return;
	va_start(ap, fmt);
	int n = vsnprintf(words, sizeof words, fmt, ap);
	va_end(ap);
	size_t len = n < 0 ? 0 : (size_t)n < sizeof words ? (size_t)n : sizeof words - 1;
	words[len] = 0;
	if (dropped > 0)
		(void)snprintf(words + len, sizeof words - len, " left_out=%u", dropped);
	make_plain(words);
	if (!to_journal(level, event, words))
		to_stderr(level, event, words);
}

void log_flush(void) {
	int64_t now = clock_boot_ns();

	for (size_t i = 0; i < EVENT_KINDS; i++) {
		struct limiter *l = &logger.limiters[i];
		(void)pthread_mutex_lock(&logger.lock);
		const char *event = l->event;
		unsigned dropped = event != NULL && now - l->since >= WINDOW_NS ? l->dropped : 0;
		if (dropped > 0)
			l->dropped = 0;
		(void)pthread_mutex_unlock(&logger.lock);
		if (event == NULL)
			return;
		if (dropped > 0)
			log_event(LOG_LEVEL_WARNING, "log.limited", "event=%s lines=%u", event,
				dropped);
	}
}
