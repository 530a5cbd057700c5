/* SPDX-License-Identifier: Apache-2.0
 * The bundle before sealing: zstd around a pax tar (POSIX.1-2001), first member manifest.json, then
 * the captures in the manifest's order under "<source>/<path>" (a segment of a larger capture under
 * "<source>/<path>.segment-000001-of-000042", counted from 1).
 *
 * Writing streams into a sink; at most 256 KiB of small members are kept.
 * Reading never leaves the given directory, and checks size and SHA-256 of every member. */
#pragma once

#include "formats/manifest.h"

/* Takes the bundle's bytes as they come; returns 0 or an error that ends the writing. */
typedef int bundle_sink(void *ctx, struct slice bytes, struct cede_error *reterr);

struct bundle_writer;
/* level: zstd level (1 is the default of cede). Writes the manifest at once; borrows it until freed. */
CEDE_MUST_USE int bundle_writer_new(const struct manifest *manifest, int level, bundle_sink *sink,
	void *ctx, struct bundle_writer **ret, struct cede_error *reterr);
/* The next member, in the manifest's order; content.len must be the entry's segment_size. */
CEDE_MUST_USE int bundle_writer_add(struct bundle_writer *w, const struct manifest_entry *entry,
	struct slice content, struct cede_error *reterr);
CEDE_MUST_USE int bundle_writer_finish(struct bundle_writer *w, struct cede_error *reterr);
void bundle_writer_free(struct bundle_writer *w);
void bundle_writer_freep(struct bundle_writer **w);

/* Unpacks the compressed tar in fd below dirfd. Every member must be in the manifest, in order, with
 * its size and SHA-256, else INPUT and what was unpacked of this bundle is removed again. Existing
 * files are never overwritten: same content is accepted, other content is REFUSED. The manifest is
 * written as "<bundle id>.manifest.json". Segments are joined into "<source>/<path>" when the last
 * one is there; before that they stay as files of their own.
 * ret_manifest may be NULL. */
CEDE_MUST_USE int bundle_unpack(
	int fd, int dirfd, struct manifest_read **ret_manifest, struct cede_error *reterr);
