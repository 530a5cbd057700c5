/* SPDX-License-Identifier: Apache-2.0
 * The lives of files, as far as they were seen: a file whose name was made while its directory was
 * watched, that one writing opening filled, that never shrank, was not written again, and took no
 * other file's name, never had other blocks than those it has now. What was not seen is not
 * claimed: there is no entry, or a broken one.
 *
 * Not seen: a cut and a growth between two looks at its size (tree.h gives one look for each batch
 * of its writes), and holes punched into it.
 *
 * Owns    copies of the names; at most LIVES_MAX.
 * Thread  loop thread. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

#define LIVES_MAX 131072 /* names; about 130 bytes each */

struct lives;

CEDE_MUST_USE int lives_new(struct lives **ret, struct cede_error *reterr);
void lives_free(struct lives *l); /* NULL allowed */

/* The name was made. since_ns: not earlier than this. known: nothing escaped notice in its
 * directory. False: there is no room for it. */
bool lives_made(struct lives *l, size_t source, const char *path, int64_t since_ns, bool known);
/* Its content or size changed; size: as it is now, or UINT64_MAX if that could not be seen. */
void lives_written(struct lives *l, size_t source, const char *path, uint64_t size);
/* A writing opening ended. */
void lives_closed(struct lives *l, size_t source, const char *path);
/* The name was taken away, to appear elsewhere under the same cookie if it stays below a source. */
void lives_left(struct lives *l, size_t source, const char *path, uint32_t cookie);
bool lives_came(struct lives *l, size_t source, const char *path, uint32_t cookie, bool known);
void lives_ended(struct lives *l, size_t source, const char *path);
/* A walk came upon the name: if nothing is known of it, that is remembered. False: no room. */
bool lives_found(struct lives *l, size_t source, const char *path);
/* A directory left its place. */
void lives_ended_below(struct lives *l, size_t source, const char *path);
/* Events were lost: of what there is now nothing is known. */
void lives_clear(struct lives *l);

/* Its life was seen up to when it was looked at, and nothing was done to it then. False: no room. */
bool lives_goes_on(struct lives *l, size_t source, const char *path);
/* Whether all of its life was seen and it is written; *ret_since_ns: it cannot have been made before. */
bool lives_whole(struct lives *l, size_t source, const char *path, int64_t *ret_since_ns);
size_t lives_count(const struct lives *l);
