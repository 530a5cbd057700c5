/* SPDX-License-Identifier: Apache-2.0
 * What earlier processes left becomes places. Where disk and ledger differ the disk is right. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "agent/core/epochs_look.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/log.h"

static struct epoch *epoch_new(const struct known *k) {
	struct epoch *e = calloc(1, sizeof *e);

	if (e == NULL)
		return NULL;
	e->live_boot_ns = clock_boot_ns();
	e->cause = "turn";
	e->wrapped_level = WIPE_OVERWRITTEN_CURRENT;
	if (k == NULL)
		return e;
	e->ledger = k->e;
	e->encrypted = true;
	memcpy(e->id.bytes, k->e.key, sizeof e->id.bytes);
	return e;
}

/* The source's own place, served without a vault until now. */
static bool adopt_plain(struct flow *flow, size_t source, int *fd, struct epoch *e, size_t *ret) {
	struct flow_source *s = &flow->sources[source];

	if (s->fd < 0)
		s->fd = CEDE_TAKE_FD(*fd);
	else if (dup3(*fd, s->fd, O_CLOEXEC) < 0) /* jobs may hold the number */
		return false;
	s->epoch = e;
	*ret = source;
	return true;
}

/* False: nothing was taken. Else what is left in *fd is the caller's to close. */
static bool take_found(struct flow *flow, size_t source, int *fd, struct epoch *e, size_t *ret) {
	const struct flow_source *own = &flow->sources[source];

	if (!e->encrypted && !own->idle && own->epoch == NULL)
		return adopt_plain(flow, source, fd, e, ret);
	if (!epochs_take_place(flow, source, *fd, e, ret))
		return false;
	*fd = -1;
	return true;
}

static void say_place(const struct flow *flow, size_t source, const struct epoch *e) {
	const char *name = flow->policy->sources[source].name;

	if (e->lost)
		log_event(LOG_LEVEL_ERROR, "vault.lost",
			"source=%s captures=%llu error=\"the key of an epoch is gone (keys: memory, and a restart of the system)\" effect=\"what was not handed over is destroyed, as the policy says\"",
			name, (unsigned long long)e->ledger.live);
}

static bool is_same_directory(int a, int b) {
	struct stat x;
	struct stat y;

	return fstat(a, &x) == 0 && fstat(b, &y) == 0 && x.st_dev == y.st_dev && x.st_ino == y.st_ino;
}

/* The place that it is already, or SIZE_MAX. */
static size_t place_of(const struct flow *flow, size_t source, const struct found *f) {
	for (size_t i = 0; i < flow->places.source_count; i++) {
		const struct epoch *e = flow->sources[i].epoch;
		if (e == NULL || flow->sources[i].of != source || e->encrypted != f->place.encrypted)
			continue;
		if (e->encrypted ? fscrypt_id_equal(&e->id, &f->place.id)
				 : is_same_directory(flow->sources[i].fd, f->place.fd))
			return i;
	}
	return SIZE_MAX;
}

/* At the path. */
static void set_current(struct flow *flow, size_t source, size_t place) {
	struct vault *v = &flow->vaults[source];
	const struct epoch *e = flow->sources[place].epoch;
	int64_t most = flow->policy->sources[source].vault_epoch_ns;
	int64_t left = e->ledger.made_ns + most - clock_wall_ns();
	int64_t now = clock_boot_ns();

	v->has_current = true;
	v->current = place;
	v->due_boot_ns =
		!e->encrypted || e->lost || left < 0 ? now : now + (left < most ? left : most);
}

/* What is at the path is not served under the source's own name. */
static void leave_own(struct flow *flow, size_t source) {
	struct flow_source *own = &flow->sources[source];

	if (own->epoch != NULL || own->idle)
		return;
	place_set_absent(flow, source, false, false, "");
	int fd = CEDE_TAKE_FD(own->fd); /* jobs may hold the number */
	epochs_leave_place(flow, source);
	own->fd = fd;
	epochs_close_left(flow, source);
}

/* The directory at the path, without a vault. */
static void serve_plain(struct flow *flow, struct open_source *s) {
	struct flow_source *own = &flow->sources[s->source];

	own->idle = false;
	if (s->plain_fd < 0)
		place_set_absent(flow, s->source, true, own->elsewhere, s->err.text);
	else if (own->fd < 0)
		own->fd = CEDE_TAKE_FD(s->plain_fd);
	else if (dup3(s->plain_fd, own->fd, O_CLOEXEC) < 0) /* jobs may hold the number */
		own->idle = true;
}

