/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/sandbox/acts.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <net/if.h>
#include <netdb.h>
#include <netinet/in.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#define ACT(name) static int name(const struct acts_world *w)
#define UNUSED    (void)w

static int said(long result) {
	return result < 0 ? errno : 0;
}

static int opened(int fd) {
	int r = said(fd);

	if (fd >= 0)
		(void)close(fd);
	return r;
}

/* ---- network */

static int connect_to(uint16_t port) {
	const struct sockaddr_in to = {.sin_family = AF_INET,
		.sin_port = htons(port),
		.sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (fd < 0)
		return errno;
	int r = said(connect(fd, (const struct sockaddr *)&to, sizeof to));
	(void)close(fd);
	return r;
}

ACT(inet_socket) {
	UNUSED;
	return opened(socket(AF_INET, SOCK_STREAM, 0));
}

ACT(inet6_socket) {
	UNUSED;
	return opened(socket(AF_INET6, SOCK_DGRAM, 0));
}

ACT(unix_socket) {
	UNUSED;
	return opened(socket(AF_UNIX, SOCK_STREAM, 0));
}

ACT(netlink_socket) {
	UNUSED;
	return opened(socket(AF_NETLINK, SOCK_RAW, 0));
}

ACT(packet_socket) {
	UNUSED;
	return opened(socket(AF_PACKET, SOCK_RAW, 0));
}

ACT(raw_socket) {
	UNUSED;
	return opened(socket(AF_INET, SOCK_RAW, IPPROTO_ICMP));
}

ACT(connect_good) {
	return connect_to(w->good_port);
}

ACT(connect_bad) {
	return connect_to(w->bad_port);
}

/* a socket that was open before is no way out either */
ACT(connect_old) {
	const struct sockaddr_in to = {.sin_family = AF_INET,
		.sin_port = htons(w->bad_port),
		.sin_addr.s_addr = htonl(INADDR_LOOPBACK)};

	return said(connect(w->old, (const struct sockaddr *)&to, sizeof to));
}

ACT(bind_port) {
	const struct sockaddr_in at = {
		.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};

	UNUSED;
	int fd = socket(AF_INET, SOCK_STREAM, 0);
	if (fd < 0)
		return errno;
	int r = said(bind(fd, (const struct sockaddr *)&at, sizeof at));
	(void)close(fd);
	return r;
}

ACT(accept_own) {
	int fd = accept4(w->listening, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

	if (fd < 0 && errno == EAGAIN)
		return 0; /* nobody is there: it may be asked */
	return opened(fd);
}

ACT(resolve) {
	struct addrinfo hints = {.ai_family = AF_INET, .ai_socktype = SOCK_STREAM};
	struct addrinfo *list = NULL;

	UNUSED;
	int r = getaddrinfo("localhost", "443", &hints, &list);
	if (r == 0)
		freeaddrinfo(list);
	return r == 0 ? 0 : EIO;
}

ACT(messages) {
	char letter = 'x';

	if (send(w->pair[0], &letter, 1, MSG_NOSIGNAL) != 1)
		return errno;
	return said(recv(w->pair[1], &letter, 1, 0));
}

/* ---- files */

static int open_at(const char *folder, const char *name, int flags) {
	char path[192];

	(void)snprintf(path, sizeof path, "%s/%s", folder, name);
	return opened(openat(AT_FDCWD, path, flags | O_CLOEXEC, 0600));
}

ACT(read_inside) {
	return open_at(w->inside, "there", O_RDONLY);
}

ACT(make_inside) {
	return open_at(w->inside, "new", O_RDWR | O_CREAT | O_EXCL);
}

ACT(change_inside) {
	char from[192], to[192];

	(void)snprintf(from, sizeof from, "%s/there", w->inside);
	(void)snprintf(to, sizeof to, "%s/renamed", w->inside);
	if (renameat2(AT_FDCWD, from, AT_FDCWD, to, RENAME_NOREPLACE) < 0 ||
		unlinkat(AT_FDCWD, to, 0) < 0)
		return errno;
	(void)snprintf(to, sizeof to, "%s/folder", w->inside);
	return said(mkdirat(AT_FDCWD, to, 0700));
}

ACT(unnamed_inside) {
	char name[64];
	int fd = openat(w->directory, ".", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);

	if (fd < 0)
		return errno;
	(void)snprintf(name, sizeof name, "/proc/self/fd/%d", fd);
	int r = said(linkat(AT_FDCWD, name, w->directory, "linked", AT_SYMLINK_FOLLOW));
	(void)close(fd);
	return r;
}

ACT(read_outside) {
	return open_at(w->outside, "there", O_RDONLY);
}

ACT(make_outside) {
	return open_at(w->outside, "new", O_RDWR | O_CREAT);
}

ACT(move_out) {
	char from[192], to[192];

	(void)snprintf(from, sizeof from, "%s/there", w->inside);
	(void)snprintf(to, sizeof to, "%s/moved", w->outside);
	return said(syscall(SYS_renameat2, AT_FDCWD, from, AT_FDCWD, to, 0));
}

ACT(climb_out) {
	return opened(openat(w->directory, "../../outside/there", O_RDONLY | O_CLOEXEC));
}

ACT(symlink_inside) {
	return said(syscall(SYS_symlinkat, "/etc/shadow", w->directory, "link"));
}

ACT(read_shadow) {
	UNUSED;
	return opened(openat(AT_FDCWD, "/etc/shadow", O_RDONLY | O_CLOEXEC));
}

ACT(read_passwd) {
	UNUSED;
	return opened(openat(AT_FDCWD, "/etc/passwd", O_RDONLY | O_CLOEXEC));
}

ACT(read_memory_of_others) {
	char path[64];

	(void)snprintf(path, sizeof path, "/proc/%d/mem", (int)w->other);
	return opened(openat(AT_FDCWD, path, O_RDONLY | O_CLOEXEC));
}

ACT(read_environment_of_others) {
	char path[64];

	(void)snprintf(path, sizeof path, "/proc/%d/environ", (int)w->other);
	return opened(openat(AT_FDCWD, path, O_RDONLY | O_CLOEXEC));
}

ACT(write_tmp) {
	UNUSED;
	return open_at("/tmp", ".cede-sandbox-test", O_RDWR | O_CREAT);
}

ACT(list_root) {
	UNUSED;
	return opened(openat(AT_FDCWD, "/", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
}

ACT(mountinfo) {
	UNUSED;
	return opened(openat(AT_FDCWD, "/proc/self/mountinfo", O_RDONLY | O_CLOEXEC));
}

ACT(by_handle) {
	struct {
		struct file_handle head;
		char room[128];
	} handle = {.head = {.handle_bytes = 128}};

	int mount_id;

	if (name_to_handle_at(w->directory, "there", &handle.head, &mount_id, 0) < 0)
		return errno;
	return opened(open_by_handle_at(w->directory, &handle.head, O_RDONLY));
}

ACT(lease) {
	int fd = openat(w->directory, "there", O_RDONLY | O_CLOEXEC);
	int r = fd < 0 ? errno : said(fcntl(fd, F_SETLEASE, F_RDLCK));

	if (fd >= 0)
		(void)close(fd);
	return r;
}

ACT(watch) {
	char name[64];
	int fd = inotify_init1(IN_CLOEXEC);

	if (fd < 0)
		return errno;
	(void)snprintf(name, sizeof name, "/proc/self/fd/%d", w->directory);
	return said(inotify_add_watch(fd, name, IN_CREATE));
}

ACT(file_flags) {
	unsigned flags;

	return said(ioctl(w->directory, FS_IOC_GETFLAGS, &flags));
}

ACT(ask_interface) {
	struct ifreq which = {.ifr_ifindex = 1};

	return said(ioctl(w->old, SIOCGIFNAME, &which));
}

ACT(block_device) {
	UNUSED;
	return said(mknod("/tmp/.cede-sandbox-device", S_IFBLK | 0600, 7 << 8));
}

/* ---- programs and processes */

ACT(exec) {
	char *argv[] = {(char[]){"true"}, NULL};

	UNUSED;
	(void)execve("/bin/true", argv, NULL);
	return errno;
}

ACT(exec_memory) {
	char *argv[] = {(char[]){"x"}, NULL};
	int fd = memfd_create("x", 0);

	UNUSED;
	if (fd < 0 || write(fd, "#!/bin/true\n", 12) != 12)
		return errno;
	(void)syscall(SYS_execveat, fd, "", argv, NULL, AT_EMPTY_PATH);
	return errno;
}

ACT(fork_process) {
	UNUSED;
	pid_t pid = fork();
	if (pid == 0)
		_exit(0);
	return said(pid);
}

static void *nothing(void *ctx) {
	return ctx;
}

ACT(thread) {
	pthread_t t;
	UNUSED;
	int r = pthread_create(&t, NULL, nothing, NULL);
	return r != 0 ? r : pthread_join(t, NULL);
}

static void *open_shadow(void *ctx) {
	*(int *)ctx = opened(openat(AT_FDCWD, "/etc/shadow", O_RDONLY | O_CLOEXEC));
	return NULL;
}

ACT(thread_opens) {
	pthread_t t;
	int r = 0;

	UNUSED;
	if (pthread_create(&t, NULL, open_shadow, &r) != 0 || pthread_join(t, NULL) != 0)
		return EIO;
	return r;
}

ACT(ptrace_other) {
	return said(ptrace(PTRACE_SEIZE, w->other, NULL, NULL));
}

ACT(read_process) {
	char byte;
	struct iovec here = {&byte, 1}, there = {(void *)(uintptr_t)w, 1};

	return said(process_vm_readv(w->other, &here, 1, &there, 1, 0));
}

ACT(kill_other) {
	return said(kill(w->other, 0));
}

ACT(kill_parent) {
	UNUSED;
	return said(kill(getppid(), 0));
}

ACT(kill_by_descriptor) {
	int fd = (int)syscall(SYS_pidfd_open, w->other, 0);

	if (fd < 0)
		return errno;
	return said(syscall(SYS_pidfd_send_signal, fd, 0, NULL, 0));
}

ACT(signal_self) {
	UNUSED;
	return said(kill(getpid(), 0));
}

ACT(code_memory) {
	UNUSED;
	void *p = mmap(
		NULL, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	return p == MAP_FAILED ? errno : 0;
}

ACT(become_code) {
	UNUSED;
	void *p = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	return p == MAP_FAILED ? errno : said(mprotect(p, 4096, PROT_READ | PROT_EXEC));
}

ACT(memory) {
	UNUSED;
	void *p = mmap(NULL, 1 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	return p == MAP_FAILED ? errno : said(munmap(p, 1 << 20));
}

ACT(memory_file) {
	UNUSED;
	return opened(memfd_create("x", MFD_CLOEXEC));
}

/* ---- privileges */

ACT(become_root) {
	UNUSED;
	return said(syscall(SYS_setuid, 0));
}

ACT(mount_something) {
	return said(mount("none", w->inside, "tmpfs", 0, NULL));
}

ACT(new_namespace) {
	UNUSED;
	return said(unshare(CLONE_NEWUSER));
}

ACT(change_root) {
	return said(chroot(w->inside));
}

ACT(load_bpf) {
	const uint32_t array[32] = {
		2, 4, 4, 1}; /* BPF_MAP_TYPE_ARRAY, sizes of key and value, entries */

	UNUSED;
	return opened((int)syscall(SYS_bpf, 0, array, sizeof array));
}

ACT(io_uring) {
	char params[128] = {0};

	UNUSED;
	return opened((int)syscall(SYS_io_uring_setup, 4, params));
}

ACT(dumpable_again) {
	UNUSED;
	return said(prctl(PR_SET_DUMPABLE, 1, 0, 0, 0));
}

ACT(read_log) {
	char text[16];

	UNUSED;
	return said(syscall(SYS_syslog, 3, text, sizeof text));
}

const struct act acts[] = {
	{"make an IPv4 socket", inet_socket, "c"},
	{"make an IPv6 socket", inet6_socket, "c"},
	{"make a UNIX socket", unix_socket, ""},
	{"make a netlink socket", netlink_socket, ""},
	{"make a packet socket", packet_socket, ""},
	{"make a raw socket", raw_socket, ""},
	{"connect to an approved port", connect_good, "c"},
	{"connect to another port", connect_bad, ""},
	{"connect a socket that was open", connect_old, ""},
	{"bind a port", bind_port, ""},
	{"accept on its own socket", accept_own, "kcr"},
	{"look a name up", resolve, "c"},
	{"send and receive on a socket that was open", messages, "kcr"},
	{"read a file inside", read_inside, "kro"},
	{"make a file inside", make_inside, "kro"},
	{"rename, remove, make a directory inside", change_inside, "kro"},
	{"link an unnamed file inside", unnamed_inside, "kro"},
	{"read a file outside", read_outside, ""},
	{"make a file outside", make_outside, ""},
	{"move a file out", move_out, ""},
	{"climb out of an open directory", climb_out, ""},
	{"make a symlink", symlink_inside, ""},
	{"read /etc/shadow", read_shadow, ""},
	{"read /etc/passwd", read_passwd, ""},
	{"read another process's memory in /proc", read_memory_of_others, ""},
	{"read another process's environment in /proc", read_environment_of_others, ""},
	{"write to /tmp", write_tmp, ""},
	{"list /", list_root, ""},
	{"read its own mountinfo", mountinfo, "k"},
	{"open a file by its handle", by_handle, ""},
	{"take a lease", lease, "kro"},
	{"watch a directory", watch, "k"},
	{"read a file's flags", file_flags, "k"},
	{"ask for a network interface", ask_interface, ""},
	{"make a block device", block_device, ""},
	{"execute a program", exec, ""},
	{"execute a memory file", exec_memory, ""},
	{"fork", fork_process, ""},
	{"start a thread", thread, "kcro"},
	{"read /etc/shadow in a new thread", thread_opens, ""},
	{"trace another process", ptrace_other, ""},
	{"read another process's memory", read_process, ""},
	{"signal another process", kill_other, ""},
	{"signal its parent", kill_parent, ""},
	{"signal by a process descriptor", kill_by_descriptor, ""},
	{"signal itself", signal_self, "kcro"},
	{"map writable code", code_memory, ""},
	{"turn memory into code", become_code, ""},
	{"map memory", memory, "kcro"},
	{"make a memory file", memory_file, "kcro"},
	{"become root", become_root, ""},
	{"mount", mount_something, ""},
	{"make a namespace", new_namespace, ""},
	{"change its root", change_root, ""},
	{"load a BPF program", load_bpf, ""},
	{"set up io_uring", io_uring, ""},
	{"become dumpable again", dumpable_again, ""},
	{"read the kernel's log", read_log, ""},
};
const size_t acts_count = sizeof acts / sizeof acts[0];
