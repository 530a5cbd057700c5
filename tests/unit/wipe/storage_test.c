/* SPDX-License-Identifier: Apache-2.0
 * What stays on the raw disk, for each kind of file system and each way a file came to be, beside
 * what the wipe said of it: where it claims that the file's blocks were overwritten, the raw image
 * holds none of its content; where it says it can't be claimed, the search finds what stayed. */
#include <fcntl.h>
#include <linux/fs.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "agent/wipe/scrub.h"
#include "agent/wipe/storage.h"
#include "agent/wipe/wipe.h"
#include "base/check.h"
#include "base/cleanup.h"
#include "tests/unit/wipe/disk.h"

#define NAME_SIZE   120
#define MARKER_SIZE 32
#define PLAIN       100000 /* bytes of an ordinary file */

/* ---- how a file came to be */

struct story {
	const char *name; /* also stands in the names of its files */
	void (*make)(int dirfd, const char *path, const char *now, const char *earlier);
	wipe_reasons adds; /* to what the file system says anyway; unless the name is not there */
	bool clones;       /* only where files can share blocks */
	bool unflushed;    /* wiped before it reached the disk */
};

/* The text again and again. */
static void fill(int fd, const char *text, size_t bytes) {
	char block[4096];
	size_t n = strlen(text);

	for (size_t i = 0; i < sizeof block; i++)
		block[i] = text[i % n];
	while (bytes > 0) {
		size_t m = bytes < sizeof block ? bytes : sizeof block / n * n;
		assert_int_equal(write(fd, block, m), m);
		bytes -= m;
	}
}

static int create(int dirfd, const char *path, int flags) {
	int fd = openat(dirfd, path, O_RDWR | O_CREAT | O_CLOEXEC | flags, 0600);

	assert_true(fd >= 0);
	return fd;
}

static void put(int dirfd, const char *path, const char *text, size_t bytes) {
	CLEANUP(fd_closep) int fd = create(dirfd, path, O_TRUNC);

	fill(fd, text, bytes);
}

static void flush(int dirfd) {
	assert_int_equal(syncfs(dirfd), 0);
}

static void once(int dirfd, const char *path, const char *now, const char *earlier) {
	(void)earlier;
	put(dirfd, path, now, PLAIN);
}

/* Into the inode where the file system does that. */
static void tiny(int dirfd, const char *path, const char *now, const char *earlier) {
	(void)earlier;
	put(dirfd, path, now, 2 * strlen(now));
}

/* More than an inode's block pointers hold, less than an inode. */
static void little(int dirfd, const char *path, const char *now, const char *earlier) {
	(void)earlier;
	put(dirfd, path, now, 4 * strlen(now));
}

static void appended(int dirfd, const char *path, const char *now, const char *earlier) {
	(void)earlier;
	for (size_t i = 0; i < 5; i++) {
		CLEANUP(fd_closep) int fd = create(dirfd, path, O_APPEND);
		fill(fd, now, PLAIN / 5);
		flush(dirfd);
	}
}

