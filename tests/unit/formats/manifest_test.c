/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <string.h>

#include "base/check.h"
#include "base/clock.h"
#include "formats/manifest.h"
#include "formats/utf8.h"
#include "tests/unit/certs/tool.h"

#define ID     "0193577c-5b38-7e11-8000-0123456789ab"
#define SHA256 "0000000000000000000000000000000000000000000000000000000000000000"
#define HEAD                                                                                               \
	"{\"type\":\"cede-manifest/1\",\"bundle\":\"" ID                                                   \
	"\",\"host\":\"h\",\"policy\":{\"id\":\"p\","                                                      \
	"\"serial\":1},\"created\":\"2026-11-23T07:52:27Z\",\"ledger\":{\"sequence\":1,\"hash\":\"" SHA256 \
	"\"},\"seal\":\"cms-aes256gcm/1\",\"entries\":["
#define TAIL         "]}"
#define CAPTURE      "\"capture\":\"" ID "\","
#define REST         ",\"size\":5,\"sha256\":\"" SHA256 "\",\"mtime_ns\":1"
#define ENTRY(names) HEAD "{" CAPTURE names REST "}" TAIL
#define SEGMENT(s) \
	HEAD "{" CAPTURE "\"source\":\"s\",\"path\":\"a\"" REST ",\"segment\":" s "}" TAIL

static struct manifest_entry entry(const char *path, size_t len) {
	struct manifest_entry e = {.source = SLICE_LIT("faces"),
		.path = slice_of(path, len),
		.size = 7,
		.segment_count = 1,
		.segment_size = 7,
		.mtime_ns = INT64_C(1700000000123456789)};

	assert_int_equal(id_make(clock_wall_ns(), &e.capture, NULL), 0);
	memset(e.sha256, 0xab, sizeof e.sha256);
	return e;
}

static struct manifest of(const struct manifest_entry *entries, size_t count) {
	struct manifest m = {.host = SLICE_LIT("lane-1"),
		.policy_id = SLICE_LIT("lanes \"a\\b\" \xc3\xa4"),
		.policy_serial = 7,
		.created_ns = clock_wall_ns(),
		.ledger_sequence = INT64_MAX,
		.entries = entries,
		.count = count};

	assert_int_equal(id_make(m.created_ns, &m.bundle, NULL), 0);
	memset(m.ledger_hash, 0xcd, sizeof m.ledger_hash);
	if (count % 2 == 0)
		m.checkpoint = SLICE_LIT("cede-checkpoint/1/lane-1\n1\n");
	return m;
}

static void same_entry(const struct manifest_entry *a, const struct manifest_entry *b) {
	assert_true(id_equal(&a->capture, &b->capture));
	assert_true(slice_equal(a->source, b->source));
	assert_true(slice_equal(a->path, b->path));
	assert_true(slice_equal(a->group, b->group));
	assert_true(slice_equal(a->classification, b->classification));
	assert_int_equal(a->size, b->size);
	assert_memory_equal(a->sha256, b->sha256, 32);
	assert_true(a->mtime_ns == b->mtime_ns);
	assert_int_equal(a->segment_index, b->segment_index);
	assert_int_equal(a->segment_count, b->segment_count);
	assert_int_equal(a->segment_offset, b->segment_offset);
	assert_int_equal(a->segment_size, b->segment_size);
}

static void round_trip(const struct manifest *m) {
	CLEANUP(buf_done) struct buf json = BUF_INIT(MANIFEST_SIZE_MAX);
	CLEANUP(manifest_read_freep) struct manifest_read *read = NULL;
	struct cede_error err = {0};

	assert_int_equal(manifest_write(m, &json, &err), 0);
	int r = manifest_read(buf_slice(&json), &read, &err);
	if (r < 0)
		(void)fprintf(stderr, "%s\n", err.text);
	assert_int_equal(r, 0);
	const struct manifest *b = manifest_peek(read);
	buf_done(&json); /* nothing points into the text */
	assert_true(id_equal(&b->bundle, &m->bundle));
	assert_true(slice_equal(b->host, m->host));
	assert_true(slice_equal(b->policy_id, m->policy_id));
	assert_int_equal(b->policy_serial, m->policy_serial);
	assert_true(b->created_ns == m->created_ns);
	assert_int_equal(b->ledger_sequence, m->ledger_sequence);
	assert_memory_equal(b->ledger_hash, m->ledger_hash, 32);
	assert_true(slice_equal(b->checkpoint, m->checkpoint));
	assert_int_equal(b->count, m->count);
	for (size_t i = 0; i < m->count; i++)
		same_entry(&b->entries[i], &m->entries[i]);
}

