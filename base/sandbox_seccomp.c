/* SPDX-License-Identifier: Apache-2.0 */
#include <seccomp.h>
#include <string.h>
#include <unistd.h>

#include "base/check.h"
#include "base/cleanup.h"
#include "base/sandbox.h"
#include "base/sandbox_internal.h"

/* What none of our programs ever does and an intruder would: the process ends there and then, and
 * the system's log says so. Everything else that is not on a list fails with ENOSYS, which
 * libraries take for an older kernel: a new version that tries something better falls back. */
static const char *const deadly[] = {"execve", "execveat", "ptrace", "process_vm_readv",
	"process_vm_writev", "open_by_handle_at", "mount", "move_mount", "open_tree", "umount2",
	"pivot_root", "chroot", "setns", "unshare", "bpf", "perf_event_open", "init_module",
	"finit_module", "delete_module", "kexec_load", "kexec_file_load", "reboot", "swapon",
	"swapoff", "add_key", "request_key", "keyctl", "userfaultfd", "pidfd_getfd", "kcmp",
	"setuid", "setgid", "setresuid", "setresgid", "setgroups", "capset", "io_uring_setup", NULL};

const char *const *sandbox_deadly_calls(void) {
	return deadly;
}

static void releasep(scmp_filter_ctx *filter) {
	if (*filter != NULL)
		seccomp_release(*filter);
	*filter = NULL;
}

/* 0 or a negative errno, as the library has it. */
static int allow(scmp_filter_ctx filter, const struct sandbox_call *call) {
	int number = seccomp_syscall_resolve_name(call->name);

	if (number == __NR_SCMP_ERROR || number < 0)
		return 0; /* not of this architecture */
	if (call->what == NULL)
		return seccomp_rule_add(filter, SCMP_ACT_ALLOW, number, 0);
	uint64_t value = call->value == SANDBOX_SELF ? (uint64_t)getpid() : call->value;
	const struct scmp_arg_cmp is = {.arg = call->argument,
		.op = SCMP_CMP_MASKED_EQ,
		.datum_a = call->mask,
		.datum_b = value};
	return seccomp_rule_add_array(filter, SCMP_ACT_ALLOW, number, 1, &is);
}

static int fill(scmp_filter_ctx filter, const struct sandbox_profile *profile) {
	int r = seccomp_attr_set(filter, SCMP_FLTATR_CTL_TSYNC, 1);

	for (size_t i = 0; r == 0 && deadly[i] != NULL; i++) {
		int number = seccomp_syscall_resolve_name(deadly[i]);
		if (number >= 0)
			r = seccomp_rule_add(filter, SCMP_ACT_KILL_PROCESS, number, 0);
	}
	for (size_t i = 0; r == 0 && profile->calls[i] != NULL; i++)
		for (const struct sandbox_call *c = profile->calls[i]; r == 0 && c->name != NULL; c++)
			r = allow(filter, c);
	return r;
}

int sandbox_seccomp(const struct sandbox_profile *profile, struct sandbox_report *report,
	struct cede_error *reterr) {
	if (SANDBOX_SANITIZED) {
		report->missing |= 1U << SANDBOX_SECCOMP;
		report->why[SANDBOX_SECCOMP] = "a build with sanitizers";
		return CEDE_OK;
	}
	CLEANUP(releasep) scmp_filter_ctx filter = seccomp_init(SCMP_ACT_ERRNO(ENOSYS));

	if (filter == NULL)
		return CEDE_FAIL_MEMORY(reterr);
	int r = fill(filter, profile);
	if (r == 0)
		r = seccomp_load(filter);
	/* the library says ECANCELED for what the kernel refused: a kernel without filters */
	if (r == -ECANCELED || r == -EOPNOTSUPP || r == -ENOSYS) {
		report->missing |= 1U << SANDBOX_SECCOMP;
		report->why[SANDBOX_SECCOMP] = "the kernel takes no filter of system calls";
		return CEDE_OK;
	}
	if (r < 0) {
		errno = -r;
		return CEDE_FAIL_SYS(reterr, "sandbox: list of system calls of %s", profile->name);
	}
	report->on |= 1U << SANDBOX_SECCOMP;
	return CEDE_OK;
}
