/* SPDX-License-Identifier: Apache-2.0
 * cmocka, with what it wants to see before itself. */
#pragma once

/* clang-format off */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
/* clang-format on */
