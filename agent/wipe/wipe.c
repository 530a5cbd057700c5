/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/wipe/wipe.h"

#include <fcntl.h>
#include <openssl/evp.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "agent/wipe/media.h"
#include "base/check.h"
#include "base/cleanup.h"

#define OPEN_MOST   512        /* files and their directories open at once */
#define STREAM      (1U << 20) /* bytes of the stream that are made; it repeats */
#define BLOCK       4096U
#define FLUSHES     16  /* file systems in one batch; more: the rest is tried again */
#define MATCH_LEAST 16U /* bytes of the stream that can't be there by chance */

/* A directory that has names of this batch. */
struct parent {
	int source_fd;
	const char *path; /* the first item's; its first length bytes are the directory */
	size_t length;
	int fd;
	bool changed; /* a name was taken out */
};

struct open_file {
	struct wipe_item *item;
	int fd;
	struct parent *parent;
	const char *name;
	bool leased;
	bool readers;               /* no lease, since programs have it open: a writer may come */
	struct file_identity after; /* as our overwriting left it */
	struct media_extents *before;
};

struct batch {
	struct open_file files[OPEN_MOST];
	size_t count;
	struct parent parents[OPEN_MOST];
	size_t parent_count;
	struct media_mount mount;
	uint8_t *stream;
	uint8_t *scratch;
};

const char *wipe_level_name(enum wipe_level level) {
	static const char *const names[] = {"removed", "unproven", "overwritten-current"};

	return names[level];
}

/* AES-256-CTR under a key that is no secret: incompressible, and the same for ever, so that a block
 * of it is known again after a crash. */
static int make_stream(uint8_t *out, struct cede_error *reterr) {
	static const uint8_t key[32] = "cede wipes with this fixed key.";
	static const uint8_t iv[16] = {0};
	EVP_CIPHER_CTX *ctx = EVP_CIPHER_CTX_new();
	int n = 0;

	memset(out, 0, STREAM);
	bool ok = ctx != NULL && EVP_EncryptInit_ex2(ctx, EVP_aes_256_ctr(), key, iv, NULL) == 1 &&
		EVP_EncryptUpdate(ctx, out, &n, out, (int)STREAM) == 1 && n == (int)STREAM;
	EVP_CIPHER_CTX_free(ctx);
	return ok ? CEDE_OK : CEDE_FAIL(reterr, CEDE_ERR_CRYPTO, "AES-256-CTR failed");
}

static enum wipe_outcome failed(struct wipe_item *item, const struct cede_error *err) {
	item->err = *err;
	return WIPE_FAILED;
}

static enum wipe_outcome from_open(struct wipe_item *item, const struct cede_error *err) {
	if (err->sys == ENOENT || err->sys == ENOTDIR)
		return WIPE_ABSENT;
	if (err->code == CEDE_ERR_REFUSED || err->sys == EISDIR || err->sys == ENXIO)
		return WIPE_REPLACED; /* a symlink, mount point, directory or FIFO stands there now */
	if (err->sys == EAGAIN || err->sys == ETXTBSY)
		return WIPE_BUSY; /* a lease of another program, or being executed */
	return failed(item, err);
}

/* ---- is it still the file that was sealed? */

static uint64_t rounded(uint64_t size) {
	return (size + BLOCK - 1) / BLOCK * BLOCK;
}

/* The content of a file whose wipe was cut short: as sealed, or with our stream in it. */
static bool is_ours(const struct batch *b, const struct open_file *f, uint64_t size) {
	EVP_MD_CTX *md = EVP_MD_CTX_new();
	uint8_t digest[32];
	bool stream_seen = false;
	bool ok = md != NULL && EVP_DigestInit_ex2(md, EVP_sha256(), NULL) == 1;

	for (uint64_t at = 0; ok && at < size; at += STREAM) {
		size_t want = size - at < STREAM ? (size_t)(size - at) : STREAM;
		size_t got;
		if (file_pread_full(f->fd, b->scratch, want, at, &got, NULL) < 0 || got != want)
			ok = false;
		ok = ok && EVP_DigestUpdate(md, b->scratch, want) == 1;
		for (size_t i = 0; ok && i < want; i += BLOCK) {
			size_t n = want - i < BLOCK ? want - i : BLOCK;
			stream_seen = stream_seen ||
				(n >= MATCH_LEAST && memcmp(b->scratch + i, b->stream + i, n) == 0);
		}
	}
	ok = ok && EVP_DigestFinal_ex(md, digest, NULL) == 1;
	EVP_MD_CTX_free(md);
	if (!ok)
		return false;
	return stream_seen || size == 0 ||
		(size == f->item->want.size && memcmp(digest, f->item->sha256, 32) == 0);
}

