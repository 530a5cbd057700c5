/* SPDX-License-Identifier: Apache-2.0 */
#include <dirent.h>
#include <fcntl.h>
#include <openssl/evp.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "agent/wipe/storage.h"
#include "agent/wipe/wipe.h"
#include "base/check.h"
#include "base/cleanup.h"
#include "tests/unit/wipe/disk.h"

#define MANY 600 /* more than one round of open files */

/* Where the tests with one file live: ext4 of their own, or a temporary directory. */
static struct disk home;
static bool own_disk;
static int root_fd = -1;

/* ---- the calls that tests count, fail or stop at */

static struct {
	unsigned pwrites, syncfss, unlinkats, fsyncs, stats;          /* counted */
	unsigned fail_pwrite, fail_syncfs, fail_unlinkat, fail_fsync; /* the Nth fails, 0: none */
	unsigned fail_stat; /* from this one on, as many as: */
	unsigned failing_stats;
	int fail_with;
	bool wrong_pread;          /* the device gives back something else */
	int lease_errno;           /* what F_SETLEASE says */
	void (*at_pwrite)(int fd); /* before the first byte is overwritten */
	void (*at_syncfs)(int fd);
	void (*at_flushed)(int fd);   /* a lease for reading was granted after the flush */
	void (*at_rename)(int dirfd); /* before a name is put aside, once */
	int rename_errno;             /* what it says then: EINVAL without RENAME_NOREPLACE */
} calls;

ssize_t __real_pread64(int fd, void *data, size_t n, off_t at);
ssize_t __wrap_pread64(int fd, void *data, size_t n, off_t at);
ssize_t __real_pwrite64(int fd, const void *data, size_t n, off_t at);
ssize_t __wrap_pwrite64(int fd, const void *data, size_t n, off_t at);
int __real_syncfs(int fd);
int __wrap_syncfs(int fd);
int __real_unlinkat(int dirfd, const char *name, int flags);
int __wrap_unlinkat(int dirfd, const char *name, int flags);
int __real_renameat2(int from_fd, const char *from, int to_fd, const char *to, unsigned flags);
int __wrap_renameat2(int from_fd, const char *from, int to_fd, const char *to, unsigned flags);
int __real_fsync(int fd);
int __wrap_fsync(int fd);
int __real_fstat64(int fd, struct stat *st);
int __wrap_fstat64(int fd, struct stat *st);
int __real_fstatat64(int dirfd, const char *name, struct stat *st, int flags);
int __wrap_fstatat64(int dirfd, const char *name, struct stat *st, int flags);
int __real_fcntl64(int fd, int command, ...);
int __wrap_fcntl64(int fd, int command, ...);

static bool fails(unsigned *count, unsigned nth) {
	if (++*count != nth)
		return false;
	errno = calls.fail_with;
	return true;
}

ssize_t __wrap_pread64(int fd, void *data, size_t n, off_t at) {
	ssize_t got = __real_pread64(fd, data, n, at);

	if (calls.wrong_pread && got > 0)
		((uint8_t *)data)[got - 1] ^= 1;
	return got;
}

ssize_t __wrap_pwrite64(int fd, const void *data, size_t n, off_t at) {
	if (calls.at_pwrite != NULL && calls.pwrites == 0)
		calls.at_pwrite(fd);
	return fails(&calls.pwrites, calls.fail_pwrite) ? -1 : __real_pwrite64(fd, data, n, at);
}

int __wrap_syncfs(int fd) {
	if (calls.at_syncfs != NULL)
		calls.at_syncfs(fd);
	return fails(&calls.syncfss, calls.fail_syncfs) ? -1 : __real_syncfs(fd);
}

int __wrap_unlinkat(int dirfd, const char *name, int flags) {
	return fails(&calls.unlinkats, calls.fail_unlinkat) ? -1
							    : __real_unlinkat(dirfd, name, flags);
}

int __wrap_renameat2(int from_fd, const char *from, int to_fd, const char *to, unsigned flags) {
	void (*first)(int) = calls.at_rename;

	calls.at_rename = NULL;
	if (first != NULL)
		first(from_fd);
	if (calls.rename_errno != 0) {
		errno = calls.rename_errno;
		return -1;
	}
	return __real_renameat2(from_fd, from, to_fd, to, flags);
}

int __wrap_fsync(int fd) {
	return fails(&calls.fsyncs, calls.fail_fsync) ? -1 : __real_fsync(fd);
}

static bool stat_fails(void) {
	if (++calls.stats < calls.fail_stat || calls.stats >= calls.fail_stat + calls.failing_stats)
		return false;
	errno = calls.fail_with;
	return true;
}

int __wrap_fstat64(int fd, struct stat *st) {
	return stat_fails() ? -1 : __real_fstat64(fd, st);
}

int __wrap_fstatat64(int dirfd, const char *name, struct stat *st, int flags) {
	return stat_fails() ? -1 : __real_fstatat64(dirfd, name, st, flags);
}

int __wrap_fcntl64(int fd, int command, ...) {
	va_list ap;

	va_start(ap, command);
	long argument = va_arg(ap, long);
	va_end(ap);
	if (command == F_SETLEASE && calls.lease_errno != 0) {
		errno = calls.lease_errno;
		return -1;
	}
	int r = __real_fcntl64(fd, command, argument);
	if (r == 0 && command == F_SETLEASE && argument == F_RDLCK && calls.syncfss > 0 &&
		calls.at_flushed != NULL)
		calls.at_flushed(fd);
	return r;
}

/* ---- files */