static void mapped(int dirfd, const char *path, const char *now, const char *earlier) {
	CLEANUP(fd_closep) int fd = create(dirfd, path, 0);
	size_t n = strlen(now);

	(void)earlier;
	assert_int_equal(ftruncate(fd, PLAIN), 0);
	char *all = mmap(NULL, PLAIN, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	assert_ptr_not_equal(all, MAP_FAILED);
	for (size_t i = 0; i + n <= PLAIN; i += n)
		memcpy(all + i, now, n);
	assert_int_equal(munmap(all, PLAIN), 0);
}

static void preallocated(int dirfd, const char *path, const char *now, const char *earlier) {
	CLEANUP(fd_closep) int fd = create(dirfd, path, 0);

	(void)earlier;
	(void)fallocate(fd, 0, 0, 1 << 20); /* not every file system has it */
	fill(fd, now, PLAIN);
}

/* 1 GiB with three small islands: filling it would take more than there is. */
static void sparse(int dirfd, const char *path, const char *now, const char *earlier) {
	static const off_t islands[] = {0, 500 << 20, (1 << 30) - 8192};
	CLEANUP(fd_closep) int fd = create(dirfd, path, 0);

	(void)earlier;
	assert_int_equal(ftruncate(fd, 1 << 30), 0);
	for (size_t i = 0; i < ARRAY_LENGTH(islands); i++) {
		assert_int_equal(lseek(fd, islands[i] + 100, SEEK_SET), islands[i] + 100);
		fill(fd, now, 5000);
	}
}

static void punched(int dirfd, const char *path, const char *now, const char *earlier) {
	CLEANUP(fd_closep) int fd = create(dirfd, path, 0);

	fill(fd, now, 4096 * 4 / strlen(now) * strlen(now));
	assert_int_equal(lseek(fd, 4096 * 8, SEEK_SET), 4096 * 8);
	fill(fd, earlier, 4096 * 4);
	fill(fd, now, 4096 * 4);
	flush(dirfd);
	assert_int_equal(
		fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 4096 * 8, 4096 * 4), 0);
}

static void replaced(int dirfd, const char *path, const char *now, const char *earlier) {
	char other[NAME_SIZE];

	(void)snprintf(other, sizeof other, "%s.new", path);
	put(dirfd, path, earlier, PLAIN);
	flush(dirfd);
	put(dirfd, other, now, PLAIN);
	flush(dirfd);
	assert_int_equal(renameat(dirfd, other, dirfd, path), 0);
}

static void rewritten(int dirfd, const char *path, const char *now, const char *earlier) {
	put(dirfd, path, earlier, PLAIN);
	flush(dirfd);
	put(dirfd, path, now, PLAIN);
}

static void shrunk(int dirfd, const char *path, const char *now, const char *earlier) {
	CLEANUP(fd_closep) int fd = create(dirfd, path, 0);

	fill(fd, now, 4096 * 10);
	fill(fd, earlier, 4096 * 10);
	flush(dirfd);
	assert_int_equal(ftruncate(fd, 4096 * 10), 0);
}

static void cloned(int dirfd, const char *path, const char *now, const char *earlier) {
	char other[NAME_SIZE];

	(void)earlier;
	(void)snprintf(other, sizeof other, "%s.clone", path);
	put(dirfd, path, now, PLAIN);
	flush(dirfd);
	CLEANUP(fd_closep) int from = openat(dirfd, path, O_RDONLY | O_CLOEXEC);
	CLEANUP(fd_closep) int to = create(dirfd, other, 0);
	assert_int_equal(ioctl(to, FICLONE, from), 0);
}

static void described(int dirfd, const char *path, const char *now, const char *earlier) {
	CLEANUP(fd_closep) int fd = create(dirfd, path, 0);
	char value[512];

	fill(fd, now, PLAIN);
	for (size_t i = 0; i < sizeof value; i++)
		value[i] = earlier[i % strlen(earlier)];
	assert_int_equal(fsetxattr(fd, "user.short", value, 2 * strlen(earlier), 0), 0);
	assert_int_equal(fsetxattr(fd, "user.long", value, sizeof value, 0), 0);
}

static const struct story stories[] = {
	{"once", once, 0, false, false},
	{"fresh", once, 0, false, true},
	{"tiny", tiny, 0, false, false},
	{"little", little, 0, false, false},
	{"appended", appended, 0, false, false},
	{"mapped", mapped, 0, false, false},
	{"preallocated", preallocated, 0, false, false},
	{"sparse", sparse, 0, false, false},
	{"punched", punched, 0, false, false},
	{"replaced", replaced, 0, false, false},
	{"rewritten", rewritten, 0, false, false},
	{"shrunk", shrunk, 0, false, false},
	{"cloned", cloned, WIPE_BIT(SHARED_EXTENTS), true, false},
	{"described", described, WIPE_BIT(USER_ATTRIBUTES), false, false},
};

