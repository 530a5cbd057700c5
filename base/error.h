/* SPDX-License-Identifier: Apache-2.0
 * Errors: a code that decides what the caller does, and a text for the person who reads it.
 *
 * Promise a text is one line, and no byte of it steers a terminal: names in it may come from outside.
 *         Every function that can fail returns 0 or one of these (negative); results go through
 *         ret_... parameters, written on success only; *reterr is written on failure only.
 * Thread  any; a struct cede_error belongs to its owner's stack. */
#pragma once

#include <errno.h>
#include <stddef.h>

/* What kind of failure it is: decides what the caller does, never what a person reads. */
enum cede_err {
	CEDE_OK = 0,
	CEDE_ERR_IO = -1,      /* the system refused; err.sys holds errno */
	CEDE_ERR_INPUT = -2,   /* what came from outside is not well-formed */
	CEDE_ERR_REFUSED = -3, /* well-formed, and not allowed */
	CEDE_ERR_BUSY = -4,    /* try again later */
	CEDE_ERR_CRYPTO = -5,  /* the crypto library said no */
	CEDE_ERR_BUG = -6,     /* cannot happen */
};

#define CEDE_MUST_USE     __attribute__((warn_unused_result))
#define CEDE_PRINTF(f, a) __attribute__((format(printf, f, a)))

struct cede_error {
	enum cede_err code;
	int sys; /* errno, or 0 */
	char text[512];
};

/* Makes each control character a '?', in place. */
void cede_plain(char *text);
/* Fills *reterr (may be NULL). Use the macros below: they also give the code back as a constant,
 * so that compilers and analysers see which value a failing branch returns. */
void cede_error_set(struct cede_error *reterr, enum cede_err code, const char *fmt, ...)
	CEDE_PRINTF(3, 4);
/* The same with the system's words for sys (an errno) behind the text. */
void cede_error_set_sys(struct cede_error *reterr, int sys, const char *fmt, ...) CEDE_PRINTF(3, 4);
/* Puts "context: " before the text that is there. */
void cede_error_within(struct cede_error *reterr, const char *fmt, ...) CEDE_PRINTF(2, 3);

#define CEDE_FAIL(reterr, code, ...) (cede_error_set((reterr), (code), __VA_ARGS__), (int)(code))
#define CEDE_FAIL_SYS(reterr, ...) \
	(cede_error_set_sys((reterr), errno, __VA_ARGS__), (int)CEDE_ERR_IO)
#define CEDE_FAIL_MEMORY(reterr) \
	(cede_error_set_sys((reterr), ENOMEM, "out of memory"), (int)CEDE_ERR_IO)

#define CEDE_TRY(call)                  \
	do {                            \
		int cede_r_ = (call);   \
		if (cede_r_ < 0)        \
			return cede_r_; \
	} while (0)
