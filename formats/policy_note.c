/* SPDX-License-Identifier: Apache-2.0 */
#include "formats/policy_note.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/hex.h"
#include "base/parse.h"
#include "formats/statement.h"

#define HEAD_FIELDS     4
#define SERIAL_TEXT_MAX 24

bool policy_note_name_valid(const char *name) {
	return strlen(name) <= POLICY_NOTE_NAME_MAX && statement_value_valid(slice_str(name));
}

static int file_values(const struct policy_note *policy, struct statement_field *fields,
	struct buf *lines, struct cede_error *reterr) {
	for (size_t i = 0; i < policy->file_count; i++) {
		char sha256[65];
		hex_print(policy->files[i].sha256, 32, sha256);
		CEDE_TRY(buf_addf(lines, reterr, "%s %s", sha256, policy->files[i].name));
	}
	size_t at = 0; /* only now: lines may have moved */
	for (size_t i = 0; i < policy->file_count; i++) {
		size_t len = 65 + strlen(policy->files[i].name);
		fields[i] = (struct statement_field){"file", slice_of(lines->data + at, len)};
		at += len;
	}
	return CEDE_OK;
}

int policy_note_sign(const struct policy_note *policy, const char *signer, EVP_PKEY *key,
	struct buf *out, struct cede_error *reterr) {
	CLEANUP(buf_done) struct buf text = BUF_INIT(NOTE_MAX);
	CLEANUP(buf_done) struct buf lines = BUF_INIT(NOTE_MAX);
	struct statement_field fields[HEAD_FIELDS + POLICY_NOTE_FILES_MAX];
	char serial[SERIAL_TEXT_MAX], expires[CLOCK_TEXT_SIZE], sha256[65];

	if (policy->file_count > POLICY_NOTE_FILES_MAX)
		return CEDE_FAIL(reterr, CEDE_ERR_INPUT,
			"the policy names more than %d files: a signature has no room for them",
			POLICY_NOTE_FILES_MAX);
	(void)snprintf(serial, sizeof serial, "%" PRIu64, policy->serial);
	clock_text(policy->expires_ns, expires);
	hex_print(policy->sha256, 32, sha256);
	fields[0] = (struct statement_field){"id", slice_str(policy->id)};
	fields[1] = (struct statement_field){"serial", slice_str(serial)};
	fields[2] = (struct statement_field){"expires", slice_str(expires)};
	fields[3] = (struct statement_field){"sha256", slice_str(sha256)};
	CEDE_TRY(file_values(policy, fields + HEAD_FIELDS, &lines, reterr));
	CEDE_TRY(statement_write(note_role_type(NOTE_POLICY), fields,
		HEAD_FIELDS + policy->file_count, &text, reterr));
	return note_sign(NOTE_POLICY, buf_slice(&text), signer, key, out, reterr);
}

static size_t count_files(struct slice text) {
	struct slice line, rest = text;
	size_t n = 0;

	while (slice_cut(rest, '\n', &line, &rest))
		n += slice_starts(line, "file: ");
	return n;
}

/* "<64 digits> <name>" */
static int parse_file(struct slice value, struct policy_note_file *ret, struct cede_error *reterr) {
	struct slice digest, name;

	if (!slice_cut(value, ' ', &digest, &name) || name.len == 0)
		return CEDE_FAIL(reterr, CEDE_ERR_INPUT, "file: digest and name expected");
	CEDE_TRY(hex_parse(digest, ret->sha256, 32, reterr));
	ret->name = strndup((const char *)name.data, name.len);
	return ret->name != NULL ? CEDE_OK : CEDE_FAIL_MEMORY(reterr);
}

static int parse_text(struct slice text, struct policy_note *p, struct cede_error *reterr) {
	struct statement_field fields[HEAD_FIELDS + POLICY_NOTE_FILES_MAX] = {
		{.key = "id"}, {.key = "serial"}, {.key = "expires"}, {.key = "sha256"}};
	size_t files = count_files(text);

	if (files > POLICY_NOTE_FILES_MAX)
		return CEDE_FAIL(
			reterr, CEDE_ERR_INPUT, "more than %d file lines", POLICY_NOTE_FILES_MAX);
	for (size_t i = 0; i < files; i++)
		fields[HEAD_FIELDS + i].key = "file";
	CEDE_TRY(statement_read(
		text, note_role_type(NOTE_POLICY), fields, HEAD_FIELDS + files, reterr));
	if (fields[0].value.len > POLICY_NOTE_ID_MAX)
		return CEDE_FAIL(reterr, CEDE_ERR_INPUT, "id: at most %d characters expected",
			POLICY_NOTE_ID_MAX);
	memcpy(p->id, fields[0].value.data, fields[0].value.len);
	CEDE_TRY(parse_u64(fields[1].value, 1, INT64_MAX, &p->serial, reterr));
	CEDE_TRY(parse_time(fields[2].value, &p->expires_ns, reterr));
	CEDE_TRY(hex_parse(fields[3].value, p->sha256, 32, reterr));
	p->files = calloc(files + 1, sizeof *p->files);
	if (p->files == NULL)
		return CEDE_FAIL_MEMORY(reterr);
	for (; p->file_count < files; p->file_count++)
		CEDE_TRY(parse_file(fields[HEAD_FIELDS + p->file_count].value,
			&p->files[p->file_count], reterr));
	return CEDE_OK;
}

int policy_note_verify(const struct note_keys *keys, struct slice note, struct policy_note *ret,
	uint8_t ret_signer[32], struct cede_error *reterr) {
	struct policy_note p = {.id = ""};
	struct slice text;

	CEDE_TRY(note_verify(keys, note, &text, ret_signer, reterr));
	int r = parse_text(text, &p, reterr);
	if (r < 0) {
		cede_error_within(reterr, "the signed text");
		policy_note_done(&p);
		return r;
	}
	*ret = p;
	return CEDE_OK;
}

void policy_note_done(struct policy_note *p) {
	for (size_t i = 0; i < p->file_count; i++)
		free(p->files[i].name);
	free(p->files);
	*p = (struct policy_note){.id = ""};
}
