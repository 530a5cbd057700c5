/* SPDX-License-Identifier: Apache-2.0 */
#include "base/key_file.h"

#include <sys/stat.h>
#include <unistd.h>

#include "base/credential.h"

int key_file_check(int fd, const char *path, mode_t forbidden, struct cede_error *reterr) {
	struct stat st;

	if (fstat(fd, &st) < 0)
		return CEDE_FAIL_SYS(reterr, "%s", path);
	if (!S_ISREG(st.st_mode))
		return CEDE_FAIL(reterr, CEDE_ERR_REFUSED, "%s: not a regular file", path);
	if (st.st_uid != 0 && st.st_uid != geteuid())
		return CEDE_FAIL(reterr, CEDE_ERR_REFUSED,
			"%s: belongs to user %u; only root or the running user may own it: chown it",
			path, (unsigned)st.st_uid);
	if (st.st_uid == 0 && credential_is(path))
		forbidden &= (mode_t)~040;
	if ((st.st_mode & forbidden) != 0)
		return CEDE_FAIL(reterr, CEDE_ERR_REFUSED,
			(forbidden & 07) == 07 ? "%s: mode %04o lets others at the key: chmod 0600"
					       : "%s: mode %04o lets others write it: chmod 0644",
			path, (unsigned)(st.st_mode & 07777));
	return CEDE_OK;
}
