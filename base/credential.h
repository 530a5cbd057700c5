/* SPDX-License-Identifier: Apache-2.0
 * Files that the service manager hands over for this start alone (systemd's LoadCredential=): what
 * a configuration calls "credential:NAME" is NAME in $CREDENTIALS_DIRECTORY. */
#pragma once

#include <stdbool.h>

#include "base/error.h"

/* Whether a configuration's path means a credential. */
bool credential_named(const char *text);
/* The path of "credential:NAME" (heap; the caller's). Started without credentials, the text itself:
 * a command that needs no key must not fail for it. REFUSED if NAME is no plain name. */
CEDE_MUST_USE int credential_path(const char *text, char **ret, struct cede_error *reterr);
/* REFUSED, with the mend, if the path is such a text still. */
CEDE_MUST_USE int credential_there(const char *path, struct cede_error *reterr);
/* Whether the path lies directly in that directory. A file there that root owns may be readable for
 * the group: the manager lets our user in by an access list, whose mask shows as the group's bits. */
bool credential_is(const char *path);
