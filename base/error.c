/* SPDX-License-Identifier: Apache-2.0 */
#include "base/error.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

void cede_plain(char *text) {
	for (unsigned char *c = (unsigned char *)text; *c != 0; c++) {
		if (*c == 0xc2 && c[1] >= 0x80 && c[1] < 0xa0)
			*c++ = '?'; /* U+0080 to U+009F, in two bytes */
		else if (*c >= 0x20 && *c != 0x7f)
			continue;
		*c = '?';
	}
}

void cede_error_set(struct cede_error *reterr, enum cede_err code, const char *fmt, ...) {
	va_list ap;

	if (reterr == NULL)
		return;
	reterr->code = code;
	reterr->sys = 0;
	va_start(ap, fmt);
	(void)vsnprintf(reterr->text, sizeof reterr->text, fmt, ap);
	va_end(ap);
	cede_plain(reterr->text);
}

void cede_error_set_sys(struct cede_error *reterr, int sys, const char *fmt, ...) {
	char words[128];
	va_list ap;

	if (reterr == NULL)
		return;
	reterr->code = CEDE_ERR_IO;
	reterr->sys = sys;
	va_start(ap, fmt);
	int n = vsnprintf(reterr->text, sizeof reterr->text, fmt, ap);
	va_end(ap);
	cede_plain(reterr->text);
	if (n < 0 || (size_t)n >= sizeof reterr->text)
		return;
	const char *said = strerror_r(sys, words, sizeof words);
	(void)snprintf(reterr->text + n, sizeof reterr->text - (size_t)n, ": %s", said);
}

void cede_error_within(struct cede_error *reterr, const char *fmt, ...) {
	char inner[sizeof reterr->text];
	va_list ap;

	if (reterr == NULL)
		return;
	memcpy(inner, reterr->text, sizeof inner);
	va_start(ap, fmt);
	int n = vsnprintf(reterr->text, sizeof reterr->text, fmt, ap);
	va_end(ap);
	cede_plain(reterr->text);
	if (n < 0 || (size_t)n + 3 > sizeof reterr->text)
		return;
	char *at = reterr->text + n;
	size_t room = sizeof reterr->text - (size_t)n - 3;
	size_t len = strnlen(inner, sizeof inner - 1);

	memcpy(at, ": ", 2);
	if (len > room)
		len = room;
	memcpy(at + 2, inner, len);
	at[2 + len] = 0;
}
