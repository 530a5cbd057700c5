/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/core/meters.h"

#include "base/check.h"
#include "base/clock.h"
#include "version.h"

static int one(struct buf *out, const char *name, const char *type, const char *help,
	uint64_t value, struct cede_error *reterr) {
	return buf_addf(out, reterr, "# HELP %s %s\n# TYPE %s %s\n%s %llu\n", name, help, name,
		type, name, (unsigned long long)value);
}

int meters_text(const struct flow_figures *f, const struct policy *policy, struct buf *out,
	struct cede_error *reterr) {
	const struct {
		const char *name, *type, *help;
		uint64_t value;
	} list[] = {
		{"cede_captures_seen_total", "counter", "Captures recorded as complete.", f->seen},
		{"cede_captures_sealed_total", "counter", "Captures sealed into bundles.",
			f->sealed_captures},
		{"cede_captures_wiped_total", "counter", "Captures wiped after their proof.",
			f->wiped},
		{"cede_captures_wiped_below_requirement_total", "counter",
			"Captures whose wipe reached less than the policy requires.", f->wiped_below},
		{"cede_captures_kept_total", "counter",
			"Captures handed over and kept under a legal hold.", f->kept},
		{"cede_captures_destroyed_total", "counter",
			"Captures destroyed at max_age without a receipt, as the policy says.",
			f->destroyed},
		{"cede_captures_gone_total", "counter",
			"Captures that another program removed before they were wiped.", f->gone},
		{"cede_captures_replaced_total", "counter",
			"Captures that were changed after sealing; handed over again.", f->replaced},
		{"cede_captures_refused_total", "counter",
			"Names that were found and are never touched or held, each counted once.",
			f->refused},
		{"cede_captures_held", "gauge",
			"Files that stay in the sources and are reported, at the last whole scan.",
			f->held},
		{"cede_captures_settling", "gauge", "Names that wait to be looked at.", f->settling},
		{"cede_bundles_sealed_total", "counter", "Bundles sealed.", f->sealed_bundles},
		{"cede_bundles_open", "gauge", "Sealed bundles without a receipt.", f->bundles_open},
		{"cede_pushed_bytes_total", "counter", "Bytes of sealed bundles with a receipt.",
			f->pushed_bytes},
		{"cede_push_failures_total", "counter", "Tries to push that failed.",
			f->push_failures},
		{"cede_receipts_total", "counter", "Receipts verified and recorded.", f->receipts},
		{"cede_receipts_refused_total", "counter", "Receipts that did not verify.",
			f->receipts_refused},
		{"cede_wipe_failures_total", "counter", "Tries to wipe that the system refused.",
			f->wipe_failures},
		{"cede_wipes_waiting", "gauge", "Proven captures that are not wiped yet.",
			f->wipes_waiting},
		{"cede_watch_overflows_total", "counter", "Times that file events were lost.",
			f->gaps},
		{"cede_scans_total", "counter", "Whole scans of a source.", f->scans},
		{"cede_ledger_retries_total", "counter", "Ledger work that had to be tried again.",
			f->ledger_retries},
		{"cede_destinations_up", "gauge", "1 if the last try worked at every destination.",
			f->link_up},
		{"cede_policy_serial", "gauge", "Serial of the policy in force.", policy->serial},
		{"cede_policy_expiry_timestamp_seconds", "gauge", "When the policy expires.",
			(uint64_t)(policy->expires_ns / NS_PER_SECOND)},
		{"cede_policy_signed", "gauge",
			"1 if the policy in force is signed by a key that the host trusts.",
			f->is_signed},
		{"cede_policy_reloads_total", "counter", "Policies that took over from another.",
			f->reloads},
		{"cede_policy_reloads_refused_total", "counter",
			"Changed policies that were refused; the old one stayed in force.",
			f->bad_reloads},
		{"cede_policy_reload_failed", "gauge", "1 if the last changed policy was refused.",
			f->reload_failed},
		{"cede_policy_expired", "gauge", "1 if nothing is handed over or wiped any more.",
			f->expired},
	};

	CEDE_TRY(buf_addf(out, reterr,
		"# HELP cede_build_info Version of the agent.\n# TYPE cede_build_info gauge\n"
		"cede_build_info{version=\"%s\"} 1\n",
		CEDE_VERSION));
	for (size_t i = 0; i < ARRAY_LENGTH(list); i++)
		CEDE_TRY(one(out, list[i].name, list[i].type, list[i].help, list[i].value, reterr));
	return CEDE_OK;
}
