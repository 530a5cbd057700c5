/* SPDX-License-Identifier: Apache-2.0 */
#include <archive.h>
#include <archive_entry.h>
#include <fcntl.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zstd.h>

#include "base/check.h"
#include "base/clock.h"
#include "base/file.h"
#include "formats/bundle.h"
#include "tests/unit/certs/tool.h"

#define MTIME   INT64_C(1700000000123456789)
#define BIG_MAX (64U << 20)

static struct tool tool;
static size_t opened; /* calls of file_open_beneath() */

int __real_file_open_beneath(
	int dirfd, const char *path, int flags, int *ret_fd, struct cede_error *reterr);
int __wrap_file_open_beneath(
	int dirfd, const char *path, int flags, int *ret_fd, struct cede_error *reterr);

int __wrap_file_open_beneath(
	int dirfd, const char *path, int flags, int *ret_fd, struct cede_error *reterr) {
	opened++;
	return __real_file_open_beneath(dirfd, path, flags, ret_fd, reterr);
}

static int set_up(void **state) {
	(void)state;
	tool_init(&tool);
	return 0;
}

static int tear_down(void **state) {
	(void)state;
	tool_done(&tool);
	return 0;
}

struct member {
	struct slice path;
	struct slice content;
};

static int new_memory(void) {
	struct cede_error err;
	int fd = -1;

	assert_int_equal(file_memory("test", &fd, &err), 0);
	return fd;
}

static int to_fd(void *ctx, struct slice bytes, struct cede_error *reterr) {
	return file_write_all(*(const int *)ctx, bytes.data, bytes.len, reterr);
}

static void digest(struct slice content, uint8_t ret[32]) {
	assert_int_equal(EVP_Q_digest(NULL, "SHA256", NULL, content.data, content.len, ret, NULL), 1);
}

static struct manifest_entry entry_of(const struct member *m) {
	struct manifest_entry e = {.source = SLICE_LIT("faces"),
		.path = m->path,
		.size = m->content.len,
		.segment_count = 1,
		.segment_size = m->content.len,
		.mtime_ns = MTIME};

	assert_int_equal(id_make(clock_wall_ns(), &e.capture, NULL), 0);
	digest(m->content, e.sha256);
	return e;
}

static struct manifest manifest_of(const struct manifest_entry *entries, size_t count) {
	struct manifest m = {.host = SLICE_LIT("lane-1"),
		.policy_id = SLICE_LIT("p"),
		.created_ns = clock_wall_ns(),
		.entries = entries,
		.count = count};

	assert_int_equal(id_make(m.created_ns, &m.bundle, NULL), 0);
	return m;
}

static int write_bundle(const struct manifest *m, const struct member *members) {
	CLEANUP(bundle_writer_freep) struct bundle_writer *w = NULL;
	struct cede_error err;
	int fd = new_memory();

	assert_int_equal(bundle_writer_new(m, 1, to_fd, &fd, &w, &err), 0);
	for (size_t i = 0; i < m->count; i++)
		assert_int_equal(bundle_writer_add(w, &m->entries[i], members[i].content, &err), 0);
	assert_int_equal(bundle_writer_finish(w, &err), 0);
	return fd;
}

/* A new empty folder below the test's. */
static int folder(const char *name) {
	struct cede_error err;
	int fd = -1;

	assert_int_equal(tool_run(&tool, "rm", "-rf", name, NULL), 0);
	assert_int_equal(mkdirat(tool.dirfd, name, 0700), 0);
	assert_int_equal(file_open_dir(tool.dirfd, name, &fd, &err), 0);
	return fd;
}

static void assert_empty(const char *name) {
	char script[128];

	(void)snprintf(script, sizeof script, "test -z \"$(ls -A %s)\"", name);
	assert_int_equal(tool_run(&tool, "sh", "-c", script, NULL), 0);
}

