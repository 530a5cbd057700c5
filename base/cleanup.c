/* SPDX-License-Identifier: Apache-2.0 */
#include "base/cleanup.h"

#include <errno.h>
#include <string.h>

void fd_closep(int *fd) {
	int saved = errno;

	if (*fd >= 0)
		(void)close(*fd);
	*fd = -1;
	errno = saved;
}

void file_closep(FILE **file) {
	int saved = errno;

	if (*file != NULL)
		(void)fclose(*file);
	*file = NULL;
	errno = saved;
}

void dir_closep(DIR **dir) {
	int saved = errno;

	if (*dir != NULL)
		(void)closedir(*dir);
	*dir = NULL;
	errno = saved;
}

void freep(void *pointer_to_pointer) {
	void *pointer;

	memcpy(&pointer, pointer_to_pointer, sizeof pointer);
	free(pointer);
	pointer = NULL;
	memcpy(pointer_to_pointer, &pointer, sizeof pointer);
}
