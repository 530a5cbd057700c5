/* SPDX-License-Identifier: Apache-2.0
 * What `cede-receiver open` unpacks, whatever the seal held: a tar, or zstd around one. A bundle
 * that is refused leaves nothing behind, and none leaves its folder. */
#include <dirent.h>
#include <fcntl.h>
#include <ftw.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/check.h"
#include "base/cleanup.h"
#include "base/file.h"
#include "formats/bundle.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static char top[] = "/tmp/cede-bundle-fuzz-XXXXXX"; /* with one folder in it: "into" */
static size_t names;

static int take(const char *path, const struct stat *st, int kind, struct FTW *at) {
	(void)st;
	names += at->level >= 2;
	if (at->level == 1)
		require(strcmp(path + at->base, "into") == 0);
	if (at->level == 0)
		return 0;
	return unlinkat(AT_FDCWD, path, kind == FTW_DP ? AT_REMOVEDIR : 0);
}

/* Empties the folder; how many names were in it. */
static size_t sweep(void) {
	names = 0;
	require(nftw(top, take, 16, FTW_DEPTH | FTW_PHYS) == 0);
	return names;
}

static void end(void) {
	(void)unlinkat(AT_FDCWD, top, AT_REMOVEDIR);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
	static bool begun;
	CLEANUP(manifest_read_freep) struct manifest_read *manifest = NULL;
	CLEANUP(fd_closep) int fd = -1;
	CLEANUP(fd_closep) int dir = -1;
	CLEANUP(fd_closep) int into = -1;

	if (!begun)
		require(mkdtemp(top) != NULL && atexit(end) == 0);
	begun = true;
	require(file_open_dir(AT_FDCWD, top, &dir, NULL) == CEDE_OK);
	require(mkdirat(dir, "into", 0700) == 0);
	require(file_open_dir(dir, "into", &into, NULL) == CEDE_OK);
	require(file_memory("bundle", &fd, NULL) == CEDE_OK);
	require(file_pwrite_all(fd, data, size, 0, NULL) == CEDE_OK);
	int r = bundle_unpack(fd, into, &manifest, NULL);
	require((r == CEDE_OK) == (manifest != NULL));
	size_t left = sweep();
	require(r == CEDE_OK ? left > 0 : left == 0);
	return 0;
}