/* path is relative to dirfd, any bytes. */
static void assert_file(
	int dirfd, const char *prefix, struct slice path, struct slice content, bool exact_time) {
	CLEANUP(buf_done) struct buf there = BUF_INIT(BIG_MAX);
	char name[5000];
	struct stat st;
	struct cede_error err;

	(void)snprintf(name, sizeof name, "%s%.*s", prefix, (int)path.len, (const char *)path.data);
	assert_int_equal(file_load(dirfd, name, &there, &err), 0);
	assert_true(slice_equal(buf_slice(&there), content));
	assert_int_equal(fstatat(dirfd, name, &st, AT_SYMLINK_NOFOLLOW), 0);
	assert_int_equal(st.st_mode & 07777, 0600);
	assert_int_equal(st.st_mtim.tv_sec, MTIME / NS_PER_SECOND);
	if (exact_time)
		assert_int_equal(st.st_mtim.tv_nsec, MTIME % NS_PER_SECOND);
}

static char deep[1200], part255[255], name101[101], nfd[300], non_utf8[300], fits[201];

static struct slice repeat(char *out, size_t size, const char *with) {
	for (size_t i = 0; i < size; i++)
		out[i] = with[i % strlen(with)];
	return slice_of(out, size);
}

/* Names of every kind; the same list is extracted by cede and by stock tools. */
static size_t all_names(struct member *out) {
	size_t n = 0;

	out[n++].path = SLICE_LIT("a.jpg");
	out[n++].path = SLICE_LIT("x/y/z.json");
	out[n++].path = SLICE_LIT("new\nline \"quoted\" \\ *");
	out[n++].path = SLICE_LIT("\xff\xfe\x80.jpg");
	out[n++].path = SLICE_LIT("\xc3\xa4\xe2\x82\xac.jpg");
	out[n++].path = SLICE_LIT("-rf");
	out[n++].path = SLICE_LIT("._a.jpg"); /* what Apple's tools give a meaning to */
	out[n++].path = SLICE_LIT("a=b 12");
	out[n++].path = repeat(part255, sizeof part255, "n");
	repeat(deep, sizeof deep, "dddddddd/");
	deep[sizeof deep - 1] = 'e';
	out[n++].path = slice_of(deep, sizeof deep);
	out[n++].path = repeat(name101, sizeof name101, "o");
	repeat(fits, sizeof fits, "0123456789abcdefghi/"); /* prefix and name of ustar */
	fits[sizeof fits - 1] = 'f';
	out[n++].path = slice_of(fits, sizeof fits);
	repeat(nfd, sizeof nfd, "e\xcc\x81/"); /* letters and accents apart: no tool may join them */
	nfd[sizeof nfd - 1] = 'g';
	out[n++].path = slice_of(nfd, sizeof nfd);
	repeat(non_utf8, sizeof non_utf8,
		"\xff\xc3"
		"123456/");
	out[n++].path = slice_of(non_utf8, sizeof non_utf8 - 4);
	return n;
}

static size_t examples(struct member *members, struct manifest_entry *entries, struct buf *random) {
	size_t n = all_names(members);
	uint8_t *at;

	assert_int_equal(buf_room(random, 3000000, &at, NULL), 0);
	buf_grew(random, 3000000);
	uint32_t x = 1;
	for (size_t i = 0; i < 3000000; i++)
		at[i] = (uint8_t)((x = x * 1664525 + 1013904223) >> 24);
	static const size_t sizes[] = {600, 0, 1, 511, 512, 513, 120000, 2900000};
	for (size_t i = 0; i < n; i++) {
		members[i].content = slice_of(at + i, sizes[i % ARRAY_LENGTH(sizes)]);
		entries[i] = entry_of(&members[i]);
	}
	return n;
}

