/* SPDX-License-Identifier: Apache-2.0
 * A turn: the next directory is made beside the present one, with a key of its own (job); the ledger
 * says that it takes the place (I8); the two are exchanged (job). Dying between any two of these
 * leaves what core/epochs_open.c knows to tidy: an empty directory, a key that encrypted nothing. */
#include <errno.h>
#include <fcntl.h>
#include <openssl/crypto.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "agent/core/epochs_internal.h"
#include "agent/watch/facts.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/log.h"

struct turn {
	struct flow *flow;
	size_t source;
	size_t old; /* the place that is left */
	struct place *place;
	const struct policy_source *policy;
	char name[FSCRYPT_ID_TEXT]; /* of the old one, in the store */
	int like_fd;                /* the old one; its place stays as long as it is open */
	bool readable;
	bool wrapped;
	bool forced;
	struct fscrypt_id before;
	bool has_before;
	struct ledger_epoch old_ledger;
	/* results */
	struct epoch *next;
	bool quiet;
	int fd;
	struct cede_error err;
};

static void turn_free(struct turn *t) {
	t->flow->vaults[t->source].turning = false;
	t->flow->sources[t->old].looks--;
	fd_closep(&t->fd);
	free(t->next);
	free(t);
}

static void turn_failed(struct turn *t, const char *why) {
	struct flow *flow = t->flow;

	flow->vaults[t->source].again_boot_ns = clock_boot_ns() + VAULT_AGAIN_NS;
	epochs_say_unavailable(flow, t->source, why);
	if (t->err.sys == EACCES)
		place_denied(flow, t->source);
	turn_free(t);
	flow_settled(flow);
}

/* ---- 1: the next directory and its key */

static int open_wrap(const struct turn *t, struct wrap **ret, struct cede_error *reterr) {
	CLEANUP(fd_closep) int state = -1;

	if (t->flow->setup.vault_key == NULL)
		return CEDE_FAIL(reterr, CEDE_ERR_INPUT,
			"the policy wants wrapped keys, and agent.yaml has no vault.key to wrap them with");
	CEDE_TRY(file_open_dir(AT_FDCWD, t->flow->setup.state, &state, reterr));
	CEDE_TRY(wrap_open(t->flow->setup.vault_key, state, ret, reterr));
	return wrap_is_apart(*ret, t->like_fd, reterr);
}

static int make_key(struct turn *t, struct wrap *wrap, struct cede_error *reterr) {
	uint8_t key[FSCRYPT_KEY_SIZE];

	if (getrandom(key, sizeof key, 0) != (ssize_t)sizeof key)
		return CEDE_FAIL_SYS(reterr, "random bytes");
	int r = fscrypt_add(place_store_fd(t->place), key, &t->next->id, reterr);
	/* the copy is durable before anything is encrypted */
	if (r == CEDE_OK && wrap != NULL)
		r = wrap_store(wrap, &t->next->id, key, reterr);
	OPENSSL_cleanse(key, sizeof key);
	return r;
}

static void unmake(struct turn *t, struct wrap *wrap) {
	enum fscrypt_state state;
	struct place_rest rest;

	/* what fails here is found at the next start */
	if (place_remove(t->place, t->name, NULL, NULL, &rest, NULL) < 0)
		return;
	if (fscrypt_remove(place_store_fd(t->place), &t->next->id, &state, NULL) < 0)
		return;
	if (wrap != NULL)
		wrap_forget(wrap, &t->next->id);
}

static void stage_work(void *ctx) {
	struct turn *t = ctx;
	CLEANUP(wrap_closep) struct wrap *wrap = NULL;

	if (!t->next->encrypted) {
		if (place_stage(t->place, t->name, t->like_fd, t->readable, NULL, &t->err) == CEDE_OK)
			t->err.code = CEDE_OK;
		return;
	}
	if (t->wrapped && open_wrap(t, &wrap, &t->err) < 0)
		return;
	if (make_key(t, wrap, &t->err) < 0 ||
		place_stage(t->place, t->name, t->like_fd, t->readable, &t->next->id, &t->err) < 0)
		unmake(t, wrap);
}

