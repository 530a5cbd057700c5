/* SPDX-License-Identifier: Apache-2.0
 * Loaded into a program under test (LD_PRELOAD): counts its calls of the C library that touch files,
 * memory or sockets, and makes the Nth of them fail, or the process die before it. CEDE_FAULT names the
 * shared page (fault.h). Only tests use it; nothing of it is linked into cede. */
#include "fault.h"

#include <dlfcn.h>
#include <errno.h>
#include <execinfo.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#define EXPORT __attribute__((visibility("default")))

/* the allocator behind the names that are taken here; glibc */
extern void *__libc_malloc(size_t size);
extern void *__libc_calloc(size_t n, size_t size);
extern void *__libc_realloc(void *old, size_t size);
extern void *__libc_memalign(size_t alignment, size_t size);

#define FRAMES 16
#define PLACES 65536

static struct fault_page *page;
static _Atomic uint64_t places[PLACES]; /* hashes of call stacks that were seen */

static void forget(void);

__attribute__((constructor)) static void attach(void) {
	const char *path = getenv("CEDE_FAULT");

	if (path == NULL)
		return;
	void *frames[FRAMES];
	(void)backtrace(frames, FRAMES); /* its first call allocates */
	int fd = (int)syscall(SYS_openat, AT_FDCWD, path, O_RDWR | O_CLOEXEC, 0);
	if (fd < 0)
		_exit(120);
	void *p = (void *)syscall(
		SYS_mmap, NULL, sizeof *page, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0L);
	(void)syscall(SYS_close, fd);
	if (p == MAP_FAILED || ((struct fault_page *)p)->magic != FAULT_MAGIC)
		_exit(121);
	page = p;
	(void)pthread_atfork(NULL, NULL, forget);
}

/* A child is another program: the page speaks of the one that was started. */
static void forget(void) {
	page = NULL;
}

static bool is_new_place(void) {
	void *frames[FRAMES];
	int n = backtrace(frames, FRAMES);
	uint64_t hash = UINT64_C(14695981039346656037);

	for (int i = 0; i < n; i++)
		hash = (hash ^ (uintptr_t)frames[i]) * UINT64_C(1099511628211);
	hash |= 1;
	for (uint64_t i = 0; i < PLACES; i++) {
		uint64_t there = 0;
		if (atomic_compare_exchange_strong(&places[(hash + i) % PLACES], &there, hash))
			return true;
		if (there == hash)
			return false;
	}
	return false;
}

/* Whether this call is to fail; errno is set then. */
static bool hit(enum fault_call call) {
	struct fault_page *p = page;

	if (p == NULL)
		return false;
	(void)atomic_fetch_add(&p->count[call], 1);
	if ((p->mask & 1U << call) == 0 || (p->distinct != 0 && !is_new_place()))
		return false;
	if (atomic_fetch_add(&p->matched, 1) + 1 != p->at || p->action == FAULT_NOTHING)
		return false;
	p->fired_call = (int32_t)call;
	atomic_store(&p->fired, 1);
	if (p->action == FAULT_KILL) {
		(void)syscall(SYS_kill, syscall(SYS_getpid), SIGKILL);
		for (;;)
			(void)syscall(SYS_pause);
	}
	void *frames[FRAMES];
	backtrace_symbols_fd(
		frames, backtrace(frames, FRAMES), STDERR_FILENO); /* for who looks for a bug */
	errno = p->error;
	return true;
}

enum kind { KIND_FILE, KIND_SOCKET, KIND_OTHER };

/* Event descriptors and pipes are the loop's own; a failure there is a failure of the machine. */
static enum kind kind_of(int fd) {
	struct stat st;
	int before = errno;

	if (page == NULL || syscall(SYS_fstat, fd, &st) < 0) {
		errno = before;
		return KIND_OTHER;
	}
	return S_ISREG(st.st_mode) ? KIND_FILE : S_ISSOCK(st.st_mode) ? KIND_SOCKET : KIND_OTHER;
}

static bool hit_input(int fd) {
	enum kind kind = kind_of(fd);

	return kind != KIND_OTHER && hit(kind == KIND_FILE ? FAULT_READ : FAULT_RECEIVE);
}

static bool hit_output(int fd) {
	enum kind kind = kind_of(fd);

	return kind != KIND_OTHER && hit(kind == KIND_FILE ? FAULT_WRITE : FAULT_SEND);
}

/* The next definition of a function that is taken here. */
#define NEXT(name) ((__typeof__(&name))(uintptr_t)dlsym(RTLD_NEXT, #name))

#define FORWARD(result, name, check, parameters, arguments) \
	EXPORT result name parameters {                     \
		static __typeof__(&name) next;              \
		if (next == NULL)                           \
			next = NEXT(name);                  \
		if (check)                                  \
			return (result)-1;                  \
		return next arguments;                      \
	}

