/* SPDX-License-Identifier: Apache-2.0
 * The exposure report for people (a table), machines (JSON, CSV) and officials (a page to print).
 *
 * Thread  any. Fails  IO (what was to be written could not be). */
#pragma once

#include <stdio.h>

#include "agent/exposure/report.h"

struct print_options {
	FILE *to;
	struct slice source; /* only of this one, or empty */
	bool names;          /* paths, too: they are personal data */
	const char *host;
};

/* Summary, notes, then a line a capture. */
CEDE_MUST_USE int print_table(struct ledger *ledger, const struct report *report,
	const struct print_options *options, struct cede_error *reterr);
/* JSON Lines, schema cede-exposure/1: a summary, each note, each capture. */
CEDE_MUST_USE int print_json_lines(struct ledger *ledger, const struct report *report,
	const struct print_options *options, struct cede_error *reterr);
/* RFC 4180: a heading, then a line a capture. */
CEDE_MUST_USE int print_csv(struct ledger *ledger, const struct report *report,
	const struct print_options *options, struct cede_error *reterr);

/* What the forms share: room for a path as printable ASCII, all else %xx (base/escape.h). */
#define PRINT_PATH_SIZE (3 * 4096 + 1)
/* "plaintext", "sealed", "refused" */
const char *print_form(enum exposure_form form);
/* "2h05m" and the like, for seconds. */
#define PRINT_SPAN_SIZE 32
void print_span(double seconds, char out[PRINT_SPAN_SIZE]);
