/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/core/meters.h"

#include "agent/ipc/readiness.h"
#include "base/check.h"
#include "base/clock.h"
#include "version.h"

static const enum capture_state live_states[] = {CAPTURE_SETTLING, CAPTURE_READY, CAPTURE_BUNDLED,
	CAPTURE_SEALED, CAPTURE_WIPING, CAPTURE_HELD, CAPTURE_KEPT};

int64_t meters_oldest_age_ns(const struct meters *m, size_t source) {
	int64_t oldest = figures_oldest_ns(&m->figures->sources[source]);
	int64_t unwritten = m->figures->flow.unwritten_ns;

	if (unwritten != 0 && unwritten < oldest)
		oldest = unwritten;
	return oldest < m->now_ns ? m->now_ns - oldest : 0;
}

/* ---- each source */

typedef void source_fn(struct metrics *out, const struct meters *m, size_t i, const char *name);

static void max_age(struct metrics *out, const struct meters *m, size_t i, const char *name) {
	metric_add_ns(out, m->policy->sources[i].max_age_ns, "source", name, NULL);
}

static void oldest_age(struct metrics *out, const struct meters *m, size_t i, const char *name) {
	metric_add_ns(out, meters_oldest_age_ns(m, i), "source", name, NULL);
}

static void files(struct metrics *out, const struct meters *m, size_t i, const char *name) {
	for (size_t k = 0; k < ARRAY_LENGTH(live_states); k++)
		metric_add(out, m->figures->sources[i].tally.files[live_states[k]], "source", name,
			"state", capture_state_name(live_states[k]), NULL);
}

static void bytes(struct metrics *out, const struct meters *m, size_t i, const char *name) {
	for (size_t k = 0; k < ARRAY_LENGTH(live_states); k++)
		metric_add(out, m->figures->sources[i].tally.bytes[live_states[k]], "source", name,
			"state", capture_state_name(live_states[k]), NULL);
}

static bool stays(enum reason reason) {
	static const enum reason others[] = {REASON_READY, REASON_OVERDUE, REASON_HELD,
		REASON_DESTROYED, REASON_GROUP_INCOMPLETE, REASON_SETTLING, REASON_OPEN,
		REASON_GROUP_WAITS, REASON_IGNORED};

	for (size_t i = 0; i < ARRAY_LENGTH(others); i++)
		if (reason == others[i])
			return false;
	return true;
}

static void reported(struct metrics *out, const struct meters *m, size_t i, const char *name) {
	for (int r = 0; r < REASON_COUNT; r++)
		if (stays((enum reason)r))
			metric_add(out, m->figures->sources[i].stay[r], "source", name, "reason",
				reason_name((enum reason)r), NULL);
}

static void reported_bytes(struct metrics *out, const struct meters *m, size_t i, const char *name) {
	metric_add(out, m->figures->sources[i].stay_bytes, "source", name, NULL);
}

static void incomplete(struct metrics *out, const struct meters *m, size_t i, const char *name) {
	metric_add(out, m->figures->sources[i].incomplete, "source", name, NULL);
}

static void incomplete_bytes(struct metrics *out, const struct meters *m, size_t i, const char *name) {
	metric_add(out, m->figures->sources[i].incomplete_bytes, "source", name, NULL);
}

static void source_up(struct metrics *out, const struct meters *m, size_t i, const char *name) {
	metric_add(out, !m->figures->sources[i].missing, "source", name, NULL);
}

static void source_watched(struct metrics *out, const struct meters *m, size_t i, const char *name) {
	metric_add(out, !m->figures->sources[i].unwatched, "source", name, NULL);
}

static void scanned(struct metrics *out, const struct meters *m, size_t i, const char *name) {
	metric_add_ns(out, m->figures->sources[i].scanned_ns, "source", name, NULL);
}

static void seen(struct metrics *out, const struct meters *m, size_t i, const char *name) {
	metric_add(out, m->figures->sources[i].seen, "source", name, NULL);
}

static void wiped(struct metrics *out, const struct meters *m, size_t i, const char *name) {
	metric_add(out, m->figures->sources[i].wiped, "source", name, NULL);
}

