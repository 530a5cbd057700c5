/* SPDX-License-Identifier: Apache-2.0
 * YAML as cede's files use it: mappings, lists and scalars, read by libyaml into a bounded tree in
 * which each node knows its line and column. Anchors, aliases, tags, several documents and
 * duplicate keys are mistakes. All mistakes of a file are collected: "policy.yaml:12:3: ...".
 *
 * Owns    the tree and everything lent from it, until yaml_free().
 * Thread  any; a struct yaml belongs to one thread. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/bytes.h"
#include "base/error.h"

#define YAML_FILE_MAX     262144
#define YAML_DEPTH_MAX    16
#define YAML_NODES_MAX    20000
#define YAML_MISTAKES_MAX 200

enum yaml_kind { YAML_SCALAR, YAML_LIST, YAML_MAP };

struct yaml_node {
	enum yaml_kind kind;
	bool plain;              /* scalar without quotes */
	uint32_t line, column;   /* from 1 */
	char *text;              /* scalar: without NUL inside */
	struct yaml_node *key;   /* of a map's member */
	struct yaml_node *first; /* list and map: members in order */
	struct yaml_node *next;
	bool used; /* a map's member that somebody asked for */
};

struct yaml; /* one file: tree and mistakes */

/* name stands in the mistakes. Always gives a struct yaml unless memory is short; a text that is no
 * YAML is a mistake in it, and yaml_root() is NULL then. */
CEDE_MUST_USE int yaml_parse(
	struct slice text, const char *name, struct yaml **ret, struct cede_error *reterr);
/* The same for a file; its last name stands in the mistakes. *ret_directory: where it lies, with
 * its slash, "" if that is here; the caller's to free. */
CEDE_MUST_USE int yaml_load(
	const char *file, struct yaml **ret, char **ret_directory, struct cede_error *reterr);
void yaml_free(struct yaml *y);
void yaml_freep(struct yaml **y);
const struct yaml_node *yaml_root(const struct yaml *y);

/* Notes a mistake at node (NULL: at the file's beginning). */
void yaml_mistake(struct yaml *y, const struct yaml_node *node, const char *fmt, ...)
	CEDE_PRINTF(3, 4);
/* In order of place. NULL-terminated array, the caller's to free (each line, then the array). NULL:
 * none, or memory is short (then *ret_count > 0). */
char **yaml_mistakes(struct yaml *y, size_t *ret_count);
size_t yaml_mistake_count(const struct yaml *y);
/* Once all is read. INPUT: file has mistakes; *ret_lines is yaml_mistakes(). */
CEDE_MUST_USE int yaml_verdict(
	struct yaml *y, const char *file, char ***ret_lines, struct cede_error *reterr);

/* ---- walking. Each notes a mistake when the value is not what it should be; the member is marked
 * as known. Missing members give NULL (or false), and a mistake if required. */
const struct yaml_node *yaml_get(
	struct yaml *y, const struct yaml_node *map, const char *key, bool required);
const struct yaml_node *yaml_get_map(
	struct yaml *y, const struct yaml_node *map, const char *key, bool required);
const struct yaml_node *yaml_get_list(
	struct yaml *y, const struct yaml_node *map, const char *key, bool required);
/* A string that is not empty. */
const char *yaml_get_text(
	struct yaml *y, const struct yaml_node *map, const char *key, bool required);
bool yaml_get_duration(struct yaml *y, const struct yaml_node *map, const char *key, bool required,
	int64_t *ret_ns);
bool yaml_get_size(
	struct yaml *y, const struct yaml_node *map, const char *key, bool required, uint64_t *ret);
bool yaml_get_number(struct yaml *y, const struct yaml_node *map, const char *key, bool required,
	uint64_t min, uint64_t max, uint64_t *ret);
bool yaml_get_time(struct yaml *y, const struct yaml_node *map, const char *key, bool required,
	int64_t *ret_ns);
/* One of the words (NULL-terminated); its index. A word with '!' before it is known but "not
 * supported yet". */
bool yaml_get_word(struct yaml *y, const struct yaml_node *map, const char *key, bool required,
	const char *const *words, size_t *ret);
/* A scalar node's text, or a mistake and NULL. */
const char *yaml_text(struct yaml *y, const struct yaml_node *node);
/* Every member that nobody asked for is an unknown key, with the nearest known key as a hint. known
 * is NULL-terminated; a key with '!' before it is known but "not supported yet". */
void yaml_only(struct yaml *y, const struct yaml_node *map, const char *const *known);
