/* SPDX-License-Identifier: Apache-2.0
 * A policy that is, or is to be, in force, with everything that is made of it: sealing keys,
 * receipt keys, the courier's destinations. Made whole or not at all.
 *
 * Fails   INPUT (mistakes, printed to stderr line by line), REFUSED (signature, serial, keys), IO.
 * Thread  loop thread. */
#pragma once

#include "agent/config.h"
#include "agent/core/floor.h"
#include "agent/core/flow.h"
#include "agent/ledger/ledger.h"
#include "agent/send/link.h"
#include "agent/trust.h"
#include "formats/id.h"

struct inforce {
	struct trusted_policy *trusted;
	const struct policy *policy; /* of trusted */
	char host[HOST_ID_MAX + 1];
	struct buf certificate_pem; /* the host's */
	int64_t identity_from_ns;   /* its validity */
	int64_t identity_until_ns;
	uint8_t identity[32]; /* digest of its key */
	/* the earliest end of each destination's certificates; 0: can't be told */
	int64_t seal_until_ns[POLICY_DESTINATIONS_MAX];
	int64_t ca_until_ns[POLICY_DESTINATIONS_MAX];
	struct buf key_pem; /* given back once the courier has it: inforce_forget_key() */
	struct flow_destination_keys keys[POLICY_DESTINATIONS_MAX]; /* until a flow takes them */
	bool keys_taken;
};

struct inforce_want {
	const char *policy_path;
	const struct agent_config *config;
	bool is_unsigned; /* no signature is asked for */
	/* The agent starts: it may be that nothing has changed but the time. A sealing certificate
	 * that is over is taken; nothing is sealed to it, and everything else goes on. */
	bool starts;
	const struct floor *floor;
};

CEDE_MUST_USE int inforce_load(
	const struct inforce_want *want, struct inforce **ret, struct cede_error *reterr);
void inforce_free(struct inforce *f);
void inforce_freep(struct inforce **f);
void inforce_forget_key(struct inforce *f);
/* Borrowed from f. */
void inforce_destinations(
	const struct inforce *f, struct link_destination ret[POLICY_DESTINATIONS_MAX]);
/* Whether the courier would be told the same, in the same order. */
bool inforce_same_link(const struct inforce *a, const struct inforce *b);
/* Marks the destinations of f whose sealing keys or place are not those of before. */
void inforce_compare(struct inforce *f, const struct inforce *before);
/* Whether nothing at all differs: text, files, signature. */
bool inforce_same(const struct inforce *a, const struct inforce *b);