/* ---- 3: the exchange */

/* A file that the policy ignores and that changed lately may be half a capture that is about to get
 * its own name, by a path that would lead to the new directory. */
static bool is_half_written(void *ctx, int dirfd, const char *name, const char *path) {
	const struct turn *t = ctx;
	struct decide_facts facts;
	struct decide_known known = {0};
	struct file_identity identity;
	int64_t now = clock_wall_ns();

	if (facts_at(dirfd, name, path, t->policy, now, &facts, &identity, NULL) < 0 ||
		facts.kind != FILE_KIND_REGULAR)
		return false;
	struct decision d = decide(t->flow->policy, t->policy, &facts, &known, now);
	return d.action == ACTION_IGNORE && facts.ctime_ns > now - HALF_WRITTEN_NS &&
		strncmp(name, FILE_ASIDE_PREFIX, sizeof FILE_ASIDE_PREFIX - 1) != 0;
}

static void exchange_work(void *ctx) {
	struct turn *t = ctx;
	bool half = false;

	if (!t->forced && t->readable && place_any(t->like_fd, is_half_written, t, &half, &t->err) < 0)
		return;
	t->quiet = !half;
	if (t->quiet && place_turn(t->place, t->name, t->like_fd, t->readable, &t->fd, &t->err) < 0)
		t->quiet = false;
}

static void settle_in(struct turn *t) {
	struct flow *flow = t->flow;
	struct vault *v = &flow->vaults[t->source];
	struct epoch *old = flow->sources[t->old].epoch;
	int64_t now = clock_boot_ns();
	size_t place;

	v->staged = false;
	v->due_boot_ns = v->wanted ? now + t->policy->vault_epoch_ns : INT64_MAX;
	t->next->live_boot_ns = now;
	old->step = STEP_DRAINING;
	old->live_boot_ns = now;
	flow->figures.vault_turns++;
	if (!epochs_take_place(flow, t->source, t->fd, t->next, &place)) {
		flow_fail(flow, "no place for the next epoch of a vault");
		return;
	}
	t->fd = -1;
	t->next = NULL;
	v->current = place;
	v->has_current = true;
	epochs_say_unavailable(flow, t->source, NULL);
	log_event(LOG_LEVEL_INFO, "vault.turned", "source=%s epochs=%zu keys=%s", t->policy->name,
		epochs_of(flow, t->source),
		!v->wanted           ? "none"
			: t->wrapped ? "wrapped"
				     : "memory");
	intake_scan(flow, place, "");
	intake_scan(flow, t->old, ""); /* a directory made at the moment of the exchange */
}

static void exchange_done(void *ctx) {
	struct turn *t = ctx;
	struct flow *flow = t->flow;

	flow->epoch_jobs--;
	if (t->fd < 0 && t->err.code != CEDE_OK) {
		turn_failed(t, t->err.text);
		return;
	}
	if (t->fd >= 0) {
		if (t->err.code != CEDE_OK)
			log_event(LOG_LEVEL_WARNING, "vault.turn", "source=%s error=\"%s\"",
				t->policy->name, t->err.text);
		settle_in(t);
	}
	turn_free(t); /* not quiet: again with the next tick */
	flow_settled(flow);
}

static void exchange_start(struct turn *t) {
	struct flow *flow = t->flow;

	flow->epoch_jobs++;
	if (flow->stopping || jobs_start(&flow->jobs, exchange_work, exchange_done, t, &t->err) < 0) {
		flow->epoch_jobs--;
		turn_free(t); /* at the next start, or tick */
		flow_settled(flow);
	}
}

/* ---- 2: the ledger */

