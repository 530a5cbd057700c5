/* SPDX-License-Identifier: Apache-2.0
 * The status for people: at most 80 columns. */
#pragma once

#include <jansson.h>
#include <stdint.h>
#include <stdio.h>

void status_show(const json_t *status, int64_t now_ns, FILE *out);
