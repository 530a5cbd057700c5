/* SPDX-License-Identifier: Apache-2.0
 * The end of an epoch. Each step is one job or one ledger transaction; the next begins with the
 * next look, so that dying between two leaves what the ledger and the disk tell. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "agent/core/epochs_internal.h"
#include "agent/watch/facts.h"
#include "base/check.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/log.h"

#define EPOCH_LEAST_PATIENCE_NS (15 * NS_PER_SECOND) /* the policy has no vault any more */
#define KEPT_AGAIN_MOST_NS      (10 * NS_PER_SECOND)
#define BUSY_SAID_NS            (3 * NS_PER_SECOND)

struct step {
	struct flow *flow;
	size_t place;
	struct place *store;
	const struct policy_source *policy;
	char key[EPOCH_SOURCE_SIZE];
	char name[FSCRYPT_ID_TEXT];
	struct ledger_epoch ledger;
	struct fscrypt_id id;
	int fd;
	bool gone, lost, patient, wrapped;
	char cause[64];
	/* results */
	struct cede_error err;
	uint64_t live, held, captures, files;
	struct ledger_lost losses;
	struct place_rest rest;
	bool blocked, coming, used_once;
	enum fscrypt_state state;
	enum wipe_level wrapped_level;
};

static int64_t patience_of(const struct flow *flow, size_t place) {
	int64_t epoch = flow->policy->sources[place].vault_epoch_ns;

	return epoch > 0 ? EPOCH_PATIENCE(epoch) : EPOCH_LEAST_PATIENCE_NS;
}

static struct step *step_new(struct flow *flow, size_t place) {
	struct flow_source *s = &flow->sources[place];
	struct epoch *e = s->epoch;
	struct step *t = calloc(1, sizeof *t);

	if (t == NULL)
		return NULL;
	*t = (struct step){.flow = flow,
		.place = place,
		.store = flow->vaults[s->of].place,
		.policy = &flow->setup.policy->sources[s->of],
		.ledger = e->ledger,
		.id = e->id,
		.fd = s->fd,
		.gone = e->gone,
		.lost = e->lost,
		.wrapped = e->ledger.wrapped,
		.patient = clock_boot_ns() - e->live_boot_ns < patience_of(flow, place)};
	(void)snprintf(t->key, sizeof t->key, "%s", s->key);
	(void)epochs_name(e, t->name);
	e->busy = true;
	return t;
}

static struct epoch *step_over(struct step *t) {
	struct epoch *e = t->flow->sources[t->place].epoch;

	e->busy = false;
	return e;
}

static void step_free(void *ctx) {
	free(ctx);
}

/* An error of the system: said, and tried again. */
static void step_failed(struct step *t, const char *what) {
	struct epoch *e = step_over(t);

	log_event(LOG_LEVEL_WARNING, "vault.end", "source=%s step=%s error=\"%s\"", t->policy->name,
		what, t->err.text);
	e->again_boot_ns = clock_boot_ns() + VAULT_AGAIN_NS;
}

static void step_job(struct step *t, job_work_fn *work, job_done_fn *done) {
	struct flow *flow = t->flow;

	flow->epoch_jobs++;
	if (jobs_start(&flow->jobs, work, done, t, &t->err) == CEDE_OK)
		return;
	flow->epoch_jobs--;
	step_failed(t, "job");
	free(t);
}

static void job_over(struct step *t) {
	struct flow *flow = t->flow;

	flow->epoch_jobs--;
	free(t);
	flow_settled(flow);
}

/* ---- does the ledger have anything live of it? */

static int count_work(struct ledger *ledger, void *ctx, struct cede_error *reterr) {
	struct step *t = ctx;

	return ledger_live(ledger, slice_str(t->key), &t->live, &t->held, reterr);
}

static void say_kept(struct step *t, struct epoch *e, const char *why, uint64_t n) {
	e->kept = why;
	if (why == NULL || e->said_kept)
		return;
	e->said_kept = true;
	log_event(LOG_LEVEL_WARNING, "vault.kept",
		"source=%s reason=%s files=%llu effect=\"the key of this epoch stays, and with it all that was ever in it\"",
		t->policy->name, why, (unsigned long long)n);
}

static int open_work(struct ledger *ledger, void *ctx, struct cede_error *reterr) {
	struct step *t = ctx;

	CEDE_TRY(ledger_live(ledger, slice_str(t->key), &t->live, &t->held, reterr));
	return ledger_epoch_used(ledger, slice_str(t->key), &t->used_once, reterr);
}

/* An epoch begins with its first capture; when all of it is gone for a while, there is no reason to
 * keep the key until its time is over. What is held does not wait for that. */
