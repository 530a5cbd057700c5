/* SPDX-License-Identifier: Apache-2.0
 * Whether bytes are text that may stand in JSON as they are: UTF-8 (RFC 3629) without control
 * characters. */
#pragma once

#include <stdbool.h>

#include "base/bytes.h"

bool utf8_plain(struct slice s);
