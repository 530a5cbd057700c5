/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/wipe/levels.h"

#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include "base/check.h"

static const struct {
	const char *name, *term;
} levels[WIPE_LEVEL_COUNT] = {

#define X(id, name, term) [WIPE_##id] = {name, term},
	WIPE_LEVELS(X)
#undef X
};

static const struct {
	enum wipe_level best;
	const char *name, *text;
} reasons_known[WIPE_REASON_COUNT] = {

#define X(id, best, name, text) [WIPE_REASON_##id] = {WIPE_##best, name, text},
	WIPE_REASONS(X)
#undef X
};

const char *wipe_level_name(enum wipe_level level) {
	return levels[level].name;
}

const char *wipe_level_term(enum wipe_level level) {
	return levels[level].term;
}

const char *wipe_reason_name(enum wipe_reason reason) {
	return reasons_known[reason].name;
}

const char *wipe_reason_text(enum wipe_reason reason) {
	return reasons_known[reason].text;
}

enum wipe_level wipe_required(enum wipe_require require) {
	static const enum wipe_level least[] = {
		[WIPE_REQUIRE_NONE] = WIPE_REMOVED,
		[WIPE_REQUIRE_OVERWRITTEN] = WIPE_OVERWRITTEN_CURRENT,
		[WIPE_REQUIRE_WATCHED] = WIPE_OVERWRITTEN_WATCHED,
		[WIPE_REQUIRE_CRYPTO_ERASED] = WIPE_CRYPTO_ERASED,
	};

	return least[require];
}

enum wipe_level wipe_best(wipe_reasons reasons) {
	enum wipe_level best = WIPE_OVERWRITTEN_WATCHED;

	for (size_t i = 0; i < WIPE_REASON_COUNT; i++)
		if ((reasons & (UINT32_C(1) << i)) != 0 && reasons_known[i].best < best)
			best = reasons_known[i].best;
	return best;
}

wipe_reasons wipe_decisive(wipe_reasons reasons) {
	enum wipe_level best = wipe_best(reasons);

	for (size_t i = 0; i < WIPE_REASON_COUNT; i++)
		if (reasons_known[i].best > best)
			reasons &= ~(UINT32_C(1) << i);
	return reasons;
}

void wipe_reasons_print(wipe_reasons reasons, char out[WIPE_REASONS_SIZE]) {
	size_t used = 0;

	out[0] = 0;
	for (size_t i = 0; i < WIPE_REASON_COUNT; i++) {
		if ((reasons & (UINT32_C(1) << i)) == 0)
			continue;
		int n = snprintf(out + used, WIPE_REASONS_SIZE - used, "%s%s", used > 0 ? "," : "",
			reasons_known[i].name);
		require(n > 0 && used + (size_t)n < WIPE_REASONS_SIZE);
		used += (size_t)n;
	}
}