static void test_names(void **state) {
	const struct slice names[] = {SLICE_LIT("a.jpg"), SLICE_LIT("a/b/c.json"),
		SLICE_LIT("quote\" back\\slash \xc3\xa4 \xf0\x9f\x9a\x97.jpg"),
		SLICE_LIT("new\nline"), SLICE_LIT("\xff\xfe\x80.jpg"), SLICE_LIT("\xed\xa0\x80"),
		SLICE_LIT("\xc0\xaf"), SLICE_LIT("tab\t"), SLICE_LIT("..."), SLICE_LIT(".x"),
		SLICE_LIT("a..b/..c"), SLICE_LIT(" "), SLICE_LIT("\x7f"), SLICE_LIT("\xc2\x85"),
		SLICE_LIT("</script>"), SLICE_LIT("e\xcc\x81")};
	struct manifest_entry entries[ARRAY_LENGTH(names)];
	(void)state;
	for (size_t i = 0; i < ARRAY_LENGTH(names); i++) {
		entries[i] = entry((const char *)names[i].data, names[i].len);
		if (i % 2 == 0)
			entries[i].group = names[i];
		if (i % 3 == 0)
			entries[i].classification = SLICE_LIT("SPII \"x\"");
	}
	struct manifest m = of(entries, ARRAY_LENGTH(entries));
	round_trip(&m);
}

static void test_numbers(void **state) {
	static const int64_t times[] = {0, 1, -1, INT64_MIN, INT64_MAX};
	struct manifest_entry entries[ARRAY_LENGTH(times) + 2];
	(void)state;
	for (size_t i = 0; i < ARRAY_LENGTH(times); i++) {
		entries[i] = entry("a", 1);
		entries[i].mtime_ns = times[i];
		entries[i].size = entries[i].segment_size = i;
	}
	struct manifest_entry *s = &entries[ARRAY_LENGTH(times)];
	s[0] = s[1] = entry("big", 3);
	s[0].size = s[1].size = INT64_MAX;
	s[0].segment_count = s[1].segment_count = MANIFEST_SEGMENTS_MAX;
	s[1].segment_index = MANIFEST_SEGMENTS_MAX - 1;
	s[1].segment_offset = INT64_MAX - 7;
	struct manifest m = of(entries, ARRAY_LENGTH(entries));
	round_trip(&m);
}

static void test_names_of_members(void **state) {
	static char long_part[255];
	CLEANUP(buf_done) struct buf name = BUF_INIT(8192);
	struct manifest_entry e = entry("d/a.jpg", 7);
	struct cede_error err;
	(void)state;
	assert_int_equal(manifest_member_name(&e, &name, &err), 0);
	assert_true(slice_is(buf_slice(&name), "faces/d/a.jpg"));
	e.segment_count = 42;
	buf_clear(&name);
	assert_int_equal(manifest_member_name(&e, &name, &err), 0);
	assert_true(slice_is(buf_slice(&name), "faces/d/a.jpg.segment-000001-of-000042"));
	memset(long_part, 'n', sizeof long_part);
	e.path = slice_of(long_part, sizeof long_part);
	assert_int_equal(id_parse(SLICE_LIT(ID), &e.capture, &err), 0);
	buf_clear(&name);
	assert_int_equal(manifest_member_name(&e, &name, &err), 0);
	assert_true(slice_is(buf_slice(&name), "faces/" ID ".segment-000001-of-000042"));
}