static void exposure(struct metrics *out, const struct meters *m, size_t i, const char *name) {
	metric_add_histogram(out, &m->figures->sources[i].exposure, "source", name, NULL);
}

static const struct {
	const char *name;
	enum metric_type type;
	source_fn *add;
	const char *help;
} source_families[] = {
	{"cede_oldest_plaintext_age_seconds", METRIC_GAUGE, oldest_age,
		"Age of the oldest capture in the clear that no legal hold keeps; 0 if there is none. While the ledger can't be written no capture that came since is known: then at least the time since."},
	{"cede_source_max_age_seconds", METRIC_GAUGE, max_age,
		"What the policy allows: how old a capture of the source may become in the clear."},
	{"cede_plaintext_files", METRIC_GAUGE, files, "Captures in the clear, by state."},
	{"cede_plaintext_bytes", METRIC_GAUGE, bytes, "Bytes of captures in the clear, by state."},
	{"cede_reported_files", METRIC_GAUGE, reported,
		"Files that stay in the source and are reported, by reason, at the last whole scan."},
	{"cede_reported_bytes", METRIC_GAUGE, reported_bytes,
		"Bytes of the files that stay and are reported."},
	{"cede_incomplete_files", METRIC_GAUGE, incomplete,
		"Files that were being written, or waited for their group, at the last whole scan."},
	{"cede_incomplete_bytes", METRIC_GAUGE, incomplete_bytes,
		"Bytes of the files that were not complete."},
	{"cede_source_up", METRIC_GAUGE, source_up,
		"1 if the directory of the source is there and on its file system."},
	{"cede_source_watched", METRIC_GAUGE, source_watched,
		"1 if the kernel tells of new files; 0 if the source is looked at again and again."},
	{"cede_source_scan_timestamp_seconds", METRIC_GAUGE, scanned,
		"When the last whole scan of the source ended."},
	{"cede_captures_seen_total", METRIC_COUNTER, seen, "Captures recorded as complete."},
	{"cede_captures_wiped_total", METRIC_COUNTER, wiped, "Captures wiped after their proof."},
	{"cede_capture_exposure_seconds", METRIC_HISTOGRAM, exposure,
		"How long a capture was in the clear: from the last change of its file to its wipe."},
};

static void add_sources(struct metrics *out, const struct meters *m) {
	for (size_t f = 0; f < ARRAY_LENGTH(source_families); f++) {
		metric_family(out, source_families[f].type, source_families[f].name,
			source_families[f].help);
		for (size_t i = 0; i < m->policy->source_count; i++)
			source_families[f].add(out, m, i, m->policy->sources[i].name);
	}
}

/* ---- each destination */

typedef void destination_fn(
	struct metrics *out, const struct destination_figures *d, const char *name);

static void destination_up(
	struct metrics *out, const struct destination_figures *d, const char *name) {
	metric_add(out, d->up, "destination", name, NULL);
}

static void bundles_open(struct metrics *out, const struct destination_figures *d, const char *name) {
	metric_add(out, d->open, "destination", name, NULL);
}

static void bundles_open_bytes(
	struct metrics *out, const struct destination_figures *d, const char *name) {
	metric_add(out, d->open_bytes, "destination", name, NULL);
}

static void receipts(struct metrics *out, const struct destination_figures *d, const char *name) {
	metric_add(out, d->receipts, "destination", name, NULL);
}

static void last_receipt(struct metrics *out, const struct destination_figures *d, const char *name) {
	metric_add_ns(out, d->receipt_ns, "destination", name, NULL);
}

static void pushed_bytes(struct metrics *out, const struct destination_figures *d, const char *name) {
	metric_add(out, d->pushed_bytes, "destination", name, NULL);
}

static void receipts_refused(
	struct metrics *out, const struct destination_figures *d, const char *name) {
	for (int i = 0; i < CONFIRM_REFUSAL_COUNT; i++)
		metric_add(out, d->receipts_refused[i], "destination", name, "reason",
			confirm_refusal_name((enum confirm_refusal)i), NULL);
}

