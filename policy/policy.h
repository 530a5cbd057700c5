/* SPDX-License-Identifier: Apache-2.0
 * The policy: what may go where, how old it may become, how it is wiped. One immutable struct, made
 * by policy_load() from a YAML file; strings live as long as the policy.
 *
 * Thread  immutable: any number of readers. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/address.h"
#include "base/bytes.h"
#include "base/error.h"

#define POLICY_FILE_MAX         262144
#define POLICY_SOURCES_MAX      256
#define POLICY_DESTINATIONS_MAX 16
#define POLICY_HOLDS_MAX        256
#define POLICY_GUARD_ALLOW_MAX  32
#define POLICY_CAPTURE_MAX      (UINT64_C(1) << 40) /* 1 TiB: more is no capture */
#define POLICY_BUNDLE_DEFAULT   (16U << 20)
#define POLICY_BUNDLE_MIN       (64U << 10)
#define POLICY_BUNDLE_MAX \
	(48U << 20) /* sealed plaintext is at most 64 MiB, frame and manifest included */

enum at_max_age { AT_MAX_AGE_HOLD, AT_MAX_AGE_SEAL, AT_MAX_AGE_DESTROY };

enum wipe_require {
	WIPE_REQUIRE_NONE,
	WIPE_REQUIRE_OVERWRITTEN,
	WIPE_REQUIRE_WATCHED,
	WIPE_REQUIRE_CRYPTO_ERASED
};

enum wipe_verify { WIPE_VERIFY_NONE, WIPE_VERIFY_SAMPLE, WIPE_VERIFY_ALL };

#define POLICY_SCRUB_DEFAULT_S 60
#define POLICY_SCRUB_MIN_S     1

struct policy_where { /* a place in policy.yaml; counted from 1 */
	uint32_t line;
	uint32_t column;
};

struct policy_pattern {
	char *text;
	struct policy_where where;
};

#define POLICY_RATE_MIN    (UINT64_C(32) << 10) /* bytes a second: a bundle must get through in time */
#define POLICY_WINDOWS_MAX 32

/* A span of the day, in UTC, in which another rate holds. */
struct policy_window {
	uint8_t days;          /* bit 0: Monday */
	uint32_t from_m, to_m; /* minutes since midnight: [from, to) */
	uint64_t rate;         /* bytes a second */
};

struct policy_destination {
	char *name;
	char *url;  /* as written, with a '/' at the end */
	char *host; /* of the URL */
	uint16_t port;
	char *ca;    /* paths as written, relative to the policy file */
	char **pins; /* "sha256//base64"; may be none */
	size_t pin_count;
	struct address_prefix *addresses; /* none: any */
	size_t address_count;
	char **seal_to;
	size_t seal_to_count;
	char **receipts;
	size_t receipt_count;
	uint64_t bundle_size;
	uint64_t rate; /* bytes a second; 0: no limit */
	struct policy_window *windows;
	size_t window_count;
	struct policy_where where;
};

struct policy_source {
	char *name;
	char *path; /* absolute */
	struct policy_pattern *match;
	size_t match_count;
	struct policy_pattern *ignore;
	size_t ignore_count;
	size_t destination; /* index */
	int64_t quiet_ns;
	bool grouped;         /* by stem: the name up to its last dot, in the same directory */
	char **group_require; /* endings with their dot: ".jpg" */
	size_t group_require_count;
	int64_t group_wait_ns;
	int64_t max_age_ns;
	enum at_max_age at_max_age;
	bool wipe_after_seal; /* false: after the receipt */
	enum wipe_require wipe_require;
	bool wipe_keep_below; /* a file whose wipe would be worth less is kept, not wiped */
	enum wipe_verify wipe_verify;
	int64_t wipe_scrub_ns;       /* the journal is emptied this long after a wipe; 0: never */
	uint64_t max_size;           /* bytes; larger files are refused */
	char *classification;        /* or "" */
	int64_t vault_epoch_ns;      /* how long a key encrypts; 0: no vault */
	bool vault_keys_in_memory;   /* a reboot destroys what was not handed over; else wrapped */
	bool vault_erases_leftovers; /* ignored files go with their epoch; else they keep it */
	struct policy_where where;
};

#define POLICY_EPOCH_MIN (INT64_C(1000000000)) /* ns */
#define POLICY_EPOCH_MAX (INT64_C(7) * 24 * 3600 * 1000000000)

/* A legal hold: what it covers is handed over and kept while it stands. */
struct policy_hold {
	char *id;
	char **sources; /* names; none: all */
	size_t source_count;
	struct policy_pattern *match; /* none: every path */
	size_t match_count;
	int64_t from_ns, to_ns; /* covers captures born in [from, to) */
	int64_t until_ns;       /* stands until then */
	struct policy_where where;
};

enum guard_mode {
	GUARD_OFF,     /* no key: nobody watches who opens captures */
	GUARD_REPORT,  /* everybody may; who is not allowed to is noted */
	GUARD_ENFORCE, /* who is not allowed to gets EPERM */
};

struct policy_guard_allow {
	char *exe;  /* absolute path of the program */
	char *user; /* that it must run as */
	struct policy_where where;
};

/* Which programs besides cede may open what is in the sources. */
struct policy_guard {
	enum guard_mode mode;
	struct policy_guard_allow *allow;
	size_t allow_count;
	struct policy_where where;
};

struct policy {
	char *id;
	uint64_t serial;
	int64_t expires_ns;
	struct policy_where expires_where;
	struct policy_destination *destinations;
	size_t destination_count;
	struct policy_source *sources;
	size_t source_count;
	int64_t unmatched_max_age_ns;
	struct policy_hold *holds;
	size_t hold_count;
	struct policy_guard guard;
	uint32_t sandbox_require; /* 1 << enum sandbox_layer */
	uint8_t sha256[32];       /* of the file */
};

/* Every mistake of one load, in order of place: "policy.yaml:12:3: ...". */
struct policy_mistakes {
	char **lines;
	size_t count;
};

void policy_mistakes_done(struct policy_mistakes *mistakes);

/* Reads and checks the whole file. INPUT: *ret_mistakes has at least one line (release it in any
 * case). IO: the file could not be read. Named files (CA, certificates, keys) are not opened here. */
CEDE_MUST_USE int policy_load(const char *path, struct policy **ret,
	struct policy_mistakes *ret_mistakes, struct cede_error *reterr);
/* The same from memory; name stands in the messages. Fuzzed. */
CEDE_MUST_USE int policy_parse(struct slice text, const char *name, struct policy **ret,
	struct policy_mistakes *ret_mistakes, struct cede_error *reterr);
void policy_free(struct policy *policy);
void policy_freep(struct policy **policy);
