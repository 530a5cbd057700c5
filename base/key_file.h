/* SPDX-License-Identifier: Apache-2.0
 * Whose a key's file may be, and who may get at it; the same for every key, whatever is in it.
 *
 * Fails   IO, REFUSED; the text names the file and the mend. */
#pragma once

#include <sys/types.h>

#include "base/error.h"

/* Mode bits of which a file may have none. */
#define KEY_FILE_SECRET ((mode_t)077)
#define KEY_FILE_PUBLIC ((mode_t)022)

/* On the open descriptor: a regular file, owned by root or the running user, with none of the
 * forbidden bits. A credential that root owns may be readable for the group (base/credential.h). */
CEDE_MUST_USE int key_file_check(
	int fd, const char *path, mode_t forbidden, struct cede_error *reterr);
