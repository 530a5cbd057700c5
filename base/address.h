/* SPDX-License-Identifier: Apache-2.0
 * Where a destination may be: its URL's length, and the network prefixes of its addresses. Pure. */
#pragma once

#include <netinet/in.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/bytes.h"
#include "base/error.h"

#define ADDRESS_URL_MAX 2048 /* bytes of a destination's URL, with the slash at its end */

/* IPv4 is kept as IPv4-mapped IPv6 (::ffff:0:0/96); bits count in 128. */
struct address_prefix {
	struct in6_addr prefix;
	uint8_t bits;
};

struct sockaddr;

/* "192.0.2.0/24", "2001:db8::/32", or one address. Host bits must be zero. INPUT says what is wrong. */
CEDE_MUST_USE int address_prefix_parse(
	struct slice text, struct address_prefix *ret, struct cede_error *reterr);
#define ADDRESS_TEXT_SIZE 64
/* As parse reads it. */
void address_prefix_print(const struct address_prefix *prefix, char out[ADDRESS_TEXT_SIZE]);
/* Whether the address is in one of the prefixes; an empty list allows any IPv4 or IPv6 address; any
 * other family is never allowed. */
bool address_allowed(const struct address_prefix *list, size_t count, const struct sockaddr *address);
