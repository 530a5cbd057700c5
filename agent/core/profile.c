/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/core/profile.h"

#include <fcntl.h>
#include <linux/capability.h>
#include <linux/fiemap.h>
#include <linux/fs.h>
#include <linux/fscrypt.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>

#include "base/check.h"
#include "base/cleanup.h"

#define MOUNTINFO "/proc/self/mountinfo"
#define CAP(name) (1ULL << CAP_##name)

/* linux/ext4.h is no user header */
#define EXT4_IOC_CHECKPOINT _IOW('f', 43, __u32)

/* Captures belong to the camera's user: to read, overwrite and unlink them, to take leases on them.
 * ext4 lets its journal be emptied (EXT4_IOC_CHECKPOINT) under SYS_ADMIN alone; what else that
 * capability is used for, mounts and namespaces above all, the list of system calls shuts. IPC_LOCK
 * keeps plaintext and keys out of the swap. */
const uint64_t keeper_capabilities = CAP(DAC_OVERRIDE) | CAP(DAC_READ_SEARCH) | CAP(FOWNER) |
	CAP(LEASE) | CAP(SYS_ADMIN) | CAP(IPC_LOCK);

/* To make a vault's directories as the camera's user had them; not kept where there is none. */
#define VAULT_CAPABILITIES CAP(CHOWN)

static const struct sandbox_call own_calls[] = {
	/* no socket, no connect, no bind: what it talks through was open before */
	SANDBOX_CALL("accept4"), /* of the status socket */
	SANDBOX_CALL("inotify_add_watch"),
	SANDBOX_CALL("inotify_rm_watch"),
	SANDBOX_CALL("inotify_init1"),
	SANDBOX_CALL("wait4"),
	SANDBOX_CALL("waitid"),
	SANDBOX_CALL("flistxattr"), /* what a camera noted of a file: overwritten, removed */
	SANDBOX_CALL("fgetxattr"),
	SANDBOX_CALL("fsetxattr"),
	SANDBOX_CALL("fremovexattr"),
	SANDBOX_CALL("name_to_handle_at"),
	/* storage */
	SANDBOX_CALL_IF("ioctl", 1, FS_IOC_FIEMAP),
	SANDBOX_CALL_IF("ioctl", 1, FS_IOC_GETFLAGS),
	SANDBOX_CALL_IF("ioctl", 1, FS_IOC_SETFLAGS),
	SANDBOX_CALL_IF("ioctl", 1, EXT4_IOC_CHECKPOINT),
	/* vaults */
	SANDBOX_CALL_IF("ioctl", 1, FS_IOC_ADD_ENCRYPTION_KEY),
	SANDBOX_CALL_IF("ioctl", 1, FS_IOC_REMOVE_ENCRYPTION_KEY),
	SANDBOX_CALL_IF("ioctl", 1, FS_IOC_GET_ENCRYPTION_KEY_STATUS),
	SANDBOX_CALL_IF("ioctl", 1, FS_IOC_SET_ENCRYPTION_POLICY),
	SANDBOX_CALL_IF("ioctl", 1, FS_IOC_GET_ENCRYPTION_POLICY_EX),
	{NULL, NULL, 0, 0, 0},
};

const struct sandbox_call *const keeper_calls[] = {
	sandbox_calls_basic, sandbox_calls_files, sandbox_calls_messages, own_calls, NULL};

struct place_id {
	dev_t dev;
	ino_t ino; /* 0: it was not there */
};

struct profile {
	struct sandbox_path *paths; /* their texts are ours */
	struct place_id *ids;       /* what was at each of them */
	size_t count;
	uint64_t capabilities;
	int mountinfo;       /* open, so that the name stays the file that the rule is for */
	size_t first_source; /* those before it are no places for captures */
};

static int add(struct profile *p, char *path /* taken */, enum sandbox_access access,
	struct cede_error *reterr) {
	struct sandbox_path *paths =
		path == NULL ? NULL : reallocarray(p->paths, p->count + 1, sizeof *paths);

	if (paths == NULL) {
		free(path);
		return CEDE_FAIL_MEMORY(reterr);
	}
	p->paths = paths;
	struct place_id *ids = reallocarray(p->ids, p->count + 1, sizeof *ids);
	struct stat st;
	if (ids == NULL) {
		free(path);
		return CEDE_FAIL_MEMORY(reterr);
	}
	p->ids = ids;
	ids[p->count] = stat(path, &st) == 0 ? (struct place_id){st.st_dev, st.st_ino}
					     : (struct place_id){0, 0};
	p->paths[p->count++] = (struct sandbox_path){path, access};
	return CEDE_OK;
}