static void test_writer_refuses(void **state) {
	const struct {
		const char *what;
		struct slice source, path;
	} cases[] = {{"empty path", SLICE_LIT("s"), {NULL, 0}},
		{"absolute", SLICE_LIT("s"), SLICE_LIT("/a")},
		{"up", SLICE_LIT("s"), SLICE_LIT("../a")},
		{"up inside", SLICE_LIT("s"), SLICE_LIT("a/../b")},
		{"up at the end", SLICE_LIT("s"), SLICE_LIT("a/..")},
		{"only up", SLICE_LIT("s"), SLICE_LIT("..")},
		{"here", SLICE_LIT("s"), SLICE_LIT("./a")},
		{"empty part", SLICE_LIT("s"), SLICE_LIT("a//b")},
		{"slash at the end", SLICE_LIT("s"), SLICE_LIT("a/")},
		{"NUL", SLICE_LIT("s"), {(const uint8_t *)"a\0b", 3}},
		{"no source", {NULL, 0}, SLICE_LIT("a")},
		{"source with slash", SLICE_LIT("s/t"), SLICE_LIT("a")},
		{"source up", SLICE_LIT(".."), SLICE_LIT("a")},
		{"source here", SLICE_LIT("."), SLICE_LIT("a")},
		{"source not text", SLICE_LIT("\xff"), SLICE_LIT("a")},
		{"source of the manifest", SLICE_LIT("manifest.json"), SLICE_LIT("a")}};

	(void)state;
	for (size_t i = 0; i < ARRAY_LENGTH(cases); i++) {
		CLEANUP(buf_done) struct buf json = BUF_INIT(MANIFEST_SIZE_MAX);
		struct manifest_entry e = entry("a", 1);
		struct cede_error err = {0};
		e.source = cases[i].source;
		e.path = cases[i].path;
		struct manifest m = of(&e, 1);
		if (manifest_write(&m, &json, &err) != CEDE_ERR_INPUT)
			fail_msg("%s", cases[i].what);
		assert_int_equal(json.len, 0);
	}
}

static void test_writer_refuses_numbers(void **state) {
	static const struct {
		uint64_t size, offset, segment_size;
		uint32_t index, count;
	} cases[] = {{5, 0, 5, 0, 0}, {5, 0, 4, 0, 1}, {5, 1, 4, 0, 1}, {5, 0, 6, 0, 1},
		{5, 0, 5, 1, 1}, {5, 0, 2, 2, 2}, {5, 0, 2, 1, 2}, {5, 1, 2, 0, 2}, {5, 2, 2, 1, 2},
		{5, 2, 4, 1, 2}, {5, 0, 0, 0, 2}, {UINT64_MAX, 0, UINT64_MAX, 0, 1},
		{5, UINT64_MAX, 3, 1, 2}, {5, 0, 2, 0, MANIFEST_SEGMENTS_MAX + 1}};

	(void)state;
	for (size_t i = 0; i < ARRAY_LENGTH(cases); i++) {
		CLEANUP(buf_done) struct buf json = BUF_INIT(MANIFEST_SIZE_MAX);
		struct manifest_entry e = entry("a", 1);
		struct cede_error err;
		e.size = cases[i].size;
		e.segment_offset = cases[i].offset;
		e.segment_size = cases[i].segment_size;
		e.segment_index = cases[i].index;
		e.segment_count = cases[i].count;
		struct manifest m = of(&e, 1);
		if (manifest_write(&m, &json, &err) != CEDE_ERR_INPUT)
			fail_msg("case %zu", i);
	}
	struct manifest none = of(NULL, 0);
	CLEANUP(buf_done) struct buf json = BUF_INIT(MANIFEST_SIZE_MAX);
	assert_int_equal(manifest_write(&none, &json, NULL), CEDE_ERR_INPUT);
}