static void opened(struct flow *flow, void *ctx) {
	struct step *t = ctx;
	struct epoch *e = step_over(t);
	struct vault *v = &flow->vaults[flow->sources[t->place].of];
	int64_t now = clock_boot_ns();

	e->held = t->held;
	e->again_boot_ns = now + EPOCH_LOOK_NS;
	if (t->live > t->held || !t->used_once)
		e->live_boot_ns = now;
	if (e->step != STEP_OPEN || e->away || v->turning || v->staged || flow->stopping ||
		flow->draining)
		return;
	if (!t->used_once)
		v->due_boot_ns = now + t->policy->vault_epoch_ns;
	else if (!t->patient && v->due_boot_ns > now) {
		/* epochs_turn() forces it half an epoch after it was due: an early one after an eighth */
		v->due_boot_ns = now - t->policy->vault_epoch_ns * 3 / 8;
		epochs_turn(flow, flow->sources[t->place].of);
	}
}

static void counted(struct flow *flow, void *ctx) {
	struct step *t = ctx;
	struct epoch *e = step_over(t);

	e->held = t->held;
	/* programs may be in there that have only paused */
	if (t->live == 0 && (!t->patient || e->gone)) {
		e->step = STEP_CLOSING;
		epochs_look(flow);
		return;
	}
	int64_t now = clock_boot_ns();
	if (t->live > 0)
		e->live_boot_ns = now;
	e->again_boot_ns = now + EPOCH_LOOK_NS;
	say_kept(t, e, t->live > 0 && t->held == t->live ? "legal-hold" : NULL, t->held);
}

/* ---- its directories */

/* An ignored file that has not changed for long and that nobody writes. */
static bool may_go(void *ctx, int dirfd, const char *name, const char *path) {
	const struct step *t = ctx;
	CLEANUP(fd_closep) int fd = -1;
	struct decide_facts facts;
	struct decide_known known = {0};
	struct file_identity identity;
	int64_t now = clock_wall_ns();

	if (facts_at(dirfd, name, path, t->policy, now, &facts, &identity, NULL) < 0 ||
		facts.kind != FILE_KIND_REGULAR ||
		facts.ctime_ns > now - EPOCH_PATIENCE(t->policy->vault_epoch_ns))
		return false;
	struct decision d = decide(t->flow->policy, t->policy, &facts, &known, now);
	return d.action == ACTION_IGNORE &&
		file_open_beneath(dirfd, name, O_RDONLY, &fd, NULL) == CEDE_OK &&
		fcntl(fd, F_SETLEASE, F_RDLCK) == 0;
}

/* Complete soon, or complete: it is on its way, and the ledger does not know it yet. */
static bool is_coming(void *ctx, int dirfd, const char *name, const char *path) {
	const struct step *t = ctx;
	struct decide_facts facts;
	struct decide_known known = {0};
	struct file_identity identity;
	int64_t now = clock_wall_ns();

	if (facts_at(dirfd, name, path, t->policy, now, &facts, &identity, NULL) < 0)
		return false; /* gone, or the removal tells */
	enum action action = decide(t->flow->policy, t->policy, &facts, &known, now).action;
	return action == ACTION_WAIT || action == ACTION_HAND_OVER || action == ACTION_DESTROY;
}

static void remove_work(void *ctx) {
	struct step *t = ctx;

	if (t->gone) {
		t->rest.gone = true;
		return;
	}
	if (place_any(t->fd, is_coming, t, &t->coming, &t->err) < 0 || t->coming)
		return;
	place_may_fn *may = !t->patient && t->policy->vault_erases_leftovers ? may_go : NULL;
	if (place_remove(t->store, t->name, may, t, &t->rest, &t->err) < 0)
		t->rest.gone = false;
}

/* Files that stay are looked at more rarely than captures that are on their way. */
static int64_t kept_again(const struct step *t) {
	int64_t patience = patience_of(t->flow, t->place);

	if (t->patient || t->coming)
		return EPOCH_LOOK_NS;
	return patience < KEPT_AGAIN_MOST_NS ? patience : KEPT_AGAIN_MOST_NS;
}

