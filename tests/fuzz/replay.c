/* SPDX-License-Identifier: Apache-2.0
 * Runs a fuzz target over every file of the given directories: its corpus as an ordinary test. */
#include <dirent.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/cleanup.h"
#include "base/file.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static int replay_directory(const char *path) {
	CLEANUP(dir_closep) DIR *dir = opendir(path);
	struct dirent *entry;
	int files = 0;

	if (dir == NULL) {
		perror(path);
		return -1;
	}
	while ((entry = readdir(dir)) != NULL) {
		CLEANUP(buf_done) struct buf b = BUF_INIT(16U << 20);
		struct cede_error err;

		if (entry->d_name[0] == '.')
			continue;
		if (file_load(dirfd(dir), entry->d_name, &b, &err) < 0) {
			(void)fprintf(stderr, "%s\n", err.text);
			return -1;
		}
		(void)LLVMFuzzerTestOneInput(b.data, b.len);
		files++;
	}
	return files;
}

int main(int argc, char **argv) {
	int files = 0;

	for (int i = 1; i < argc; i++) {
		int n = replay_directory(argv[i]);
		if (n < 0)
			return 1;
		files += n;
	}
	(void)printf("%d inputs replayed\n", files);
	return files > 0 ? 0 : 1; /* an empty corpus tests nothing */
}
