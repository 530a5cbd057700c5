/* SPDX-License-Identifier: Apache-2.0
 * What the receiver parses itself of a request: path, Repr-Digest, the subject that a front tells. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "formats/digest.h"
#include "receiver/request.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
	char host[HOST_ID_MAX + 1];
	uint8_t sha256[32];
	struct id id;
	bool receipt;
	struct slice all = slice_of(data, size);

	(void)!digest_field_parse(all, sha256, NULL);
	(void)!request_path(all, &id, &receipt, NULL);
	if (peer_subject(all, host, NULL) == CEDE_OK && !host_id_valid(slice_str(host)))
		abort(); /* a host id that could leave its folder */
	return 0;
}
