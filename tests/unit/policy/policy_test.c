/* SPDX-License-Identifier: Apache-2.0
 * Each broken policy is the good one with one line replaced: "N> text" puts text in place of line N
 * ("" takes it away). */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "base/clock.h"
#include "policy/policy.h"
#include "tests/unit/unit.h"

#define PIN "sha256//47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU="

static const char *const good[] = {
	/*  1 */ "version: 1",
	/*  2 */ "id: anzalduas-lanes",
	/*  3 */ "serial: 7",
	/*  4 */ "expires: 2027-06-30T00:00:00Z",
	/*  5 */ "destinations:",
	/*  6 */ "  agency:",
	/*  7 */ "    url: https://intake.agency.example:8443/",
	/*  8 */ "    ca: agency-ca.pem",
	/*  9 */ "    pins: [\"" PIN "\"]",
	/* 10 */ "    addresses: [192.0.2.0/24]",
	/* 11 */ "    seal_to: [agency-seal.pem]",
	/* 12 */ "    receipts: [agency-receipts.pub]",
	/* 13 */ "sources:",
	/* 14 */ "  - name: faces",
	/* 15 */ "    path: /srv/capture/faces",
	/* 16 */ "    match: [\"**/*.jpg\", \"**/*.json\"]",
	/* 17 */ "    ignore: [\"**/.*\", \"**/*.tmp\"]",
	/* 18 */ "    destination: agency",
	/* 19 */ "    quiet: 3s",
	/* 20 */ "    group: {by: stem, require: [.jpg, .json], wait: 20s}",
	/* 21 */ "    max_age: 15m",
	/* 22 */ "    at_max_age: hold",
	/* 23 */ "    wipe: {after: seal, method: overwrite, require: none}",
	/* 24 */ "    classification: SPII",
	/* 25 */ "  - {name: plates, path: /srv/capture/plates, match: ['*.jpg'], destination: agency, max_age: 1h}",
	/* 26 */ "unmatched: {max_age: 12h, at_max_age: hold}",
	/* 27 */ "holds: []",
};

struct broken {
	unsigned line;       /* which line is replaced */
	const char *text;    /* by what; NULL: it is left out */
	const char *mistake; /* "line:column: fragment" of one of the mistakes */
};