static bool is_the_file(const struct batch *b, const struct open_file *f, const char **ret_reason,
	bool *ret_untouched) {
	const struct wipe_item *item = f->item;
	struct stat st;

	if (fstat(f->fd, &st) < 0 || !S_ISREG(st.st_mode))
		return false;
	struct file_identity now = file_identity_of(&st);
	if (st.st_nlink != 1) {
		*ret_reason = "hard-link";
		return false;
	}
	*ret_untouched = file_identity_equal(&now, &item->want);
	if (*ret_untouched)
		return true;
	if (!item->begun || now.dev != item->want.dev || now.ino != item->want.ino)
		return false;
	if (now.size != item->want.size && now.size != rounded(item->want.size))
		return false;
	return is_ours(b, f, now.size);
}

/* ---- alone with the file */

/* Opens it for reading and holds it if no program has it open for writing: a read lease is granted
 * only then. EAGAIN in *ret_sys: there is a writer; another number: no leases here. */
static void hold_for_reading(const struct wipe_item *item, int *ret_fd, int *ret_sys) {
	*ret_sys = 0;
	*ret_fd = -1;
	if (file_open_beneath(item->source_fd, item->path, O_RDONLY, ret_fd, NULL) < 0)
		return; /* the open for writing will say why */
	if (fcntl(*ret_fd, F_SETLEASE, F_RDLCK) < 0)
		*ret_sys = errno;
}

/* Asked on a descriptor of its own and before ours for writing is there: that one would count. */
static bool has_writer(const struct wipe_item *item) {
	CLEANUP(fd_closep) int fd = -1;
	int sys;

	hold_for_reading(item, &fd, &sys);
	return sys == EAGAIN;
}

/* What has the name now, before anything is opened: opening a FIFO or a device has effects. */
static enum wipe_outcome look_at_name(const struct open_file *f) {
	struct wipe_item *item = f->item;
	struct cede_error err = {0};
	struct stat st;

	if (fstatat(f->parent->fd, f->name, &st, AT_SYMLINK_NOFOLLOW) < 0) {
		(void)CEDE_FAIL_SYS(&err, "stat");
		return from_open(item, &err);
	}
	if (!S_ISREG(st.st_mode) || st.st_dev != item->want.dev || st.st_ino != item->want.ino)
		return WIPE_REPLACED;
	return WIPE_DONE;
}

/* A write lease shuts every other program out until the descriptor is closed: who opens the file waits,
 * and finds it gone. A program that only reads it must not keep a capture on the disk for ever: then
 * there is no lease, and remove_name() asks again for writers. Order: no writer, open, lease, compare. */
static enum wipe_outcome open_alone(struct batch *b, struct open_file *f) {
	struct wipe_item *item = f->item;
	struct cede_error err = {0};
	bool untouched = false;

	if (has_writer(item))
		return WIPE_BUSY;
	if (file_open_beneath(item->source_fd, item->path, O_RDWR, &f->fd, &err) < 0)
		return from_open(item, &err);
	f->leased = fcntl(f->fd, F_SETLEASE, F_WRLCK) == 0;
	f->readers = !f->leased && errno == EAGAIN;
	if (!is_the_file(b, f, &item->reason, &untouched))
		return WIPE_REPLACED;
	return item->held && untouched ? WIPE_HELD : WIPE_DONE /* so far */;
}

/* The directory that has the name, so that the unlinking can't be led astray. */
static enum wipe_outcome open_parent(struct batch *b, struct open_file *f) {
	struct wipe_item *item = f->item;
	const char *slash = strrchr(item->path, '/');
	size_t length = slash == NULL ? 0 : (size_t)(slash - item->path);
	struct cede_error err = {0};