static void remove_done(void *ctx) {
	struct step *t = ctx;
	struct flow *flow = t->flow;
	struct flow_source *s = &flow->sources[t->place];
	struct epoch *e = s->epoch;
	int64_t now = clock_boot_ns();

	e->leftovers += t->rest.removed;
	if (t->rest.gone) {
		(void)step_over(t);
		e->gone = true;
		fd_closep(&s->fd); /* the key does not go while a directory of it is open */
		if (e->encrypted)
			e->step = STEP_RECORDING;
		else
			epochs_leave_place(flow, t->place);
		job_over(t);
		epochs_look(flow);
		return;
	}
	if (t->err.code != CEDE_OK) {
		step_failed(t, "remove");
	} else {
		(void)step_over(t);
		e->again_boot_ns = now + kept_again(t);
	}
	e->step = STEP_DRAINING;
	if (t->coming)
		e->live_boot_ns = now;
	if (!t->patient && t->rest.files > 0)
		say_kept(t, e, "files-that-stay", t->rest.files);
	intake_scan(flow, t->place, ""); /* what came meanwhile was not looked at */
	job_over(t);
}

/* ---- the ledger: from here on its key goes */

static int erasing_work(struct ledger *ledger, void *ctx, struct cede_error *reterr) {
	struct step *t = ctx;
	int r = ledger_epoch_erasing(ledger, t->ledger.row, clock_wall_ns(), reterr);

	t->blocked = r == CEDE_ERR_BUSY;
	return t->blocked ? CEDE_OK : r;
}

static void erasing_done(struct flow *flow, void *ctx) {
	struct step *t = ctx;
	struct epoch *e = step_over(t);

	/* with the directory gone: what the ledger thinks to be in it is lost */
	if (t->blocked)
		disposal_forget(flow, t->place);
	e->lost = e->lost || t->blocked;
	e->step = t->blocked ? STEP_DRAINING : STEP_DESTROYING;
	if (t->blocked)
		e->cause = "directory-gone";
	epochs_look(flow);
}

/* ---- the key */

/* The sealed copy first: while the kernel still has the key nothing is lost by dying here. */
static int wipe_copy(struct step *t, struct cede_error *reterr) {
	CLEANUP(fd_closep) int state = -1;
	CLEANUP(fd_closep) int dir = -1;
	char name[WRAP_NAME_SIZE];
	struct stat st;

	CEDE_TRY(file_open_dir(AT_FDCWD, t->flow->setup.state, &state, reterr));
	CEDE_TRY(wrap_directory(state, &dir, reterr));
	wrap_name(&t->id, name);
	if (fstatat(dir, name, &st, AT_SYMLINK_NOFOLLOW) < 0) {
		if (errno != ENOENT)
			return CEDE_FAIL_SYS(reterr, "the sealed key of an epoch");
		/* wiped, by a process that died before it could say how well */
		t->wrapped_level = WIPE_UNPROVEN;
		t->wrapped = false;
		return CEDE_OK;
	}
	struct wipe_item item = {.source_fd = dir, .path = name, .want = file_identity_of(&st)};
	CEDE_TRY(wipe_batch(&item, 1, reterr));
	if (item.outcome != WIPE_DONE)
		return CEDE_FAIL(reterr, CEDE_ERR_IO, "wipe the sealed key of an epoch: %s",
			item.outcome == WIPE_FAILED ? item.err.text : "in use");
	t->wrapped_level = item.level;
	t->wrapped = false;
	return CEDE_OK;
}

static void destroy_work(void *ctx) {
	struct step *t = ctx;

	if (t->wrapped && wipe_copy(t, &t->err) < 0)
		return;
	if (fscrypt_remove(place_store_fd(t->store), &t->id, &t->state, &t->err) < 0)
		t->state = FSCRYPT_BUSY;
}

static int erased_work(struct ledger *ledger, void *ctx, struct cede_error *reterr) {
	struct step *t = ctx;
	bool remains = t->wrapped_level < WIPE_OVERWRITTEN_CURRENT;

	return ledger_epoch_erased(ledger, &t->ledger, remains ? "unproven" : "crypto-erased",
		remains ? "wrapped-key-remains" : "", t->cause, clock_wall_ns(), &t->captures,
		reterr);
}

static void erased_done(struct flow *flow, void *ctx) {
	struct step *t = ctx;

	(void)step_over(t);
	flow->figures.vault_erased++;
	log_event(LOG_LEVEL_INFO, "vault.erased",
		"source=%s captures=%llu cause=\"%s\" leftovers=%llu", t->policy->name,
		(unsigned long long)t->captures, t->cause,
		(unsigned long long)flow->sources[t->place].epoch->leftovers);
	epochs_leave_place(flow, t->place);
}

static void still_there(struct step *t, struct epoch *e) {
	int64_t now = clock_boot_ns();

	e->again_boot_ns = now + EPOCH_LOOK_NS;
	if (e->said_busy || now - e->live_boot_ns < BUSY_SAID_NS)
		return;
	e->said_busy = true;
	t->flow->figures.vault_busy++;
	log_event(LOG_LEVEL_WARNING, "vault.busy",
		"source=%s state=%s error=\"a program still has a file of an ended epoch open, or is in its directory\" effect=\"not erased until it lets go\"",
		t->policy->name, fscrypt_state_name(t->state));
}