static const struct broken table[] = {
	{1, NULL, "1:1: key \"version\" is missing"},
	{1, "version: 2", "1:10: version: must be 1 to 1"},
	{1, "version: one", "1:10: version: a whole number"},
	{1, "versoin: 1", "1:1: unknown key \"versoin\"; did you mean \"version\"?"},
	{1, "- version: 1", "2:1: no valid YAML"},
	{2, NULL, "1:1: key \"id\" is missing"},
	{2, "id: -lanes", "2:5: id: 1 to 64"},
	{2, "id: two words", "2:5: id: 1 to 64"},
	{2, "id:", "2:4: id: a text expected"},
	{2, "id: ~", "2:5: id: a text expected"},
	{2, "id: [a]", "2:5: id: a text expected"},
	{3, NULL, "1:1: key \"serial\" is missing"},
	{3, "serial: 0", "3:9: serial: must be 1 to"},
	{3, "serial: -1", "3:9: serial: a whole number"},
	{3, "serial: 07", "3:9: serial: a whole number"},
	{3, "serial: 99999999999999999999", "3:9: serial: number too large"},
	{4, NULL, "1:1: key \"expires\" is missing"},
	{4, "expires: 2027-06-31T00:00:00Z", "4:10: expires: a time in UTC"},
	{4, "expires: 2027-06-30", "4:10: expires: a time in UTC"},
	{4, "expires: 2027-06-30T00:00:00+02:00", "4:10: expires: a time in UTC"},
	{6, "  -agency:", "6:3: destination name:"},
	{6, "  agency: {}\n  other:", "6:11: key \"url\" is missing"},
	{7, NULL, "7:5: key \"url\" is missing"},
	{7, "    url: http://intake.agency.example/", "7:10: url: https:// expected"},
	{7, "    url: https://user:pw@intake.example/", "7:10: url: user names"},
	{7, "    url: https://intake.example/?q=1", "7:10: url: the path may have"},
	{7, "    url: https://intake.example/#f", "7:10: url: the path may have"},
	{7, "    url: https://intake.example/a/../b/", "7:10: url: the path may not"},
	{7, "    url: https://intake.example//b/", "7:10: url: the path may not"},
	{7, "    url: https://intake.example:0/", "7:10: url: port: 1 to 65535"},
	{7, "    url: https://intake.example:65536/", "7:10: url: port: 1 to 65535"},
	{7, "    url: \"https://intake.example:/\"", "7:10: url: a port number expected"},
	{7, "    url: https:///path/", "7:10: url: a host name"},
	{7, "    url: https://127.1/", "7:10: url: a host name"},
	{7, "    url: https://-a.example/", "7:10: url: a host name"},
	{7, "    url: https://a..example/", "7:10: url: a host name"},
	{7, "    url: https://1.2.3.4.5/", "7:10: url: a host name"},
	{7, "    url: \"https://[::1/\"", "7:10: url: an IPv6 address in brackets"},
	{7, "    url: \"https://[nonsense]/\"", "7:10: url: a host name"},
	{8, NULL, "7:5: key \"ca\" is missing"},
	{8, "    ca: null", "8:9: ca: a text expected"},
	{9, "    pins: []", "9:11: pins: at least one entry"},
	{9, "    pins: [sha256//AAAA]", "9:12: pins: \"sha256//\" and"},
	{9, "    pins: [\"sha1//47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=\"]", "9:12: pins:"},
	{9, "    pins: [\"sha256//47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFV=\"]", "9:12: pins:"},
	{9, "    pin: [x]", "9:5: unknown key \"pin\"; did you mean \"pins\"?"},
	{10, "    addresses: []", "10:16: addresses: at least one"},
	{10, "    addresses: [192.0.2.7/24]", "10:17: addresses: bits behind"},
	{10, "    addresses: [intake.example]", "10:17: addresses: an address or prefix"},
	{11, NULL, "7:5: key \"seal_to\" is missing"},
	{11, "    seal_to: []", "11:14: seal_to: at least one"},
	{11, "    seal_to: agency-seal.pem", "11:14: seal_to: a list expected"},
	{12, NULL, "7:5: key \"receipts\" is missing"},
	{12, "    receipts: [[a]]", "12:16: a text expected"},
	{12, "    receipts: [a]\n    bundle_size: 1KiB", "13:18: bundle_size: 64KiB to 48MiB"},
	{12, "    receipts: [a]\n    bundle_size: 16", "13:18: bundle_size: a size with its unit"},
	{12, "    receipts: [a]\n    bandwidth: 5MiB", "13:16: bandwidth: a rate with its unit"},
	{12, "    receipts: [a]\n    bandwidth: 5", "13:16: bandwidth: a rate with its unit"},
	{12, "    receipts: [a]\n    bandwidth: 8kbit/s", "13:16: bandwidth: at least 32KiB/s"},
	{12, "    receipts: [a]\n    bandwidth: [1Mbit/s]", "13:16: bandwidth: keys with values"},
	{12, "    receipts: [a]\n    bandwidth: {max: 1Mbit/s}", "13:17: unknown key \"max\""},
	{12, "    receipts: [a]\n    bandwidth: {windows: [5]}", "13:27: a window: keys with values"},
	{12, "    receipts: [a]\n    bandwidth: {windows: [{from: \"08:00\", to: \"18:00\"}]}",
		"13:27: key \"limit\" is missing"},
	{12, "    receipts: [a]\n    bandwidth: {windows: [{from: \"8:00\", to: \"18:00\", limit: 1Mbit/s}]}",
		"13:34: from: a time of day"},
	{12, "    receipts: [a]\n    bandwidth: {windows: [{from: \"08:60\", to: \"18:00\", limit: 1Mbit/s}]}",
		"13:34: from: a time of day"},
	{12, "    receipts: [a]\n    bandwidth: {windows: [{from: \"08:00\", to: \"24:01\", limit: 1Mbit/s}]}",
		"13:47: to: a time of day"},
	{12, "    receipts: [a]\n    bandwidth: {windows: [{from: \"22:00\", to: \"06:00\", limit: 1Mbit/s}]}",
		"13:47: to must be later than from"},
	{12, "    receipts: [a]\n    bandwidth: {windows: [{from: \"22:00\", to: \"00:00\", limit: 1Mbit/s}]}",
		"13:47: to must be later than from"},
	{12, "    receipts: [a]\n    bandwidth: {windows: [{days: [monday], from: \"08:00\", to: \"09:00\", limit: 1Mbit/s}]}",
		"13:35: days: mon, tue"},
	{12, "    receipts: [a]\n    bandwidth: {windows: [{days: [], from: \"08:00\", to: \"09:00\", limit: 1Mbit/s}]}",
		"13:34: days: at least one"},
	{14, "  - nam: faces", "14:5: unknown key \"nam\"; did you mean \"name\"?"},
	{14, "  - name: faces/1", "14:11: name: 1 to 64"},
	{14, "  - name: plates", "25:5: a second source has the name plates"},
	{15, NULL, "14:5: key \"path\" is missing"},
	{15, "    path: srv/capture", "15:11: path: an absolute path"},
	{15, "    path: /srv/../etc", "15:11: path: an absolute path"},
	{15, "    path: /srv/capture/", "15:11: path: an absolute path"},
	{15, "    path: /srv//capture", "15:11: path: an absolute path"},
	{15, "    path: /", "15:11: path: an absolute path"},
	{15, "    path: /srv/capture", "25:5: its path overlaps"},
	{15, "    path: /srv/capture/plates", "25:5: its path overlaps"},
	{15, "    path: /srv/capture/plates/deep", "25:5: its path overlaps"},
	{16, NULL, "14:5: key \"match\" is missing"},
	{16, "    mach: ['*']", "16:5: unknown key \"mach\"; did you mean \"match\"?"},
	{16, "    match: []", "16:12: match: at least one pattern"},
	{16, "    match: [/a/*.jpg]", "16:13: match: no slash at either end"},
	{16, "    match: ['a/']", "16:13: match: no slash at either end"},
	{16, "    match: ['../*.jpg']", "16:13: match: \".\" and \"..\""},
	{16, "    match: ['**.jpg']", "16:13: match: \"**\" must stand alone"},
	{16, "    match: ['a[b']", "16:13: match: \"[\" without"},
	{16, "    match: ['x[0-\\]']", "16:13: match: \"[\" without"},
	{16, "    match: ['x[0-\\']", "16:13: match: \"[\" without"},
	{16, "    match: ['a\\']", "16:13: match: a backslash"},
	{17, "    ignore: '*.tmp'", "17:13: ignore: a list expected"},
	{18, NULL, "14:5: key \"destination\" is missing"},
	{18, "    destination: agencies", "18:18: destination: there is no destination"},
	{19, "    quiet: 2", "19:12: quiet: a duration with its unit"},
	{19, "    quiet: 15m", "21:14: max_age must be longer than quiet"},
	{20, "    group: stem", "20:12: group: keys with values"},
	{20, "    group: {by: name, require: [.jpg]}", "20:17: by: one of stem"},
	{20, "    group: {by: stem}", "20:12: key \"require\" is missing"},
	{20, "    group: {by: stem, require: [jpg]}", "20:33: require: an ending"},
	{20, "    group: {by: stem, require: [.tar.gz]}", "20:33: require: an ending"},
	{20, "    group: {by: stem, require: [.jpg, .jpg]}", "20:39: require: \".jpg\" stands"},
	{20, "    group: {by: stem, require: [.jpg], wait: long}", "20:46: wait: a duration"},
	{20, "    vault: {}", "20:12: key \"epoch\" is missing"},
	{20, "    vault: 1h", "20:12: vault: keys with values"},
	{20, "    vault: {epoch: 1}", "20:20: epoch: a duration with its unit"},
	{20, "    vault: {epoch: 999ms}", "20:20: epoch: 1s to 7d expected"},
	{20, "    vault: {epoch: 169h}", "20:20: epoch: 1s to 7d expected"},
	{20, "    vault: {epoch: 1h, keys: disk}", "20:30: keys: one of wrapped, memory"},
	{20, "    vault: {epoch: 1h, leftovers: all}", "20:35: leftovers: one of keep, erase"},
	{20, "    vault: {epoch: 1h, key: x}", "20:24: unknown key \"key\"; did you mean \"keys\"?"},
	{20, "    guard: {}", "20:5: guard: not supported yet"},
	{21, NULL, "14:5: key \"max_age\" is missing"},
	{21, "    max_age: 0s", "21:14: max_age must be longer"},
	{22, "    at_max_age: burn", "22:17: at_max_age:"},
	{22, "    max_size: 0B", "22:15: max_size: 1B to 1TiB expected"},
	{22, "    max_size: 5", "22:15: max_size:"},
	{22, "    at_max_age: keep", "22:17: at_max_age: one of hold, seal, destroy"},
	{23, "    wipe: {after: never}", "23:19: after: one of receipt, seal"},
	{23, "    wipe: {method: unlink}", "23:20: method: unlink: not supported yet"},
	{23, "    wipe: {method: shred}", "23:20: method: one of"},
	{23, "    wipe: {require: shredded}", "23:21: require: one of none, "},
	{23, "    wipe: {below_requirement: ignore}",
		"23:31: below_requirement: one of wipe-and-report, "},
	{23, "    wipe: {below_requirement: []}", "23:31: below_requirement"},
	{23, "    wipe: {verify: most}", "23:20: verify: one of none, sample, all"},
	{23, "    wipe: {verify: true}", "23:20: verify: one of none, sample, all"},
	{23, "    wipe: {scrub_within: 999ms}", "23:26: scrub_within: at least 1s expected, or never"},
	{23, "    wipe: {scrub_within: 0s}", "23:26: scrub_within: at least 1s"},
	{23, "    wipe: {scrub_within: 60}", "23:26: scrub_within: "},
	{23, "    wipe: {scrub_within: Never}", "23:26: scrub_within: "},
	{23, "    wipe: {scrub_within: [never]}", "23:26: scrub_within"},
	{23, "    wipe: {scrub_within: {}}", "23:26: scrub_within"},
	{23, "    wipe: {when: now}", "23:12: unknown key \"when\""},
	{24, "    classification: 0123456789012345678901234567890123456789012345678901234567890123x",
		"24:21: classification: longer than 64"},
	{26, "unmatched: {max_age: 1}", "26:22: max_age: a duration"},
	{26, "unmatched: {at_max_age: destroy}", "26:25: at_max_age: destroy: not supported yet"},
	{27, "holds: [case-7]", "27:9: a hold: keys with values expected"},
	{27, "holds: [{id: a b, until: 2027-06-30T00:00:00Z}]", "27:14: id: 1 to 64"},
	{27, "holds: [{id: a}]", "27:9: key \"until\" is missing"},
	{27, "holds: [{id: a, until: 2027-06-30T00:00:00Z, sources: [x]}]",
		"27:56: sources: there is no source \"x\""},
	{27, "holds: [{id: a, until: 2027-06-30T00:00:00Z, sources: []}]",
		"27:55: sources: at least one entry"},
	{27, "holds: [{id: a, until: 2027-06-30T00:00:00Z, match: []}]",
		"27:53: match: at least one pattern"},
	{27, "holds: [{id: a, until: 2027-06-30T00:00:00Z, match: [/a]}]", "27:54: match: no slash"},
	{27, "holds: [{id: a, until: 2027-06-30T00:00:00Z, from: 2026-01-02T00:00:00Z, to: 2026-01-01T00:00:00Z}]",
		"27:78: to must be later than from"},
	{27, "holds: [{id: a, until: 2027-06-30T00:00:00Z}, {id: a, until: 2027-06-30T00:00:00Z}]",
		"27:47: a second hold has the id a"},
	{27, "sandbox: on", "27:10: sandbox: keys with values"},
	{27, "sandbox: {}", "27:10: key \"require\" is missing"},
	{27, "sandbox: {require: seccomp}", "27:20: require: a list expected"},
	{27, "sandbox: {require: []}", "27:20: require: at least one layer"},
	{27, "sandbox: {require: [selinux]}", "27:21: require: one of no-new-privileges,undumpable,"},
	{27, "sandbox: {require: [seccomp, landlock, seccomp]}", "27:40: require: \"seccomp\" stands"},
	{27, "sandbox: {require: [seccomp], want: [landlock]}", "27:31: unknown key \"want\""},
	{27, "guard: on", "27:8: guard: keys with values"},
	{27, "guard: {}", "27:8: key \"mode\" is missing"},
	{27, "guard: {mode: off}", "27:15: mode: one of report, enforce"},
	{27, "guard: {mode: report, deny: []}", "27:23: unknown key \"deny\""},
	{27, "guard: {mode: report, allow: []}", "27:30: allow: at least one entry"},
	{27, "guard: {mode: report, allow: [/bin/cam]}", "27:31: an allowed program: keys"},
	{27, "guard: {mode: report, allow: [{exe: /bin/cam}]}", "27:31: key \"user\" is missing"},
	{27, "guard: {mode: report, allow: [{user: cam}]}", "27:31: key \"exe\" is missing"},
	{27, "guard: {mode: report, allow: [{exe: cam, user: cam}]}", "27:37: exe: an absolute path"},
	{27, "guard: {mode: report, allow: [{exe: /bin/../cam, user: cam}]}",
		"27:37: exe: an absolute path"},
	{27, "guard: {mode: report, allow: [{exe: /bin/cam, user: \"a b\"}]}",
		"27:53: user: a user's name"},
	{27, "guard: {mode: report, allow: [{exe: /bin/cam, user: -a}]}",
		"27:53: user: a user's name"},
	{27, "guard: {mode: report, allow: [{exe: /a, user: b}, {exe: /a, user: b}]}",
		"27:51: this program and user stand here twice"},
	{27, "bandwidth: 1", "27:1: unknown key \"bandwidth\""},
	{27, "sources: []", "27:1: key \"sources\" stands here a second time"},
	{27, "--- \nversion: 1", "27:1: a second document"},
};

