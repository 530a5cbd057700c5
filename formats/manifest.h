/* SPDX-License-Identifier: Apache-2.0
 * The manifest: what a bundle holds. JSON, first member of the bundle's tar ("manifest.json"), seen
 * only by who can open the bundle. docs/formats.md has the schema ("cede-manifest/1").
 *
 * Names of captures are bytes, not text: "path" is the name when it is valid UTF-8 without control
 * characters, otherwise "path_base64" stands in its place. Both are relative to the source. */
#pragma once

#include <stdint.h>

#include "base/buf.h"
#include "base/error.h"
#include "formats/id.h"

#define MANIFEST_NAME         "manifest.json"
#define MANIFEST_ENTRIES_MAX  8192
#define MANIFEST_SIZE_MAX     (16U << 20)
#define MANIFEST_SEGMENTS_MAX 1000000
#define MANIFEST_TEXT_MAX     255          /* bytes of source, policy id, classification */
#define MANIFEST_PATH_MAX     4095         /* bytes of path and group */
#define MANIFEST_CONTENT_MAX  (1ULL << 30) /* bytes of all members together */
#define MANIFEST_NOTE_MAX     2048         /* bytes of the checkpoint */

struct manifest_entry {
	struct id capture;
	struct slice source;         /* name of the policy's source */
	struct slice path;           /* relative, '/' between parts, any bytes but NUL */
	struct slice group;          /* name of the sidecar group, or empty */
	struct slice classification; /* or empty */
	uint64_t size;               /* of the whole capture */
	uint8_t sha256[32]; /* of the bytes of this member: the whole capture, or this segment */
	int64_t mtime_ns;
	uint32_t segment_index; /* 0 .. segment_count - 1 */
	uint32_t segment_count; /* 1: whole */
	uint64_t segment_offset;
	uint64_t segment_size; /* bytes of this member */
};

struct manifest {
	struct id bundle;
	struct slice host;
	struct slice policy_id;
	uint64_t policy_serial;
	int64_t created_ns;
	uint64_t ledger_sequence; /* newest event when it was sealed, and its hash */
	uint8_t ledger_hash[32];
	struct slice checkpoint; /* signed note (formats/checkpoint.h), or empty */
	const struct manifest_entry *entries;
	size_t count;
};

/* Whether entries may stand in a manifest: what manifest_write() and manifest_read() refuse. INPUT;
 * the text names the entry's number, never the capture. */
CEDE_MUST_USE int manifest_check(const struct manifest *manifest, struct cede_error *reterr);
/* Appends the JSON, one entry a line. */
CEDE_MUST_USE int manifest_write(
	const struct manifest *manifest, struct buf *out, struct cede_error *reterr);

/* What manifest_read() gives back owns its memory. */
struct manifest_read;
/* Strict: exactly the keys of the schema, no duplicates, all limits. INPUT. */
CEDE_MUST_USE int manifest_read(
	struct slice json, struct manifest_read **ret, struct cede_error *reterr);
const struct manifest *manifest_peek(const struct manifest_read *read);
void manifest_read_free(struct manifest_read *read);
void manifest_read_freep(struct manifest_read **read);

/* The member's name in the bundle: "<source>/<path>", for a segment with its suffix (bundle.h). If
 * the suffix would make the last part longer than a file system takes, the last part is the
 * capture's id instead. */
CEDE_MUST_USE int manifest_member_name(
	const struct manifest_entry *entry, struct buf *out, struct cede_error *reterr);