/* What was away is found, where it was or where somebody put it. */
static void take_back(struct flow *flow, const struct open_source *s, const struct found *f) {
	size_t place = f->place.fd < 0 ? SIZE_MAX : place_of(flow, s->source, f);
	struct flow_source *p = &flow->sources[place == SIZE_MAX ? 0 : place];
	bool at_path = f->place.name[0] == 0;

	if (place == SIZE_MAX || !p->epoch->away || p->epoch->gone ||
		dup3(f->place.fd, p->fd, O_CLOEXEC) < 0) /* jobs may hold the number */
		return;
	if (at_path && p->epoch->encrypted)
		leave_own(flow, s->source);
	p->epoch->away = false;
	p->epoch->step = at_path ? STEP_OPEN : STEP_DRAINING;
	p->epoch->locked = f->locked;
	p->epoch->live_boot_ns = clock_boot_ns();
	if (f->lost && !p->epoch->lost) {
		disposal_forget(flow, place);
		p->epoch->lost = true;
		p->epoch->cause = "key-lost";
		say_place(flow, s->source, p->epoch);
	}
	place_set_absent(flow, place, false, false, "");
	if (at_path)
		set_current(flow, s->source, place);
}

/* Its directory is not here. One that was removed is gone for good; the end of one that had no
 * directory any more goes on. */
static void still_away(struct flow *flow, size_t place) {
	struct flow_source *p = &flow->sources[place];
	struct epoch *e = p->epoch;
	struct stat st;

	if (e->gone) {
		e->away = false;
		return;
	}
	if (fstat(p->fd, &st) == 0 && st.st_nlink == 0) {
		if (flow->wipe_jobs > 0)
			return; /* of it, perhaps: with the next look */
		place_set_absent(flow, place, false, false, ""); /* nothing of it waits any more */
		disposal_forget(flow, place);
		e->away = false;
		e->gone = e->lost = true;
		e->step = STEP_DRAINING;
		e->cause = "directory-gone";
		return;
	}
	place_set_absent(flow, place, true, false,
		"the directory of an epoch was moved away: move it to .cede-vault/SOURCE/KEY beside the source (cede vault status says which key)");
}

static void add_found(
	struct flow *flow, const struct opening *o, struct open_source *s, struct found *f) {
	const struct flow_source *own = &flow->sources[s->source];
	struct epoch *e;
	size_t place;

	if (f->place.fd < 0 || place_of(flow, s->source, f) != SIZE_MAX)
		return; /* discarded, or nothing new */
	e = epoch_new(f->known == NOT_KNOWN ? NULL : &o->known[f->known]);
	if (e == NULL) {
		flow_fail(flow, "out of memory");
		return;
	}
	bool at_path = f->place.name[0] == 0;
	e->step = at_path ? STEP_OPEN : STEP_DRAINING;
	e->lost = f->lost;
	e->locked = f->locked;
	if (e->lost)
		e->cause = "key-lost";
	if (at_path && e->encrypted)
		leave_own(flow, s->source);
	if (!take_found(flow, s->source, &f->place.fd, e, &place)) {
		free(e);
		flow->vaults[s->source].waits = true;
		if (!f->place.encrypted && own->epoch == NULL)
			return; /* for what is under way in the directory that was served before */
		if (!f->place.encrypted) /* the sooner that it ends */
			own->epoch->live_boot_ns = INT64_MIN / 2;
		cede_error_set(&s->locked, CEDE_ERR_BUSY,
			"two directories without encryption, or more epochs than there are places for: the store beside the source has what is left");
		return;
	}
	say_place(flow, s->source, e);
	if (at_path)
		set_current(flow, s->source, place);
}

/* Of two directories without encryption one is a place, the source's own. What the ledger has under
 * the source's name is in the store's, but for what was served at the path until now. */
static bool is_behind(const struct flow *flow, size_t source, const struct found *f) {
	const struct flow_source *own = &flow->sources[source];

	return f->place.name[0] == 0 && !f->place.encrypted &&
		!(flow->running && !own->idle && is_same_directory(own->fd, f->place.fd));
}

/* Its directory is gone: the key follows, and what the ledger thought to be in it is lost. */
static void add_gone(struct flow *flow, const struct known *k) {
	struct epoch *e = epoch_new(k);
	size_t place;

	if (e == NULL || !epochs_take_place(flow, k->source, -1, e, &place)) {
		free(e);
		flow_fail(flow, "no place for an epoch of a vault");
		return;
	}
	e->gone = true;
	e->step = STEP_DRAINING;
	e->lost = k->e.live > 0;
	e->cause = k->untouched ? "never-used" : e->lost ? "directory-gone" : "turn";
	say_place(flow, k->source, e);
}