/* ---- where it lies */

struct setting {
	const char *name, *mkfs, *tune, *options;
	bool scrub;          /* the journal may be emptied */
	bool shares;         /* files can share blocks */
	bool plain_dir;      /* FS_NOCOW_FL on the directory */
	wipe_reasons always; /* why no wipe here proves anything */
	wipe_reasons small;  /* the same for files that may lie in the inode */
	bool stays;          /* and then copies are found indeed */
	bool names_go;       /* no name is in the image */
	enum wipe_verify verify;
};

#define EXT4 "mkfs.ext4 -q -F"

static struct setting settings[] = {
	{"ext4", EXT4, NULL, "", false, false, false, 0, 0, false, false, WIPE_VERIFY_ALL},
	{"ext4, scrubbed", EXT4, NULL, "", true, false, false, 0, 0, false, true, WIPE_VERIFY_ALL},
	{"ext4 without delayed allocation", EXT4, NULL, "nodelalloc", true, false, false, 0, 0,
		false, true, WIPE_VERIFY_ALL},
	{"ext4, blocks of 1 KiB", EXT4 " -b 1024", NULL, "", true, false, false, 0, 0, false, true,
		WIPE_VERIFY_ALL},
	{"ext4 with fast commits", EXT4 " -O fast_commit", NULL, "", true, false, false, 0, 0,
		false, true, WIPE_VERIFY_ALL},
	{"ext4 without a journal", EXT4 " -O ^has_journal", NULL, "", true, false, false, 0, 0,
		false, true, WIPE_VERIFY_ALL},
	{"ext4 encrypt", EXT4 " -O encrypt", NULL, "", true, false, false, 0, 0, false, true,
		WIPE_VERIFY_ALL},
	{"ext4 data=journal", EXT4, NULL, "data=journal", false, false, false,
		WIPE_BIT(DATA_JOURNALLED), 0, true, false, WIPE_VERIFY_SAMPLE},
	{"ext4 data=journal by default", EXT4, "tune2fs -o journal_data", "", false, false, false,
		WIPE_BIT(DATA_JOURNALLED), 0, true, false, WIPE_VERIFY_SAMPLE},
	{"ext4 data=journal, scrubbed", EXT4, NULL, "data=journal", true, false, false, 0, 0, false,
		true, WIPE_VERIFY_SAMPLE},
	{"ext4 inline_data", EXT4 " -O inline_data", NULL, "", false, false, false, 0,
		WIPE_BIT(INLINE_DATA), true, false, WIPE_VERIFY_ALL},
	{"ext4 inline_data, scrubbed", EXT4 " -O inline_data", NULL, "", true, false, false, 0, 0,
		false, true, WIPE_VERIFY_ALL},
	{"ext4 data=journal, scrubbed, each read back", EXT4, NULL, "data=journal", true, false,
		false, WIPE_BIT(READ_BACK_UNAVAILABLE), 0, false, true, WIPE_VERIFY_ALL},
	{"xfs", "mkfs.xfs -q", NULL, "", true, true, false, 0, 0, false, false, WIPE_VERIFY_ALL},
	{"btrfs", "mkfs.btrfs -q -f", NULL, "", true, true, false, WIPE_BIT(COPY_ON_WRITE), 0, true,
		false, WIPE_VERIFY_ALL},
	{"btrfs nodatacow", "mkfs.btrfs -q -f", NULL, "nodatacow", true, true, false,
		WIPE_BIT(COPY_ON_WRITE), 0, false, false, WIPE_VERIFY_ALL},
};

/* ---- one of each on a disk, wiped together */

/* "cede-mark-NN-k", k being n for what the file holds, e for what it held earlier, f in its name;
 * as long as the texts that fill the files. */
#define MARK "cede-mark-"