static void test_unpack(void **state) {
	struct member members[32];
	struct manifest_entry entries[32];
	CLEANUP(buf_done) struct buf random = BUF_INIT(BIG_MAX);
	CLEANUP(fd_closep) int dirfd = folder("own");
	struct manifest_read *read = NULL;
	struct cede_error err = {0};
	(void)state;
	size_t n = examples(members, entries, &random);
	struct manifest m = manifest_of(entries, n);
	CLEANUP(fd_closep) int fd = write_bundle(&m, members);
	int r = bundle_unpack(fd, dirfd, &read, &err);
	if (r < 0)
		fail_msg("%s", err.text);
	assert_int_equal(manifest_peek(read)->count, n);
	manifest_read_free(read);
	for (size_t i = 0; i < n; i++)
		assert_file(dirfd, "faces/", members[i].path, members[i].content, true);
	char script[200], id[ID_TEXT_SIZE];
	id_print(&m.bundle, id);
	(void)snprintf(script, sizeof script,
		"test -s own/%s.manifest.json && test $(find own -type f -print0 | tr -dc '\\0' | wc -c) = %zu",
		id, n + 1);
	assert_int_equal(tool_run(&tool, "sh", "-c", script, NULL), 0);
	/* again: same content is accepted, nothing is doubled */
	assert_int_equal(bundle_unpack(fd, dirfd, NULL, &err), CEDE_OK);
	assert_int_equal(tool_run(&tool, "sh", "-c", script, NULL), 0);
}

static void test_stock_tools(void **state) {
	static const char *const locales[] = {"C", "C.UTF-8"};
	struct member members[32];
	struct manifest_entry entries[32];
	CLEANUP(buf_done) struct buf random = BUF_INIT(BIG_MAX);
	CLEANUP(buf_done) struct buf bundle = BUF_INIT(BIG_MAX);
	struct cede_error err;
	(void)state;
	size_t n = examples(members, entries, &random);
	struct manifest m = manifest_of(entries, n);
	CLEANUP(fd_closep) int fd = write_bundle(&m, members);
	assert_int_equal(lseek(fd, 0, SEEK_SET), 0);
	assert_int_equal(file_load_fd(fd, &bundle, &err), 0);
	tool_write(&tool, "B.zst", buf_slice(&bundle), 0600);
	assert_int_equal(tool_run(&tool, "zstd", "-tq", "B.zst", NULL), 0);
	for (size_t l = 0; l < ARRAY_LENGTH(locales); l++) {
		char script[200];
		CLEANUP(fd_closep) int dirfd = folder("stock");
		(void)snprintf(script, sizeof script,
			"zstd -dc B.zst | LC_ALL=%s tar x -C stock && "
			"test $(find stock -type f -print0 | tr -dc '\\0' | wc -c) = %zu",
			locales[l], n + 1);
		assert_int_equal(tool_run(&tool, "sh", "-c", script, NULL), 0);
		for (size_t i = 0; i < n; i++)
			assert_file(dirfd, "faces/", members[i].path, members[i].content, false);
	}
}

static void test_every_damage_is_refused_and_taken_back(void **state) {
	struct member members[] = {{SLICE_LIT("a.jpg"), SLICE_LIT("picture")},
		{SLICE_LIT("d/a.json"), SLICE_LIT("{\"plate\": 1}")}};
	struct manifest_entry entries[] = {entry_of(&members[0]), entry_of(&members[1])};
	struct manifest m = manifest_of(entries, 2);
	CLEANUP(fd_closep) int fd = write_bundle(&m, members);
	CLEANUP(buf_done) struct buf bundle = BUF_INIT(BIG_MAX);
	CLEANUP(fd_closep) int dirfd = folder("damage");
	struct cede_error err;
	(void)state;
	assert_int_equal(lseek(fd, 0, SEEK_SET), 0);
	assert_int_equal(file_load_fd(fd, &bundle, &err), 0);
	size_t accepted = 0;
	for (size_t i = 0; i < bundle.len; i += 3) {
		CLEANUP(fd_closep) int bad = new_memory();
		bundle.data[i] ^= 0x10;
		assert_int_equal(file_write_all(bad, bundle.data, bundle.len, &err), 0);
		bundle.data[i] ^= 0x10;
		/* damage to bits without meaning (times in tar headers) may pass; then all is there */
		if (bundle_unpack(bad, dirfd, NULL, &err) == CEDE_OK) {
			accepted++;
			assert_file(dirfd, "faces/", members[0].path, members[0].content, true);
			assert_file(dirfd, "faces/", members[1].path, members[1].content, true);
			CLEANUP(fd_closep) int again = folder("damage");
			assert_int_equal(dup2(again, dirfd), dirfd);
		} else {
			assert_empty("damage");
		}
	}
	assert_true(accepted < bundle.len / 30);
	for (size_t len = 0; len + 4 < bundle.len; len += 5) {
		CLEANUP(fd_closep) int bad = new_memory();
		assert_int_equal(file_write_all(bad, bundle.data, len, &err), 0);
		assert_int_not_equal(bundle_unpack(bad, dirfd, NULL, &err), CEDE_OK);
		assert_empty("damage");
	}
}

