/* SPDX-License-Identifier: Apache-2.0 */
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "agent/cmd_policy_internal.h"
#include "agent/policy_files.h"
#include "agent/trust.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/file.h"
#include "certs/key.h"

static void say_file(void *ctx, struct policy_where where, const char *text) {
	char line[1024];

	(void)snprintf(line, sizeof line, "%s:%u:%u: %s", (const char *)ctx, where.line,
		where.column, text);
	cede_plain(line);
	(void)fprintf(stderr, "%s\n", line);
}

static int write_note(const char *path, const struct buf *note, struct cede_error *reterr) {
	CLEANUP(fd_closep) int dirfd = -1;
	char directory[PATH_MAX], sig[NAME_MAX + 1];
	int n = (int)(policy_base_name(path) - path);

	(void)snprintf(directory, sizeof directory, "%.*s.", n, path);
	(void)snprintf(sig, sizeof sig, "%.*s.sig", NAME_MAX - 4, path + n);
	CEDE_TRY(file_open_dir(AT_FDCWD, directory, &dirfd, reterr));
	return file_replace(dirfd, sig, buf_slice(note), 0644, reterr);
}

static int sign(const struct policy_words *w, const char *path) {
	CLEANUP(trusted_policy_freep) struct trusted_policy *t = NULL;
	CLEANUP(policy_mistakes_done) struct policy_mistakes mistakes = {NULL, 0};
	CLEANUP(buf_done) struct buf note = BUF_INIT(NOTE_MAX);
	CLEANUP(key_freep) EVP_PKEY *key = NULL;
	struct cede_error err = {0};
	size_t bad = 0;

	if (access(path, F_OK) < 0)
		return policy_cannot(w, CEDE_FAIL_SYS(&err, "open %s", path), &err);
	int r = trusted_policy_load(path, NULL, &t, &mistakes, &err);
	for (size_t i = 0; i < mistakes.count; i++)
		(void)fprintf(stderr, "%s\n", mistakes.lines[i]);
	if (r < 0)
		return mistakes.count > 0 ? EXIT_INPUT : policy_cannot(w, r, &err);
	const struct policy_files_report report = {
		.ctx = (void *)(uintptr_t)policy_base_name(path), .mistake = say_file};
	r = policy_files_check(t->policy, path, clock_wall_ns(), &report, &bad, &err);
	if (r == CEDE_OK && bad > 0)
		return EXIT_INPUT;
	if (r == CEDE_OK)
		r = key_load_private(AT_FDCWD, w->key, &key, &err);
	if (r == CEDE_OK)
		r = trusted_policy_sign(t, w->name, key, &note, &err);
	if (r == CEDE_OK)
		r = write_note(path, &note, &err);
	if (r < 0)
		return policy_cannot(w, r, &err);
	(void)printf("%s.sig: id %s, serial %" PRIu64 ", %zu file%s\n", path, t->policy->id,
		t->policy->serial, t->file_count, t->file_count == 1 ? "" : "s");
	return fflush(stdout) == 0 ? EXIT_FINE : EXIT_CANNOT;
}

int cmd_policy_sign(const struct policy_words *w) {
	return sign(w, w->rest[0]);
}