/* The good policy with line replaced (0: as it is); the caller frees. */
static char *policy_text(unsigned line, const char *text) {
	size_t size = 8192;
	char *out = malloc(size);
	size_t used = 0;

	assert_non_null(out);
	for (unsigned i = 1; i <= ARRAY_LENGTH(good); i++) {
		const char *s = i == line ? text : good[i - 1];
		int n = s == NULL ? 0 : snprintf(out + used, size - used, "%s\n", s);
		assert_true(n >= 0 && (size_t)n < size - used);
		used += (size_t)n;
	}
	return out;
}

static void a_good_policy_loads_whole(void **state) {
	struct policy *p = NULL;
	struct policy_mistakes mistakes;
	struct cede_error err = {0};
	char *text = policy_text(0, NULL);

	(void)state;
	if (policy_parse(slice_str(text), "p", &p, &mistakes, &err) < 0)
		fail_msg("%s", mistakes.count > 0 ? mistakes.lines[0] : err.text);
	free(text);
	assert_string_equal(p->id, "anzalduas-lanes");
	assert_int_equal(p->serial, 7);
	assert_int_equal(p->expires_ns, INT64_C(1814313600) * NS_PER_SECOND);
	assert_int_equal(p->destination_count, 1);
	const struct policy_destination *d = &p->destinations[0];
	assert_string_equal(d->name, "agency");
	assert_string_equal(d->url, "https://intake.agency.example:8443/");
	assert_string_equal(d->host, "intake.agency.example");
	assert_int_equal(d->port, 8443);
	assert_string_equal(d->pins[0], PIN);
	assert_int_equal(d->address_count, 1);
	assert_int_equal(d->bundle_size, POLICY_BUNDLE_DEFAULT);
	assert_int_equal(p->source_count, 2);
	const struct policy_source *s = &p->sources[0];
	assert_string_equal(s->path, "/srv/capture/faces");
	assert_int_equal(s->match_count, 2);
	assert_int_equal(s->match[1].where.line, 16);
	assert_int_equal(s->match[1].where.column, 25);
	assert_int_equal(s->ignore_count, 2);
	assert_int_equal(s->quiet_ns, 3 * NS_PER_SECOND);
	assert_true(s->grouped);
	assert_string_equal(s->group_require[1], ".json");
	assert_int_equal(s->group_wait_ns, 20 * NS_PER_SECOND);
	assert_int_equal(s->max_age_ns, 900 * NS_PER_SECOND);
	assert_int_equal(s->at_max_age, AT_MAX_AGE_HOLD);
	assert_true(s->wipe_after_seal);
	assert_int_equal(s->wipe_require, WIPE_REQUIRE_NONE);
	assert_string_equal(s->classification, "SPII");
	assert_int_equal(p->unmatched_max_age_ns, 12 * 3600 * NS_PER_SECOND);
	policy_mistakes_done(&mistakes);
	policy_free(p);
}

