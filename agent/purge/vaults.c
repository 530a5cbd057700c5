/* SPDX-License-Identifier: Apache-2.0
 * Vaults of a host that goes out of service: the epochs in the store beside each source, then the
 * keys of all. */
#include <stdio.h>
#include <string.h>

#include "agent/ledger/epoch.h"
#include "agent/purge/internal.h"
#include "agent/vault/place.h"
#include "base/cleanup.h"
#include "base/clock.h"

struct vault_sweep {
	struct purge *p;
	const char *name;
	struct place *place;
};

/* The name that the ledger has its captures under. */
static void key_of(
	const struct vault_sweep *v, const struct place_found *found, char key[EPOCH_SOURCE_SIZE]) {
	if (found->encrypted)
		epoch_source(v->name, found->id.bytes, key);
	else
		(void)snprintf(key, EPOCH_SOURCE_SIZE, "%s", v->name);
}

static int count_one(void *ctx, struct place_found *found, struct cede_error *reterr) {
	const struct vault_sweep *v = ctx;
	char key[EPOCH_SOURCE_SIZE];

	if (found->name[0] == 0)
		return CEDE_OK; /* the source itself */
	key_of(v, found, key);
	return purge_count_place(v->p, found->fd, v->name, key, reterr);
}

static int sweep_one(void *ctx, struct place_found *found, struct cede_error *reterr) {
	struct vault_sweep *v = ctx;
	char key[EPOCH_SOURCE_SIZE];
	struct place_rest rest;

	if (found->name[0] == 0)
		return CEDE_OK; /* the source itself */
	key_of(v, found, key);
	CEDE_TRY(purge_place(v->p, found->fd, v->name, key, reterr));
	fd_closep(&found->fd);
	return place_remove(v->place, found->name, NULL, NULL, &rest, reterr);
}

static int open_vault(const struct purge *p, size_t source, struct place **ret) {
	const struct policy_source *s = &p->policy->sources[source];

	/* no store, no vault */
	return place_open(s->path, s->name, false, ret, NULL);
}

static int each_store(struct purge *p, place_found_fn *fn, struct cede_error *reterr) {
	for (size_t i = 0; i < p->policy->source_count; i++) {
		CLEANUP(place_closep) struct place *place = NULL;
		struct vault_sweep v = {.p = p, .name = p->policy->sources[i].name};
		if (open_vault(p, i, &place) < 0)
			continue;
		v.place = place;
		CEDE_TRY(place_list(place, fn, &v, reterr));
	}
	return CEDE_OK;
}

int purge_count_stores(struct purge *p, struct cede_error *reterr) {
	return each_store(p, count_one, reterr);
}

int purge_stores(struct purge *p, struct cede_error *reterr) {
	return each_store(p, sweep_one, reterr);
}

/* ---- keys */

struct unfinished {
	struct ledger_epoch list[PURGE_BATCH];
	size_t count;
};

static int note_epoch(void *ctx, const struct ledger_epoch *e, struct cede_error *reterr) {
	struct unfinished *u = ctx;

	(void)reterr;
	if (u->count == PURGE_BATCH)
		return 1;
	u->list[u->count++] = *e;
	return CEDE_OK;
}

/* Its sealed copy, if there is one, goes with the state directory. */
static int record_gone(struct purge *p, const struct ledger_epoch *e, struct cede_error *reterr) {
	int64_t now = clock_wall_ns();
	uint64_t captures;

	CEDE_TRY(ledger_begin(p->ledger, reterr));
	int r = ledger_epoch_erasing(p->ledger, e->row, now, reterr);
	if (r == CEDE_OK)
		r = ledger_epoch_erased(p->ledger, e, e->wrapped ? "unproven" : "crypto-erased",
			e->wrapped ? "wrapped-key-remains" : "", "purge", now, &captures, reterr);
	if (r == CEDE_OK)
		return ledger_commit(p->ledger, reterr);
	ledger_rollback(p->ledger);
	return r == CEDE_ERR_BUSY ? CEDE_OK : r; /* captures of it remain, and are listed */
}

static int remove_key(struct purge *p, const struct place *place, const char *name,
	const struct ledger_epoch *e, struct cede_error *reterr) {
	struct fscrypt_id id;
	enum fscrypt_state state;

	memcpy(id.bytes, e->key, sizeof id.bytes);
	CEDE_TRY(fscrypt_remove(place_store_fd(place), &id, &state, reterr));
	if (state != FSCRYPT_ABSENT)
		return tally_add(&p->tally, TALLY_VAULT_KEY, NULL, name, FSCRYPT_KEY_SIZE,
			"remains", "in-use", reterr);
	CEDE_TRY(tally_add(&p->tally, TALLY_VAULT_KEY, NULL, name, FSCRYPT_KEY_SIZE,
		wipe_level_name(WIPE_CRYPTO_ERASED), e->wrapped ? "sealed-copy-with-the-state" : "",
		reterr));
	return record_gone(p, e, reterr);
}

int purge_vault_keys(struct purge *p, struct cede_error *reterr) {
	CLEANUP(freep) struct unfinished *u = calloc(1, sizeof *u);

	if (u == NULL)
		return CEDE_FAIL_MEMORY(reterr);
	for (size_t i = 0; i < p->policy->source_count; i++) {
		CLEANUP(place_closep) struct place *place = NULL;
		const char *name = p->policy->sources[i].name;
		if (open_vault(p, i, &place) < 0)
			continue;
		fd_closep(&p->source_fds[i]); /* the kernel keeps what an open directory needs */
		u->count = 0;
		CEDE_TRY(ledger_epochs(p->ledger, name, false, note_epoch, u, reterr));
		for (size_t k = 0; k < u->count; k++)
			CEDE_TRY(remove_key(p, place, name, &u->list[k], reterr));
		place_drop_store(place, name);
	}
	return CEDE_OK;
}
