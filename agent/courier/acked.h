/* SPDX-License-Identifier: Apache-2.0
 * What the other end of a TCP connection has acknowledged. A file of its own: the kernel's header
 * that knows it and the C library's, which libuv includes, cannot both be read. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

/* Bytes since the connection began. False: the socket is none of TCP. */
bool acked_bytes(int fd, uint64_t *ret);
