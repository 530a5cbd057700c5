/* SPDX-License-Identifier: Apache-2.0
 * The directories on the disk say which epoch is where, the ledger says what was begun, the kernel
 * which keys it has. */
#include "agent/core/epochs_look.h"

#include <fcntl.h>
#include <openssl/crypto.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/file.h"
#include "base/log.h"

void epochs_opening_free(struct opening *o) {
	for (size_t i = 0; i < o->count; i++) {
		for (size_t k = 0; k < o->sources[i].count; k++)
			fd_closep(&o->sources[i].found[k].place.fd);
		free(o->sources[i].found);
		fd_closep(&o->sources[i].plain_fd);
	}
	free(o->sources);
	free(o->known);
	free(o);
}

/* ---- the ledger's part */

static int note_epoch(void *ctx, const struct ledger_epoch *e, struct cede_error *reterr) {
	struct opening *o = ctx;
	struct known *more = reallocarray(o->known, o->known_count + 1, sizeof *more);

	if (more == NULL)
		return CEDE_FAIL_MEMORY(reterr);
	o->known = more;
	more[o->known_count++] = (struct known){.e = *e, .source = NOT_KNOWN};
	return CEDE_OK;
}

int epochs_look_ledger(struct ledger *ledger, void *ctx, struct cede_error *reterr) {
	struct opening *o = ctx;

	o->known_count = 0; /* it may be the second try */
	return ledger_epochs(ledger, NULL, false, note_epoch, o, reterr);
}

/* ---- the disk's part */

struct listing {
	struct opening *o;
	struct open_source *s;
};

static size_t find_known(const struct opening *o, size_t source, const struct fscrypt_id *id) {
	for (size_t i = 0; i < o->known_count; i++)
		if (o->known[i].source == source &&
			memcmp(o->known[i].e.key, id->bytes, EPOCH_KEY_SIZE) == 0)
			return i;
	return NOT_KNOWN;
}

static int note_found(void *ctx, struct place_found *f, struct cede_error *reterr) {
	struct listing *l = ctx;
	struct found *more = reallocarray(l->s->found, l->s->count + 1, sizeof *more);

	if (more == NULL)
		return CEDE_FAIL_MEMORY(reterr);
	l->s->found = more;
	more[l->s->count] = (struct found){.place = *f, .known = NOT_KNOWN};
	if (f->encrypted)
		more[l->s->count].known = find_known(l->o, l->s->source, &f->id);
	more[l->s->count++].place.fd = CEDE_TAKE_FD(f->fd);
	return CEDE_OK;
}

/* In its own place: at the path, or in the store under its own name. */
static bool belongs(const struct found *f) {
	char own[FSCRYPT_ID_TEXT];

	if (f->place.name[0] == 0)
		return true;
	if (!f->place.encrypted)
		return strcmp(f->place.name, PLACE_BEFORE) == 0;
	fscrypt_id_print(&f->place.id, own);
	return f->known != NOT_KNOWN && strcmp(own, f->place.name) == 0;
}

/* A directory that was made for the next turn, which did not come: nothing can be in it. */
static void discard(const struct opening *o, struct open_source *s, struct found *f) {
	struct place_rest rest;
	struct cede_error err = {0};
	enum fscrypt_state state;

	fd_closep(&f->place.fd);
	if (place_remove(s->place, f->place.name, NULL, NULL, &rest, &err) < 0 || !rest.gone) {
		log_event(LOG_LEVEL_WARNING, "vault.leftover", "source=%s error=\"%s\"",
			o->flow->policy->sources[s->source].name,
			err.code != CEDE_OK
				? err.text
				: "a directory in the store that is not known has files: it is left alone");
		return;
	}
	if (f->known != NOT_KNOWN)
		o->known[f->known].untouched = true; /* its key goes the way of all */
	else if (f->place.encrypted &&
		fscrypt_remove(place_store_fd(s->place), &f->place.id, &state, &err) < 0)
		log_event(LOG_LEVEL_WARNING, "vault.leftover", "error=\"%s\"", err.text);
}

/* From its wrapped copy; the kernel's name of it must be the one it was stored under. */
int epochs_unlock_key(const struct flow *flow, int store_fd, const struct fscrypt_id *id,
	struct cede_error *reterr) {
	CLEANUP(wrap_closep) struct wrap *wrap = NULL;
	CLEANUP(fd_closep) int state = -1;
	uint8_t key[FSCRYPT_KEY_SIZE];
	struct fscrypt_id got;

	if (flow->setup.vault_key == NULL)
		return CEDE_FAIL(reterr, CEDE_ERR_INPUT,
			"agent.yaml has no vault.key, with which the keys of earlier epochs were sealed");
	CEDE_TRY(file_open_dir(AT_FDCWD, flow->setup.state, &state, reterr));
	CEDE_TRY(wrap_open(flow->setup.vault_key, state, &wrap, reterr));
	CEDE_TRY(wrap_load(wrap, id, key, reterr));
	int r = fscrypt_add(store_fd, key, &got, reterr);
	OPENSSL_cleanse(key, sizeof key);
	CEDE_TRY(r);
	if (!fscrypt_id_equal(&got, id))
		return CEDE_FAIL(reterr, CEDE_ERR_INPUT, "the sealed key of an epoch is another's");
	return CEDE_OK;
}