static void mark(size_t story, char kind, char out[MARKER_SIZE]) {
	(void)snprintf(out, MARKER_SIZE, MARK "%02zu-%c-0123456789ab", story, kind);
}

struct found {
	size_t now[ARRAY_LENGTH(stories)], earlier[ARRAY_LENGTH(stories)], names;
};

static void count(void *ctx, const char *at, size_t left) {
	struct found *f = ctx;

	if (left < 4 || at[0] < '0' || at[0] > '9' || at[1] < '0' || at[1] > '9' || at[2] != '-')
		return;
	size_t story = (size_t)(at[0] - '0') * 10 + (size_t)(at[1] - '0');
	if (story >= ARRAY_LENGTH(stories))
		return;
	f->now[story] += at[3] == 'n';
	f->earlier[story] += at[3] == 'e';
	f->names += at[3] == 'f';
}

static bool is_told(const struct setting *s, const struct story *story) {
	return !story->clones || s->shares;
}

static wipe_reasons expected(const struct setting *s, const struct story *story) {
	wipe_reasons reasons = s->always;

	if (story->make == tiny || story->make == little)
		reasons |= s->small;
	if (s->always == 0 || story->adds == WIPE_BIT(USER_ATTRIBUTES))
		reasons |= story->adds;
	return reasons == 0 ? WIPE_BIT(HISTORY_UNKNOWN) : reasons;
}

static struct wipe_item item_of(int dirfd, const char *path, const struct setting *s) {
	struct wipe_item item = {.source_fd = dirfd,
		.path = path,
		.scrub = s->scrub,
		.verify = s->verify,
		.outcome = WIPE_FAILED};
	struct stat st;

	assert_int_equal(fstatat(dirfd, path, &st, AT_SYMLINK_NOFOLLOW), 0);
	item.want = file_identity_of(&st);
	return item;
}

static void make(const struct setting *s, int dirfd, bool unflushed, char paths[][MARKER_SIZE + 8]) {
	char now[MARKER_SIZE], earlier[MARKER_SIZE], name[MARKER_SIZE];

	for (size_t i = 0; i < ARRAY_LENGTH(stories); i++) {
		if (!is_told(s, &stories[i]) || stories[i].unflushed != unflushed)
			continue;
		mark(i, 'n', now);
		mark(i, 'e', earlier);
		mark(i, 'f', name);
		(void)snprintf(paths[i], MARKER_SIZE + 8, "%s.jpg", name);
		stories[i].make(dirfd, paths[i], now, earlier);
	}
}

static void judge(const struct setting *s, size_t i, const struct wipe_item *item,
	const struct found *found) {
	char why[WIPE_REASONS_SIZE], place[WIPE_REASONS_SIZE + 160];
	wipe_reasons want = expected(s, &stories[i]);

	wipe_reasons_print(item->reasons, why);
	(void)snprintf(place, sizeof place,
		"%s, %s: %s (%s), %zu copies of its content, %zu of earlier content", s->name,
		stories[i].name, wipe_level_name(item->level), why, found->now[i], found->earlier[i]);
	print_message("# %s\n", place);
	bool claimed = item->level >= WIPE_OVERWRITTEN_CURRENT;
	bool small = stories[i].make == tiny || stories[i].make == little;
	bool must_stay = s->stays && item->level == WIPE_UNPROVEN && (s->small == 0 || small) &&
		!stories[i].unflushed && stories[i].adds == 0;
	if (item->outcome != WIPE_DONE)
		fail_msg("%s: outcome %d: %s", place, (int)item->outcome, item->err.text);
	if (item->reasons != want || item->level != wipe_best(want))
		fail_msg("%s: another verdict was expected", place);
	if (claimed && found->now[i] > 0)
		fail_msg("%s: claimed, and its content is there", place);
	if ((must_stay || stories[i].clones) && found->now[i] == 0)
		fail_msg("%s: the search finds nothing where something stays", place);
}