FORWARD(ssize_t, read, hit_input(fd), (int fd, void *b, size_t n), (fd, b, n))
FORWARD(ssize_t, pread, hit_input(fd), (int fd, void *b, size_t n, off_t o), (fd, b, n, o))
FORWARD(ssize_t, pread64, hit_input(fd), (int fd, void *b, size_t n, off64_t o), (fd, b, n, o))
FORWARD(ssize_t, readv, hit_input(fd), (int fd, const struct iovec *v, int n), (fd, v, n))
FORWARD(ssize_t, write, hit_output(fd), (int fd, const void *b, size_t n), (fd, b, n))
FORWARD(ssize_t, pwrite, hit_output(fd), (int fd, const void *b, size_t n, off_t o), (fd, b, n, o))
FORWARD(ssize_t, pwrite64, hit_output(fd), (int fd, const void *b, size_t n, off64_t o),
	(fd, b, n, o))
FORWARD(ssize_t, writev, hit_output(fd), (int fd, const struct iovec *v, int n), (fd, v, n))
FORWARD(ssize_t, recv, hit(FAULT_RECEIVE), (int fd, void *b, size_t n, int f), (fd, b, n, f))
FORWARD(ssize_t, recvmsg, hit(FAULT_RECEIVE), (int fd, struct msghdr *m, int f), (fd, m, f))
FORWARD(ssize_t, send, hit(FAULT_SEND), (int fd, const void *b, size_t n, int f), (fd, b, n, f))
FORWARD(ssize_t, sendmsg, hit(FAULT_SEND), (int fd, const struct msghdr *m, int f), (fd, m, f))
FORWARD(int, fsync, hit(FAULT_SYNC), (int fd), (fd))
FORWARD(int, fdatasync, hit(FAULT_SYNC), (int fd), (fd))
FORWARD(int, syncfs, hit(FAULT_SYNC), (int fd), (fd))
FORWARD(int, renameat, hit(FAULT_LINK), (int a, const char *b, int c, const char *d), (a, b, c, d))
FORWARD(int, renameat2, hit(FAULT_LINK), (int a, const char *b, int c, const char *d, unsigned f),
	(a, b, c, d, f))
FORWARD(int, linkat, hit(FAULT_LINK), (int a, const char *b, int c, const char *d, int f),
	(a, b, c, d, f))
FORWARD(int, unlink, hit(FAULT_UNLINK), (const char *p), (p))
FORWARD(int, unlinkat, hit(FAULT_UNLINK), (int d, const char *p, int f), (d, p, f))
FORWARD(int, ftruncate, hit(FAULT_RESIZE), (int fd, off_t n), (fd, n))
FORWARD(int, ftruncate64, hit(FAULT_RESIZE), (int fd, off64_t n), (fd, n))
FORWARD(int, fallocate, hit(FAULT_RESIZE), (int fd, int m, off_t o, off_t n), (fd, m, o, n))
FORWARD(int, fallocate64, hit(FAULT_RESIZE), (int fd, int m, off64_t o, off64_t n), (fd, m, o, n))
FORWARD(int, mkdir, hit(FAULT_MKDIR), (const char *p, mode_t m), (p, m))
FORWARD(int, mkdirat, hit(FAULT_MKDIR), (int d, const char *p, mode_t m), (d, p, m))
FORWARD(int, fstat, hit(FAULT_STAT), (int fd, struct stat *s), (fd, s))
FORWARD(int, fstat64, hit(FAULT_STAT), (int fd, struct stat64 *s), (fd, s))
FORWARD(int, fstatat, hit(FAULT_STAT), (int d, const char *p, struct stat *s, int f), (d, p, s, f))
FORWARD(int, fstatat64, hit(FAULT_STAT), (int d, const char *p, struct stat64 *s, int f),
	(d, p, s, f))
FORWARD(int, statx, hit(FAULT_STAT),
	(int d, const char *restrict p, int f, unsigned m, struct statx *restrict s), (d, p, f, m, s))

EXPORT int ioctl(int fd, unsigned long request, ...) {
	static int (*next)(int, unsigned long, ...);
	va_list args;

	va_start(args, request);
	void *arg = va_arg(args, void *);
	va_end(args);
	if (next == NULL)
		next = NEXT(ioctl);
	/* <linux/fscrypt.h>: 'f', 19 to 26 */
	if (_IOC_TYPE(request) == 'f' && _IOC_NR(request) >= 19 && _IOC_NR(request) <= 26 &&
		hit(FAULT_KEY))
		return -1;
	return next(fd, request, arg);
}

EXPORT void *mmap(void *at, size_t n, int prot, int flags, int fd, off_t offset) {
	if (hit(FAULT_MAP))
		return MAP_FAILED;
	return (void *)syscall(SYS_mmap, at, n, prot, flags, fd, offset);
}

EXPORT void *mmap64(void *at, size_t n, int prot, int flags, int fd, off64_t offset) {
	return mmap(at, n, prot, flags, fd, offset);
}

EXPORT void *malloc(size_t n) {
	return hit(FAULT_ALLOC) ? NULL : __libc_malloc(n);
}