/* What the ledger thought and the disk does not say. */
static int correct_work(struct ledger *ledger, void *ctx, struct cede_error *reterr) {
	struct opening *o = ctx;
	int64_t now = clock_wall_ns();

	for (size_t i = 0; i < o->count; i++)
		for (size_t k = 0; k < o->sources[i].count; k++) {
			const struct found *f = &o->sources[i].found[k];
			if (f->known == NOT_KNOWN || o->known[f->known].untouched ||
				o->known[f->known].placed)
				continue;
			bool open = f->place.name[0] == 0;
			if (o->known[f->known].e.state != EPOCH_ERASING &&
				open != (o->known[f->known].e.state == EPOCH_OPEN))
				CEDE_TRY(ledger_epoch_is_open(
					ledger, &o->known[f->known].e, open, now, reterr));
		}
	for (size_t i = 0; i < o->known_count; i++)
		if (o->known[i].away && !o->known[i].found && o->known[i].e.state == EPOCH_OPEN)
			CEDE_TRY(ledger_epoch_is_open(ledger, &o->known[i].e, false, now, reterr));
	return CEDE_OK;
}

static void corrected(struct flow *flow, void *ctx) {
	struct opening *o = ctx;

	for (size_t i = 0; i < o->count; i++)
		flow->vaults[o->sources[i].source].opening = false;
	if (flow->running) {
		disposal_found(flow);
		anew_found(flow);
	}
	if (o->then != NULL) {
		o->then(flow);
		return;
	}
	for (size_t i = 0; i < flow->places.source_count && flow->running; i++)
		for (size_t k = 0; k < o->count; k++)
			if (flow->sources[i].of == o->sources[k].source && !flow->sources[i].idle)
				intake_scan(flow, i, "");
}

static void opening_release(void *ctx) {
	epochs_opening_free(ctx);
}

static void opened_one(struct flow *flow, const struct opening *o, struct open_source *s) {
	struct vault *v = &flow->vaults[s->source];
	struct flow_source *own = &flow->sources[s->source];
	size_t found = s->err.code == CEDE_OK ? s->count : 0;
	bool had_current = v->has_current;

	v->place = s->place;
	v->failed = s->err.code != CEDE_OK;
	v->waits = false;
	v->find_boot_ns = clock_boot_ns() + VAULT_AGAIN_NS;
	if (v->failed || !had_current)
		v->again_boot_ns = v->find_boot_ns;
	if (s->stale) {
		v->opening = false;
		(void)epochs_displaced(flow, s->source);
		return;
	}
	for (size_t k = 0; k < found; k++)
		take_back(flow, s, &s->found[k]);
	epochs_forget_plain(flow, s->source);
	for (int behind = 0; behind < 2; behind++)
		for (size_t k = 0; k < found; k++)
			if (is_behind(flow, s->source, &s->found[k]) == (behind != 0))
				add_found(flow, o, s, &s->found[k]);
	if (own->epoch == NULL && s->as_plain && !v->has_current)
		serve_plain(flow, s);
	else
		leave_own(flow, s->source);
	if (v->waits)
		v->again_boot_ns = v->find_boot_ns;
	if (s->err.code != CEDE_OK && v->wanted)
		epochs_say_unavailable(flow, s->source, s->err.text);
	if (s->err.code != CEDE_OK && s->err.sys == EACCES)
		place_denied(flow, s->source);
	if (s->err.code == CEDE_OK && s->locked.code != CEDE_OK)
		epochs_say_unavailable(flow, s->source, s->locked.text);
	else if (v->has_current && !had_current && s->err.code == CEDE_OK &&
		flow->sources[v->current].epoch->encrypted)
		epochs_say_unavailable(flow, s->source, NULL);
}

static void open_done(void *ctx) {
	struct opening *o = ctx;
	struct flow *flow = o->flow;

	flow->epoch_jobs--;
	for (size_t i = 0; i < o->count; i++)
		opened_one(flow, o, &o->sources[i]);
	for (size_t i = 0; i < o->known_count; i++) {
		const struct known *k = &o->known[i];
		for (size_t n = 0; n < o->count && !k->found && !k->placed; n++)
			if (o->sources[n].source != k->source || o->sources[n].err.code != CEDE_OK)
				continue;
			else if (k->away)
				still_away(flow, k->place);
			else
				add_gone(flow, k);
	}
	flow_record(flow, correct_work, corrected, opening_release, o);
}

/* Sources that have a vault, or had one and it has not ended. */
static bool is_wanted(const struct opening *o, size_t source) {
	if (o->only != NOT_KNOWN && o->only != source)
		return false;
	if (o->flow->vaults[source].wanted)
		return true;
	for (size_t i = 0; i < o->known_count; i++)
		if (o->known[i].source == source)
			return true;
	return false;
}

static void name_sources(struct opening *o) {
	const struct policy *policy = o->flow->setup.policy;

	for (size_t i = 0; i < o->known_count; i++) {
		struct slice name = epoch_source_name(slice_str(o->known[i].e.source));
		for (size_t k = 0; k < policy->source_count; k++)
			if (slice_is(name, policy->sources[k].name))
				o->known[i].source = k;
		if (o->known[i].source == NOT_KNOWN)
			log_event(LOG_LEVEL_ERROR, "vault.no-source",
				"source=%.*s captures=%llu error=\"the policy no longer has the source of an epoch that has not ended\" mend=\"give the policy the source again until cede vault status shows no epoch of it\"",
				(int)name.len, (const char *)name.data,
				(unsigned long long)o->known[i].e.live);
	}
}