static void push_failures(struct metrics *out, const struct destination_figures *d, const char *name) {
	for (int i = 0; i < PUSH_FAILURE_COUNT; i++)
		metric_add(out, d->push_failures[i], "destination", name, "reason",
			push_failure_name((enum push_failure)i), NULL);
}

static void push_latency(struct metrics *out, const struct destination_figures *d, const char *name) {
	metric_add_histogram(out, &d->push, "destination", name, NULL);
}

static const struct {
	const char *name;
	enum metric_type type;
	destination_fn *add;
	const char *help;
} destination_families[] = {
	{"cede_destination_up", METRIC_GAUGE, destination_up, "1 if the last try worked."},
	{"cede_bundles_open", METRIC_GAUGE, bundles_open, "Sealed bundles without a receipt."},
	{"cede_bundles_open_bytes", METRIC_GAUGE, bundles_open_bytes,
		"Bytes of sealed bundles without a receipt."},
	{"cede_receipts_total", METRIC_COUNTER, receipts, "Receipts verified and recorded."},
	{"cede_last_receipt_timestamp_seconds", METRIC_GAUGE, last_receipt,
		"When the last receipt came; 0 if none since the start."},
	{"cede_receipts_refused_total", METRIC_COUNTER, receipts_refused,
		"Receipts that did not verify, by reason."},
	{"cede_pushed_bytes_total", METRIC_COUNTER, pushed_bytes,
		"Bytes of sealed bundles with a receipt."},
	{"cede_push_failures_total", METRIC_COUNTER, push_failures,
		"Tries to push that failed and are made again, by reason."},
	{"cede_push_latency_seconds", METRIC_HISTOGRAM, push_latency,
		"From the first try of a bundle to its receipt."},
};

static void add_destinations(struct metrics *out, const struct meters *m) {
	for (size_t f = 0; f < ARRAY_LENGTH(destination_families); f++) {
		metric_family(out, destination_families[f].type, destination_families[f].name,
			destination_families[f].help);
		for (size_t i = 0; i < m->policy->destination_count; i++)
			destination_families[f].add(
				out, &m->figures->destinations[i], m->policy->destinations[i].name);
	}
}

/* ---- what there is once */

