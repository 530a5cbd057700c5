/* SPDX-License-Identifier: Apache-2.0 */
#include "base/journal.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/cleanup.h"

#define JOURNAL_SOCKET "/run/systemd/journal/socket"
#define JOURNAL_STREAM "/run/systemd/journal/stdout"
#define KEY_MAX        32

/* $JOURNAL_STREAM is "device:inode" of the stream that was set up for us; it may have been
 * redirected since. */
static bool is_ours(const char *stream) {
	struct stat st;
	char text[48];

	if (stream == NULL || fstat(STDERR_FILENO, &st) < 0)
		return false;
	(void)snprintf(text, sizeof text, "%llu:%llu", (unsigned long long)st.st_dev,
		(unsigned long long)st.st_ino);
	return strcmp(stream, text) == 0;
}

int journal_open(void) {
	static const struct sockaddr_un at = {.sun_family = AF_UNIX, .sun_path = JOURNAL_SOCKET};

	if (!is_ours(getenv("JOURNAL_STREAM")))
		return -1;
	CLEANUP(fd_closep) int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0 || connect(fd, (const struct sockaddr *)&at, sizeof at) < 0)
		return -1;
	return CEDE_TAKE_FD(fd);
}

bool journal_is_stderr(void) {
	struct sockaddr_un peer = {0};
	socklen_t size = sizeof peer;

	return getpeername(STDERR_FILENO, (struct sockaddr *)&peer, &size) == 0 &&
		peer.sun_family == AF_UNIX &&
		strncmp(peer.sun_path, JOURNAL_STREAM, sizeof peer.sun_path) == 0;
}

/* "bundle" -> "CEDE_BUNDLE"; false if a name can't be made of it. */
static bool field_name(const char *key, size_t len, char ret[KEY_MAX + 6]) {
	if (len == 0 || len > KEY_MAX)
		return false;
	memcpy(ret, "CEDE_", 5);
	for (size_t i = 0; i < len; i++) {
		char c = key[i];
		bool letter = c >= 'a' && c <= 'z';
		if (!letter && c != '_' && !(c >= '0' && c <= '9'))
			return false;
		ret[5 + i] = letter ? (char)(c - 'a' + 'A') : c;
	}
	ret[5 + len] = 0;
	return true;
}

int journal_fields(struct buf *out, int priority, const char *program, const char *event,
	const char *words, struct cede_error *reterr) {
	char name[KEY_MAX + 6];

	CEDE_TRY(buf_addf(out, reterr,
		"PRIORITY=%d\nSYSLOG_IDENTIFIER=%s\nCEDE_EVENT=%s\nMESSAGE=%s %s\n", priority,
		program, event, event, words));
	for (const char *at = words; *at != 0;) {
		size_t key = strcspn(at, "= \"");
		size_t len = at[key] == '=' ? strcspn(at + key + 1, " \"") : 0;
		if (at[key] == '"' || (at[key] == '=' && at[key + 1 + len] == '"'))
			return CEDE_OK; /* from here on others' words */
		if (at[key] == '=' && len > 0 && field_name(at, key, name))
			CEDE_TRY(buf_addf(out, reterr, "%s=%.*s\n", name, (int)len, at + key + 1));
		at += key + (at[key] == '=' ? 1 + len : 0);
		at += *at == ' ';
	}
	return CEDE_OK;
}

bool journal_send(int fd, struct slice datagram) {
	return send(fd, datagram.data, datagram.len, MSG_NOSIGNAL | MSG_DONTWAIT) >= 0;
}