static void put(int dirfd, const char *path, const char *text, size_t copies) {
	int fd = openat(dirfd, path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

	assert_true(fd >= 0);
	for (size_t i = 0; i < copies; i++)
		assert_int_equal(write(fd, text, strlen(text)), strlen(text));
	assert_int_equal(close(fd), 0);
}

/* What has the name now; ret is a text of at most 255 bytes. */
static void get(int dirfd, const char *path, char ret[256]) {
	CLEANUP(fd_closep) int fd = openat(dirfd, path, O_RDONLY | O_CLOEXEC);

	memset(ret, 0, 256);
	assert_true(fd >= 0);
	assert_true(read(fd, ret, 255) >= 0);
}

static bool exists(int dirfd, const char *path) {
	struct stat st;

	return fstatat(dirfd, path, &st, AT_SYMLINK_NOFOLLOW) == 0;
}

static unsigned names_in(int dirfd, const char *path) {
	DIR *dir = fdopendir(openat(dirfd, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC));
	unsigned n = 0;

	assert_non_null(dir);
	for (struct dirent *e; (e = readdir(dir)) != NULL;)
		n += strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0;
	assert_int_equal(closedir(dir), 0);
	return n;
}

/* An item for the file as it is now. */
static struct wipe_item item_of(int dirfd, const char *path) {
	struct wipe_item item = {.source_fd = dirfd, .path = path};
	struct stat st;

	assert_int_equal(fstatat(dirfd, path, &st, AT_SYMLINK_NOFOLLOW), 0);
	item.want = file_identity_of(&st);
	return item;
}

/* Every outcome starts as one that no test expects. */
static void wipe_all(struct wipe_item *items, size_t n) {
	struct cede_error err;

	for (size_t i = 0; i < n; i++)
		items[i].outcome = (enum wipe_outcome) - 1;
	assert_int_equal(wipe_batch(items, n, &err), 0);
}

static void must_be(const struct wipe_item *item, enum wipe_outcome outcome, const char *why) {
	char reasons[WIPE_REASONS_SIZE];

	assert_int_equal(item->outcome, outcome);
	wipe_reasons_print(item->reasons, reasons);
	if (why != NULL)
		assert_string_equal(reasons, why);
}

/* On a file system without the promise the level is lower, and the reason says so. */
static void must_be_overwritten(const struct wipe_item *item) {
	must_be(item, WIPE_DONE, NULL);
	if (!own_disk)
		return;
	assert_int_equal(item->reasons, WIPE_BIT(HISTORY_UNKNOWN));
	assert_string_equal(wipe_level_name(item->level), "overwritten-current");
}

static int test_begin(void **state) {
	(void)state;
	memset(&calls, 0, sizeof calls);
	assert_int_equal(mkdirat(root_fd, "d", 0700), 0);
	return 0;
}

static int test_end(void **state) {
	char words[160];

	(void)state;
	memset(&calls, 0, sizeof calls);
	(void)snprintf(words, sizeof words, "find %s -mindepth 1 -delete", home.mount);
	return disk_run(words);
}

/* ---- what is wiped */

static void wipes_a_file(void **state) {
	static const size_t sizes[] = {0, 1, 4095, 4096, 4097, 100000, (1 << 20) + 1, 3 << 20};

	(void)state;
	for (size_t i = 0; i < ARRAY_LENGTH(sizes); i++) {
		put(root_fd, "d/a", "x", 0);
		int fd = openat(root_fd, "d/a", O_WRONLY | O_CLOEXEC);
		assert_int_equal(ftruncate(fd, (off_t)sizes[i]), 0);
		assert_int_equal(close(fd), 0);
		struct wipe_item item = item_of(root_fd, "d/a");
		memset(&calls, 0, sizeof calls);
		wipe_all(&item, 1);
		must_be_overwritten(&item);
		assert_false(exists(root_fd, "d/a"));
		assert_int_equal(calls.syncfss, 1);
		assert_int_equal(calls.fsyncs, 1);
	}
}

static void says_absent(void **state) {
	static const char *const gone[] = {"none", "d/none", "none/a", "file/a"};

	(void)state;
	put(root_fd, "file", "x", 1);
	for (size_t i = 0; i < ARRAY_LENGTH(gone); i++) {
		struct wipe_item item = item_of(root_fd, "d");
		item.path = gone[i];
		wipe_all(&item, 1);
		must_be(&item, WIPE_ABSENT, "");
	}
	wipe_all(NULL, 0);
	assert_int_equal(calls.syncfss, 0);
}

static void wipes_what_a_program_reads(void **state) {
	char text[256] = {0};

	(void)state;
	put(root_fd, "d/a", "plain", 1);
	CLEANUP(fd_closep) int reader = openat(root_fd, "d/a", O_RDONLY | O_CLOEXEC);
	struct wipe_item item = item_of(root_fd, "d/a");
	wipe_all(&item, 1);
	must_be_overwritten(&item);
	assert_false(exists(root_fd, "d/a"));
	assert_true(pread(reader, text, 5, 0) == 5);
	assert_string_not_equal(text, "plain");
}

static void goes_on_where_there_are_no_leases(void **state) {
	static const int answers[] = {EINVAL, ENOLCK, EOPNOTSUPP, EACCES};

	(void)state;
	for (size_t i = 0; i < ARRAY_LENGTH(answers); i++) {
		put(root_fd, "d/a", "plain", 1);
		struct wipe_item item = item_of(root_fd, "d/a");
		calls.lease_errno = answers[i];
		wipe_all(&item, 1);
		must_be_overwritten(&item);
	}
}

static void flushes_once_for_many(void **state) {
	static struct wipe_item items[MANY];
	static char paths[MANY][24];

	(void)state;
	for (size_t i = 0; i < 20; i++) {
		(void)snprintf(paths[0], sizeof paths[0], "d/%02zu", i);
		assert_int_equal(mkdirat(root_fd, paths[0], 0700), 0);
	}
	for (size_t i = 0; i < MANY; i++) {
		(void)snprintf(paths[i], sizeof paths[i], "d/%02zu/%zu", i % 20, i);
		put(root_fd, paths[i], "plain", 100);
		items[i] = item_of(root_fd, paths[i]);
	}
	wipe_all(items, MANY);
	for (size_t i = 0; i < MANY; i++) {
		must_be_overwritten(&items[i]);
		assert_false(exists(root_fd, paths[i]));
	}
	/* for each round one for the content, one for all directories */
	assert_in_range(calls.syncfss, 2, 8);
	assert_int_equal(calls.fsyncs, 0);
	assert_int_equal(calls.unlinkats, MANY);
}

/* A device that does not keep what is written to it: nothing is unlinked, and it is said. */
static void reads_back(void **state) {
	(void)state;
	put(root_fd, "d/a", "plain", 100000);
	struct wipe_item item = item_of(root_fd, "d/a");
	item.verify = WIPE_VERIFY_ALL;
	calls.wrong_pread = true;
	wipe_all(&item, 1);
	if (!own_disk) {
		must_be(&item, item.outcome,
			NULL); /* whether it can be read past the cache is not known */
		return;
	}
	must_be(&item, WIPE_FAILED, NULL);
	assert_true(item.touched);
	assert_non_null(strstr(item.err.text, "not what the device gives back"));
	assert_true(exists(root_fd, "d/a"));
	assert_int_equal(calls.unlinkats, 0);
	calls.wrong_pread = false;
	item.begun = true;
	wipe_all(&item, 1);
	must_be_overwritten(&item);
}

/* ---- what is not touched (I3, I6) */

static struct wipe_item refused(const char *path, const struct wipe_item *item, const char *text) {
	struct wipe_item copy = *item;
	char now[256];

	wipe_all(&copy, 1);
	must_be(&copy, WIPE_REPLACED, NULL);
	get(root_fd, path, now);
	assert_string_equal(now, text);
	assert_int_equal(calls.pwrites, 0);
	assert_int_equal(calls.unlinkats, 0);
	return copy;
}

static void leaves_a_replaced_file(void **state) {
	(void)state;
	put(root_fd, "d/a", "plain", 1);
	struct wipe_item item = item_of(root_fd, "d/a");
	put(root_fd, "d/new", "other", 1);
	assert_int_equal(renameat(root_fd, "d/new", root_fd, "d/a"), 0);
	(void)refused("d/a", &item, "other");
}

static void leaves_a_changed_file(void **state) {
	struct timespec times[2] = {{.tv_nsec = UTIME_OMIT}, {.tv_sec = 1}};

	(void)state;
	put(root_fd, "d/a", "plain", 1);
	struct wipe_item item = item_of(root_fd, "d/a");
	int fd = openat(root_fd, "d/a", O_WRONLY | O_APPEND | O_CLOEXEC);
	assert_int_equal(write(fd, "+", 1), 1);
	assert_int_equal(close(fd), 0);
	(void)refused("d/a", &item, "plain+");
	put(root_fd, "d/b", "plain", 1); /* same size, other times */
	item = item_of(root_fd, "d/b");
	assert_int_equal(utimensat(root_fd, "d/b", times, 0), 0);
	(void)refused("d/b", &item, "plain");
}

static void leaves_a_hard_link(void **state) {
	(void)state;
	put(root_fd, "d/a", "plain", 1);
	assert_int_equal(linkat(root_fd, "d/a", root_fd, "elsewhere", 0), 0);
	struct wipe_item item = item_of(root_fd, "d/a");
	item = refused("d/a", &item, "plain");
	assert_int_equal(item.reasons, WIPE_BIT(HARD_LINK));
	item.begun = true;
	(void)refused("elsewhere", &item, "plain");
}

static void leaves_what_a_symlink_leads_to(void **state) {
	(void)state;
	put(root_fd, "target", "plain", 1);
	struct wipe_item item = item_of(root_fd, "target");
	assert_int_equal(symlinkat("../target", root_fd, "d/a"), 0);
	item.path = "d/a"; /* even if it were the very file */
	(void)refused("target", &item, "plain");
}

static void leaves_what_a_directory_symlink_leads_to(void **state) {
	(void)state;
	put(root_fd, "d/a", "plain", 1);
	struct wipe_item item = item_of(root_fd, "d/a");
	assert_int_equal(renameat(root_fd, "d", root_fd, "moved"), 0);
	assert_int_equal(symlinkat("moved", root_fd, "d"), 0);
	(void)refused("moved/a", &item, "plain");
	CLEANUP(fd_closep) int below = openat(root_fd, "moved", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	item.source_fd = below;
	item.path = "../moved/a";
	wipe_all(&item, 1);
	must_be(&item, WIPE_FAILED, NULL); /* out of the source, or over a mount point: not reached */
	assert_false(item.touched);
}

/* Half overwritten, its directory away and a symlink in its place: it must not be taken for another
 * capture when the directory is back. */
static void waits_for_the_directory_of_a_begun_file(void **state) {
	(void)state;
	assert_int_equal(mkdirat(root_fd, "d/lane", 0700), 0);
	put(root_fd, "d/lane/a", "plain", 1000);
	struct wipe_item item = item_of(root_fd, "d/lane/a");
	item.begun = true;
	assert_int_equal(renameat(root_fd, "d/lane", root_fd, "elsewhere"), 0);
	assert_int_equal(symlinkat("../elsewhere", root_fd, "d/lane"), 0);
	wipe_all(&item, 1);
	must_be(&item, WIPE_FAILED, NULL);
	assert_int_equal(calls.pwrites, 0);
	assert_int_equal(__real_unlinkat(root_fd, "d/lane", 0), 0);
	assert_int_equal(renameat(root_fd, "elsewhere", root_fd, "d/lane"), 0);
	wipe_all(&item, 1);
	must_be_overwritten(&item);
}

static void leaves_what_is_no_file(void **state) {
	(void)state;
	put(root_fd, "d/a", "plain", 1);
	struct wipe_item item = item_of(root_fd, "d/a");
	assert_int_equal(__real_unlinkat(root_fd, "d/a", 0), 0);
	assert_int_equal(mkfifoat(root_fd, "d/a", 0600), 0);
	wipe_all(&item, 1);
	must_be(&item, WIPE_REPLACED, NULL);
	assert_int_equal(__real_unlinkat(root_fd, "d/a", 0), 0);
	assert_int_equal(mkdirat(root_fd, "d/a", 0700), 0);
	wipe_all(&item, 1);
	must_be(&item, WIPE_REPLACED, NULL);
	assert_true(exists(root_fd, "d/a"));
}

static void waits_for_a_writer(void **state) {
	char text[256];

	(void)state;
	put(root_fd, "d/a", "plain", 1);
	struct wipe_item item = item_of(root_fd, "d/a");
	int writer = openat(root_fd, "d/a", O_WRONLY | O_CLOEXEC);
	wipe_all(&item, 1);
	must_be(&item, WIPE_BUSY, "");
	get(root_fd, "d/a", text);
	assert_string_equal(text, "plain");
	assert_int_equal(close(writer), 0);
	wipe_all(&item, 1);
	must_be_overwritten(&item);
}

/* A lease of another program (NFS or SMB server) excludes us: no spinning until it is broken. */
/* Its descriptor is closed; what it writes to the mapping reaches the file all the same. */
static void waits_for_a_mapping(void **state) {
	(void)state;
	put(root_fd, "d/a", "plain", 1000);
	int fd = openat(root_fd, "d/a", O_RDWR | O_CLOEXEC);
	assert_true(fd >= 0);
	char *all = mmap(NULL, 5000, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	assert_ptr_not_equal(all, MAP_FAILED);
	assert_int_equal(close(fd), 0);
	struct wipe_item item = item_of(root_fd, "d/a");
	wipe_all(&item, 1);
	must_be(&item, WIPE_BUSY, NULL);
	assert_int_equal(calls.pwrites, 0);
	assert_int_equal(munmap(all, 5000), 0);
	wipe_all(&item, 1);
	must_be_overwritten(&item);
}

static void waits_for_a_lease(void **state) {
	(void)state;
	put(root_fd, "d/a", "plain", 1);
	struct wipe_item item = item_of(root_fd, "d/a");
	CLEANUP(fd_closep) int other = openat(root_fd, "d/a", O_RDWR | O_CLOEXEC);
	assert_int_equal(fcntl(other, F_SETLEASE, F_WRLCK), 0);
	wipe_all(&item, 1);
	must_be(&item, WIPE_BUSY, "");
	assert_int_equal(calls.pwrites, 0);
}

/* ---- programs that come while we overwrite */

static int opened_with; /* flags */
static pthread_t opener;
static int opened = -1;

static void *open_it(void *arg) {
	(void)arg;
	opened = openat(root_fd, "d/a", opened_with | O_CLOEXEC); /* waits for our lease to go */
	if (opened < 0)
		return NULL;
	if ((opened_with & O_ACCMODE) != O_RDONLY && write(opened, "new", 3) != 3)
		return NULL;
	return &opened;
}

/* Starts the opener and returns when it stands before our lease. */
static void start_opener(int fd) {
	sigset_t io;
	int sig = 0;

	(void)fd;
	sigemptyset(&io);
	sigaddset(&io, SIGIO);
	require(pthread_create(&opener, NULL, open_it, NULL) == 0);
	require(sigwait(&io, &sig) == 0);
}

/* It comes when *at is called. */
static void run_with_opener(int flags, struct wipe_item *item, void (**at)(int fd)) {
	const struct timespec now = {0};
	void *result;
	sigset_t io;

	sigemptyset(&io);
	sigaddset(&io, SIGIO);
	while (sigtimedwait(&io, NULL, &now) == SIGIO) /* of a lease that another test broke */
		;
	opened_with = flags;
	opened = -1;
	*at = start_opener;
	wipe_all(item, 1);
	assert_int_equal(pthread_join(opener, &result), 0);
	assert_true(result == &opened);
}

static void holds_writers_off(void **state) {
	static const int flags[] = {O_WRONLY, O_RDWR, O_WRONLY | O_TRUNC, O_WRONLY | O_APPEND};
	char text[256];

	(void)state;
	for (size_t i = 0; i < ARRAY_LENGTH(flags); i++) {
		put(root_fd, "d/a", "plain", 1000);
		struct wipe_item item = item_of(root_fd, "d/a");
		memset(&calls, 0, sizeof calls);
		run_with_opener(flags[i], &item, &calls.at_pwrite);
		must_be(&item, WIPE_DONE, NULL);
		fd_closep(&opened);
		get(root_fd, "d/a", text); /* what the camera wrote is there, and nothing else */
		assert_string_equal(text, "new");
	}
}

static void holds_readers_off(void **state) {
	char text[6] = {0};

	(void)state;
	put(root_fd, "d/a", "plain", 1000);
	struct wipe_item item = item_of(root_fd, "d/a");
	run_with_opener(O_RDONLY, &item, &calls.at_pwrite);
	must_be_overwritten(&item);
	assert_false(exists(root_fd, "d/a"));
	assert_int_equal(pread(opened, text, 5, 0), 5);
	assert_string_not_equal(text, "plain");
	fd_closep(&opened);
}

static void open_for_writing(int fd) {
	(void)fd;
	opened = openat(root_fd, "d/a", O_WRONLY | O_CLOEXEC);
	require(opened >= 0);
}

static void open_and_write(int fd) {
	open_for_writing(fd);
	require(write(opened, "new", 3) == 3);
}

/* With a reader there is no lease: who comes for writing keeps its file. */
static void sees_a_writer_beside_a_reader(void **state) {
	(void)state;
	for (int writes = 0; writes < 2; writes++) {
		put(root_fd, "d/a", "plain", 1);
		CLEANUP(fd_closep) int reader = openat(root_fd, "d/a", O_RDONLY | O_CLOEXEC);
		(void)reader; /* held open for the test */
		struct wipe_item item = item_of(root_fd, "d/a");
		calls.at_syncfs = writes ? open_and_write : open_for_writing;
		wipe_all(&item, 1);
		must_be(&item, WIPE_REPLACED, "written-while-wiped");
		assert_int_equal(calls.unlinkats, 0);
		assert_true(exists(root_fd, "d/a"));
		fd_closep(&opened);
	}
}

/* One that stands before our lease when the name is to go: its file stays, emptied. */
static void holds_writers_off_beside_a_reader(void **state) {
	char text[256];

	(void)state;
	put(root_fd, "d/a", "plain", 1000);
	CLEANUP(fd_closep) int reader = openat(root_fd, "d/a", O_RDONLY | O_CLOEXEC);
	(void)reader; /* held open for the test */
	struct wipe_item item = item_of(root_fd, "d/a");
	run_with_opener(O_WRONLY, &item, &calls.at_flushed);
	assert_int_equal(calls.unlinkats, 0);
	fd_closep(&opened);
	get(root_fd, "d/a", text);
	assert_int_equal(strncmp(text, "new", 3), 0);
}

static void put_another(int fd) {
	(void)fd;
	put(root_fd, "d/new", "other", 1);
	require(renameat(root_fd, "d/new", root_fd, "d/a") == 0);
}

static void move_away(int fd) {
	(void)fd;
	require(renameat(root_fd, "d/a", root_fd, "d/b") == 0);
}

static void unlinks_only_the_file_itself(void **state) {
	char text[256];

	(void)state;
	put(root_fd, "d/a", "plain", 1);
	struct wipe_item item = item_of(root_fd, "d/a");
	calls.at_syncfs = put_another;
	wipe_all(&item, 1);
	must_be(&item, WIPE_DONE, "renamed-while-wiped");
	get(root_fd, "d/a", text);
	assert_string_equal(text, "other");
	item = item_of(root_fd, "d/a");
	calls.at_syncfs = move_away;
	wipe_all(&item, 1);
	must_be(&item, WIPE_DONE, "renamed-while-wiped");
	assert_int_equal(item.level, WIPE_UNPROVEN);
	get(root_fd, "d/b", text); /* under its new name it is overwritten */
	assert_string_not_equal(text, "other");
	assert_int_equal(calls.unlinkats, 0);
}

/* With a reader there is no lease, and the file is opened anew before its name goes. */
static void empties_what_a_program_reads_and_another_moved(void **state) {
	char text[256];

	(void)state;
	for (int replaced = 0; replaced < 2; replaced++) {
		struct stat st;
		put(root_fd, "d/a", "plain", 1);
		CLEANUP(fd_closep) int reader = openat(root_fd, "d/a", O_RDONLY | O_CLOEXEC);
		struct wipe_item item = item_of(root_fd, "d/a");
		memset(&calls, 0, sizeof calls);
		calls.at_syncfs = replaced ? put_another : move_away;
		wipe_all(&item, 1);
		must_be(&item, WIPE_DONE, "renamed-while-wiped");
		assert_int_equal(calls.unlinkats, 0);
		assert_int_equal(fstat(reader, &st), 0);
		assert_int_equal(st.st_size, 0);
		if (!replaced)
			continue;
		get(root_fd, "d/a", text);
		assert_string_equal(text, "other");
	}
}

/* The camera's next capture comes at the last moment, between the look and the unlinking. */
static void unlinks_no_newcomer(void **state) {
	char text[256];

	(void)state;
	put(root_fd, "d/a", "plain", 1);
	struct wipe_item item = item_of(root_fd, "d/a");
	calls.at_rename = put_another;
	wipe_all(&item, 1);
	must_be(&item, WIPE_DONE, "renamed-while-wiped");
	get(root_fd, "d/a", text);
	assert_string_equal(text, "other");
	assert_int_equal(calls.unlinkats, 0);
	item = item_of(root_fd, "d/a");
	calls.at_rename = move_away;
	wipe_all(&item, 1);
	must_be(&item, WIPE_DONE, "renamed-while-wiped");
	assert_int_equal(calls.unlinkats, 0);
}

static void put_symlink(int fd) {
	(void)fd;
	require(renameat(root_fd, "d/a", root_fd, "d/b") == 0);
	require(symlinkat("elsewhere", root_fd, "d/a") == 0);
}

/* The sandbox lets nobody rename a symlink: one that takes the name at the last moment. */
static void empties_what_a_symlink_replaced(void **state) {
	char text[256];

	(void)state;
	put(root_fd, "d/a", "plain", 1);
	struct wipe_item item = item_of(root_fd, "d/a");
	calls.at_rename = put_symlink;
	calls.rename_errno = EACCES;
	wipe_all(&item, 1);
	must_be(&item, WIPE_DONE, "renamed-while-wiped");
	get(root_fd, "d/b", text);
	assert_string_equal(text, "");
	assert_int_equal(calls.unlinkats, 0);
}

static void keeps_what_may_not_be_put_aside(void **state) {
	(void)state;
	put(root_fd, "d/a", "plain", 1);
	struct wipe_item item = item_of(root_fd, "d/a");
	calls.rename_errno = EACCES;
	wipe_all(&item, 1);
	assert_int_equal(item.outcome, WIPE_FAILED);
	assert_int_equal(item.err.sys, EACCES);
	assert_true(exists(root_fd, "d/a"));
	assert_int_equal(calls.unlinkats, 0);
}

static void wipes_where_names_cannot_be_put_aside(void **state) {
	(void)state;
	put(root_fd, "d/a", "plain", 1);
	struct wipe_item item = item_of(root_fd, "d/a");
	calls.rename_errno = EINVAL;
	wipe_all(&item, 1);
	must_be(&item, WIPE_DONE, NULL);
	assert_false(exists(root_fd, "d/a"));
}

/* ---- after a crash or an error */

/* d/a under the name that a crash would leave. */
static struct wipe_item put_aside(size_t copies, char aside[64]) {
	put(root_fd, "d/a", "plain", copies);
	struct wipe_item item = item_of(root_fd, "d/a");
	(void)snprintf(aside, 64, "d/.cede-wiped-%016llx", (unsigned long long)item.want.ino);
	assert_int_equal(renameat(root_fd, "d/a", root_fd, aside), 0);
	return item;
}

static void unlinks_what_was_put_aside(void **state) {
	char aside[64];
	struct wipe_item item = put_aside(1, aside);

	(void)state;
	wipe_all(&item, 1); /* not begun: whoever gave it that name, it was not us */
	must_be(&item, WIPE_ABSENT, NULL);
	assert_true(exists(root_fd, aside));
	item.begun = true;
	wipe_all(&item, 1);
	must_be(&item, WIPE_ABSENT, NULL);
	assert_false(exists(root_fd, aside));
	assert_int_equal(calls.fsyncs, 1);
}

/* A camera that always writes latest.jpg. */
static void unlinks_what_was_put_aside_when_the_name_is_taken(void **state) {
	char aside[64];
	struct wipe_item item = put_aside(1, aside);

	(void)state;
	put(root_fd, "d/a", "the next one", 1);
	item.begun = true;
	wipe_all(&item, 1);
	must_be(&item, WIPE_ABSENT, NULL);
	assert_false(exists(root_fd, aside));
	assert_true(exists(root_fd, "d/a"));
	wipe_all(&item, 1); /* nothing is aside: another file has the name, and stays */
	must_be(&item, WIPE_REPLACED, NULL);
	assert_true(exists(root_fd, "d/a"));
}

static void waits_for_the_file_system(void **state) {
	CLEANUP(fd_closep) int proc = open("/proc", O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	(void)state;
	put(root_fd, "d/a", "plain", 1);
	struct wipe_item item = item_of(root_fd, "d/a");
	item.source_fd = proc; /* another file system is at the source's path */
	item.begun = true;
	wipe_all(&item, 1);
	must_be(&item, WIPE_FAILED, NULL);
	assert_int_equal(item.err.sys, ENODEV);
	assert_false(item.touched);
	item.path = "nothing"; /* in its directory as well */
	wipe_all(&item, 1);
	must_be(&item, WIPE_FAILED, NULL);
}

/* Overwrites the file and stops before the unlinking, as a crash would. */
static struct wipe_item cut_short(const char *path, size_t copies) {
	put(root_fd, path, "plain", copies);
	struct wipe_item item = item_of(root_fd, path);

	calls.fail_with = EIO;
	calls.fail_syncfs = calls.syncfss + 1;
	wipe_all(&item, 1);
	must_be(&item, WIPE_FAILED, NULL);
	assert_true(exists(root_fd, path));
	return item;
}

static void ends_a_wipe_that_was_begun(void **state) {
	static const size_t copies[] = {4, 1000, 300000};

	(void)state;
	for (size_t i = 0; i < ARRAY_LENGTH(copies); i++) {
		struct wipe_item item = cut_short("d/a", copies[i]);
		wipe_all(&item, 1);
		must_be(&item, WIPE_REPLACED, NULL); /* only with begun */
		item.begun = true;
		wipe_all(&item, 1);
		must_be_overwritten(&item);
		wipe_all(&item, 1);
		must_be(&item, WIPE_ABSENT, NULL);
	}
}

static void digest_of(const char *text, uint8_t ret[32]) {
	assert_int_equal(EVP_Digest(text, strlen(text), ret, NULL, EVP_sha256(), NULL), 1);
}

/* The overwriting never reached the disk, and the times did. */
static void begins_again_with_the_sealed_content(void **state) {
	struct timespec times[2] = {{.tv_nsec = UTIME_OMIT}, {.tv_sec = 1}};

	(void)state;
	put(root_fd, "d/a", "plain", 1);
	struct wipe_item item = item_of(root_fd, "d/a");
	assert_int_equal(utimensat(root_fd, "d/a", times, 0), 0);
	item.begun = true;
	(void)refused("d/a", &item, "plain"); /* another digest: not what was sealed */
	digest_of("plain", item.sha256);
	wipe_all(&item, 1);
	must_be_overwritten(&item);
}

/* A file system with small blocks, of which one reached the disk. */
static void ends_a_wipe_of_which_one_sector_was_written(void **state) {
	uint8_t whole[6000], *sector = whole + 3072;

	(void)state;
	struct wipe_item item = cut_short("d/a", 2000);
	int fd = openat(root_fd, "d/a", O_RDWR | O_CLOEXEC);
	assert_int_equal(pread(fd, sector, 512, 3072), 512); /* of the stream */
	assert_int_equal(ftruncate(fd, 0), 0);
	for (size_t i = 0; i < sizeof whole; i++)
		if (i < 3072 || i >= 3584)
			whole[i] = 'x';
	assert_int_equal(write(fd, whole, sizeof whole), sizeof whole);
	assert_int_equal(ftruncate(fd, (off_t)item.want.size), 0);
	assert_int_equal(close(fd), 0);
	item.begun = true;
	wipe_all(&item, 1);
	must_be_overwritten(&item);
}

/* The new size reached the disk, and nothing of the stream. */
static void begins_again_with_a_grown_file(void **state) {
	(void)state;
	put(root_fd, "d/a", "plain", 1);
	struct wipe_item item = item_of(root_fd, "d/a");
	int fd = openat(root_fd, "d/a", O_WRONLY | O_CLOEXEC);
	assert_int_equal(ftruncate(fd, 4096), 0);
	assert_int_equal(close(fd), 0);
	item.begun = true;
	digest_of("plain", item.sha256);
	wipe_all(&item, 1);
	must_be_overwritten(&item);

	put(root_fd, "d/b", "plain", 1); /* with something behind it that we did not write */
	item = item_of(root_fd, "d/b");
	fd = openat(root_fd, "d/b", O_WRONLY | O_CLOEXEC);
	assert_int_equal(ftruncate(fd, 4095), 0);
	assert_int_equal(pwrite(fd, "!", 1, 4095), 1);
	assert_int_equal(close(fd), 0);
	item.begun = true;
	digest_of("plain", item.sha256);
	memset(&calls, 0, sizeof calls);
	wipe_all(&item, 1);
	must_be(&item, WIPE_REPLACED, NULL);
	assert_int_equal(calls.pwrites, 0);
}

/* The camera wrote the same inode anew after the crash. */
/* chmod, chattr, a rename there and back: other times are no other capture, other content is. */
static void wipes_the_sealed_content_with_other_times(void **state) {
	(void)state;
	for (int same = 0; same < 2; same++) {
		put(root_fd, "d/a", same ? "plain" : "other", 1);
		struct wipe_item item = item_of(root_fd, "d/a");
		digest_of("plain", item.sha256);
		item.want.ctime_ns--;
		item.want.mtime_ns--;
		wipe_all(&item, 1);
		must_be(&item, same ? WIPE_DONE : WIPE_REPLACED, NULL);
		assert_int_equal(item.touched, same);
		assert_int_equal(exists(root_fd, "d/a"), !same);
	}
	put(root_fd, "d/a", "plain", 1);
	struct wipe_item item = item_of(root_fd, "d/a");
	digest_of("plain", item.sha256);
	item.want.ctime_ns--;
	item.held = true;
	wipe_all(&item, 1);
	must_be(&item, WIPE_HELD, NULL);
	item.want.ino++; /* the same content in another file is another capture */
	item.held = false;
	wipe_all(&item, 1);
	must_be(&item, WIPE_REPLACED, NULL);
}

static void leaves_new_content_of_a_begun_file(void **state) {
	(void)state;
	struct wipe_item item = cut_short("d/a", 1);
	item.begun = true;
	digest_of("plain", item.sha256);
	put(root_fd, "d/a", "fresh", 1);
	memset(&calls, 0, sizeof calls);
	(void)refused("d/a", &item, "fresh");
	put(root_fd, "d/a", "fresher", 1);
	(void)refused("d/a", &item, "fresher");
}

/* One byte of the stream is there by chance once in 256: that proves nothing. */
static void needs_more_than_one_byte_of_the_stream(void **state) {
	char text[256], one[2] = {0};

	(void)state;
	struct wipe_item item = cut_short("d/a", 1);
	get(root_fd, "d/a", text);
	one[0] = text[0];
	int fd = openat(root_fd, "d/a", O_WRONLY | O_TRUNC | O_CLOEXEC);
	assert_int_equal(write(fd, one, 1), 1);
	assert_int_equal(close(fd), 0);
	item.begun = true;
	item.want.size = 1;
	memset(&calls, 0, sizeof calls);
	wipe_all(&item, 1);
	must_be(&item, WIPE_REPLACED, NULL);
	assert_int_equal(calls.pwrites, 0);
}

enum call { PWRITE, SYNCFS, UNLINKAT, FSYNC };

static unsigned *nth_of(enum call call) {
	switch (call) {
	case PWRITE:
		return &calls.fail_pwrite;
	case SYNCFS:
		return &calls.fail_syncfs;
	case UNLINKAT:
		return &calls.fail_unlinkat;
	case FSYNC:
		break;
	}
	return &calls.fail_fsync;
}

/* Three files in two directories, and the Nth call fails. */
static void stops_where_the_system_refuses(void **state) {
	static const struct {
		enum call call;
		unsigned nth;
		int sys;
		const char *text;
		bool failed[3]; /* of a, b, c */
		bool there[3];
	} cases[] = {
		{PWRITE, 1, EIO, "write", {true, false, false}, {true, false, false}},
		{PWRITE, 3, ENOSPC, "write", {false, false, true}, {false, false, true}},
		{SYNCFS, 1, EIO, "flush the overwriting", {true, true, true}, {true, true, true}},
		{UNLINKAT, 1, EPERM, "unlink", {true, false, false}, {true, false, false}},
		{UNLINKAT, 2, EIO, "unlink", {false, true, false}, {false, true, false}},
		{FSYNC, 1, EIO, "flush the directory", {true, false, true}, {false, false, false}},
		{FSYNC, 2, EIO, "flush the directory", {false, true, false}, {false, false, false}},
	};

	static const char *const paths[3] = {"d/a", "e/b", "d/c"};

	(void)state;
	assert_int_equal(mkdirat(root_fd, "e", 0700), 0);
	for (size_t i = 0; i < ARRAY_LENGTH(cases); i++) {
		struct wipe_item items[3];
		memset(&calls, 0, sizeof calls);
		for (size_t j = 0; j < 3; j++) {
			put(root_fd, paths[j], "plain", 10);
			items[j] = item_of(root_fd, paths[j]);
		}
		calls.fail_with = cases[i].sys;
		*nth_of(cases[i].call) = cases[i].nth;
		wipe_all(items, 3);
		for (size_t j = 0; j < 3; j++) {
			assert_int_equal(
				items[j].outcome, cases[i].failed[j] ? WIPE_FAILED : WIPE_DONE);
			assert_int_equal(exists(root_fd, paths[j]), cases[i].there[j]);
			if (!cases[i].failed[j])
				continue;
			assert_int_equal(items[j].err.sys, cases[i].sys);
			assert_non_null(strstr(items[j].err.text, cases[i].text));
			items[j].begun = true;
			wipe_all(&items[j], 1); /* the next try ends it */
			assert_true(items[j].outcome == WIPE_DONE ||
				(items[j].outcome == WIPE_ABSENT && !cases[i].there[j]));
			assert_false(exists(root_fd, paths[j]));
		}
	}
}

/* Wipes one file while the system does not say what stands where. */
static bool wipe_blind(struct wipe_item *item, unsigned nth, unsigned failing) {
	calls.stats = 0;
	calls.fail_stat = nth;
	calls.failing_stats = failing;
	calls.fail_with = EIO;
	wipe_all(item, 1);
	bool was = calls.stats >= nth;
	calls.failing_stats = 0;
	return was;
}

/* Which file a name has, or whether it has one, is not known: that is neither "another" nor "none". */
static void is_not_misled_by_what_it_cannot_see(void **state) {
	static const unsigned failing[] = {1, 2, 1000};
	struct wipe_item item;

	(void)state;
	for (size_t i = 0; i < ARRAY_LENGTH(failing); i++) {
		for (unsigned nth = 1;; nth++) {
			put(root_fd, "d/a", "plain", 10);
			item = item_of(root_fd, "d/a");
			if (!wipe_blind(&item, nth, failing[i]))
				break;
			if (item.outcome == WIPE_DONE) { /* one that only the medium was asked with */
				assert_int_equal(item.reasons & WIPE_BIT(RENAMED_WHILE_WIPED), 0);
			} else {
				must_be(&item, WIPE_FAILED, NULL);
				assert_int_equal(item.err.sys, EIO);
				item.begun = item.touched;
				wipe_all(&item, 1);
				assert_true(item.outcome == WIPE_DONE ||
					(item.begun && item.outcome == WIPE_ABSENT));
			}
			assert_false(exists(root_fd, "d/a"));
			assert_int_equal(names_in(root_fd, "d"), 0);
		}
		must_be(&item, WIPE_DONE, NULL);
	}
}

/* The same where a crash left the name put aside. */
static void is_not_misled_by_a_name_aside_it_cannot_see(void **state) {
	char aside[64];
	bool blind = true;

	(void)state;
	for (unsigned nth = 1; blind; nth++) {
		struct wipe_item item = put_aside(10, aside);
		item.begun = true;
		blind = wipe_blind(&item, nth, 1);
		if (item.outcome == WIPE_FAILED) {
			assert_int_equal(item.err.sys, EIO);
			wipe_all(&item, 1);
		}
		must_be(&item, WIPE_ABSENT, NULL);
		assert_int_equal(names_in(root_fd, "d"), 0);
	}
}

static void run_file(int dirfd, const char *path) {
	struct wipe_item item = item_of(dirfd, path);

	wipe_all(&item, 1);
	must_be(&item, WIPE_DONE, NULL);
}

static void overwrites_in_memory_as_well(void **state) {
	char dir[] = "/dev/shm/wipe-XXXXXX";

	(void)state;
	if (mkdtemp(dir) == NULL)
		skip();
	CLEANUP(fd_closep) int dirfd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	wipe_reasons reasons;
	assert_int_equal(storage_directory(dirfd, true, &reasons), WIPE_UNPROVEN);
	assert_int_equal(reasons, WIPE_BIT(MEMORY));
	put(dirfd, "a", "plain", 1);
	CLEANUP(fd_closep) int reader = openat(dirfd, "a", O_RDONLY | O_CLOEXEC);
	run_file(dirfd, "a");
	char text[6] = {0};
	assert_int_equal(pread(reader, text, 5, 0), 5);
	assert_string_not_equal(text, "plain");
	assert_int_equal(rmdir(dir), 0);
}

static int set_up(void **state) {
	sigset_t io;

	(void)state;
	sigemptyset(&io);
	sigaddset(&io, SIGIO); /* kept pending: start_opener() waits for it */
	(void)pthread_sigmask(SIG_BLOCK, &io, NULL);
	own_disk = disk_init(&home, "mkfs.ext4 -q -F", NULL, "");
	if (!own_disk) {
		disk_done(&home);
		(void)snprintf(home.home, sizeof home.home, "/var/tmp/wipe-XXXXXX");
		if (mkdtemp(home.home) == NULL)
			return -1;
		(void)snprintf(home.mount, sizeof home.mount, "%s/mount", home.home);
		if (mkdir(home.mount, 0700) < 0)
			return -1;
		print_message(
			"# no ext4 of its own (needs root and loop devices): levels are not compared\n");
	}
	char words[160];
	(void)snprintf(
		words, sizeof words, "find %s -mindepth 1 -delete", home.mount); /* lost+found */
	if (disk_run(words) != 0)
		return -1;
	root_fd = open(home.mount, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	return root_fd < 0 ? -1 : 0;
}

static int tear_down(void **state) {
	(void)state;
	fd_closep(&root_fd);
	disk_done(&home);
	return 0;
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, test_begin, test_end)

int main(void) {
	static const struct CMUnitTest ordinary[] = {
		TEST(wipes_a_file),
		TEST(says_absent),
		TEST(wipes_what_a_program_reads),
		TEST(goes_on_where_there_are_no_leases),
		TEST(flushes_once_for_many),
		TEST(reads_back),
		TEST(leaves_a_replaced_file),
		TEST(leaves_a_changed_file),
		TEST(leaves_a_hard_link),
		TEST(leaves_what_a_symlink_leads_to),
		TEST(leaves_what_a_directory_symlink_leads_to),
		TEST(waits_for_the_directory_of_a_begun_file),
		TEST(leaves_what_is_no_file),
		TEST(waits_for_a_writer),
		TEST(waits_for_a_mapping),
		TEST(waits_for_a_lease),
		TEST(holds_writers_off),
		TEST(holds_readers_off),
		TEST(sees_a_writer_beside_a_reader),
		TEST(holds_writers_off_beside_a_reader),
		TEST(unlinks_only_the_file_itself),
		TEST(empties_what_a_program_reads_and_another_moved),
		TEST(unlinks_no_newcomer),
		TEST(empties_what_a_symlink_replaced),
		TEST(keeps_what_may_not_be_put_aside),
		TEST(wipes_where_names_cannot_be_put_aside),
		TEST(unlinks_what_was_put_aside),
		TEST(unlinks_what_was_put_aside_when_the_name_is_taken),
		TEST(waits_for_the_file_system),
		TEST(ends_a_wipe_that_was_begun),
		TEST(begins_again_with_the_sealed_content),
		TEST(ends_a_wipe_of_which_one_sector_was_written),
		TEST(begins_again_with_a_grown_file),
		TEST(wipes_the_sealed_content_with_other_times),
		TEST(leaves_new_content_of_a_begun_file),
		TEST(needs_more_than_one_byte_of_the_stream),
		TEST(stops_where_the_system_refuses),
		TEST(is_not_misled_by_what_it_cannot_see),
		TEST(is_not_misled_by_a_name_aside_it_cannot_see),
		cmocka_unit_test(overwrites_in_memory_as_well),
	};

	return cmocka_run_group_tests_name("wipe", ordinary, set_up, tear_down);
}