static void absent_keys_have_their_defaults(void **state) {
	static const char *const ignore[] = {"**/.*", "**/*.tmp", "**/*.part"};
	struct policy *p = NULL;
	struct policy_mistakes mistakes;
	struct cede_error err;
	char *text = policy_text(26, NULL);

	(void)state;
	assert_int_equal(policy_parse(slice_str(text), "p", &p, &mistakes, &err), CEDE_OK);
	free(text);
	const struct policy_source *s = &p->sources[1];
	assert_int_equal(s->ignore_count, ARRAY_LENGTH(ignore));
	for (size_t i = 0; i < ARRAY_LENGTH(ignore); i++)
		assert_string_equal(s->ignore[i].text, ignore[i]);
	assert_int_equal(s->quiet_ns, 2 * NS_PER_SECOND);
	assert_false(s->grouped);
	assert_int_equal(s->at_max_age, AT_MAX_AGE_SEAL);
	assert_false(s->wipe_after_seal);
	assert_int_equal(s->wipe_require, WIPE_REQUIRE_OVERWRITTEN);
	assert_string_equal(s->classification, "");
	assert_int_equal(s->where.line, 25);
	assert_int_equal(p->unmatched_max_age_ns, 24 * 3600 * NS_PER_SECOND);
	policy_mistakes_done(&mistakes);
	policy_free(p);
}

