/* SPDX-License-Identifier: Apache-2.0 */
#include "formats/json_bound.h"

#include <stdbool.h>

int json_bound(
	struct slice json, size_t most_containers, size_t most_commas, struct cede_error *reterr) {
	size_t containers = 0, commas = 0;
	bool quoted = false;

	for (size_t i = 0; i < json.len; i++) {
		uint8_t c = json.data[i];
		if (c == '"') {
			quoted = !quoted;
		} else if (quoted) {
			i += c == '\\';
		} else {
			containers += c == '{' || c == '[';
			commas += c == ',';
		}
	}
	if (containers > most_containers || commas > most_commas)
		return CEDE_FAIL(reterr, CEDE_ERR_INPUT, "more in it than belongs there");
	return CEDE_OK;
}
