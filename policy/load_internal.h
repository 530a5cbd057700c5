/* SPDX-License-Identifier: Apache-2.0
 * What load.c (each key) and check.c (what keys say together) share. */
#pragma once

#include "base/yaml.h"
#include "policy/policy.h"

struct loader {
	struct yaml *y;
	struct policy *policy;
	const struct yaml_node **destination_of; /* for each source: the node that names it */
	const struct yaml_node **hold_nodes;
	bool no_memory;
};

struct url {
	struct slice host; /* an IPv6 address without its brackets */
	uint16_t port;
};

CEDE_MUST_USE int url_parse(struct slice text, struct url *ret, struct cede_error *reterr);
/* 1 to 64 of [A-Za-z0-9._-], the first a letter or digit. */
bool name_valid(struct slice text);
/* Absolute, normal: no "..", ".", "//", no slash at its end. */
bool path_valid(struct slice text);
/* What is wrong with a pattern, or NULL. */
const char *pattern_wrong(struct slice text);
/* "sha256//" and the base64 of 32 bytes. */
bool pin_valid(struct slice text);
/* The key `guard`; what it made is freed with guard_done(). */
void load_guard(struct loader *l, const struct yaml_node *root);
void guard_done(struct policy_guard *guard);
/* The key `sandbox`. */
void load_sandbox(struct loader *l, const struct yaml_node *root);
/* Names are unique, destinations exist, sources do not overlap, holds name sources. */
void policy_check(struct loader *l);
