/* SPDX-License-Identifier: Apache-2.0
 * An exported ledger as a contractor may hand it in, against an empty store. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/check.h"
#include "base/file.h"
#include "receiver/audit.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void found(void *ctx, enum audit_finding finding, const char *subject, const char *text) {
	(void)ctx;
	require(audit_finding_name(finding)[0] != 0 && subject != NULL && text != NULL);
}

static int empty_dir(void) {
	static int dir = -1;
	char name[] = "/tmp/cede-audit-fuzz-XXXXXX";

	if (dir < 0) {
		require(mkdtemp(name) != NULL);
		require(file_open_dir(-1, name, &dir, NULL) == CEDE_OK);
		(void)rmdir(name); /* it is open: nothing is left behind */
	}
	return dir;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
	struct audit_options o = {
		.host_dir = empty_dir(), .max_age_ns = 1, .require = 2, .found = found};
	struct audit_totals totals;

	if (size == 0)
		return 0;
	o.export_file = fmemopen((void *)(uintptr_t)data, size, "r");
	require(o.export_file != NULL);
	(void)!audit_run(&o, &totals, NULL);
	(void)fclose(o.export_file);
	return 0;
}