static void test_existing_files_win(void **state) {
	struct member members[] = {{SLICE_LIT("new.jpg"), SLICE_LIT("one")},
		{SLICE_LIT("d/PLATE.jpg"), SLICE_LIT("two")}};
	struct manifest_entry entries[] = {entry_of(&members[0]), entry_of(&members[1])};
	struct manifest m = manifest_of(entries, 2);
	CLEANUP(fd_closep) int fd = write_bundle(&m, members);
	static const char *const obstacles[] = {
		"mkdir -p taken/faces/d; printf TWO >taken/faces/d/PLATE.jpg",
		"mkdir -p taken/faces/d; ln -s ../../../victim taken/faces/d/PLATE.jpg",
		"mkdir -p taken/faces/d; ln -s /nowhere taken/faces/d/PLATE.jpg",
		"mkdir -p taken/faces; ln -s ../../outside taken/faces/d",
		"mkdir -p taken; ln -s ../outside taken/faces", "mkdir -p taken/faces/d/PLATE.jpg",
		"mkdir -p taken/faces/d; mkfifo taken/faces/d/PLATE.jpg",
		"mkdir -p taken/faces; printf x >taken/faces/d"};
	(void)state;
	assert_int_equal(tool_run(&tool, "sh", "-c", "mkdir outside; printf two >victim", NULL), 0);
	for (size_t i = 0; i < ARRAY_LENGTH(obstacles); i++) {
		CLEANUP(fd_closep) int dirfd = folder("taken");
		struct cede_error err = {0};
		assert_int_equal(tool_run(&tool, "sh", "-c", obstacles[i], NULL), 0);
		assert_int_equal(tool_run(&tool, "sh", "-c", "find taken | sort >before", NULL), 0);
		int r = bundle_unpack(fd, dirfd, NULL, &err);
		if (r == CEDE_OK)
			fail_msg("accepted: %s", obstacles[i]);
		assert_null(strstr(err.text, "PLATE")); /* I9 */
		assert_int_equal(
			tool_run(&tool, "sh", "-c",
				"find taken | sort | cmp - before && test -z \"$(ls -A outside)\" && "
				"test $(cat victim) = two",
				NULL),
			0);
	}
}

/* Tars that a manifest does not cover, made by another hand. */
struct evil {
	const char *what;
	const char *name; /* of the member */
	const char *content;
	const char *link;
	unsigned type;
	bool twice;
};

