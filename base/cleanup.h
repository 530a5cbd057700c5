/* SPDX-License-Identifier: Apache-2.0
 * Release where it is born: CLEANUP(fn) runs fn(&variable) when the variable goes out of scope;
 * CEDE_TAKE hands the value on and leaves nothing to release. */
#pragma once

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define CLEANUP(fn) __attribute__((cleanup(fn)))
#define CEDE_TAKE(p)                         \
	__extension__({                      \
		__typeof__(p) cede_t_ = (p); \
		(p) = NULL;                  \
		cede_t_;                     \
	})
#define CEDE_TAKE_FD(fd)          \
	__extension__({           \
		int cede_t_ = fd; \
		(fd) = -1;        \
		cede_t_;          \
	})

/* Closes *fd if it is one; keeps errno. */
void fd_closep(int *fd);
void file_closep(FILE **file);
void dir_closep(DIR **dir);
void freep(void *pointer_to_pointer);