EXPORT void *calloc(size_t n, size_t size) {
	return hit(FAULT_ALLOC) ? NULL : __libc_calloc(n, size);
}

EXPORT void *realloc(void *old, size_t n) {
	return n > 0 && hit(FAULT_ALLOC) ? NULL : __libc_realloc(old, n);
}

EXPORT void *reallocarray(void *old, size_t n, size_t size) {
	size_t bytes;

	if (__builtin_mul_overflow(n, size, &bytes)) {
		errno = ENOMEM;
		return NULL;
	}
	return realloc(old, bytes);
}

EXPORT int posix_memalign(void **ret, size_t alignment, size_t n) {
	if (hit(FAULT_ALLOC))
		return ENOMEM;
	void *p = __libc_memalign(alignment, n);
	if (p == NULL)
		return ENOMEM;
	*ret = p;
	return 0;
}

EXPORT void *aligned_alloc(size_t alignment, size_t n) {
	return hit(FAULT_ALLOC) ? NULL : __libc_memalign(alignment, n);
}

static bool creates(int flags) {
	return (flags & O_CREAT) != 0 ||
		(flags & O_TMPFILE) == O_TMPFILE; /* that one has O_DIRECTORY in it */
}

static enum fault_call opening(int flags) {
	return creates(flags) ? FAULT_CREATE : FAULT_OPEN;
}

static int open_with(int dirfd, const char *path, int flags, va_list more) {
	mode_t mode = creates(flags) ? va_arg(more, mode_t) : 0;

	if (hit(opening(flags)))
		return -1;
	return (int)syscall(SYS_openat, dirfd, path, flags | O_LARGEFILE, mode);
}

#define OPEN(name, parameters, dirfd, path)                   \
	EXPORT int name parameters {                          \
		va_list more;                                 \
		va_start(more, flags);                        \
		int fd = open_with(dirfd, path, flags, more); \
		va_end(more);                                 \
		return fd;                                    \
	}

OPEN(open, (const char *path, int flags, ...), AT_FDCWD, path)
OPEN(open64, (const char *path, int flags, ...), AT_FDCWD, path)
OPEN(openat, (int dirfd, const char *path, int flags, ...), dirfd, path)
OPEN(openat64, (int dirfd, const char *path, int flags, ...), dirfd, path)

/* what _FORTIFY_SOURCE makes of the calls above */
#define FORTIFIED(result, name, parameters, call) \
	EXPORT result name parameters;            \
	EXPORT result name parameters {           \
		return call;                      \
	}

FORTIFIED(int, __open_2, (const char *path, int flags), open(path, flags))
FORTIFIED(int, __open64_2, (const char *path, int flags), open(path, flags))
FORTIFIED(int, __openat_2, (int dirfd, const char *path, int flags), openat(dirfd, path, flags))
FORTIFIED(int, __openat64_2, (int dirfd, const char *path, int flags), openat(dirfd, path, flags))
FORTIFIED(ssize_t, __read_chk, (int fd, void *b, size_t n, size_t room),
	n > room ? (abort(), -1) : read(fd, b, n))
FORTIFIED(ssize_t, __pread_chk, (int fd, void *b, size_t n, off_t o, size_t room),
	n > room ? (abort(), -1) : pread(fd, b, n, o))
FORTIFIED(ssize_t, __pread64_chk, (int fd, void *b, size_t n, off64_t o, size_t room),
	n > room ? (abort(), -1) : pread64(fd, b, n, o))
FORTIFIED(ssize_t, __recv_chk, (int fd, void *b, size_t n, size_t room, int f),
	n > room ? (abort(), -1) : recv(fd, b, n, f))

static int lease_or(int fd, int command, long argument) {
	if (command == F_SETLEASE && argument != F_UNLCK && hit(FAULT_LEASE))
		return -1;
	return (int)syscall(SYS_fcntl, fd, command, argument);
}

EXPORT int fcntl(int fd, int command, ...) {
	va_list more;
	va_start(more, command);
	long argument = va_arg(more, long);
	va_end(more);
	return lease_or(fd, command, argument);
}

EXPORT int fcntl64(int fd, int command, ...) {
	va_list more;
	va_start(more, command);
	long argument = va_arg(more, long);
	va_end(more);
	return lease_or(fd, command, argument);
}

EXPORT int memfd_create(const char *name, unsigned flags) {
	return hit(FAULT_CREATE) ? -1 : (int)syscall(SYS_memfd_create, name, flags);
}

/* cede opens below a directory with the system call itself */
EXPORT long syscall(long number, ...) {
	static __typeof__(&syscall) next;
	va_list more;
	long a[6];

	if (next == NULL)
		next = NEXT(syscall);
	va_start(more, number);
	for (size_t i = 0; i < 6; i++)
		a[i] = va_arg(more, long);
	va_end(more);
	if (number == SYS_openat2 && page != NULL) {
		uint64_t flags = *(const uint64_t *)a[2];
		if (hit(opening((int)flags)))
			return -1;
	}
	return next(number, a[0], a[1], a[2], a[3], a[4], a[5]);
}
