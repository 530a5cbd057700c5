/* SPDX-License-Identifier: Apache-2.0
 * What a process gives up before it touches anything that comes from outside. Each program hands
 * its profile over as data (agent/core/profile.c, agent/courier/profile.c, receiver/profile.c).
 *
 * Promise what was given up never comes back, for no thread that starts later. A layer that the
 * kernel does not have is told (struct sandbox_report) and never passed over in silence. Thread the
 * first one, while it is the only one: Landlock and capabilities bind the calling thread. Fails BUG
 * (threads are there already, a profile that makes no sense), IO (the kernel refused what it has).
 *
 * To let a program make another system call, add a line to its list: the name, or the name with the
 * argument's values that are meant (`ioctl`, `prctl`, `socket`: never the bare name). Then
 * tests/golden/seccomp-PROGRAM.txt has to say the same, and tests/sandbox/ shows that the call is
 * needed. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

/* id, name (policy, log, metrics) */
#define SANDBOX_LAYERS(X)                                                                        \
	X(NO_NEW_PRIVILEGES, "no-new-privileges")                                                \
	X(UNDUMPABLE, "undumpable")             /* no debugger of the same user, no core file */ \
	X(CAPABILITIES, "capabilities")         /* cut to the profile's */                       \
	X(USER, "own-user")                     /* not root */                                   \
	X(LOCKED_MEMORY, "locked-memory")       /* nothing of it is swapped out */               \
	X(SECCOMP, "seccomp")                   /* a list of system calls */                     \
	X(LANDLOCK, "landlock")                 /* files */                                      \
	X(LANDLOCK_NETWORK, "landlock-network") /* TCP ports */                                  \
	X(LANDLOCK_SCOPE, "landlock-scope")     /* signals and abstract sockets of others */

enum sandbox_layer {

#define X(id, name) SANDBOX_##id,
	SANDBOX_LAYERS(X)
#undef X
		SANDBOX_LAYER_COUNT
};

const char *sandbox_layer_name(enum sandbox_layer layer);
/* INPUT: there is none of this name. */
int sandbox_layer_parse(const char *name, enum sandbox_layer *ret);

/* Bits: 1 << enum sandbox_layer. A layer in neither is not part of the profile. */
struct sandbox_report {
	uint32_t on;
	uint32_t missing;
	const char *why[SANDBOX_LAYER_COUNT]; /* static text, where missing; may be NULL */
};

/* The names of the layers in the set, "a,b"; "-" for none. */
#define SANDBOX_TEXT_SIZE 192
void sandbox_text(uint32_t set, char ret[SANDBOX_TEXT_SIZE]);

/* ---- profiles */

/* A system call that is allowed, always or where (argument & mask) == value. A name that the
 * library does not know is of another architecture: left out. */
struct sandbox_call {
	const char *name;
	const char *what; /* NULL: any arguments; else the meaning of the comparison, for people */
	unsigned argument;
	uint64_t mask;
	uint64_t value;
};

#define SANDBOX_CALL(name) \
	{ (name), NULL, 0, 0, 0 }
#define SANDBOX_CALL_IF(name, n, constant) \
	{ (name), #constant, (n), UINT32_MAX, (uint32_t)(constant) }
#define SANDBOX_CALL_MASK(name, n, text, m, is) \
	{ (name), (text), (n), (m), (is) }
/* The argument is this process. */
#define SANDBOX_SELF UINT64_MAX
#define SANDBOX_CALL_SELF(name, n) \
	{ (name), "itself", (n), UINT32_MAX, SANDBOX_SELF }

enum sandbox_access {
	SANDBOX_READ,  /* files, and listing directories */
	SANDBOX_WRITE, /* READ, and changing, making and removing files, directories and names */
	SANDBOX_READ_FILES, /* READ without listing */
};

struct sandbox_path {
	const char *path;
	enum sandbox_access access;
};

struct sandbox_profile {
	const char *name;
	const struct sandbox_call *const *calls; /* lists, each ends with a name of NULL; NULL ends all */
	uint64_t capabilities;                   /* 1 << CAP_...: kept where they are there */
	bool own_user;                           /* is not to run as root */
	/* What can be opened by name; what is not there is left out. A rule holds for the directory
	 * that is there now: another one that takes its name later is not meant. */
	const struct sandbox_path *paths;
	size_t path_count;
	const uint16_t *connect_ports; /* TCP; no other is connected to, and none is bound */
	size_t connect_port_count;
};

/* First of all in main(): no core file, no debugger, no privileges through exec. */
CEDE_MUST_USE int sandbox_begin(struct sandbox_report *report, struct cede_error *reterr);
/* For what this process starts as well: the capabilities that are kept. */
CEDE_MUST_USE int sandbox_capabilities(
	uint64_t keep, struct sandbox_report *report, struct cede_error *reterr);
/* The profile, whole: capabilities, locked memory, Landlock, seccomp. */
CEDE_MUST_USE int sandbox_enter(const struct sandbox_profile *profile,
	struct sandbox_report *report, struct cede_error *reterr);
/* Says in the log what is on and what is missing. */
void sandbox_say(const char *program, const struct sandbox_report *report);

/* Whether mlockall() of what is to come does no harm: under a limit later allocations would fail. */
bool sandbox_may_lock_memory(void);

/* The parts of sandbox_enter(). */
CEDE_MUST_USE int sandbox_landlock(const struct sandbox_profile *profile,
	struct sandbox_report *report, struct cede_error *reterr);
CEDE_MUST_USE int sandbox_seccomp(const struct sandbox_profile *profile,
	struct sandbox_report *report, struct cede_error *reterr);
/* The calls that end the process, whatever the profile says; the list ends with NULL. */
const char *const *sandbox_deadly_calls(void);

/* ---- lists that several programs have (base/sandbox_calls.c) */

extern const struct sandbox_call sandbox_calls_basic[];    /* memory, threads, time, what is open */
extern const struct sandbox_call sandbox_calls_files[];    /* names; Landlock says which */
extern const struct sandbox_call sandbox_calls_messages[]; /* sockets that are open */