static void test_reader(void **state) {
	static const struct {
		const char *what;
		const char *json;
		int expected;
	} cases[] = {
		{"good", ENTRY("\"source\":\"s\",\"path\":\"a\""), CEDE_OK},
		{"escapes", ENTRY("\"source\":\"s\",\"path\":\"\\u0061\\/b\""), CEDE_OK},
		{"base64", ENTRY("\"source\":\"s\",\"path_base64\":\"/w==\""), CEDE_OK},
		{"segment", SEGMENT("{\"index\":1,\"count\":2,\"offset\":3,\"size\":2}"), CEDE_OK},
		{"nothing", "", CEDE_ERR_INPUT},
		{"no JSON", "{", CEDE_ERR_INPUT},
		{"a list", "[]", CEDE_ERR_INPUT},
		{"empty object", "{}", CEDE_ERR_INPUT},
		{"no entries", HEAD TAIL, CEDE_ERR_INPUT},
		{"bytes behind", ENTRY("\"source\":\"s\",\"path\":\"a\"") "x", CEDE_ERR_INPUT},
		{"both names", ENTRY("\"source\":\"s\",\"path\":\"a\",\"path_base64\":\"YQ==\""),
			CEDE_ERR_INPUT},
		{"no name", ENTRY("\"source\":\"s\""), CEDE_ERR_INPUT},
		{"duplicate key", ENTRY("\"source\":\"s\",\"path\":\"a\",\"path\":\"b\""),
			CEDE_ERR_INPUT},
		{"unknown key", ENTRY("\"source\":\"s\",\"path\":\"a\",\"x\":1"), CEDE_ERR_INPUT},
		{"null", ENTRY("\"source\":\"s\",\"path\":\"a\",\"group\":null"), CEDE_ERR_INPUT},
		{"name is a number", ENTRY("\"source\":\"s\",\"path\":1"), CEDE_ERR_INPUT},
		{"NUL", ENTRY("\"source\":\"s\",\"path\":\"a\\u0000b\""), CEDE_ERR_INPUT},
		{"NUL in base64", ENTRY("\"source\":\"s\",\"path_base64\":\"YQBi\""), CEDE_ERR_INPUT},
		{"bad base64", ENTRY("\"source\":\"s\",\"path_base64\":\"YQ=\""), CEDE_ERR_INPUT},
		{"lone surrogate", ENTRY("\"source\":\"s\",\"path\":\"\\ud800\""), CEDE_ERR_INPUT},
		{"absolute", ENTRY("\"source\":\"s\",\"path\":\"/etc/passwd\""), CEDE_ERR_INPUT},
		{"up", ENTRY("\"source\":\"s\",\"path\":\"a/../../b\""), CEDE_ERR_INPUT},
		{"up in base64", ENTRY("\"source\":\"s\",\"path_base64\":\"Li4vYQ==\""),
			CEDE_ERR_INPUT},
		{"source up", ENTRY("\"source\":\"..\",\"path\":\"a\""), CEDE_ERR_INPUT},
		{"source escaped slash", ENTRY("\"source\":\"a\\/b\",\"path\":\"a\""), CEDE_ERR_INPUT},
		{"segment of one", SEGMENT("{\"index\":0,\"count\":1,\"offset\":0,\"size\":5}"),
			CEDE_ERR_INPUT},
		{"segment too far", SEGMENT("{\"index\":2,\"count\":2,\"offset\":3,\"size\":2}"),
			CEDE_ERR_INPUT},
		{"segment too long", SEGMENT("{\"index\":1,\"count\":2,\"offset\":3,\"size\":3}"),
			CEDE_ERR_INPUT},
		{"negative", SEGMENT("{\"index\":1,\"count\":2,\"offset\":-3,\"size\":8}"),
			CEDE_ERR_INPUT},
		{"fraction", SEGMENT("{\"index\":1.0,\"count\":2,\"offset\":3,\"size\":2}"),
			CEDE_ERR_INPUT},
		{"more in the segment",
			SEGMENT("{\"index\":1,\"count\":2,\"offset\":3,\"size\":2,\"x\":0}"),
			CEDE_ERR_INPUT},
		{"entry is a list", HEAD "[]" TAIL, CEDE_ERR_INPUT},
		{"entry misses all", HEAD "{}" TAIL, CEDE_ERR_INPUT},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_LENGTH(cases); i++) {
		CLEANUP(manifest_read_freep) struct manifest_read *read = NULL;
		struct cede_error err = {0};
		int r = manifest_read(slice_str(cases[i].json), &read, &err);
		if (r != cases[i].expected)
			fail_msg("%s: %d %s", cases[i].what, r, err.text);
	}
}

/* I9: whatever is wrong, its text never quotes a name. */
static void test_errors_quote_no_names(void **state) {
	static const char *const cases[] = {ENTRY("\"source\":\"s\",\"path\":\"PLATE\" x"),
		ENTRY("\"source\":\"s\",\"path\":\"/PLATE\""),
		ENTRY("\"source\":\"s\",\"path\":\"PLATE\",\"PLATE\":1"),
		ENTRY("\"source\":\"s\",\"PLATE\":1,\"PLATE\":1"),
		ENTRY("\"source\":\"s\",\"path_base64\":\"PLATE\"")};
	(void)state;
	for (size_t i = 0; i < ARRAY_LENGTH(cases); i++) {
		CLEANUP(manifest_read_freep) struct manifest_read *read = NULL;
		struct cede_error err = {0};
		assert_int_equal(manifest_read(slice_str(cases[i]), &read, &err), CEDE_ERR_INPUT);
		assert_null(strstr(err.text, "PLATE"));
	}
}

