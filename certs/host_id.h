/* SPDX-License-Identifier: Apache-2.0
 * Host ids are certificate common names: 1 to 64 of [A-Za-z0-9._-], not starting with '.' or '-'. */
#pragma once

#include <stdbool.h>

#include "base/bytes.h"

#define HOST_ID_MAX 64
bool host_id_valid(struct slice text);
