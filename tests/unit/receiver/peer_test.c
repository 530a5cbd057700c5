/* SPDX-License-Identifier: Apache-2.0
 * The host id in the subject that a front tells: read in one way, or refused. */
#include <string.h>

#include "base/check.h"
#include "receiver/peer.h"
#include "tests/unit/unit.h"

#define X16 "xxxxxxxxxxxxxxxx"
#define X64 X16 X16 X16 X16

static const struct {
	const char *subject, *host; /* NULL: refused */
} table[] = {
	{"CN=lane-1", "lane-1"},
	{"CN=lane-1,O=Example,C=US", "lane-1"},
	{"C=US,O=Example Imaging,CN=lane.1", "lane.1"},
	{"/C=US/O=Example/CN=lane_1", "lane_1"},
	{"/CN=lane-1", "lane-1"},
	{"CN=" X64, X64},
	{"O=CN,CN=a", "a"},
	{"CN=" X64 "x", NULL},
	{"", NULL},
	{"/", NULL},
	{",", NULL},
	{"O=Example", NULL},
	{"CN=", NULL},
	{"CN=,O=x", NULL},
	{"cn=a", NULL},
	{" CN=a", NULL},
	{"CN =a", NULL},
	{"CN= a", NULL},
	{"CN=a ", NULL},
	{"CN=a b", NULL},
	{"CN=a,CN=b", NULL},
	{"CN=a,O=x,CN=a", NULL},
	{"/CN=a/CN=b", NULL},
	{"CN=a\\,CN=b", NULL},
	{"O=x\\,CN=a,CN=b", NULL},
	{"O=\"x,CN=a\",CN=b", NULL},
	{"O=a+CN=b", NULL},
	{"CN=a+CN=b", NULL},
	{"CN=.", NULL},
	{"CN=..", NULL},
	{"CN=.hidden", NULL},
	{"CN=-x", NULL},
	{"CN=../x", NULL},
	{"CN=a/b", NULL},
	{"CN=a\tb", NULL},
	{"CN=a\nb", NULL},
	{"CN=l\xc3\xa4ne", NULL},
	{"CN=#0c01", NULL},
	{"CN=a%2f", NULL},
};

static void a_subject_names_one_host_or_none(void **state) {
	(void)state;
	for (size_t i = 0; i < ARRAY_LENGTH(table); i++) {
		char host[HOST_ID_MAX + 1] = "";
		struct cede_error err = {0};
		int r = peer_subject(slice_str(table[i].subject), host, &err);

		if (table[i].host == NULL ? r != CEDE_ERR_REFUSED || host[0] != 0
					  : r != CEDE_OK || strcmp(host, table[i].host) != 0)
			fail_msg("%s: %d \"%s\"", table[i].subject, r, host);
		/* the words are ours: they go to the log */
		if (r < 0 && strlen(table[i].subject) > 4)
			assert_null(strstr(err.text, table[i].subject));
	}
}

static void a_nul_is_no_end(void **state) {
	static const char subject[] = "CN=a\0b";
	char host[HOST_ID_MAX + 1];

	(void)state;
	assert_int_equal(
		peer_subject(slice_of(subject, sizeof subject - 1), host, NULL), CEDE_ERR_REFUSED);
}

static void a_long_subject_is_refused(void **state) {
	static char subject[2048];
	char host[HOST_ID_MAX + 1];

	(void)state;
	memset(subject, 'x', sizeof subject);
	memcpy(subject, "CN=a,O=", 7);
	assert_int_equal(peer_subject(slice_of(subject, 1024), host, NULL), CEDE_OK);
	assert_int_equal(peer_subject(slice_of(subject, 1025), host, NULL), CEDE_ERR_REFUSED);
}

int main(void) {
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_subject_names_one_host_or_none),
		cmocka_unit_test(a_nul_is_no_end),
		cmocka_unit_test(a_long_subject_is_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
