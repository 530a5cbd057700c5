/* SPDX-License-Identifier: Apache-2.0 */
#include "formats/place.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>

#include "base/check.h"
#include "base/clock.h"
#include "base/hex.h"

#define PART_SIZE 256 /* NAME_MAX and a NUL */
#define COPY_SIZE 65536
#define MADE_MAX  (1U << 20) /* folders of one bundle */
#define STEP_MAX  4000       /* bytes of a path that the kernel takes at once */

void place_init(struct place *p, int dirfd) {
	*p = (struct place){.dirfd = dirfd, .folder = BUF_INIT(PLACE_NAME_MAX), .folder_fd = -1};
}

void place_done(struct place *p) {
	fd_closep(&p->folder_fd);
	buf_done(&p->folder);
	for (size_t i = 0; i < p->made_count; i++)
		free(p->made[i].path);
	free(p->made);
	*p = (struct place){.dirfd = -1, .folder_fd = -1};
}

/* For place_undo(): "<folder><name>", of which the first `there` bytes were there before. */
static int remember(struct place *p, struct slice folder, const char *name, size_t there,
	struct place_made **ret, struct cede_error *reterr) {
	if (p->made_count == p->made_room) {
		size_t room = p->made_room == 0 ? 64 : 2 * p->made_room;
		struct place_made *made = reallocarray(p->made, room, sizeof *made);
		if (made == NULL)
			return CEDE_FAIL_MEMORY(reterr);
		p->made = made;
		p->made_room = room;
	}
	struct place_made *m = &p->made[p->made_count];
	int len = asprintf(&m->path, "%.*s%s", (int)folder.len, (const char *)folder.data, name);
	if (len < 0)
		return CEDE_FAIL_MEMORY(reterr);
	m->there = there;
	m->len = (size_t)len;
	p->made_count++;
	*ret = m;
	return CEDE_OK;
}

static void part_string(struct slice part, char out[PART_SIZE]) {
	size_t len =
		part.len < PART_SIZE ? part.len : PART_SIZE - 1; /* the manifest has checked it */

	memcpy(out, part.data, len);
	out[len] = 0;
}

/* Makes the part of folder that begins at `at`. *made: what was made last, if that is the part above. */
static int make_folder(struct place *p, int fd, struct slice folder, size_t at, const char *part,
	struct place_made **made, struct cede_error *reterr) {
	if (mkdirat(fd, part, 0700) < 0) {
		*made = NULL;
		return errno == EEXIST ? CEDE_OK : CEDE_FAIL_SYS(reterr, "make a folder");
	}
	if (*made == NULL) {
		int r = p->folders < MADE_MAX
			? remember(p, folder, "", at, made, reterr)
			: CEDE_FAIL(reterr, CEDE_ERR_INPUT, "more than %u folders", MADE_MAX);
		if (r < 0) {
			(void)unlinkat(fd, part, AT_REMOVEDIR);
			return r;
		}
	}
	(*made)->len = at + strlen(part) + 1;
	p->folders++;
	return CEDE_OK;
}

/* One folder further, or several; the descriptor takes the other's place. */
static int descend(int *fd, const char *path, struct cede_error *reterr) {
	struct cede_error err = {0};
	int inner;

	int r = file_open_beneath(*fd, path, O_RDONLY | O_DIRECTORY, &inner, &err);
	if (r < 0 && err.sys == ENOTDIR) /* a capture has it: the next bundle may fit */
		return CEDE_FAIL(reterr, CEDE_ERR_REFUSED,
			"the name of a folder of it is taken: unpack it into another folder");
	if (r < 0) {
		cede_error_within(&err, "a folder of the capture");
		if (reterr != NULL)
			*reterr = err;
		return r;
	}
	fd_closep(fd);
	*fd = inner;
	return CEDE_OK;
}