/* One limit for policy and courier (ADDRESS_URL_MAX), the slash that is added included. */
static void a_url_that_the_courier_would_not_take_is_a_mistake(void **state) {
	static const struct {
		size_t len;
		bool slash, good;
	} cases[] = {{2048, true, true}, {2047, false, true}, {2048, false, false},
		{2049, true, false}, {4000, true, false}};

	(void)state;
	for (size_t i = 0; i < ARRAY_LENGTH(cases); i++) {
		static const char start[] = "    url: https://intake.example/";
		const size_t skip = strlen("    url: ");
		struct policy *p = NULL;
		struct policy_mistakes mistakes;
		struct cede_error err;
		char line[4096];
		memset(line, 'a', sizeof line);
		memcpy(line, start, sizeof start - 1);
		if (cases[i].slash)
			line[skip + cases[i].len - 1] = '/';
		line[skip + cases[i].len] = 0;
		char *text = policy_text(7, line);
		int r = policy_parse(slice_str(text), "p", &p, &mistakes, &err);
		free(text);
		assert_int_equal(r == CEDE_OK, cases[i].good);
		if (cases[i].good)
			assert_int_equal(
				strlen(p->destinations[0].url), cases[i].len + !cases[i].slash);
		else
			assert_string_equal(
				mistakes.lines[0], "p:7:10: url: at most 2048 bytes expected");
		policy_mistakes_done(&mistakes);
		policy_free(p);
	}
}

