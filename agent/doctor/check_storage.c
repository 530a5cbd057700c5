/* SPDX-License-Identifier: Apache-2.0
 * Where captures and the ledger lie: what a wipe achieves there, room, rights. */
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>

#include "agent/doctor/internal.h"
#include "agent/own_places.h"
#include "agent/vault_host.h"
#include "agent/wipe/storage.h"
#include "base/cleanup.h"
#include "base/file.h"
#include "policy/show.h"

#define MIB          (UINT64_C(1) << 20)
#define INODES_LEAST 1024
#define STORAGE_MEND \
	"let the camera write to ext4 (data=ordered) or xfs, or ask the agency for another wipe.require"

#define READ_ONLY_MEND \
	"mount it for writing; the kernel's log says why if it became read-only by itself"

/* Below so much the spool takes nothing more (agent/seal/spool.h). */
static void check_room(struct doctor *d, const char *check, const char *subject, int fd) {
	struct statvfs fs;

	if (fstatvfs(fd, &fs) < 0) {
		doctor_say(d, check, subject, DOCTOR_BROKEN, "look at the file system",
			"its free space can't be read: %s", strerror(errno));
		return;
	}
	uint64_t free_bytes = (uint64_t)fs.f_bavail * fs.f_frsize;
	uint64_t all = (uint64_t)fs.f_blocks * fs.f_frsize;
	unsigned percent = all == 0 ? 100 : (unsigned)(free_bytes * 100 / all);
	if (free_bytes < 64 * MIB || percent < 5)
		doctor_say(d, check, subject, DOCTOR_BROKEN,
			"make room on this file system, or use a larger one",
			"nearly full: %llu MiB free (%u %%)",
			(unsigned long long)(free_bytes / MIB), percent);
	else if (percent < 10)
		doctor_say(d, check, subject, DOCTOR_WEAK,
			"make room on this file system before it is full", "%llu MiB free (%u %%)",
			(unsigned long long)(free_bytes / MIB), percent);
	else if (fs.f_files > 0 && fs.f_favail < INODES_LEAST)
		doctor_say(d, check, subject, DOCTOR_BROKEN,
			"remove files, or make a file system with more inodes", "%llu inodes free",
			(unsigned long long)fs.f_favail);
	else
		doctor_say(d, check, subject, DOCTOR_OK, "", "%llu MiB free (%u %%)",
			(unsigned long long)(free_bytes / MIB), percent);
}

static bool is_read_only(int fd) {
	struct statvfs fs;

	return fstatvfs(fd, &fs) == 0 && (fs.f_flag & ST_RDONLY) != 0;
}

/* What overwriting is worth does not matter here: the key goes. */
static void check_vault(struct doctor *d, const struct policy_source *s) {
	char mend[1024];
	struct cede_error err = {0};

	if (vault_host_check(s, d->config, false, &err) == CEDE_OK) {
		doctor_say(d, "storage", s->name, DOCTOR_OK, "",
			"a vault: crypto-erased at the end of its epoch%s",
			vault_host_key_is_handed_over(s, d->config)
				? "; vault.key is handed over by the service manager: not to be had here"
				: "");
		return;
	}
	(void)snprintf(mend, sizeof mend,
		"see to that; cede vault init --policy %s --config %s makes the store and rehearses a turn",
		d->options->policy, d->options->config);
	doctor_say(d, "storage", s->name, DOCTOR_BROKEN, mend,
		"its vault can't be had here: %s; until it can, captures are overwritten", err.text);
}

static void check_wipe(struct doctor *d, const struct policy_source *s, int fd) {
	wipe_reasons reasons;
	char why[WIPE_REASONS_SIZE];
	enum wipe_level best = storage_directory(fd, s->wipe_scrub_ns != 0, &reasons);
	wipe_reasons_print(reasons, why);
	if (best < wipe_required(s->wipe_require))
		doctor_say(d, "storage", s->name, DOCTOR_BROKEN, STORAGE_MEND,
			"a wipe is %s here at best (%s), and the policy requires %s",
			wipe_level_name(best), why, wipe_require_name(s->wipe_require));
	else if (best < WIPE_OVERWRITTEN_CURRENT)
		doctor_say(d, "storage", s->name, DOCTOR_WEAK, STORAGE_MEND,
			"overwriting proves nothing here (%s)", why);
	else
		doctor_say(d, "storage", s->name, DOCTOR_OK, "", "a wipe is %s here at best",
			wipe_level_name(best));
}