static void add_plain(struct metrics *out, const struct meters *m) {
	const struct flow_figures *f = &m->figures->flow;

	const struct {
		const char *name;
		enum metric_type type;
		uint64_t value;
		const char *help;
	} list[] = {
		{"cede_captures_sealed_total", METRIC_COUNTER, f->sealed_captures,
			"Captures sealed into bundles."},
		{"cede_bundles_sealed_total", METRIC_COUNTER, f->sealed_bundles, "Bundles sealed."},
		{"cede_captures_wiped_below_requirement_total", METRIC_COUNTER, f->wiped_below,
			"Captures whose wipe reached less than the policy requires."},
		{"cede_captures_kept_below_requirement_total", METRIC_COUNTER, f->kept_below,
			"Captures that stay because their wipe would reach less than the policy requires."},
		{"cede_name_scrubs_total", METRIC_COUNTER, f->scrubs,
			"Times that the journal of a file system was emptied of names."},
		{"cede_captures_kept_total", METRIC_COUNTER, f->kept,
			"Captures handed over and kept under a legal hold."},
		{"cede_captures_destroyed_total", METRIC_COUNTER, f->destroyed,
			"Captures destroyed without a receipt: at max_age, as the policy says, or with the lost key of a vault."},
		{"cede_captures_gone_total", METRIC_COUNTER, f->gone,
			"Captures that another program removed before they were wiped."},
		{"cede_captures_replaced_total", METRIC_COUNTER, f->replaced,
			"Captures that were changed after sealing, or begin again in smaller segments; handed over again."},
		{"cede_captures_refused_total", METRIC_COUNTER, f->refused,
			"Files that were found and are never touched or stay, each counted once."},
		{"cede_names_settling", METRIC_GAUGE, f->settling, "Names that wait to be looked at."},
		{"cede_wipes_waiting", METRIC_GAUGE, f->wipes_waiting,
			"Proven captures that are not wiped yet."},
		{"cede_wipe_failures_total", METRIC_COUNTER, f->wipe_failures,
			"Tries to wipe that the system refused."},
		{"cede_read_failures_total", METRIC_COUNTER, f->read_failures,
			"Tries to read a capture that the system refused."},
		{"cede_guard_wanted", METRIC_GAUGE, f->guard_wanted,
			"1 if the policy wants a guard on the captures."},
		{"cede_guard_active", METRIC_GAUGE, f->guard_active,
			"1 if every open of a capture is seen."},
		{"cede_guard_denied_total", METRIC_COUNTER, f->guard_denied,
			"Opens of captures that were denied to programs that are not allowed."},
		{"cede_guard_noted_total", METRIC_COUNTER, f->guard_noted,
			"Opens of captures by programs that are not allowed (mode report)."},
		{"cede_guard_restarts_total", METRIC_COUNTER, f->guard_restarts,
			"Times that the guard was started again."},
		{"cede_vault_epochs", METRIC_GAUGE, f->vault_epochs,
			"Epochs of vaults whose key is there, open ones included."},
		{"cede_vault_epochs_kept", METRIC_GAUGE, f->vault_kept,
			"Epochs that have ended and that a hold, or files that stay, keep."},
		{"cede_vaults_unavailable", METRIC_GAUGE, f->vault_unavailable,
			"Sources whose vault is not in force, or can't turn."},
		{"cede_vault_turns_total", METRIC_COUNTER, f->vault_turns,
			"Times that another epoch took the place of a source's directory."},
		{"cede_vault_erased_total", METRIC_COUNTER, f->vault_erased,
			"Epochs whose key was destroyed."},
		{"cede_vault_busy_total", METRIC_COUNTER, f->vault_busy,
			"Epochs whose key could not go at once, since a program still used a file of it."},
		{"cede_vault_lost_total", METRIC_COUNTER, f->vault_lost,
			"Captures that the agency had not got when the key of their epoch was lost."},
		{"cede_watch_overflows_total", METRIC_COUNTER, f->gaps,
			"Times that file events were lost."},
		{"cede_scans_total", METRIC_COUNTER, f->scans, "Whole scans of a source."},
		{"cede_clock_steps_total", METRIC_COUNTER, f->clock_steps,
			"Times that the wall clock was set."},
		{"cede_spool_bytes", METRIC_GAUGE, f->spool_bytes,
			"Bytes of sealed bundles on the disk."},
		{"cede_spool_limit_bytes", METRIC_GAUGE, f->spool_limit,
			"What the spool may grow to (its file system may be smaller)."},
		{"cede_spool_full", METRIC_GAUGE, f->spool_full,
			"1 if something should be sealed to the disk and there is no room."},
		{"cede_ledger_events", METRIC_GAUGE, f->events, "Events in the ledger."},
		{"cede_ledger_bytes", METRIC_GAUGE, m->ledger_bytes,
			"Size of the ledger, its write-ahead log included."},
		{"cede_ledger_retries_total", METRIC_COUNTER, f->ledger_retries,
			"Ledger work that had to be tried again."},
		{"cede_courier_starts_total", METRIC_COUNTER, m->courier_starts,
			"Times that the courier was started."},
		{"cede_policy_serial", METRIC_GAUGE, m->policy->serial,
			"Serial of the policy in force."},
		{"cede_policy_signed", METRIC_GAUGE, m->is_signed,
			"1 if the policy in force is signed by a key that the host trusts."},
		{"cede_policy_expired", METRIC_GAUGE, f->expired,
			"1 if nothing is handed over or wiped any more."},
		{"cede_policy_reloads_total", METRIC_COUNTER, m->reloads,
			"Policies that took over from another."},
		{"cede_policy_reloads_refused_total", METRIC_COUNTER, m->bad_reloads,
			"Changed policies that were refused; the old one stayed in force."},
		{"cede_policy_reload_failed", METRIC_GAUGE, m->reload_failed,
			"1 if the policy that was published last was refused."},
	};

	for (size_t i = 0; i < ARRAY_LENGTH(list); i++) {
		metric_family(out, list[i].type, list[i].name, list[i].help);
		metric_add(out, list[i].value, NULL);
	}
}