	f->name = slash == NULL ? item->path : slash + 1;
	for (size_t i = b->parent_count; i > 0; i--) { /* the last is the likeliest */
		struct parent *known = &b->parents[i - 1];
		if (known->source_fd == item->source_fd && known->length == length &&
			memcmp(known->path, item->path, length) == 0) {
			f->parent = known;
			return WIPE_DONE;
		}
	}
	CLEANUP(freep) char *path = length == 0 ? strdup(".") : strndup(item->path, length);
	if (path == NULL) {
		(void)CEDE_FAIL_MEMORY(&err);
		return failed(item, &err);
	}
	int fd = -1;
	int r = file_open_beneath(item->source_fd, path, O_RDONLY | O_DIRECTORY, &fd, &err);
	if (r < 0 && err.sys == ENOTDIR) /* a file or a symlink: seen on the way to the name */
		r = file_open_beneath(item->source_fd, item->path, O_RDONLY, &fd, &err);
	else if (r == CEDE_OK) {
		f->parent = &b->parents[b->parent_count++];
		*f->parent = (struct parent){
			.source_fd = item->source_fd, .path = item->path, .length = length, .fd = fd};
		return WIPE_DONE;
	}
	fd_closep(&fd); /* it was put right meanwhile */
	return r == CEDE_OK ? WIPE_BUSY : from_open(item, &err);
}

/* ---- the three steps of a batch: overwrite all, flush once, unlink all */

static enum wipe_outcome overwrite(struct batch *b, struct open_file *f) {
	struct wipe_item *item = f->item;
	struct cede_error err = {0};
	/* whole blocks: what stands behind the end in the last block goes as well */
	uint64_t size = rounded(item->want.size);

	if (media_look(f->fd, &b->mount, &f->before, &item->reason, &err) < 0)
		return failed(item, &err);
	for (uint64_t at = 0; at < size; at += STREAM) {
		size_t n = size - at < STREAM ? (size_t)(size - at) : STREAM;
		if (file_pwrite_all(f->fd, b->stream, n, at, &err) < 0)
			return failed(item, &err);
	}
	struct stat st;
	if (fstat(f->fd, &st) < 0) {
		(void)CEDE_FAIL_SYS(&err, "stat");
		return failed(item, &err);
	}
	f->after = file_identity_of(&st);
	return WIPE_DONE;
}

static void begin_file(struct batch *b, struct wipe_item *item) {
	struct open_file *f = &b->files[b->count];

	*f = (struct open_file){.item = item, .fd = -1};
	item->reason = "";
	item->level = WIPE_UNPROVEN;
	item->outcome = open_parent(b, f);
	if (item->outcome == WIPE_DONE)
		item->outcome = look_at_name(f);
	if (item->outcome == WIPE_DONE)
		item->outcome = open_alone(b, f);
	if (item->outcome == WIPE_DONE)
		item->outcome = overwrite(b, f);
	if (item->outcome == WIPE_DONE) {
		b->count++;
		return;
	}
	fd_closep(&f->fd);
	media_extents_free(f->before);
}

/* One flush for each file system. A flush that failed may have lost what it was to write: the items
 * of that file system stay and are tried again. */
static void flush(struct batch *b) {
	struct {
		uint64_t dev;
		int sys;
	} done[FLUSHES];

	size_t n = 0;

	for (size_t i = 0; i < b->count; i++) {
		struct wipe_item *item = b->files[i].item;
		size_t at = 0;
		while (at < n && done[at].dev != item->want.dev)
			at++;
		if (at == n && n < FLUSHES) {
			done[n].dev = item->want.dev;
			done[n++].sys = syncfs(b->files[i].fd) < 0 ? errno : 0;
		}
		if (at < n && done[at].sys == 0)
			continue;
		cede_error_set_sys(
			&item->err, at < n ? done[at].sys : EAGAIN, "flush the overwriting");
		item->outcome = WIPE_FAILED;
	}
}

/* Whether the content is not as our overwriting left it. A lease can be broken by force after 45 seconds
 * (/proc/sys/fs/lease-break-time); then a writer may have been here. ctime may differ: a rename. */
static bool is_changed(const struct open_file *f) {
	struct stat st;

	if (fstat(f->fd, &st) < 0)
		return f->fd >= 0;
	struct file_identity now = file_identity_of(&st);
	return now.ino == f->after.ino &&
		(now.size != f->after.size || now.mtime_ns != f->after.mtime_ns);
}