static int evil_bundle(const struct manifest *m, const struct evil *evil) {
	CLEANUP(buf_done) struct buf json = BUF_INIT(MANIFEST_SIZE_MAX);
	struct cede_error err;
	int fd = new_memory();
	struct archive *a = archive_write_new();

	assert_int_equal(manifest_write(m, &json, &err), 0);
	assert_int_equal(archive_write_set_format_pax_restricted(a), ARCHIVE_OK);
	assert_int_equal(archive_write_add_filter_zstd(a), ARCHIVE_OK);
	assert_int_equal(archive_write_open_fd(a, fd), ARCHIVE_OK);
	for (int i = 0; i < (evil->twice ? 3 : 2); i++) {
		struct archive_entry *e = archive_entry_new();
		const char *content = i == 0 ? (const char *)json.data : evil->content;
		size_t len = i == 0 ? json.len : strlen(content);
		archive_entry_set_pathname(e, i == 0 ? MANIFEST_NAME : evil->name);
		archive_entry_set_filetype(e, i == 0 ? AE_IFREG : evil->type);
		archive_entry_set_perm(e, 0644);
		if (i > 0 && evil->link != NULL && evil->type == AE_IFLNK)
			archive_entry_set_symlink(e, evil->link);
		else if (i > 0 && evil->link != NULL)
			archive_entry_set_hardlink(e, evil->link);
		else
			archive_entry_set_size(e, (la_int64_t)len);
		assert_int_equal(archive_write_header(a, e), ARCHIVE_OK);
		if (archive_entry_size(e) > 0)
			assert_int_equal(archive_write_data(a, content, len), len);
		archive_entry_free(e);
	}
	assert_int_equal(archive_write_close(a), ARCHIVE_OK);
	assert_int_equal(archive_write_free(a), ARCHIVE_OK);
	return fd;
}

static void test_evil_tars(void **state) {
	static const struct evil cases[] = {
		{"good", "faces/a.jpg", "good", NULL, AE_IFREG, false},
		{"up", "../a.jpg", "good", NULL, AE_IFREG, false},
		{"up inside", "faces/../../a.jpg", "good", NULL, AE_IFREG, false},
		{"absolute", "/tmp/cede-evil", "good", NULL, AE_IFREG, false},
		{"other name", "faces/b.jpg", "good", NULL, AE_IFREG, false},
		{"dot", "./faces/a.jpg", "good", NULL, AE_IFREG, false},
		{"slash behind", "faces/a.jpg/", "good", NULL, AE_IFREG, false},
		{"other content", "faces/a.jpg", "evil", NULL, AE_IFREG, false},
		{"other size", "faces/a.jpg", "good and more", NULL, AE_IFREG, false},
		{"empty", "faces/a.jpg", "", NULL, AE_IFREG, false},
		{"symlink", "faces/a.jpg", "good", "/etc/passwd", AE_IFLNK, false},
		{"hard link", "faces/a.jpg", "good", "manifest.json", AE_IFREG, false},
		{"folder", "faces/a.jpg", "", NULL, AE_IFDIR, false},
		{"FIFO", "faces/a.jpg", "", NULL, AE_IFIFO, false},
		{"device", "faces/a.jpg", "", NULL, AE_IFCHR, false},
		{"twice", "faces/a.jpg", "good", NULL, AE_IFREG, true},
	};
	struct member member = {SLICE_LIT("a.jpg"), SLICE_LIT("good")};
	struct manifest_entry entry = entry_of(&member);
	struct manifest m = manifest_of(&entry, 1);
	(void)state;
	for (size_t i = 0; i < ARRAY_LENGTH(cases); i++) {
		CLEANUP(fd_closep) int dirfd = folder("evil");
		CLEANUP(fd_closep) int fd = evil_bundle(&m, &cases[i]);
		struct cede_error err = {0};
		int r = bundle_unpack(fd, dirfd, NULL, &err);
		if (r != (i == 0 ? CEDE_OK : CEDE_ERR_INPUT))
			fail_msg("%s: %d %s", cases[i].what, r, err.text);
		if (i > 0)
			assert_empty("evil");
		assert_int_equal(access("/tmp/cede-evil", F_OK), -1);
	}
}

