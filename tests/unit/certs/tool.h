/* SPDX-License-Identifier: Apache-2.0
 * For tests of certificates and formats: a temporary folder, stock tools, a throw-away PKI. A
 * failure ends the test at once. */
#pragma once

#include <openssl/types.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
/* cmocka.h needs the four above first */
#include <cmocka.h>

#include "base/buf.h"
#include "base/cleanup.h"

struct tool {
	char path[64]; /* of the temporary folder */
	int dirfd;
};

void tool_init(struct tool *t);
void tool_done(struct tool *t); /* removes the folder */
/* Runs a program in the folder, with LC_ALL=C; gives its exit code. NULL ends the arguments. */
int tool_run(const struct tool *t, const char *program, ...) __attribute__((sentinel));
/* certs/dev-pki into "pki". */
void tool_pki(const struct tool *t);
void tool_write(const struct tool *t, const char *name, struct slice content, unsigned mode);
void tool_read(const struct tool *t, const char *name, struct buf *out);
EVP_PKEY *tool_private(const struct tool *t, const char *name);
EVP_PKEY *tool_public(const struct tool *t, const char *name);
X509 *tool_cert(const struct tool *t, const char *name);
