/* SPDX-License-Identifier: Apache-2.0 */
#include "formats/manifest.h"

#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/hex.h"
#include "certs/base64.h"
#include "certs/seal.h"
#include "formats/manifest_internal.h"
#include "formats/utf8.h"

#define PART_MAX 255 /* NAME_MAX of Linux */

/* A part of a path that leads down: not empty, not "." or "..". */
static bool part_valid(struct slice part) {
	return part.len > 0 && part.len <= PART_MAX && !slice_is(part, ".") && !slice_is(part, "..");
}

static bool path_valid(struct slice path) {
	struct slice part, rest = path;

	if (path.len == 0 || path.len > MANIFEST_PATH_MAX || memchr(path.data, 0, path.len) != NULL)
		return false;
	while (slice_cut(rest, '/', &part, &rest))
		if (!part_valid(part))
			return false;
	return part_valid(rest);
}

static bool source_valid(struct slice source) {
	return part_valid(source) && utf8_plain(source) &&
		memchr(source.data, '/', source.len) == NULL && !slice_is(source, MANIFEST_NAME);
}

static bool text_valid(struct slice text) {
	return text.len <= MANIFEST_TEXT_MAX && utf8_plain(text);
}

static bool segment_valid(const struct manifest_entry *e) {
	uint64_t end;

	if (e->segment_count == 0 || e->segment_count > MANIFEST_SEGMENTS_MAX ||
		e->segment_index >= e->segment_count || e->size > INT64_MAX)
		return false;
	if (__builtin_add_overflow(e->segment_offset, e->segment_size, &end) || end > e->size)
		return false;
	bool first = e->segment_index == 0, last = e->segment_index == e->segment_count - 1;
	return (e->segment_offset == 0) == first && (!last || end == e->size) &&
		(last || e->segment_size > 0);
}

static const char *entry_mistake(const struct manifest_entry *e) {
	if (!source_valid(e->source))
		return "source is no name of a source";
	if (!path_valid(e->path))
		return "path is not relative, or has an empty part, \".\" or \"..\"";
	if (e->group.len > MANIFEST_PATH_MAX)
		return "group is too long";
	if (!text_valid(e->classification))
		return "classification is too long or no plain text";
	if (!segment_valid(e))
		return "size and segment do not fit together";
	return NULL;
}

int manifest_check(const struct manifest *m, struct cede_error *reterr) {
	uint64_t content = 0;

	if (!host_id_valid(m->host))
		return CEDE_FAIL(reterr, CEDE_ERR_INPUT, "manifest: host is no host id");
	if (m->policy_id.len == 0 || !text_valid(m->policy_id))
		return CEDE_FAIL(reterr, CEDE_ERR_INPUT,
			"manifest: policy id is empty, too long or no plain text");
	if (m->policy_serial > INT64_MAX || m->ledger_sequence > INT64_MAX)
		return CEDE_FAIL(reterr, CEDE_ERR_INPUT, "manifest: a number is too large");
	if (m->checkpoint.len > MANIFEST_NOTE_MAX)
		return CEDE_FAIL(reterr, CEDE_ERR_INPUT, "manifest: checkpoint is too long");
	if (m->count == 0 || m->count > MANIFEST_ENTRIES_MAX)
		return CEDE_FAIL(reterr, CEDE_ERR_INPUT, "manifest: 1 to %d entries, not %zu",
			MANIFEST_ENTRIES_MAX, m->count);
	for (size_t i = 0; i < m->count; i++) {
		const char *mistake = entry_mistake(&m->entries[i]);
		if (mistake != NULL)
			return CEDE_FAIL(
				reterr, CEDE_ERR_INPUT, "manifest: entry %zu: %s", i + 1, mistake);
		content += m->entries[i].segment_size;
		if (content > MANIFEST_CONTENT_MAX)
			return CEDE_FAIL(reterr, CEDE_ERR_INPUT,
				"manifest: more than %llu bytes of content", MANIFEST_CONTENT_MAX);
	}
	return CEDE_OK;
}

int manifest_member_name(const struct manifest_entry *e, struct buf *out, struct cede_error *reterr) {
	char suffix[40];
	char id[ID_TEXT_SIZE];
	const uint8_t *slash = memrchr(e->path.data, '/', e->path.len);
	size_t folder = slash == NULL ? 0 : (size_t)(slash - e->path.data) + 1;

	CEDE_TRY(buf_add(out, e->source.data, e->source.len, reterr));
	CEDE_TRY(buf_add(out, "/", 1, reterr));
	if (e->segment_count == 1)
		return buf_add(out, e->path.data, e->path.len, reterr);
	int len = snprintf(suffix, sizeof suffix, ".segment-%06" PRIu32 "-of-%06" PRIu32,
		e->segment_index + 1, e->segment_count);
	if (e->path.len - folder + (size_t)len <= PART_MAX) {
		CEDE_TRY(buf_add(out, e->path.data, e->path.len, reterr));
	} else {
		id_print(&e->capture, id);
		CEDE_TRY(buf_add(out, e->path.data, folder, reterr));
		CEDE_TRY(buf_add_str(out, id, reterr));
	}
	return buf_add(out, suffix, (size_t)len, reterr);
}

