/* SPDX-License-Identifier: Apache-2.0
 * Where the captures of a source lie: in the directory at its path and, where it has a vault, in
 * those of epochs that have ended and still have files, in the store beside it
 * (agent/vault/place.h). For commands that only look: nothing is made, no capture opened.
 *
 * Thread  any.
 * Fails   what can't be looked at goes to trouble() and the rest goes on; a negative return of a
 *         call-back ends it with that code; IO from the ledger ends it. */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "agent/ledger/epoch.h"
#include "agent/vault/fscrypt.h"
#include "base/error.h"
#include "policy/policy.h"

struct source_place {
	const struct policy_source *source;
	char epoch[FSCRYPT_ID_TEXT];    /* its name in the store; "": the directory at the path */
	char ledger[EPOCH_SOURCE_SIZE]; /* what the ledger calls it: NAME, or NAME@KEY */
	int fd;
};

struct source_places {
	void *ctx;
	/* place->fd is borrowed. */
	int (*place)(void *ctx, const struct source_place *place, struct cede_error *reterr);
	/* epoch: as in struct source_place. */
	int (*trouble)(void *ctx, const char *epoch, const struct cede_error *why,
		struct cede_error *reterr);
};

/* The one at the path first. ledger: NULL if there is none; with one, epochs are looked for after
 * the policy has dropped the vault as well, until the ledger says that they are gone. A directory
 * whose key the kernel does not have is trouble: its names can't be read. */
CEDE_MUST_USE int source_places(const struct policy_source *source, struct ledger *ledger,
	const struct source_places *to, struct cede_error *reterr);

/* Where a file of this absolute path lies. source NULL: in no source of the policy. */
struct source_path {
	const struct policy_source *source;
	char epoch[FSCRYPT_ID_TEXT];
	const char *path; /* below the directory; borrowed from full */
};

CEDE_MUST_USE int source_path_find(const struct policy *policy, struct ledger *ledger,
	const char *full, struct source_path *ret, struct cede_error *reterr);
/* The other way round; false: it does not fit. */
bool source_path_print(const struct policy_source *source, const char *epoch, const char *path,
	char *out, size_t size);
/* The directory of it; give ret->fd back with close(). IO: it can't be looked at. */
CEDE_MUST_USE int source_place_open(
	const struct source_path *path, struct source_place *ret, struct cede_error *reterr);
/* What the ledger calls the directory that is open: the source's name, or its epoch's. */
void source_place_ledger(int fd, const struct policy_source *source, char out[EPOCH_SOURCE_SIZE]);
