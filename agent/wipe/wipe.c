/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/wipe/wipe.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "agent/wipe/content.h"
#include "agent/wipe/scrub.h"
#include "agent/wipe/storage.h"
#include "base/check.h"
#include "base/cleanup.h"

#define OPEN_MOST \
	2304 /* files and their directories open at once, if the process may have so many */
#define FSYNC_MOST  4 /* directories of a round; of more the whole file system is flushed at once */
#define EARLY_LEAST 16384 /* bytes of a file whose writing is begun before the flush */
#define FLUSHES     16    /* file systems in one round; more: the rest is tried again */

/* A directory that has names of this batch. */
struct parent {
	int source_fd;
	const char *path; /* the first item's; its first length bytes are the directory */
	size_t length;
	int fd;
	uint64_t dev;
	struct storage_mount mount; /* of its files, too: nothing is opened across a mount point */
	bool changed;               /* a name was taken out */
};

struct open_file {
	struct wipe_item *item;
	int fd;
	struct parent *parent;
	const char *name;
	bool leased;
	bool readers; /* no lease, since programs have it open: a writer may come */
	bool sparse;
	bool untouched;             /* it is as it was sealed: no earlier wipe has got to it */
	bool attributes;            /* user attributes, to be removed */
	struct file_identity after; /* as our overwriting left it */
	struct storage_extents *before;
};

struct batch {
	size_t open_most;
	struct open_file files[OPEN_MOST];
	size_t count;
	struct parent parents[OPEN_MOST];
	size_t parent_count;
	struct storage_mount mount; /* the last parent's */
	struct content content;
};

static enum wipe_outcome failed(struct wipe_item *item, const struct cede_error *err) {
	item->err = *err;
	return WIPE_FAILED;
}

static enum wipe_outcome from_open(struct wipe_item *item, const struct cede_error *err) {
	if ((err->sys == ENOENT || err->sys == ENOTDIR) &&
		!file_is_elsewhere(item->source_fd, item->want.dev))
		return WIPE_ABSENT;
	if (err->sys == ENOENT || err->sys == ENOTDIR || err->sys == EXDEV) {
		cede_error_set(&item->err, CEDE_ERR_IO,
			"its file system is not at the source's path, or another is mounted over it");
		item->err.sys = ENODEV;
		return WIPE_FAILED;
	}
	/* half overwritten it must not pass for a capture when its directory is back */
	if (err->code == CEDE_ERR_REFUSED && item->begun)
		return failed(item, err);
	if (err->code == CEDE_ERR_REFUSED || err->sys == EISDIR || err->sys == ENXIO)
		return WIPE_REPLACED; /* a symlink, directory or FIFO stands there now */
	if (err->sys == EAGAIN || err->sys == ETXTBSY)
		return WIPE_BUSY; /* a lease of another program, or being executed */
	if (err->sys == EPERM) {
		cede_error_set_sys(&item->err, EPERM,
			"it can't be opened for writing; if it is immutable or append-only (lsattr says i or a), take the flag away (chattr -i -a)");
		return WIPE_FAILED;
	}
	return failed(item, err);
}

/* ---- is it still the file that was sealed? */

static enum wipe_outcome compare_content(
	const struct batch *b, const struct open_file *f, uint64_t size, bool *ret_untouched) {
	struct cede_error err = {0};

	switch (content_compare(&b->content, f->fd, f->item, size, &err)) {
	case CONTENT_SEALED:
		*ret_untouched = true;
		return WIPE_DONE;
	case CONTENT_OURS:
		return WIPE_DONE;
	case CONTENT_OTHER:
		return WIPE_REPLACED;
	case CONTENT_UNREADABLE:
		break;
	}
	return failed(f->item, &err);
}

/* WIPE_DONE: it is; WIPE_REPLACED: another, or changed; WIPE_FAILED: the system would not tell. */
static enum wipe_outcome compare(const struct batch *b, struct open_file *f, bool *ret_untouched) {
	struct wipe_item *item = f->item;
	struct cede_error err = {0};
	struct stat st;

