/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/guard/attempts.h"

#include "base/check.h"
#include "base/clock.h"

#define COST_NS  (NS_PER_SECOND / ATTEMPTS_A_SECOND)
#define MOST_NS  (ATTEMPTS_BURST * COST_NS)
#define AGAIN_NS NS_PER_SECOND /* the same ones are told once in so long */

void attempts_init(struct attempts *a, int64_t boot_ns) {
	memset(a, 0, sizeof *a);
	a->tokens_ns = MOST_NS;
	a->filled_boot_ns = boot_ns;
}

static bool is_same(const struct guard_attempt *a, const struct guard_attempt *b) {
	return a->denied == b->denied && a->pid == b->pid && a->uid == b->uid &&
		a->source == b->source && a->dev == b->dev && a->ino == b->ino &&
		strcmp(a->path, b->path) == 0 && strcmp(a->exe, b->exe) == 0;
}

/* FNV-1a. Two that share one are told a second later at worst. */
static uint64_t hash_of(const struct guard_attempt *a) {
	const uint64_t numbers[] = {a->denied, a->pid, a->uid, a->source, a->dev, a->ino};
	uint64_t h = UINT64_C(14695981039346656037);

	for (size_t i = 0; i < ARRAY_LENGTH(numbers); i++)
		h = (h ^ numbers[i]) * UINT64_C(1099511628211);
	for (const char *c = a->path; *c != 0; c++)
		h = (h ^ (unsigned char)*c) * UINT64_C(1099511628211);
	return h;
}

static int64_t told_last(const struct attempts *a, uint64_t hash) {
	int64_t last = INT64_MIN;

	for (size_t i = 0; i < ATTEMPTS_SLOTS; i++)
		if (a->told[i].hash == hash && a->told[i].at_boot_ns > last &&
			a->told[i].at_boot_ns != 0)
			last = a->told[i].at_boot_ns;
	return last;
}

void attempts_add(struct attempts *a, const struct guard_attempt *attempt, int64_t boot_ns) {
	for (size_t i = 0; i < a->count; i++)
		if (is_same(&a->list[i], attempt)) {
			a->list[i].count += attempt->count;
			return;
		}
	if (a->count == ATTEMPTS_SLOTS) {
		*(attempt->denied ? &a->more_denied : &a->more_noted) += attempt->count;
		return;
	}
	int64_t last = told_last(a, hash_of(attempt));
	a->due_boot_ns[a->count] =
		last != INT64_MIN && last + AGAIN_NS > boot_ns ? last + AGAIN_NS : boot_ns;
	a->list[a->count++] = *attempt;
}

const struct guard_attempt *attempts_next(struct attempts *a, int64_t boot_ns) {
	if (boot_ns > a->filled_boot_ns)
		a->tokens_ns += (uint64_t)(boot_ns - a->filled_boot_ns);
	a->filled_boot_ns = boot_ns;
	if (a->tokens_ns > MOST_NS)
		a->tokens_ns = MOST_NS;
	if (a->count == 0 || a->tokens_ns < COST_NS)
		return NULL;
	a->next = 0;
	for (size_t i = 1; i < a->count; i++)
		if (a->due_boot_ns[i] < a->due_boot_ns[a->next])
			a->next = i;
	return a->due_boot_ns[a->next] <= boot_ns ? &a->list[a->next] : NULL;
}

void attempts_told(struct attempts *a, int64_t boot_ns) {
	require(a->next < a->count && a->tokens_ns >= COST_NS);
	a->tokens_ns -= COST_NS;
	a->told[a->told_next].hash = hash_of(&a->list[a->next]);
	a->told[a->told_next].at_boot_ns = boot_ns;
	a->told_next = (a->told_next + 1) % ATTEMPTS_SLOTS;
	a->count--;
	if (a->next != a->count) {
		a->list[a->next] = a->list[a->count];
		a->due_boot_ns[a->next] = a->due_boot_ns[a->count];
	}
}

bool attempts_more(struct attempts *a, uint64_t *ret_denied, uint64_t *ret_noted) {
	*ret_denied = a->more_denied;
	*ret_noted = a->more_noted;
	a->more_denied = a->more_noted = 0;
	return *ret_denied + *ret_noted > 0;
}