static int make_path(struct place *p, struct slice folder, int *fd, struct cede_error *reterr) {
	struct place_made *made = NULL;
	struct slice part, rest = folder;

	while (slice_cut(rest, '/', &part, &rest)) {
		char name[PART_SIZE];
		part_string(part, name);
		CEDE_TRY(make_folder(
			p, *fd, folder, (size_t)(part.data - folder.data), name, &made, reterr));
		CEDE_TRY(descend(fd, name, reterr));
	}
	return CEDE_OK;
}

/* In few calls, however deep it is. */
static int find_path(struct slice folder, int *fd, struct cede_error *reterr) {
	char path[STEP_MAX + 1];

	while (folder.len > 0) {
		size_t len = folder.len;
		if (len > STEP_MAX) { /* no part is that long */
			const uint8_t *slash = memrchr(folder.data, '/', STEP_MAX);
			require(slash != NULL);
			len = (size_t)(slash - folder.data) + 1;
		}
		memcpy(path, folder.data, len);
		path[len] = 0;
		CEDE_TRY(descend(fd, path, reterr));
		folder = slice_of(folder.data + len, folder.len - len);
	}
	return CEDE_OK;
}

/* folder is "" or ends with '/'. The descriptor is p's, until the next call. */
static int open_folder(
	struct place *p, struct slice folder, bool make, int *ret_fd, struct cede_error *reterr) {
	if (p->folder_fd >= 0 && slice_equal(folder, buf_slice(&p->folder))) {
		*ret_fd = p->folder_fd;
		return CEDE_OK;
	}
	fd_closep(&p->folder_fd);
	CLEANUP(fd_closep) int fd = -1;
	CEDE_TRY(file_open_beneath(p->dirfd, ".", O_RDONLY | O_DIRECTORY, &fd, reterr));
	CEDE_TRY(make ? make_path(p, folder, &fd, reterr) : find_path(folder, &fd, reterr));
	buf_clear(&p->folder);
	CEDE_TRY(buf_add(&p->folder, folder.data, folder.len, reterr));
	*ret_fd = p->folder_fd = CEDE_TAKE_FD(fd);
	return CEDE_OK;
}

/* Removes the last part of a path; what is left of it, with its '/'. */
static size_t remove_last(struct place *p, char *path, size_t len) {
	bool is_folder = path[len - 1] == '/';
	int fd;

	path[is_folder ? len - 1 : len] = 0;
	const char *slash = strrchr(path, '/');
	size_t left = slash == NULL ? 0 : (size_t)(slash - path) + 1;
	if (open_folder(p, slice_of(path, left), false, &fd, NULL) == CEDE_OK)
		(void)unlinkat(fd, path + left, is_folder ? AT_REMOVEDIR : 0);
	return left;
}

void place_undo(struct place *p) {
	while (p->made_count > 0) {
		struct place_made *m = &p->made[--p->made_count];
		CLEANUP(freep) char *path = m->path;

		for (size_t len = m->len; len > m->there;)
			len = remove_last(p, path, len);
	}
}

/* "<source>/<folders of path>/" */
static int folder_of(const struct manifest_entry *e, struct buf *out, struct cede_error *reterr) {
	const uint8_t *slash = memrchr(e->path.data, '/', e->path.len);

	CEDE_TRY(buf_add(out, e->source.data, e->source.len, reterr));
	CEDE_TRY(buf_add(out, "/", 1, reterr));
	return buf_add(
		out, e->path.data, slash == NULL ? 0 : (size_t)(slash - e->path.data) + 1, reterr);
}

static void last_part(const struct manifest_entry *e, char out[PART_SIZE]) {
	const uint8_t *slash = memrchr(e->path.data, '/', e->path.len);
	const uint8_t *at = slash == NULL ? e->path.data : slash + 1;

	part_string(slice_of(at, (size_t)(e->path.data + e->path.len - at)), out);
}

static void segment_name(const struct manifest_entry *e, uint32_t index, char out[PART_SIZE]) {
	char id[ID_TEXT_SIZE];

	id_print(&e->capture, id);
	(void)snprintf(out, PART_SIZE, "%s.segment-%06" PRIu32 "-of-%06" PRIu32, id, index + 1,
		e->segment_count);
}

