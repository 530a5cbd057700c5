/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/doctor/doctor.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "agent/doctor/internal.h"
#include "base/check.h"
#include "base/cleanup.h"
#include "certs/ossl.h"

/* In the order of the report. Those that start threads or programs come last. */
static void (*const checks[])(struct doctor *d) = {check_policy, check_identity, check_sources,
	check_state, check_swap, check_core, check_clock, check_watches, check_layers, check_guard,
	check_destinations};

const char *doctor_verdict_name(enum doctor_verdict verdict) {
	static const char *const names[] = {"ok", "weak", "broken"};

	return names[verdict];
}

void doctor_say(struct doctor *d, const char *check, const char *subject,
	enum doctor_verdict verdict, const char *mend, const char *fmt, ...) {
	char text[768];
	va_list ap;

	require((verdict == DOCTOR_OK) == (mend[0] == 0));
	va_start(ap, fmt);
	(void)vsnprintf(text, sizeof text, fmt, ap);
	va_end(ap);
	cede_plain(text);
	if (verdict > d->worst)
		d->worst = verdict;
	d->options->found(d->options->ctx,
		&(struct doctor_finding){.check = check,
			.subject = subject,
			.verdict = verdict,
			.text = text,
			.mend = mend});
}

const char *doctor_mend(const struct cede_error *err, const char *otherwise) {
	return err->sys == EACCES ? "run cede doctor as root, or as the agent's user" : otherwise;
}

static void doctor_done(struct doctor *d) {
	trusted_policy_free(d->trusted);
	agent_config_free(d->config);
}

int doctor_run(const struct doctor_options *options, enum doctor_verdict *ret_worst,
	struct cede_error *reterr) {
	CLEANUP(doctor_done) struct doctor d = {.options = options};

	CEDE_TRY(ossl_start(reterr));
	int r = agent_config_read(options->config, &d.config, reterr);
	if (r < 0) {
		reterr->code = CEDE_ERR_INPUT;
		return CEDE_ERR_INPUT;
	}
	for (size_t i = 0; i < ARRAY_LENGTH(checks); i++)
		checks[i](&d);
	*ret_worst = d.worst;
	return CEDE_OK;
}
