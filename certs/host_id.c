/* SPDX-License-Identifier: Apache-2.0 */
#include "certs/host_id.h"

bool host_id_valid(struct slice text) {
	if (text.len == 0 || text.len > HOST_ID_MAX || text.data[0] == '.' || text.data[0] == '-')
		return false;
	for (size_t i = 0; i < text.len; i++) {
		uint8_t c = text.data[i];
		if (!((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
			    c == '.' || c == '_' || c == '-'))
			return false;
	}
	return true;
}
