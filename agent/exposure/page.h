/* SPDX-License-Identifier: Apache-2.0
 * The exposure report as one self-contained page for an official: figures, a picture of the
 * captures in the clear over time (SVG), what can't be excluded, the list, and how to check it. No
 * script, nothing that is loaded from elsewhere.
 *
 * Thread  any. */
#pragma once

#include "agent/exposure/print.h"

#define PAGE_LIST_MOST \
	2000 /* captures listed; the whole list is the CSV, whose digest the page has */

/* csv_sha256: of what print_csv() writes for the same report. */
CEDE_MUST_USE int page_print(struct ledger *ledger, const struct report *report,
	const struct print_options *options, const uint8_t csv_sha256[32], struct cede_error *reterr);
