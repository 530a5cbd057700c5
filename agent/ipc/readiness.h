/* SPDX-License-Identifier: Apache-2.0
 * What must be in order for the agent to be ready: keeper and courier count them the same way.
 * The keeper judges; the courier only says it (/readyz, docs/runbook.md). */
#pragma once

/* id, name (metric label, line of /readyz, section of the runbook), what is wrong when it is not met */
#define CONDITIONS(X)                                                                          \
	X(RECOVERED, "recovered", "what was under way before the start is not known yet")      \
	X(POLICY, "policy", "the policy has expired: nothing is handed over or wiped")         \
	X(RELOAD, "reload", "the policy that was published last was refused")                  \
	X(LEDGER, "ledger", "the ledger can't be written: nothing moves")                      \
	X(LINK, "link", "the last try at a destination failed: no link, or a refused receipt") \
	X(IDENTITY, "identity", "the host's certificate is not valid now")                     \
	X(SOURCES, "sources", "the directory of a source is not there, or is another")         \
	X(SEAL, "seal", "a sealing certificate is over: nothing is sealed to its destination") \
	X(SPOOL, "spool", "the spool is full: captures stay in the clear")                     \
	X(AGE, "age", "a capture in the clear is, or may be, older than its source's max_age")

enum condition {

#define X(id, name, text) CONDITION_##id,
	CONDITIONS(X)
#undef X
		CONDITION_COUNT
};

#define CONDITION_BIT(condition) (1U << (condition))