static void says_what_stays(void **state) {
	const struct setting *s = *state;
	static char paths[ARRAY_LENGTH(stories)][MARKER_SIZE + 8];
	static struct wipe_item items[ARRAY_LENGTH(stories)];
	struct found found = {0};
	struct cede_error err;
	struct disk disk;
	size_t n = 0;

	assert_true(disk_init(&disk, s->mkfs, s->tune, s->options));
	int dirfd = open(disk.mount, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	assert_true(dirfd >= 0);
	make(s, dirfd, false, paths);
	flush(dirfd);
	make(s, dirfd, true, paths);
	for (size_t i = 0; i < ARRAY_LENGTH(stories); i++)
		if (is_told(s, &stories[i]))
			items[n++] = item_of(dirfd, paths[i], s);
	wipe_reasons reasons;
	enum wipe_level forecast = storage_directory(dirfd, s->scrub, &reasons);
	assert_int_equal(wipe_batch(items, n, &err), 0);
	int64_t took;
	if (s->scrub) /* as the agent does within scrub_within; the batch does it only for levels */
		(void)scrub_journal(dirfd, &took);
	assert_int_equal(close(dirfd), 0);
	assert_true(disk_each(&disk, MARK, count, &found));
	disk_done(&disk);
	n = 0;
	for (size_t i = 0; i < ARRAY_LENGTH(stories); i++)
		if (is_told(s, &stories[i]))
			judge(s, i, &items[n++], &found);
	print_message("# %s: %zu names\n", s->name, found.names);
	wipe_reasons beforehand = s->always & ~WIPE_BIT(READ_BACK_UNAVAILABLE);
	assert_int_equal(forecast, beforehand == 0 ? WIPE_OVERWRITTEN_WATCHED : WIPE_UNPROVEN);
	assert_int_equal(reasons, beforehand);
	assert_true(s->names_go ? found.names == 0 : found.names > 0);
}

/* The search itself must find what is there: without a wipe all stays. */
static void finds_what_an_unlink_leaves(void **state) {
	struct found found = {0};
	char text[MARKER_SIZE];
	struct disk disk;

	(void)state;
	assert_true(disk_init(&disk, EXT4, NULL, ""));
	int dirfd = open(disk.mount, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	mark(0, 'n', text);
	put(dirfd, "a", text, PLAIN);
	flush(dirfd);
	assert_int_equal(unlinkat(dirfd, "a", 0), 0);
	assert_int_equal(close(dirfd), 0);
	assert_true(disk_each(&disk, MARK, count, &found));
	disk_done(&disk);
	assert_true(found.now[0] > PLAIN / strlen(text) * 9 / 10);
}

static void is_skipped(void **state) {
	(void)state;
}

/* A test that needs a disk which can't be had here; cmocka 1.1.5 prints skip() as "not ok". */
static struct CMUnitTest on_disk(
	CMUnitTestFunction function, struct setting *s, char room[NAME_SIZE]) {
	struct disk disk;
	bool can = disk_init(&disk, s->mkfs, s->tune, s->options);

	disk_done(&disk);
	(void)snprintf(room, NAME_SIZE, can ? "%s" : "%s # SKIP needs root, loop devices and %s",
		s->name, s->mkfs);
	return (struct CMUnitTest){room, can ? function : is_skipped, NULL, NULL, s};
}

int main(void) {
	struct CMUnitTest tests[ARRAY_LENGTH(settings) + 1];
	static char names[ARRAY_LENGTH(settings) + 1][NAME_SIZE];
	size_t n = 0;

	for (size_t i = 0; i < ARRAY_LENGTH(settings); i++, n++)
		tests[n] = on_disk(says_what_stays, &settings[i], names[n]);
	tests[n] = on_disk(finds_what_an_unlink_leaves, &settings[0], names[n]);
	if (tests[n].test_func != is_skipped)
		tests[n].name = "finds_what_an_unlink_leaves";
	return cmocka_run_group_tests_name("storage", tests, NULL, NULL);
}
