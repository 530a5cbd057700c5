/* SPDX-License-Identifier: Apache-2.0
 * What the files of purge share. */
#pragma once

#include <openssl/types.h>

#include "agent/config.h"
#include "agent/ledger/ledger.h"
#include "agent/purge/purge.h"
#include "agent/purge/tally.h"
#include "agent/trust.h"
#include "certs/seal.h"

#define PURGE_BATCH 1024

#define EARLIER_MOST 16 /* that are told of */

/* A purge that began to wipe and did not come to its end. */
struct earlier_run {
	int64_t begun_ns;
	char detail[160]; /* of the ledger's purge-begun */
};

enum output_which {
	OUTPUT_CERTIFICATE,
	OUTPUT_DETAILS,
	OUTPUT_PAGE,
	OUTPUT_LEDGER, /* its first part */
	OUTPUT_COUNT
};

/* A file that the purge makes. */
struct output {
	char *path;       /* NULL: not asked for */
	const char *name; /* its last part */
	char aside[32];   /* the name that it has beside it meanwhile */

	enum { OUTPUT_NONE, OUTPUT_NAMED, OUTPUT_ASIDE } state;

	mode_t mode;
	off_t room;
	int dir_fd, fd;
};

struct purge {
	const struct purge_options *options;
	struct agent_config *config;
	struct trusted_policy *trusted;
	const struct policy *policy; /* of trusted */
	struct ledger *ledger;
	EVP_PKEY *key; /* the host's: signs the certificate */
	char host[HOST_ID_MAX + 1];
	struct sealer_keys *copy_to;
	int *source_fds;    /* -1: closed again, for a vault's key to go */
	const char **names; /* of each source: what became of names in its journal */
	const char *state_names;
	struct output outputs[OUTPUT_COUNT];
	bool no_way_back; /* the ledger is being wiped: can't be run again */
	struct earlier_run earlier[EARLIER_MOST];
	size_t earlier_count;
	struct tally tally;
	struct purge_left left;
	int64_t begun_ns, ended_ns;
	uint64_t handed_over; /* captures with a receipt, in all the ledger's time */
	uint64_t ledger_sequence;
	uint8_t ledger_hash[32];
	bool has_copy;
	uint8_t copy_sha256[32];
	uint32_t copy_parts;
	uint8_t details_sha256[32];
};

#define POLICY_NAME_SIZE 65

/* ---- captures.c */
/* Counts what has no proof, what a hold covers, and bundles that wait for their receipts. */
CEDE_MUST_USE int purge_count_left(struct purge *p, struct cede_error *reterr);
/* The purges before this one: what they wiped is not in this one's tally. */
CEDE_MUST_USE int purge_find_earlier(struct purge *p, struct cede_error *reterr);
/* Live captures that purge_sources() did not meet. */
CEDE_MUST_USE int purge_missing(struct purge *p, struct cede_error *reterr);
/* Bundles in the spool without a receipt: listed with the captures that are in no other place. */
CEDE_MUST_USE int purge_bundles(struct purge *p, struct cede_error *reterr);

/* ---- files.c */
enum tally_what purge_what(enum capture_state state);
/* Every file below the sources; captures are in the ledger as `wiping` before they are touched. */
CEDE_MUST_USE int purge_sources(struct purge *p, struct cede_error *reterr);
/* Of a source, one directory; key: its name in the ledger. */
CEDE_MUST_USE int purge_place(
	struct purge *p, int fd, const char *source, const char *key, struct cede_error *reterr);
/* Counts in left.refused the files of a source's directory that the policy wants and of which the
 * ledger has no live capture: the hand-over refused them, or did not get to them. */
CEDE_MUST_USE int purge_count_place(
	struct purge *p, int fd, const char *source, const char *key, struct cede_error *reterr);
/* The same in every source, and in the stores of vaults. */
CEDE_MUST_USE int purge_count_refused(struct purge *p, struct cede_error *reterr);
/* Everything below the state directory; the ledger is closed. */
CEDE_MUST_USE int purge_state(struct purge *p, struct cede_error *reterr);
/* Empties the journals: names stay in them otherwise. */
void purge_names(struct purge *p);
CEDE_MUST_USE int purge_key(struct purge *p, struct cede_error *reterr);

/* ---- vaults.c */
CEDE_MUST_USE int purge_count_stores(struct purge *p, struct cede_error *reterr);
/* Every file in the stores of vaults. */
CEDE_MUST_USE int purge_stores(struct purge *p, struct cede_error *reterr);
/* The keys of all epochs; the sources are closed. */
CEDE_MUST_USE int purge_vault_keys(struct purge *p, struct cede_error *reterr);

/* ---- copy.c */
/* Seals ledger.db (closed) to the agency: FILE, FILE.2 ... of at most 48 MiB of zstd each. */
CEDE_MUST_USE int purge_copy_ledger(struct purge *p, struct cede_error *reterr);

/* ---- outputs.c */
/* Makes every file that is asked for, empty, with the room it needs, under another name in its
 * directory. INPUT: one can't be made, is there, is another one, or lies where everything is wiped;
 * none is left. */
CEDE_MUST_USE int outputs_reserve(struct purge *p, struct cede_error *reterr);
/* Room on the disk for o->room bytes behind what is written. */
CEDE_MUST_USE int output_make_room(const struct output *o, struct cede_error *reterr);
CEDE_MUST_USE int output_write(struct output *o, struct slice content, struct cede_error *reterr);
/* What is written becomes durable and gets its own name, unless something has it. */
CEDE_MUST_USE int output_publish(struct output *o, struct cede_error *reterr);
/* The name of part 2, 3 ... of the ledger's copy; NULL: no memory. */
char *output_part(const struct output *o, uint32_t part);
/* Closes them; unless there is no way back they are removed. */
void outputs_done(struct purge *p);

/* ---- certificate.c */
CEDE_MUST_USE int purge_certify(struct purge *p, struct cede_error *reterr);