static void test_deep_and_cut(void **state) {
	static const char good[] = ENTRY("\"source\":\"s\",\"path\":\"a\"");
	CLEANUP(buf_done) struct buf deep = BUF_INIT(1U << 20);
	CLEANUP(manifest_read_freep) struct manifest_read *read = NULL;
	struct cede_error err;
	(void)state;
	for (size_t len = 0; len < sizeof good - 1; len++)
		assert_int_equal(manifest_read(slice_of(good, len), &read, &err), CEDE_ERR_INPUT);
	for (int i = 0; i < 100000; i++)
		assert_int_equal(buf_add(&deep, "[", 1, &err), 0);
	assert_int_equal(manifest_read(buf_slice(&deep), &read, &err), CEDE_ERR_INPUT);
}

/* "[{},{},...]" would take a hundred times its size: it is refused before it is parsed. */
static void test_too_much(void **state) {
	static const struct {
		const char *start, *again;
		bool refused;
	} cases[] = {{"[{}", ",{}", true}, {"[0", ",0", true}, {"\"", "{[,", false},
		{"\"", "\\\"{", false}};

	(void)state;
	for (size_t i = 0; i < ARRAY_LENGTH(cases); i++) {
		CLEANUP(buf_done) struct buf text = BUF_INIT(MANIFEST_SIZE_MAX);
		CLEANUP(manifest_read_freep) struct manifest_read *read = NULL;
		struct cede_error err;
		assert_int_equal(buf_add_str(&text, cases[i].start, NULL), CEDE_OK);
		for (size_t n = 0; n < 300000; n++)
			assert_int_equal(buf_add_str(&text, cases[i].again, NULL), CEDE_OK);
		assert_int_equal(manifest_read(buf_slice(&text), &read, &err), CEDE_ERR_INPUT);
		assert_true((strstr(err.text, "more in it than belongs there") != NULL) ==
			cases[i].refused);
	}
}

static void test_utf8(void **state) {
	const struct {
		struct slice text;
		bool expected;
	} cases[] = {{{NULL, 0}, true}, {SLICE_LIT("a \xc3\xa4 \xe2\x82\xac \xf0\x9f\x9a\x97"), true},
		{SLICE_LIT("\xf4\x8f\xbf\xbf"), true}, {SLICE_LIT("\xf4\x90\x80\x80"), false},
		{SLICE_LIT("\xc1\xbf"), false}, {SLICE_LIT("\xe0\x9f\xbf"), false},
		{SLICE_LIT("\xe0\xa0\x80"), true}, {SLICE_LIT("\xf0\x8f\xbf\xbf"), false},
		{SLICE_LIT("\xed\x9f\xbf"), true}, {SLICE_LIT("\xed\xbf\xbf"), false},
		{SLICE_LIT("\xc3"), false}, {SLICE_LIT("\xe2\x82"), false},
		{SLICE_LIT("\x80"), false}, {SLICE_LIT("\xff"), false}, {SLICE_LIT("a\n"), false},
		{SLICE_LIT("\x1f"), false}, {SLICE_LIT("\x7f"), false},
		{SLICE_LIT("\xc2\x80"), false}, {SLICE_LIT("\xc2\x9f"), false},
		{SLICE_LIT("\xc2\xa0"), true}};

	(void)state;
	for (size_t i = 0; i < ARRAY_LENGTH(cases); i++)
		if (utf8_plain(cases[i].text) != cases[i].expected)
			fail_msg("case %zu", i);
}

int main(void) {
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_names),
		cmocka_unit_test(test_numbers), cmocka_unit_test(test_too_much),
		cmocka_unit_test(test_names_of_members), cmocka_unit_test(test_writer_refuses),
		cmocka_unit_test(test_writer_refuses_numbers), cmocka_unit_test(test_reader),
		cmocka_unit_test(test_errors_quote_no_names), cmocka_unit_test(test_deep_and_cut),
		cmocka_unit_test(test_utf8)};

	return cmocka_run_group_tests_name("manifest", tests, NULL, NULL);
}
