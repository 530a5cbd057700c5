/* SPDX-License-Identifier: Apache-2.0
 * What is asked for: one spelling of each path, and the digest that a body must have. */
#include <string.h>

#include "base/check.h"
#include "formats/digest.h"
#include "receiver/request.h"
#include "tests/unit/unit.h"

#define ID "0193577c-5b38-7e11-8000-0123456789ab"
#define A  "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="

static void a_path_has_one_spelling(void **state) {
	static const struct {
		const char *path;
		int code;
		bool receipt;
	} table[] = {
		{"/v1/bundles/" ID, CEDE_OK, false},
		{"/v1/bundles/" ID "/receipt", CEDE_OK, true},
		{"/v1/bundles/" ID "/", CEDE_ERR_BUSY, false},
		{"/v1/bundles/" ID "/receipt/", CEDE_ERR_BUSY, false},
		{"/v1/bundles/" ID "//receipt", CEDE_ERR_BUSY, false},
		{"/v1/bundles/" ID "/receipts", CEDE_ERR_BUSY, false},
		{"/v1/bundles/" ID "/..", CEDE_ERR_BUSY, false},
		{"/v1/bundles/../" ID, CEDE_ERR_BUSY, false},
		{"/v1/bundles//" ID, CEDE_ERR_BUSY, false},
		{"//v1/bundles/" ID, CEDE_ERR_BUSY, false},
		{"/v1/bundles", CEDE_ERR_BUSY, false},
		{"/V1/bundles/" ID, CEDE_ERR_BUSY, false},
		{"", CEDE_ERR_BUSY, false},
		{"/", CEDE_ERR_BUSY, false},
		{"https://localhost/v1/bundles/" ID, CEDE_ERR_BUSY, false},
		{"/v1/bundles/", CEDE_ERR_INPUT, false},
		{"/v1/bundles/.", CEDE_ERR_INPUT, false},
		{"/v1/bundles/..", CEDE_ERR_INPUT, false},
		{"/v1/bundles/" ID " ", CEDE_ERR_INPUT, false},
		{"/v1/bundles/" ID "%00", CEDE_ERR_INPUT, false},
		{"/v1/bundles/" ID "?a=b", CEDE_ERR_INPUT, false},
		{"/v1/bundles/%30193577c-5b38-7e11-8000-0123456789ab", CEDE_ERR_INPUT, false},
		{"/v1/bundles/0193577C-5b38-7e11-8000-0123456789ab", CEDE_ERR_INPUT, false},
		{"/v1/bundles/0193577c-5b38-7e11-8000-0123456789a", CEDE_ERR_INPUT, false},
		{"/v1/bundles/0193577c-5b38-7e11-8000-0123456789abc", CEDE_ERR_INPUT, false},
		{"/v1/bundles/0193577c-5b38-7e11-8000-0123456789ag", CEDE_ERR_INPUT, false},
		{"/v1/bundles/0193577c5b387e1180000123456789ab", CEDE_ERR_INPUT, false},
		{"/v1/bundles/0193577c5-b38-7e11-8000-0123456789ab", CEDE_ERR_INPUT, false},
		{"/v1/bundles/0193577c-5b38-4e11-8000-0123456789ab", CEDE_ERR_INPUT, false},
		{"/v1/bundles/0193577c-5b38-7e11-c000-0123456789ab", CEDE_ERR_INPUT, false},
		/* the last millisecond of 9999, and the first of 10000 */
		{"/v1/bundles/e677d21f-dbff-7000-8000-000000000000", CEDE_OK, false},
		{"/v1/bundles/e677d21f-dc00-7000-8000-000000000000", CEDE_ERR_INPUT, false},
		{"/v1/bundles/ffffffff-ffff-7fff-bfff-ffffffffffff", CEDE_ERR_INPUT, false},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_LENGTH(table); i++) {
		bool receipt = false;
		struct id id;
		int r = request_path(slice_str(table[i].path), &id, &receipt, NULL);

		if (r != table[i].code || (r == CEDE_OK && receipt != table[i].receipt))
			fail_msg("%s: %d", table[i].path, r);
	}
}

static void a_nul_is_no_end(void **state) {
	static const char path[] = "/v1/bundles/" ID "\0/receipt";
	bool receipt;
	struct id id;

	(void)state;
	assert_int_equal(
		request_path(slice_of(path, sizeof path - 1), &id, &receipt, NULL), CEDE_ERR_INPUT);
}

static void a_digest_is_sha_256_once(void **state) {
	static const struct {
		const char *field;
		bool good;
	} table[] = {
		{"sha-256=:" A ":", true},
		{" sha-256=:" A ": ", true},
		{"md5=:AA==:, sha-256=:" A ":", true},
		{"sha-256=:" A ":, sha-512=:AA==:", true},
		{"sha-256=:" A ":, sha-256=:" A ":", false},
		{"", false},
		{"sha-256", false},
		{"sha-256=", false},
		{"sha-256=::", false},
		{"sha-256=" A, false},
		{"sha-256=:" A, false},
		{"sha-256=:" A ":x", false},
		{"sha-256=:AAAA:", false},
		{"sha-256=:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAB=:", false}, /* loose bits */
		{"sha-256=:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA :", false},
		{"SHA-256=:" A ":", false},
		{"sha-512=:AA==:", false},
		{"sha-256=:" A ":,", false},
		{",sha-256=:" A ":", false},
	};

	uint8_t sha256[32];

	(void)state;
	for (size_t i = 0; i < ARRAY_LENGTH(table); i++)
		if ((digest_field_parse(slice_str(table[i].field), sha256, NULL) == CEDE_OK) !=
			table[i].good)
			fail_msg("%s", table[i].field);
}

int main(void) {
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_path_has_one_spelling),
		cmocka_unit_test(a_nul_is_no_end),
		cmocka_unit_test(a_digest_is_sha_256_once),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