	if (fstat(f->fd, &st) < 0) {
		(void)CEDE_FAIL_SYS(&err, "stat");
		return failed(item, &err);
	}
	if (!S_ISREG(st.st_mode))
		return WIPE_REPLACED;
	struct file_identity now = file_identity_of(&st);
	if (st.st_nlink != 1) {
		item->reasons = WIPE_BIT(HARD_LINK);
		return WIPE_REPLACED;
	}
	f->sparse = (uint64_t)st.st_blocks * 512 < now.size;
	*ret_untouched = file_identity_equal(&now, &item->want);
	if (*ret_untouched)
		return WIPE_DONE;
	item->watched = false; /* something has been at it since it was sealed */
	if (now.dev != item->want.dev || now.ino != item->want.ino)
		return WIPE_REPLACED;
	if (now.size != item->want.size &&
		!(item->begun && now.size == content_rounded(item->want.size)))
		return WIPE_REPLACED;
	return compare_content(b, f, now.size, ret_untouched);
}

/* ---- alone with the file */

/* Whether a program has it open for writing: then no read lease is granted. Asked on a descriptor
 * of its own and before ours for writing is there: that one would count. */
static bool has_writer(const struct wipe_item *item) {
	CLEANUP(fd_closep) int fd = -1;

	if (file_open_beneath(item->source_fd, item->path, O_RDONLY, &fd, NULL) < 0)
		return false; /* the open for writing will say why */
	return fcntl(fd, F_SETLEASE, F_RDLCK) < 0 && errno == EAGAIN; /* else: no leases here */
}

static void name_aside(const struct wipe_item *item, char ret[64]) {
	(void)snprintf(ret, 64, FILE_ASIDE_PREFIX "%016llx", (unsigned long long)item->want.ino);
}

enum named { NAMED_OURS, NAMED_OTHER, NAMED_NOTHING, NAMED_UNKNOWN };

static enum named what_is_named(int dirfd, const char *name, const struct wipe_item *item) {
	struct stat st;

	if (fstatat(dirfd, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
		return errno == ENOENT ? NAMED_NOTHING : NAMED_UNKNOWN;
	return st.st_dev == item->want.dev && st.st_ino == item->want.ino ? NAMED_OURS : NAMED_OTHER;
}

/* Cut short between putting the name aside and unlinking it: it was overwritten and flushed then.
 * WIPE_ABSENT: it was there, and is gone now; WIPE_DONE: it is not there; WIPE_FAILED: it may be. */
static enum wipe_outcome end_aside(const struct open_file *f) {
	struct cede_error err = {0};
	char aside[64];

	if (!f->item->begun)
		return WIPE_DONE;
	name_aside(f->item, aside);
	enum named there = what_is_named(f->parent->fd, aside, f->item);
	if (there == NAMED_NOTHING || there == NAMED_OTHER)
		return WIPE_DONE;
	if (there == NAMED_UNKNOWN || unlinkat(f->parent->fd, aside, 0) < 0) {
		(void)CEDE_FAIL_SYS(&err, "end a wipe that was cut short");
		return failed(f->item, &err);
	}
	f->parent->changed = true;
	return WIPE_ABSENT;
}

/* What has the name now, before anything is opened: opening a FIFO or a device has effects. */
static enum wipe_outcome look_at_name(const struct open_file *f) {
	struct wipe_item *item = f->item;
	struct cede_error err = {0};
	struct stat st;

	if (fstatat(f->parent->fd, f->name, &st, AT_SYMLINK_NOFOLLOW) < 0) {
		(void)CEDE_FAIL_SYS(&err, "stat");
		enum wipe_outcome aside = end_aside(f);
		return aside == WIPE_DONE ? from_open(item, &err) : aside;
	}
	if (!S_ISREG(st.st_mode) || st.st_ino != item->want.ino) {
		enum wipe_outcome aside = end_aside(f);
		return aside == WIPE_DONE ? WIPE_REPLACED : aside;
	}
	/* its file system may have got another number: the scan will tell */
	return st.st_dev == item->want.dev ? WIPE_DONE : WIPE_BUSY;
}

/* A write lease shuts every other program out until the descriptor is closed: who opens the file
 * waits, and finds it gone. It is granted to the only one that has the file open. A program that
 * only reads it must not keep a capture on the disk for ever: then there is no lease, but no writer
 * either, and remove_name() asks again for writers. */
static enum wipe_outcome open_alone(struct batch *b, struct open_file *f) {
	struct wipe_item *item = f->item;
	struct cede_error err = {0};

	if (file_open_beneath(item->source_fd, item->path, O_RDWR, &f->fd, &err) < 0)
		return from_open(item, &err);
	f->leased = fcntl(f->fd, F_SETLEASE, F_WRLCK) == 0;
	if (!f->leased) { /* readers, or a writer? our own descriptor would count as one */
		fd_closep(&f->fd);
		if (has_writer(item))
			return WIPE_BUSY;
		if (file_open_beneath(item->source_fd, item->path, O_RDWR, &f->fd, &err) < 0)
			return from_open(item, &err);
		f->leased = fcntl(f->fd, F_SETLEASE, F_WRLCK) == 0;
		f->readers = !f->leased && errno == EAGAIN;
	}
	enum wipe_outcome same = compare(b, f, &f->untouched);
	return same == WIPE_DONE && item->held && f->untouched ? WIPE_HELD : same;
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
		storage_mount_of(fd, &b->mount);
		*f->parent = (struct parent){.source_fd = item->source_fd,
			.path = item->path,
			.length = length,
			.fd = fd,
			.dev = item->want.dev,
			.mount = b->mount};
		return WIPE_DONE;
	}
	fd_closep(&fd); /* it was put right meanwhile */
	return r == CEDE_OK ? WIPE_BUSY : from_open(item, &err);
}

/* ---- the three steps of a batch: overwrite all, flush once, unlink all */

/* What a wipe would be worth here, with a scrub of the journal if that is to be had. */
static enum wipe_level forecast(const struct open_file *f) {
	const struct wipe_item *item = f->item;
	bool scrubs = item->scrub && f->parent->mount.can_scrub;

