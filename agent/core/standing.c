/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/core/standing.h"

#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "agent/ipc/readiness.h"
#include "base/check.h"
#include "base/cleanup.h"
#include "base/clock.h"

int standing_new(const char *state_dir, const struct sandbox_report *sandbox, struct standing **ret,
	struct cede_error *reterr) {
	struct standing *s = calloc(1, sizeof *s);

	if (s == NULL)
		return CEDE_FAIL_MEMORY(reterr);
	s->state_fd = -1;
	s->sandbox = sandbox;
	s->reload_ns = clock_wall_ns();
	int r = file_open_dir(AT_FDCWD, state_dir, &s->state_fd, reterr);
	if (r < 0) {
		standing_free(s);
		return r;
	}
	s->probe = process_probe_new();
	*ret = s;
	return CEDE_OK;
}

void standing_free(struct standing *s) {
	if (s == NULL)
		return;
	fd_closep(&s->state_fd);
	process_probe_free(s->probe);
	free(s);
}

static uint64_t ledger_bytes(const struct standing *s) {
	static const char *const names[] = {LEDGER_NAME, LEDGER_NAME "-wal"};
	uint64_t bytes = 0;
	struct stat st;

	for (size_t i = 0; i < ARRAY_LENGTH(names); i++)
		if (fstatat(s->state_fd, names[i], &st, AT_SYMLINK_NOFOLLOW) == 0)
			bytes += (uint64_t)st.st_size;
	return bytes;
}

static void add_certificate(
	struct meters *m, const char *role, const char *destination, int64_t until_ns) {
	m->certificates[m->certificate_count++] = (struct meters_certificate){
		.role = role, .destination = destination, .until_ns = until_ns};
}

static uint32_t unmet(const struct standing *s) {
	const struct meters *m = &s->meters;
	const struct flow_figures *f = &s->figures.flow;
	bool bad[CONDITION_COUNT] = {
		[CONDITION_RECOVERED] = !f->recovered,
		[CONDITION_POLICY] = f->expired,
		[CONDITION_RELOAD] = s->reload_failed,
		[CONDITION_LEDGER] = f->ledger_failing,
		[CONDITION_IDENTITY] = s->identity_invalid,
		[CONDITION_SPOOL] = f->spool_full,
	};
	uint32_t bits = 0;

	for (size_t i = 0; i < m->policy->destination_count; i++) {
		const struct destination_figures *d = &s->figures.destinations[i];
		bad[CONDITION_LINK] = bad[CONDITION_LINK] || !d->up;
		bad[CONDITION_SEAL] = bad[CONDITION_SEAL] || d->seal_over;
	}
	for (size_t i = 0; i < m->policy->source_count; i++) {
		bad[CONDITION_SOURCES] = bad[CONDITION_SOURCES] || s->figures.sources[i].missing;
		bad[CONDITION_AGE] = bad[CONDITION_AGE] ||
			meters_oldest_age_ns(m, i) > m->policy->sources[i].max_age_ns;
	}
	for (size_t i = 0; i < CONDITION_COUNT; i++)
		bits |= bad[i] ? CONDITION_BIT(i) : 0;
	return bits;
}

void standing_take(struct standing *s, const struct flow *flow, const struct inforce *inforce,
	const struct link *link) {
	struct meters *m = &s->meters;

	flow_figures(flow, &s->figures);
	s->host = inforce->host;
	*m = (struct meters){.policy = inforce->policy,
		.figures = &s->figures,
		.now_ns = clock_wall_ns(),
		.is_signed = inforce->trusted->is_signed,
		.reload_failed = s->reload_failed,
		.reloads = s->reloads,
		.bad_reloads = s->bad_reloads,
		.reload_ns = s->reload_ns,
		.courier_starts = link == NULL ? 0 : link_courier_starts(link),
		.ledger_bytes = ledger_bytes(s),
		.layers_on = s->sandbox->on,
		.layers_missing = s->sandbox->missing};
	add_certificate(m, "identity", "", inforce->identity_until_ns);
	for (size_t i = 0; i < inforce->policy->destination_count; i++) {
		const char *name = inforce->policy->destinations[i].name;
		add_certificate(m, "seal", name, inforce->seal_until_ns[i]);
		add_certificate(m, "server-ca", name, inforce->ca_until_ns[i]);
	}
	process_read(s->probe, &m->process);
	m->unmet = unmet(s);
}