static int nameless(int folder_fd, struct place_file *ret, struct cede_error *reterr) {
	uint8_t random[8];
	char digits[17];
	struct cede_error err;
	int fd;

	if (file_open_beneath(folder_fd, ".", O_TMPFILE | O_RDWR, &fd, &err) == CEDE_OK) {
		ret->fd = fd;
		return CEDE_OK;
	}
	if (err.sys != EOPNOTSUPP && err.sys != EISDIR && err.sys != EINVAL) {
		errno = err.sys;
		return CEDE_FAIL_SYS(reterr, "make a file");
	}
	if (getrandom(random, sizeof random, 0) != (ssize_t)sizeof random)
		return CEDE_FAIL_SYS(reterr, "random numbers");
	hex_print(random, sizeof random, digits);
	(void)snprintf(ret->temporary, sizeof ret->temporary, ".cede-%s.part", digits);
	int r = file_open_beneath(
		folder_fd, ret->temporary, O_CREAT | O_EXCL | O_RDWR, &ret->fd, reterr);
	if (r < 0)
		ret->temporary[0] = 0;
	return r;
}

static int file_new(
	struct place *p, struct slice folder, struct place_file *ret, struct cede_error *reterr) {
	CLEANUP(place_file_done) struct place_file file = PLACE_FILE_NONE;
	int fd;

	CEDE_TRY(open_folder(p, folder, true, &fd, reterr));
	file.folder_fd = fcntl(fd, F_DUPFD_CLOEXEC, 3);
	if (file.folder_fd < 0)
		return CEDE_FAIL_SYS(reterr, "make a file");
	CEDE_TRY(nameless(file.folder_fd, &file, reterr));
	if (fchmod(file.fd, 0600) < 0)
		return CEDE_FAIL_SYS(reterr, "make a file");
	*ret = file;
	file = PLACE_FILE_NONE;
	return CEDE_OK;
}

void place_file_done(struct place_file *file) {
	if (file->temporary[0] != 0)
		(void)unlinkat(file->folder_fd, file->temporary, 0);
	fd_closep(&file->fd);
	fd_closep(&file->folder_fd);
	*file = PLACE_FILE_NONE;
}

int place_file_new(struct place *p, const struct manifest_entry *e, struct place_file *ret,
	struct cede_error *reterr) {
	CLEANUP(buf_done) struct buf folder = BUF_INIT(PLACE_NAME_MAX);

	CEDE_TRY(folder_of(e, &folder, reterr));
	return file_new(p, buf_slice(&folder), ret, reterr);
}

/* Whether b holds at offset what a holds. */
static int same_content(int a, int b, uint64_t offset, bool *ret, struct cede_error *reterr) {
	uint8_t left[COPY_SIZE], right[COPY_SIZE];
	uint64_t at = 0;
	size_t n, m;

	do {
		CEDE_TRY(file_pread_full(a, left, sizeof left, at, &n, reterr));
		CEDE_TRY(file_pread_full(b, right, n, offset + at, &m, reterr));
		at += n;
		if (n != m || memcmp(left, right, n) != 0) {
			*ret = false;
			return CEDE_OK;
		}
	} while (n == sizeof left);
	*ret = true;
	return CEDE_OK;
}

/* BUSY: there is nothing under this name. 0: a plain file of that size, with fd's content at offset. */
static int compare(int folder_fd, const char *name, int fd, uint64_t offset, uint64_t size,
	struct cede_error *reterr) {
	CLEANUP(fd_closep) int there = -1;
	struct cede_error err;
	struct stat st;
	bool same = false;

	if (file_open_beneath(folder_fd, name, O_RDONLY, &there, &err) < 0) {
		if (err.sys == ENOENT)
			return CEDE_FAIL(reterr, CEDE_ERR_BUSY, "no such file");
		if (reterr != NULL)
			*reterr = err;
		return err.code;
	}
	if (fstat(there, &st) < 0)
		return CEDE_FAIL_SYS(reterr, "stat");
	if (S_ISREG(st.st_mode) && (uint64_t)st.st_size == size)
		CEDE_TRY(same_content(fd, there, offset, &same, reterr));
	if (same)
		return CEDE_OK;
	return CEDE_FAIL(reterr, CEDE_ERR_REFUSED,
		"its name is taken by other content: unpack it into another folder");
}