/* Those that have a place already stay what they are. */
static void note_placed(struct opening *o) {
	for (size_t i = 0; i < o->known_count; i++)
		for (size_t k = 0; k < o->flow->places.source_count; k++) {
			const struct epoch *e = o->flow->sources[k].epoch;
			if (e == NULL || e->ledger.row != o->known[i].e.row)
				continue;
			o->known[i].placed = !e->away;
			o->known[i].away = e->away;
			o->known[i].place = k;
		}
}

static void epochs_read(struct flow *flow, void *ctx) {
	struct opening *o = ctx;
	struct cede_error err = {0};

	if (o->only == NOT_KNOWN)
		name_sources(o);
	else
		for (size_t i = 0; i < o->known_count; i++)
			if (slice_is(epoch_source_name(slice_str(o->known[i].e.source)),
				    flow->policy->sources[o->only].name))
				o->known[i].source = o->only;
	note_placed(o);
	o->sources = calloc(flow->source_count, sizeof *o->sources);
	for (size_t i = 0; o->sources != NULL && i < flow->source_count; i++) {
		if (!is_wanted(o, i))
			continue;
		o->sources[o->count++] = (struct open_source){
			.source = i, .place = flow->vaults[i].place, .plain_fd = -1};
		flow->vaults[i].opening = true;
	}
	if (o->only != NOT_KNOWN && o->count == 0) { /* its last epoch has ended meanwhile */
		struct vault *v = &flow->vaults[o->only];
		v->opening = v->failed = v->waits = false;
	}
	flow->epoch_jobs++;
	if (o->sources == NULL || jobs_start(&flow->jobs, epochs_look_disk, open_done, o, &err) < 0) {
		flow->epoch_jobs--;
		flow_fail(flow, o->sources == NULL ? "out of memory" : err.text);
		epochs_opening_free(o);
	}
}

static void open_start(struct flow *flow, size_t only, void (*then)(struct flow *flow)) {
	struct opening *o = calloc(1, sizeof *o);

	if (o == NULL) {
		flow_fail(flow, "out of memory");
		return;
	}
	o->flow = flow;
	o->only = only;
	o->then = then;
	/* from here on it goes to the job, and from there to the second record */
	flow_record(flow, epochs_look_ledger, epochs_read, NULL, o);
}

void epochs_open(struct flow *flow, void (*then)(struct flow *flow)) {
	open_start(flow, NOT_KNOWN, then);
}

void epochs_open_one(struct flow *flow, size_t source) {
	flow->vaults[source].opening = true;
	open_start(flow, source, NULL);
}

/* ---- locked ones, again */

struct unlocking {
	struct flow *flow;
	size_t place;
	struct fscrypt_id id;
	int store_fd;
	struct cede_error err;
};

static void unlock_work(void *ctx) {
	struct unlocking *u = ctx;

	if (epochs_unlock_key(u->flow, u->store_fd, &u->id, &u->err) == CEDE_OK)
		u->err.code = CEDE_OK;
}

static void unlock_done(void *ctx) {
	struct unlocking *u = ctx;
	struct flow *flow = u->flow;
	struct epoch *e = flow->sources[u->place].epoch;

	flow->epoch_jobs--;
	e->busy = false;
	e->again_boot_ns = clock_boot_ns() + VAULT_AGAIN_NS;
	if (u->err.code == CEDE_OK) {
		e->locked = false;
		log_event(LOG_LEVEL_INFO, "vault.unlocked", "source=%s",
			flow->policy->sources[u->place].name);
		epochs_say_unavailable(flow, flow->sources[u->place].of, NULL);
		intake_scan(flow, u->place, "");
	} else {
		epochs_say_unavailable(flow, flow->sources[u->place].of, u->err.text);
	}
	free(u);
	flow_settled(flow);
}

void epochs_unlock(struct flow *flow, size_t place) {
	struct epoch *e = flow->sources[place].epoch;
	struct unlocking *u = calloc(1, sizeof *u);
	struct cede_error err = {0};

	if (u == NULL || clock_boot_ns() < e->again_boot_ns || e->busy) {
		free(u);
		return;
	}
	*u = (struct unlocking){.flow = flow,
		.place = place,
		.id = e->id,
		.store_fd = place_store_fd(flow->vaults[flow->sources[place].of].place)};
	if (jobs_start(&flow->jobs, unlock_work, unlock_done, u, &err) < 0) {
		free(u);
		return;
	}
	e->busy = true;
	flow->epoch_jobs++;
}
