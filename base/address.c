/* SPDX-License-Identifier: Apache-2.0 */
#include "base/address.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#include "base/parse.h"

static void map_ipv4(const struct in_addr *v4, struct in6_addr *ret) {
	memset(ret, 0, sizeof *ret);
	ret->s6_addr[10] = ret->s6_addr[11] = 0xff;
	memcpy(&ret->s6_addr[12], v4, 4);
}

static bool host_bits_are_zero(const struct in6_addr *a, unsigned bits) {
	for (unsigned i = bits; i < 128; i++)
		if (a->s6_addr[i / 8] & (0x80U >> (i % 8)))
			return false;
	return true;
}

int address_prefix_parse(struct slice text, struct address_prefix *ret, struct cede_error *reterr) {
	struct slice head = text;
	struct slice tail = SLICE_NONE;
	struct in_addr v4;
	struct address_prefix p;
	char name[INET6_ADDRSTRLEN];
	uint64_t bits;

	bool has_bits = slice_cut(text, '/', &head, &tail);
	if (head.len == 0 || head.len >= sizeof name || memchr(head.data, 0, head.len) != NULL)
		return CEDE_FAIL(reterr, CEDE_ERR_INPUT,
			"an address or prefix expected (192.0.2.0/24, 2001:db8::/32)");
	memcpy(name, head.data, head.len);
	name[head.len] = 0;
	unsigned skip = 0;
	if (inet_pton(AF_INET, name, &v4) == 1) {
		map_ipv4(&v4, &p.prefix);
		skip = 96;
	} else if (inet_pton(AF_INET6, name, &p.prefix) != 1) {
		return CEDE_FAIL(reterr, CEDE_ERR_INPUT,
			"an address or prefix expected (192.0.2.0/24, 2001:db8::/32)");
	}
	bits = 128 - skip;
	if (has_bits && parse_u64(tail, 0, 128 - skip, &bits, NULL) < 0)
		return CEDE_FAIL(
			reterr, CEDE_ERR_INPUT, "prefix length: 0 to %u expected", 128 - skip);
	p.bits = (uint8_t)(bits + skip);
	if (!host_bits_are_zero(&p.prefix, p.bits))
		return CEDE_FAIL(reterr, CEDE_ERR_INPUT,
			"bits behind the prefix length must be zero (192.0.2.0/24, not 192.0.2.7/24)");
	*ret = p;
	return CEDE_OK;
}

static bool to_in6(const struct sockaddr *address, struct in6_addr *ret) {
	if (address->sa_family == AF_INET) {
		struct sockaddr_in v4;
		memcpy(&v4, address, sizeof v4);
		map_ipv4(&v4.sin_addr, ret);
		return true;
	}
	if (address->sa_family == AF_INET6) {
		struct sockaddr_in6 v6;
		memcpy(&v6, address, sizeof v6);
		*ret = v6.sin6_addr;
		return true;
	}
	return false;
}

bool address_allowed(const struct address_prefix *list, size_t count, const struct sockaddr *address) {
	struct in6_addr a;

	if (!to_in6(address, &a))
		return false;
	for (size_t i = 0; i < count; i++) {
		struct in6_addr masked = a;
		for (unsigned bit = list[i].bits; bit < 128; bit++)
			masked.s6_addr[bit / 8] &= (uint8_t) ~(0x80U >> (bit % 8));
		if (memcmp(&masked, &list[i].prefix, sizeof masked) == 0)
			return true;
	}
	return count == 0;
}

void address_prefix_print(const struct address_prefix *prefix, char out[ADDRESS_TEXT_SIZE]) {
	char text[INET6_ADDRSTRLEN] = "";
	bool ipv4 = IN6_IS_ADDR_V4MAPPED(&prefix->prefix) && prefix->bits >= 96;

	if (ipv4)
		(void)inet_ntop(AF_INET, prefix->prefix.s6_addr + 12, text, sizeof text);
	else
		(void)inet_ntop(AF_INET6, &prefix->prefix, text, sizeof text);
	(void)snprintf(
		out, ADDRESS_TEXT_SIZE, "%s/%d", text, ipv4 ? prefix->bits - 96 : prefix->bits);
}
