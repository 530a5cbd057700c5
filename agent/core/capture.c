/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/core/capture.h"

#include "base/check.h"

struct state_rule {
	const char *name;
	uint32_t next;
};

#define X(id, name, next) [CAPTURE_##id] = {name, next},
#define TO(id)            (1U << CAPTURE_##id)
static const struct state_rule capture_rules[CAPTURE_STATE_COUNT] = {CAPTURE_STATES(X)};
#undef X
#undef TO

#define X(id, name, next) [BUNDLE_##id] = {name, next},
#define TO(id)            (1U << BUNDLE_##id)
static const struct state_rule bundle_rules[BUNDLE_STATE_COUNT] = {BUNDLE_STATES(X)};
#undef X
#undef TO

const char *capture_state_name(enum capture_state state) {
	return state < CAPTURE_STATE_COUNT ? capture_rules[state].name : "?";
}

const char *bundle_state_name(enum bundle_state state) {
	return state < BUNDLE_STATE_COUNT ? bundle_rules[state].name : "?";
}

int capture_move(enum capture_state from, enum capture_state to, struct cede_error *reterr) {
	require(from < CAPTURE_STATE_COUNT && to < CAPTURE_STATE_COUNT);
	if ((capture_rules[from].next & (1U << to)) == 0)
		return CEDE_FAIL(reterr, CEDE_ERR_BUG, "capture: %s -> %s is no move",
			capture_rules[from].name, capture_rules[to].name);
	return CEDE_OK;
}

int bundle_move(enum bundle_state from, enum bundle_state to, struct cede_error *reterr) {
	require(from < BUNDLE_STATE_COUNT && to < BUNDLE_STATE_COUNT);
	if ((bundle_rules[from].next & (1U << to)) == 0)
		return CEDE_FAIL(reterr, CEDE_ERR_BUG, "bundle: %s -> %s is no move",
			bundle_rules[from].name, bundle_rules[to].name);
	return CEDE_OK;
}