/* The directory that a path lies in: files are replaced by others under their name. */
static char *directory_of(const char *path) {
	const char *slash = strrchr(path, '/');

	return slash == NULL ? strdup(".")
			     : strndup(path, slash == path ? 1 : (size_t)(slash - path));
}

static int add_directory_of(struct profile *p, const char *path, struct cede_error *reterr) {
	return add(p, directory_of(path), SANDBOX_READ_FILES, reterr);
}

/* Files that the policy names, relative to itself. */
static int add_named(
	struct profile *p, const char *policy_path, const char *name, struct cede_error *reterr) {
	CLEANUP(freep) char *directory = directory_of(policy_path);
	CLEANUP(freep) char *full = NULL;

	if (strchr(name, '/') == NULL)
		return CEDE_OK; /* beside it */
	if (name[0] == '/')
		return add_directory_of(p, name, reterr);
	if (directory == NULL || asprintf(&full, "%s/%s", directory, name) < 0)
		return CEDE_FAIL_MEMORY(reterr);
	return add_directory_of(p, full, reterr);
}

static int add_destination(struct profile *p, const char *policy_path,
	const struct policy_destination *d, struct cede_error *reterr) {
	CEDE_TRY(add_named(p, policy_path, d->ca, reterr));
	for (size_t i = 0; i < d->seal_to_count; i++)
		CEDE_TRY(add_named(p, policy_path, d->seal_to[i], reterr));
	for (size_t i = 0; i < d->receipt_count; i++)
		CEDE_TRY(add_named(p, policy_path, d->receipts[i], reterr));
	return CEDE_OK;
}

static bool is_below(const char *path, const char *top) {
	size_t n = strlen(top);

	return strncmp(path, top, n) == 0 &&
		(path[n] == 0 || path[n] == '/' || (n == 1 && top[0] == '/'));
}

/* A rule holds for the directory that is there now. Cameras' directories are renamed and made anew,
 * and disks are mounted and unmounted under them: so the directory above is let in as well, unless
 * the system keeps things of its own there (/, /srv, /home, /var/spool ...). */
static bool is_systems(const char *directory) {
	static const char *const tops[] = {"/bin", "/boot", "/dev", "/etc", "/lib", "/proc",
		"/root", "/run", "/sbin", "/sys", "/usr", "/var"};
	size_t depth = 0;

	for (const char *c = directory; *c != 0; c++)
		depth += *c == '/' && c[1] != 0;
	if (depth < 2)
		return true;
	for (size_t i = 0; i < ARRAY_LENGTH(tops); i++)
		if (is_below(directory, tops[i]))
			return depth < 3;
	return false;
}

static int add_source(struct profile *p, const struct policy_source *s, struct cede_error *reterr) {
	CLEANUP(freep) char *parent = directory_of(s->path);

	if (parent == NULL)
		return CEDE_FAIL_MEMORY(reterr);
	if (s->vault_epoch_ns > 0 && strcmp(parent, "/") != 0) {
		/* It is exchanged for another there. No rule for the directory itself: a rule keeps
		 * hold of it in the kernel, and its key could never go. */
		p->capabilities |= VAULT_CAPABILITIES;
		return add(p, CEDE_TAKE(parent), SANDBOX_WRITE, reterr);
	}
	CEDE_TRY(add(p, strdup(s->path), SANDBOX_WRITE, reterr));
	if (!is_systems(parent))
		CEDE_TRY(add(p, CEDE_TAKE(parent), SANDBOX_WRITE, reterr));
	return CEDE_OK;
}

static int add_all(struct profile *p, const struct policy *policy,
	const struct agent_config *config, const char *policy_path, struct cede_error *reterr) {
	CEDE_TRY(add(p, strdup(config->state), SANDBOX_WRITE, reterr));
	CEDE_TRY(add(p, directory_of(policy_path), SANDBOX_READ, reterr));
	CEDE_TRY(add_directory_of(p, config->certificate, reterr));
	CEDE_TRY(add_directory_of(p, config->key, reterr));
	if (config->vault_key != NULL)
		CEDE_TRY(add_directory_of(p, config->vault_key, reterr));
	for (size_t i = 0; i < config->policy_signer_count; i++)
		CEDE_TRY(add_directory_of(p, config->policy_signers[i], reterr));
	for (size_t i = 0; i < policy->destination_count; i++)
		CEDE_TRY(add_destination(p, policy_path, &policy->destinations[i], reterr));
	CEDE_TRY(add(p, strdup("/dev/urandom"), SANDBOX_READ, reterr)); /* SQLite */
	CEDE_TRY(add(p, strdup(MOUNTINFO), SANDBOX_READ, reterr));
	p->first_source = p->count;
	for (size_t i = 0; i < policy->source_count; i++)
		CEDE_TRY(add_source(p, &policy->sources[i], reterr));
	return CEDE_OK;
}