static int turned_work(struct ledger *ledger, void *ctx, struct cede_error *reterr) {
	struct turn *t = ctx;
	struct ledger_epoch *e = &t->next->ledger;

	e->made_ns = clock_wall_ns();
	if (!t->next->encrypted)
		return ledger_epoch_is_open(ledger, &t->old_ledger, false, e->made_ns, reterr);
	return ledger_epoch_turned(ledger, t->policy->name, t->next->id.bytes, t->wrapped,
		t->has_before ? t->before.bytes : NULL, e->made_ns, &e->row, reterr);
}

static void turned_done(struct flow *flow, void *ctx) {
	struct turn *t = ctx;

	flow->vaults[t->source].staged = true;
	flow->vaults[t->source].next_epoch = t->next->ledger;
	exchange_start(t);
}

static void stage_done(void *ctx) {
	struct turn *t = ctx;
	struct flow *flow = t->flow;

	flow->epoch_jobs--;
	if (t->err.code != CEDE_OK) {
		turn_failed(t, t->err.text);
		return;
	}
	if (t->next->encrypted) {
		memcpy(t->next->ledger.key, t->next->id.bytes, sizeof t->next->ledger.key);
		t->next->ledger.wrapped = t->wrapped;
		epoch_source(t->policy->name, t->next->id.bytes, t->next->ledger.source);
	}
	flow->vaults[t->source].next = t->next->id;
	if (flow->stopping) {
		turn_free(t);
		flow_settled(flow);
		return;
	}
	flow_record(flow, turned_work, turned_done, NULL, t);
}

/* ---- begin */

static struct turn *turn_new(struct flow *flow, size_t source) {
	struct vault *v = &flow->vaults[source];
	const struct epoch *old = flow->sources[v->current].epoch;
	struct turn *t = calloc(1, sizeof *t);
	struct epoch *next = calloc(1, sizeof *next);

	if (t == NULL || next == NULL) {
		free(t);
		free(next);
		return NULL;
	}
	*t = (struct turn){.flow = flow,
		.source = source,
		.old = v->current,
		.place = v->place,
		.policy = &flow->setup.policy->sources[source],
		.like_fd = flow->sources[v->current].fd,
		.readable = !old->lost,
		.wrapped = !flow->setup.policy->sources[source].vault_keys_in_memory,
		.before = old->id,
		.has_before = old->encrypted,
		.old_ledger = old->ledger,
		.next = next,
		.fd = -1};
	next->encrypted = v->wanted; /* a policy without the vault: back to a plain directory */
	next->cause = "turn";
	next->wrapped_level = WIPE_OVERWRITTEN_CURRENT;
	(void)epochs_name(old, t->name);
	t->forced = !t->readable || clock_boot_ns() > v->due_boot_ns + t->policy->vault_epoch_ns / 2;
	return t;
}

void epochs_turn(struct flow *flow, size_t source) {
	const struct flow_source *own = &flow->sources[source];
	struct vault *v = &flow->vaults[source];
	struct cede_error err = {0};
	struct turn *t;

	if (!v->has_current || v->opening || v->displaced)
		return;
	if (flow->sources[v->current].epoch->locked)
		return; /* its key may come yet */
	if (!v->wanted && (own->epoch != NULL || own->fd >= 0 || own->scan != NULL))
		return; /* an earlier plain one has to end first */
	if (epochs_of(flow, source) >= EPOCHS_MOST) {
		v->again_boot_ns = clock_boot_ns() + VAULT_AGAIN_NS;
		epochs_say_unavailable(flow, source,
			"too many epochs have captures that are not handed over yet: the present one lasts longer");
		return;
	}
	t = turn_new(flow, source);
	if (t == NULL)
		return; /* the tick tries again */
	v->turning = true;
	flow->sources[t->old].looks++;
	if (v->staged) {
		t->next->id = v->next;
		t->next->ledger = v->next_epoch;
		t->wrapped = v->next_epoch.wrapped;
		exchange_start(t);
		return;
	}
	flow->epoch_jobs++;
	if (jobs_start(&flow->jobs, stage_work, stage_done, t, &err) < 0) {
		flow->epoch_jobs--;
		turn_free(t);
	}
}
