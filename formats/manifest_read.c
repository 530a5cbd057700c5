/* SPDX-License-Identifier: Apache-2.0 */
#include <jansson.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "base/cleanup.h"
#include "base/hex.h"
#include "base/parse.h"
#include "certs/base64.h"
#include "certs/seal.h"
#include "formats/json_bound.h"
#include "formats/manifest.h"
#include "formats/manifest_internal.h"

struct manifest_read {
	struct manifest manifest;
	struct manifest_entry *entries;
	struct buf strings; /* what the slices point into; never grows: pointers stay */
};

/* One JSON object: each key that is taken counts, so that what was not asked for is found. */
struct object {
	json_t *json;
	size_t taken;
};

static int bad(struct cede_error *reterr, const char *key, const char *expected) {
	return CEDE_FAIL(reterr, CEDE_ERR_INPUT, "\"%s\": %s expected", key, expected);
}

static json_t *take(struct object *o, const char *key) {
	json_t *value = json_object_get(o->json, key);

	if (value != NULL)
		o->taken++;
	return value;
}

static int object_begin(json_t *json, struct object *ret, const char *key, struct cede_error *reterr) {
	if (!json_is_object(json))
		return bad(reterr, key, "an object");
	*ret = (struct object){.json = json};
	return CEDE_OK;
}

static int object_end(const struct object *o, struct cede_error *reterr) {
	if (json_object_size(o->json) != o->taken)
		return CEDE_FAIL(reterr, CEDE_ERR_INPUT, "a key that the schema does not have");
	return CEDE_OK;
}

static int take_string(
	struct object *o, const char *key, struct slice *ret, struct cede_error *reterr) {
	json_t *value = take(o, key);

	if (!json_is_string(value))
		return bad(reterr, key, "a string");
	*ret = slice_of(json_string_value(value), json_string_length(value));
	return CEDE_OK;
}

static int take_number(struct object *o, const char *key, int64_t min, int64_t max, int64_t *ret,
	struct cede_error *reterr) {
	json_t *value = take(o, key);

	if (!json_is_integer(value) || json_integer_value(value) < min ||
		json_integer_value(value) > max)
		return bad(reterr, key, "a whole number in its range");
	*ret = json_integer_value(value);
	return CEDE_OK;
}

static int take_size(struct object *o, const char *key, uint64_t *ret, struct cede_error *reterr) {
	int64_t v;

	CEDE_TRY(take_number(o, key, 0, INT64_MAX, &v, reterr));
	*ret = (uint64_t)v;
	return CEDE_OK;
}

static int take_id(struct object *o, const char *key, struct id *ret, struct cede_error *reterr) {
	struct slice text;

	CEDE_TRY(take_string(o, key, &text, reterr));
	return id_parse(text, ret, reterr);
}

static int take_sha256(struct object *o, const char *key, uint8_t ret[32], struct cede_error *reterr) {
	struct slice text;

	CEDE_TRY(take_string(o, key, &text, reterr));
	return hex_parse(text, ret, 32, reterr);
}

static int take_literal(
	struct object *o, const char *key, const char *value, struct cede_error *reterr) {
	struct slice text;

	CEDE_TRY(take_string(o, key, &text, reterr));
	return slice_is(text, value) ? CEDE_OK : bad(reterr, key, value);
}

/* The JSON tree goes away; what it says is kept in m->strings. */
static int keep(
	struct manifest_read *m, struct slice text, struct slice *ret, struct cede_error *reterr) {
	size_t at = m->strings.len;

	CEDE_TRY(buf_add(&m->strings, text.data, text.len, reterr));
	*ret = slice_of(m->strings.data + at, text.len);
	return CEDE_OK;
}

static int take_text(struct manifest_read *m, struct object *o, const char *key, struct slice *ret,
	struct cede_error *reterr) {
	struct slice text;

	CEDE_TRY(take_string(o, key, &text, reterr));
	return keep(m, text, ret, reterr);
}

