/* SPDX-License-Identifier: Apache-2.0 */
#include <fcntl.h>
#include <getopt.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>

#include "agent/cmd_policy_internal.h"
#include "agent/policy_files.h"
#include "agent/trust.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/file.h"
#include "certs/key.h"

static void say_file(void *ctx, struct policy_where where, const char *text) {
	(void)fprintf(stderr, "%s:%u:%u: %s\n", (const char *)ctx, where.line, where.column, text);
}

static int cannot(int r, const struct cede_error *err) {
	(void)fprintf(stderr, "cede policy sign: %s\n", err->text);
	return policy_exit_code(r);
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

static int sign(const char *path, const char *key_path, const char *name) {
	CLEANUP(trusted_policy_freep) struct trusted_policy *t = NULL;
	CLEANUP(policy_mistakes_done) struct policy_mistakes mistakes = {NULL, 0};
	CLEANUP(buf_done) struct buf note = BUF_INIT(NOTE_MAX);
	CLEANUP(key_freep) EVP_PKEY *key = NULL;
	struct cede_error err = {0};
	size_t bad = 0;

	int r = trusted_policy_load(path, NULL, &t, &mistakes, &err);
	for (size_t i = 0; i < mistakes.count; i++)
		(void)fprintf(stderr, "%s\n", mistakes.lines[i]);
	if (r < 0)
		return mistakes.count > 0 ? EXIT_INPUT : cannot(r, &err);
	r = policy_files_check(t->policy, path, clock_wall_ns(), say_file,
		(void *)(uintptr_t)policy_base_name(path), &bad, &err);
	if (r == CEDE_OK && bad > 0)
		return EXIT_INPUT;
	if (r == CEDE_OK)
		r = key_load_private(AT_FDCWD, key_path, &key, &err);
	if (r == CEDE_OK)
		r = trusted_policy_sign(t, name, key, &note, &err);
	if (r == CEDE_OK)
		r = write_note(path, &note, &err);
	if (r < 0)
		return cannot(r, &err);
	(void)printf("%s.sig: id %s, serial %" PRIu64 ", %zu file%s\n", path, t->policy->id,
		t->policy->serial, t->file_count, t->file_count == 1 ? "" : "s");
	return fflush(stdout) == 0 ? EXIT_FINE : EXIT_CANNOT;
}

int cmd_policy_sign(int argc, char **argv) {
	enum { KEY = 1, NAME, HELP };
	static const struct option options[] = {{"key", required_argument, NULL, KEY},
		{"name", required_argument, NULL, NAME}, {"help", no_argument, NULL, HELP}, {0}};
	const char *key = NULL;
	const char *name = "agency-policy";
	int c;

	while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
		switch (c) {
		case KEY:
			key = optarg;
			break;
		case NAME:
			name = optarg;
			break;
		case HELP:
			return policy_help();
		default:
			return policy_bad_usage();
		}
	}
	return key != NULL && optind + 1 == argc ? sign(argv[optind], key, name) : policy_bad_usage();
}