static int give_name(struct place_file *file, const char *name, struct cede_error *reterr) {
	char self[32];

	(void)snprintf(self, sizeof self, "/proc/self/fd/%d", file->fd);
	int r = file->temporary[0] != 0
		? linkat(file->folder_fd, file->temporary, file->folder_fd, name, 0)
		: linkat(AT_FDCWD, self, file->folder_fd, name, AT_SYMLINK_FOLLOW);
	if (r == 0)
		return CEDE_OK;
	if (errno == EEXIST)
		return CEDE_FAIL(reterr, CEDE_ERR_BUSY, "the name is taken");
	return CEDE_FAIL_SYS(reterr, "name a file");
}

/* Puts the finished file under its name; an existing file with the same content is as good. */
static int keep(struct place *p, struct place_file *file, struct slice folder, const char *name,
	struct cede_error *reterr) {
	struct place_made *made;
	struct stat st;

	int r = give_name(file, name, reterr);
	if (r == CEDE_OK) {
		r = remember(p, folder, name, folder.len, &made, reterr);
		if (r < 0)
			(void)unlinkat(file->folder_fd, name, 0);
		return r;
	}
	if (r != CEDE_ERR_BUSY)
		return r;
	if (fstat(file->fd, &st) < 0)
		return CEDE_FAIL_SYS(reterr, "stat");
	return compare(file->folder_fd, name, file->fd, 0, (uint64_t)st.st_size, reterr);
}

static int set_mtime(int fd, int64_t mtime_ns, struct cede_error *reterr) {
	int64_t ns = mtime_ns % NS_PER_SECOND;
	int64_t seconds = mtime_ns / NS_PER_SECOND;

	if (ns < 0) {
		ns += NS_PER_SECOND;
		seconds--;
	}
	const struct timespec times[2] = {
		{.tv_nsec = UTIME_OMIT}, {.tv_sec = (time_t)seconds, .tv_nsec = (long)ns}};
	if (futimens(fd, times) < 0)
		return CEDE_FAIL_SYS(reterr, "set the time of a file");
	return CEDE_OK;
}

static int keep_entry(struct place *p, const struct manifest_entry *e, struct place_file *file,
	struct cede_error *reterr) {
	CLEANUP(buf_done) struct buf folder = BUF_INIT(PLACE_NAME_MAX);
	char name[PART_SIZE];

	CEDE_TRY(set_mtime(file->fd, e->mtime_ns, reterr));
	CEDE_TRY(folder_of(e, &folder, reterr));
	last_part(e, name);
	if (e->segment_count > 1) { /* joined before? */
		int r = compare(file->folder_fd, name, file->fd, e->segment_offset, e->size, reterr);
		if (r != CEDE_ERR_BUSY)
			return r;
		segment_name(e, e->segment_index, name);
	}
	return keep(p, file, buf_slice(&folder), name, reterr);
}

/* Failures say which capture it was: by its id (I9). */
static int within_capture(int r, const struct manifest_entry *e, struct cede_error *reterr) {
	char id[ID_TEXT_SIZE];

	if (r < 0) {
		id_print(&e->capture, id);
		cede_error_within(reterr, "capture %s", id);
	}
	return r;
}

int place_file_keep(struct place *p, const struct manifest_entry *e, struct place_file *file,
	struct cede_error *reterr) {
	return within_capture(keep_entry(p, e, file, reterr), e, reterr);
}

int place_manifest(
	struct place *p, const struct id *bundle, struct slice json, struct cede_error *reterr) {
	CLEANUP(place_file_done) struct place_file file = PLACE_FILE_NONE;
	char id[ID_TEXT_SIZE], name[PART_SIZE];

	id_print(bundle, id);
	(void)snprintf(name, sizeof name, "%s.manifest.json", id);
	CEDE_TRY(file_new(p, SLICE_NONE, &file, reterr));
	CEDE_TRY(file_write_all(file.fd, json.data, json.len, reterr));
	int r = keep(p, &file, SLICE_NONE, name, reterr);
	if (r < 0)
		cede_error_within(reterr, "%s", name);
	return r;
}