int profile_new(const struct policy *policy, const struct agent_config *config,
	const char *policy_path, struct profile **ret, struct cede_error *reterr) {
	struct profile *p = calloc(1, sizeof *p);

	if (p == NULL)
		return CEDE_FAIL_MEMORY(reterr);
	p->capabilities = keeper_capabilities;
	p->mountinfo = openat(AT_FDCWD, MOUNTINFO, O_RDONLY | O_CLOEXEC);
	int r = add_all(p, policy, config, policy_path, reterr);
	if (r < 0) {
		profile_free(p);
		return r;
	}
	*ret = p;
	return CEDE_OK;
}

int profile_enter(const struct profile *p, struct sandbox_report *report, struct cede_error *reterr) {
	const struct sandbox_profile profile = {.name = "keeper",
		.calls = keeper_calls,
		.capabilities = p->capabilities,
		.paths = p->paths,
		.path_count = p->count};

	return sandbox_enter(&profile, report, reterr);
}

int profile_allows(const struct profile *p, const struct sandbox_report *report,
	const struct policy *policy, struct cede_error *reterr) {
	if ((report->on & 1U << SANDBOX_LANDLOCK) == 0)
		return CEDE_OK;
	for (size_t i = 0; i < policy->source_count; i++) {
		CLEANUP(freep) char *parent = directory_of(policy->sources[i].path);
		const char *path =
			policy->sources[i].vault_epoch_ns > 0 ? parent : policy->sources[i].path;
		bool found = false;
		if (path == NULL)
			return CEDE_FAIL_MEMORY(reterr);
		for (size_t k = p->first_source; k < p->count && !found; k++)
			found = is_below(path, p->paths[k].path);
		if (!found)
			return CEDE_FAIL(reterr, CEDE_ERR_REFUSED,
				"source %s: its directory lies outside of what the agent let itself into when it started, and that can't be widened: restart the agent",
				policy->sources[i].name);
	}
	return CEDE_OK;
}

static bool is_let_into(const struct profile *p, const struct stat *st) {
	for (size_t i = p->first_source; i < p->count; i++)
		if (p->ids[i].ino != 0 && p->ids[i].dev == st->st_dev && p->ids[i].ino == st->st_ino)
			return true;
	return false;
}

/* As the kernel does it: from the directory upwards, out of each mount into the directory above its
 * mount point. What can't be looked at counts as reached: nothing is said of it. */
static bool reaches(const struct profile *p, const char *path) {
	CLEANUP(fd_closep) int fd = openat(AT_FDCWD, path, O_PATH | O_DIRECTORY | O_CLOEXEC);
	struct stat st;
	struct stat below = {0};

	while (fd >= 0 && fstat(fd, &st) == 0) {
		if (is_let_into(p, &st))
			return true;
		if (st.st_dev == below.st_dev && st.st_ino == below.st_ino)
			return false; /* the root */
		below = st;
		int up = openat(fd, "..", O_PATH | O_DIRECTORY | O_CLOEXEC);
		fd_closep(&fd);
		fd = up;
	}
	return true;
}

int profile_reaches(const struct profile *p, const struct sandbox_report *report,
	const struct policy_source *source, struct cede_error *reterr) {
	if ((report->on & 1U << SANDBOX_LANDLOCK) == 0 || reaches(p, source->path))
		return CEDE_OK;
	return CEDE_FAIL(reterr, CEDE_ERR_REFUSED,
		"source %s: its directory is another than the one that the agent let itself into when it started (a file system was mounted above it), and that can't be widened: restart the agent",
		source->name);
}

int profile_satisfies(const struct sandbox_report *report, const struct policy *policy,
	struct cede_error *reterr) {
	/* own-user is the courier's: the keeper reads other users' files */
	uint32_t lacking = policy->sandbox_require & ~report->on & ~(1U << SANDBOX_USER);
	char text[SANDBOX_TEXT_SIZE];

	if (lacking == 0)
		return CEDE_OK;
	sandbox_text(lacking, text);
	return CEDE_FAIL(reterr, CEDE_ERR_REFUSED,
		"the policy requires of the keeper's sandbox: %s; run a kernel that has it (sandbox.missing in the log says why it is not there)",
		text);
}

void profile_free(struct profile *p) {
	if (p == NULL)
		return;
	for (size_t i = 0; i < p->count; i++) {
		void *text;
		memcpy(&text, &p->paths[i].path, sizeof text);
		free(text);
	}
	free(p->paths);
	free(p->ids);
	fd_closep(&p->mountinfo);
	free(p);
}
