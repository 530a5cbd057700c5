/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/seal/job.h"

#include <fcntl.h>
#include <openssl/evp.h>
#include <stdlib.h>
#include <string.h>

#include "agent/seal/spool.h"
#include "base/cleanup.h"
#include "formats/bundle.h"

#define ZSTD_LEVEL 1

void seal_items_free(struct seal_item *items, size_t n) {
	for (size_t i = 0; i < n; i++) {
		free(items[i].path);
		free(items[i].group);
	}
	free(items);
}

static void md_ctx_freep(EVP_MD_CTX **md) {
	EVP_MD_CTX_free(*md);
}

static enum seal_outcome open_capture(struct seal_item *item, int *ret_fd) {
	struct cede_error err = {0};

	if (file_open_beneath(item->source_fd, item->path, O_RDONLY | O_NOATIME, ret_fd, &err) ==
		CEDE_OK)
		return SEAL_DONE;
	if (err.sys == EPERM && /* O_NOATIME is for owners only */
		file_open_beneath(item->source_fd, item->path, O_RDONLY, ret_fd, &err) == CEDE_OK)
		return SEAL_DONE;
	item->sys = err.sys;
	if (err.sys == ENOENT || err.sys == ENOTDIR) {
		if (!file_is_elsewhere(item->source_fd, item->identity.dev))
			return SEAL_GONE;
		item->sys = ENODEV; /* not removed: its file system is not there now */
		return SEAL_FAILED;
	}
	if (err.code == CEDE_ERR_REFUSED)
		return SEAL_CHANGED; /* a symlink or mount point stands there now */
	return SEAL_FAILED;
}

/* SEAL_DONE: it is still the file that was decided on. */
static enum seal_outcome compare(int fd, struct seal_item *item) {
	struct stat st;

	if (fstat(fd, &st) < 0) {
		item->sys = errno;
		return SEAL_FAILED;
	}
	struct file_identity now = file_identity_of(&st);
	if (item->anew)
		now.ctime_ns = item->identity.ctime_ns;
	return S_ISREG(st.st_mode) && st.st_nlink == 1 && file_identity_equal(&now, &item->identity)
		? SEAL_DONE
		: SEAL_CHANGED;
}

/* Reads the item's bytes to at. The lease keeps writers out until the descriptor is closed: a
 * program that opens the file for writing meanwhile waits these few milliseconds. */
static enum seal_outcome read_capture(struct seal_item *item, uint8_t *at, EVP_MD_CTX *md) {
	CLEANUP(fd_closep) int fd = -1;
	struct cede_error err = {0};
	size_t got;

	enum seal_outcome outcome = open_capture(item, &fd);
	if (outcome != SEAL_DONE)
		return outcome;
	if (fcntl(fd, F_SETLEASE, F_RDLCK) < 0 && errno == EAGAIN)
		return SEAL_BUSY;
	outcome = compare(fd, item);
	if (outcome != SEAL_DONE)
		return outcome;
	if (file_pread_full(fd, at, item->length, item->offset, &got, &err) < 0) {
		item->sys = err.sys;
		return SEAL_FAILED;
	}
	outcome = got != item->length ? SEAL_CHANGED : compare(fd, item);
	if (outcome != SEAL_DONE)
		return outcome;
	if (EVP_DigestInit_ex2(md, EVP_sha256(), NULL) != 1 ||
		EVP_DigestUpdate(md, at, item->length) != 1 ||
		EVP_DigestFinal_ex(md, item->sha256, NULL) != 1) {
		item->sys = 0;
		return SEAL_FAILED;
	}
	if (item->anew && memcmp(item->sha256, item->sealed_sha256, sizeof item->sha256) != 0)
		return SEAL_CHANGED;
	return SEAL_DONE;
}

static int into_sealer(void *ctx, struct slice bytes, struct cede_error *reterr) {
	return sealer_write(ctx, bytes, reterr);
}