static int take_base64(struct manifest_read *m, struct object *o, const char *key_base64,
	struct slice *ret, struct cede_error *reterr) {
	struct slice text;
	size_t at = m->strings.len;

	CEDE_TRY(take_string(o, key_base64, &text, reterr));
	int r = base64_decode(text, &m->strings, reterr);
	if (r < 0) {
		cede_error_within(reterr, "\"%s\"", key_base64);
		return r;
	}
	*ret = slice_of(m->strings.data + at, m->strings.len - at);
	return CEDE_OK;
}

/* "key" or "key_base64", not both. */
static int take_name(struct manifest_read *m, struct object *o, const char *key,
	const char *key_base64, struct slice *ret, struct cede_error *reterr) {
	return json_object_get(o->json, key) != NULL ? take_text(m, o, key, ret, reterr)
						     : take_base64(m, o, key_base64, ret, reterr);
}

static int read_segment(json_t *json, struct manifest_entry *e, struct cede_error *reterr) {
	struct object o;
	int64_t index, count;

	if (json == NULL) {
		e->segment_count = 1;
		e->segment_size = e->size;
		return CEDE_OK;
	}
	CEDE_TRY(object_begin(json, &o, "segment", reterr));
	CEDE_TRY(take_number(&o, "index", 0, MANIFEST_SEGMENTS_MAX - 1, &index, reterr));
	CEDE_TRY(take_number(&o, "count", 2, MANIFEST_SEGMENTS_MAX, &count, reterr));
	CEDE_TRY(take_size(&o, "offset", &e->segment_offset, reterr));
	CEDE_TRY(take_size(&o, "size", &e->segment_size, reterr));
	e->segment_index = (uint32_t)index;
	e->segment_count = (uint32_t)count;
	return object_end(&o, reterr);
}

static int read_entry(struct manifest_read *m, json_t *json, struct manifest_entry *e,
	struct cede_error *reterr) {
	struct object o;

	CEDE_TRY(object_begin(json, &o, "entries", reterr));
	CEDE_TRY(take_id(&o, "capture", &e->capture, reterr));
	CEDE_TRY(take_text(m, &o, "source", &e->source, reterr));
	CEDE_TRY(take_name(m, &o, "path", "path_base64", &e->path, reterr));
	if (json_object_get(o.json, "group") != NULL ||
		json_object_get(o.json, "group_base64") != NULL)
		CEDE_TRY(take_name(m, &o, "group", "group_base64", &e->group, reterr));
	if (json_object_get(o.json, "classification") != NULL)
		CEDE_TRY(take_text(m, &o, "classification", &e->classification, reterr));
	CEDE_TRY(take_size(&o, "size", &e->size, reterr));
	CEDE_TRY(take_sha256(&o, "sha256", e->sha256, reterr));
	CEDE_TRY(take_number(&o, "mtime_ns", INT64_MIN, INT64_MAX, &e->mtime_ns, reterr));
	CEDE_TRY(read_segment(take(&o, "segment"), e, reterr));
	return object_end(&o, reterr);
}

static int read_entries(struct manifest_read *m, json_t *json, struct cede_error *reterr) {
	size_t count = json_array_size(json);

	if (!json_is_array(json) || count == 0 || count > MANIFEST_ENTRIES_MAX)
		return bad(reterr, "entries", "a list of the captures");
	m->entries = calloc(count, sizeof *m->entries);
	if (m->entries == NULL)
		return CEDE_FAIL_MEMORY(reterr);
	m->manifest.entries = m->entries;
	m->manifest.count = count;
	for (size_t i = 0; i < count; i++) {
		int r = read_entry(m, json_array_get(json, i), &m->entries[i], reterr);
		if (r < 0) {
			cede_error_within(reterr, "entry %zu", i + 1);
			return r;
		}
	}
	return CEDE_OK;
}

static int read_policy(struct manifest_read *m, json_t *json, struct cede_error *reterr) {
	struct object o;

	CEDE_TRY(object_begin(json, &o, "policy", reterr));
	CEDE_TRY(take_text(m, &o, "id", &m->manifest.policy_id, reterr));
	CEDE_TRY(take_size(&o, "serial", &m->manifest.policy_serial, reterr));
	return object_end(&o, reterr);
}

