/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/purge/tally.h"

#include <fcntl.h>
#include <inttypes.h>
#include <openssl/evp.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/check.h"
#include "base/cleanup.h"
#include "base/file.h"

struct tally_digest {
	EVP_MD_CTX *ctx;
};

const char *tally_what_name(enum tally_what what) {
	static const char *const names[TALLY_WHAT_COUNT] = {"unsent-capture", "held-capture",
		"proven-capture", "other-file", "unsent-bundle", "state-file", "identity-key",
		"vault-key"};

	return names[what];
}

static int write_line(struct tally *t, const char *line, struct cede_error *reterr) {
	size_t n = strlen(line);

	if (EVP_DigestUpdate(t->digest->ctx, line, n) != 1)
		return CEDE_FAIL(reterr, CEDE_ERR_CRYPTO, "SHA-256 failed");
	if (fwrite(line, 1, n, t->details) != n)
		return CEDE_FAIL_SYS(reterr, "write the details");
	return CEDE_OK;
}

int tally_open(int details_fd, struct tally *ret, struct cede_error *reterr) {
	CLEANUP(fd_closep) int fd = fcntl(details_fd, F_DUPFD_CLOEXEC, 0);

	*ret = (struct tally){0};
	if (fd < 0)
		return CEDE_FAIL_SYS(reterr, "duplicate a descriptor");
	ret->details = fdopen(fd, "w");
	ret->digest = calloc(1, sizeof *ret->digest);
	if (ret->details == NULL || ret->digest == NULL)
		return CEDE_FAIL_MEMORY(reterr);
	(void)CEDE_TAKE_FD(fd);
	ret->digest->ctx = EVP_MD_CTX_new();
	if (ret->digest->ctx == NULL || EVP_DigestInit_ex2(ret->digest->ctx, EVP_sha256(), NULL) != 1)
		return CEDE_FAIL(reterr, CEDE_ERR_CRYPTO, "SHA-256 failed");
	return write_line(ret, "{\"schema\":\"cede-purge-details/1\"}\n", reterr);
}

static void count(struct tally *t, enum tally_what what, const char *level, const char *reason) {
	struct tally_row *row = NULL;

	for (size_t i = 0; i < t->row_count && row == NULL; i++)
		if (t->rows[i].what == what && strcmp(t->rows[i].level, level) == 0 &&
			strcmp(t->rows[i].reason, reason) == 0)
			row = &t->rows[i];
	if (row == NULL && t->row_count == TALLY_ROWS)
		row = &t->rows[TALLY_ROWS - 1];
	if (row == NULL) {
		row = &t->rows[t->row_count++];
		row->what = what;
		(void)snprintf(row->level, sizeof row->level, "%s", level);
		(void)snprintf(row->reason, sizeof row->reason, "%s", reason);
	}
	row->count++;
	t->remains += strcmp(level, "remains") == 0;
}

int tally_add(struct tally *t, enum tally_what what, const struct id *id, const char *source,
	uint64_t size, const char *level, const char *reason, struct cede_error *reterr) {
	char text[ID_TEXT_SIZE] = "";
	char line[1024];

	if (id != NULL)
		id_print(id, text);
	/* sources' names, levels and reasons are words of closed sets: nothing to escape */
	int n = snprintf(line, sizeof line,
		"{\"what\":\"%s\",\"id\":%s%s%s,\"source\":\"%s\",\"size\":%" PRIu64
		",\"level\":\"%s\",\"reason\":\"%s\"}\n",
		tally_what_name(what), id != NULL ? "\"" : "", id != NULL ? text : "null",
		id != NULL ? "\"" : "", source, size, level, reason);
	require(n > 0 && (size_t)n < sizeof line);
	CEDE_TRY(write_line(t, line, reterr));
	count(t, what, level, reason);
	return CEDE_OK;
}

int tally_wiped(struct tally *t, enum tally_what what, const struct id *id, const char *source,
	const struct wipe_item *item, struct cede_error *reterr) {
	uint64_t size = item->want.size;
	char why[WIPE_REASONS_SIZE];
	const char *error;

	wipe_reasons_print(item->reasons, why);
	switch (item->outcome) {
	case WIPE_DONE:
		return tally_add(
			t, what, id, source, size, wipe_level_name(item->level), why, reterr);
	case WIPE_ABSENT:
		return tally_add(t, what, id, source, size, wipe_level_name(WIPE_UNPROVEN),
			"removed-by-another-program", reterr);
	case WIPE_REPLACED:
		return tally_add(t, what, id, source, size, "remains",
			why[0] != 0 ? why : "changed", reterr);
	case WIPE_BUSY:
		return tally_add(
			t, what, id, source, size, "remains", "open-by-another-program", reterr);
	case WIPE_HELD:
	case WIPE_KEPT:
		return tally_add(t, what, id, source, size, "remains", "held", reterr);
	case WIPE_FAILED:
		error = strerrorname_np(item->err.sys);
		return tally_add(t, what, id, source, size, "remains",
			error != NULL ? error : "system-error", reterr);
	}
	return CEDE_FAIL(reterr, CEDE_ERR_BUG, "an outcome that is none");
}

uint64_t tally_gone(const struct tally *t, enum tally_what what) {
	uint64_t n = 0;

	for (size_t i = 0; i < t->row_count; i++)
		if (t->rows[i].what == what && strcmp(t->rows[i].level, "remains") != 0)
			n += t->rows[i].count;
	return n;
}

int tally_flush(struct tally *t, struct cede_error *reterr) {
	if (fflush(t->details) != 0)
		return CEDE_FAIL_SYS(reterr, "write the details");
	return CEDE_OK;
}

int tally_close(struct tally *t, uint8_t ret_sha256[32], struct cede_error *reterr) {
	int fd = fileno(t->details);
	/* the room that was got for them and not needed goes back */
	bool flushed =
		fflush(t->details) == 0 && ftruncate(fd, ftello(t->details)) == 0 && fsync(fd) == 0;
	int sys = errno;

	if (!flushed) {
		cede_error_set_sys(reterr, sys, "write the details");
		return CEDE_ERR_IO;
	}
	return EVP_DigestFinal_ex(t->digest->ctx, ret_sha256, NULL) == 1
		? CEDE_OK
		: CEDE_FAIL(reterr, CEDE_ERR_CRYPTO, "SHA-256 failed");
}

void tally_done(struct tally *t) {
	file_closep(&t->details);
	if (t->digest != NULL)
		EVP_MD_CTX_free(t->digest->ctx);
	free(t->digest);
	t->digest = NULL;
}
