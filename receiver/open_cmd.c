/* SPDX-License-Identifier: Apache-2.0 */
#include "receiver/open_cmd.h"

#include <fcntl.h>
#include <getopt.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <sys/stat.h>

#include "base/cleanup.h"
#include "base/file.h"
#include "certs/key.h"
#include "certs/open.h"
#include "formats/bundle.h"
#include "receiver/profile.h"

static const char usage[] =
	"usage: cede-receiver open BUNDLE... --key KEY --cert CERT --into DIR\n"
	"  Opens sealed bundles and unpacks them below DIR; checks every size and SHA-256. Nothing is\n"
	"  written outside DIR, nothing that is there is overwritten. Exit status: 0; 1 a bundle was\n"
	"  refused; 2 bad usage; 3 one could not be read or written. The others are opened all the same.\n";

static int open_one(const char *path, EVP_PKEY *key, X509 *cert, int into, struct cede_error *reterr) {
	CLEANUP(fd_closep) int sealed = openat(AT_FDCWD, path, O_RDONLY | O_CLOEXEC);
	CLEANUP(fd_closep) int clear = -1;

	if (sealed < 0)
		return CEDE_FAIL_SYS(reterr, "open");
	CEDE_TRY(file_memory("opened", &clear, reterr)); /* never on a disk before its tag was right */
	CEDE_TRY(seal_open(sealed, key, cert, clear, reterr));
	return bundle_unpack(clear, into, NULL, reterr);
}

struct words {
	const char *key, *cert, *into;
};

static int parse(int argc, char **argv, struct words *ret) {
	static const struct option options[] = {{"key", required_argument, NULL, 'k'},
		{"cert", required_argument, NULL, 'c'}, {"into", required_argument, NULL, 'i'},
		{"help", no_argument, NULL, 'h'}, {0}};
	int c;

	while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
		if (c == 'k')
			ret->key = optarg;
		else if (c == 'c')
			ret->cert = optarg;
		else if (c == 'i')
			ret->into = optarg;
		else
			return c == 'h' ? 1 : -1;
	}
	return ret->key == NULL || ret->cert == NULL || ret->into == NULL || optind >= argc ? -1 : 0;
}

int open_cmd(int argc, char **argv) {
	CLEANUP(key_freep) EVP_PKEY *key = NULL;
	CLEANUP(cert_freep) X509 *cert = NULL;
	CLEANUP(fd_closep) int into = -1;
	struct words words = {0};
	struct sandbox_report report = {0};
	struct cede_error err = {0};
	int status = 0;

	int help = parse(argc, argv, &words);
	if (help != 0) {
		(void)fputs(usage, help > 0 ? stdout : stderr);
		return help > 0 ? 0 : 2;
	}
	if (key_load_private(AT_FDCWD, words.key, &key, &err) < 0 ||
		cert_load(AT_FDCWD, words.cert, &cert, &err) < 0) {
		(void)fprintf(stderr, "cede-receiver open: %s\n", err.text);
		return 2;
	}
	(void)mkdir(words.into, 0700); /* it may be there; the next step says if not */
	if (file_open_dir(AT_FDCWD, words.into, &into, &err) < 0) {
		(void)fprintf(stderr, "cede-receiver open: %s\n", err.text);
		return 3;
	}
	if (sandbox_begin(&report, &err) < 0 ||
		opener_enter(words.into, argv + optind, (size_t)(argc - optind), &report, &err) < 0) {
		(void)fprintf(stderr, "cede-receiver open: %s\n", err.text);
		return 3;
	}
	if (report.missing != 0) {
		char missing[SANDBOX_TEXT_SIZE];
		sandbox_text(report.missing, missing);
		(void)fprintf(stderr, "cede-receiver open: this host's sandbox lacks: %s\n", missing);
	}
	for (int i = optind; i < argc; i++) {
		int r = open_one(argv[i], key, cert, into, &err);
		if (r == CEDE_OK)
			continue;
		(void)fprintf(stderr, "%s: %s\n", argv[i], err.text);
		/* the next one may open all the same */
		status = r == CEDE_ERR_IO || status == 3 ? 3 : 1;
	}
	return status;
}
