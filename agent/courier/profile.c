/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/courier/profile.h"

#include <linux/sockios.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include "base/check.h"

static const struct sandbox_call own_calls[] = {
	SANDBOX_CALL_IF("socket", 0, AF_INET),
	SANDBOX_CALL_IF("socket", 0, AF_INET6),
	SANDBOX_CALL("connect"), /* TCP: Landlock says to which ports */
	SANDBOX_CALL("accept4"), /* of the metrics page; there is no bind and no listen */
	SANDBOX_CALL("accept"),
	SANDBOX_CALL("sendmmsg"), /* the resolver's pairs of questions */
	SANDBOX_CALL_IF("socketpair", 0, AF_UNIX),
	SANDBOX_CALL("select"),
	SANDBOX_CALL("pselect6"),
	SANDBOX_CALL_IF("ioctl", 1, SIOCOUTQ),
	/* the resolver's files, and what is not there any more */
	SANDBOX_CALL("openat"),
	SANDBOX_CALL("access"),
	SANDBOX_CALL("faccessat"),
	SANDBOX_CALL("stat"),
	SANDBOX_CALL("getdents64"),
	{NULL, NULL, 0, 0, 0},
};

const struct sandbox_call *const courier_calls[] = {
	sandbox_calls_basic, sandbox_calls_messages, own_calls, NULL};

/* How names are looked up; none is secret. One that is replaced meanwhile stays shut: the keeper
 * starts the courier afresh when names are not found for long. Modules of the name service are not
 * there: files and dns are built into the C library, and glibc passes over what it cannot load. */
static const struct sandbox_path resolver[] = {{"/etc/resolv.conf", SANDBOX_READ},
	{"/etc/hosts", SANDBOX_READ}, {"/etc/nsswitch.conf", SANDBOX_READ},
	{"/etc/host.conf", SANDBOX_READ}, {"/etc/gai.conf", SANDBOX_READ}};

int courier_enter(const uint16_t *ports, size_t port_count, struct sandbox_report *report,
	struct cede_error *reterr) {
	const struct sandbox_profile profile = {.name = "courier",
		.calls = courier_calls,
		.own_user = true,
		.paths = resolver,
		.path_count = ARRAY_LENGTH(resolver),
		.connect_ports = ports,
		.connect_port_count = port_count};

	return sandbox_enter(&profile, report, reterr);
}
