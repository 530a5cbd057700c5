/* SPDX-License-Identifier: Apache-2.0 */
#include "base/check.h"
#include "base/cleanup.h"
#include "formats/manifest.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
	CLEANUP(manifest_read_freep) struct manifest_read *first = NULL;
	CLEANUP(manifest_read_freep) struct manifest_read *second = NULL;
	CLEANUP(buf_done) struct buf json = BUF_INIT(MANIFEST_SIZE_MAX);
	CLEANUP(buf_done) struct buf again = BUF_INIT(MANIFEST_SIZE_MAX);

	if (manifest_read(slice_of(data, size), &first, NULL) < 0)
		return 0;
	/* what was read can be written, and says the same */
	require(manifest_write(manifest_peek(first), &json, NULL) == CEDE_OK);
	require(manifest_read(buf_slice(&json), &second, NULL) == CEDE_OK);
	require(manifest_write(manifest_peek(second), &again, NULL) == CEDE_OK);
	require(slice_equal(buf_slice(&json), buf_slice(&again)));
	return 0;
}