static void destroy_done(void *ctx) {
	struct step *t = ctx;
	struct flow *flow = t->flow;
	struct epoch *e = flow->sources[t->place].epoch;

	flow->epoch_jobs--;
	if (e->ledger.wrapped && !t->wrapped) { /* the copy is gone: not again */
		e->wrapped_level = t->wrapped_level;
		e->ledger.wrapped = false;
	}
	t->wrapped_level = e->wrapped_level;
	if (t->err.code != CEDE_OK) {
		step_failed(t, "destroy");
		free(t);
	} else if (t->state != FSCRYPT_ABSENT) {
		still_there(t, step_over(t));
		free(t);
	} else {
		flow_record(flow, erased_work, erased_done, step_free, t);
	}
	flow_settled(flow);
}

/* ---- the key was lost */

static int lost_work(struct ledger *ledger, void *ctx, struct cede_error *reterr) {
	struct step *t = ctx;

	return ledger_epoch_lost(ledger, slice_str(t->key), clock_wall_ns(), &t->losses, reterr);
}

static void clear_work(void *ctx) {
	struct step *t = ctx;

	if (place_clear(t->store, t->name, &t->files, &t->err) < 0)
		t->files = 0;
}

static void clear_done(void *ctx) {
	struct step *t = ctx;
	struct flow *flow = t->flow;
	struct flow_source *s = &flow->sources[t->place];

	if (t->err.code != CEDE_OK) {
		step_failed(t, "clear");
		job_over(t);
		return;
	}
	struct epoch *e = step_over(t);
	log_event(LOG_LEVEL_WARNING, "vault.cleared",
		"source=%s files=%llu text=\"files of an epoch whose key was lost\"",
		t->policy->name, (unsigned long long)t->files);
	e->gone = true;
	e->leftovers = t->files;
	fd_closep(&s->fd);
	e->step = STEP_RECORDING;
	job_over(t);
	epochs_look(flow);
}

static void lost_done(struct flow *flow, void *ctx) {
	struct step *t = ctx;
	struct epoch *e = step_over(t);

	flow->figures.vault_lost += t->losses.destroyed;
	flow->figures.destroyed += t->losses.destroyed;
	if (t->losses.destroyed + t->losses.wiped + t->losses.held > 0)
		log_event(LOG_LEVEL_ERROR, "vault.captures-lost",
			"source=%s destroyed=%llu wiped=%llu held=%llu", t->policy->name,
			(unsigned long long)t->losses.destroyed,
			(unsigned long long)t->losses.wiped, (unsigned long long)t->losses.held);
	e->again_boot_ns = clock_boot_ns() + EPOCH_LOOK_NS;
	if (t->losses.waiting == 0)
		e->step = STEP_CLOSING;
}

/* ---- one look */

static void begin_step(struct flow *flow, size_t place) {
	struct epoch *e = flow->sources[place].epoch;
	struct step *t = step_new(flow, place);

	if (t == NULL)
		return; /* the tick tries again */
	(void)snprintf(t->cause, sizeof t->cause, "%s files=%llu", e->cause,
		(unsigned long long)e->leftovers);
	switch (e->step) {
	case STEP_DRAINING:
		if (e->lost)
			flow_record(flow, lost_work, lost_done, step_free, t);
		else
			flow_record(flow, count_work, counted, step_free, t);
		break;
	case STEP_CLOSING:
		if (e->lost && !e->gone)
			step_job(t, clear_work, clear_done);
		else
			step_job(t, remove_work, remove_done);
		break;
	case STEP_RECORDING:
		flow_record(flow, erasing_work, erasing_done, step_free, t);
		break;
	case STEP_DESTROYING:
		step_job(t, destroy_work, destroy_done);
		break;
	case STEP_OPEN:
		flow_record(flow, open_work, opened, step_free, t);
		break;
	}
}

void epochs_end_tick(struct flow *flow, size_t place) {
	struct flow_source *s = &flow->sources[place];
	struct epoch *e = s->epoch;
	bool idle = s->scan == NULL && s->looks == 0;

	bool turns = flow->vaults[s->of].wanted && e->encrypted && !e->lost;

	if ((e->step == STEP_OPEN && !turns) || e->busy || e->locked || e->away ||
		clock_boot_ns() < e->again_boot_ns || (e->step == STEP_CLOSING && !idle))
		return;
	begin_step(flow, place);
}