/* What the sealer, the notes and the courier can take: a policy with more is none that an agent
 * could work by. */
static void a_list_that_is_too_long_is_a_mistake(void **state) {
	static const struct {
		unsigned line;
		const char *key;
		unsigned most;
		const char *place;
	} cases[] = {{11, "seal_to", 16, "p:11:14: "}, {12, "receipts", 64, "p:12:15: "}};

	(void)state;
	for (size_t i = 0; i < ARRAY_LENGTH(cases) * 2; i++) {
		unsigned n = cases[i / 2].most + (unsigned)i % 2;
		char line[512], want[96];
		int used = snprintf(line, sizeof line, "    %s: [k", cases[i / 2].key);
		for (unsigned k = 1; k < n; k++)
			used += snprintf(line + used, sizeof line - (size_t)used, ", k");
		(void)snprintf(line + used, sizeof line - (size_t)used, "]");
		char *text = policy_text(cases[i / 2].line, line);
		struct policy *p = NULL;
		struct policy_mistakes mistakes;
		struct cede_error err;

		int r = policy_parse(slice_str(text), "p", &p, &mistakes, &err);
		(void)snprintf(want, sizeof want, "%s%s: at most %u entries expected, not %u",
			cases[i / 2].place, cases[i / 2].key, cases[i / 2].most, n);
		if (i % 2 == 0 ? r < 0
			       : r != CEDE_ERR_INPUT || mistakes.count != 1 ||
					strcmp(mistakes.lines[0], want) != 0)
			fail_msg("%u %s: %d, %s", n, cases[i / 2].key, r,
				mistakes.count > 0 ? mistakes.lines[0] : "no mistake");
		policy_mistakes_done(&mistakes);
		policy_free(p);
		free(text);
	}
}