static void add_times(struct metrics *out, const struct meters *m) {
	const struct {
		const char *name;
		int64_t ns;
		const char *help;
	} list[] = {
		{"cede_policy_expiry_timestamp_seconds", m->policy->expires_ns,
			"When the policy expires."},
		{"cede_policy_reload_timestamp_seconds", m->reload_ns,
			"When a policy was last looked at, taken or refused."},
		{"cede_vault_oldest_key_timestamp_seconds",
			m->figures->flow.vault_oldest_ns == INT64_MAX
				? 0
				: m->figures->flow.vault_oldest_ns,
			"When the oldest key of a vault was made; 0 if there is none."},
		{"cede_ledger_checkpoint_timestamp_seconds", m->figures->flow.checkpoint_ns,
			"When the ledger was last signed; 0 if never."},
		{"cede_ledger_acknowledged_timestamp_seconds", m->figures->flow.acknowledged_ns,
			"When the agency last said which checkpoint of the ledger it has; 0 if never."},
		{"cede_figures_timestamp_seconds", m->now_ns, "When the keeper said all this."},
	};

	for (size_t i = 0; i < ARRAY_LENGTH(list); i++) {
		metric_family(out, METRIC_GAUGE, list[i].name, list[i].help);
		metric_add_ns(out, list[i].ns, NULL);
	}
}

/* ---- what has one label */

static void add_conditions(struct metrics *out, const struct meters *m) {
	static const char *const names[] = {
#define X(id, name, text) [CONDITION_##id] = name,
		CONDITIONS(X)
#undef X
	};

	metric_family(out, METRIC_GAUGE, "cede_ready",
		"1 if the condition is met; the agent is ready (/readyz) when all are.");
	for (size_t i = 0; i < ARRAY_LENGTH(names); i++)
		metric_add(out, (m->unmet & CONDITION_BIT(i)) == 0, "condition", names[i], NULL);
}

static void add_reasons(struct metrics *out, const struct meters *m) {
	metric_family(out, METRIC_COUNTER, "cede_violations_total",
		"Captures handed over that should not have come to this, and other breaches of the policy.");
	for (int i = 0; i < VIOLATION_COUNT; i++)
		metric_add(out, m->figures->flow.violations[i], "reason",
			violation_name((enum violation)i), NULL);
	metric_family(out, METRIC_COUNTER, "cede_wipes_total", "Wipes, by what they reached.");
	for (int i = 0; i < WIPE_LEVEL_COUNT; i++)
		metric_add(out, m->figures->flow.wipes[i], "level",
			wipe_level_name((enum wipe_level)i), NULL);
}

static void add_certificates(struct metrics *out, const struct meters *m) {
	metric_family(out, METRIC_GAUGE, "cede_certificate_expiry_timestamp_seconds",
		"When the first certificate of the role expires.");
	for (size_t i = 0; i < m->certificate_count; i++) {
		const struct meters_certificate *c = &m->certificates[i];
		metric_add_ns(out, c->until_ns, "role", c->role, "destination", c->destination, NULL);
	}
}

int meters_text(const struct meters *m, struct buf *out, struct cede_error *reterr) {
	struct metrics all = {.out = out};

	metric_family(&all, METRIC_GAUGE, "cede_build_info", "Version of the agent.");
	metric_add(&all, 1, "version", CEDE_VERSION, NULL);
	add_conditions(&all, m);
	add_sources(&all, m);
	add_destinations(&all, m);
	add_reasons(&all, m);
	add_plain(&all, m);
	add_times(&all, m);
	add_certificates(&all, m);
	metric_add_process(&all, "keeper", &m->process, m->layers_on, m->layers_missing);
	if (all.result < 0 && reterr != NULL)
		*reterr = all.err;
	return all.result;
}