static struct manifest_entry entry_of(const struct seal_job *job, const struct seal_item *item) {
	const struct policy_source *source = &job->policy->sources[item->source];
	struct manifest_entry e = {
		.capture = item->id,
		.source = slice_str(source->name),
		.path = slice_str(item->path),
		.group = slice_str(item->group),
		.classification = slice_str(source->classification),
		.size = item->identity.size,
		.mtime_ns = item->identity.mtime_ns,
		.segment_index = item->segment_index,
		.segment_count = item->segment_count,
		.segment_offset = item->offset,
		.segment_size = item->length,
	};

	memcpy(e.sha256, item->sha256, sizeof e.sha256);
	return e;
}

static int pack(struct seal_job *job, const struct manifest *manifest, const uint8_t **content,
	struct sealer *sealer) {
	CLEANUP(bundle_writer_freep) struct bundle_writer *writer = NULL;

	CEDE_TRY(bundle_writer_new(manifest, ZSTD_LEVEL, into_sealer, sealer, &writer, &job->err));
	for (size_t i = 0; i < manifest->count; i++) {
		const struct manifest_entry *e = &manifest->entries[i];
		if (*job->stop)
			return CEDE_FAIL(&job->err, CEDE_ERR_BUSY, "stopping");
		CEDE_TRY(bundle_writer_add(
			writer, e, slice_of(content[i], e->segment_size), &job->err));
	}
	CEDE_TRY(bundle_writer_finish(writer, &job->err));
	return sealer_finish(sealer, &job->size, job->sha256, &job->err);
}

static int seal(struct seal_job *job, const struct manifest *manifest, const uint8_t **content) {
	CLEANUP(sealer_freep) struct sealer *sealer = NULL;
	CLEANUP(fd_closep) int fd = -1;

	if (job->spool_fd >= 0)
		CEDE_TRY(spool_create(job->spool_fd, &fd, &job->err));
	else
		CEDE_TRY(file_memory("bundle", &fd, &job->err));
	CEDE_TRY(sealer_new(job->keys, fd, &sealer, &job->err));
	CEDE_TRY(pack(job, manifest, content, sealer));
	if (job->spool_fd >= 0)
		CEDE_TRY(spool_keep(job->spool_fd, &job->bundle, fd, &job->err));
	else
		CEDE_TRY(file_memory_seal(fd, &job->err));
	job->fd = CEDE_TAKE_FD(fd);
	return CEDE_OK;
}

void seal_run(struct seal_job *job) {
	CLEANUP(freep) struct manifest_entry *entries = calloc(job->count, sizeof *entries);
	CLEANUP(freep) const uint8_t **content = calloc(job->count, sizeof *content);
	CLEANUP(md_ctx_freep) EVP_MD_CTX *md = EVP_MD_CTX_new();
	size_t used = 0;

	job->fd = -1;
	job->sealed = 0;
	for (size_t i = 0; i < job->count; i++)
		job->items[i].outcome = SEAL_LEFT;
	if (entries == NULL || content == NULL || md == NULL) {
		job->result = CEDE_FAIL_MEMORY(&job->err);
		return;
	}
	for (size_t i = 0; i < job->count && !*job->stop; i++) {
		struct seal_item *item = &job->items[i];
		if (item->length > job->buffer_size) {
			item->outcome = SEAL_RESIZED;
			continue;
		}
		if (item->length > job->buffer_size - used)
			continue; /* a group that did not fit whole: goes with the next bundle */
		item->outcome = read_capture(item, job->buffer + used, md);
		if (item->outcome != SEAL_DONE)
			continue;
		entries[job->sealed] = entry_of(job, item);
		content[job->sealed++] = job->buffer + used;
		used += item->length;
	}
	job->result = CEDE_OK;
	if (job->sealed == 0 || *job->stop) {
		job->sealed = 0;
		return;
	}
	struct manifest manifest = {.bundle = job->bundle,
		.host = slice_str(job->host),
		.policy_id = slice_str(job->policy->id),
		.policy_serial = job->policy->serial,
		.created_ns = job->now_ns,
		.ledger_sequence = job->ledger_sequence,
		.checkpoint = job->checkpoint,
		.entries = entries,
		.count = job->sealed};
	memcpy(manifest.ledger_hash, job->ledger_hash, sizeof manifest.ledger_hash);
	job->result = seal(job, &manifest, content);
	if (job->result < 0)
		job->sealed = 0;
}
