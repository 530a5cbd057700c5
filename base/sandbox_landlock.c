/* SPDX-License-Identifier: Apache-2.0
 * Landlock by its system calls: Debian 12's headers know version 2 of the interface, kernels know more. */
#include <fcntl.h>
#include <linux/landlock.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/check.h"
#include "base/cleanup.h"
#include "base/sandbox.h"
#include "base/sandbox_internal.h"

#define ACCESS(name)     LANDLOCK_ACCESS_FS_##name
#define ACCESS_TRUNCATE  (UINT64_C(1) << 14) /* since version 3 */
#define ACCESS_IOCTL_DEV (UINT64_C(1) << 15) /* 5 */
#define NET_BIND         UINT64_C(1)         /* 4 */
#define NET_CONNECT      UINT64_C(2)
#define RULE_PORT        2
#define SCOPE_ALL        UINT64_C(3) /* 6: abstract sockets, signals */
#define VERSION_NETWORK  4
#define VERSION_SCOPE    6

struct ruleset {
	uint64_t files, network, scoped;
};

struct port_rule {
	uint64_t access, port;
};

#define FILE_READ  ACCESS(READ_FILE)
#define FILE_WRITE (FILE_READ | ACCESS(WRITE_FILE) | ACCESS_TRUNCATE)
#define TREE_READ  (FILE_READ | ACCESS(READ_DIR))
#define TREE_WRITE                                                                              \
	(TREE_READ | FILE_WRITE | ACCESS(REMOVE_DIR) | ACCESS(REMOVE_FILE) | ACCESS(MAKE_DIR) | \
		ACCESS(MAKE_REG) | ACCESS(REFER))

/* All rights that a version of the interface knows: what is not granted by a rule is denied. */
static uint64_t handled(long version) {
	uint64_t all = (ACCESS(MAKE_SYM) << 1) - 1;

	if (version >= 2)
		all |= ACCESS(REFER);
	if (version >= 3)
		all |= ACCESS_TRUNCATE;
	if (version >= 5)
		all |= ACCESS_IOCTL_DEV;
	return all;
}

static uint64_t wanted(enum sandbox_access access, bool directory) {
	switch (access) {
	case SANDBOX_READ:
		return directory ? TREE_READ : FILE_READ;
	case SANDBOX_READ_FILES:
		return FILE_READ;
	case SANDBOX_WRITE:
		return directory ? TREE_WRITE : FILE_WRITE;
	}
	return 0;
}

static int add_path(
	int rules, const struct sandbox_path *path, uint64_t known, struct cede_error *reterr) {
	CLEANUP(fd_closep) int fd = openat(AT_FDCWD, path->path, O_PATH | O_CLOEXEC);
	struct stat st;

	if (fd < 0 && (errno == ENOENT || errno == ENOTDIR || errno == EACCES))
		return CEDE_OK; /* not there: then it stays shut */
	if (fd < 0)             /* it may be there, and be missed later */
		return CEDE_FAIL_SYS(reterr, "sandbox: %s", path->path);
	if (fstat(fd, &st) < 0)
		return CEDE_FAIL_SYS(reterr, "sandbox: %s", path->path);
	const struct landlock_path_beneath_attr rule = {
		.allowed_access = wanted(path->access, S_ISDIR(st.st_mode)) & known, .parent_fd = fd};
	if (syscall(SYS_landlock_add_rule, rules, LANDLOCK_RULE_PATH_BENEATH, &rule, 0) < 0)
		return CEDE_FAIL_SYS(reterr, "sandbox: rule for %s", path->path);
	return CEDE_OK;
}

static int add_rules(int rules, const struct sandbox_profile *profile, const struct ruleset *set,
	struct cede_error *reterr) {
	for (size_t i = 0; i < profile->path_count; i++)
		CEDE_TRY(add_path(rules, &profile->paths[i], set->files, reterr));
	for (size_t i = 0; set->network != 0 && i < profile->connect_port_count; i++) {
		const struct port_rule rule = {NET_CONNECT, profile->connect_ports[i]};
		if (syscall(SYS_landlock_add_rule, rules, RULE_PORT, &rule, 0) < 0)
			return CEDE_FAIL_SYS(
				reterr, "sandbox: rule for port %u", profile->connect_ports[i]);
	}
	return CEDE_OK;
}

static void note(struct sandbox_report *report, enum sandbox_layer layer, bool on, const char *why) {
	if (on)
		report->on |= 1U << layer;
	else
		report->missing |= 1U << layer;
	report->why[layer] = on ? NULL : why;
}

int sandbox_landlock(const struct sandbox_profile *profile, struct sandbox_report *report,
	struct cede_error *reterr) {
	const char *none = SANDBOX_SANITIZED
		? "a build with sanitizers"
		: "the kernel has no Landlock, or it is not switched on (lsm=landlock,...)";
	long version = SANDBOX_SANITIZED
		? 0
		: syscall(SYS_landlock_create_ruleset, NULL, 0, LANDLOCK_CREATE_RULESET_VERSION);

	note(report, SANDBOX_LANDLOCK, version >= 1, none);
	note(report, SANDBOX_LANDLOCK_NETWORK, version >= VERSION_NETWORK,
		version < 1 ? none : "the kernel's Landlock knows no ports: Linux 6.7 does");
	note(report, SANDBOX_LANDLOCK_SCOPE, version >= VERSION_SCOPE,
		version < 1 ? none : "the kernel's Landlock knows no signals: Linux 6.12 does");
	if (version < 1)
		return CEDE_OK;
	const struct ruleset set = {.files = handled(version),
		.network = version >= VERSION_NETWORK ? NET_BIND | NET_CONNECT : 0,
		.scoped = version >= VERSION_SCOPE ? SCOPE_ALL : 0};
	/* an older kernel takes a longer structure whose end is zero */
	CLEANUP(fd_closep)
	int rules = (int)syscall(SYS_landlock_create_ruleset, &set, sizeof set, 0);
	if (rules < 0)
		return CEDE_FAIL_SYS(reterr, "sandbox: Landlock");
	CEDE_TRY(add_rules(rules, profile, &set, reterr));
	if (syscall(SYS_landlock_restrict_self, rules, 0) < 0)
		return CEDE_FAIL_SYS(reterr, "sandbox: Landlock for %s", profile->name);
	return CEDE_OK;
}