/* text is plain: only the quotation mark and the backslash need escaping (RFC 8259 section 7). */
static int add_string(struct buf *out, struct slice text, struct cede_error *reterr) {
	uint8_t *at;
	size_t n = 0;

	CEDE_TRY(buf_room(out, 2 * text.len + 2, &at, reterr));
	at[n++] = '"';
	for (size_t i = 0; i < text.len; i++) {
		if (text.data[i] == '"' || text.data[i] == '\\')
			at[n++] = '\\';
		at[n++] = text.data[i];
	}
	at[n++] = '"';
	buf_grew(out, n);
	return CEDE_OK;
}

/* "key":"name", or "key_base64":"..." where the name is no plain text. */
static int add_name(struct buf *out, const char *key, struct slice name, struct cede_error *reterr) {
	if (utf8_plain(name)) {
		CEDE_TRY(buf_addf(out, reterr, ",\"%s\":", key));
		return add_string(out, name, reterr);
	}
	CEDE_TRY(buf_addf(out, reterr, ",\"%s_base64\":\"", key));
	CEDE_TRY(base64_encode(name, out, reterr));
	return buf_add(out, "\"", 1, reterr);
}

static int add_entry(struct buf *out, const struct manifest_entry *e, struct cede_error *reterr) {
	char id[ID_TEXT_SIZE], sha256[65];

	id_print(&e->capture, id);
	hex_print(e->sha256, sizeof e->sha256, sha256);
	CEDE_TRY(buf_addf(out, reterr, "{\"capture\":\"%s\",\"source\":", id));
	CEDE_TRY(add_string(out, e->source, reterr));
	CEDE_TRY(add_name(out, "path", e->path, reterr));
	if (e->group.len > 0)
		CEDE_TRY(add_name(out, "group", e->group, reterr));
	if (e->classification.len > 0) {
		CEDE_TRY(buf_add_str(out, ",\"classification\":", reterr));
		CEDE_TRY(add_string(out, e->classification, reterr));
	}
	CEDE_TRY(buf_addf(out, reterr, ",\"size\":%" PRIu64 ",\"sha256\":\"%s\",\"mtime_ns\":%" PRId64,
		e->size, sha256, e->mtime_ns));
	if (e->segment_count > 1)
		CEDE_TRY(buf_addf(out, reterr,
			",\"segment\":{\"index\":%" PRIu32 ",\"count\":%" PRIu32
			",\"offset\":%" PRIu64 ",\"size\":%" PRIu64 "}",
			e->segment_index, e->segment_count, e->segment_offset, e->segment_size));
	return buf_add(out, "}", 1, reterr);
}

static int add_head(struct buf *out, const struct manifest *m, struct cede_error *reterr) {
	char id[ID_TEXT_SIZE], created[CLOCK_TEXT_SIZE], hash[65];

	id_print(&m->bundle, id);
	clock_text_ns(m->created_ns, created);
	hex_print(m->ledger_hash, sizeof m->ledger_hash, hash);
	CEDE_TRY(buf_addf(
		out, reterr, "{\"type\":\"" MANIFEST_TYPE "\",\"bundle\":\"%s\",\"host\":", id));
	CEDE_TRY(add_string(out, m->host, reterr));
	CEDE_TRY(buf_add_str(out, ",\"policy\":{\"id\":", reterr));
	CEDE_TRY(add_string(out, m->policy_id, reterr));
	CEDE_TRY(buf_addf(out, reterr,
		",\"serial\":%" PRIu64 "},\"created\":\"%s\",\"ledger\":{\"sequence\":%" PRIu64
		",\"hash\":\"%s\"",
		m->policy_serial, created, m->ledger_sequence, hash));
	if (m->checkpoint.len > 0) {
		CEDE_TRY(buf_add_str(out, ",\"checkpoint_base64\":\"", reterr));
		CEDE_TRY(base64_encode(m->checkpoint, out, reterr));
		CEDE_TRY(buf_add_str(out, "\"", reterr));
	}
	return buf_add_str(out, "},\"seal\":\"" SEAL_SUITE "\",\"entries\":[", reterr);
}

int manifest_write(const struct manifest *m, struct buf *out, struct cede_error *reterr) {
	CLEANUP(buf_done) struct buf json = BUF_INIT(MANIFEST_SIZE_MAX);

	CEDE_TRY(manifest_check(m, reterr));
	CEDE_TRY(add_head(&json, m, reterr));
	for (size_t i = 0; i < m->count; i++) {
		CEDE_TRY(buf_add_str(&json, i == 0 ? "\n" : ",\n", reterr));
		CEDE_TRY(add_entry(&json, &m->entries[i], reterr));
	}
	CEDE_TRY(buf_add_str(&json, "\n]}\n", reterr));
	return buf_add(out, json.data, json.len, reterr);
}