static void test_not_a_bundle(void **state) {
	CLEANUP(fd_closep) int dirfd = folder("none");
	static const char *const texts[] = {"", "x", "\x28\xb5\x2f\xfd"};
	(void)state;
	for (size_t i = 0; i < ARRAY_LENGTH(texts); i++) {
		CLEANUP(fd_closep) int fd = new_memory();
		struct cede_error err;
		assert_int_equal(file_write_all(fd, texts[i], strlen(texts[i]), &err), 0);
		assert_int_equal(bundle_unpack(fd, dirfd, NULL, &err), CEDE_ERR_INPUT);
		assert_empty("none");
	}
}

#define SEGMENTS 3

/* One segment a bundle, as the agent sends a large capture. */
static int segment_bundle(struct manifest_entry whole, struct slice content, uint32_t index) {
	size_t step = content.len / SEGMENTS;
	size_t from = index * step, to = index == SEGMENTS - 1 ? content.len : from + step;
	struct member member = {whole.path, slice_of(content.data + from, to - from)};

	whole.segment_index = index;
	whole.segment_count = SEGMENTS;
	whole.segment_offset = from;
	whole.segment_size = to - from;
	digest(member.content, whole.sha256);
	struct manifest m = manifest_of(&whole, 1);
	return write_bundle(&m, &member);
}

static void test_segments(void **state) {
	static const uint32_t orders[][SEGMENTS] = {{0, 1, 2}, {2, 1, 0}, {1, 2, 0}};
	static char long_name[255];
	CLEANUP(buf_done) struct buf random = BUF_INIT(BIG_MAX);
	struct member members[32];
	struct manifest_entry entries[32];
	(void)state;
	(void)examples(members, entries, &random);
	const struct slice paths[] = {SLICE_LIT("d/video.mp4"), repeat(long_name, 255, "v")};
	for (size_t i = 0; i < ARRAY_LENGTH(orders) * ARRAY_LENGTH(paths); i++) {
		const uint32_t *order = orders[i % ARRAY_LENGTH(orders)];
		struct member whole = {paths[i / ARRAY_LENGTH(orders)], buf_slice(&random)};
		struct manifest_entry e = entry_of(&whole);
		CLEANUP(fd_closep) int dirfd = folder("segments");
		struct cede_error err = {0};
		for (size_t k = 0; k < SEGMENTS; k++) {
			CLEANUP(fd_closep) int fd = segment_bundle(e, whole.content, order[k]);
			if (bundle_unpack(fd, dirfd, NULL, &err) != CEDE_OK)
				fail_msg("%s", err.text);
			/* again changes nothing, before and after the joining */
			if (bundle_unpack(fd, dirfd, NULL, &err) != CEDE_OK)
				fail_msg("%s", err.text);
			char script[100];
			(void)snprintf(script, sizeof script,
				"test $(find segments -name '*.segment-*' | wc -l) = %zu",
				k == SEGMENTS - 1 ? 0 : k + 1);
			assert_int_equal(tool_run(&tool, "sh", "-c", script, NULL), 0);
		}
		assert_file(dirfd, "faces/", whole.path, whole.content, true);
	}
}

/* A capture that was replaced half-way: its segments never end up in the other one's file. */
static void test_segments_of_two_captures_never_mix(void **state) {
	struct member old = {SLICE_LIT("v.mp4"), SLICE_LIT("aaaaaaaaa")};
	struct member new = {SLICE_LIT("v.mp4"), SLICE_LIT("bbbbbbbbb")};
	struct manifest_entry first = entry_of(&old), second = entry_of(&new);
	CLEANUP(fd_closep) int dirfd = folder("mixed");
	struct cede_error err;
	(void)state;
	CLEANUP(fd_closep) int a0 = segment_bundle(first, old.content, 0);
	CLEANUP(fd_closep) int b0 = segment_bundle(second, new.content, 0);
	CLEANUP(fd_closep) int b1 = segment_bundle(second, new.content, 1);
	CLEANUP(fd_closep) int b2 = segment_bundle(second, new.content, 2);
	CLEANUP(fd_closep) int a1 = segment_bundle(first, old.content, 1);
	assert_int_equal(bundle_unpack(a0, dirfd, NULL, &err), CEDE_OK);
	assert_int_equal(bundle_unpack(b1, dirfd, NULL, &err), CEDE_OK);
	assert_int_equal(bundle_unpack(b2, dirfd, NULL, &err), CEDE_OK);
	assert_int_equal(bundle_unpack(b0, dirfd, NULL, &err), CEDE_OK);
	assert_file(dirfd, "faces/", new.path, new.content, true);
	assert_int_equal(bundle_unpack(a1, dirfd, NULL, &err), CEDE_ERR_REFUSED);
	assert_file(dirfd, "faces/", new.path, new.content, true);
}