static int read_ledger(struct manifest_read *m, json_t *json, struct cede_error *reterr) {
	struct object o;

	CEDE_TRY(object_begin(json, &o, "ledger", reterr));
	CEDE_TRY(take_size(&o, "sequence", &m->manifest.ledger_sequence, reterr));
	CEDE_TRY(take_sha256(&o, "hash", m->manifest.ledger_hash, reterr));
	if (json_object_get(o.json, "checkpoint_base64") != NULL)
		CEDE_TRY(take_base64(m, &o, "checkpoint_base64", &m->manifest.checkpoint, reterr));
	return object_end(&o, reterr);
}

static int read_root(struct manifest_read *m, json_t *json, struct cede_error *reterr) {
	struct object o;
	struct slice created;

	CEDE_TRY(object_begin(json, &o, MANIFEST_NAME, reterr));
	CEDE_TRY(take_literal(&o, "type", MANIFEST_TYPE, reterr));
	CEDE_TRY(take_id(&o, "bundle", &m->manifest.bundle, reterr));
	CEDE_TRY(take_text(m, &o, "host", &m->manifest.host, reterr));
	CEDE_TRY(read_policy(m, take(&o, "policy"), reterr));
	CEDE_TRY(take_string(&o, "created", &created, reterr));
	CEDE_TRY(parse_time(created, &m->manifest.created_ns, reterr));
	CEDE_TRY(read_ledger(m, take(&o, "ledger"), reterr));
	CEDE_TRY(take_literal(&o, "seal", SEAL_SUITE, reterr));
	CEDE_TRY(read_entries(m, take(&o, "entries"), reterr));
	CEDE_TRY(object_end(&o, reterr));
	return manifest_check(&m->manifest, reterr);
}

static void json_freep(json_t **json) {
	json_decref(*json);
	*json = NULL;
}

int manifest_read(struct slice json, struct manifest_read **ret, struct cede_error *reterr) {
	CLEANUP(manifest_read_freep) struct manifest_read *m = NULL;
	json_error_t where;
	uint8_t *at;

	if (json.len == 0 || json.len > MANIFEST_SIZE_MAX)
		return CEDE_FAIL(reterr, CEDE_ERR_INPUT, "a manifest has 1 to %u bytes, not %zu",
			MANIFEST_SIZE_MAX, json.len);
	if (json_bound(json, 2 * MANIFEST_ENTRIES_MAX + 8, 16 * MANIFEST_ENTRIES_MAX + 64, reterr) <
		0) {
		cede_error_within(reterr, "manifest");
		return CEDE_ERR_INPUT;
	}
	CLEANUP(json_freep)
	json_t *root = json_loadb((const char *)json.data, json.len, JSON_REJECT_DUPLICATES, &where);
	if (root == NULL) /* jansson's words may quote a name (I9) */
		return CEDE_FAIL(reterr, CEDE_ERR_INPUT, "manifest: line %d, column %d: no JSON",
			where.line, where.column);
	m = calloc(1, sizeof *m);
	if (m == NULL)
		return CEDE_FAIL_MEMORY(reterr);
	m->strings = BUF_INIT(json.len); /* strings are shorter decoded than in the JSON */
	CEDE_TRY(buf_room(&m->strings, json.len, &at, reterr));
	int r = read_root(m, root, reterr);
	if (r < 0) {
		cede_error_within(reterr, "manifest");
		return r;
	}
	*ret = CEDE_TAKE(m);
	return CEDE_OK;
}

const struct manifest *manifest_peek(const struct manifest_read *read) {
	return &read->manifest;
}

void manifest_read_free(struct manifest_read *read) {
	if (read == NULL)
		return;
	buf_done(&read->strings);
	free(read->entries);
	free(read);
}

void manifest_read_freep(struct manifest_read **read) {
	manifest_read_free(*read);
	*read = NULL;
}
