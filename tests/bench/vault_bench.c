/* SPDX-License-Identifier: Apache-2.0
 * vault_bench MOUNT FILES SIZE: FILES captures of SIZE bytes in an encrypted directory of a fresh
 * ext4, flushed; then the key goes until the kernel says that it is absent. The same captures in a
 * plain directory, overwritten and unlinked by the agent's wipe. Prints seconds: both, and what is
 * left to do behind the first (unlinking names that nobody can read any more). */
#include <fcntl.h>
#include <openssl/rand.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "agent/vault/place.h"
#include "agent/wipe/wipe.h"
#include "base/check.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/parse.h"

static double seconds(int64_t since) {
	return (double)(clock_boot_ns() - since) / (double)NS_PER_SECOND;
}

static void write_all(int dir, uint64_t files, uint8_t *data, uint64_t size) {
	char name[32];

	for (uint64_t i = 0; i < files; i++) {
		require(RAND_bytes(data, 64) == 1); /* no two alike */
		(void)snprintf(name, sizeof name, "cap-%06llu.jpg", (unsigned long long)i);
		CLEANUP(fd_closep)
		int fd = openat(dir, name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
		require(fd >= 0 && file_write_all(fd, data, size, NULL) == CEDE_OK);
	}
	require(syncfs(dir) == 0);
}

static double by_overwriting(int dir, uint64_t files) {
	struct wipe_item *items = calloc(files, sizeof *items);
	char *names = calloc(files, 32);
	struct stat st;

	require(items != NULL && names != NULL);
	for (uint64_t i = 0; i < files; i++) {
		char *name = names + 32 * i;
		(void)snprintf(name, 32, "cap-%06llu.jpg", (unsigned long long)i);
		require(fstatat(dir, name, &st, AT_SYMLINK_NOFOLLOW) == 0);
		items[i] = (struct wipe_item){
			.source_fd = dir, .path = name, .want = file_identity_of(&st)};
	}
	int64_t began = clock_boot_ns();
	require(wipe_batch(items, files, NULL) == CEDE_OK);
	double took = seconds(began);
	for (uint64_t i = 0; i < files; i++)
		require(items[i].outcome == WIPE_DONE && items[i].level >= WIPE_OVERWRITTEN_CURRENT);
	free(items);
	free(names);
	return took;
}

static double by_key(int mount, const struct fscrypt_id *id, unsigned *ret_steps) {
	enum fscrypt_state state = FSCRYPT_PRESENT;
	int64_t began = clock_boot_ns();

	for (*ret_steps = 0; state != FSCRYPT_ABSENT && *ret_steps < 100; (*ret_steps)++)
		require(fscrypt_remove(mount, id, &state, NULL) == CEDE_OK);
	require(state == FSCRYPT_ABSENT);
	return seconds(began);
}

int main(int argc, char **argv) {
	uint8_t key[FSCRYPT_KEY_SIZE];
	struct fscrypt_id id;
	struct place *place = NULL;
	uint64_t files, size, left;
	unsigned steps;
	char path[4096];
	int mount, dir;

	require(argc == 4 && parse_u64(slice_str(argv[2]), 1, 1000000, &files, NULL) == CEDE_OK &&
		parse_u64(slice_str(argv[3]), 64, 1 << 24, &size, NULL) == CEDE_OK);
	uint8_t *data = malloc(size);
	require(data != NULL && RAND_bytes(data, (int)size) == 1 && RAND_bytes(key, sizeof key) == 1);
	require(file_open_dir(AT_FDCWD, argv[1], &mount, NULL) == CEDE_OK);
	require(mkdirat(mount, "plain", 0700) == 0 && mkdirat(mount, "faces", 0700) == 0);
	require(file_open_dir(mount, "plain", &dir, NULL) == CEDE_OK);
	write_all(dir, files, data, size);
	double overwritten = by_overwriting(dir, files);
	(void)close(dir);

	(void)snprintf(path, sizeof path, "%s/faces", argv[1]);
	require(place_open(path, "faces", true, &place, NULL) == CEDE_OK);
	require(file_open_dir(AT_FDCWD, path, &dir, NULL) == CEDE_OK);
	require(fscrypt_add(mount, key, &id, NULL) == CEDE_OK);
	require(place_stage(place, "bench", dir, true, &id, NULL) == CEDE_OK);
	(void)close(dir);
	require(file_open_dir(place_store_fd(place), "bench", &dir, NULL) == CEDE_OK);
	write_all(dir, files, data, size);
	(void)close(dir);
	double erased = by_key(mount, &id, &steps);
	int64_t began = clock_boot_ns();
	require(place_clear(place, "bench", &left, NULL) == CEDE_OK && left == files);
	(void)printf("{\"files\": %llu, \"bytes\": %llu, \"key_s\": %.3f, \"key_calls\": %u, "
		     "\"unlink_s\": %.3f, \"overwrite_s\": %.3f}\n",
		(unsigned long long)files, (unsigned long long)(files * size), erased, steps,
		seconds(began), overwritten);
	place_close(place);
	free(data);
	(void)close(mount);
	return 0;
}