static int unpack_one(int dirfd, const char *path, struct cede_error *err) {
	struct member member = {slice_str(path), SLICE_LIT("x")};
	struct manifest_entry entry = entry_of(&member);
	struct manifest m = manifest_of(&entry, 1);
	CLEANUP(fd_closep) int fd = write_bundle(&m, &member);

	return bundle_unpack(fd, dirfd, NULL, err);
}

/* A capture where another has a folder, and the other way about: this bundle's matter, not the disk's. */
static void test_file_and_folder_of_one_name(void **state) {
	CLEANUP(fd_closep) int dirfd = folder("clash");
	struct cede_error err;
	(void)state;
	assert_int_equal(unpack_one(dirfd, "a", &err), CEDE_OK);
	assert_int_equal(unpack_one(dirfd, "b/c/d", &err), CEDE_OK);
	assert_int_equal(unpack_one(dirfd, "a/b", &err), CEDE_ERR_REFUSED);
	assert_int_equal(unpack_one(dirfd, "b/c", &err), CEDE_ERR_REFUSED);
	assert_int_equal(unpack_one(dirfd, "b/c/e", &err), CEDE_OK);
}

#define DEEP_ONES 4
#define DEEP      2000

/* Folders without end, and at the end a member that is none: all is taken back but what was there. */
static void test_deep_folders_are_taken_back(void **state) {
	static char paths[DEEP_ONES][2 * DEEP + 10];
	struct member members[DEEP_ONES];
	struct manifest_entry entries[DEEP_ONES];
	CLEANUP(fd_closep) int dirfd = folder("deep");
	struct cede_error err;
	(void)state;
	assert_int_equal(unpack_one(dirfd, "00/a/a/kept", &err), CEDE_OK);
	for (size_t i = 0; i < DEEP_ONES; i++) {
		int n = snprintf(paths[i], sizeof paths[i], "%02zu", i);
		for (size_t k = 0; k < DEEP; k++)
			n += snprintf(paths[i] + n, sizeof paths[i] - (size_t)n, "/a");
		members[i] = (struct member){slice_str(paths[i]), SLICE_LIT("x")};
		entries[i] = entry_of(&members[i]);
	}
	entries[DEEP_ONES - 1].sha256[0] ^= 1;
	struct manifest m = manifest_of(entries, DEEP_ONES);
	CLEANUP(fd_closep) int fd = write_bundle(&m, members);
	opened = 0;
	assert_int_equal(bundle_unpack(fd, dirfd, NULL, &err), CEDE_ERR_INPUT);
	assert_true(opened >= (size_t)DEEP_ONES * DEEP);
	assert_true(opened < (size_t)5 * DEEP_ONES * DEEP); /* not the square of the depth */
	/* the manifest of the first, and "faces/00/a/a/kept" */
	assert_int_equal(
		tool_run(&tool, "sh", "-c", "test $(find deep -mindepth 1 | wc -l) = 6", NULL), 0);
}

#define HOSTILE 2000