static int look_at_key(const struct opening *o, struct open_source *s, struct found *f,
	struct cede_error *reterr) {
	enum fscrypt_state state;

	CEDE_TRY(fscrypt_state(place_store_fd(s->place), &f->place.id, &state, reterr));
	if (state == FSCRYPT_PRESENT)
		return CEDE_OK;
	if (o->known[f->known].e.wrapped)
		f->locked = epochs_unlock_key(o->flow, place_store_fd(s->place), &f->place.id,
				    &s->locked) < 0;
	else
		f->lost = true;
	return CEDE_OK;
}

/* No vault to be had: is the directory at the path one of ours all the same? */
static bool is_plain(const struct policy_source *source, int *ret_fd) {
	CLEANUP(fd_closep) int fd = -1;
	struct fscrypt_id id;
	bool encrypted = false;

	if (file_open_dir(AT_FDCWD, source->path, &fd, NULL) < 0)
		return true; /* not there: it is looked for again and again */
	if (fscrypt_of(fd, &id, &encrypted, NULL) < 0 || encrypted)
		return false;
	*ret_fd = CEDE_TAKE_FD(fd);
	return true;
}

/* Epochs that have not ended have a store. Where there is none it is another file system, or theirs
 * is not mounted: a new one would say that they are gone. */
static int open_place(const struct opening *o, struct open_source *s, struct cede_error *reterr) {
	const struct policy_source *source = &o->flow->policy->sources[s->source];
	bool make = source->vault_epoch_ns > 0;

	for (size_t i = 0; i < o->known_count; i++)
		make = make && o->known[i].source != s->source;
	int r = place_open(source->path, source->name, make, &s->place, reterr);
	if (r < 0 && !make)
		cede_error_within(reterr,
			"epochs that have not ended are not here: is their file system mounted? (if it is gone for good: cede vault init)");
	return r;
}

/* A directory that is not here is gone only if this file system could have it. */
static int look_for_missing(
	const struct opening *o, const struct open_source *s, struct cede_error *reterr) {
	enum fscrypt_state state;
	struct fscrypt_id id;

	for (size_t i = 0; i < o->known_count; i++) {
		const struct known *k = &o->known[i];
		if (k->source != s->source || k->found || k->placed)
			continue;
		memcpy(id.bytes, k->e.key, sizeof id.bytes);
		int r = fscrypt_state(place_store_fd(s->place), &id, &state, reterr);
		if (r < 0) {
			cede_error_within(reterr, "an epoch that has not ended is not here");
			return r;
		}
	}
	return CEDE_OK;
}

static int open_source(struct opening *o, struct open_source *s, struct cede_error *reterr) {
	struct listing l = {o, s};

	s->stale = s->place != NULL &&
		!place_is_at(s->place, o->flow->policy->sources[s->source].path);
	if (s->stale)
		return CEDE_FAIL(reterr, CEDE_ERR_BUSY,
			"another directory is above the source's now, and has not been looked at yet");
	if (s->place == NULL)
		CEDE_TRY(open_place(o, s, reterr));
	CEDE_TRY(place_list(s->place, note_found, &l, reterr));
	for (size_t i = 0; i < s->count; i++) {
		struct found *f = &s->found[i];
		if (!belongs(f)) {
			discard(o, s, f);
			continue;
		}
		if (f->known == NOT_KNOWN || o->known[f->known].placed)
			continue;
		o->known[f->known].found = true;
		CEDE_TRY(look_at_key(o, s, f, reterr));
	}
	return look_for_missing(o, s, reterr);
}

void epochs_look_disk(void *ctx) {
	struct opening *o = ctx;

	for (size_t i = 0; i < o->count; i++) {
		struct open_source *s = &o->sources[i];
		if (open_source(o, s, &s->err) == CEDE_OK)
			continue;
		s->as_plain = is_plain(&o->flow->policy->sources[s->source], &s->plain_fd);
		if (o->flow->vaults[s->source].place == NULL) { /* found anew at the next look */
			place_close(s->place);
			s->place = NULL;
		}
	}
}