/* A writer that waits for our lease has the file in its hands already: with the name gone, what it
 * writes would be lost. It gets the emptied file, and its capture comes to us as a new one. */
static bool writer_waits(const struct open_file *f) {
	return f->leased && fcntl(f->fd, F_GETLEASE) == F_UNLCK;
}

/* Without a lease a writer may have come that has not written yet. Our own descriptor for writing
 * would count as one, so it goes; the one for reading holds later writers off until the name is gone. */
static bool writer_came(struct open_file *f) {
	int sys;

	if (!f->readers)
		return false;
	fd_closep(&f->fd);
	hold_for_reading(f->item, &f->fd, &sys);
	return sys == EAGAIN || is_changed(f);
}

static enum wipe_outcome remove_name(struct open_file *f) {
	struct wipe_item *item = f->item;
	struct stat st;

	if (item->reason[0] == 0)
		item->reason = media_compare(f->fd, f->before);
	item->level = item->reason[0] == 0 ? WIPE_OVERWRITTEN_CURRENT : WIPE_UNPROVEN;
	if (is_changed(f) || writer_came(f)) {
		item->reason = "written-while-wiped";
		item->level = WIPE_UNPROVEN;
		return WIPE_REPLACED;
	}
	/* the name may have been given to another file by now: that one stays */
	if (fstatat(f->parent->fd, f->name, &st, AT_SYMLINK_NOFOLLOW) < 0 ||
		st.st_dev != item->want.dev || st.st_ino != item->want.ino) {
		item->reason = "renamed-while-wiped";
		item->level = WIPE_UNPROVEN;
		return WIPE_DONE; /* its content is overwritten; the name is no longer ours to remove */
	}
	f->parent->changed = true;
	if (writer_waits(f) ? ftruncate(f->fd, 0) == 0 : unlinkat(f->parent->fd, f->name, 0) == 0)
		return WIPE_DONE;
	cede_error_set_sys(&item->err, errno, "unlink");
	return WIPE_FAILED;
}

/* Once for each directory, however many names it lost. */
static void flush_directories(struct batch *b) {
	for (size_t p = 0; p < b->parent_count; p++) {
		struct parent *parent = &b->parents[p];
		if (!parent->changed || fsync(parent->fd) == 0)
			continue;
		/* the content is gone for certain; the names may come back after a power failure:
		 * the next try finds the overwritten files, or nothing */
		int sys = errno;
		for (size_t i = 0; i < b->count; i++) {
			struct wipe_item *item = b->files[i].item;
			if (b->files[i].parent != parent || item->outcome != WIPE_DONE)
				continue;
			cede_error_set_sys(&item->err, sys, "flush the directory");
			item->outcome = WIPE_FAILED;
		}
	}
}

static void end_files(struct batch *b) {
	flush(b);
	for (size_t i = 0; i < b->count; i++)
		if (b->files[i].item->outcome == WIPE_DONE)
			b->files[i].item->outcome = remove_name(&b->files[i]);
	flush_directories(b);
	for (size_t i = 0; i < b->count; i++) {
		fd_closep(&b->files[i].fd); /* with its lease */
		media_extents_free(b->files[i].before);
	}
	for (size_t i = 0; i < b->parent_count; i++)
		fd_closep(&b->parents[i].fd);
	b->count = 0;
	b->parent_count = 0;
}

int wipe_batch(struct wipe_item *items, size_t n, struct cede_error *reterr) {
	CLEANUP(freep) struct batch *b = calloc(1, sizeof *b);
	CLEANUP(freep) uint8_t *stream = malloc(STREAM);
	CLEANUP(freep) uint8_t *scratch = malloc(STREAM);

	if (b == NULL || stream == NULL || scratch == NULL)
		return CEDE_FAIL_MEMORY(reterr);
	CEDE_TRY(make_stream(stream, reterr));
	b->stream = stream;
	b->scratch = scratch;
	b->mount = MEDIA_MOUNT_UNKNOWN;
	for (size_t i = 0; i < n; i++) {
		begin_file(b, &items[i]);
		if (b->count + b->parent_count >= OPEN_MOST)
			end_files(b);
	}
	end_files(b);
	return CEDE_OK;
}
