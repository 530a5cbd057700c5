/* SPDX-License-Identifier: Apache-2.0 */
#include <arpa/inet.h>
#include <string.h>
#include <sys/un.h>

#include "base/address.h"
#include "base/check.h"
#include "tests/unit/unit.h"

static bool allowed(const struct address_prefix *list, size_t n, const char *address) {
	struct sockaddr_in in = {.sin_family = AF_INET};
	struct sockaddr_in6 in6 = {.sin6_family = AF_INET6};
	struct sockaddr_storage any = {0};

	if (inet_pton(AF_INET, address, &in.sin_addr) == 1)
		memcpy(&any, &in, sizeof in);
	else if (inet_pton(AF_INET6, address, &in6.sin6_addr) == 1)
		memcpy(&any, &in6, sizeof in6);
	else
		fail_msg("%s", address);
	return address_allowed(list, n, (const struct sockaddr *)&any);
}

static void prefixes_hold_their_addresses_only(void **state) {
	static const struct {
		const char *prefix, *address;
		bool in;
	} table[] = {
		{"192.0.2.0/24", "192.0.2.0", true},
		{"192.0.2.0/24", "192.0.2.255", true},
		{"192.0.2.0/24", "192.0.3.0", false},
		{"192.0.2.0/24", "192.0.1.255", false},
		{"192.0.2.0/24", "::ffff:192.0.2.7", true},
		{"192.0.2.0/24", "::192.0.2.7", false},
		{"192.0.2.128/25", "192.0.2.127", false},
		{"192.0.2.128/25", "192.0.2.128", true},
		{"192.0.2.7", "192.0.2.7", true},
		{"192.0.2.7", "192.0.2.6", false},
		{"0.0.0.0/0", "203.0.113.9", true},
		{"0.0.0.0/0", "2001:db8::1", false},
		{"2001:db8::/32", "2001:db8:ffff::1", true},
		{"2001:db8::/32", "2001:db9::", false},
		{"2001:db8::1", "2001:db8::1", true},
		{"2001:db8::1", "2001:db8::2", false},
		{"::/0", "192.0.2.1", true},
		{"2001:db8::/33", "2001:db8:8000::", false},
	};
	struct cede_error err;

	(void)state;
	for (size_t i = 0; i < ARRAY_LENGTH(table); i++) {
		struct address_prefix p;
		assert_int_equal(address_prefix_parse(slice_str(table[i].prefix), &p, &err), CEDE_OK);
		if (allowed(&p, 1, table[i].address) != table[i].in)
			fail_msg("%s in %s", table[i].address, table[i].prefix);
	}
}

static void bad_prefixes_are_refused(void **state) {
	static const char *const table[] = {"", "/", "192.0.2.0/", "192.0.2.0/33", "192.0.2.0/-1",
		"192.0.2.0/024", "192.0.2.7/24", "192.0.2/24", "0300.0.2.1", "1.2.3.4.5", "::/129",
		"2001:db8::1/32", "example.org", " 192.0.2.1", "192.0.2.1 ", "192.0.2.0/24/24",
		"fe80::1%eth0", "[::1]",
		"1111:1111:1111:1111:1111:1111:1111:1111:1111:1111:1111:1111:1111"};
	struct cede_error err;
	struct address_prefix p;

	(void)state;
	for (size_t i = 0; i < ARRAY_LENGTH(table); i++)
		if (address_prefix_parse(slice_str(table[i]), &p, &err) != CEDE_ERR_INPUT)
			fail_msg("\"%s\" was taken", table[i]);
	assert_int_equal(
		address_prefix_parse(slice_of("192.0.2.1\0x", 11), &p, &err), CEDE_ERR_INPUT);
}

static void no_list_allows_ip_only(void **state) {
	struct sockaddr_un un = {.sun_family = AF_UNIX};

	(void)state;
	assert_true(allowed(NULL, 0, "203.0.113.1"));
	assert_true(allowed(NULL, 0, "2001:db8::1"));
	assert_false(address_allowed(NULL, 0, (const struct sockaddr *)&un));
}

int main(void) {
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(prefixes_hold_their_addresses_only),
		cmocka_unit_test(bad_prefixes_are_refused),
		cmocka_unit_test(no_list_allows_ip_only),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