/* A manifest that claims a million segments of each of its captures, all joined already. */
static void test_many_segments_that_are_none(void **state) {
	static struct member members[HOSTILE + 1];
	static struct manifest_entry entries[HOSTILE + 1];
	CLEANUP(fd_closep) int dirfd = folder("hostile");
	struct cede_error err;
	(void)state;
	members[0] = (struct member){SLICE_LIT("v.mp4"), SLICE_LIT("v")};
	entries[0] = entry_of(&members[0]);
	for (size_t i = 1; i <= HOSTILE; i++) {
		members[i] = (struct member){SLICE_LIT("v.mp4"), SLICE_LIT("")};
		entries[i] = entry_of(&members[i]);
		entries[i].size = entries[i].segment_offset = 1;
		entries[i].segment_count = MANIFEST_SEGMENTS_MAX;
		entries[i].segment_index = MANIFEST_SEGMENTS_MAX - 1;
	}
	struct manifest m = manifest_of(entries, HOSTILE + 1);
	CLEANUP(fd_closep) int fd = write_bundle(&m, members);
	if (bundle_unpack(fd, dirfd, NULL, &err) != CEDE_OK)
		fail_msg("%s", err.text);
	assert_int_equal(
		tool_run(&tool, "sh", "-c", "test $(find hostile -type f | wc -l) = 2", NULL), 0);
}

static int no_sink(void *ctx, struct slice bytes, struct cede_error *reterr) {
	(void)ctx;
	(void)bytes;
	return CEDE_FAIL(reterr, CEDE_ERR_BUSY, "no room");
}

static void test_writer_keeps_to_the_manifest(void **state) {
	struct member members[] = {
		{SLICE_LIT("a"), SLICE_LIT("one")}, {SLICE_LIT("b"), SLICE_LIT("two")}};
	struct manifest_entry entries[] = {entry_of(&members[0]), entry_of(&members[1])};
	struct manifest m = manifest_of(entries, 2);
	CLEANUP(bundle_writer_freep) struct bundle_writer *w = NULL;
	CLEANUP(fd_closep) int fd = new_memory();
	struct cede_error err;
	(void)state;
	assert_int_equal(bundle_writer_new(&m, 1, to_fd, &fd, &w, &err), 0);
	assert_int_equal(bundle_writer_add(w, &entries[1], members[1].content, &err), CEDE_ERR_BUG);
	assert_int_equal(bundle_writer_add(w, &entries[0], SLICE_LIT("on"), &err), CEDE_ERR_BUG);
	assert_int_equal(bundle_writer_add(w, &entries[0], members[0].content, &err), 0);
	assert_int_equal(bundle_writer_finish(w, &err), CEDE_ERR_BUG);
	assert_int_equal(bundle_writer_add(w, &entries[1], members[1].content, &err), 0);
	assert_int_equal(bundle_writer_add(w, &entries[1], members[1].content, &err), CEDE_ERR_BUG);
	assert_int_equal(bundle_writer_finish(w, &err), 0);
	bundle_writer_freep(&w);
	/* the sink's failure comes back as it is */
	assert_int_equal(bundle_writer_new(&m, 1, no_sink, NULL, &w, &err), 0);
	assert_int_equal(bundle_writer_add(w, &entries[0], members[0].content, &err), 0);
	assert_int_equal(bundle_writer_add(w, &entries[1], members[1].content, &err), 0);
	assert_int_equal(bundle_writer_finish(w, &err), CEDE_ERR_BUSY);
	assert_string_equal(err.text, "no room");
}

int main(void) {
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_unpack),
		cmocka_unit_test(test_stock_tools),
		cmocka_unit_test(test_every_damage_is_refused_and_taken_back),
		cmocka_unit_test(test_existing_files_win), cmocka_unit_test(test_evil_tars),
		cmocka_unit_test(test_not_a_bundle), cmocka_unit_test(test_segments),
		cmocka_unit_test(test_segments_of_two_captures_never_mix),
		cmocka_unit_test(test_many_segments_that_are_none),
		cmocka_unit_test(test_deep_folders_are_taken_back),
		cmocka_unit_test(test_file_and_folder_of_one_name),
		cmocka_unit_test(test_writer_keeps_to_the_manifest)};

	return cmocka_run_group_tests_name("bundle", tests, set_up, tear_down);
}
