/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <string.h>

#include "agent/watch/lives.h"
#include "base/check.h"
#include "tests/unit/unit.h"

/* What happens, one letter each, to the files a, b and c of source 0; then: is the life of b whole?
 *   m made  u made, where a name may have escaped notice   w written to 100 bytes  W to 200  v to
 * 50  ? size not seen c closed  > a moves to b  < b moves to a  ! b moves to c and back  x another
 * cookie  i comes from nowhere o a moves to where names may have escaped notice  d ended  f found
 * by a walk  g events lost  D directory moved A letter is about b, behind 'A' about a. */
struct story {
	const char *name, *events;
	bool whole;
};

static const struct story stories[] = {
	{"never seen", "", false},
	{"made, written, closed", "mwWc", true},
	{"made and closed: empty", "mc", true},
	{"sizes that were not seen", "m?w?c", true},
	{"still open", "mw", false},
	{"made where a name may have escaped notice", "uwc", false},
	{"made and not written: a link to another file", "m", false},
	{"written to, never made", "wc", false},
	{"written after it was closed", "mwcw", false},
	{"opened for writing again, and nothing written", "mwcc", false},
	{"opened again and written to its end", "mwcWc", false},
	{"shrunk in the one opening", "mWwc", false},
	{"shrunk and grown again", "mWvWc", false},
	{"grows only", "mvwWc", true},
	{"cut by its name, without an opening", "mwcv", false},
	{"a temporary name, then its own", "AmAwAc>", true},
	{"renamed while it is open", "AmAw>c", true},
	{"renamed while it is open, shrunk after that", "AmAW>wc", false},
	{"away and back", "mwc!", true},
	{"renamed over another", "mwcAmAwAc>", false},
	{"renamed over one that a walk found", "fAmAwAc>", false},
	{"renamed over one that is gone", "mwcdAmAwAc>", true},
	{"a move of which the half was seen", "AmAwAcx", false},
	{"from elsewhere", "i", false},
	{"from elsewhere, then written", "iwc", false},
	{"to where a name may have escaped notice", "AmAwAco", false},
	{"made twice without an end", "mwcmwc", false},
	{"ended and made again", "mwcdmwc", true},
	{"ended", "mwcd", false},
	{"found by a walk after it was made", "mwcf", true},
	{"found by a walk before", "fmwc", false},
	{"events lost", "mwcg", false},
	{"events lost in the midst", "mwgWc", false},
	{"after events were lost", "mwcgdmwc", true},
	{"its directory moved", "mwcD", false},
};

static void one(struct lives *l, char what, const char *path) {
	switch (what) {
	case 'm':
	case 'u':
		assert_true(lives_made(l, 0, path, 77, what == 'm'));
		break;
	case 'w':
	case 'W':
	case 'v':
	case '?':
		lives_written(l, 0, path,
			what == 'w'           ? 100
				: what == 'W' ? 200
				: what == 'v' ? 50
					      : UINT64_MAX);
		break;
	case 'c':
		lives_closed(l, 0, path);
		break;
	case '>':
	case 'x':
	case 'o':
		lives_left(l, 0, "dir/a", 5);
		assert_true(lives_came(l, 0, path, what == 'x' ? 6 : 5, what != 'o'));
		break;
	case '!':
		lives_left(l, 0, path, 8);
		lives_left(l, 0, "dir/other", 3); /* one that is not known, in between */
		assert_true(lives_came(l, 0, "dir/c", 8, true));
		lives_left(l, 0, "dir/c", 9);
		assert_true(lives_came(l, 0, path, 9, true));
		break;
	case 'i':
		assert_true(lives_came(l, 0, path, 4, true));
		break;
	case 'd':
		lives_ended(l, 0, path);
		break;
	case 'f':
		assert_true(lives_found(l, 0, path));
		break;
	case 'g':
		lives_clear(l);
		break;
	case 'D':
		lives_ended_below(l, 0, "dir");
		break;
	default:
		fail_msg("unknown letter %c", what);
	}
}

static void a_life_is_whole_only_if_all_of_it_was_seen(void **state) {
	(void)state;
	for (size_t i = 0; i < ARRAY_LENGTH(stories); i++) {
		struct lives *l = NULL;
		int64_t since = 0;

		assert_int_equal(lives_new(&l, NULL), CEDE_OK);
		assert_true(lives_made(l, 1, "dir/b", 1, true)); /* of another source */
		for (const char *e = stories[i].events; *e != 0; e++) {
			bool other = *e == 'A';
			e += other;
			one(l, *e, other ? "dir/a" : "dir/b");
		}
		if (lives_whole(l, 0, "dir/b", &since) != stories[i].whole)
			fail_msg("%s", stories[i].name);
		if (stories[i].whole)
			assert_int_equal(since, 77);
		assert_false(lives_whole(l, 1, "dir/b", &since));
		lives_free(l);
	}
}

static void there_is_an_end_to_what_is_kept_in_mind(void **state) {
	struct lives *l = NULL;
	char path[32];
	int64_t since;

	(void)state;
	assert_int_equal(lives_new(&l, NULL), CEDE_OK);
	for (size_t i = 0; i < LIVES_MAX; i++) {
		(void)snprintf(path, sizeof path, "%zu", i);
		assert_true(lives_made(l, 0, path, 1, true));
	}
	assert_false(lives_made(l, 0, "one more", 1, true));
	assert_false(lives_found(l, 0, "one more"));
	assert_true(lives_found(l, 0, "7"));
	lives_closed(l, 0, "one more");
	assert_false(lives_whole(l, 0, "one more", &since));
	lives_ended(l, 0, "7");
	assert_true(lives_made(l, 0, "one more", 1, true));
	assert_int_equal(lives_count(l), LIVES_MAX);
	lives_clear(l);
	assert_int_equal(lives_count(l), 0);
	lives_free(l);
	lives_free(NULL);
}

int main(void) {
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_life_is_whole_only_if_all_of_it_was_seen),
		cmocka_unit_test(there_is_an_end_to_what_is_kept_in_mind),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