static int append_file(int from, int to, struct cede_error *reterr) {
	uint8_t copy[COPY_SIZE];
	uint64_t at = 0;
	size_t n;

	do {
		CEDE_TRY(file_pread_full(from, copy, sizeof copy, at, &n, reterr));
		CEDE_TRY(file_write_all(to, copy, n, reterr));
		at += n;
	} while (n == sizeof copy);
	return CEDE_OK;
}

/* How many segments are there, from the first on. Their number in the manifest is a stranger's
 * word: no more than these are ever asked for. */
static uint32_t segments_there(int folder_fd, const struct manifest_entry *e, uint64_t *ret_size) {
	char name[PART_SIZE];
	struct stat st;
	uint32_t i;

	*ret_size = 0;
	for (i = 0; i < e->segment_count; i++) {
		segment_name(e, i, name);
		if (fstatat(folder_fd, name, &st, AT_SYMLINK_NOFOLLOW) < 0 || !S_ISREG(st.st_mode))
			break;
		*ret_size += (uint64_t)st.st_size;
	}
	return i;
}

static int join(struct place *p, const struct manifest_entry *e, struct cede_error *reterr) {
	CLEANUP(buf_done) struct buf folder = BUF_INIT(PLACE_NAME_MAX);
	CLEANUP(place_file_done) struct place_file file = PLACE_FILE_NONE;
	uint64_t size = 0;
	char name[PART_SIZE];

	CEDE_TRY(folder_of(e, &folder, reterr));
	CEDE_TRY(file_new(p, buf_slice(&folder), &file, reterr));
	if (segments_there(file.folder_fd, e, &size) < e->segment_count)
		return CEDE_OK;
	if (size != e->size)
		return CEDE_FAIL(reterr, CEDE_ERR_INPUT,
			"its segments together have another size than the capture");
	for (uint32_t i = 0; i < e->segment_count; i++) {
		CLEANUP(fd_closep) int from = -1;
		segment_name(e, i, name);
		CEDE_TRY(file_open_beneath(file.folder_fd, name, O_RDONLY, &from, reterr));
		CEDE_TRY(append_file(from, file.fd, reterr));
	}
	CEDE_TRY(set_mtime(file.fd, e->mtime_ns, reterr));
	last_part(e, name);
	return keep(p, &file, buf_slice(&folder), name, reterr);
}

int place_join(struct place *p, const struct manifest_entry *e, struct cede_error *reterr) {
	return within_capture(join(p, e, reterr), e, reterr);
}

int place_sync(struct place *p, struct cede_error *reterr) {
	int fd;

	CEDE_TRY(open_folder(p, SLICE_NONE, false, &fd, reterr));
	if (syncfs(fd) < 0)
		return CEDE_FAIL_SYS(reterr, "flush to disk");
	return CEDE_OK;
}

int place_drop_segments(struct place *p, const struct manifest_entry *e, struct cede_error *reterr) {
	CLEANUP(buf_done) struct buf folder = BUF_INIT(PLACE_NAME_MAX);
	char name[PART_SIZE];
	uint64_t size;
	struct stat st;
	int fd;

	CEDE_TRY(folder_of(e, &folder, reterr));
	CEDE_TRY(open_folder(p, buf_slice(&folder), false, &fd, reterr));
	last_part(e, name);
	if (fstatat(fd, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
		return CEDE_OK; /* not joined yet */
	/* the last one first: after a crash the rest is found again */
	for (uint32_t i = segments_there(fd, e, &size); i > 0; i--) {
		segment_name(e, i - 1, name);
		if (unlinkat(fd, name, 0) < 0 && errno != ENOENT)
			return within_capture(CEDE_FAIL_SYS(reterr, "remove a segment"), e, reterr);
	}
	return CEDE_OK;
}