	return wipe_best(scrubs ? item->reasons & ~WIPE_SCRUB_LIFTS : item->reasons);
}

static enum wipe_outcome look_at_storage(struct open_file *f) {
	struct wipe_item *item = f->item;
	struct cede_error err = {0};
	wipe_reasons reasons;

	if (item->key_goes) {
		item->reasons = WIPE_BIT(PENDING_ERASE);
		return WIPE_DONE;
	}
	if (storage_look(f->fd, &f->parent->mount, &f->before, &reasons, &err) < 0)
		return failed(item, &err);
	item->reasons |= reasons;
	if (!item->watched)
		item->reasons |= WIPE_BIT(HISTORY_UNKNOWN);
	item->level = forecast(f);
	return (item->begun && !f->untouched) || item->level >= item->least ? WIPE_DONE : WIPE_KEPT;
}

static enum wipe_outcome overwrite(struct batch *b, struct open_file *f) {
	struct wipe_item *item = f->item;
	struct cede_error err = {0};
	struct stat st;

	item->touched = true;
	if (!item->key_goes)
		f->attributes = scrub_attributes(f->fd, b->content.stream);
	if (f->attributes)
		item->reasons |= WIPE_BIT(USER_ATTRIBUTES);
	/* whole blocks: what stands behind the end in the last block goes as well */
	if (!item->key_goes &&
		content_overwrite(&b->content, f->fd, item->want.size, f->sparse, &err) < 0)
		return failed(item, &err);
	if (fstat(f->fd, &st) < 0) {
		(void)CEDE_FAIL_SYS(&err, "stat");
		return failed(item, &err);
	}
	f->after = file_identity_of(&st);
	/* the device works while the next ones are overwritten; the flush waits for what is left.
	 * Of small ones that is one request each: the flush puts them together */
	if (item->want.size >= EARLY_LEAST)
		(void)sync_file_range(f->fd, 0, 0, SYNC_FILE_RANGE_WRITE);
	return WIPE_DONE;
}

static void begin_file(struct batch *b, struct wipe_item *item) {
	struct open_file *f = &b->files[b->count];

	*f = (struct open_file){.item = item, .fd = -1};
	item->reasons = 0;
	item->level = WIPE_UNPROVEN;
	item->touched = item->scrubbed = false;
	item->scrub_took_ns = 0;
	item->outcome = open_parent(b, f);
	if (item->outcome == WIPE_DONE)
		item->outcome = look_at_name(f);
	if (item->outcome == WIPE_DONE)
		item->outcome = open_alone(b, f);
	if (item->outcome == WIPE_DONE)
		item->outcome = look_at_storage(f);
	if (item->outcome == WIPE_DONE)
		item->outcome = overwrite(b, f);
	if (item->outcome == WIPE_DONE) {
		b->count++;
		return;
	}
	fd_closep(&f->fd);
	storage_extents_free(f->before);
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
		if (item->key_goes) /* nothing was written */
			continue;
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

static enum wipe_outcome written_meanwhile(struct wipe_item *item) {
	item->reasons |= WIPE_BIT(WRITTEN_WHILE_WIPED);
	item->level = WIPE_UNPROVEN;
	return WIPE_REPLACED;
}

/* Whether the content is still as our overwriting left it. A lease can be broken by force after 45 seconds
 * (/proc/sys/fs/lease-break-time); then a writer may have been here. ctime may differ: a rename. */
static enum wipe_outcome compare_again(struct open_file *f, const struct stat *st) {
	struct file_identity now = file_identity_of(st);

	if (now.ino == f->after.ino &&
		(now.size != f->after.size || now.mtime_ns != f->after.mtime_ns))
		return written_meanwhile(f->item);
	return WIPE_DONE;
}

static enum wipe_outcome compare_open_again(struct open_file *f) {
	struct cede_error err = {0};
	struct stat st;

	if (fstat(f->fd, &st) < 0) {
		(void)CEDE_FAIL_SYS(&err, "stat");
		return failed(f->item, &err);
	}
	return compare_again(f, &st);
}

/* A writer that waits for our lease has the file in its hands already: with the name gone, what it
 * writes would be lost. It gets the emptied file, and its capture comes to us as a new one. */
static bool writer_waits(const struct open_file *f) {
	return f->leased && fcntl(f->fd, F_GETLEASE) == F_UNLCK;
}

/* Without a lease a writer may have come that has not written yet. Our own descriptor for writing
 * would count as one, so it goes; the one for reading, whatever the name of its file is now, holds
 * later writers off until the name is gone. */
static enum wipe_outcome look_for_writers(struct open_file *f) {
	CLEANUP(fd_closep) int same = -1;
	struct cede_error err = {0};

	if (!f->readers)
		return WIPE_DONE;
	if (file_open_again(f->fd, O_PATH, &same, &err) < 0)
		return failed(f->item, &err);
	fd_closep(&f->fd);
	if (file_open_again(same, O_RDONLY, &f->fd, &err) < 0)
		return failed(f->item, &err);
	f->leased = fcntl(f->fd, F_SETLEASE, F_RDLCK) == 0;
	if (!f->leased && errno == EAGAIN)
		return written_meanwhile(f->item);
	return compare_open_again(f);
}

/* The name may have been given to another file by now: that one stays. Ours must be as we left it,
 * whatever its name is. */
static enum wipe_outcome look_again(struct open_file *f, bool *ret_ours) {
	struct wipe_item *item = f->item;
	struct cede_error err = {0};
	struct stat st;

	*ret_ours = false;
	if (fstatat(f->parent->fd, f->name, &st, AT_SYMLINK_NOFOLLOW) == 0)
		*ret_ours = st.st_dev == item->want.dev && st.st_ino == item->want.ino;
	else if (errno != ENOENT) {
		(void)CEDE_FAIL_SYS(&err, "stat");
		return failed(item, &err);
	}
	return *ret_ours ? compare_again(f, &st) : compare_open_again(f);
}

/* Whether the directory is still where it was: one that was moved out of the source may be closed
 * to us there (Landlock), and what it has is not the source's any more. */
static bool is_in_place(const struct parent *parent) {
	CLEANUP(freep)
	char *path = parent->length == 0 ? strdup(".") : strndup(parent->path, parent->length);
	CLEANUP(fd_closep) int fd = -1;
	struct stat then, now;

	return path != NULL &&
		file_open_beneath(parent->source_fd, path, O_RDONLY | O_DIRECTORY, &fd, NULL) ==
		CEDE_OK &&
		fstat(parent->fd, &then) == 0 && fstat(fd, &now) == 0 &&
		then.st_dev == now.st_dev && then.st_ino == now.st_ino;
}

/* Why a name could not be put aside for lack of permission: its directory is not in the source any
 * more, or it was given to what we may not rename (Landlock), such as a symlink. */
static bool is_not_ours(const struct open_file *f) {
	if (!is_in_place(f->parent))
		return true;
	enum named there = what_is_named(f->parent->fd, f->name, f->item);
	return there == NAMED_OTHER || there == NAMED_NOTHING;
}

/* Between a look at a name and its unlinking a camera may rename its next capture to it, and that
 * one would go. So the name is put aside, where no program gives names, and only what is ours is
 * unlinked there; another file gets its name back. WIPE_REPLACED: it was another. */
static enum wipe_outcome unlink_ours(struct open_file *f) {
	struct wipe_item *item = f->item;
	int dirfd = f->parent->fd;
	char aside[64];

	name_aside(item, aside);
	bool is_aside = file_rename_new(dirfd, f->name, aside);
	if (!is_aside && errno == ENOENT)
		return WIPE_REPLACED;
	int sys = errno;
	if (!is_aside && sys == EACCES && is_not_ours(f))
		return WIPE_REPLACED;
	errno = sys;
	if (!is_aside && errno != EINVAL && errno != ENOSYS && errno != EOPNOTSUPP &&
		errno != EEXIST) {
		cede_error_set_sys(&item->err, errno, "put the name aside");
		return WIPE_FAILED;
	}
	enum named there = is_aside ? what_is_named(dirfd, aside, item) : NAMED_OURS;
	if (there != NAMED_OURS) {
		struct cede_error err = {0};
		if (there == NAMED_UNKNOWN)
			(void)CEDE_FAIL_SYS(&err, "stat of a name put aside");
		/* if a third has the name already it stays aside: a scan finds it there */
		(void)file_rename_new(dirfd, aside, f->name);
		return there == NAMED_UNKNOWN ? failed(item, &err) : WIPE_REPLACED;
	}
	/* not every file system has this rename; there the look that was taken has to do */
	if (unlinkat(dirfd, is_aside ? aside : f->name, 0) == 0)
		return WIPE_DONE;
	cede_error_set_sys(&item->err, errno, "unlink");
	if (is_aside)
		(void)file_rename_new(dirfd, aside, f->name);
	return WIPE_FAILED;
}

/* Instead of the descriptor for reading, with its lease. */
static enum wipe_outcome open_for_emptying(struct open_file *f) {
	CLEANUP(fd_closep) int reading = f->fd;
	struct cede_error err = {0};

	f->fd = -1;
	if (f->leased)
		(void)fcntl(reading, F_SETLEASE, F_UNLCK); /* EAGAIN: it was broken already */
	f->leased = false;
	if (file_open_again(reading, O_WRONLY, &f->fd, &err) < 0)
		return failed(f->item, &err);
	return compare_open_again(f);
}

static enum wipe_outcome empty_ours(struct open_file *f) {
	if (f->readers) {
		/* what it writes when our lease is gone must not be cut off: overwritten is enough */
		if (writer_waits(f))
			return written_meanwhile(f->item);
		enum wipe_outcome still = open_for_emptying(f);
		if (still != WIPE_DONE)
			return still;
	}
	if (ftruncate(f->fd, 0) == 0)
		return WIPE_DONE;
	cede_error_set_sys(&f->item->err, errno, "empty");
	return WIPE_FAILED;
}

/* What the overwriting came to, once it was flushed. */
static enum wipe_outcome look_at_result(const struct batch *b, struct open_file *f) {
	struct wipe_item *item = f->item;
	struct cede_error err = {0};
	bool doubtful = (item->reasons & WIPE_BIT(DATA_JOURNALLED)) != 0;
	bool direct;
	const wipe_reasons comparable =
		WIPE_SCRUB_LIFTS | WIPE_BIT(HISTORY_UNKNOWN) | WIPE_BIT(USER_ATTRIBUTES);

	if (item->key_goes)
		return WIPE_DONE;
	if ((item->reasons & ~comparable) == 0)
		item->reasons |= storage_compare(f->fd, f->before);
	if (f->attributes)
		scrub_attributes_remove(f->fd);
	if (item->verify == WIPE_VERIFY_NONE)
		return WIPE_DONE;
	if (content_verify(&b->content, f->fd, item->want.size, f->sparse, doubtful, &direct, &err) <
		0)
		return failed(item, &err);
	if (!direct && item->verify == WIPE_VERIFY_ALL)
		item->reasons |= WIPE_BIT(READ_BACK_UNAVAILABLE);
	return WIPE_DONE;
}

static enum wipe_outcome remove_name(const struct batch *b, struct open_file *f) {
	struct wipe_item *item = f->item;
	enum wipe_outcome outcome = WIPE_REPLACED;
	bool ours;

	enum wipe_outcome so_far = look_at_result(b, f);
	if (so_far == WIPE_DONE)
		so_far = look_for_writers(f);
	if (so_far == WIPE_DONE)
		so_far = look_again(f, &ours);
	if (so_far != WIPE_DONE)
		return so_far;
	/* the name may have been given to another file by now: that one stays */
	if (ours && writer_waits(f))
		return empty_ours(f);
	if (ours) {
		f->parent->changed = true;
		outcome = unlink_ours(f);
	}
	if (outcome == WIPE_REPLACED) {
		/* its content is overwritten, the name no longer ours to remove: under its new
		 * name, if it has one, it must not pass for a capture */
		item->reasons |= WIPE_BIT(RENAMED_WHILE_WIPED);
		return empty_ours(f);
	}
	return outcome;
}

/* The content is gone for certain; the names may come back after a power failure: the next try
 * finds the overwritten files, or nothing. */
static void directory_failed(struct batch *b, const struct parent *parent, int sys) {
	for (size_t i = 0; i < b->count; i++) {
		struct wipe_item *item = b->files[i].item;
		if (b->files[i].parent != parent || item->outcome != WIPE_DONE)
			continue;
		cede_error_set_sys(&item->err, sys, "flush the directory");
		item->outcome = WIPE_FAILED;
	}
}

/* Once for each directory, however many names it lost; of many in one file system, all at once. */
static void flush_directories(struct batch *b) {
	for (size_t p = 0; p < b->parent_count; p++) {
		struct parent *first = &b->parents[p];
		size_t many = 0;
		if (!first->changed)
			continue;
		for (size_t q = p; q < b->parent_count; q++)
			many += b->parents[q].changed && b->parents[q].dev == first->dev;
		bool all = many > FSYNC_MOST;
		int sys = (all ? syncfs(first->fd) : fsync(first->fd)) < 0 ? errno : 0;
		for (size_t q = p; q < b->parent_count; q++) {
			struct parent *parent = &b->parents[q];
			if (!parent->changed || (q != p && (!all || parent->dev != first->dev)))
				continue;
			parent->changed = false;
			if (sys != 0)
				directory_failed(b, parent, sys);
		}
	}
}

static void end_files(struct batch *b) {
	flush(b);
	for (size_t i = 0; i < b->count; i++)
		if (b->files[i].item->outcome == WIPE_DONE)
			b->files[i].item->outcome = remove_name(b, &b->files[i]);
	flush_directories(b);
	for (size_t i = 0; i < b->count; i++) {
		fd_closep(&b->files[i].fd); /* with its lease */
		storage_extents_free(b->files[i].before);
	}
	for (size_t i = 0; i < b->parent_count; i++)
		fd_closep(&b->parents[i].fd);
	b->count = 0;
	b->parent_count = 0;
}

/* A round keeps its files open until they are flushed; others of the process need descriptors too. */
static size_t open_most(void) {
	struct rlimit files;

	if (getrlimit(RLIMIT_NOFILE, &files) < 0 || files.rlim_cur < 1024)
		return 64;
	return files.rlim_cur / 4 < OPEN_MOST ? (size_t)files.rlim_cur / 4 : OPEN_MOST;
}

/* ---- once for all of them */

/* Names are gone and directories flushed: now what the journal still has of them can go. */
static void scrub(struct wipe_item *items, size_t n, size_t first) {
	const struct wipe_item *one = &items[first];
	uint64_t dev = one->want.dev;
	int64_t took_ns;

	bool done = scrub_journal(one->source_fd, &took_ns) == SCRUB_DONE;
	items[first].scrub_took_ns = took_ns;
	for (size_t i = first; i < n; i++) {
		struct wipe_item *item = &items[i];
		if (item->want.dev != dev)
			continue;
		item->scrub = false; /* it was tried */
		if (!done || item->outcome != WIPE_DONE)
			continue;
		item->reasons &= ~WIPE_SCRUB_LIFTS;
		item->scrubbed = true;
	}
}

static void judge(struct wipe_item *items, size_t n) {
	for (size_t i = 0; i < n; i++) {
		if (items[i].outcome == WIPE_DONE && items[i].scrub &&
			(items[i].reasons & WIPE_SCRUB_LIFTS) != 0)
			scrub(items, n, i);
		if (items[i].outcome == WIPE_DONE)
			items[i].level = wipe_best(items[i].reasons);
		items[i].reasons = wipe_decisive(items[i].reasons);
	}
}

int wipe_batch(struct wipe_item *items, size_t n, struct cede_error *reterr) {
	CLEANUP(freep) struct batch *b = calloc(1, sizeof *b);

	if (b == NULL)
		return CEDE_FAIL_MEMORY(reterr);
	CEDE_TRY(content_init(&b->content, reterr));
	b->mount = STORAGE_MOUNT_UNKNOWN;
	b->open_most = open_most();
	for (size_t i = 0; i < n; i++) {
		begin_file(b, &items[i]);
		if (b->count + b->parent_count >= b->open_most)
			end_files(b);
	}
	end_files(b);
	judge(items, n);
	content_done(&b->content);
	return CEDE_OK;
}