static void urls_are_cut_right(void **state) {
	static const struct {
		const char *text, *url, *host;
		uint16_t port;
	} urls[] = {
		{"https://a.example", "https://a.example/", "a.example", 443},
		{"https://a.example/in", "https://a.example/in/", "a.example", 443},
		{"https://localhost:9/", "https://localhost:9/", "localhost", 9},
		{"https://192.0.2.1:65535/x/", "https://192.0.2.1:65535/x/", "192.0.2.1", 65535},
		{"https://[2001:db8::1]:8443", "https://[2001:db8::1]:8443/", "2001:db8::1", 8443},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_LENGTH(urls); i++) {
		struct policy *p = NULL;
		struct policy_mistakes mistakes;
		struct cede_error err;
		char line[128];

		(void)snprintf(line, sizeof line, "    url: \"%s\"", urls[i].text);
		char *text = policy_text(7, line);
		if (policy_parse(slice_str(text), "p", &p, &mistakes, &err) < 0)
			fail_msg("%s", mistakes.lines[0]);
		assert_string_equal(p->destinations[0].url, urls[i].url);
		assert_string_equal(p->destinations[0].host, urls[i].host);
		assert_int_equal(p->destinations[0].port, urls[i].port);
		free(text);
		policy_mistakes_done(&mistakes);
		policy_free(p);
	}
}

static bool says(const struct policy_mistakes *mistakes, const char *what) {
	char start[256];

	(void)snprintf(start, sizeof start, "policy.yaml:%s", what);
	for (size_t i = 0; i < mistakes->count; i++)
		if (strncmp(mistakes->lines[i], start, strlen(start)) == 0)
			return true;
	return false;
}

static void each_mistake_is_named_with_its_place(void **state) {
	size_t wrong = 0;

	(void)state;
	_Static_assert(ARRAY_LENGTH(table) >= 130, "each kind of mistake has its case");
	for (size_t i = 0; i < ARRAY_LENGTH(table); i++) {
		struct policy *p = NULL;
		struct policy_mistakes mistakes;
		struct cede_error err;
		char *text = policy_text(table[i].line, table[i].text);
		int r = policy_parse(slice_str(text), "policy.yaml", &p, &mistakes, &err);

		if (r != CEDE_ERR_INPUT || p != NULL || !says(&mistakes, table[i].mistake))
			print_error("line %u \"%s\"\nsays %s\nnot  %s\n", table[i].line,
				table[i].text != NULL ? table[i].text : "(none)",
				mistakes.count > 0 ? mistakes.lines[0] : "nothing", table[i].mistake);
		wrong += r != CEDE_ERR_INPUT || !says(&mistakes, table[i].mistake);
		policy_free(p);
		free(text);
		policy_mistakes_done(&mistakes);
	}
	assert_int_equal(wrong, 0);
}

static void all_mistakes_come_at_once(void **state) {
	static const char text[] = "version: 3\nid: x\nserial: 0\nexpires: soon\ndestinations: {}\n"
				   "sources: [{}, 5]\n";
	struct policy *p = NULL;
	struct policy_mistakes mistakes;
	struct cede_error err;

	(void)state;
	assert_int_equal(
		policy_parse(SLICE_LIT(text), "policy.yaml", &p, &mistakes, &err), CEDE_ERR_INPUT);
	assert_true(says(&mistakes, "1:10: version"));
	assert_true(says(&mistakes, "3:9: serial"));
	assert_true(says(&mistakes, "4:10: expires"));
	assert_true(says(&mistakes, "5:15: destinations: at least one"));
	assert_true(says(&mistakes, "6:11: key \"name\" is missing"));
	assert_true(says(&mistakes, "6:15: a source"));
	policy_mistakes_done(&mistakes);
}

static void what_cannot_be_read_is_io(void **state) {
	struct policy *p = NULL;
	struct policy_mistakes mistakes;
	struct cede_error err;

	(void)state;
	assert_int_equal(policy_load("/nonexistent/policy.yaml", &p, &mistakes, &err), CEDE_ERR_IO);
	assert_int_equal(mistakes.count, 0);
	policy_mistakes_done(&mistakes);
}

int main(void) {
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_good_policy_loads_whole),
		cmocka_unit_test(absent_keys_have_their_defaults),
		cmocka_unit_test(a_url_that_the_courier_would_not_take_is_a_mistake),
		cmocka_unit_test(a_list_that_is_too_long_is_a_mistake),
		cmocka_unit_test(urls_are_cut_right),
		cmocka_unit_test(each_mistake_is_named_with_its_place),
		cmocka_unit_test(all_mistakes_come_at_once),
		cmocka_unit_test(what_cannot_be_read_is_io),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