static void check_source(struct doctor *d, const struct policy_source *s) {
	CLEANUP(fd_closep) int fd = -1;
	struct cede_error err;

	if (file_open_dir(AT_FDCWD, s->path, &fd, &err) < 0) {
		doctor_say(d, "storage", s->name, DOCTOR_BROKEN,
			doctor_mend(&err,
				"make the directory, or mount its file system, and let the agent's user in"),
			"%s", err.text);
		return;
	}
	if (is_read_only(fd))
		doctor_say(d, "storage", s->name, DOCTOR_BROKEN, READ_ONLY_MEND,
			"nothing can be wiped: its file system is mounted read-only");
	else if (s->vault_epoch_ns > 0)
		check_vault(d, s);
	else
		check_wipe(d, s, fd);
	check_room(d, "space", s->name, fd);
}

void check_sources(struct doctor *d) {
	for (size_t i = 0; d->policy != NULL && i < d->policy->source_count; i++)
		check_source(d, &d->policy->sources[i]);
}

/* The agent would not start, or would hand itself over. */
static void check_own_places(struct doctor *d) {
	struct cede_error err;

	for (size_t i = 0; d->policy != NULL && i < d->policy->source_count; i++)
		if (own_places_check(&d->policy->sources[i], d->options->policy, d->config, &err) < 0)
			doctor_say(d, "state", "", DOCTOR_BROKEN,
				"keep the captures' directories and cede's own apart", "%s",
				err.text);
}

/* A directory that is not there yet: whether the one above it has room for a name. */
static void check_to_come(struct doctor *d, const char *path) {
	CLEANUP(fd_closep) int fd = -1;
	char above[PATH_MAX];
	struct cede_error err;
	size_t n = strlen(path);

	while (n > 0 && path[n - 1] == '/')
		n--;
	while (n > 0 && path[n - 1] != '/')
		n--;
	(void)snprintf(above, sizeof above, "%.*s.", (int)n, path);
	if (file_open_dir(AT_FDCWD, above, &fd, &err) < 0)
		doctor_say(d, "state", path, DOCTOR_BROKEN,
			doctor_mend(&err, "make the directory above it"), "%s", err.text);
	else if (is_read_only(fd))
		doctor_say(d, "state", path, DOCTOR_BROKEN, READ_ONLY_MEND,
			"can't be made: the file system is mounted read-only");
	else
		doctor_say(d, "state", path, DOCTOR_OK, "", "the agent will make it");
}

static void check_state_directory(struct doctor *d) {
	const char *path = d->config->state;
	CLEANUP(fd_closep) int fd = -1;
	struct cede_error err;
	struct stat st;

	if (stat(path, &st) < 0 && errno == ENOENT) {
		check_to_come(d, path);
		return;
	}
	if (file_open_dir(AT_FDCWD, path, &fd, &err) < 0 || fstat(fd, &st) < 0) {
		doctor_say(d, "state", path, DOCTOR_BROKEN,
			doctor_mend(
				&err, "make it a directory of the agent's own user with mode 0700"),
			"%s", err.text);
		return;
	}
	wipe_reasons reasons;
	(void)storage_directory(fd, false, &reasons);
	if (is_read_only(fd))
		doctor_say(d, "state", path, DOCTOR_BROKEN, READ_ONLY_MEND,
			"no ledger can be kept: its file system is mounted read-only");
	else if ((st.st_mode & 077) != 0)
		doctor_say(d, "state", path, DOCTOR_BROKEN, "chmod 700 it",
			"others can look into it (mode %03o)", st.st_mode & 0777U);
	else if ((reasons & WIPE_BIT(NETWORK)) != 0)
		doctor_say(d, "state", path, DOCTOR_BROKEN, "move it to a local disk",
			"the ledger is not safe on a network file system");
	else if ((reasons & WIPE_BIT(MEMORY)) != 0)
		doctor_say(d, "state", path, DOCTOR_BROKEN, "move it to a disk",
			"the ledger is gone after a power failure: the file system is in memory");
	else
		doctor_say(d, "state", path, DOCTOR_OK, "", "the agent's alone, on a local disk");
	check_room(d, "space", path, fd);
}

void check_state(struct doctor *d) {
	check_state_directory(d);
	check_own_places(d);
}
